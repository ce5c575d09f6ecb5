//! Opening a run: its lock, its checkpoint, its log cut back to what counts.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::checkpoint::{Checkpoint, Shape};
use crate::cleaned;
use crate::convert::axes::Axes;
use crate::convert::filters::Filter;
use crate::convert::run::{RunConverter, RunState};
use crate::convert::summaries::SummaryRule;
use crate::model::{Json, LogPosition, RunId, RunUpdate};
use crate::recorder::run_files::RunFiles;
use crate::recorder::side::Side;
use crate::recorder::values::Beside;
use crate::recorder::{Described, RecordError, Recorder};
use crate::sink::Sink;
use crate::state_file::durable::Durability;
use crate::state_file::lock::{Lock, LockError};
use crate::state_file::place::{StateHome, StatePlace};
use crate::state_file::{StateFileError, create_directories, sync_directory};
use crate::survey::PlannedRun;
use crate::wandb_format::{is_synced, unmark_synced};

/// How many of the last names of an experiment's path tell it apart from its copies.
const NAMES_KEPT: usize = 16;

/// Where a run is recorded, and how.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// Options that decide about rows.
    pub shape: Shape,
    /// The filters of the shape, ready to be asked.
    pub filter: Arc<Filter>,
    /// `--summary`; none asks for nothing else than before.
    pub summaries: Vec<SummaryRule>,
    /// `--max-record`: records of event files are believed up to so many bytes.
    pub max_record: u64,
    /// `--generation`
    pub generation: u32,
    /// Where checkpoints lie, and whether they must be locked.
    pub state: StateHome,
    /// `--save-events`: whether the event files themselves become files of the run.
    pub save_events: bool,
    /// Whether nothing may be written at all.
    pub dry_run: bool,
}

impl Recorder {
    /// Opens the run in `directory`, which is a run directory that holds a log of ours or none at all.
    pub fn open(
        directory: &Path,
        id: &RunId,
        plan: &PlannedRun,
        described: &Described,
        options: &RecordOptions,
    ) -> Result<Self, RecordError> {
        Self::open_by(directory, id, plan, described, options, &Durability::Each)
    }

    /// The same, where what is written is made to last in that way.
    pub fn open_by(
        directory: &Path,
        id: &RunId,
        plan: &PlannedRun,
        described: &Described,
        options: &RecordOptions,
        durability: &Durability,
    ) -> Result<Self, RecordError> {
        let place = options.state.of(directory);
        // The state may lie elsewhere, and so may files of a run that was there before.
        let durability = match &options.state.directory {
            None if !directory.join("files").is_symlink() => durability.below(directory),
            _ => Durability::Each,
        };
        let lock = if options.dry_run { None } else { Some(lock_writer(&place, &durability)?) };
        let log = directory.join(format!("run-{id}.wandb"));
        let was_cleaned = !options.dry_run && cleaned::finish_if_under_way(&log, &place)?.is_some();
        let (known, damaged) = match Checkpoint::load(&place) {
            Err(StateFileError::Damaged { .. }) => (None, true),
            known => (known?, false),
        };
        if let Some(checkpoint) = &known {
            check_generation(checkpoint, options.generation)?;
            check_shape(checkpoint, plan, options)?;
        }
        let new = known.is_none();
        let mut checkpoint = known.unwrap_or_else(|| first_checkpoint(id, plan, described, options));
        // Where filters differ, they did so for other runs only; what is to come is left out by the new one.
        checkpoint.shape.clone_from(&options.shape);
        let mut description = checkpoint.description.clone();
        described.asked.apply(&mut description);
        let failed = |source| RecordError::Log { path: log.clone(), source };
        let mut set_aside_log = None;
        let no_log = !new && checkpoint.log_is_gone();
        let sink = match (options.dry_run, new) {
            // There will be a log when there is something for it.
            (false, false) if no_log => Sink::nowhere(LogPosition(1), 1).map_err(failed)?,
            (true, _) => Sink::nowhere(checkpoint.position, checkpoint.next_num).map_err(failed)?,
            (false, true) => {
                let (sink, aside) = begin_log(&log, &place, damaged, &durability)?;
                set_aside_log = aside;
                sink
            }
            (false, false) => Sink::open_at(&log, checkpoint.position, checkpoint.next_num).map_err(failed)?,
        };
        let mut recorder = Self {
            directory: directory.to_owned(),
            place,
            converter: RunConverter::new(checkpoint.state.clone(), checkpoint.summaries.clone()),
            axes: Arc::new(Axes::new(&options.shape.axes)),
            filter: options.filter.clone(),
            sources: Vec::new(),
            begun: HashSet::new(),
            max_record: options.max_record,
            open_files: Arc::default(),
            tags: HashMap::new(),
            beside: Arc::new(Mutex::new(Beside {
                files: RunFiles::new(directory.join("files"), options.dry_run),
                config: Vec::new(),
            })),
            config: HashMap::new(),
            side: Side::new(options.save_events, plan.listings.clone()),
            attachments: Vec::new(),
            attached: Vec::new(),
            masked: BTreeSet::new(),
            dry_run: options.dry_run,
            bytes_per_commit: u64::MAX,
            dirty: false,
            broken: false,
            set_aside: set_aside_log,
            also_in: None,
            marked: !was_cleaned && is_synced(&log),
            no_log: no_log && !options.dry_run,
            new,
            uncounted: !options.dry_run,
            log,
            counted_to: checkpoint.position.0,
            rows_before: checkpoint.state.rows,
            checkpoint,
            sink,
            durability,
            _lock: lock,
        };
        if new || description != recorder.checkpoint.description {
            recorder.reopen()?;
            // It is saved together with the record, at the next commit.
            recorder.checkpoint.description = description;
            recorder.write(&RunUpdate::Run(Box::new(recorder.run_info())))?;
        }
        recorder.remember_place(&plan.roots());
        recorder.set_target(&described.asked)?;
        if !options.summaries.is_empty() && options.summaries != recorder.checkpoint.summaries {
            recorder.summarize_anew(&options.summaries)?;
        }
        recorder.set_config(described.config.clone())?;
        Ok(recorder)
    }
}

