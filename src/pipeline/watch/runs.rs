//! The runs of a watch: opened when they are first seen, read on as they grow, and ended in the way that fits.
//!
//! Does not know when to look; that is the loop's business.

mod one_run;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rayon::prelude::*;
use tokio::time::Instant;

use crate::convert::run_id::Fingerprint;
use crate::model::RunId;
use crate::pipeline::gate::Verdict;
use crate::pipeline::recording::Recording;
use crate::pipeline::report::{Halves, Note, RunEnd, Watcher};
use crate::pipeline::stopping::Stopping;
use crate::pipeline::uploads::Uploads;
use crate::pipeline::watch::growing::{Growing, trouble};
use crate::pipeline::watch::runs::one_run::ended;
use crate::pipeline::watch::{WatchEnd, WatchOptions};
use crate::pipeline::wide::{is_small, together, wide};
use crate::state_file::durable::Durability;
use crate::survey::{PlannedRun, PlannedSource};
use crate::watch::plan::Snapshot;

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
        let work = self.work(plans);
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
        self.say_found(growing, ended, left_out);
        grew_any
    }

    /// Takes out the runs that these plans are of, each with its plan. Those that were said to fail are left alone.
    fn work(&mut self, plans: Vec<PlannedRun>) -> Vec<(RunId, PlannedRun, Option<Watched>)> {
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
        work
    }

    /// Says what was found first, and how many runs there are when there are more.
    fn say_found(&mut self, growing: usize, ended: usize, left_out: usize) {
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
}
