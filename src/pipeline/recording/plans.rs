//! What planned runs are here: their ids, what is known of them, how they would be described. Writes nothing.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::PoisonError;

use crate::checkpoint::{Checkpoint, Description, Target};
use crate::config_files;
use crate::convert::config;
use crate::convert::run_id::Fingerprint;
use crate::convert::template::{Place, Template};
use crate::listings::Listings;
use crate::model::{Json, RunId, WallTime};
use crate::pipeline::recording::Recording;
use crate::pipeline::report::{LeftOut, Note};
use crate::recorder::{Described, End, RecordError, RecordOptions, Recorder, check_generation};
use crate::settings::SingleRun;
use crate::survey::{PlannedRun, PlannedSource};

/// Where the log says which files its config comes from: among W&B's own notes, which no table of runs shows.
const CONFIG_FILES: [&str; 3] = ["_wandb", "bridge", "config_files"];

/// A run as it would be recorded now.
#[derive(Debug)]
pub struct Planned<'a> {
    /// What the directories say.
    pub plan: &'a PlannedRun,
    /// Its id: the one that an earlier pass chose, if there was one.
    pub id: RunId,
    /// Its run directory and what is known of it there, if it was recorded before.
    pub recorded: Option<(PathBuf, Checkpoint)>,
    /// How it would be described to people, and where it would be sent.
    pub description: Description,
    /// What files and flags say of its config.
    pub config: Json,
}

impl Recording {
    /// The id that `--run-id` gives a planned run, and the directory that has it: the run's own, or one above, of whose run
    /// it was a part when it was first seen.
    fn chosen_id(&self, template: &Template, plan: &PlannedRun) -> Result<(RunId, PathBuf), RecordError> {
        let at = |place| RunId::new(template.expand_spelled(place, RunId::spelled));
        let own = at(plan.place())?;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.was_part_of(plan, &own) {
            return Ok((own, plan.directory.clone()));
        }
        let above = (1..=plan.path.len()).zip(plan.directory.ancestors().skip(1)).find_map(|(up, directory)| {
            let id = at(Place { path: plan.path.get(..plan.path.len() - up)?, ..plan.place() }).ok()?;
            known.was_part_of(plan, &id).then(|| (id, directory.to_owned()))
        });
        Ok(above.unwrap_or_else(|| (own, plan.directory.clone())))
    }

    /// The id that a planned run has here, and its directory if it was recorded before.
    pub fn place_of(&self, plan: &PlannedRun) -> Result<(RunId, Option<PathBuf>), RecordError> {
        let id = match (&self.naming.run_id, self.single(plan).and_then(|single| single.id.as_ref())) {
            (Some(template), _) => {
                let (id, directory) = self.chosen_id(template, plan)?;
                let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
                let claimed_by = claimed.entry(id.clone()).or_insert_with(|| directory.clone());
                // Of experiments that are joined, another one may be the first when more of them are there.
                if *claimed_by != directory && !plan.experiments.contains(claimed_by) {
                    return Err(RecordError::SameId(id));
                }
                id
            }
            (None, Some(id)) => id.clone(),
            (None, None) => self.known.read().unwrap_or_else(PoisonError::into_inner).id_of(plan),
        };
        let directory = self.known.read().unwrap_or_else(PoisonError::into_inner).directory_of(&id);
        Ok((id, directory))
    }

    /// Whether a run was recorded to its end before, and its files have not grown since.
    pub fn has_nothing_new(&self, plan: &PlannedRun) -> bool {
        let directory = self.place_of(plan).ok().and_then(|(_, directory)| directory);
        let known = directory.and_then(|directory| Checkpoint::load(&self.options.state.of(&directory)).ok().flatten());
        let is_known = |checkpoint: &Checkpoint, source: &PlannedSource| {
            checkpoint.sources.iter().any(|known| {
                known.file_name == source.file_name
                    && known.fingerprint == source.fingerprint
                    && known.seen_size == source.size
            })
        };
        known.is_some_and(|checkpoint| {
            checkpoint.ending.is_some() && plan.sources.iter().all(|source| is_known(&checkpoint, source))
        })
    }

