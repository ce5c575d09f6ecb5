//! The runs of a watch: opened when they are first seen, read on as they grow, and ended in the way that fits.
//!
//! Does not know when to look; that is the loop's business.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use tokio::time::Instant;

use crate::convert::run_id::Fingerprint;
use crate::free_space::LowSpace;
use crate::model::{RunId, WallTime};
use crate::pipeline::gate::{Gate, Verdict};
use crate::pipeline::published::Published;
use crate::pipeline::recording::Recording;
use crate::pipeline::report::{Halves, Note, RunEnd, Watcher};
use crate::pipeline::stopping::Stopping;
use crate::pipeline::uploads::Uploads;
use crate::pipeline::watch::growing::{Growing, trouble};
use crate::pipeline::watch::{WatchEnd, WatchOptions};
use crate::pipeline::wide::{is_small, together, wide};
use crate::recorder::{End, Pass, RecordError};
use crate::state_file::durable::Durability;
use crate::survey::{PlannedRun, PlannedSource, Survey};
use crate::watch::plan::Snapshot;

/// Loggers write config files at any time, and they are small: a run that grows has its read again this often.
const CONFIG_AGAIN: Duration = Duration::from_secs(10);
/// File systems may give times that lag a little behind the clock.
const TIMES_LAG: Duration = Duration::from_secs(1);

/// All runs that were seen.
pub(super) struct Runs<'a> {
    options: &'a WatchOptions,
    recording: &'a Recording,
    uploads: Option<&'a Uploads>,
    stopping: &'a Stopping,
    watcher: &'a Arc<dyn Watcher>,
    runs: BTreeMap<RunId, Watched>,
    /// Experiments that have no id of their own; it was said.
    refused: HashSet<PathBuf>,
    /// Whether it was said what was found first.
    found_said: bool,
    /// How many runs were there when it was last said how many.
    known_said: usize,
    /// Whether it was said that the disk is too full to record.
    low_said: AtomicBool,
}

/// A run as the watch knows it.
enum Watched {
    /// It is recorded as it grows.
    Growing(Box<Growing>),
    /// It ended; more may still come.
    Ended(Arc<Halves>),
    /// It grew after its end, which is still being uploaded. An end is cut off before a log goes on, and must not be cut
    /// off under the hands of who reads it.
    Behind(Arc<Halves>),
    /// It had ended when it was first seen, and such runs are left out.
    LeftOut,
    /// Another process records it. That may end: a new watch starts while the old one still sends its rest.
    Held(Box<RunEnd>),
    /// It cannot be recorded; it was said.
    Failed,
    /// There is no room to begin it: none for now, or none until somebody makes some.
    Waiting { for_uploads: bool },
}

impl<'a> Runs<'a> {
    pub(super) fn new(
        options: &'a WatchOptions,
        recording: &'a Recording,
        uploads: Option<&'a Uploads>,
        stopping: &'a Stopping,
        watcher: &'a Arc<dyn Watcher>,
    ) -> Self {
        Self {
            options,
            recording,
            uploads,
            stopping,
            watcher,
            runs: BTreeMap::new(),
            refused: HashSet::new(),
            found_said: false,
            known_said: 0,
            low_said: AtomicBool::new(false),
        }
    }

    /// Files that were made parts of the run of a directory above them.
    pub(super) fn folded(&self) -> HashSet<(String, Fingerprint)> {
        self.recording.folded()
    }

