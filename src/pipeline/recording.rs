//! From a planned run to a recorder: its id, its directory, its names.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use crate::checkpoint::Description;
use crate::convert::run_id::Fingerprint;
use crate::convert::template::Template;
use crate::known_runs::KnownRuns;
use crate::model::{LogPosition, RunId, WallTime};
use crate::pipeline::uploads::RunToUpload;
use crate::recorder::{AskedDescription, Described, End, RecordError, RecordOptions, Recorder};
use crate::settings::SingleRun;
use crate::state_file::StateFileError;
use crate::survey::PlannedRun;
use crate::upload::{Close, LogEnd, Overrides};
use crate::wandb_format::{create_offline, point_latest_run_at};

/// How runs are named, as flags and environment say.
#[derive(Debug, Clone, Default)]
pub struct Naming {
    /// `--run-id`
    pub run_id: Option<Template>,
    /// `--run-name`
    pub name: Option<Template>,
    /// `--group`, `WANDB_RUN_GROUP`
    pub group: Option<Template>,
    /// `--job-type`, `WANDB_JOB_TYPE`
    pub job_type: Option<Template>,
    /// `--notes`
    pub notes: Option<Template>,
    /// `--tags`, `WANDB_TAGS`
    pub tags: Option<Vec<Template>>,
    /// `--project`, `WANDB_PROJECT`
    pub project: Option<Template>,
    /// `--entity`, `WANDB_ENTITY`
    pub entity: String,
    /// `WANDB_RUN_ID`, `WANDB_NAME` and `WANDB_NOTES`: only when exactly one run is made.
    pub single: SingleRun,
}

/// The project of runs for which none was chosen; the official client's.
pub const DEFAULT_PROJECT: &str = "uncategorized";

impl Naming {
    /// The project of a run.
    pub fn project(&self, plan: &PlannedRun) -> String {
        let chosen = self.project.as_ref().map(|project| project_name(&project.expand(plan.place())));
        chosen.filter(|project| !project.is_empty()).unwrap_or_else(|| DEFAULT_PROJECT.to_owned())
    }

    fn described(&self, plan: &PlannedRun, single: Option<&SingleRun>) -> Described {
        let place = plan.place();
        let expand = |template: &Option<Template>| template.as_ref().map(|template| template.expand(place));
        let asked = AskedDescription {
            name: expand(&self.name).or_else(|| single?.name.clone()),
            group: expand(&self.group),
            job_type: expand(&self.job_type),
            notes: expand(&self.notes).or_else(|| single?.notes.clone()),
            tags: self.tags.as_ref().map(|tags| tags.iter().map(|tag| tag.expand(place)).collect()),
        };
        let default = Description {
            name: plan.name(),
            group: plan.group(),
            entity: self.entity.clone(),
            project: self.project(plan),
            ..Description::default()
        };
        Described { default, asked }
    }
}

/// W&B forbids some characters in the names of projects; they become `-`.
fn project_name(text: &str) -> String {
    let allowed = |c: char| if matches!(c, '/' | '\\' | '#' | '?' | '%' | ':') { '-' } else { c };
    text.chars().map(allowed).take(128).collect()
}

/// Where and how the runs of a command are recorded.
#[derive(Debug)]
pub struct Recording {
    /// The `wandb/` directory.
    pub wandb_directory: PathBuf,
    /// How.
    pub options: RecordOptions,
    /// Under which names.
    pub naming: Naming,
    /// What was recorded before.
    known: RwLock<KnownRuns>,
    /// Run directories are made one after the other, so that no two runs take the same name.
    making: Mutex<()>,
    /// Ids that `--run-id` gave, and the experiments that have them.
    claimed: Mutex<HashMap<RunId, PathBuf>>,
    /// The experiment that the environment speaks of.
    single_owner: Mutex<Option<PathBuf>>,
}

/// A run that is being recorded.
#[derive(Debug)]
pub struct OpenRun {
    /// Its id.
    pub id: RunId,
    /// Its run directory; in a dry run it may not be there.
    pub directory: PathBuf,
    /// Its left half.
    pub recorder: Recorder,
}

impl Recording {
    /// Reads what was recorded before. Checkpoints that cannot be read come back as errors.
    pub fn new(
        wandb_directory: PathBuf,
        options: RecordOptions,
        naming: Naming,
    ) -> io::Result<(Self, Vec<StateFileError>)> {
        let (known, errors) = KnownRuns::load(&wandb_directory, options.generation)?;
        Ok((
            Self {
                wandb_directory,
                options,
                naming,
                known: RwLock::new(known),
                making: Mutex::new(()),
                claimed: Mutex::default(),
                single_owner: Mutex::default(),
            },
            errors,
        ))
    }

