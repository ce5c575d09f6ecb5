//! One run's left half: sources are read, merged, converted and appended to the log, and the checkpoint follows.
//!
//! The order after which nothing is lost or doubled: append to the log → make the log durable → save the checkpoint, which
//! holds the position that counts → tell the uploader. Whatever the log holds behind the checkpoint's position is cut off
//! at the next start, and its sources are read again from the checkpoint's offsets.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::checkpoint::{Checkpoint, Description, Ending, STATE_DIRECTORY, Shape};
use crate::convert::axes::Axes;
use crate::convert::config;
use crate::convert::filters::{Filter, KindName};
use crate::convert::kinds::SessionEnd;
use crate::convert::merge::Merge;
use crate::convert::restarts::Restarts;
use crate::convert::rows::SourceRow;
use crate::convert::run::{RunConverter, RunState};
use crate::convert::summaries::SummaryRule;
use crate::model::{
    Host, InvalidRunId, Json, Kinds, LogPosition, RowValue, RunId, RunInfo, RunUpdate, Skips, WallTime,
};
use crate::sink::Sink;
use crate::state_file::lock::{Lock, LockError};
use crate::state_file::{StateFileError, sync_directory};
use crate::survey::{PlannedRun, PlannedSource};
use crate::tfevents::{TagTable, ValueKind};
use crate::wandb_format::{LogError, is_synced, unmark_synced};

mod judge;
mod losses;
mod numbers;
mod places;
mod reasons;
mod run_files;
mod side;
mod source;
#[cfg(test)]
mod tests;
mod values;

pub use judge::{Judge, ToScan, find_superseded};
use numbers::numbers_of;
use places::places_of;
pub use places::rules;
pub use reasons::{place_of_file, place_of_value, reason};
use run_files::RunFiles;
pub use run_files::Written;
use side::Side;
pub use side::{kind_of, side_files_of};
use source::Source;
use values::Beside;

/// Rows between two commits of a long pass. A commit costs an `fsync`; a crash costs reading this many rows again.
const ROWS_PER_COMMIT: u64 = 100_000;

/// How many of the last names of an experiment's path tell it apart from its copies.
const NAMES_KEPT: usize = 16;

/// Why a run cannot be recorded. Other runs are not concerned.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another process records the run.
    #[error("the run is being recorded by another process")]
    Locked(#[source] LockError),
    /// The options differ from those that made the rows.
    #[error("the run was recorded with other options: {}", .0.join(", "))]
    OtherShape(Vec<&'static str>),
    /// The log cannot be written: a full or read-only disk, or a log that was cut by someone else.
    #[error("cannot write the log `{}`", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        source: LogError,
    },
    /// A log of ours without its checkpoint: nothing of it counts.
    #[error("its recording was cut short before anything of it counted")]
    CutShort,
    /// A log of ours that is shorter than its checkpoint says: an incomplete copy.
    #[error("the log has {length} bytes of the {position} that count: it was not copied whole")]
    Shorter {
        /// What is there.
        length: u64,
        /// What should be.
        position: u64,
    },
    /// `--run-id` gives several experiments one id.
    #[error("several experiments would have the run id `{0}`")]
    SameId(RunId),
    /// `--run-id` gives something that is no run id.
    #[error(transparent)]
    Id(#[from] InvalidRunId),
    /// The checkpoint cannot be read or written.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// A directory or marker cannot be made.
    #[error("cannot write `{}`", path.display())]
    Io {
        /// What was to be made.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How a pass ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The last row of a step stays open: its writer may be in the middle of it.
    KeepRow,
    /// The open row is closed: nothing came for a while.
    CloseRow,
    /// The run ends with this exit code.
    Exit(i32),
}

/// A row that waits for more values of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRow<'a> {
    /// The file that it is read from.
    pub path: &'a Path,
    /// When its first value was read.
    pub opened: Instant,
    /// When its file last had anything new.
    pub grown: Instant,
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pass {
    /// Events read, of any kind.
    pub events: u64,
    /// What became of the values, by kind.
    pub kinds: Kinds,
    /// Files of the run that were written.
    pub files: Written,
    /// Rows appended.
    pub rows: u64,
    /// Bytes read from event files.
    pub bytes: u64,
    /// By how much the log grew.
    pub log_bytes: u64,
    /// What was not carried.
    pub skips: Skips,
    /// What earlier processes could not carry of the same files: it is not there yet.
    pub known: Skips,
}

impl Pass {
    /// Adds another pass.
    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.kinds.merge(&other.kinds);
        self.files.files += other.files.files;
        self.files.bytes += other.files.bytes;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.log_bytes += other.log_bytes;
        self.skips.merge(&other.skips);
        self.known.merge(&other.known);
    }
}

/// Where a run is recorded, and how.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// Options that decide about rows.
    pub shape: Shape,
    /// The filters of the shape, ready to be asked.
    pub filter: Arc<Filter>,
    /// `--summary`; none asks for nothing else than before.
    pub summaries: Vec<SummaryRule>,
    /// `--generation`
    pub generation: u32,
    /// `--save-events`: whether the event files themselves become files of the run.
    pub save_events: bool,
    /// Whether nothing may be written at all.
    pub dry_run: bool,
}

