//! What makes writes last: each write by itself, or those of many runs together.
//!
//! An `fsync` takes the disk as long for one small file as `syncfs` takes for those of fifty runs. Whoever waits in
//! [`Together`] is served by the next `syncfs` that begins; meanwhile others write. The order that a crash must find is
//! kept by each run itself: it goes on only when what it wrote before lasts. Does not know what is written.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::state_file::sync_directory;

/// Whether the system can make all that is on a file system last with one call.
pub(crate) const CAN_SYNC_FILE_SYSTEMS: bool = cfg!(target_os = "linux");

/// How writes are made to last.
#[derive(Debug, Clone, Default)]
pub enum Durability {
    /// Each file and each directory by itself.
    #[default]
    Each,
    /// All that was written on the file system, with what others wrote.
    Together(Arc<Together>),
}

impl Durability {
    /// The same for what is written below a directory: together only where that lies on the file system that is meant.
    pub fn below(&self, directory: &Path) -> Self {
        match self {
            Self::Together(together) if together.device == device(directory).ok() => self.clone(),
            _ => Self::Each,
        }
    }

    /// Makes a file last, with what others wrote if that is how it is done.
    pub fn file(&self, file: &File) -> io::Result<()> {
        match self {
            Self::Each => file.sync_all(),
            Self::Together(together) => together.wait(),
        }
    }

    /// Makes the entries of a directory last, with what others wrote if that is how it is done.
    pub fn directory(&self, directory: &Path) -> io::Result<()> {
        match self {
            Self::Each => sync_directory(directory),
            Self::Together(together) => together.wait(),
        }
    }
}

/// Writers that wait for the disk together.
#[derive(Debug)]
pub struct Together {
    /// Opened before anything is written, so that the system tells every error since.
    root: File,
    device: Option<u64>,
    rounds: Mutex<Rounds>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    begun: u64,
    ended: u64,
    /// An error says that something does not last, but not what: nobody can go on after it.
    failed: Option<(io::ErrorKind, String)>,
}

impl Together {
    /// For all that is written below a directory; `None` where the system cannot do that.
    pub fn below(directory: &Path) -> io::Result<Option<Self>> {
        if !CAN_SYNC_FILE_SYSTEMS {
            return Ok(None);
        }
        let root = File::open(directory)?;
        let device = Some(device(directory)?);
        Ok(Some(Self { root, device, rounds: Mutex::default(), over: Condvar::new() }))
    }

    /// Returns when everything lasts that this thread wrote before.
    pub fn wait(&self) -> io::Result<()> {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        // A round that is under way may have passed by what was just written.
        let mine = rounds.begun + 1;
        while rounds.ended < mine && rounds.failed.is_none() {
            if rounds.begun > rounds.ended {
                rounds = self.over.wait(rounds).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            rounds.begun += 1;
            drop(rounds);
            let synced = sync_file_system(&self.root);
            rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
            rounds.ended = rounds.begun;
            rounds.failed = synced.err().map(|error| (error.kind(), error.to_string()));
            self.over.notify_all();
        }
        match &rounds.failed {
            None => Ok(()),
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
        }
    }
}

/// Makes all last that is on the file system of an open file, where [`CAN_SYNC_FILE_SYSTEMS`].
#[cfg(target_os = "linux")]
pub(crate) fn sync_file_system(root: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(root)?)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_file_system(_: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Which file system something lies on.
#[cfg(unix)]
pub(crate) fn device(path: &Path) -> io::Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::dev(&fs::metadata(path)?))
}

#[cfg(not(unix))]
pub(crate) fn device(_: &Path) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn everyone_who_waits_is_served_and_rounds_are_shared() {
        let directory = tempfile::tempdir().unwrap();
        let together = Together::below(directory.path()).unwrap().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| (0..4).for_each(|_| together.wait().unwrap()));
            }
        });
        let rounds = together.rounds.lock().unwrap();
        assert_eq!(rounds.begun, rounds.ended);
        assert!((4..=64).contains(&rounds.ended), "{rounds:?}");
    }

    #[test]
    fn after_an_error_nobody_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let together = Together::below(directory.path()).unwrap().unwrap();
        together.rounds.lock().unwrap().failed = Some((io::ErrorKind::StorageFull, "no space".to_owned()));
        for _ in 0..2 {
            assert_eq!(together.wait().unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }

    #[test]
    fn other_file_systems_are_not_meant() {
        let directory = tempfile::tempdir().unwrap();
        let durability = Durability::Together(Arc::new(Together::below(directory.path()).unwrap().unwrap()));
        assert!(matches!(durability.below(directory.path()), Durability::Together(_)));
        assert!(matches!(durability.below(Path::new("/proc")), Durability::Each));
    }
}
