//! Watch: record what is there, and go on as files grow and appear.
//!
//! A reconciliation: each look compares the directory with the last look, and runs whose files changed are read on. Only
//! this loop decides when a run ends; what becomes of the single run is in `runs`.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, sleep_until};

use crate::convert::run_id::Fingerprint;
use crate::pipeline::child::RunningCommand;
use crate::pipeline::recording::Recording;
use crate::pipeline::report::{Note, Watcher};
use crate::pipeline::signals::Signal;
use crate::pipeline::stopping::{Stopping, at};
use crate::pipeline::uploads::Uploads;
use crate::survey::{Found, PlannedRun, Survey};
use crate::watch::hints::{Hints, is_remote};
use crate::watch::plan::{Change, Counts, Pace, Schedule, Seen, Snapshot, changes, pace};

mod growing;
mod runs;

use runs::Runs;

/// Hints come in bursts; reading for each would split a writer's flush into several rows.
const AFTER_HINT: Duration = Duration::from_millis(50);
/// Runs that grow all the time are read this far apart: each read ends in a commit, and what was read is sent once a
/// second.
const BETWEEN_HINTS: Duration = Duration::from_millis(250);
/// How often the files are looked at when nobody says.
const POLL: Duration = Duration::from_secs(1);
/// The same on network file systems, which give no hints either.
const POLL_REMOTE: Duration = Duration::from_secs(10);
/// A run that grows again while its end is still being uploaded waits for that; this often it is asked for.
const WHILE_BEHIND: Duration = Duration::from_millis(100);

/// What to watch, and until when.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Directories and files; they need not exist yet.
    pub paths: Vec<PathBuf>,
    /// `--poll`
    pub poll: Option<Duration>,
    /// `--until-idle`; a command that runs beside is waited for all the same, so it has no meaning there.
    pub until_idle: Option<Duration>,
    /// `--stale-after`
    pub stale_after: Duration,
    /// `--new-only`
    pub new_only: bool,
    /// `--drain`
    pub drain: Duration,
    /// `--max-duration`
    pub until: Option<Instant>,
    /// When the command that runs beside was started. Runs that were not written to since are none of its.
    pub command_started: Option<SystemTime>,
    /// If more runs than this are found first, none of them is recorded.
    pub most_runs: Option<usize>,
}

/// Why watching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEnd {
    /// Nothing came for `--until-idle`.
    Idle,
    /// The command that was run beside ended with this code.
    Command(i32),
    /// The user pressed Ctrl-C.
    Interrupted,
    /// The system wants the place.
    Terminated,
    /// `--max-duration` has passed.
    TimeLimit,
    /// The server does not accept the key.
    Refused,
    /// So many runs were found first: more than may be.
    TooManyRuns(usize),
}

impl WatchEnd {
    /// How the runs that still grow end; `None` leaves them open.
    fn exit_code(self) -> Option<i32> {
        match self {
            Self::Idle | Self::Interrupted => Some(0),
            Self::Command(code) => Some(code),
            Self::Terminated | Self::TimeLimit | Self::Refused | Self::TooManyRuns(_) => None,
        }
    }
}

/// How a watch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub end: WatchEnd,
    /// The second signal, if there was one: it allowed no more.
    pub cut_short: Option<Signal>,
    /// Whether all that was there was read, and the uploads came to an end of their own.
    pub delivered: bool,
    /// Event files that `--include` and `--exclude` left out.
    pub left_out: Vec<PathBuf>,
    /// What could not be read at the last look, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Event files whose writers have only begun.
    pub waiting: Vec<PathBuf>,
    /// Patterns of these that matched no TB run, with their flags.
    pub idle_patterns: Vec<String>,
}

