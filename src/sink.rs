//! Where run updates go: into a log, or nowhere but into a count (a dry run).

use std::path::Path;

use crate::model::{LogPosition, RunUpdate};
use crate::wandb_format::{LogError, LogWriter, RecordEncoder, environment_record, header_record, telemetry_record};

/// The end of the left half.
#[derive(Debug)]
pub enum Sink {
    /// Appends to a log.
    Log(Box<LogSink>),
    /// Touches nothing: a dry run.
    Nothing,
}

/// A log, and what records are encoded with.
#[derive(Debug)]
pub struct LogSink {
    writer: LogWriter,
    encoder: RecordEncoder,
    body: Vec<u8>,
    /// Whether the records that come right after the first run record are still to be written.
    new: bool,
}

impl Sink {
    /// Makes a log; there must be none at `path`.
    pub fn create(path: &Path) -> Result<Self, LogError> {
        let mut sink = LogSink::new(LogWriter::create(path)?, true);
        sink.writer.append(header_record())?;
        Ok(Self::Log(Box::new(sink)))
    }

    /// Cuts a log back to a position, and goes on from there.
    pub fn open_at(path: &Path, position: LogPosition, next_num: i64) -> Result<Self, LogError> {
        Ok(Self::Log(Box::new(LogSink::new(LogWriter::open_at(path, position, next_num)?, false))))
    }

    /// Appends an update. It is durable after the next [`sync`](Self::sync).
    pub fn write(&mut self, update: &RunUpdate) -> Result<(), LogError> {
        let Self::Log(log) = self else { return Ok(()) };
        log.encoder.encode(update, &mut log.body);
        log.writer.append_encoded(&log.body)?;
        match update {
            // The official client panics on records that change a run it has not seen, so these follow it.
            RunUpdate::Run(run) if log.new => {
                log.new = false;
                log.writer.append(telemetry_record())?;
                log.writer.append(environment_record(&run.host.0, run.start_time))
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
    fn new(writer: LogWriter, new: bool) -> Self {
        Self { writer, encoder: RecordEncoder::default(), body: Vec::new(), new }
    }
}
