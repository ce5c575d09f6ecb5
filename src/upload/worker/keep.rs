//! Where a worker keeps its state, and the lock that makes it the only one who does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::warn;

use crate::state_file::lock::{Lock, LockError, Locking};
use crate::state_file::{self, StateFileError};
use crate::upload::job::UploadError;
use crate::upload::log_mark::LogMark;
use crate::upload::state::UploadState;

/// The state is not saved more often than this while requests follow each other.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// A state file that nobody else writes.
#[derive(Debug)]
pub(super) struct Keep {
    path: PathBuf,
    log: PathBuf,
    _lock: Lock,
    saved_at: Option<Instant>,
    unsaved: bool,
}

impl Keep {
    /// Takes the lock, then reads the state. One that is damaged is none: then what the server holds decides.
    pub(super) fn open(
        path: PathBuf,
        log: PathBuf,
        locking: Locking,
    ) -> Result<(Self, Option<UploadState>), UploadError> {
        let directory = path.parent().unwrap_or(Path::new(".")).to_owned();
        std::fs::create_dir_all(&directory).map_err(|source| UploadError::Directory { path: directory, source })?;
        let lock = Lock::take(&path.with_extension("lock"), locking).map_err(|error| match error {
            LockError::Held(by) => UploadError::Held(by),
            LockError::Unsupported(_) => UploadError::NoLocks(error),
            LockError::Io(source) => UploadError::Directory { path: path.with_extension("lock"), source },
        })?;
        let state = match UploadState::load(&path) {
            Err(error @ StateFileError::Damaged { .. }) => {
                warn!(%error, "what was acknowledged is not known any more; starting over");
                None
            }
            state => state?,
        };
        Ok((Self { path, log, _lock: lock, saved_at: None, unsaved: false }, state))
    }

    /// There is something to save.
    pub(super) fn changed(&mut self) {
        self.unsaved = true;
    }

    /// Whether it is time to save, while more is to come.
    pub(super) fn is_due(&self) -> bool {
        self.unsaved && self.saved_at.is_none_or(|at| at.elapsed() >= SAVE_INTERVAL)
    }

    /// Saves the state, if anything changed.
    pub(super) async fn save(&mut self, state: &UploadState) -> Result<(), UploadError> {
        if !self.unsaved {
            return Ok(());
        }
        let (path, log, mut state) = (self.path.clone(), self.log.clone(), state.clone());
        let save = move || {
            // A log that cannot be read now keeps the mark that it has.
            state.mark = LogMark::of(&log, state.fold.position).or(state.mark);
            state_file::save(&path, &state)
        };
        if let Ok(saved) = spawn_blocking(save).await {
            saved?;
            self.unsaved = false;
            self.saved_at = Some(Instant::now());
        }
        Ok(())
    }
}