/// Records one run.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
    log: PathBuf,
    checkpoint: Checkpoint,
    converter: RunConverter,
    sink: Sink,
    /// Where the log ended when its growth was counted last.
    counted_to: u64,
    rows_before: u64,
    sources: Vec<Source>,
    axes: Arc<Axes>,
    filter: Arc<Filter>,
    /// What is known about tags, by directory: its files share it.
    tags: HashMap<String, Arc<Mutex<TagTable>>>,
    /// Files that rows speak of, and config.
    beside: Arc<Mutex<Beside>>,
    /// The config that was written by this process.
    config: HashMap<Vec<String>, Json>,
    /// What is known of files beside the event files.
    side: Side,
    /// Where config values stood that look like credentials.
    masked: BTreeSet<String>,
    dry_run: bool,
    /// Whether anything was appended or read since the last commit.
    dirty: bool,
    /// Whether the log was made by this process and nothing of it was committed yet.
    new: bool,
    /// Whether the log may bear the mark of a log that was uploaded whole.
    marked: bool,
    _lock: Option<Lock>,
}

/// A run as it is described now: what was asked for, and the default for what was not.
#[derive(Debug, Clone, Default)]
pub struct Described {
    /// Used when the run is new.
    pub default: Description,
    /// Values that were asked for: they also change a run that is there already.
    pub asked: AskedDescription,
    /// What files and flags say of its config.
    pub config: Json,
}

/// The parts of a description that were asked for.
#[derive(Debug, Clone, Default)]
pub struct AskedDescription {
    /// `--run-name`
    pub name: Option<String>,
    /// `--group`
    pub group: Option<String>,
    /// `--job-type`
    pub job_type: Option<String>,
    /// `--notes`
    pub notes: Option<String>,
    /// `--tags`
    pub tags: Option<Vec<String>>,
    /// `--entity`
    pub entity: Option<String>,
    /// `--project`
    pub project: Option<String>,
}

