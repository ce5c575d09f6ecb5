//! What changed between two looks, and when to look again. Pure: no files, no clock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// A file as a look saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Size in bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: SystemTime,
    /// Device and inode: another pair is another file under the same name.
    pub identity: (u64, u64),
}

/// Files by path.
pub type Snapshot = BTreeMap<PathBuf, Seen>;

/// What became of a file since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Not there before.
    New,
    /// Longer, or written to.
    Grown,
    /// Shorter: what was read may not be what stands there now.
    Shrunk,
    /// Another file under the same name.
    Replaced,
    /// Gone. What was read of it stays.
    Vanished,
}

/// The files that changed between two looks, by path.
pub fn changes<'a>(before: &'a Snapshot, now: &'a Snapshot) -> Vec<(&'a PathBuf, Change)> {
    let mut changes = Vec::new();
    for (path, seen) in now {
        let change = match before.get(path) {
            None => Change::New,
            Some(old) if old.identity != seen.identity => Change::Replaced,
            Some(old) if seen.size < old.size => Change::Shrunk,
            Some(old) if old != seen => Change::Grown,
            Some(_) => continue,
        };
        changes.push((path, change));
    }
    changes.extend(before.keys().filter(|path| !now.contains_key(*path)).map(|path| (path, Change::Vanished)));
    changes
}

/// How often the file system may be asked about a file, a second.
const STATS_PER_SECOND: f64 = 200.0;
/// Above this many files, a look at all of them costs more than the budget of one poll.
const NEVER_RARER_THAN: Duration = Duration::from_secs(120);

/// How long to wait until everything is looked at again: the poll interval, or longer where that would ask the file
/// system more than 200 times a second.
pub fn until_next_look(poll: Duration, files: usize) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "an interval need not be exact")]
    let budget = Duration::from_secs_f64(files as f64 / STATS_PER_SECOND);
    poll.max(budget).min(NEVER_RARER_THAN.max(poll))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(files: &[(&str, u64, u64)]) -> Snapshot {
        let seen = |size: u64, inode: u64| Seen { size, modified: SystemTime::UNIX_EPOCH, identity: (1, inode) };
        files.iter().map(|(path, size, inode)| (PathBuf::from(path), seen(*size, *inode))).collect()
    }

    #[test]
    fn every_change_is_named() {
        let before = snapshot(&[("same", 1, 1), ("grown", 1, 2), ("shrunk", 9, 3), ("replaced", 1, 4), ("gone", 1, 5)]);
        let now = snapshot(&[("same", 1, 1), ("grown", 2, 2), ("shrunk", 1, 3), ("replaced", 9, 40), ("new", 0, 6)]);
        let found: Vec<(String, Change)> =
            changes(&before, &now).into_iter().map(|(path, change)| (path.display().to_string(), change)).collect();
        let expected = [
            ("grown", Change::Grown),
            ("new", Change::New),
            ("replaced", Change::Replaced),
            ("shrunk", Change::Shrunk),
            ("gone", Change::Vanished),
        ];
        assert_eq!(found, expected.map(|(path, change)| (path.to_owned(), change)));
        assert!(changes(&now, &now).is_empty());
    }

    #[test]
    fn many_files_are_looked_at_less_often() {
        let second = Duration::from_secs(1);
        assert_eq!(until_next_look(second, 10), second);
        assert_eq!(until_next_look(second, 20_000), Duration::from_secs(100));
        assert_eq!(until_next_look(second, 2_000_000), Duration::from_secs(120));
        assert_eq!(until_next_look(Duration::from_secs(600), 1), Duration::from_secs(600));
    }
}
