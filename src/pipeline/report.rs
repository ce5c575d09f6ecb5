//! What the pipeline tells whoever started it: how each run went, and how far things are.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::artifact::Attached;
use crate::model::RunId;
use crate::pipeline::recording::OpenRun;
use crate::recorder::{Pass, RecordError};
use crate::survey::PlannedRun;
use crate::upload::{Progress, UploadOutcome};

/// Listens. Called from many threads.
pub trait Watcher: Send + Sync {
    /// A run has come to its end in this process.
    fn ended(&self, run: RunEnd);

    /// An upload came on.
    fn progress(&self, run: &RunId, progress: Progress);

    /// Something a person should know while it goes on.
    fn note(&self, note: Note);
}

/// Something a person should know.
#[derive(Debug)]
pub enum Note {
    /// These paths do not exist yet; they are waited for.
    Waiting(Vec<PathBuf>),
    /// Runs were found for the first time.
    Found {
        /// Runs that still grow.
        growing: usize,
        /// Runs that have ended.
        ended: usize,
        /// Runs that were left out because they had ended.
        left_out: usize,
    },
    /// So many runs are known of by now: more than were found for the first time.
    Known(usize),
    /// A file changed in a way that files of a writer do not.
    Odd {
        /// The file.
        path: PathBuf,
        /// In words: what it did.
        what: &'static str,
    },
    /// A signal asks for an end: what is left is sent, for at most this long.
    Ending(Duration),
    /// Something could not be read or done; others go on.
    Trouble(String),
    /// This much more was recorded.
    Recorded(Pass),
}

/// How a run went in this process.
#[derive(Debug, Default)]
pub struct RunEnd {
    /// Where it came from: the experiment's directory, or the log.
    pub source: PathBuf,
    /// Its id, as far as it has one.
    pub id: Option<RunId>,
    /// What was recorded; `None` when nothing was to be, or the run could not be opened.
    pub recorded: Option<Recorded>,
    /// Set when filters leave out all of it: what it would have been. No run is made.
    pub left_out: Option<LeftOut>,
    /// Why the run could not be opened, or not all of it was recorded.
    pub record_error: Option<RecordError>,
    /// What was uploaded; `None` when nothing was to be.
    pub uploaded: Option<UploadOutcome>,
}

/// A run that was not made, because filters leave out all of it.
#[derive(Debug)]
pub struct LeftOut {
    /// The name that it would have.
    pub name: String,
    /// What was read.
    pub pass: Pass,
    /// Its keys.
    pub keys: Vec<String>,
}

/// What was recorded of a run.
#[derive(Debug)]
pub struct Recorded {
    /// The name that people see.
    pub name: String,
    /// Its group; empty when it has none.
    pub group: String,
    /// The project that it goes to.
    pub project: String,
    /// Its run directory.
    pub directory: PathBuf,
    /// Rows that were recorded before this process.
    pub rows_before: u64,
    /// How many event files it has.
    pub files: u64,
    /// Other directories hold the same first record, so its own name went into the id.
    pub is_copy: bool,
    /// What this process read and wrote.
    pub pass: Pass,
    /// Values at steps that their metric had passed already.
    pub repeated: u64,
    /// Its keys, those of what filters left out among them.
    pub keys: Vec<String>,
    /// Where config values stood that look like credentials; they were masked.
    pub masked: Vec<String>,
    /// Whether it is left open, to go on later.
    pub open: bool,
    /// What there was of what is to be attached.
    pub attached: Vec<Attached>,
}

impl Recorded {
    /// Sums up a run that is not recorded further for now. `missing` says whether files that are gone are a loss.
    pub fn new(plan: &PlannedRun, run: &OpenRun, mut pass: Pass, missing: bool) -> Self {
        let checkpoint = run.recorder.checkpoint();
        pass.skips.merge(&run.recorder.unfinished(&plan.sources, missing));
        Self {
            name: checkpoint.description.name.clone(),
            group: checkpoint.description.group.clone(),
            project: checkpoint.target().project,
            directory: run.directory.clone(),
            rows_before: run.recorder.rows_before(),
            files: plan.sources.len() as u64,
            is_copy: !plan.copy_names.is_empty(),
            pass,
            repeated: run.recorder.repeated(),
            keys: run.recorder.keys().map(str::to_owned).collect(),
            masked: run.recorder.masked().iter().cloned().collect(),
            open: checkpoint.ending.is_none(),
            attached: run.recorder.attached().to_vec(),
        }
    }
}

/// Puts the two halves of a run's end together; the later one tells the watcher.
pub(super) struct Halves {
    watcher: Arc<dyn Watcher>,
    end: Mutex<(RunEnd, u8)>,
}

impl Halves {
    /// `count` halves are waited for: 1 when nothing is uploaded, else 2.
    pub(super) fn new(watcher: Arc<dyn Watcher>, source: PathBuf, id: RunId, count: u8) -> Arc<Self> {
        let end = RunEnd { source, id: Some(id), ..RunEnd::default() };
        Arc::new(Self { watcher, end: Mutex::new((end, count)) })
    }

    /// The left half has ended.
    pub(super) fn recorded(&self, recorded: Recorded, error: Option<RecordError>) {
        self.half(|end| {
            end.recorded = Some(recorded);
            end.record_error = error;
        });
    }

    /// The right half has ended.
    pub(super) fn uploaded(&self, uploaded: UploadOutcome) {
        self.half(|end| end.uploaded = Some(uploaded));
    }

    /// Whether both halves have ended.
    pub(super) fn have_ended(&self) -> bool {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).1 == 0
    }

    fn half(&self, fill: impl FnOnce(&mut RunEnd)) {
        let mut halves = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        fill(&mut halves.0);
        halves.1 = halves.1.saturating_sub(1);
        if halves.1 == 0 {
            let end = std::mem::take(&mut halves.0);
            drop(halves);
            self.watcher.ended(end);
        }
    }
}