    /// The id that a planned run has here, and its directory if it was recorded before.
    pub fn place_of(&self, plan: &PlannedRun) -> Result<(RunId, Option<PathBuf>), RecordError> {
        let id = match (&self.naming.run_id, self.single(plan).and_then(|single| single.id.as_ref())) {
            (Some(template), _) => {
                let id = RunId::new(template.expand(plan.place()))?;
                let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
                if *claimed.entry(id.clone()).or_insert_with(|| plan.directory.clone()) != plan.directory {
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

    /// Files that were made parts of the run of a directory above them, under their own tags.
    pub fn folded(&self) -> HashSet<(String, Fingerprint)> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).folded().clone()
    }

    /// Puts plans together that are one run: directories that were one run when they were first seen stay one, whatever
    /// the layout makes of them now. Those that have no id of their own come back with the reason.
    pub fn assign(&self, plans: Vec<PlannedRun>) -> (Vec<PlannedRun>, Vec<RecordError>) {
        let mut refused = Vec::new();
        let mut assigned: Vec<PlannedRun> = Vec::with_capacity(plans.len());
        let mut by_id: HashMap<RunId, usize> = HashMap::new();
        for plan in plans {
            let id = match self.place_of(&plan) {
                Ok((id, _)) => id,
                Err(error) => {
                    refused.push(error);
                    continue;
                }
            };
            match by_id.get(&id).and_then(|index| assigned.get_mut(*index)) {
                Some(run) => {
                    run.started_at = run.started_at.min(plan.started_at);
                    run.modified = run.modified.max(plan.modified);
                    run.tb_runs.extend(plan.tb_runs);
                    run.sources.extend(plan.sources);
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
    fn single(&self, plan: &PlannedRun) -> Option<&SingleRun> {
        let mut owner = self.single_owner.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = owner.get_or_insert_with(|| plan.directory.clone());
        (*owner == plan.directory).then_some(&self.naming.single)
    }

    /// Remembers a run that was recorded in this process, so that later files of it are known to be its own.
    pub fn remember(&self, run: &OpenRun) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.add(run.recorder.checkpoint(), &run.directory);
    }

    /// The right half's view of a run.
    pub fn to_upload(&self, plan: &PlannedRun, run: &OpenRun, published: &Published, live: bool) -> RunToUpload {
        let entity = Some(self.naming.entity.clone()).filter(|entity| !entity.is_empty());
        // A log names its own project; only a choice made now replaces it.
        let project = self.naming.project.as_ref().map(|_| self.naming.project(plan));
        RunToUpload {
            id: Some(run.id.clone()),
            log: run.recorder.log().to_owned(),
            overrides: Overrides { entity, project, ..Overrides::default() },
            end: published.0.subscribe(),
            live,
        }
    }

    /// The latest wall time of a run that was never recorded. Reads all of it, and writes nothing.
    pub fn newest_event(&self, plan: &PlannedRun) -> Option<WallTime> {
        let options = RecordOptions { dry_run: true, ..self.options.clone() };
        let nowhere = self.wandb_directory.join(format!("offline-run-{}", plan.id));
        let mut recorder = Recorder::open(&nowhere, &plan.id, plan, &Described::default(), &options).ok()?;
        recorder.pass(&plan.sources, End::CloseRow, |_| {}, || true).ok()?;
        recorder.newest_event()
    }

    /// Opens a run, and makes its directory when it is new.
    pub fn open(&self, plan: &PlannedRun) -> Result<OpenRun, RecordError> {
        let (id, known) = self.place_of(plan)?;
        let directory = match known {
            Some(directory) => directory,
            None if self.options.dry_run => self.wandb_directory.join(format!("offline-run-{id}")),
            None => {
                let _one_at_a_time = self.making.lock();
                let made = create_offline(&self.wandb_directory, jiff::ZonedDateTime::now().datetime(), &id)
                    .map_err(|source| RecordError::Io { path: self.wandb_directory.clone(), source })?;
                if let Err(error) = point_latest_run_at(&made) {
                    // A convenience; some file systems have no links.
                    tracing::debug!(%error, "`latest-run` stays where it is");
                }
                made.path().to_owned()
            }
        };
        let recorder =
            Recorder::open(&directory, &id, plan, &self.naming.described(plan, self.single(plan)), &self.options)?;
        Ok(OpenRun { id, directory, recorder })
    }
}

/// The moving number between the two halves: how far a run's log counts.
#[derive(Debug)]
pub struct Published(watch::Sender<LogEnd>);

impl Published {
    /// Begins at what was committed before.
    pub fn new(recorder: &Recorder) -> Self {
        let position = Some(recorder.checkpoint().position);
        Self(watch::channel(LogEnd { position, complete: false, close: Close::LeaveRunning }).0)
    }

    /// Everything before `position` is durable.
    pub fn up_to(&self, position: LogPosition) {
        self.0.send_modify(|end| end.position = Some(position));
    }

    /// Nothing more will come in this process.
    pub fn complete(&self) {
        self.0.send_modify(|end| end.complete = true);
    }
}
