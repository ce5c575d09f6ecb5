//! Runs that were recorded before: found by id, or by the sources they were made from.
//!
//! Id, name and layout of a run are fixed when it is first seen. A file that appears later, even with an older name, goes
//! to the run that its directory's other files made, although a fresh look would derive another id.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::checkpoint::Checkpoint;
use crate::cleaned::Cleaned;
use crate::convert::keys::KeyRule;
use crate::convert::run_id::Fingerprint;
use crate::model::RunId;
use crate::state_file::StateFileError;
use crate::state_file::place::StateHome;
use crate::survey::PlannedRun;
use crate::wandb_format::{RunDir, RunDirIndex};

/// How many checkpoints are read before what they say is kept.
const AT_ONCE: usize = 256;

/// What lies in a `wandb/` directory.
#[derive(Debug, Default)]
pub struct KnownRuns {
    directories: RunDirIndex,
    made: HashMap<RunId, PathBuf>,
    by_source: HashMap<(String, Fingerprint), Vec<RunId>>,
    /// The same by first record and the last name of the run's path, for files that were renamed. By the record alone,
    /// thousands of runs may be the same: some writers put nothing into it but a time.
    by_record: HashMap<(Fingerprint, String), Vec<RunId>>,
    /// Files of directories that were folded into a run under their own tags: sessions of what they lie below.
    folded: HashSet<(String, Fingerprint)>,
    /// The last names of the path that each run was first seen at.
    names: HashMap<RunId, Vec<String>>,
    /// Directories whose checkpoints were read.
    read: HashSet<PathBuf>,
    /// Directories that had no checkpoint when they were looked at last.
    without: Vec<PathBuf>,
    wandb_directory: PathBuf,
    generation: u32,
    state: StateHome,
}

impl KnownRuns {
    /// Reads the checkpoints of one generation below a `wandb/` directory, which need not exist. Damaged checkpoints
    /// come back as errors: their runs are not touched.
    pub fn load(wandb_directory: &Path, generation: u32, state: &StateHome) -> io::Result<(Self, Vec<StateFileError>)> {
        let mut known =
            Self { wandb_directory: wandb_directory.to_owned(), generation, state: state.clone(), ..Self::default() };
        let errors = known.read_again()?;
        Ok((known, errors))
    }

    /// Reads what other processes made since. Errors are told once for each directory.
    pub fn read_again(&mut self) -> io::Result<Vec<StateFileError>> {
        self.directories = RunDirIndex::read(&self.wandb_directory)?;
        let mut new = self.directories.paths();
        new.retain(|directory| !self.read.contains(directory));
        self.without.clear();
        let mut errors = Vec::new();
        // Checkpoints are large, and little of each is kept: few are in memory at the same time.
        for some in new.chunks(AT_ONCE) {
            let load = |directory: &PathBuf| Checkpoint::load(&self.state.of(directory));
            let loaded: Vec<_> = some.par_iter().map(load).collect();
            for (checkpoint, directory) in loaded.into_iter().zip(some) {
                match checkpoint {
                    Ok(Some(checkpoint)) if checkpoint.generation == self.generation => {
                        self.add_sources(&checkpoint);
                    }
                    Ok(Some(_)) => {}
                    // It may be one that another process has just begun.
                    Ok(None) => {
                        self.without.push(directory.clone());
                        continue;
                    }
                    Err(error) => errors.push(error),
                }
                self.read.insert(directory.to_owned());
            }
        }
        Ok(errors)
    }

    /// Run directories without a checkpoint: those of other clients, and those whose recording has only begun.
    pub fn without_checkpoint(&self) -> &[PathBuf] {
        &self.without
    }

    /// Adds a run that was made since.
    pub fn add(&mut self, checkpoint: &Checkpoint, directory: &Path) {
        self.made.insert(checkpoint.run_id.clone(), directory.to_owned());
        self.add_sources(checkpoint);
    }

