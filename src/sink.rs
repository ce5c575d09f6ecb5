//! Where run updates go: into a log, or nowhere but into a count (a dry run).

use std::path::Path;

use crate::model::{LogPosition, RunUpdate};
use crate::wandb_format::{LogError, LogWriter, encode};

/// The end of the left half.
#[derive(Debug)]
pub enum Sink {
    /// Appends to a log.
    Log(Box<LogSink>),
    /// Touches nothing: a dry run.
    Nothing,
}

/// A log, and the buffer that records are encoded in.
#[derive(Debug)]
pub struct LogSink {
    writer: LogWriter,
    body: Vec<u8>,
    /// Whether the records that come right after the first run record are still to be written.
    new: bool,
}

impl Sink {
    /// Makes a log; there must be none at `path`.
    pub fn create(path: &Path) -> Result<Self, LogError> {
        let mut body = Vec::new();
        encode::header(&mut body);
        let mut writer = LogWriter::create(path)?;
        writer.append_encoded(&body)?;
        Ok(Self::Log(Box::new(LogSink { writer, body, new: true })))
    }

    /// Cuts a log back to a position, and goes on from there.
    pub fn open_at(path: &Path, position: LogPosition, next_num: i64) -> Result<Self, LogError> {
        let writer = LogWriter::open_at(path, position, next_num)?;
        Ok(Self::Log(Box::new(LogSink { writer, body: Vec::new(), new: false })))
    }

    /// Appends an update. It is durable after the next [`sync`](Self::sync).
    pub fn write(&mut self, update: &RunUpdate) -> Result<(), LogError> {
        let Self::Log(log) = self else { return Ok(()) };
        log.append(|body| encode::update(update, body))?;
        match update {
            // The official client panics on records that change a run it has not seen, so these follow it.
            RunUpdate::Run(run) if log.new => {
                log.new = false;
                log.append(encode::telemetry)?;
                log.append(|body| encode::environment(&run.host.0, run.start_time, body))
            }
            _ => Ok(()),
        }
    }

    /// Makes all that was written durable.
    pub fn sync(&mut self) -> Result<(), LogError> {
        match self {
            Self::Log(log) => log.writer.sync(),
            Self::Nothing => Ok(()),
        }
    }

    /// The end of the last update, and the number of the next record.
    pub fn position(&self) -> (LogPosition, i64) {
        match self {
            Self::Log(log) => (log.writer.position(), log.writer.next_num()),
            Self::Nothing => (LogPosition(0), 1),
        }
    }
}

impl LogSink {
    fn append(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), LogError> {
        self.body.clear();
        encode(&mut self.body);
        self.writer.append_encoded(&self.body)
    }
}
