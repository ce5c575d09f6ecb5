//! From a planned run to a recorder, in a run directory of its own.

mod plans;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::free_space::MinFree;
use crate::known_runs::KnownRuns;
use crate::listings::Listings;
use crate::model::RunId;
use crate::pipeline::making::Making;
use crate::pipeline::naming::{Naming, chosen_target};
use crate::pipeline::published::Published;
use crate::pipeline::report::Note;
use crate::pipeline::spool::Meter;
use crate::pipeline::uploads::RunToUpload;
use crate::recorder::{RecordError, RecordOptions, Recorder, remove_abandoned};
use crate::state_file::durable::{Durability, Together};
use crate::state_file::lock::{Lock, LockError};
use crate::state_file::{StateFileError, create_directories};
use crate::survey::PlannedRun;
use crate::wandb_format::{create_offline, point_latest_run_at};

pub use crate::pipeline::recording::plans::Planned;

/// How long another process may take to begin a run. It writes a few hundred bytes, and waits for no disk.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(60);

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
            end: published.subscribe(),
            foreign: None,
            earlier: Vec::new(),
            // They are recorded in the log.
            attach: Vec::new(),
            live,
            meter,
        }
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
        // Where both are looked at, they are told apart.
        if let Some(other) = recorder.also_in().filter(|_| plan.copy_names.is_empty()) {
            notes.push(Note::Trouble(format!(
                "`{}` begins like `{}`, which is still there, and is taken for the same run, `{id}`: import both at once, or one \
                 with another `--run-id`, to make two runs of them",
                plan.directory.display(),
                other.display()
            )));
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
}
