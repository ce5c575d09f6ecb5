//! One run that grows: read on, its rows closed when nothing more comes, and let go in the end.
//!
//! Does not know of other runs.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::pipeline::gate::{Gate, Verdict};
use crate::pipeline::published::Published;
use crate::pipeline::recording::OpenRun;
use crate::pipeline::report::{Halves, Note, Recorded};
use crate::pipeline::stopping::Stopping;
use crate::recorder::{End, OpenRow, Pass, RecordError};
use crate::survey::{PlannedRun, PlannedSource};

/// How long the last row of a step stays open for more values once nothing comes. A writer flushes the values of a step
/// together, but not always in one write.
const OPEN_ROW: Duration = Duration::from_millis(400);
/// How long it stays open at most: a writer that trickles must not keep what came first from being seen.
const OPEN_ROW_AT_MOST: Duration = Duration::from_millis(700);
/// A checkpoint names all files of its run, some 200 bytes each: by so much for each file commits are further apart, so
/// that a run of 10,000 files writes about a megabyte a second and not many.
const PAUSE_FOR_FILE: Duration = Duration::from_micros(200);
/// A run that is recorded as it grows.
pub(super) struct Growing {
    pub(super) gate: Gate,
    /// Why it was not read to its end.
    pub(super) paused: Option<Verdict>,
    /// Whether this is its last pass: then it waits for room.
    pub(super) is_last: bool,
    /// Whether it is still read for the first time, so that nobody knows yet whether it has ended.
    pub(super) is_first: bool,
    pub(super) plan: PlannedRun,
    pub(super) run: OpenRun,
    pub(super) published: Published,
    pub(super) halves: Arc<Halves>,
    pub(super) total: Pass,
    /// When its config files were read last.
    pub(super) config_read: Instant,
}

impl Growing {
    /// Reads on in all its files.
    pub(super) fn pass(&mut self, end: End, stopping: &Stopping) -> Result<Pass, RecordError> {
        let sources = std::mem::take(&mut self.plan.sources);
        let result = self.pass_over(&sources, end, stopping);
        self.plan.sources = sources;
        result
    }

    /// Reads on, as far as there is room. Only the last pass waits for more: until then there is a loop to get back to.
    fn pass_over(&mut self, sources: &[PlannedSource], end: End, stopping: &Stopping) -> Result<Pass, RecordError> {
        let Self { gate, run, published, total, is_last, .. } = self;
        let ask = |gate: &Gate| {
            if *is_last { gate.wait(false, || !stopping.may_go_on()) } else { gate.ask(true) }
        };
        let first = ask(gate);
        if first != Verdict::Go {
            self.paused = Some(first);
            return Ok(Pass::default());
        }
        let (gate_cell, verdict) = (RefCell::new(gate), Cell::new(Verdict::Go));
        let committed = |position| {
            gate_cell.borrow_mut().committed(position);
            published.up_to(position);
        };
        let go_on = |_: &Pass| {
            stopping.may_read_on() && {
                let now = ask(&gate_cell.borrow());
                let go = now == Verdict::Go;
                verdict.set(now);
                go
            }
        };
        let (pass, result) = run.recorder.pass(sources, end, committed, go_on);
        gate_cell.into_inner().rest();
        let verdict = verdict.take();
        self.paused = (verdict != Verdict::Go).then_some(verdict);
        total.merge(&pass);
        result.map(|()| pass)
    }

    /// Tells W&B that the run goes on later.
    pub(super) fn preempt(&mut self) -> Option<RecordError> {
        let (published, gate) = (&self.published, &mut self.gate);
        let committed = |position| {
            gate.committed(position);
            published.up_to(position);
        };
        self.run.recorder.preempt(committed).err()
    }

    /// Nothing more is recorded of it for now.
    pub(super) fn end(self: Box<Self>, error: Option<RecordError>) -> Arc<Halves> {
        let Self { plan, run, published, halves, total, gate, .. } = *self;
        // That files are gone was said, and they are not there to be read.
        let recorded = Recorded::new(&plan, &run, total, false);
        // The lock and the log go before anyone is told.
        drop(run);
        drop(gate);
        halves.recorded(recorded, error);
        published.complete();
        halves
    }

    /// How long to wait at least between two commits.
    pub(super) fn pause(&self) -> Duration {
        pause(self.plan.sources.len())
    }

    /// When a row that waits for more values is to be closed.
    pub(super) fn next_close(&self) -> Option<Instant> {
        let pause = self.pause();
        self.run.recorder.open_rows().map(close_at).min().map(|at| at + pause)
    }

    /// Closes the rows whose files have been quiet for long enough. `None` when there are none.
    pub(super) fn close_rows(&mut self, now: Instant, stopping: &Stopping) -> Option<Result<Pass, RecordError>> {
        let pause = self.pause();
        // A run may have thousands of files, each with a row that is open.
        let open = self.run.recorder.open_rows();
        let due: HashSet<PathBuf> =
            open.filter(|row| close_at(*row) + pause <= now).map(|row| row.path.to_owned()).collect();
        if due.is_empty() {
            return None;
        }
        let quiet = |source: &&PlannedSource| due.contains(&source.path);
        let sources: Vec<PlannedSource> = self.plan.sources.iter().filter(quiet).cloned().collect();
        Some(self.pass_over(&sources, End::CloseRow, stopping))
    }
}

fn close_at(row: OpenRow<'_>) -> Instant {
    Instant::from_std((row.grown + OPEN_ROW).min(row.opened + OPEN_ROW_AT_MOST))
}

/// The pause between two commits of a run of so many files.
fn pause(files: usize) -> Duration {
    PAUSE_FOR_FILE * u32::try_from(files).unwrap_or(u32::MAX)
}

/// What went wrong, with its causes: who holds a run stands in them.
pub(super) fn trouble(directory: &Path, error: &RecordError) -> Note {
    let mut text = format!("`{}`: {error}", directory.display());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        // Some types repeat their source in their own text.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    Note::Trouble(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_many_files_are_committed_less_often() {
        assert!(pause(100) < OPEN_ROW / 10);
        assert_eq!(pause(10_000), Duration::from_secs(2));
        assert!(pause(usize::MAX) > pause(10_000));
    }

    #[test]
    fn rows_close_when_it_is_quiet_and_never_late() {
        let start = std::time::Instant::now();
        let row = |opened: u64, grown: u64| OpenRow {
            path: Path::new("f"),
            opened: start + Duration::from_millis(opened),
            grown: start + Duration::from_millis(grown),
        };
        let at = |row| close_at(row).into_std() - start;
        assert_eq!(at(row(0, 0)), OPEN_ROW);
        assert_eq!(at(row(0, 100)), Duration::from_millis(500));
        assert_eq!(at(row(0, 650)), OPEN_ROW_AT_MOST);
    }
}