    fn add_sources(&mut self, checkpoint: &Checkpoint) {
        self.names.insert(checkpoint.run_id.clone(), checkpoint.names.clone());
        for source in &checkpoint.sources {
            let by_source = self.by_source.entry((source.file_name.clone(), source.fingerprint.clone())).or_default();
            let by_record = checkpoint
                .names
                .last()
                .map(|name| self.by_record.entry((source.fingerprint.clone(), name.clone())).or_default());
            for ids in by_record.into_iter().chain([by_source]) {
                if !ids.contains(&checkpoint.run_id) {
                    ids.push(checkpoint.run_id.clone());
                }
            }
            if !source.directory().is_empty() && source.rule == KeyRule::default() {
                self.folded.insert((source.file_name.clone(), source.fingerprint.clone()));
            }
        }
    }

    /// Files, by name and first record, that were made parts of the run of a directory above them, under their own tags.
    pub fn folded(&self) -> &HashSet<(String, Fingerprint)> {
        &self.folded
    }

    /// The id that a planned run has: its derived one, unless its files belong to one run already.
    pub fn id_of(&self, plan: &PlannedRun) -> RunId {
        let owners = self.owners(plan);
        match owners.as_slice() {
            [] => self.renamed(plan).unwrap_or(&plan.id).clone(),
            [only] if plan.copy_names.is_empty() => (*only).clone(),
            // A copy has the sources of the run that it is a copy of, and must not end up in it.
            several => self.at_place(several, plan).unwrap_or(&plan.id).clone(),
        }
    }

    /// The runs that have files of a planned one.
    fn owners(&self, plan: &PlannedRun) -> Vec<&RunId> {
        let mut owners: Vec<&RunId> = Vec::new();
        for source in &plan.sources {
            let found = self.by_source.get(&(source.file_name.clone(), source.fingerprint.clone()));
            for id in found.into_iter().flatten() {
                if !owners.contains(&id) {
                    owners.push(id);
                }
            }
        }
        owners
    }

    /// Whether a planned run was a part of that one when it was first seen. What a run consists of stays as it was. A copy is
    /// no part of anything.
    pub fn was_part_of(&self, plan: &PlannedRun, id: &RunId) -> bool {
        plan.copy_names.is_empty() && self.owners(plan).contains(&id)
    }

    /// The run that was made at the same place from files with other names, of which one began with a first record that is
    /// there now: some programs that copy files rename them at the end.
    fn renamed(&self, plan: &PlannedRun) -> Option<&RunId> {
        let names = plan.last_names(usize::MAX);
        let is_there = |id: &&RunId| {
            let there = self.names.get(*id).map(Vec::as_slice).unwrap_or_default();
            !there.is_empty() && names.ends_with(there)
        };
        let last = names.last()?;
        let mut known = plan
            .sources
            .iter()
            .filter_map(|source| self.by_record.get(&(source.fingerprint.clone(), last.clone())))
            .flatten();
        known.find(is_there)
    }

    /// Of runs that were made from the same files, the one that was made where the planned one lies: how many of the last
    /// names are the same decides. They must be enough to tell the planned run from its copies, and no other may be as near.
    fn at_place<'a>(&self, runs: &[&'a RunId], plan: &PlannedRun) -> Option<&'a RunId> {
        let names = plan.last_names(usize::MAX);
        let common = |run: &RunId| {
            let there = self.names.get(run).map(Vec::as_slice).unwrap_or_default();
            there.iter().rev().zip(names.iter().rev()).take_while(|(a, b)| a == b).count()
        };
        let nearest = runs.iter().map(|run| common(run)).max()?;
        let mut at_nearest = runs.iter().filter(|run| common(run) == nearest);
        let found = at_nearest.next()?;
        let enough = nearest >= plan.copy_names.len().max(1) && at_nearest.next().is_none();
        enough.then_some(*found)
    }

    /// The directory of a run that is there.
    pub fn directory_of(&self, id: &RunId) -> Option<PathBuf> {
        // Where the official client recorded the same run too, only one of the directories holds our state. Whether the log
        // is there is asked now: another process may have cleaned the run since this one looked.
        let ours = |run: &RunDir| {
            let state = self.state.of(run.path());
            Checkpoint::is_ours(&state) && (run.log().is_file() || Cleaned::is_there(&state))
        };
        let found = || self.directories.named(id).into_iter().find(ours).map(|run| run.path().to_owned());
        self.made.get(id).cloned().or_else(found)
    }
}