    /// Files that were made parts of the run of a directory above them, under their own tags.
    pub fn folded(&self) -> HashSet<(String, Fingerprint)> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).folded().clone()
    }

    /// What a run would be called and where it would go. Writes nothing.
    pub fn planned<'a>(&self, plan: &'a PlannedRun) -> Result<Planned<'a>, RecordError> {
        let (id, directory) = self.place_of(plan)?;
        let recorded = match directory {
            Some(directory) => {
                Checkpoint::load(&self.options.state.of(&directory))?.map(|checkpoint| (directory, checkpoint))
            }
            None => None,
        };
        if let Some((_, checkpoint)) = &recorded {
            check_generation(checkpoint, self.options.generation)?;
        }
        let Described { default, asked, config } =
            self.naming.described(plan, self.single(plan), self.config_of(plan, &plan.listings).0);
        let mut description = match &recorded {
            Some((_, checkpoint)) => {
                let Target { entity, project } = checkpoint.target();
                Description { entity, project, ..checkpoint.description.clone() }
            }
            None => default,
        };
        asked.apply(&mut description);
        for (place, asked) in [(&mut description.entity, asked.entity), (&mut description.project, asked.project)] {
            *place = asked.unwrap_or_else(|| std::mem::take(place));
        }
        Ok(Planned { plan, id, recorded, description, config })
    }

    /// Puts plans together that are one run: directories that were one run when they were first seen stay one, whatever
    /// the layout makes of them now. Those that have no id of their own come back with the reason.
    pub fn assign(&self, plans: Vec<PlannedRun>) -> (Vec<PlannedRun>, Vec<(PathBuf, RecordError)>) {
        let mut refused = Vec::new();
        let mut assigned: Vec<PlannedRun> = Vec::with_capacity(plans.len());
        let mut by_id: HashMap<RunId, usize> = HashMap::new();
        for plan in plans {
            let id = match self.place_of(&plan) {
                Ok((id, _)) => id,
                Err(error) => {
                    refused.push((plan.directory, error));
                    continue;
                }
            };
            match by_id.get(&id).and_then(|index| assigned.get_mut(*index)) {
                Some(run) => {
                    run.started_at = run.started_at.min(plan.started_at);
                    run.modified = run.modified.max(plan.modified);
                    run.tb_runs.extend(plan.tb_runs);
                    run.sources.extend(plan.sources);
                    run.experiments.extend(plan.experiments);
                }
                None => {
                    by_id.insert(id, assigned.len());
                    assigned.push(plan);
                }
            }
        }
        (assigned, refused)
    }

    /// What the environment says of *the* run, for the first experiment that asks; another one is not meant.
    pub(super) fn single(&self, plan: &PlannedRun) -> Option<&SingleRun> {
        let mut owner = self.single_owner.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = owner.get_or_insert_with(|| plan.directory.clone());
        (*owner == plan.directory).then_some(&self.naming.single)
    }

    /// The latest wall time of a run that was never recorded. Reads all of it, and writes nothing.
    pub fn newest_event(&self, plan: &PlannedRun) -> Option<WallTime> {
        let mut recorder = self.open_dry(plan)?;
        recorder.pass(&plan.sources, End::CloseRow, |_| {}, |_| true).1.ok()?;
        recorder.newest_event()
    }

    /// Whether filters leave out all there is of a run that was never recorded: then it is not to be made.
    pub fn left_out(&self, plan: &PlannedRun) -> Option<LeftOut> {
        if self.options.filter.takes_all() || self.place_of(plan).is_ok_and(|(_, known)| known.is_some()) {
            return None;
        }
        let mut recorder = self.open_dry(plan)?;
        let pass = recorder.pass_if_all_is_left_out(&plan.sources)?;
        let keys = recorder.keys().map(str::to_owned).collect();
        Some(LeftOut { name: self.naming.described(plan, None, Json::object()).default.name, pass, keys })
    }

    /// A recorder for a run that was never recorded. It writes nothing.
    fn open_dry(&self, plan: &PlannedRun) -> Option<Recorder> {
        let options = RecordOptions { dry_run: true, ..self.options.clone() };
        let nowhere = self.wandb_directory.join(format!("offline-run-{}", plan.id));
        Recorder::open(&nowhere, &plan.id, plan, &Described::default(), &options).ok()
    }

    /// What files and flags say of a run's config. Flags are nearer than files that they name, and these than files that
    /// were found.
    pub(super) fn config_of(&self, plan: &PlannedRun, listings: &Listings) -> (Json, Vec<Note>) {
        let given = &self.naming.config;
        let found = if given.discover { config_files::discover(&plan.config, listings) } else { Default::default() };
        for file in &found.files {
            tracing::info!(run = plan.place().name(), file, "config file");
        }
        let files: Vec<String> = given.files.iter().cloned().chain(found.files).collect();
        let mut values = found.config;
        config::lay_over(&mut values, given.values.clone());
        if !files.is_empty() {
            values.set_path(&CONFIG_FILES, Json::from(files));
        }
        let note = |(path, why): (PathBuf, config_files::ConfigFileError)| {
            Note::Trouble(format!("the config file `{}` is left out: {why}", path.display()))
        };
        (values, found.unreadable.into_iter().map(note).collect())
    }

    /// What to say when different texts become one project.
    pub(super) fn shared_project(&self, plan: &PlannedRun) -> Option<Note> {
        let (text, project) = self.naming.chosen_project(plan)?;
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        let first = projects.entry(project.clone()).or_insert_with(|| text.clone());
        (*first != text).then(|| {
            Note::Trouble(format!(
                "`{first}` and `{text}` are one project in W&B, `{project}`: names of projects are limited"
            ))
        })
    }
}
