//! What changed between two looks, and when to look again. Pure: no files, no clock.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
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

/// How often the file system may be asked about a file or a directory, a second: by looks at everything, by glances at
/// files that are written to, and about files that are not. Together 200.
const LOOKS: f64 = 75.0;
const GLANCES: f64 = 75.0;
const QUIET: f64 = 50.0;

/// A file that was not written to for so long is quiet.
const QUIET_AFTER: Duration = Duration::from_secs(3600);
/// Quiet files are asked about this often, or more rarely where there are very many.
const QUIET_EVERY: Duration = Duration::from_secs(60);
/// Where the disk is our own, nothing is found later than this, however much there is to look at.
const NEVER_RARER_THAN: Duration = Duration::from_secs(120);

/// How many there are of what the file system is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Directories that are read at a look.
    pub directories: usize,
    /// Files that are or may be written to.
    pub busy: usize,
    /// Files that were not written to for an hour.
    pub quiet: usize,
}

/// How often to ask, so that it is not more than 200 times a second on average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Everything: directories, and the files that are due.
    pub look: Duration,
    /// In between only files that are busy; `None` where looks come as often as they should.
    pub glance: Option<Duration>,
    /// A quiet file.
    pub quiet: Duration,
}

/// The pace for a poll interval. Our own disk may be asked more often, where there are very many directories.
pub fn pace(poll: Duration, counts: Counts, is_remote: bool) -> Pace {
    let mut look = seconds(counts.directories + counts.busy, LOOKS).max(poll);
    if !is_remote {
        look = look.min(NEVER_RARER_THAN.max(poll));
    }
    let glance = seconds(counts.busy, GLANCES).max(poll);
    Pace {
        look,
        glance: Some(glance).filter(|glance| *glance < look),
        quiet: seconds(counts.quiet, QUIET).max(QUIET_EVERY),
    }
}

/// Another part of a minute for each path.
fn apart(path: &Path) -> Duration {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    Duration::from_secs(1 + hasher.finish() % QUIET_EVERY.as_secs())
}

fn seconds(count: usize, a_second: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "an interval need not be exact")]
    Duration::from_secs_f64(count as f64 / a_second)
}

/// Which files are due at a look. Times are those since some beginning; those of last writes are compared with the time
/// of day.
#[derive(Debug, Default)]
pub struct Schedule {
    files: HashMap<PathBuf, Asked>,
    now: Duration,
    day: Option<SystemTime>,
    /// How often a quiet file is asked about, and how many may still be at this look.
    every: Duration,
    left: f64,
    counts: Counts,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    /// When it is due, if it is quiet.
    due: Duration,
    /// When it was written last, as was known then.
    modified: SystemTime,
    /// When another time of writing was seen, if ever. Clocks of other machines may be wrong; this is certain.
    changed: Option<Duration>,
    is_quiet: bool,
    /// The look that met it last.
    met: Duration,
}

impl Schedule {
    /// Begins a look.
    pub fn begin(&mut self, now: Duration, day: SystemTime) {
        // As many as makes all of them come in turn, and not all of them at once.
        let passed = now.saturating_sub(self.now).as_secs_f64();
        self.every = seconds(self.counts.quiet, QUIET).max(QUIET_EVERY);
        #[expect(clippy::cast_precision_loss, reason = "a number of files")]
        let share = (self.counts.quiet as f64 * passed / self.every.as_secs_f64()).ceil().max(1.0);
        (self.left, self.now, self.day) = (share, now, Some(day));
        self.counts = Counts::default();
    }

    /// Whether to ask about a file that was written at `modified`, as far as is known.
    pub fn is_due(&mut self, path: &Path, modified: SystemTime) -> bool {
        let now = self.now;
        let asked = match self.files.get_mut(path) {
            Some(asked) => asked,
            None => {
                // Those that were met together have their turns apart.
                let due = now + apart(path);
                let asked = Asked { due, modified, changed: None, is_quiet: false, met: now };
                self.files.entry(path.to_owned()).or_insert(asked)
            }
        };
        asked.met = now;
        if asked.modified != modified {
            (asked.modified, asked.changed) = (modified, Some(now));
        }
        let is_old = self.day.and_then(|day| day.duration_since(modified).ok()).is_some_and(|age| age >= QUIET_AFTER);
        let changed_lately = asked.changed.is_some_and(|changed| now.saturating_sub(changed) < QUIET_AFTER);
        asked.is_quiet = is_old && !changed_lately;
        if !asked.is_quiet {
            self.counts.busy += 1;
            asked.due = now + self.every;
            return true;
        }
        self.counts.quiet += 1;
        let is_due = asked.due <= now && self.left >= 1.0;
        if is_due {
            self.left -= 1.0;
            asked.due = now + self.every;
        }
        is_due
    }

