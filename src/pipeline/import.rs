//! Import: everything that is there now, once.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rayon::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::convert::artifact_rule::ArtifactRule;
use crate::pipeline::attach;
use crate::pipeline::gate::{Gate, Verdict};
use crate::pipeline::published::Published;
use crate::pipeline::recording::Recording;
use crate::pipeline::report::{Halves, Note, Recorded, RunEnd, Watcher};
use crate::pipeline::uploads::Uploads;
use crate::pipeline::wide::{is_small, together, wide};
use crate::recorder::{End, Pass};
use crate::state_file::durable::Durability;
use crate::survey::PlannedRun;

/// Records all runs, several at once, and uploads them if there is anything to upload them with. Returns when all are
/// recorded; uploads may still be under way. `stop` ends it early, between two commits. `artifacts` are made of files beside
/// the event files of each run.
pub fn import(
    runs: &[PlannedRun],
    recording: &Recording,
    artifacts: &[ArtifactRule],
    uploads: Option<&Uploads>,
    stop: &CancellationToken,
    watcher: &Arc<dyn Watcher>,
) {
    let each = |plan: &PlannedRun, durability: &Durability| {
        if !stop.is_cancelled() {
            import_run(plan, recording, durability, artifacts, uploads, stop, watcher);
        }
    };
    let (small, large): (Vec<&PlannedRun>, Vec<&PlannedRun>) = runs.iter().partition(|plan| is_small(plan));
    match together(small.len(), recording) {
        None => runs.par_iter().for_each(|plan| each(plan, &Durability::Each)),
        Some(together) => {
            wide(small, |plan| each(plan, &together));
            large.par_iter().for_each(|plan| each(plan, &Durability::Each));
        }
    }
}

fn import_run(
    plan: &PlannedRun,
    recording: &Recording,
    durability: &Durability,
    artifacts: &[ArtifactRule],
    uploads: Option<&Uploads>,
    stop: &CancellationToken,
    watcher: &Arc<dyn Watcher>,
) {
    if let Some(recorded) = recording.left_out(plan) {
        let id = recording.place_of(plan).map(|(id, _)| id).ok();
        return watcher.ended(RunEnd {
            source: plan.directory.clone(),
            id,
            left_out: Some(recorded),
            ..RunEnd::default()
        });
    }
    let mut gate = Gate::new(recording, uploads);
    let pass = |gate: &Gate, begins| wait(gate, begins, uploads, stop);
    let verdict = pass(&gate, true);
    if stop.is_cancelled() {
        return;
    }
    // Where nothing is new, nothing is written.
    let fits = matches!(verdict, Verdict::Low(_)) && recording.has_nothing_new(plan);
    if let Some(error) = gate.error(verdict).filter(|_| !fits) {
        let id = recording.place_of(plan).map(|(id, _)| id).ok();
        let source = plan.directory.clone();
        return watcher.ended(RunEnd { source, id, record_error: Some(error), ..RunEnd::default() });
    }
    let mut run = match recording.open(plan, durability) {
        Ok(run) => run,
        Err(error) => {
            let id = recording.place_of(plan).map(|(id, _)| id).ok();
            let source = plan.directory.clone();
            return watcher.ended(RunEnd { source, id, record_error: Some(error), ..RunEnd::default() });
        }
    };
    gate.follow(&mut run);
    run.recorder.attach(attach::to_planned(artifacts, plan));
    run.notes.drain(..).for_each(|note| watcher.note(note));
    let halves =
        Halves::new(watcher.clone(), plan.directory.clone(), run.id.clone(), if uploads.is_some() { 2 } else { 1 });
    let published = Published::new(&run.recorder);
    if let Some(uploads) = uploads {
        let halves = halves.clone();
        let to_upload = recording.to_upload(&run, &published, gate.meter.clone(), false);
        uploads.start(to_upload, move |uploaded| halves.uploaded(uploaded));
    }
    let (gate, verdict) = (RefCell::new(gate), RefCell::new(Verdict::Go));
    let told = Cell::new((0, 0));
    let tell = |so_far: &Pass| {
        let (bytes, rows) = told.replace((so_far.bytes, so_far.rows));
        // A pass that was stopped has read more than it kept.
        let (bytes, rows) = (so_far.bytes.saturating_sub(bytes), so_far.rows.saturating_sub(rows));
        let more = Pass { bytes, rows, ..Pass::default() };
        watcher.note(Note::Recorded(more));
    };
    let go_on = |so_far: &Pass| {
        tell(so_far);
        *verdict.borrow_mut() = pass(&gate.borrow(), false);
        !stop.is_cancelled() && *verdict.borrow() == Verdict::Go
    };
    let committed = |position| {
        gate.borrow_mut().committed(position);
        published.up_to(position);
    };
    let (pass, result) = run.recorder.pass(&plan.sources, End::Exit(0), committed, go_on);
    let error = result.err().or_else(|| gate.borrow().error(verdict.take()));
    tell(&pass);
    halves.recorded(Recorded::new(plan, &run, pass, true), error);
    // Let go of the run's lock and log before anyone is told that it is complete.
    drop(run);
    drop(gate);
    published.complete();
}

/// Waits until a run may be read on, or will never be.
fn wait(gate: &Gate, begins: bool, uploads: Option<&Uploads>, stop: &CancellationToken) -> Verdict {
    let verdict = gate.ask(begins);
    if verdict != Verdict::Wait {
        return verdict;
    }
    // What is there may be less than what is sent at once otherwise.
    let hurry = || uploads.iter().for_each(|uploads| uploads.hurry(uploads.spool().is_awaited()));
    let verdict = gate.wait(begins, || {
        hurry();
        stop.is_cancelled()
    });
    hurry();
    verdict
}
