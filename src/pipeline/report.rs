//! What the pipeline tells whoever started it: how each run went, and how far things are.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use crate::model::RunId;
use crate::pipeline::recording::OpenRun;
use crate::pipeline::uploads::Uploaded;
use crate::recorder::{Pass, RecordError};
use crate::survey::PlannedRun;
use crate::upload::Progress;

/// Listens. Called from many threads.
pub trait Watcher: Send + Sync {
    /// A run has come to its end in this process.
    fn ended(&self, run: RunEnd);

    /// Where an upload reports its progress.
    fn progress(&self) -> Progress;

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
    /// A file changed in a way that files of a writer do not.
    Odd {
        /// The file.
        path: PathBuf,
        /// In words: what it did.
        what: &'static str,
    },
    /// Something could not be read or done; others go on.
    Trouble(String),
    /// This much was recorded.
    Recorded(Pass),
}

/// What was recorded of a run.
#[derive(Debug)]
pub struct Recorded {
    /// Where it came from.
    pub plan: PlannedRun,
    /// Its id.
    pub id: RunId,
    /// The name that people see.
    pub name: String,
    /// Its group; empty when it has none.
    pub group: String,
    /// Its run directory.
    pub directory: PathBuf,
    /// What this process read and wrote.
    pub pass: Pass,
    /// Values at steps that their metric had passed already.
    pub repeated: u64,
    /// Keys of its metrics.
    pub metrics: Vec<String>,
    /// Why not all of it was recorded.
    pub error: Option<RecordError>,
}

impl Recorded {
    /// Takes a run that is not recorded further.
    pub fn new(plan: PlannedRun, run: OpenRun, pass: Pass, error: Option<RecordError>) -> Self {
        let description = &run.recorder.checkpoint().description;
        Self {
            plan,
            name: description.name.clone(),
            group: description.group.clone(),
            repeated: run.recorder.repeated(),
            metrics: run.recorder.metrics().map(str::to_owned).collect(),
            id: run.id,
            directory: run.directory,
            pass,
            error,
        }
    }
}

/// How a run went in this process.
#[derive(Debug)]
pub struct RunEnd {
    /// What was recorded; `None` when it could not be opened.
    pub recorded: Option<Recorded>,
    /// The run as planned, when it could not be opened, and why.
    pub not_opened: Option<(PlannedRun, Option<RunId>, RecordError)>,
    /// What was uploaded; `None` when nothing was to be.
    pub uploaded: Option<Uploaded>,
}
