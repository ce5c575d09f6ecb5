//! Runs that were recorded before: found by id, or by the sources they were made from.
//!
//! Id, name and layout of a run are fixed when it is first seen. A file that appears later, even with an older name, goes
//! to the run that its directory's other files made, although a fresh look would derive another id.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::checkpoint::Checkpoint;
use crate::convert::run_id::Fingerprint;
use crate::model::RunId;
use crate::state_file::StateFileError;
use crate::survey::PlannedRun;
use crate::wandb_format::RunDirIndex;

/// What lies in a `wandb/` directory.
#[derive(Debug, Default)]
pub struct KnownRuns {
    directories: RunDirIndex,
    made: HashMap<RunId, PathBuf>,
    by_source: HashMap<(String, Fingerprint), Vec<RunId>>,
}

impl KnownRuns {
    /// Reads the checkpoints of one generation below a `wandb/` directory, which need not exist. Damaged checkpoints
    /// come back as errors: their runs are not touched.
    pub fn load(wandb_directory: &Path, generation: u32) -> io::Result<(Self, Vec<StateFileError>)> {
        let directories = RunDirIndex::read(wandb_directory)?;
        let loaded: Vec<_> =
            directories.paths().into_par_iter().map(|directory| Checkpoint::load(&directory)).collect();
        let mut known = Self { directories, ..Self::default() };
        let mut errors = Vec::new();
        for checkpoint in loaded {
            match checkpoint {
                Ok(Some(checkpoint)) if checkpoint.generation == generation => known.add_sources(&checkpoint),
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        Ok((known, errors))
    }

    /// Adds a run that was made since.
    pub fn add(&mut self, checkpoint: &Checkpoint, directory: &Path) {
        self.made.insert(checkpoint.run_id.clone(), directory.to_owned());
        self.add_sources(checkpoint);
    }

    fn add_sources(&mut self, checkpoint: &Checkpoint) {
        for source in &checkpoint.sources {
            let ids = self.by_source.entry((source.file_name.clone(), source.fingerprint.clone())).or_default();
            if !ids.contains(&checkpoint.run_id) {
                ids.push(checkpoint.run_id.clone());
            }
        }
    }

    /// The id that a planned run has: its derived one, unless its files belong to one run already.
    pub fn id_of(&self, plan: &PlannedRun) -> RunId {
        let mut owners: Vec<&RunId> = Vec::new();
        for source in &plan.sources {
            let found = self.by_source.get(&(source.file_name.clone(), source.fingerprint.clone()));
            for id in found.into_iter().flatten() {
                if !owners.contains(&id) {
                    owners.push(id);
                }
            }
        }
        match owners.as_slice() {
            // A copy has the sources of the run that it is a copy of, and must not end up in it.
            [only] if plan.copy_names.is_empty() => (*only).clone(),
            _ => plan.id.clone(),
        }
    }

    /// The directory of a run that is there.
    pub fn directory_of(&self, id: &RunId) -> Option<PathBuf> {
        // Where the official client recorded the same run too, only one of the directories holds our state.
        let ours = |directory: &PathBuf| Checkpoint::path(directory).is_file();
        let found = || self.directories.find(id).into_iter().map(|run| run.path().to_owned()).find(ours);
        self.made.get(id).cloned().or_else(found)
    }
}