    /// Whether there is no run yet, apart from those that are left out.
    pub(super) fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.runs.values().all(|watched| matches!(watched, Watched::LeftOut))
    }

    /// Whether a run grew that could not be read on.
    pub(super) fn is_behind(&self) -> bool {
        self.runs.values().any(|watched| match watched {
            Watched::Behind(_) | Watched::Waiting { for_uploads: true } => true,
            Watched::Growing(growing) => growing.paused == Some(Verdict::Wait),
            _ => false,
        })
    }

    /// Whether a run was not read to its end because there is no room for it.
    fn is_short_of_room(&self) -> bool {
        self.runs.values().any(|watched| match watched {
            Watched::Waiting { .. } => true,
            Watched::Growing(growing) => growing.paused.is_some(),
            _ => false,
        })
    }

    /// Waits until there may be more room for runs that wait for it.
    pub(super) async fn more_room(&self) {
        match self.uploads.filter(|_| self.is_behind()) {
            Some(uploads) => uploads.spool().changed().await,
            None => std::future::pending().await,
        }
    }

    /// Which runs are to be tried again although nothing of them changed.
    pub(super) fn wait_for_a_turn(&self) -> impl Fn(&PlannedRun) -> bool + use<'_> {
        let waits = |watched: &Watched| match watched {
            Watched::Behind(_) | Watched::Held(_) | Watched::Waiting { .. } => true,
            Watched::Growing(growing) => growing.paused.is_some() || growing.run.recorder.has_unreadable(),
            Watched::Ended(_) | Watched::LeftOut | Watched::Failed => false,
        };
        let waiting: HashSet<&RunId> =
            self.runs.iter().filter(|(_, watched)| waits(watched)).map(|(id, _)| id).collect();
        move |plan| !waiting.is_empty() && self.recording.place_of(plan).is_ok_and(|(id, _)| waiting.contains(&id))
    }

    /// How many runs are found first, if these are more than may be.
    pub(super) fn first_beyond(&self, most: usize, plans: &[PlannedRun]) -> Option<usize> {
        if !self.runs.is_empty() || plans.len() <= most {
            return None;
        }
        let count = plans.iter().filter(|plan| !self.leaves_out(plan)).count();
        (count > most).then_some(count)
    }

    /// Says which files, by path and first record, are still there: runs let go of the others.
    pub(super) fn only_there(&mut self, is_there: impl Fn(&Path, &Fingerprint) -> bool) {
        for watched in self.runs.values_mut() {
            if let Watched::Growing(growing) = watched {
                growing.plan.sources.retain(|source| is_there(&source.path, &source.fingerprint));
                growing.run.recorder.only_there(&is_there);
            }
        }
    }

    /// The runs that some files belong to, with these as they are now. `None` when one belongs to no run that grows.
    pub(super) fn plans_with(&self, files: &Snapshot) -> Option<Vec<PlannedRun>> {
        let mut plans = Vec::new();
        let mut known = 0;
        for growing in self.growing() {
            let concerned = |source: &PlannedSource| files.contains_key(&source.path);
            if !growing.plan.sources.iter().any(concerned) {
                continue;
            }
            let mut plan = growing.plan.clone();
            for source in &mut plan.sources {
                if let Some(seen) = files.get(&source.path) {
                    (source.size, source.modified) = (seen.size, seen.modified);
                    plan.modified = plan.modified.max(seen.modified);
                    known += 1;
                }
            }
            plans.push(plan);
        }
        (known == files.len()).then_some(plans)
    }

    /// Reads what is new in some runs, several at once. True when there was anything.
    pub(super) fn read_on(&mut self, plans: Vec<PlannedRun>) -> bool {
        let mut work = Vec::new();
        let (plans, refused) = self.recording.assign(plans);
        for (source, error) in refused {
            if self.refused.insert(source.clone()) {
                self.watcher.ended(RunEnd { source, record_error: Some(error), ..RunEnd::default() });
            }
        }
        for plan in plans {
            let id = match self.recording.place_of(&plan) {
                Ok((id, _)) => id,
                Err(error) => {
                    self.watcher.note(Note::Trouble(format!("`{}`: {error}", plan.directory.display())));
                    continue;
                }
            };
            if !matches!(self.runs.get(&id), Some(Watched::Failed)) {
                let known = self.runs.remove(&id);
                work.push((id, plan, known));
            }
        }
        let this = &*self;
        let read = |(id, plan, known): (RunId, PlannedRun, Option<Watched>), durability: &Durability| {
            if !this.stopping.may_read_on() {
                return (id, known, false);
            }
            let (watched, grew) = this.read_run(&id, plan, known, durability);
            (id, Some(watched), grew)
        };
        let (small, others): (Vec<_>, Vec<_>) =
            work.into_iter().partition(|(_, plan, known)| known.is_none() && is_small(plan));
        let alone = |work: Vec<_>| work.into_par_iter().map(|run| read(run, &Durability::Each)).collect();
        let mut done: Vec<(RunId, Option<Watched>, bool)> = alone(others);
        done.extend(match together(small.len(), self.recording) {
            None => alone(small),
            Some(together) => wide(small, |run| read(run, &together)),
        });
        let mut grew_any = false;
        let (mut growing, mut ended, mut left_out) = (0, 0, 0);
        for (id, watched, grew) in done {
            grew_any |= grew;
            let Some(watched) = watched else { continue };
            match &watched {
                Watched::Growing(_) | Watched::Waiting { .. } => growing += 1,
                Watched::Ended(_) | Watched::Behind(_) => ended += 1,
                Watched::LeftOut => left_out += 1,
                Watched::Held(_) | Watched::Failed => {}
            }
            self.runs.insert(id, watched);
        }
        if let Some(uploads) = self.uploads {
            // What is there may be less than what is sent at once otherwise.
            uploads.hurry(self.is_behind());
        }
        if !self.is_short_of_room() {
            self.low_said.store(false, Ordering::Relaxed);
        }
        if !self.found_said && growing + ended + left_out > 0 {
            self.found_said = true;
            self.known_said = self.runs.len();
            self.watcher.note(Note::Found { growing, ended, left_out });
        }
        if self.found_said && self.runs.len() > self.known_said {
            self.known_said = self.runs.len();
            let is_left_out = |watched: &&Watched| matches!(watched, Watched::LeftOut);
            self.watcher.note(Note::Known(self.runs.len() - self.runs.values().filter(is_left_out).count()));
        }
        grew_any
    }

    /// When a row that waits for more values is to be closed.
    pub(super) fn next_close(&self) -> Option<Instant> {
        self.growing().filter(|growing| growing.paused.is_none()).filter_map(Growing::next_close).min()
    }

    /// Closes the rows whose files have been quiet for long enough.
    pub(super) fn close_rows(&mut self) {
        let (watcher, stopping, now) = (self.watcher, self.stopping, Instant::now());
        self.runs.par_iter_mut().for_each(|(_, watched)| {
            let Watched::Growing(growing) = watched else { return };
            if growing.paused.is_some() {
                return;
            }
            match growing.close_rows(now, stopping) {
                None => {}
                Some(Ok(pass)) => watcher.note(Note::Recorded(pass)),
                Some(Err(error)) => {
                    watcher.note(trouble(&growing.plan.directory, &error));
                    if let Watched::Growing(growing) = std::mem::replace(watched, Watched::Failed) {
                        *watched = ended(growing, Some(error));
                    }
                }
            }
        });
    }

    /// Ends the runs that still grow, or leaves them open.
    pub(super) fn end(&mut self, end: WatchEnd) {
        if self.runs.values().any(|watched| matches!(watched, Watched::Waiting { .. } | Watched::Behind(_))) {
            self.stopping.stop_short();
        }
        let runs = std::mem::take(&mut self.runs);
        runs.into_par_iter().for_each(|(_, watched)| match watched {
            Watched::Growing(growing) => self.end_run(growing, end),
            Watched::Held(end) => self.watcher.ended(*end),
            Watched::Behind(_) | Watched::Ended(_) | Watched::LeftOut | Watched::Failed | Watched::Waiting { .. } => {}
        });
    }

    fn end_run(&self, mut growing: Box<Growing>, end: WatchEnd) {
        let is_its = |started: SystemTime| growing.plan.modified + TIMES_LAG >= started;
        let code = match end {
            // What the command did not write to did not end with it.
            WatchEnd::Command(_) if !self.options.command_started.is_none_or(is_its) => None,
            end => end.exit_code(),
        };
        self.read_config_again(&mut growing);
        Survey::ask_anew(&mut growing.plan);
        growing.is_last = true;
        let failed = match code {
            Some(code) => growing.pass(End::Exit(code), self.stopping).err(),
            None => growing.pass(End::CloseRow, self.stopping).err(),
        };
        let paused = growing.paused.take();
        if paused.is_some() {
            self.stopping.stop_short();
        }
        let paused = paused.and_then(|verdict| growing.gate.error(verdict));
        let failed = failed.or(paused);
        let failed = failed.or_else(|| if end == WatchEnd::Terminated { growing.preempt() } else { None });
        ended(growing, failed);
    }

    /// How long to wait at least after a hint.
    pub(super) fn pause(&self) -> Duration {
        self.growing().map(Growing::pause).max().unwrap_or_default()
    }

    fn growing(&self) -> impl Iterator<Item = &Growing> {
        self.runs.values().filter_map(|watched| match watched {
            Watched::Growing(growing) => Some(&**growing),
            _ => None,
        })
    }

    /// Reads what is new in one run, which may be new itself.
    fn read_run(
        &self,
        id: &RunId,
        plan: PlannedRun,
        known: Option<Watched>,
        durability: &Durability,
    ) -> (Watched, bool) {
        match known {
            Some(Watched::Growing(mut growing)) => {
                let files = |plan: &PlannedRun| plan.sources.iter().map(|source| source.fingerprint.clone()).collect();
                let (new, old): (Vec<_>, Vec<_>) = (files(&plan), files(&growing.plan));
                let new_files = new != old;
                growing.plan = plan;
                self.read_growing(growing, new_files)
            }
            Some(Watched::Ended(halves) | Watched::Behind(halves)) if !halves.have_ended() => {
                (Watched::Behind(halves), false)
            }
            None | Some(Watched::LeftOut) if self.leaves_out(&plan) => (Watched::LeftOut, false),
            known => {
                let was_held = matches!(known, Some(Watched::Held(_)));
                let (mut watched, grew) = self.read_first(id, plan, was_held, durability);
                if let Watched::Growing(growing) = &mut watched {
                    // It will go on when others do not.
                    growing.run.recorder.lasts_alone();
                }
                (watched, grew)
            }
        }
    }

    fn read_growing(&self, mut growing: Box<Growing>, new_files: bool) -> (Watched, bool) {
        if growing.config_read.elapsed() >= CONFIG_AGAIN {
            self.read_config_again(&mut growing);
        }
        match growing.pass(End::KeepRow, self.stopping) {
            Ok(pass) => {
                let grew = pass.events > 0;
                self.watcher.note(Note::Recorded(pass));
                if new_files {
                    self.recording.remember(&growing.run);
                }
                self.say_low(&growing);
                if growing.is_first && growing.paused.is_none() {
                    return (self.read_whole(growing, true), grew);
                }
                (Watched::Growing(growing), grew)
            }
            Err(error) => {
                self.watcher.note(trouble(&growing.plan.directory, &error));
                (ended(growing, Some(error)), false)
            }
        }
    }

    /// What cannot be written of it now is written with the next pass, which says so if it cannot be either.
    fn read_config_again(&self, growing: &mut Growing) {
        growing.config_read = Instant::now();
        if let Err(error) = self.recording.read_config_again(&growing.plan, &mut growing.run) {
            self.watcher.note(trouble(&growing.plan.directory, &error));
        }
        growing.run.notes.drain(..).for_each(|note| self.watcher.note(note));
    }

    /// Opens a run and reads it for the first time, or for the first time since it ended.
    fn read_first(&self, id: &RunId, plan: PlannedRun, was_held: bool, durability: &Durability) -> (Watched, bool) {
        let gate = Gate::new(self.recording, self.uploads).or_only_record(self.uploads);
        match gate.ask(true) {
            Verdict::Go => {}
            Verdict::Low(low) => {
                self.say(&low);
                return (Watched::Waiting { for_uploads: false }, false);
            }
            verdict => return (Watched::Waiting { for_uploads: verdict == Verdict::Wait }, false),
        }
        let mut growing = match self.open(id, plan, gate, durability) {
            Ok(growing) => growing,
            Err(end) if matches!(end.record_error, Some(RecordError::Locked(_) | RecordError::Making(_))) => {
                if !was_held && let Some(error) = &end.record_error {
                    self.watcher.note(trouble(&end.source, error));
                }
                return (Watched::Held(end), false);
            }
            Err(end) => {
                self.watcher.ended(*end);
                return (Watched::Failed, false);
            }
        };
        let grew = match growing.pass(End::KeepRow, self.stopping) {
            Ok(pass) => {
                let grew = pass.events > 0;
                self.watcher.note(Note::Recorded(pass));
                grew
            }
            Err(error) => {
                self.watcher.note(trouble(&growing.plan.directory, &error));
                self.start_upload(&growing, false);
                return (ended(growing, Some(error)), false);
            }
        };
        self.recording.remember(&growing.run);
        self.say_low(&growing);
        if growing.paused.is_some() {
            // There is more than there is room for: what was read has to be sent first.
            self.start_upload(&growing, true);
            return (Watched::Growing(growing), grew);
        }
        (self.read_whole(growing, false), grew)
    }

    /// What becomes of a run that was read to its end for the first time. `sent` says that its upload is under way.
    fn read_whole(&self, mut growing: Box<Growing>, sent: bool) -> Watched {
        growing.is_first = false;
        let recorder = &growing.run.recorder;
        if recorder.checkpoint().ending.is_some() && recorder.open_rows().next().is_none() {
            // It ended in an earlier process, and nothing came since: what ends us is no business of it.
            if !sent {
                self.start_upload(&growing, false);
            }
            return ended(growing, None);
        }
        if !self.is_recent(growing.run.recorder.newest_event()) {
            growing.is_last = true;
            let last = growing.pass(End::Exit(0), self.stopping);
            let error = last.map(|pass| self.watcher.note(Note::Recorded(pass))).err();
            if !sent {
                self.start_upload(&growing, false);
            }
            return ended(growing, error);
        }
        if !sent {
            self.start_upload(&growing, true);
        }
        Watched::Growing(growing)
    }

    fn say_low(&self, growing: &Growing) {
        if let Some(Verdict::Low(low)) = &growing.paused {
            self.say(low);
        }
    }

    /// Says once that the disk is too full; it goes on by itself when it is not any more.
    fn say(&self, low: &LowSpace) {
        if !self.low_said.swap(true, Ordering::Relaxed) {
            let text =
                format!("{low}: nothing more is recorded until there is more room; `--min-free` changes the limit");
            self.watcher.note(Note::Trouble(text));
        }
    }

    fn open(
        &self,
        id: &RunId,
        plan: PlannedRun,
        mut gate: Gate,
        durability: &Durability,
    ) -> Result<Box<Growing>, Box<RunEnd>> {
        match self.recording.open(&plan, durability) {
            Ok(mut run) => {
                gate.follow(&mut run);
                run.notes.drain(..).for_each(|note| self.watcher.note(note));
                let published = Published::new(&run.recorder);
                let count = if self.uploads.is_some() { 2 } else { 1 };
                let halves = Halves::new(self.watcher.clone(), plan.directory.clone(), id.clone(), count);
                Ok(Box::new(Growing {
                    gate,
                    paused: None,
                    is_last: false,
                    is_first: true,
                    plan,
                    run,
                    published,
                    halves,
                    total: Pass::default(),
                    config_read: Instant::now(),
                }))
            }
            Err(error) => Err(Box::new(RunEnd {
                source: plan.directory,
                id: Some(id.clone()),
                record_error: Some(error),
                ..RunEnd::default()
            })),
        }
    }

    /// Whether nothing was recorded of a run, and nothing of it is wanted: it had ended before, or is older than a filter
    /// lets through.
    fn leaves_out(&self, plan: &PlannedRun) -> bool {
        if self.recording.place_of(plan).is_ok_and(|(_, directory)| directory.is_some()) {
            return false;
        }
        // Nothing is newer than the time of the last write; but a copy of old files was written just now.
        let written = plan.modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        if WallTime::new(written).is_some_and(|written| self.recording.options.filter.is_before(written)) {
            return true;
        }
        self.options.new_only
            && (!self.is_recent(WallTime::new(written)) || !self.is_recent(self.recording.newest_event(plan)))
    }

    /// Whether a time is recent enough for its run to be alive. No time is not.
    fn is_recent(&self, time: Option<WallTime>) -> bool {
        is_recent(time.map(WallTime::seconds), self.options.stale_after)
    }

    fn start_upload(&self, growing: &Growing, live: bool) {
        let Some(uploads) = self.uploads else { return };
        let halves = growing.halves.clone();
        let run = self.recording.to_upload(&growing.run, &growing.published, growing.gate.meter.clone(), live);
        uploads.start(run, move |uploaded| halves.uploaded(uploaded));
    }
}

/// Nothing more is recorded of a run for now.
fn ended(growing: Box<Growing>, error: Option<RecordError>) -> Watched {
    let failed = error.is_some();
    let halves = growing.end(error);
    if failed { Watched::Failed } else { Watched::Ended(halves) }
}

/// Whether a time, in seconds since the Unix epoch, is less than `age` ago. No time is not recent.
fn is_recent(time: Option<f64>, age: Duration) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    time.is_some_and(|time| now - time < age.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

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