/// Watches until something ends it. Uploads are drained before it returns.
pub async fn watch(
    options: &WatchOptions,
    survey: Survey,
    recording: &Recording,
    uploads: Option<&Uploads>,
    command: Option<&RunningCommand>,
    stopping: &Stopping,
    watcher: &Arc<dyn Watcher>,
) -> Ending {
    let ours = std::path::absolute(&recording.wandb_directory).unwrap_or_else(|_| recording.wandb_directory.clone());
    let matters =
        move |path: &Path, is_new_directory| (is_new_directory || is_event_file(path)) && !path.starts_with(&ours);
    let mut watch = Watch {
        options,
        survey,
        watcher,
        stopping,
        hints: Hints::new(matters),
        runs: Runs::new(options, recording, uploads, stopping, watcher),
        snapshot: Snapshot::new(),
        fingerprints: HashMap::new(),
        waiting_said: false,
        too_many: None,
        left_out: Vec::new(),
        unreadable: Vec::new(),
        waiting: Vec::new(),
        idle_patterns: Vec::new(),
        began: Instant::now(),
        schedule: Schedule::default(),
        counts: Counts::default(),
        last_look: Instant::now(),
        last_growth: None,
    };
    let end = watch.until_something_ends_it(uploads, command).await;
    if stopping.signal().is_some() {
        watcher.note(Note::Ending(options.drain));
    }
    match end {
        WatchEnd::TimeLimit => stopping.allow(options.drain),
        WatchEnd::Command(_) if stopping.signal().is_some() => stopping.allow(options.drain),
        _ => {}
    }
    let end = match (end, stopping.signal()) {
        // It will go on elsewhere, whatever it said when it was told to end.
        (WatchEnd::Command(_), Some(Signal::Terminate)) => WatchEnd::Terminated,
        _ => end,
    };
    if !matches!(end, WatchEnd::TooManyRuns(_)) {
        watch.look_once_more().await;
    }
    let end = watch.too_many.map_or(end, WatchEnd::TooManyRuns);
    tokio::task::block_in_place(|| watch.runs.end(end));
    let delivered = match uploads {
        Some(uploads) => uploads.deliver(stopping).await,
        None => true,
    };
    Ending {
        end,
        cut_short: stopping.second_signal(),
        delivered: delivered && !stopping.stopped_reading(),
        left_out: watch.left_out,
        unreadable: watch.unreadable,
        waiting: watch.waiting,
        idle_patterns: watch.idle_patterns,
    }
}

/// Which files to ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Not those that nobody has written to for long.
    Due,
    /// All.
    All,
}

struct Watch<'a> {
    options: &'a WatchOptions,
    survey: Survey,
    watcher: &'a Arc<dyn Watcher>,
    stopping: &'a Stopping,
    hints: Hints,
    runs: Runs<'a>,
    /// The files as they were when they were last read.
    snapshot: Snapshot,
    /// The first records of these files.
    fingerprints: HashMap<PathBuf, Fingerprint>,
    waiting_said: bool,
    /// So many runs were found first, and may not be recorded.
    too_many: Option<usize>,
    /// What filters left out at the last look, what could not be read, and which of their patterns matched nothing.
    left_out: Vec<PathBuf>,
    unreadable: Vec<(PathBuf, String)>,
    waiting: Vec<PathBuf>,
    idle_patterns: Vec<String>,
    began: Instant,
    /// Which files are looked at when, and how many there are.
    schedule: Schedule,
    counts: Counts,
    last_look: Instant,
    /// When something new was read last; `None` before the first event.
    last_growth: Option<Instant>,
}

