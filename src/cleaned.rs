//! Runs whose log was deleted because all of it had arrived, and what is kept of them.
//!
//! What stays is small: the checkpoint, the state of the upload, the mark that the official client looks for, and a note
//! that says how many logs the run had and how many rows they held. A run that grows goes on in a new log. Its rows are
//! appended where those of the deleted ones ended, because the checkpoint knows where the sources were left, and the state
//! of the upload knows how many rows the server has. The log is not made again from its sources: a file that came later, or
//! a row that was closed while its writer paused, stands elsewhere when all is read in one pass, and rows that are on the
//! server cannot be moved.
//!
//! Such a log is only a part of its run. The official client would send it from line 0 on, over what is there, so the mark
//! that makes it leave the log alone stays for good.
//!
//! The note is written before anything is deleted, and says that deleting is under way. Whoever opens such a run, to record
//! or to upload it, ends that first. Does not know what was acknowledged; who calls it does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, Ending};
use crate::listings::Listings;
use crate::model::LogPosition;
use crate::state_file::lock::{Lock, LockError};
use crate::state_file::place::{StateHome, StatePlace};
use crate::state_file::{self, StateFileError, sync_directory};
use crate::wandb_format::mark_synced;

/// What is kept of logs that were deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cleaned {
    /// How many logs of the run were deleted.
    pub logs: u32,
    /// The last of them may still be there, in part or whole.
    pub under_way: bool,
    /// The history lines that they held.
    pub rows: u64,
    /// As the logs named it; empty is the server's default.
    pub entity: String,
    /// As the logs named it; empty is the server's default.
    pub project: String,
    /// As the logs named it.
    pub run_id: String,
    /// When the last of them began, as it says: in nanoseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<i64>,
}

/// Why a run could not be cleaned. Nothing is lost: the next start goes on with it.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// Another process records the run.
    #[error("the run is recorded by another process")]
    Held(#[source] LockError),
    /// The state cannot be read or written.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// Something cannot be deleted.
    #[error("cannot delete what is in `{}`", path.display())]
    Io {
        /// The run directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Cleaned {
    /// What is kept of a run's logs; `None` where none was deleted.
    pub fn load(state: &StatePlace) -> Result<Option<Self>, StateFileError> {
        state_file::load(&state.cleaned())
    }

    /// Whether a log of the run was deleted.
    pub fn is_there(state: &StatePlace) -> bool {
        state.cleaned().is_file()
    }
}

/// Deletes the log of a run, and its files. `self` says what the log was.
///
/// False when the run was recorded on behind `read_to`, which is where the upload stopped reading, or is being recorded.
pub fn clean(log: &Path, state: &StatePlace, read_to: Option<LogPosition>, note: Cleaned) -> Result<bool, CleanError> {
    let ours = Checkpoint::is_ours(state);
    let _lock = match take_lock(state, ours) {
        Ok(lock) => lock,
        Err(CleanError::Held(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    if ours {
        let Some(checkpoint) = Checkpoint::load(state)? else { return Ok(false) };
        // Whoever reads the log of another process does not read its exit.
        let is_whole = |ending: Ending| read_to == Some(checkpoint.position) || read_to == Some(ending.before_exit);
        if !checkpoint.ending.is_some_and(is_whole) {
            return Ok(false);
        }
    }
    state_file::save(&state.cleaned(), &Cleaned { under_way: true, ..note.clone() })?;
    finish(log, state, note)?;
    Ok(true)
}

/// Ends what another process began, if it did; returns what is kept of the run's logs. For who holds the writer's lock.
pub fn finish_if_under_way(log: &Path, state: &StatePlace) -> Result<Option<Cleaned>, CleanError> {
    let note = Cleaned::load(state)?;
    match note {
        Some(note) if note.under_way => finish(log, state, note).map(Some),
        note => Ok(note),
    }
}

/// The same for who does not hold the writer's lock.
pub fn take_up(log: &Path, state: &StatePlace) -> Result<Option<Cleaned>, CleanError> {
    match Cleaned::load(state)? {
        Some(note) if note.under_way => {
            let _lock = take_lock(state, Checkpoint::is_ours(state))?;
            finish_if_under_way(log, state)
        }
        note => Ok(note),
    }
}

/// Run directories below some paths whose log is gone because it was cleaned. Directories that are known to hold no state
/// are not asked.
pub fn find<P: AsRef<Path>>(
    paths: impl IntoIterator<Item = P>,
    state: &StateHome,
    listings: &Listings,
) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for given in paths {
        let given = given.as_ref();
        let below = |directory: &Path| -> Vec<PathBuf> {
            fs::read_dir(directory)
                .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
                .unwrap_or_default()
        };
        let inner = ["wandb", ".wandb"].iter().flat_map(|name| below(&given.join(name)));
        let all = [given.to_owned()].into_iter().chain(below(given)).chain(inner);
        let real = if listings.is_empty() { None } else { given.canonicalize().ok() };
        let lacks_state = |directory: &PathBuf, note: &Path| {
            let real = real.as_deref().zip(directory.strip_prefix(given).ok()).map(|(real, below)| real.join(below));
            let note = note.strip_prefix(directory).ok();
            real.zip(note).is_some_and(|(real, note)| listings.lacks_path(&real, note))
        };
        let is_clean = |directory: &PathBuf| {
            if lacks_state(directory, &state.of(directory).cleaned()) {
                return false;
            }
            // `latest-run` is another name of one of them.
            !directory.is_symlink() && Cleaned::is_there(&state.of(directory)) && !holds_log(directory)
        };
        found.extend(all.filter(is_clean));
    }
    found.sort();
    found.dedup();
    found
}

fn holds_log(directory: &Path) -> bool {
    let is_log = |entry: fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "wandb");
    fs::read_dir(directory).is_ok_and(|entries| entries.filter_map(Result::ok).any(is_log))
}

fn directory_of(log: &Path) -> &Path {
    log.parent().unwrap_or(Path::new("."))
}

fn take_lock(state: &StatePlace, ours: bool) -> Result<Option<Lock>, CleanError> {
    if !ours {
        return Ok(None);
    }
    match Lock::take(&state.writer_lock(), state.locking()) {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ (LockError::Held(_) | LockError::Unsupported(_))) => Err(CleanError::Held(error)),
        Err(LockError::Io(source)) => Err(CleanError::Io { path: state.directory().to_owned(), source }),
    }
}

/// Everything from the note on, as often as it takes.
fn finish(log: &Path, state: &StatePlace, note: Cleaned) -> Result<Cleaned, CleanError> {
    let directory = directory_of(log);
    let failed = |source| CleanError::Io { path: directory.to_owned(), source };
    // From here on nothing of the old log counts.
    if let Some(mut checkpoint) = Checkpoint::load(state)? {
        (checkpoint.position, checkpoint.next_num) = (LogPosition(0), 1);
        let code = checkpoint.ending.map_or(0, |ending| ending.code);
        checkpoint.ending = Some(Ending { before_exit: LogPosition(0), exit_num: 1, code });
        checkpoint.save(state)?;
    }
    mark_synced(log).map_err(failed)?;
    gone(fs::remove_file(log)).map_err(failed)?;
    for below in ["files", "logs", "tmp"] {
        gone(fs::remove_dir_all(directory.join(below))).map_err(failed)?;
    }
    sync_directory(directory).map_err(failed)?;
    let note = Cleaned { under_way: false, ..note };
    state_file::save(&state.cleaned(), &note)?;
    Ok(note)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
