//! Watch: record what is there, and go on as files grow and appear.
//!
//! A reconciliation: each look compares the directory with the last look, and runs whose files changed are read on. Only
//! this loop decides when a run ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use tokio::time::{Instant, sleep_until};

use crate::model::RunId;
use crate::pipeline::child::RunningCommand;
use crate::pipeline::recording::{OpenRun, Published, Recording};
use crate::pipeline::report::{Halves, Note, Recorded, RunEnd, Watcher};
use crate::pipeline::signals::{Signal, Signals};
use crate::pipeline::uploads::Uploads;
use crate::recorder::{End, Pass};
use crate::survey::{PlannedRun, Survey};
use crate::watch::hints::{Hints, is_remote};
use crate::watch::plan::{Change, Seen, Snapshot, changes, until_next_look};

/// How long the last row of a step stays open for more values once nothing comes. A writer flushes the values of a step
/// together, but not always in one write.
const OPEN_ROW: Duration = Duration::from_millis(400);
/// Hints come in bursts; reading for each would split a writer's flush into several rows.
const AFTER_HINT: Duration = Duration::from_millis(50);
/// How often the files are looked at when nobody says.
const POLL: Duration = Duration::from_secs(1);
/// The same on network file systems, which give no hints either.
const POLL_REMOTE: Duration = Duration::from_secs(10);

/// What to watch, and until when.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Directories and files; they need not exist yet.
    pub paths: Vec<PathBuf>,
    /// `--poll`
    pub poll: Option<Duration>,
    /// `--until-idle`
    pub until_idle: Option<Duration>,
    /// `--stale-after`
    pub stale_after: Duration,
    /// `--new-only`
    pub new_only: bool,
    /// `--drain`
    pub drain: Duration,
    /// `--max-duration`
    pub until: Option<Instant>,
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
    /// A second signal came, or the drain took too long.
    CutShort(Signal),
    /// `--max-duration` has passed.
    TimeLimit,
}

impl WatchEnd {
    /// How the runs that still grow end; `None` leaves them open.
    fn exit_code(self) -> Option<i32> {
        match self {
            Self::Idle | Self::Interrupted => Some(0),
            Self::Command(code) => Some(code),
            Self::Terminated | Self::CutShort(_) | Self::TimeLimit => None,
        }
    }
}

/// Watches until something ends it. Uploads are drained before it returns.
pub async fn watch(
    options: &WatchOptions,
    survey: Survey,
    recording: &Recording,
    uploads: Option<&Uploads>,
    command: Option<&mut RunningCommand>,
    signals: &mut Signals,
    watcher: &Arc<dyn Watcher>,
) -> WatchEnd {
    let mut watch = Watch {
        options,
        survey,
        recording,
        uploads,
        watcher,
        runs: BTreeMap::new(),
        snapshot: Snapshot::new(),
        first_look: true,
        waiting_said: false,
        last_growth: None,
    };
    let end = watch.until_something_ends_it(command, signals).await;
    tokio::task::block_in_place(|| watch.end_runs(end));
    match uploads {
        Some(uploads) => drain(end, options, uploads, signals).await,
        None => end,
    }
}

/// Waits for the uploads. After a signal at most as long as `--drain` says; a second signal ends it at once.
async fn drain(end: WatchEnd, options: &WatchOptions, uploads: &Uploads, signals: &mut Signals) -> WatchEnd {
    let limit = match end {
        WatchEnd::Interrupted | WatchEnd::Terminated => Some(options.drain),
        WatchEnd::TimeLimit => Some(Duration::ZERO),
        WatchEnd::Idle | WatchEnd::Command(_) | WatchEnd::CutShort(_) => None,
    };
    let finish = uploads.finish(limit);
    tokio::pin!(finish);
    loop {
        tokio::select! {
            _ = &mut finish => return end,
            signal = signals.next() => {
                if matches!(signal, Signal::Interrupt | Signal::Terminate) {
                    uploads.cancel().cancel();
                    finish.await;
                    return WatchEnd::CutShort(signal);
                }
            }
        }
    }
}