    /// Ends a look that found so many directories. Files that it did not meet are forgotten.
    pub fn end(&mut self, directories: usize) -> Counts {
        self.counts.directories = directories;
        let now = self.now;
        self.files.retain(|_, asked| asked.met == now);
        self.counts
    }

    /// The files that are or may be written to.
    pub fn busy(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().filter(|(_, asked)| !asked.is_quiet).map(|(path, _)| path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

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
    fn the_pace_follows_what_there_is() {
        let second = Duration::from_secs(1);
        let counts = |directories, busy, quiet| Counts { directories, busy, quiet };
        let check = |counts, is_remote, look, glance: Option<u64>, quiet| {
            let expected = Pace {
                look: Duration::from_secs(look),
                glance: glance.map(Duration::from_secs),
                quiet: Duration::from_secs(quiet),
            };
            assert_eq!(pace(second, counts, is_remote), expected, "{counts:?}");
        };
        check(counts(3, 10, 0), true, 1, None, 60);
        check(counts(25, 50, 3000), true, 1, None, 60);
        check(counts(7500, 75, 5000), true, 101, Some(1), 100);
        check(counts(75_000, 1500, 50_000), true, 1020, Some(20), 1000);
        check(counts(75_000, 1500, 50_000), false, 120, Some(20), 1000);
        assert_eq!(pace(Duration::from_secs(600), counts(9, 9, 9), true).look, Duration::from_secs(600));
    }

    /// Plays looks as a watch has them, and counts how often each file is asked about.
    fn play(files: &mut [(PathBuf, SystemTime)], looks: u64, is_remote: bool) -> (Vec<Vec<u64>>, u64) {
        let mut schedule = Schedule::default();
        let (mut asked, mut now) = (vec![Vec::new(); files.len()], 0);
        for _ in 0..looks {
            schedule.begin(Duration::from_secs(now), day(now));
            for ((path, modified), asked) in files.iter().zip(&mut asked) {
                if schedule.is_due(path, *modified) {
                    asked.push(now);
                }
            }
            let counts = schedule.end(10);
            now += pace(Duration::from_secs(1), counts, is_remote).look.as_secs();
        }
        (asked, now)
    }

    fn day(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn files_that_nobody_writes_to_are_looked_at_once_a_minute() {
        let mut files = vec![(PathBuf::from("busy"), day(0))];
        let old = |index: u64| (PathBuf::from(format!("quiet{index:05}")), day(0) - Duration::from_secs(3600 + index));
        files.extend((0..500).map(old));
        let (asked, seconds) = play(&mut files, 600, true);
        assert_eq!((asked[0].len(), seconds), (600, 600));
        for asked in &asked[1..] {
            let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(pauses.iter().all(|pause| (60..=80).contains(pause)), "{pauses:?}");
            assert!(asked.len() >= 8 && asked[0] <= 80, "{asked:?}");
        }
    }

    #[test]
    fn nobody_is_asked_more_than_two_hundred_times_a_second() {
        let old = |index: u64| (PathBuf::from(format!("quiet{index:05}")), day(0) - Duration::from_secs(7200));
        let mut files: Vec<_> = (0..20_000).map(old).collect();
        let (asked, seconds) = play(&mut files, 1500, true);
        let all: usize = asked.iter().map(Vec::len).sum();
        assert!(all as u64 <= 60 * seconds, "{all} in {seconds} s");
        // Each has its turn.
        let rarest = asked.iter().map(Vec::len).min();
        assert!(rarest >= Some(2), "{rarest:?}");
    }

    #[test]
    fn a_file_that_changes_under_our_eyes_is_busy_whatever_its_time_says() {
        let (path, mut schedule) = (PathBuf::from("slow clock"), Schedule::default());
        let mut due = |now: u64, modified: u64| {
            schedule.begin(Duration::from_secs(now), day(now + 100_000));
            let due = schedule.is_due(&path, day(modified));
            schedule.end(1);
            due
        };
        assert!(!due(100, 0));
        let first = (101..=160).find(|now| due(*now, 0)).unwrap();
        assert!(!due(first + 59, 0) && due(first + 60, 0));
        assert!(due(300, 1) && due(301, 1) && due(3899, 1));
        assert!(!due(3900, 1));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut schedule = Schedule::default();
        for name in ["a", "b"] {
            schedule.begin(Duration::from_secs(if name == "a" { 1 } else { 2 }), day(0));
            schedule.is_due(Path::new(name), day(0));
            assert_eq!(schedule.end(1), Counts { directories: 1, busy: 1, quiet: 0 });
        }
        assert_eq!(schedule.busy().collect::<Vec<_>>(), [Path::new("b")]);
    }
}
