//! From a planned run to a recorder: its id, its directory, its names.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::checkpoint::{Checkpoint, Description, Target};
use crate::config_files;
use crate::convert::config;
use crate::convert::run_id::Fingerprint;
use crate::convert::template::Template;
use crate::free_space::MinFree;
use crate::known_runs::KnownRuns;
use crate::listings::Listings;
use crate::model::{Json, LogPosition, RunId, WallTime, is_forbidden_in_project};
use crate::pipeline::making::Making;
use crate::pipeline::report::{LeftOut, Note};
use crate::pipeline::spool::Meter;
use crate::pipeline::uploads::RunToUpload;
use crate::recorder::{
    AskedDescription, Described, End, RecordError, RecordOptions, Recorder, check_generation, remove_abandoned,
};
use crate::settings::SingleRun;
use crate::state_file::durable::{Durability, Together};
use crate::state_file::lock::{Lock, LockError};
use crate::state_file::{StateFileError, create_directories};
use crate::survey::{PlannedRun, PlannedSource};
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
    /// `--config`, `--config-file` and `--no-config-files`
    pub config: GivenConfig,
}

/// Config that does not come from the logs.
#[derive(Debug, Clone, Default)]
pub struct GivenConfig {
    /// What flags say, and files that flags name.
    pub values: Json,
    /// The names of these files, the nearest first.
    pub files: Vec<String>,
    /// Whether config files are looked for beside the event files.
    pub discover: bool,
}

/// Where the log says which files its config comes from: among W&B's own notes, which no table of runs shows.
const CONFIG_FILES: [&str; 3] = ["_wandb", "bridge", "config_files"];

/// How long another process may take to begin a run. It writes a few hundred bytes, and waits for no disk.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(60);

/// The project of runs for which none was chosen; the official client's.
pub const DEFAULT_PROJECT: &str = "uncategorized";

impl Naming {
    /// The project of a run.
    pub fn project(&self, plan: &PlannedRun) -> String {
        self.chosen_project(plan).map_or_else(|| DEFAULT_PROJECT.to_owned(), |(_, project)| project)
    }

    /// The text that the template gives for a run, and the name of the project that is made of it.
    fn chosen_project(&self, plan: &PlannedRun) -> Option<(String, String)> {
        let text = self.project.as_ref()?.expand(plan.place());
        let project = project_name(&text);
        (!project.is_empty()).then_some((text, project))
    }

    fn described(&self, plan: &PlannedRun, single: Option<&SingleRun>, config: Json) -> Described {
        let place = plan.place();
        let expand = |template: &Option<Template>| template.as_ref().map(|template| template.expand(place));
        let asked = AskedDescription {
            // A run without a name would be called what the server makes up.
            name: expand(&self.name).filter(|name| !name.trim().is_empty()).or_else(|| single?.name.clone()),
            group: expand(&self.group),
            job_type: expand(&self.job_type),
            notes: expand(&self.notes).or_else(|| single?.notes.clone()),
            tags: self.tags.as_ref().map(|tags| tags.iter().map(|tag| tag.expand(place)).collect()),
            entity: Some(self.entity.clone()).filter(|entity| !entity.is_empty()),
            project: self.project.as_ref().map(|_| self.project(plan)),
        };
        let default = Description {
            name: plan.name(),
            group: plan.group(),
            entity: self.entity.clone(),
            project: self.project(plan),
            ..Description::default()
        };
        Described { default, asked, config }
    }
}

/// W&B forbids some characters in the names of projects; they become `-`.
fn project_name(text: &str) -> String {
    let text = text.trim();
    // No name at all in a URL.
    let is_dots = matches!(text, "." | "..");
    let allowed = |c: char| if is_dots || is_forbidden_in_project(c) { '-' } else { c };
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
    /// How much of the disk is to stay free.
    pub min_free: MinFree,
    /// What was recorded before.
    known: RwLock<KnownRuns>,
    /// Runs are begun by one process at a time, so that no run gets two directories.
    making: Making,
    /// Ids that `--run-id` gave, and the experiments that have them.
    claimed: Mutex<HashMap<RunId, PathBuf>>,
    /// Projects that a template gave, and the text that each was made of first.
    projects: Mutex<HashMap<String, String>>,
    /// The experiment that the environment speaks of.
    single_owner: Mutex<Option<PathBuf>>,
}

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