struct Watch<'a> {
    options: &'a WatchOptions,
    survey: Survey,
    recording: &'a Recording,
    uploads: Option<&'a Uploads>,
    watcher: &'a Arc<dyn Watcher>,
    runs: BTreeMap<RunId, Watched>,
    snapshot: Snapshot,
    first_look: bool,
    waiting_said: bool,
    /// When something new was read last; `None` before the first event.
    last_growth: Option<Instant>,
}

/// A run as the watch knows it.
enum Watched {
    /// It is recorded as it grows.
    Growing(Box<Growing>),
    /// It ended; more may still come.
    Ended,
    /// It had ended when it was first seen, and such runs are left out.
    LeftOut,
    /// It cannot be recorded; it was said.
    Failed,
}

struct Growing {
    plan: PlannedRun,
    run: OpenRun,
    published: Published,
    halves: Arc<Halves>,
    total: Pass,
}

impl Watch<'_> {
    async fn until_something_ends_it(
        &mut self,
        mut command: Option<&mut RunningCommand>,
        signals: &mut Signals,
    ) -> WatchEnd {
        let directories: Vec<PathBuf> = self.options.paths.iter().map(|path| watched_directory(path)).collect();
        let mut hints = Hints::about(&directories);
        let remote = directories.iter().any(|directory| is_remote(directory));
        let poll = self.options.poll.unwrap_or(if remote { POLL_REMOTE } else { POLL });
        let mut next_look = Instant::now();
        let mut close_rows: Option<Instant> = None;
        let mut asked_to_stop: Option<Signal> = None;
        loop {
            let idle = self.options.until_idle.and_then(|limit| Some(self.last_growth? + limit));
            tokio::select! {
                biased;
                signal = signals.next() => match &command {
                    Some(command) => {
                        // The command decides when it ends; a second signal to us is passed on as well.
                        command.pass_on(signal);
                        asked_to_stop = Some(signal);
                    }
                    None if signal == Signal::Interrupt => return WatchEnd::Interrupted,
                    None if signal == Signal::Terminate => return WatchEnd::Terminated,
                    None => {}
                },
                code = wait_for(command.as_deref_mut()) => {
                    return match asked_to_stop {
                        Some(Signal::Terminate) => WatchEnd::Terminated,
                        _ => WatchEnd::Command(code),
                    };
                }
                () = at(self.options.until) => return WatchEnd::TimeLimit,
                () = at(idle) => return WatchEnd::Idle,
                () = at(close_rows) => {
                    close_rows = None;
                    tokio::task::block_in_place(|| self.close_rows());
                }
                () = sleep_until(next_look) => {
                    let grew = tokio::task::block_in_place(|| self.look());
                    next_look = Instant::now() + until_next_look(poll, self.snapshot.len());
                    close_rows = self.after_reading(grew, close_rows);
                }
                paths = hints.next() => {
                    tokio::time::sleep(AFTER_HINT).await;
                    match tokio::task::block_in_place(|| self.look_at(&paths)) {
                        Some(grew) => close_rows = self.after_reading(grew, close_rows),
                        // Something that is not known: look at everything, unless that was just done.
                        None => next_look = next_look.min(Instant::now() + AFTER_HINT),
                    }
                }
            }
        }
    }

    fn after_reading(&mut self, grew: bool, close_rows: Option<Instant>) -> Option<Instant> {
        if grew {
            self.last_growth = Some(Instant::now());
        }
        let open = self.growing().any(|growing| growing.run.recorder.has_open_row());
        match (open, grew, close_rows) {
            (false, ..) => None,
            (true, false, Some(planned)) => Some(planned),
            (true, ..) => Some(Instant::now() + OPEN_ROW),
        }
    }

    fn growing(&self) -> impl Iterator<Item = &Growing> {
        self.runs.values().filter_map(|watched| match watched {
            Watched::Growing(growing) => Some(&**growing),
            _ => None,
        })
    }

    /// Looks at everything. True when something new was read.
    fn look(&mut self) -> bool {
        let (there, missing): (Vec<PathBuf>, Vec<PathBuf>) =
            self.options.paths.iter().cloned().partition(|path| path.exists());
        if !missing.is_empty() && !self.waiting_said {
            self.waiting_said = true;
            self.watcher.note(Note::Waiting(missing));
        }
        if there.is_empty() {
            return false;
        }
        let found = match self.survey.look(&there) {
            Ok(found) => found,
            Err(error) => {
                self.watcher.note(Note::Trouble(format!("cannot look at the directories: {error}")));
                return false;
            }
        };
        for (path, why) in found.unreadable {
            self.watcher.note(Note::Trouble(format!("cannot read `{}`: {why}", path.display())));
        }
        let mut now = Snapshot::new();
        for source in found.runs.iter().flat_map(|run| &run.sources) {
            now.insert(
                source.path.clone(),
                Seen { size: source.size, modified: source.modified, identity: source.identity },
            );
        }
        let changed: BTreeMap<PathBuf, Change> =
            changes(&self.snapshot, &now).into_iter().map(|(path, change)| (path.clone(), change)).collect();
        self.say_odd(&changed);
        self.snapshot = now;
        let is_changed = |plan: &PlannedRun| plan.sources.iter().any(|source| changed.contains_key(&source.path));
        let mut plans: Vec<PlannedRun> = found.runs.into_iter().filter(is_changed).collect();
        // Runs that grow are sent first.
        plans.sort_by_key(|plan| std::cmp::Reverse(plan.modified));
        self.read_on(plans)
    }

    /// Looks at files that are known already. `None` when one of the paths is not: then everything has to be looked at.
    fn look_at(&mut self, paths: &[PathBuf]) -> Option<bool> {
        let mut changed = Vec::new();
        for path in paths {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let Some(seen) = self.snapshot.get_mut(&path) else {
                if path.is_dir() || !path.to_string_lossy().contains("tfevents") {
                    continue;
                }
                return None;
            };
            let Ok(metadata) = std::fs::metadata(&path) else { return None };
            if metadata.len() < seen.size {
                return None;
            }
            seen.size = metadata.len();
            seen.modified = metadata.modified().unwrap_or(UNIX_EPOCH);
            changed.push((path, seen.size));
        }
        let mut plans = Vec::new();
        for growing in self.runs.values_mut() {
            let Watched::Growing(growing) = growing else { continue };
            let mut concerned = false;
            for source in &mut growing.plan.sources {
                if let Some((_, size)) = changed.iter().find(|(path, _)| *path == source.path) {
                    source.size = *size;
                    concerned = true;
                }
            }
            if concerned {
                plans.push(growing.plan.clone());
            }
        }
        let known: usize = plans
            .iter()
            .flat_map(|plan| &plan.sources)
            .filter(|source| changed.iter().any(|(path, _)| *path == source.path))
            .count();
        // A run that had ended goes on: that takes a whole look.
        if known < changed.len() { None } else { Some(self.read_on(plans)) }
    }

    fn say_odd(&self, changed: &BTreeMap<PathBuf, Change>) {
        for (path, change) in changed {
            let what = match change {
                Change::New | Change::Grown => continue,
                Change::Shrunk => "is shorter than before; what was read of it stays",
                Change::Replaced => "was replaced by another file; what was read of the old one stays",
                Change::Vanished => "is gone; what was read of it stays",
            };
            self.watcher.note(Note::Odd { path: path.clone(), what });
        }
    }

    /// Reads what is new in some runs, several at once. True when there was anything.
    fn read_on(&mut self, plans: Vec<PlannedRun>) -> bool {
        let mut work = Vec::new();
        for plan in plans {
            let id = match self.recording.place_of(&plan) {
                Ok((id, _)) => id,
                Err(error) => {
                    self.watcher.note(Note::Trouble(format!("`{}`: {error}", plan.directory.display())));
                    continue;
                }
            };
            let known = self.runs.remove(&id);
            if matches!(known, Some(Watched::Failed)) {
                self.runs.insert(id, Watched::Failed);
                continue;
            }
            work.push((id, plan, known));
        }
        let done: Vec<(RunId, Watched, bool)> = work
            .into_par_iter()
            .map(|(id, plan, known)| {
                let (watched, grew) = self.read_run(&id, plan, known);
                (id, watched, grew)
            })
            .collect();
        let mut grew_any = false;
        let (mut growing, mut ended, mut left_out) = (0, 0, 0);
        for (id, watched, grew) in done {
            grew_any |= grew;
            match watched {
                Watched::Growing(_) => growing += 1,
                Watched::Ended => ended += 1,
                Watched::LeftOut => left_out += 1,
                Watched::Failed => {}
            }
            self.runs.insert(id, watched);
        }
        if self.first_look && growing + ended + left_out > 0 {
            self.first_look = false;
            self.watcher.note(Note::Found { growing, ended, left_out });
        }
        grew_any
    }

    /// Reads what is new in one run, which may be new itself.
    fn read_run(&self, id: &RunId, plan: PlannedRun, known: Option<Watched>) -> (Watched, bool) {
        let (mut growing, first) = match known {
            Some(Watched::Growing(mut growing)) => {
                growing.plan = plan;
                (growing, false)
            }
            Some(Watched::LeftOut) if !self.is_fresh(&plan) => return (Watched::LeftOut, false),
            known => match self.open(id, plan, known.is_none()) {
                Ok(Some(growing)) => (growing, true),
                Ok(None) => return (Watched::LeftOut, false),
                Err(end) => {
                    self.watcher.ended(*end);
                    return (Watched::Failed, false);
                }
            },
        };
        let grew = match growing.pass(End::KeepRow) {
            Ok(pass) => {
                let grew = pass.events > 0;
                self.watcher.note(Note::Recorded(pass));
                grew
            }
            Err(error) => {
                self.watcher.note(Note::Trouble(format!("`{}`: {error}", growing.plan.directory.display())));
                return (growing.end(Some(error)), false);
            }
        };
        if first {
            self.recording.remember(&growing.run);
            let stale =
                !is_recent(growing.run.recorder.newest_event().map(|time| time.seconds()), self.options.stale_after);
            if stale {
                let error = growing.pass(End::Exit(0)).err();
                self.start_upload(&growing, false);
                return (growing.end(error), grew);
            }
            self.start_upload(&growing, true);
        }
        (Watched::Growing(growing), grew)
    }

    /// Opens a run. `None` when it has ended and such runs are left out.
    fn open(&self, id: &RunId, plan: PlannedRun, is_new: bool) -> Result<Option<Box<Growing>>, Box<RunEnd>> {
        if self.options.new_only && is_new && !self.is_fresh(&plan) {
            return Ok(None);
        }
        match self.recording.open(&plan) {
            Ok(run) => {
                let published = Published::new(&run.recorder);
                let count = if self.uploads.is_some() { 2 } else { 1 };
                let halves = Halves::new(self.watcher.clone(), plan.directory.clone(), id.clone(), count);
                Ok(Some(Box::new(Growing { plan, run, published, halves, total: Pass::default() })))
            }
            Err(error) => Err(Box::new(RunEnd {
                source: plan.directory,
                id: Some(id.clone()),
                record_error: Some(error),
                ..RunEnd::default()
            })),
        }
    }

    /// Whether a run that was never recorded is still growing, by the time its files were last written.
    fn is_fresh(&self, plan: &PlannedRun) -> bool {
        let written = plan.modified.duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64()).ok();
        is_recent(written, self.options.stale_after)
    }

    fn start_upload(&self, growing: &Growing, live: bool) {
        let Some(uploads) = self.uploads else { return };
        let halves = growing.halves.clone();
        let run = self.recording.to_upload(&growing.plan, &growing.run, &growing.published, live);
        uploads.start(run, move |uploaded| halves.uploaded(uploaded));
    }

    /// Nothing came for a while: rows that wait for more values are closed.
    fn close_rows(&mut self) {
        let watcher = self.watcher;
        self.runs.par_iter_mut().for_each(|(_, watched)| {
            let Watched::Growing(growing) = watched else { return };
            if growing.run.recorder.has_open_row() {
                match growing.pass(End::CloseRow) {
                    Ok(pass) => watcher.note(Note::Recorded(pass)),
                    Err(error) => {
                        watcher.note(Note::Trouble(format!("`{}`: {error}", growing.plan.directory.display())))
                    }
                }
            }
        });
    }

    /// Reads everything once more, and ends the runs that still grow, or leaves them open.
    fn end_runs(&mut self, end: WatchEnd) {
        if !matches!(end, WatchEnd::TimeLimit) {
            self.look();
        }
        let runs = std::mem::take(&mut self.runs);
        runs.into_par_iter().for_each(|(_, watched)| {
            let Watched::Growing(mut growing) = watched else { return };
            let ended = match end.exit_code() {
                Some(code) => growing.pass(End::Exit(code)).err(),
                None => growing.pass(End::CloseRow).err().or_else(|| growing.preempt(end)),
            };
            growing.end(ended);
        });
    }
}

