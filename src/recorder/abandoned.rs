//! Run directories whose recording was cut short before anything of it counted: nobody has seen them, and another start may
//! give their runs another id. They are removed.
//!
//! Only what is known to be such: our mark says so, nobody holds the run's lock, and there is nothing in the directory that
//! such a recording does not make. Or the directory is empty, and has been for a while: another client's, or ours, that died
//! right after it was made. For who holds the lock on making run directories.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use crate::state_file::lock::Lock;
use crate::state_file::place::{StateHome, StatePlace};
use crate::state_file::sync_directory;

/// Whoever makes a run directory writes to it much sooner.
const LONG_EMPTY: Duration = Duration::from_secs(60);

/// What a new run directory holds beside its log.
const PARTS: [&str; 2] = ["files", "logs"];

/// Removes a run directory without a checkpoint if nothing of it ever counted. True when it is gone.
pub fn remove_abandoned(directory: &Path, state: &StateHome) -> io::Result<bool> {
    let place = state.of(directory);
    if place.uncounted().is_file() { remove_uncounted(directory, &place) } else { remove_empty(directory) }
}

fn remove_uncounted(directory: &Path, place: &StatePlace) -> io::Result<bool> {
    let Ok(_lock) = Lock::take(&place.writer_lock(), place.locking()) else { return Ok(false) };
    let state = ["uncounted", "writer.lock", "checkpoint.json.tmp"].map(OsStr::new);
    let is_state = |name: &OsStr| state.contains(&name);
    let is_log = |name: &OsStr| name.as_encoded_bytes().ends_with(b".wandb");
    let is_of_the_run = |name: &OsStr| {
        is_log(name) || PARTS.iter().any(|part| name == *part) || place.directory() == directory.join(name)
    };
    // The lock is held now: whoever had it may have gone on to a checkpoint.
    if place.checkpoint().exists()
        || !holds_only(place.directory(), is_state)?
        || !holds_only(directory, is_of_the_run)?
    {
        return Ok(false);
    }
    // The mark goes when all that it speaks of has gone.
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if is_log(path.as_os_str()) {
            fs::remove_file(path)?;
        }
    }
    for part in PARTS {
        gone(fs::remove_dir_all(directory.join(part)))?;
    }
    sync_directory(directory)?;
    fs::remove_dir_all(place.directory())?;
    fs::remove_dir(directory)?;
    Ok(true)
}

fn remove_empty(directory: &Path) -> io::Result<bool> {
    let modified = fs::metadata(directory)?.modified()?;
    let is_old = SystemTime::now().duration_since(modified).is_ok_and(|age| age > LONG_EMPTY);
    if !is_old || !holds_only(directory, |name| PARTS.iter().any(|part| name == *part))? {
        return Ok(false);
    }
    // No directory that holds anything can be removed so.
    for empty in [directory.join(PARTS[0]), directory.join(PARTS[1]), directory.to_owned()] {
        match gone(fs::remove_dir(empty)) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(false),
            removed => removed?,
        }
    }
    Ok(true)
}

fn holds_only(directory: &Path, known: impl Fn(&OsStr) -> bool) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        if !known(&entry?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