impl Watch<'_> {
    async fn until_something_ends_it(
        &mut self,
        uploads: Option<&Uploads>,
        command: Option<&RunningCommand>,
    ) -> WatchEnd {
        let remote = self.options.paths.iter().any(|path| is_remote(&nearest_directory(path)));
        let poll = self.options.poll.unwrap_or(if remote { POLL_REMOTE } else { POLL });
        tracing::debug!(remote, poll = poll.as_secs_f64(), "watching");
        let until_idle = self.options.until_idle.filter(|_| command.is_none());
        let mut next_look = Instant::now();
        let mut next_glance: Option<Instant> = None;
        let mut hinted: BTreeSet<PathBuf> = BTreeSet::new();
        let mut heed_hints: Option<Instant> = None;
        let mut heeded: Option<Instant> = None;
        loop {
            let idle = until_idle.and_then(|limit| Some(self.last_growth? + limit));
            tokio::select! {
                biased;
                signal = self.stopping.first(), if command.is_none() => return match signal {
                    Signal::Interrupt => WatchEnd::Interrupted,
                    _ => WatchEnd::Terminated,
                },
                code = wait_for(command) => return WatchEnd::Command(code),
                () = at(self.options.until) => return WatchEnd::TimeLimit,
                // A command goes on whatever the server says, and all that it writes is recorded here.
                () = refused(uploads), if command.is_none() => return WatchEnd::Refused,
                () = at(idle) => {
                    let grew = tokio::task::block_in_place(|| self.look(Which::All));
                    if !grew && !self.runs.is_behind() {
                        return WatchEnd::Idle;
                    }
                    self.last_growth = Some(Instant::now());
                }
                () = at(self.runs.next_close()) => tokio::task::block_in_place(|| self.runs.close_rows()),
                () = at(heed_hints) => {
                    heed_hints = None;
                    heeded = Some(Instant::now());
                    let paths = std::mem::take(&mut hinted);
                    if tokio::task::block_in_place(|| self.look_at(paths)).is_none() {
                        // Everything has to be looked at, but not more often than the files allow.
                        next_look = next_look.min(self.last_look + pace(AFTER_HINT, self.counts, remote).look);
                    }
                }
                () = sleep_until(next_look) => {
                    tokio::task::block_in_place(|| self.look(Which::Due));
                    if let Some(runs) = self.too_many {
                        return WatchEnd::TooManyRuns(runs);
                    }
                    let Pace { look, glance, .. } = pace(poll, self.counts, remote);
                    next_look = self.last_look + look;
                    next_glance = glance.map(|glance| self.last_look + glance);
                }
                () = at(next_glance) => {
                    let busy = self.schedule.busy().cloned().collect();
                    if tokio::task::block_in_place(|| self.look_at(busy)).is_none() {
                        next_look = next_look.min(self.last_look + pace(AFTER_HINT, self.counts, remote).look);
                    }
                    let glance = pace(poll, self.counts, remote).glance;
                    next_glance = glance.map(|glance| Instant::now() + glance);
                }
                () = self.runs.more_room() => {
                    next_look = next_look.min(self.last_look + pace(AFTER_HINT, self.counts, remote).look);
                }
                paths = self.hints.next() => {
                    hinted.extend(paths);
                    let pause = self.runs.pause();
                    heed_hints.get_or_insert_with(|| heed_at(Instant::now(), pause, heeded));
                }
            }
        }
    }

    /// Looks at all directories, and at all files or those that are due. True when something new was read.
    fn look(&mut self, which: Which) -> bool {
        let (there, missing): (Vec<PathBuf>, Vec<PathBuf>) =
            self.options.paths.iter().cloned().partition(|path| path.exists());
        self.hints.only_about(&there);
        if !missing.is_empty() && !self.waiting_said {
            self.waiting_said = true;
            self.watcher.note(Note::Waiting(missing));
        }
        let schedule = &mut self.schedule;
        schedule.begin(self.began.elapsed(), SystemTime::now());
        let mut is_due = |path: &Path, modified| schedule.is_due(path, modified) || which == Which::All;
        let mut found = match self.survey.look_at_due(&there, &self.runs.folded(), &mut is_due) {
            Ok(found) => found,
            Err(error) => {
                self.watcher.note(Note::Trouble(format!("cannot look at the directories: {error}")));
                self.last_look = Instant::now();
                return false;
            }
        };
        self.counts = self.schedule.end(found.directories);
        for (path, why) in &found.unreadable {
            self.watcher.note(Note::Trouble(format!("cannot read `{}`: {why}", path.display())));
        }
        (self.left_out, self.idle_patterns) =
            (std::mem::take(&mut found.left_out), std::mem::take(&mut found.idle_patterns));
        (self.unreadable, self.waiting) = (std::mem::take(&mut found.unreadable), std::mem::take(&mut found.waiting));
        let plans = self.changed(found);
        self.too_many = self.options.most_runs.and_then(|most| self.runs.first_beyond(most, &plans));
        if self.too_many.is_some() {
            return false;
        }
        let grew = self.runs.read_on(plans);
        if grew || (self.last_growth.is_none() && !self.runs.is_empty()) {
            self.last_growth = Some(Instant::now());
        }
        self.last_look = Instant::now();
        grew
    }

    /// The runs of which files changed since the last look.
    fn changed(&mut self, found: Found) -> Vec<PlannedRun> {
        let mut now = Snapshot::new();
        let mut fingerprints = HashMap::new();
        for source in found.runs.iter().flat_map(|run| &run.sources) {
            let (size, modified, identity) = (source.size, source.modified, source.identity);
            now.insert(source.path.clone(), Seen { size, modified, identity });
            fingerprints.insert(source.path.clone(), source.fingerprint.clone());
        }
        let mut changed = changes(&self.snapshot, &now);
        // Another file in the place of the old one, even if it has its number and its size.
        let is_other =
            |path: &&PathBuf| self.fingerprints.get(*path).is_some_and(|old| fingerprints.get(*path) != Some(old));
        let others: BTreeSet<&PathBuf> = now.keys().filter(is_other).collect();
        changed.retain(|(path, _)| !others.contains(path));
        changed.extend(others.into_iter().map(|path| (path, Change::Replaced)));
        for (path, change) in &changed {
            let what = match change {
                Change::New | Change::Grown => continue,
                // `rsync` replaces a file by a longer copy of it.
                Change::Replaced
                    if self.fingerprints.get(*path) == fingerprints.get(*path)
                        && self.snapshot.get(*path).map(|seen| seen.size) <= now.get(*path).map(|seen| seen.size) =>
                {
                    continue;
                }
                Change::Shrunk => "is shorter than before; what was read of it stays",
                Change::Replaced => "was replaced by another file; what was read of the old one stays",
                Change::Vanished => "is gone; what was read of it stays",
            };
            self.watcher.note(Note::Odd { path: (*path).clone(), what });
        }
        let changed: BTreeSet<&PathBuf> = changed.into_iter().map(|(path, _)| path).collect();
        let waits = self.runs.wait_for_a_turn();
        let is_due =
            |plan: &PlannedRun| plan.sources.iter().any(|source| changed.contains(&source.path)) || waits(plan);
        let mut plans: Vec<PlannedRun> = found.runs.into_iter().filter(is_due).collect();
        drop(waits);
        // Runs that grow are sent first.
        plans.sort_by_key(|plan| std::cmp::Reverse(plan.modified));
        self.runs.only_there(|path, fingerprint| fingerprints.get(path) == Some(fingerprint));
        (self.snapshot, self.fingerprints) = (now, fingerprints);
        plans
    }

    /// Looks at files that are known already. `None` when that is not enough: then nothing was done, and everything has
    /// to be looked at.
    fn look_at(&mut self, paths: BTreeSet<PathBuf>) -> Option<bool> {
        let mut changed = Snapshot::new();
        for path in paths {
            let path = if self.snapshot.contains_key(&path) { path } else { path.canonicalize().ok()? };
            let known = self.snapshot.get(&path)?;
            let (size, modified, identity) = self.survey.stat(&path)?;
            let seen = Seen { size, modified, identity };
            if seen.size < known.size || seen.identity != known.identity {
                return None;
            }
            if seen != *known {
                changed.insert(path, seen);
            }
        }
        if changed.is_empty() {
            return Some(false);
        }
        let plans = self.runs.plans_with(&changed)?;
        self.snapshot.append(&mut changed);
        let grew = self.runs.read_on(plans);
        if grew {
            self.last_growth = Some(Instant::now());
        }
        Some(grew)
    }

    /// Reads what came since the last look, before the runs end.
    async fn look_once_more(&mut self) {
        tokio::task::block_in_place(|| self.look(Which::All));
        while self.runs.is_behind() && self.stopping.may_go_on() {
            sleep(WHILE_BEHIND).await;
            tokio::task::block_in_place(|| self.look(Which::All));
        }
    }
}

