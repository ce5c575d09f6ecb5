//! What recording takes of the disk between two commits, and a run whose log was deleted after it had arrived.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::model::RunUpdate;
use crate::recorder::{RecordError, Recorder, locked};
use crate::sink::Sink;
use crate::state_file::durable::Durability;

impl Recorder {
    /// Commits whenever so much of log and files was written.
    pub fn commit_every(&mut self, bytes: u64) {
        self.bytes_per_commit = bytes;
    }

    /// From now on waits for the disk by itself. What opening wrote before the log lasts already, and whatever else is not
    /// committed yet is known here by its name.
    pub fn lasts_alone(&mut self) {
        self.durability = Durability::Each;
    }

    /// How many bytes of files were written so far; goes up as they are.
    pub fn media_written(&self) -> Arc<AtomicU64> {
        locked(&self.beside).files.written_bytes()
    }

    /// Whether so much was written since the last commit that it is time for the next.
    pub(super) fn is_due(&self) -> bool {
        let log = self.sink.position().0.0.saturating_sub(self.checkpoint.position.0);
        let beside = locked(&self.beside);
        beside.files.are_due() || log.saturating_add(beside.files.unsynced_bytes()) >= self.bytes_per_commit
    }

    /// Goes on in a new log after the old one was deleted. Until the next commit the checkpoint on disk says that there
    /// is none, and what is there counts for nothing.
    pub(super) fn begin_next_log(&mut self) -> Result<(), RecordError> {
        let failed = |source| RecordError::Io { path: self.log.clone(), source };
        match fs::remove_file(&self.log) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        self.sink = Sink::create(&self.log).map_err(|source| RecordError::Log { path: self.log.clone(), source })?;
        self.new = true;
        self.checkpoint.ending = None;
        self.write(&RunUpdate::Run(Box::new(self.run_info())))
    }
}
