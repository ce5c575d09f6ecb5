//! Where a worker keeps its state, the lock that makes it the only one who does, and what may go once it is kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::warn;

use crate::state_file::durable::CAN_SYNC_FILE_SYSTEMS;
use crate::state_file::lock::{Lock, LockError, Locking};
use crate::state_file::{self, StateFileError, save_without_waiting};
use crate::upload::files;
use crate::upload::fold::{Policy, is_uploaded_once};
use crate::upload::job::{Cleaning, Progress, UploadError};
use crate::upload::log_mark::LogMark;
use crate::upload::state::UploadState;
use crate::upload::unsettled::Unsettled;
use crate::upload::worker::Worker;

/// The state is not saved more often than this while requests follow each other.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Nor so often that it takes more than a part of the time.
const SAVE_SHARE: u32 = 20;

/// A state file that nobody else writes.
#[derive(Debug)]
pub(super) struct Keep {
    path: PathBuf,
    log: PathBuf,
    _lock: Lock,
    /// Nothing was saved here, ever.
    is_new: bool,
    saved_at: Option<Instant>,
    took: Duration,
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
        let loaded = UploadState::load(&path);
        let is_new = matches!(loaded, Ok(None));
        let state = match loaded {
            Err(error @ StateFileError::Damaged { .. }) => {
                warn!(%error, "what was acknowledged is not known any more; starting over");
                None
            }
            state => state?,
        };
        Ok((Self { path, log, _lock: lock, is_new, saved_at: None, took: Duration::ZERO, unsaved: false }, state))
    }

    /// There is something to save.
    pub(super) fn changed(&mut self) {
        self.unsaved = true;
    }

    /// Whether it is time to save, while more is to come.
    pub(super) fn is_due(&self) -> bool {
        let interval = SAVE_INTERVAL.max(self.took * SAVE_SHARE);
        self.unsaved && self.saved_at.is_none_or(|at| at.elapsed() >= interval)
    }

    /// Saves the state, if anything changed. With `later`, the disk is waited for later, unless this takes the place of
    /// another state.
    pub(super) async fn save(&mut self, state: &UploadState, later: Option<Arc<Unsettled>>) -> Result<(), UploadError> {
        if !self.unsaved {
            return Ok(());
        }
        let (path, log, mut state) = (self.path.clone(), self.log.clone(), state.clone());
        let later = later.filter(|_| self.is_new);
        let began = Instant::now();
        let save = move || {
            // A log that cannot be read now keeps the mark that it has.
            state.mark = LogMark::of(&log, state.fold.position).or(state.mark);
            match later {
                None => state_file::save(&path, &state),
                Some(unsettled) => {
                    save_without_waiting(&path, &state)?;
                    unsettled.add(path).iter().for_each(|why| warn!("{why}"));
                    Ok(())
                }
            }
        };
        spawn_blocking(save).await.map_err(|error| UploadError::Broken(error.to_string()))??;
        (self.unsaved, self.is_new) = (false, false);
        self.saved_at = Some(Instant::now());
        self.took = began.elapsed();
        Ok(())
    }
}

impl Worker<'_> {
    pub(super) fn acknowledged(&self, rows: u64, bytes: u64) {
        (self.job.progress)(Progress::Acknowledged { rows, bytes, position: self.state.fold.position });
    }

    /// The state changed: it is to be saved.
    pub(super) fn touch(&mut self) {
        if let Some(keep) = &mut self.keep {
            keep.changed();
        }
    }

    pub(super) async fn save(&mut self) -> Result<(), UploadError> {
        let later = self.is_found_again().then(|| self.fleet.unsettled.clone());
        if let Some(keep) = &mut self.keep {
            keep.save(&self.state, later).await?;
            self.delete_acknowledged().await;
        }
        Ok(())
    }

    /// Whether all of a log was sent in one go, and a start without its state finds the same on the server: a loss of power
    /// is like one before the state was saved. What this program recorded itself may go on.
    pub(super) fn is_found_again(&self) -> bool {
        self.begins_anew
            && self.ended
            && self.job.cleaning == Cleaning::No
            && self.job.foreign.is_some()
            && CAN_SYNC_FILE_SYSTEMS
    }

    /// Deletes what may go now that the state is saved: a process that finds a file missing must know that it was sent.
    pub(super) async fn delete_acknowledged(&mut self) {
        if self.job.cleaning != Cleaning::AsAcknowledged {
            return;
        }
        // Those that the fold does not name yet are left for later.
        let files = &self.state.fold.files;
        let paths: Vec<String> = self
            .to_delete
            .extract_if(.., |path| files.contains_key(path) || is_uploaded_once(path, Policy::Now))
            .collect();
        if !paths.is_empty() {
            let (fold, sent, directory) =
                (self.state.fold.clone(), self.state.sent.clone(), self.job.files_dir.clone());
            // An upload that ends deletes what is left at the next start.
            let gone = spawn_blocking(move || files::delete_acknowledged(&paths, &fold, &sent, &directory)).await;
            if self.opened {
                for path in gone.unwrap_or_default() {
                    self.state.sent.files.remove(&path);
                }
                self.touch();
            }
        }
        (self.job.progress)(Progress::Deleted { position: self.state.fold.position });
    }
}