/// Whether its rows were made as these options say.
fn check_shape(checkpoint: &Checkpoint, plan: &PlannedRun, options: &RecordOptions) -> Result<(), RecordError> {
    let differences = checkpoint.shape.differences(&options.shape, &plan.tb_runs);
    if differences.is_empty() { Ok(()) } else { Err(RecordError::OtherShape(differences)) }
}

/// That of a run of which nothing was recorded.
fn first_checkpoint(id: &RunId, plan: &PlannedRun, described: &Described, options: &RecordOptions) -> Checkpoint {
    Checkpoint {
        run_id: id.clone(),
        generation: options.generation,
        shape: options.shape.clone(),
        position: LogPosition::default(),
        next_num: 1,
        ending: None,
        description: described.default.clone(),
        host: plan.host.clone(),
        state: RunState { started_at: plan.started_at.seconds(), ..RunState::default() },
        names: plan.last_names(NAMES_KEPT),
        sources: Vec::new(),
        tags: Default::default(),
        session: None,
        summaries: options.summaries.clone(),
        other_keys: Default::default(),
        side_files: Default::default(),
        saved_events: Default::default(),
        artifacts: Default::default(),
        experiments: Vec::new(),
        config: Json::object(),
        target: None,
    }
}

/// Begins the log of a run, with what tells other processes that it is ours. Returns the name of an older one that was set
/// aside.
fn begin_log(
    log: &Path,
    place: &StatePlace,
    damaged: bool,
    durability: &Durability,
) -> Result<(Sink, Option<PathBuf>), RecordError> {
    let failed_at = |path: &Path, source| RecordError::Io { path: path.to_owned(), source };
    let aside = make_way(log, place, damaged).map_err(|source| failed_at(log, source))?;
    // Until there is a checkpoint, the lock marks the log as ours, and the other says that nothing of it was ever seen.
    // Neither must be lost before the log is.
    fs::File::create(place.uncounted())
        .and_then(|_| durability.directory(place.directory()))
        .map_err(|source| failed_at(place.directory(), source))?;
    let sink = Sink::create(log).map_err(|source| RecordError::Log { path: log.to_owned(), source })?;
    Ok((sink, aside))
}

/// Whether the run is of the generation that was asked for.
pub fn check_generation(checkpoint: &Checkpoint, asked: u32) -> Result<(), RecordError> {
    if checkpoint.generation == asked {
        return Ok(());
    }
    Err(RecordError::OtherGeneration { id: checkpoint.run_id.clone(), there: checkpoint.generation })
}

fn lock_writer(place: &StatePlace, durability: &Durability) -> Result<Lock, RecordError> {
    let failed = |source| RecordError::Io { path: place.directory().to_owned(), source };
    match durability {
        Durability::Each => create_directories(place.directory()),
        // It lasts before a log is made, with the lock in it.
        Durability::Together(_) => fs::create_dir_all(place.directory()),
    }
    .map_err(failed)?;
    let path = place.writer_lock();
    Lock::take(&path, place.locking()).map_err(|error| match error {
        LockError::Held(_) => RecordError::Locked(error),
        LockError::Unsupported(_) => RecordError::NoLocks(error),
        LockError::Io(source) => RecordError::Io { path, source },
    })
}

/// Makes way for a new log. One without its checkpoint is never appended to: it is made anew from the sources. Where it may
/// have counted once, it is set aside; a damaged checkpoint is no better than none. One that never counted is deleted.
///
/// What servers acknowledged of the old log says nothing of the new one, and goes when the old one has gone.
fn make_way(log: &Path, place: &StatePlace, damaged: bool) -> io::Result<Option<PathBuf>> {
    let is_lost = damaged || !place.uncounted().exists();
    let mut aside = None;
    if log.exists() {
        if is_lost {
            unmark_synced(log)?;
            aside = Some(set_aside(log)?);
        } else {
            fs::remove_file(log)?;
        }
        sync_directory(log.parent().unwrap_or(Path::new(".")))?;
    }
    for state in place.uploads() {
        fs::remove_file(state)?;
    }
    // All of the run will be in the new log, also what was in others that were deleted.
    if place.cleaned().exists() {
        fs::remove_file(place.cleaned())?;
    }
    let checkpoint = place.checkpoint();
    if checkpoint.exists() {
        fs::rename(&checkpoint, checkpoint.with_extension("json.damaged"))?;
    }
    Ok(aside)
}

/// Gives a log a name that no other has.
fn set_aside(log: &Path) -> io::Result<PathBuf> {
    let mut numbers = 1_u32..;
    let free = numbers.find_map(|number| {
        let aside = log.with_extension(format!("wandb.aside-{number}"));
        (!aside.exists()).then_some(aside)
    });
    let aside = free.ok_or(io::ErrorKind::AlreadyExists)?;
    fs::rename(log, &aside)?;
    Ok(aside)
}
