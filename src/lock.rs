//! Locks between processes, released when their process dies.
//!
//! A run has two: *writer* (log and checkpoint) and *uploader* (upload state), so that one process may record a run while
//! another uploads it. The file says who holds it; the lock itself is the operating system's, so a file that was left
//! behind locks nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A held lock. Dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it: leave the run alone. Exit code 11 if nothing else is to be done.
    #[error("held by {holder}")]
    Held {
        /// Host, process and time, as the holder wrote them.
        holder: String,
    },
    /// The file system has no working locks: two writers would not notice each other.
    #[error("the file system of `{}` has no working locks", path.display())]
    Unsupported {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The lock file cannot be made or opened.
    #[error("cannot open the lock `{}`", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock at `path`, whose directory must exist. `who` is what others read while it is held.
    pub fn take(path: &Path, who: &str) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who it is helps, but is not needed.
                let _ = file.take(1024).read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "another process".to_owned() } else { holder.trim().to_owned() };
                return Err(LockError::Held { holder });
            }
            Err(TryLockError::Error(source)) => return Err(LockError::Unsupported { path: path.to_owned(), source }),
        }
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(who.as_bytes())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_says_by_whom() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("writer.lock");
        let first = Lock::take(&path, "host, process 7").expect("free");
        match Lock::take(&path, "other") {
            Err(LockError::Held { holder }) => assert_eq!(holder, "host, process 7"),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert!(Lock::take(&path, "other").is_ok());
    }
}
