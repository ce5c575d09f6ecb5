//! One run of a watch: begun, read on as it grows, and ended in the way that fits.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::free_space::LowSpace;
use crate::model::{RunId, WallTime};
use crate::pipeline::gate::{Gate, Verdict};
use crate::pipeline::published::Published;
use crate::pipeline::report::{Halves, Note, RunEnd};
use crate::pipeline::watch::WatchEnd;
use crate::pipeline::watch::growing::{Growing, trouble};
use crate::pipeline::watch::runs::{Runs, Watched};
use crate::recorder::{End, Pass, RecordError};
use crate::state_file::durable::Durability;
use crate::survey::{PlannedRun, Survey};

/// Loggers write config files at any time, and they are small: a run that grows has its read again this often.
const CONFIG_AGAIN: Duration = Duration::from_secs(10);

/// File systems may give times that lag a little behind the clock.
const TIMES_LAG: Duration = Duration::from_secs(1);

impl Runs<'_> {
    /// Reads what is new in one run, which may be new itself.
    pub(super) fn read_run(
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

    pub(super) fn end_run(&self, mut growing: Box<Growing>, end: WatchEnd) {
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

    /// What cannot be written of it now is written with the next pass, which says so if it cannot be either.
    fn read_config_again(&self, growing: &mut Growing) {
        growing.config_read = Instant::now();
        if let Err(error) = self.recording.read_config_again(&growing.plan, &mut growing.run) {
            self.watcher.note(trouble(&growing.plan.directory, &error));
        }
        growing.run.notes.drain(..).for_each(|note| self.watcher.note(note));
    }

    /// Whether nothing was recorded of a run, and nothing of it is wanted: it had ended before, or is older than a filter
    /// lets through.
    pub(super) fn leaves_out(&self, plan: &PlannedRun) -> bool {
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
}

/// Nothing more is recorded of a run for now.
pub(super) fn ended(growing: Box<Growing>, error: Option<RecordError>) -> Watched {
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