/// Whether a change of the path may mean more events.
fn is_event_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("tfevents"))
}

/// The path itself, or the nearest directory above it that exists.
fn nearest_directory(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(&absolute).to_owned()
}

async fn wait_for(command: Option<&RunningCommand>) -> i32 {
    match command {
        Some(command) => command.wait().await,
        None => std::future::pending().await,
    }
}

async fn refused(uploads: Option<&Uploads>) {
    match uploads {
        Some(uploads) => uploads.refused().await,
        None => std::future::pending().await,
    }
}

/// When a hint that comes now is heeded: `pause` is how long the runs want to be left alone, `heeded` when hints were last.
fn heed_at(now: Instant, pause: Duration, heeded: Option<Instant>) -> Instant {
    let soon = now + AFTER_HINT.max(pause);
    heeded.map_or(soon, |heeded| soon.max(heeded + BETWEEN_HINTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_grow_all_the_time_are_read_four_times_a_second() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(heed_at(start, Duration::ZERO, None), start + AFTER_HINT, "the first one is for somebody who waits");
        assert_eq!(heed_at(start, ms(200), None), start + ms(200));
        // A hint every 10 ms, for two seconds: each that finds none waiting decides when all are heeded.
        let (mut heeded, mut at, mut reads) = (None, None, Vec::new());
        for hint in (0..2000).step_by(10).map(|after| start + ms(after)) {
            if let Some(due) = at.filter(|due| *due <= hint) {
                (heeded, at) = (Some(due), None);
                reads.push(due - start);
            }
            at.get_or_insert_with(|| heed_at(hint, Duration::ZERO, heeded));
        }
        let expected: Vec<Duration> = (0..8).map(|number| AFTER_HINT + number * BETWEEN_HINTS).collect();
        assert_eq!(reads, expected);
        // After a rest it is soon again.
        let later = start + Duration::from_secs(60);
        assert_eq!(heed_at(later, Duration::ZERO, heeded), later + AFTER_HINT);
    }

    #[test]
    fn only_known_endings_end_a_run() {
        assert_eq!(WatchEnd::Idle.exit_code(), Some(0));
        assert_eq!(WatchEnd::Command(3).exit_code(), Some(3));
        assert_eq!(WatchEnd::Terminated.exit_code(), None);
        assert_eq!(WatchEnd::Refused.exit_code(), None);
    }

    #[test]
    fn only_event_files_matter() {
        assert!(is_event_file(Path::new("a/events.out.tfevents.1700000000.h")));
        assert!(!is_event_file(Path::new("tfevents/model.pt")));
    }
}
