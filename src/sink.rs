//! Where run updates go: into a log, or nowhere but into its length (a dry run).

use std::path::Path;

use crate::model::{LogPosition, RunUpdate};
use crate::wandb_format::{LogError, LogWriter, RecordEncoder, environment_record, header_record, telemetry_record};

/// The end of the left half: a log, and what records are encoded with.
#[derive(Debug)]
pub struct Sink {
    writer: LogWriter,
    encoder: RecordEncoder,
    body: Vec<u8>,
    /// Whether the records that come right after the first run record are still to be written.
    new: bool,
}

impl Sink {
    /// Makes a log; there must be none at `path`.
    pub fn create(path: &Path) -> Result<Self, LogError> {
        Self::begin(LogWriter::create(path)?)
    }

    /// Cuts a log back to a position, and goes on from there.
    pub fn open_at(path: &Path, position: LogPosition, next_num: i64) -> Result<Self, LogError> {
        Ok(Self::new(LogWriter::open_at(path, position, next_num)?, false))
    }

    /// Goes on from a position of a log, or begins one at 0, and touches nothing: only its length is known.
    pub fn nowhere(position: LogPosition, next_num: i64) -> Result<Self, LogError> {
        match position {
            LogPosition(0) => Self::begin(LogWriter::nowhere(position, next_num)),
            position => Ok(Self::new(LogWriter::nowhere(position, next_num), false)),
        }
    }

    fn begin(writer: LogWriter) -> Result<Self, LogError> {
        let mut sink = Self::new(writer, true);
        sink.writer.append(header_record())?;
        Ok(sink)
    }

    fn new(writer: LogWriter, new: bool) -> Self {
        Self { writer, encoder: RecordEncoder::default(), body: Vec::new(), new }
    }

    /// Appends an update. It is durable after the next [`sync`](Self::sync).
    pub fn write(&mut self, update: &RunUpdate) -> Result<(), LogError> {
        self.encoder.encode(update, &mut self.body);
        self.writer.append_encoded(&self.body)?;
        match update {
            // The official client panics on records that change a run it has not seen, so these follow it.
            RunUpdate::Run(run) if self.new => {
                self.new = false;
                self.writer.append(telemetry_record())?;
                self.writer.append(environment_record(&run.host.0, run.start_time))
            }
            _ => Ok(()),
        }
    }

    /// Makes all that was written durable.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.writer.sync()
    }

    /// Hands all that was written to the system. What makes the file system last makes it last then.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.writer.flush()
    }

    /// The end of the last update, and the number of the next record.
    pub fn position(&self) -> (LogPosition, i64) {
        (self.writer.position(), self.writer.next_num())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::model::Exit;

    #[test]
    fn a_log_that_is_nowhere_is_as_long_as_a_real_one() {
        let directory = tempfile::tempdir().unwrap();
        let (mut real, mut nowhere) =
            (Sink::create(&directory.path().join("a")).unwrap(), Sink::nowhere(LogPosition(0), 1).unwrap());
        for code in 0..10_000 {
            let update = RunUpdate::Exit(Exit { code, runtime: 0 });
            real.write(&update).unwrap();
            nowhere.write(&update).unwrap();
        }
        nowhere.sync().unwrap();
        assert_eq!(real.position(), nowhere.position());
        assert!(real.position().0.0 > 100_000);
    }
}
