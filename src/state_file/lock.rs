//! A lock beside a state: one process at a time, released by the system when that process dies.
//!
//! The file names its holder for whoever has to wait. It stays when the lock is released; only the lock itself counts.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use tracing::warn;

/// A held lock; released when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it: come back later, or leave it to that process.
    #[error("held by {0}")]
    Held(String),
    /// The file cannot be made.
    #[error("cannot write the lock file: {0}")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock without waiting. On a file system without locks it says so and goes on.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Half a line is better than none.
                let _ = (&mut file).take(200).read_to_string(&mut holder);
                let holder = holder.trim();
                return Err(LockError::Held(if holder.is_empty() { "another process" } else { holder }.to_owned()));
            }
            Err(TryLockError::Error(error)) => {
                warn!(path = %path.display(), %error, "no locks on this file system: run one process at a time");
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", holder())?;
        Ok(Self { _file: file })
    }
}

fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "this host",
        host => host,
    };
    format!(
        "process {} on {host} since {}",
        std::process::id(),
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.lock");
        let first = Lock::take(&path).expect("free");
        let by = Lock::take(&path).expect_err("taken twice").to_string();
        assert!(by.starts_with(&format!("held by process {} on ", std::process::id())), "{by}");
        drop(first);
        Lock::take(&path).expect("free again");
    }
}
