//! What was read up to a row: added to what a pass did once the row is kept. And how many files a run has open.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::{Kinds, Skips};
use crate::recorder::Pass;

/// What was read of a file between two places. Scalars that were taken are counted with their rows.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// Most files hold nothing but scalars, and nothing to skip.
    more: Option<Box<(Kinds, Skips)>>,
}

impl Tally {
    pub(super) fn kinds_and_skips(&mut self) -> &mut (Kinds, Skips) {
        self.more.get_or_insert_default()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        if let Some(other) = other.more {
            let (kinds, skips) = self.kinds_and_skips();
            kinds.merge(&other.0);
            skips.merge(&other.1);
        }
    }

    pub(super) fn count(self, pass: &mut Pass) {
        pass.events += self.events;
        pass.bytes += self.bytes;
        if let Some(more) = self.more {
            pass.kinds.merge(&more.0);
            pass.skips.merge(&more.1);
        }
    }
}

/// The event files of one run that are open. A file stays open between its rows as long as there are few: beyond that, each
/// is opened for some rows and closed.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(AtomicUsize);

/// As many rows are read at once of a file that is not kept open.
const ROWS_AT_ONCE: usize = 64;

impl OpenFiles {
    pub(super) fn opened(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many rows to read at once of a file: one where it may stay open.
    pub(super) fn rows_at_once(&self, is_open: bool) -> usize {
        if is_open || self.0.load(Ordering::Relaxed) < most_open() { 1 } else { ROWS_AT_ONCE }
    }
}

/// How many files one run may keep open: its share of a quarter of what the system allows.
fn most_open() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        #[cfg(unix)]
        let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        #[cfg(not(unix))]
        let allowed = Some(1024_u64);
        let allowed = usize::try_from(allowed.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        (allowed / 4 / rayon::current_num_threads()).clamp(2, 128)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_files_stay_open() {
        let files = OpenFiles::default();
        (0..most_open()).for_each(|_| files.opened());
        assert_eq!((files.rows_at_once(true), files.rows_at_once(false)), (1, ROWS_AT_ONCE));
        files.closed();
        assert_eq!(files.rows_at_once(false), 1);
    }
}