/// A run that is being recorded.
#[derive(Debug)]
pub struct OpenRun {
    /// Its id.
    pub id: RunId,
    /// Its run directory; in a dry run it may not be there.
    pub directory: PathBuf,
    /// Its left half.
    pub recorder: Recorder,
    /// What a person should know about its config and its names.
    pub notes: Vec<Note>,
}

impl Recording {
    /// Reads what was recorded before. Checkpoints that cannot be read come back as errors.
    pub fn new(
        wandb_directory: PathBuf,
        options: RecordOptions,
        naming: Naming,
    ) -> io::Result<(Self, Vec<StateFileError>)> {
        let (known, errors) = KnownRuns::load(&wandb_directory, options.generation, &options.state)?;
        let recording = Self {
            wandb_directory,
            options,
            naming,
            min_free: MinFree::default(),
            known: RwLock::new(known),
            making: Making::default(),
            claimed: Mutex::default(),
            projects: Mutex::default(),
            single_owner: Mutex::default(),
        };
        recording.remove_abandoned();
        Ok((recording, errors))
    }

    /// Removes run directories of which nothing ever counted. Where that fails they only lie about.
    fn remove_abandoned(&self) {
        let known = || self.known.read().unwrap_or_else(PoisonError::into_inner);
        if self.options.dry_run || known().without_checkpoint().is_empty() {
            return;
        }
        let Ok(_turn) = self.making.enter(|last| self.lock_making(last)) else { return };
        for directory in known().without_checkpoint() {
            match remove_abandoned(directory, &self.options.state) {
                Ok(true) => tracing::info!(directory = %directory.display(), "removed: nothing of it ever counted"),
                Ok(false) => {}
                Err(error) => tracing::debug!(directory = %directory.display(), %error, "it stays"),
            }
        }
    }