impl Growing {
    fn pass(&mut self, end: End) -> Result<Pass, crate::recorder::RecordError> {
        let Self { plan, run, published, total, .. } = self;
        let pass = run.recorder.pass(&plan.sources, end, |position| published.up_to(position), || true)?;
        total.merge(&pass);
        Ok(pass)
    }

    /// W&B is told that the run goes on later, when that is so.
    fn preempt(&mut self, end: WatchEnd) -> Option<crate::recorder::RecordError> {
        let published = &self.published;
        match end {
            WatchEnd::Terminated => self.run.recorder.preempt(|position| published.up_to(position)).err(),
            _ => None,
        }
    }

    /// Nothing more is recorded of it for now.
    fn end(self: Box<Self>, error: Option<crate::recorder::RecordError>) -> Watched {
        let Self { plan, run, published, halves, total } = *self;
        let recorded = Recorded::new(&plan, &run, total);
        let failed = error.is_some();
        // The lock and the log go before anyone is told.
        drop(run);
        halves.recorded(recorded, error);
        published.complete();
        if failed { Watched::Failed } else { Watched::Ended }
    }
}

/// Whether a time, in seconds since the Unix epoch, is less than `age` ago. No time is not recent.
fn is_recent(time: Option<f64>, age: Duration) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    time.is_some_and(|time| now - time < age.as_secs_f64())
}

/// The directory to ask hints about: the path itself, or the nearest directory above it that exists.
fn watched_directory(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing = absolute.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(&absolute);
    existing.canonicalize().unwrap_or_else(|_| existing.to_owned())
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn wait_for(command: Option<&mut RunningCommand>) -> i32 {
    match command {
        Some(command) => command.wait().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_endings_end_a_run() {
        assert_eq!(WatchEnd::Idle.exit_code(), Some(0));
        assert_eq!(WatchEnd::Command(3).exit_code(), Some(3));
        assert_eq!(WatchEnd::Terminated.exit_code(), None);
    }

    #[test]
    fn recent_is_less_than_the_age_ago() {
        let hour = Duration::from_secs(3600);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        assert!(is_recent(Some(now - 3590.0), hour));
        assert!(!is_recent(Some(now - 3610.0), hour));
        assert!(is_recent(Some(now + 1000.0), hour), "a clock ahead of ours");
        assert!(!is_recent(None, hour));
    }
}