impl AskedDescription {
    /// Replaces what was asked for.
    pub fn apply(&self, description: &mut Description) {
        let set = |place: &mut String, value: &Option<String>| {
            if let Some(value) = value {
                place.clone_from(value);
            }
        };
        set(&mut description.name, &self.name);
        set(&mut description.group, &self.group);
        set(&mut description.job_type, &self.job_type);
        set(&mut description.notes, &self.notes);
        if let Some(tags) = &self.tags {
            description.tags.clone_from(tags);
        }
    }
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
        let state_directory = directory.join(STATE_DIRECTORY);
        let lock = if options.dry_run {
            None
        } else {
            let failed = |source| RecordError::Io { path: state_directory.clone(), source };
            fs::create_dir_all(&state_directory).map_err(failed)?;
            let path = Checkpoint::writer_lock(directory);
            Some(Lock::take(&path).map_err(|error| match error {
                LockError::Held(_) => RecordError::Locked(error),
                LockError::Io(source) => RecordError::Io { path, source },
            })?)
        };
        let log = directory.join(format!("run-{id}.wandb"));
        let known = Checkpoint::load(directory)?;
        if let Some(checkpoint) = &known {
            let differences = checkpoint.shape.differences(&options.shape, &plan.tb_runs);
            if !differences.is_empty() {
                return Err(RecordError::OtherShape(differences));
            }
        }
        let new = known.is_none();
        let mut checkpoint = known.unwrap_or_else(|| Checkpoint {
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
            config: Json::object(),
            target: None,
        });
        // Where filters differ, they did so for other runs only; what is to come is left out by the new one.
        checkpoint.shape.clone_from(&options.shape);
        let mut description = checkpoint.description.clone();
        described.asked.apply(&mut description);
        let failed = |source| RecordError::Log { path: log.clone(), source };
        if new && !options.dry_run {
            // The lock marks the log as ours until there is a checkpoint, so it must not be lost before the log is.
            sync_directory(&state_directory)
                .map_err(|source| RecordError::Io { path: state_directory.clone(), source })?;
        }
        let sink = match (options.dry_run, new) {
            (true, _) => Sink::nowhere(checkpoint.position, checkpoint.next_num).map_err(failed)?,
            (false, true) => {
                set_aside(&log).map_err(|source| RecordError::Io { path: log.clone(), source })?;
                Sink::create(&log).map_err(failed)?
            }
            (false, false) => Sink::open_at(&log, checkpoint.position, checkpoint.next_num).map_err(failed)?,
        };
        let mut recorder = Self {
            directory: directory.to_owned(),
            converter: RunConverter::new(checkpoint.state.clone(), checkpoint.summaries.clone()),
            axes: Arc::new(Axes::new(&options.shape.axes)),
            filter: options.filter.clone(),
            sources: Vec::new(),
            tags: HashMap::new(),
            beside: Arc::new(Mutex::new(Beside {
                files: RunFiles::new(directory.join("files"), options.dry_run),
                config: Vec::new(),
            })),
            config: HashMap::new(),
            side: Side::new(options.save_events),
            masked: BTreeSet::new(),
            dry_run: options.dry_run,
            dirty: false,
            marked: is_synced(&log),
            new,
            log,
            counted_to: checkpoint.position.0,
            rows_before: checkpoint.state.rows,
            checkpoint,
            sink,
            _lock: lock,
        };
        if new || description != recorder.checkpoint.description {
            recorder.reopen()?;
            // It is saved together with the record, at the next commit.
            recorder.checkpoint.description = description;
            recorder.write(&RunUpdate::Run(Box::new(recorder.run_info())))?;
        }
        recorder.set_target(&described.asked)?;
        if !options.summaries.is_empty() && options.summaries != recorder.checkpoint.summaries {
            recorder.summarize_anew(&options.summaries)?;
        }
        recorder.set_config(described.config.clone())?;
        Ok(recorder)
    }

    /// Takes other rules for the summary. The rows stay what they are; what the summary says of them is read from the log.
    fn summarize_anew(&mut self, rules: &[SummaryRule]) -> Result<(), RecordError> {
        self.checkpoint.summaries = rules.to_vec();
        self.dirty = true;
        let metrics = self.converter.metrics_summarized_anew(rules);
        let mut numbers = Default::default();
        if !metrics.is_empty() && !self.dry_run {
            self.reopen()?;
            numbers = numbers_of(&self.log, self.checkpoint.position, metrics)
                .map_err(|source| RecordError::Log { path: self.log.clone(), source })?;
        }
        let mut updates = Vec::new();
        self.converter.summarize_anew(rules.to_vec(), numbers, |update| updates.push(update));
        updates.iter().try_for_each(|update| self.write(update))
    }

    /// Remembers where the run is to be sent from now on. Nothing of the log changes, but it is not whole there.
    fn set_target(&mut self, asked: &AskedDescription) -> Result<(), RecordError> {
        let mut target = self.checkpoint.target();
        for (place, asked) in [(&mut target.entity, &asked.entity), (&mut target.project, &asked.project)] {
            if let Some(asked) = asked {
                place.clone_from(asked);
            }
        }
        if target == self.checkpoint.target() {
            return Ok(());
        }
        self.checkpoint.target = Some(target);
        self.dirty = true;
        if !self.dry_run && std::mem::take(&mut self.marked) {
            unmark_synced(&self.log).map_err(|source| RecordError::Io { path: self.log.clone(), source })?;
        }
        Ok(())
    }

    /// Lays config from files and flags over what was written of it, with the next commit. What is there already is not
    /// written again, and what is not in it any more stays.
    pub fn set_config(&mut self, mut config: Json) -> Result<(), RecordError> {
        self.masked.extend(config::mask(&mut config));
        let new = config::changes(&self.checkpoint.config, &config);
        if new.is_empty() {
            return Ok(());
        }
        self.reopen()?;
        config::lay_over(&mut self.checkpoint.config, config);
        self.write(&RunUpdate::Config(new))
    }

    /// Where config values stood that look like credentials; they were masked.
    pub fn masked(&self) -> &BTreeSet<String> {
        &self.masked
    }

    /// The run's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What was recorded so far.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The latest wall time of any event.
    pub fn newest_event(&self) -> Option<WallTime> {
        let open = self.sources.iter().filter_map(Source::latest);
        open.chain(self.checkpoint.sources.iter().filter_map(|source| source.latest)).max()
    }

    /// Rows that were there when it was opened.
    pub fn rows_before(&self) -> u64 {
        self.rows_before
    }

    /// Values at steps that the same metric had passed before.
    pub fn repeated(&self) -> u64 {
        self.converter.repeated()
    }

    /// All keys that options can speak of: those of rows, and those that filters judged.
    pub fn keys(&self) -> impl Iterator<Item = &str> + Clone {
        self.converter.state().steps.keys().chain(&self.checkpoint.other_keys).map(String::as_str)
    }

    /// Rows that wait for more values of their steps.
    pub fn open_rows(&self) -> impl Iterator<Item = OpenRow<'_>> {
        self.sources.iter().filter_map(Source::open_row)
    }

    /// Records at the end of the sources that are not whole: counted where they stand now, so that what was completed
    /// since is not among them.
    pub fn unfinished(&self) -> Skips {
        let mut skips = Skips::default();
        self.sources.iter().for_each(|source| source.count_unfinished(&mut skips));
        skips
    }

    /// Reads what is new in the sources, to the end of what is there now. `committed` is called after each commit with
    /// the position up to which the log may be read. `go_on` is asked now and then, and told how far the pass is; a pass
    /// that is told to stop commits what it has.
    pub fn pass(
        &mut self,
        planned: &[PlannedSource],
        end: End,
        mut committed: impl FnMut(LogPosition),
        go_on: impl Fn(&Pass) -> bool,
    ) -> Result<Pass, RecordError> {
        let mut pass = Pass::default();
        let ready = self.ready_sources(planned, end);
        // Sources that cannot be resumed right after their last row, because an event was split between two rows.
        let mut split = ready.iter().filter(|source| source.resume_at.is_none()).count();
        let mut merge = Merge::new(ready);
        let mut rows_at_commit = 0;
        let mut result = Ok(());
        let mut stopped = false;
        // What cannot be read is counted; what fails is writing the files that rows speak of.
        while let Some((index, row)) = merge.next_row().unwrap_or_else(|error| {
            result = Err(error);
            None
        }) {
            if row.values.is_empty() {
                // Nothing could be made of the parts of its body.
                if let Some(source) = merge.source_mut(index) {
                    split -= usize::from(source.resume_at.is_none());
                    split += usize::from(row.resume_at.is_none());
                    source.resume_at = row.resume_at;
                }
                continue;
            }
            pass.rows += 1;
            let scalars = row.values.iter().filter(|(_, value)| matches!(value, RowValue::Number(_))).count() as u64;
            let counted = pass.kinds.of(ValueKind::Scalar.name());
            counted.read += scalars;
            counted.sent += scalars;
            if let Some(source) = merge.source_mut(index) {
                split -= usize::from(source.resume_at.is_none());
                split += usize::from(row.resume_at.is_none());
                source.resume_at = row.resume_at;
            }
            result = self.write_row(row);
            let due = || pass.rows - rows_at_commit >= ROWS_PER_COMMIT || locked(&self.beside).files.are_due();
            if result.is_ok() && split == 0 && due() {
                rows_at_commit = pass.rows;
                for source in merge.sources_mut() {
                    self.checkpoint_source(source);
                }
                result = self.commit(&mut committed);
                pass.bytes = merge.sources_mut().iter().map(|source| source.bytes()).sum();
                stopped = !go_on(&pass);
                // Each source adds its own at the end.
                pass.bytes = 0;
            }
            if stopped || result.is_err() {
                break;
            }
        }
        for mut source in merge.into_sources() {
            source.end_pass(&mut pass, result.is_ok() && !stopped);
            self.checkpoint_source(&mut source);
            // A pass that was stopped drops what it had read ahead; then the checkpoint says where to read on.
            if result.is_ok() && !stopped {
                self.sources.push(source);
            }
        }
        result?;
        if !stopped {
            self.keep_beside(planned, end, &mut pass)?;
        }
        // Whatever is written has its place before the exit record.
        self.write_beside()?;
        if let (End::Exit(code), false) = (end, stopped) {
            self.exit(if code == 0 { self.session_code() } else { code })?;
        }
        self.commit(&mut committed)?;
        pass.files = locked(&self.beside).files.take_count();
        pass.log_bytes = self.sink.position().0.0.saturating_sub(self.counted_to);
        self.counted_to = self.sink.position().0.0;
        Ok(pass)
    }

    /// Reads all there is, if filters leave out all of it; `None` as soon as anything is not. For a dry run.
    pub fn pass_if_all_is_left_out(&mut self, planned: &[PlannedSource]) -> Option<Pass> {
        let mut pass = Pass::default();
        let mut merge = Merge::new(self.ready_sources(planned, End::CloseRow));
        if merge.next_row().ok()?.is_some() {
            return None;
        }
        for mut source in merge.into_sources() {
            source.end_pass(&mut pass, true);
            self.checkpoint_source(&mut source);
        }
        // Files beside the events alone make a run only where they were asked for.
        if [KindName::Projector, KindName::Profile].into_iter().any(|kind| self.filter.asks_for(kind)) {
            self.keep_beside(planned, End::CloseRow, &mut pass).ok()?;
        }
        let sum = pass.kinds.sum();
        (sum.left_out > 0 && sum.left_out == sum.read).then_some(pass)
    }

    /// Writes the end of the run. One that has ended, and to which nothing came, keeps the end that it has.
    fn exit(&mut self, code: i32) -> Result<(), RecordError> {
        if self.checkpoint.ending.is_some() {
            return Ok(());
        }
        self.reopen()?;
        self.commit_rows()?;
        let (before_exit, exit_num) = self.sink.position();
        self.write(&RunUpdate::Exit(self.converter.exit(code)))?;
        self.checkpoint.ending = Some(Ending { before_exit, exit_num, code });
        Ok(())
    }

    /// Leaves the run open, and says that it will go on; not one that has ended.
    pub fn preempt(&mut self, mut committed: impl FnMut(LogPosition)) -> Result<(), RecordError> {
        if self.checkpoint.ending.is_some() {
            return Ok(());
        }
        self.reopen()?;
        self.write(&RunUpdate::Preempting)?;
        self.commit(&mut committed)
    }

    /// Makes everything so far durable and published, if there is anything new.
    fn commit(&mut self, committed: &mut impl FnMut(LogPosition)) -> Result<(), RecordError> {
        self.write_beside()?;
        self.commit_rows()?;
        if !self.dirty {
            return Ok(());
        }
        locked(&self.beside).files.sync()?;
        if self.dry_run {
            self.dirty = false;
            return Ok(());
        }
        self.sink.sync().map_err(|source| RecordError::Log { path: self.log.clone(), source })?;
        (self.checkpoint.position, self.checkpoint.next_num) = self.sink.position();
        self.checkpoint.state.clone_from(self.converter.state());
        for (directory, tags) in &self.tags {
            let tags = locked(tags);
            if !tags.is_empty() {
                self.checkpoint.tags.insert(directory.clone(), tags.clone());
            }
        }
        if self.new {
            // What the checkpoint speaks of must be found after a loss of power: the log, and the directory it is in.
            for directory in [Some(self.directory.as_path()), self.directory.parent()].into_iter().flatten() {
                sync_directory(directory).map_err(|source| RecordError::Io { path: directory.to_owned(), source })?;
            }
            self.new = false;
        }
        self.checkpoint.save(&self.directory)?;
        self.dirty = false;
        committed(self.checkpoint.position);
        Ok(())
    }

    fn commit_rows(&mut self) -> Result<(), RecordError> {
        match self.converter.commit() {
            Some(summary) => self.write(&summary),
            None => Ok(()),
        }
    }

    /// Names new files in the log, so that they are uploaded, and writes config that this process has not written yet.
    fn write_beside(&mut self) -> Result<(), RecordError> {
        let (files, config) = {
            let mut beside = locked(&self.beside);
            (beside.files.take_unnamed(), std::mem::take(&mut beside.config))
        };
        if !files.is_empty() {
            self.reopen()?;
            self.write(&RunUpdate::Files(files))?;
        }
        let mut new = Vec::new();
        for (path, mut value) in config {
            self.masked.extend(config::mask_value(&path, &mut value));
            if self.config.get(&path) == Some(&value) {
                continue;
            }
            self.config.insert(path.clone(), value.clone());
            // Files and flags are nearer than events.
            if config::speaks_of(&self.checkpoint.config, &path) {
                let left = config::leaves(&path, &value);
                new.extend(left.into_iter().filter(|(path, _)| !config::speaks_of(&self.checkpoint.config, path)));
            } else {
                new.push((path, value));
            }
        }
        if !new.is_empty() {
            self.reopen()?;
            self.write(&RunUpdate::Config(new))?;
        }
        Ok(())
    }

    /// The exit code of a run that ended by itself: failed only where its training session says so. That a session
    /// says it finished does not end a run, because some writers say so when they begin.
    fn session_code(&self) -> i32 {
        i32::from(self.checkpoint.session == Some(SessionEnd::Failed))
    }

    fn write_row(&mut self, row: SourceRow) -> Result<(), RecordError> {
        self.write_beside()?;
        self.reopen()?;
        self.dirty = true;
        let mut failed = None;
        let sink = &mut self.sink;
        self.converter.row(row, |update| {
            if failed.is_none() {
                failed = sink.write(&update).err();
            }
        });
        match failed {
            Some(source) => Err(RecordError::Log { path: self.log.clone(), source }),
            None => Ok(()),
        }
    }

    fn write(&mut self, update: &RunUpdate) -> Result<(), RecordError> {
        self.dirty = true;
        self.sink.write(update).map_err(|source| RecordError::Log { path: self.log.clone(), source })
    }

    /// Makes the log ready for something new: it is not whole on any server any more, and its exit record, which is
    /// only ever the last record of a log, is cut off. The checkpoint goes before the log, so that a crash in between leaves
    /// a log that is cut at the next start; and before the mark, so that a process that sets the mark just now sees in the
    /// checkpoint that it is too late. Nothing is changed here before it is saved.
    fn reopen(&mut self) -> Result<(), RecordError> {
        let failed = |source| RecordError::Log { path: self.log.clone(), source };
        if self.dry_run {
            if let Some(ending) = self.checkpoint.ending.take() {
                self.sink = Sink::nowhere(ending.before_exit, ending.exit_num).map_err(failed)?;
            }
            return Ok(());
        }
        let ending = self.checkpoint.ending;
        if let Some(ending) = ending {
            let mut cut = self.checkpoint.clone();
            (cut.ending, cut.position, cut.next_num) = (None, ending.before_exit, ending.exit_num);
            cut.save(&self.directory)?;
            self.checkpoint = cut;
        }
        if std::mem::take(&mut self.marked) {
            unmark_synced(&self.log)
                .and_then(|()| sync_directory(&self.directory))
                .map_err(|source| RecordError::Io { path: self.log.clone(), source })?;
        }
        if let Some(ending) = ending {
            self.sink = Sink::open_at(&self.log, ending.before_exit, ending.exit_num).map_err(failed)?;
        }
        Ok(())
    }

    fn run_info(&self) -> RunInfo {
        let Description { name, group, job_type, notes, tags, entity, project } = self.checkpoint.description.clone();
        RunInfo {
            id: self.checkpoint.run_id.clone(),
            entity,
            project,
            name,
            group,
            job_type,
            notes,
            tags,
            start_time: self.checkpoint.state.started_at,
            host: Host(self.checkpoint.host.clone()),
        }
    }

    /// The sources of a pass: those that are known go on where they were, in the order that breaks ties.
    fn ready_sources(&mut self, planned: &[PlannedSource], end: End) -> Vec<Source> {
        let mut known: HashMap<usize, Source> = self.sources.drain(..).map(|source| (source.index, source)).collect();
        let indexes = places_of(&mut self.checkpoint.sources, planned);
        let mut ready: Vec<Source> = Vec::with_capacity(planned.len());
        for (plan, index) in planned.iter().zip(indexes) {
            let Some(checkpoint) = self.checkpoint.sources.get(index) else { continue };
            let mut source = known.remove(&index).unwrap_or_else(|| {
                // The names of the first look count, whatever path named the files this time.
                let directory = checkpoint.directory();
                let saved = self.checkpoint.tags.get(directory);
                let tags = self
                    .tags
                    .entry(directory.to_owned())
                    .or_insert_with(|| Arc::new(Mutex::new(saved.cloned().unwrap_or_default())));
                Source::new(
                    index,
                    plan,
                    checkpoint,
                    self.axes.clone(),
                    tags.clone(),
                    self.beside.clone(),
                    self.filter.clone(),
                )
            });
            source.start_pass(plan, end);
            ready.push(source);
        }
        if self.checkpoint.shape.restarts == Restarts::Purge {
            self.purge(planned, &mut ready);
        }
        // Files that are gone keep their place: a file may come back.
        self.sources = known.into_values().collect();
        ready.sort_by(|a, b| a.tie_break().cmp(&b.tie_break()));
        ready
    }

    /// Tells the sources, which stand in the order of the plan, what later starts superseded. What was recorded before
    /// stays: then the steps of the restart are steps that were passed already.
    fn purge(&self, planned: &[PlannedSource], ready: &mut [Source]) {
        if ready.iter().all(Source::has_nothing_new) {
            return;
        }
        let files: Vec<ToScan<'_>> = planned
            .iter()
            .zip(&*ready)
            .filter_map(|(plan, source)| Some(ToScan { plan, rule: &self.checkpoint.sources.get(source.index)?.rule }))
            .collect();
        for (source, superseded) in ready.iter_mut().zip(find_superseded(&files, &self.axes)) {
            source.set_superseded(superseded);
        }
    }

    fn checkpoint_source(&mut self, source: &mut Source) {
        for metric in source.take_new_metrics() {
            if !self.converter.state().steps.contains_key(&*metric) {
                self.checkpoint.other_keys.insert(metric.to_string());
            }
        }
        self.checkpoint.session = source.session().or(self.checkpoint.session);
        let Some(saved) = self.checkpoint.sources.get_mut(source.index) else { return };
        if let Some(position) = source.position() {
            let lost = source.lost();
            self.dirty |= saved.position != position || saved.lost != lost;
            saved.position = position;
            saved.lost = lost;
            saved.latest = source.latest();
            saved.seen_size = source.recorded_size();
        }
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A log without its checkpoint is never appended to: it is set aside, and made anew from the sources.
fn set_aside(log: &Path) -> io::Result<()> {
    if !log.exists() {
        return Ok(());
    }
    for number in 1.. {
        let aside = log.with_extension(format!("wandb.aside-{number}"));
        if !aside.exists() {
            fs::rename(log, &aside)?;
            break;
        }
    }
    unmark_synced(log)
}
