//! What keeps a file from being read on, or to its end, as it was found last. Gone when the file can be read again.

use std::io;
use std::path::Path;

use crate::model::{SkippedReason, Skips};
use crate::recorder::reasons::place_of_file;
use crate::tfevents::Rewritten;

/// Each with the place and the reason, in words.
#[derive(Debug)]
pub(super) enum Hindrance {
    /// It ends within a record.
    Tail(String),
    /// It cannot be opened or read.
    Unreadable(String),
    /// It was there when it was looked at, and is not any more.
    Missing(String),
    /// It is shorter than what was read of it.
    Shrunk(String),
    /// It does not hold what was read of it.
    Rewritten(String),
}

impl Hindrance {
    /// A file that cannot be read now. Others go on, and it is tried again.
    pub(super) fn of(path: &Path, error: &io::Error) -> Self {
        let why = place_of_file(path, error);
        let is_rewritten = || error.get_ref().is_some_and(|inner| inner.is::<Rewritten>());
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing(why),
            io::ErrorKind::InvalidData if is_rewritten() => Self::Rewritten(why),
            _ => Self::Unreadable(why),
        }
    }

    /// Counts it. `missing` says whether a file that is gone is worth a word.
    pub(super) fn count(&self, missing: bool, skips: &mut Skips) {
        let (reason, first) = match self {
            Self::Missing(_) if !missing => return,
            Self::Tail(first) => (SkippedReason::IncompleteTail, first),
            Self::Unreadable(first) | Self::Missing(first) => (SkippedReason::Unreadable, first),
            Self::Shrunk(first) => (SkippedReason::Shrunk, first),
            Self::Rewritten(first) => (SkippedReason::Rewritten, first),
        };
        skips.add(reason, 1, || first.clone());
    }
}
