//! A lock beside a state: one process at a time, released by the system when that process dies.
//!
//! The file names its holder, by process, host and time, for whoever has to wait. It stays when the lock is released; only
//! the lock itself counts. Locks are `flock`s, which Linux also carries over NFS: they hold between machines wherever the
//! file system's own locks do. Where there are none, that is said and nothing is done, unless it was asked for.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tracing::warn;

use crate::state_file::place::BESIDE;

/// How often a lock that is held for a moment is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// A held lock; released when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    holder: String,
    previous: String,
}

/// Whether there is no way without a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Locking {
    /// Without working locks nothing is done.
    #[default]
    Required,
    /// `--no-lock`: where the file system has no locks, go on without. A lock that is held is held all the same.
    WherePossible,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it: come back later, or leave it to that process.
    #[error("held by {0}")]
    Held(String),
    /// The file system has no locks that work: keep the state elsewhere, or say that nobody else is at work.
    #[error("the file system has no working locks: {0}")]
    Unsupported(io::Error),
    /// The file cannot be made.
    #[error("cannot write the lock file: {0}")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock without waiting.
    pub fn take(path: &Path, locking: Locking) -> Result<Self, LockError> {
        refuse_link(path)?;
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let is_locked = judge(file.try_lock(), locking);
        let mut previous = String::new();
        // Half a line is better than none.
        let _ = (&mut file).take(200).read_to_string(&mut previous);
        let previous = previous.trim().to_owned();
        match is_locked {
            Ok(true) => {}
            Ok(false) => warn!(path = %path.display(), "no locks on this file system: run one process at a time"),
            Err(LockError::Held(_)) if !previous.is_empty() => return Err(LockError::Held(previous)),
            Err(error) => return Err(error),
        }
        let holder = holder();
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{holder}\n").as_bytes())?;
        Ok(Self { _file: file, holder, previous })
    }

    /// Takes a lock that is held for moments only, and waits for it as long as that may be believed.
    pub fn wait(path: &Path, locking: Locking, limit: Duration) -> Result<Self, LockError> {
        let started = Instant::now();
        loop {
            match Self::take(path, locking) {
                Err(LockError::Held(_)) if started.elapsed() < limit => std::thread::sleep(ASK_AGAIN),
                taken => return taken,
            }
        }
    }

    /// What the lock file says of this holder; no other holder says the same, nor does this process another time.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// What it said before: the last who held the lock.
    pub fn previous(&self) -> &str {
        &self.previous
    }
}

/// State that lies beside a log lies there: whoever made the log must not choose where else we write. Nothing is written
/// before a lock is held.
fn refuse_link(path: &Path) -> io::Result<()> {
    let beside = path.parent().filter(|directory| directory.ends_with(BESIDE) && directory.is_symlink());
    beside.map_or(Ok(()), |link| Err(io::Error::other(format!("`{}` is a link", link.display()))))
}

/// Who holds a lock, if anybody does. Takes and writes nothing.
///
/// For a moment nobody else gets the lock, so it is not for those who ask often.
pub fn who_holds(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let Err(TryLockError::WouldBlock) = file.try_lock_shared() else { return None };
    let mut holder = String::new();
    let _ = (&mut file).take(200).read_to_string(&mut holder);
    Some(Some(holder.trim().to_owned()).filter(|holder| !holder.is_empty()).unwrap_or("another process".to_owned()))
}

/// Whether the answer to a request for a lock is a lock; false where it is wanted to go on without.
fn judge(answer: Result<(), TryLockError>, locking: Locking) -> Result<bool, LockError> {
    match answer {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Err(LockError::Held("another process".to_owned())),
        Err(TryLockError::Error(error)) => match (is_unsupported(&error), locking) {
            (true, Locking::WherePossible) => Ok(false),
            (true, Locking::Required) => Err(LockError::Unsupported(error)),
            (false, _) => Err(LockError::Io(error)),
        },
    }
}

/// What systems answer where a file system has no locks, or its lock server does not run.
fn is_unsupported(error: &io::Error) -> bool {
    let known = [Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOLCK, Errno::INVAL, Errno::NOSYS];
    error.kind() == io::ErrorKind::Unsupported
        || known.iter().any(|known| error.raw_os_error() == Some(known.raw_os_error()))
}

/// Nanoseconds make it a name that is given once.
fn holder() -> String {
    static HOST: LazyLock<String> = LazyLock::new(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("this host").to_owned()
    });
    format!(
        "process {} on {} since {}",
        std::process::id(),
        *HOST,
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.%9f UTC")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.lock");
        let first = Lock::take(&path, Locking::Required).unwrap();
        for locking in [Locking::Required, Locking::WherePossible] {
            let by = Lock::take(&path, locking).unwrap_err().to_string();
            assert_eq!(by, format!("held by {}", first.holder()));
            assert!(by.starts_with(&format!("held by process {} on ", std::process::id())), "{by}");
        }
        assert_eq!(who_holds(&path).as_deref(), Some(first.holder()));
        let name = first.holder().to_owned();
        drop(first);
        assert_eq!((who_holds(&path), who_holds(&directory.path().join("none"))), (None, None));
        let second = Lock::take(&path, Locking::Required).unwrap();
        assert_eq!((second.previous(), second.holder() == name), (&*name, false));
    }

    #[test]
    fn a_lock_that_is_let_go_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.lock");
        let first = Lock::take(&path, Locking::Required).unwrap();
        let soon = Lock::wait(&path, Locking::Required, Duration::ZERO);
        assert!(matches!(soon, Err(LockError::Held(_))));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::wait(&path, Locking::Required, Duration::from_secs(60)).is_ok());
            drop(first);
            assert!(second.join().unwrap());
        });
    }

    #[test]
    fn without_working_locks_nothing_is_done_unless_it_was_asked_for() {
        for errno in [Errno::NOTSUP, Errno::NOLCK, Errno::INVAL, Errno::NOSYS] {
            let answer = || Err(TryLockError::Error(io::Error::from_raw_os_error(errno.raw_os_error())));
            assert!(matches!(judge(answer(), Locking::Required), Err(LockError::Unsupported(_))), "{errno}");
            assert!(matches!(judge(answer(), Locking::WherePossible), Ok(false)), "{errno}");
        }
        let broken = || Err(TryLockError::Error(io::Error::from_raw_os_error(Errno::IO.raw_os_error())));
        assert!(matches!(judge(broken(), Locking::WherePossible), Err(LockError::Io(_))));
        let held = judge(Err(TryLockError::WouldBlock), Locking::WherePossible);
        assert!(matches!(held, Err(LockError::Held(_))), "what is held stays held");
    }
}