    /// The id that a planned run has here, and its directory if it was recorded before.
    pub fn place_of(&self, plan: &PlannedRun) -> Result<(RunId, Option<PathBuf>), RecordError> {
        let id = match (&self.naming.run_id, self.single(plan).and_then(|single| single.id.as_ref())) {
            (Some(template), _) => {
                let id = RunId::new(template.expand_spelled(plan.place(), RunId::spelled))?;
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
    pub fn to_upload(&self, run: &OpenRun, published: &Published, meter: Option<Meter>, live: bool) -> RunToUpload {
        RunToUpload {
            id: Some(run.id.clone()),
            log: run.recorder.log().to_owned(),
            overrides: chosen_target(run.recorder.checkpoint()),
            end: published.0.subscribe(),
            foreign: None,
            earlier: Vec::new(),
            // They are recorded in the log.
            attach: Vec::new(),
            live,
            meter,
        }
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

    /// Opens a run, and makes its directory when it is new. What is written is made to last in that way.
    pub fn open(&self, plan: &PlannedRun, durability: &Durability) -> Result<OpenRun, RecordError> {
        let (config, mut notes) = self.config_of(plan, &plan.listings);
        notes.extend(self.shared_project(plan));
        let described = self.naming.described(plan, self.single(plan), config);
        let open = |directory: &Path, id: &RunId| {
            Recorder::open_by(directory, id, plan, &described, &self.options, durability)
        };
        let (id, known) = self.place_of(plan)?;
        let (id, directory, recorder) = match known {
            Some(directory) => {
                let recorder = open(&directory, &id)?;
                (id, directory, recorder)
            }
            None if self.options.dry_run => {
                let directory = self.wandb_directory.join(format!("offline-run-{id}"));
                let recorder = open(&directory, &id)?;
                (id, directory, recorder)
            }
            None => {
                // Until the log is there, by which others find the run.
                let _turn = self.making.enter(|last| self.lock_making(last))?;
                let (id, known) = self.place_of(plan)?;
                let directory = match known {
                    Some(directory) => directory,
                    None => self.make_directory(&id)?,
                };
                let recorder = open(&directory, &id)?;
                (id, directory, recorder)
            }
        };
        let checkpoint = recorder.checkpoint();
        let (named, target) = (&checkpoint.description.project, checkpoint.target().project);
        if *named != target {
            let text =
                format!("the project is now `{target}`; the logs still name `{named}`, and `wandb sync` goes by that");
            notes.push(Note::Trouble(text));
        }
        if let Some(aside) = recorder.set_aside() {
            notes.push(Note::Trouble(format!(
                "what was known of `{}` is lost: its log was set aside as `{}`, and is made anew from the event files",
                directory.display(),
                aside.file_name().unwrap_or_default().display()
            )));
        }
        Ok(OpenRun { id, directory, recorder, notes })
    }

    /// The way to make many small runs durable together, where there is one.
    pub fn together(&self) -> Option<Durability> {
        if self.options.dry_run {
            return None;
        }
        create_directories(&self.wandb_directory).ok()?;
        let together = Together::below(&self.wandb_directory).ok()??;
        Some(Durability::Together(Arc::new(together)))
    }

    /// Lets no other process begin runs, and reads which others began since this process did last.
    fn lock_making(&self, last: &mut String) -> Result<Lock, RecordError> {
        let path = self.options.state.making_lock(&self.wandb_directory);
        let failed = |source| RecordError::Io { path: path.clone(), source };
        for directory in [self.wandb_directory.as_path(), path.parent().unwrap_or(&path)] {
            create_directories(directory).map_err(failed)?;
        }
        let lock = Lock::wait(&path, self.options.state.locking, WAIT_FOR_OTHERS).map_err(|error| match error {
            LockError::Held(_) => RecordError::Making(error),
            LockError::Unsupported(_) => RecordError::NoLocks(error),
            LockError::Io(source) => failed(source),
        })?;
        if lock.previous() != last.as_str() {
            let read = self.known.write().unwrap_or_else(PoisonError::into_inner).read_again();
            // Damaged states were told of at the start; others are told of by who opens their runs.
            read.map_err(|source| RecordError::Io { path: self.wandb_directory.clone(), source })?;
        }
        lock.holder().clone_into(last);
        Ok(lock)
    }

    fn make_directory(&self, id: &RunId) -> Result<PathBuf, RecordError> {
        let made = create_offline(&self.wandb_directory, jiff::ZonedDateTime::now().datetime(), id)
            .map_err(|source| RecordError::Io { path: self.wandb_directory.clone(), source })?;
        if let Err(error) = point_latest_run_at(&made) {
            // A convenience; some file systems have no links.
            tracing::debug!(%error, "`latest-run` stays where it is");
        }
        Ok(made.path().to_owned())
    }

    /// Reads the config files of a run again: some loggers write them long after the first event.
    pub fn read_config_again(&self, plan: &PlannedRun, run: &mut OpenRun) -> Result<(), RecordError> {
        if !self.naming.config.discover {
            return Ok(());
        }
        let (config, notes) = self.config_of(plan, &Listings::default());
        run.notes.extend(notes);
        run.recorder.set_config(config)
    }

    /// What files and flags say of a run's config. Flags are nearer than files that they name, and these than files that
    /// were found.
    fn config_of(&self, plan: &PlannedRun, listings: &Listings) -> (Json, Vec<Note>) {
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
    fn shared_project(&self, plan: &PlannedRun) -> Option<Note> {
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

/// What was chosen instead of what a log of ours names.
pub fn chosen_target(checkpoint: &Checkpoint) -> Overrides {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    match checkpoint.target.clone() {
        Some(Target { entity, project }) => {
            Overrides { entity: some(entity), project: some(project), ..Overrides::default() }
        }
        None => Overrides::default(),
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
