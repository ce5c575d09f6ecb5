//! What an upload is asked to do, and what it says about it: the words between this room and whoever starts it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::api::{ApiError, Class};
use crate::artifact::{Attached, Attachment};
use crate::cleaned::CleanError;
use crate::model::{InvalidRunId, LogPosition, Skips};
use crate::state_file::StateFileError;
use crate::state_file::lock::LockError;
use crate::state_file::place::StatePlace;
use crate::upload::artifacts::ArtifactError;
use crate::upload::contents::RunLog;
use crate::wandb_format::LogError;

/// One log to upload.
pub struct UploadJob {
    /// The `run-ID.wandb`.
    pub log: PathBuf,
    /// Where its state is kept.
    pub state: StatePlace,
    /// The run's `files/`.
    pub files_dir: PathBuf,
    /// What becomes of links in it.
    pub links: Links,
    /// How far the log may be read, and whether it ends there.
    pub end: watch::Receiver<LogEnd>,
    /// What replaces what the log says.
    pub overrides: Overrides,
    /// Whether the run is being recorded right now: then it gets heartbeats.
    pub live: bool,
    /// What to do when the server holds something else under the run's id.
    pub on_conflict: OnConflict,
    /// What is special about it where another client wrote it.
    pub foreign: Option<Foreign>,
    /// The logs of the run before it, in the order of their start.
    pub earlier: Vec<RunLog>,
    /// What is made of files beside it, and sent when all of it was.
    pub attach: Vec<Attachment>,
    /// Folders in which staged files of its artifacts may lie, besides where they were and around the log.
    pub staging: Arc<[PathBuf]>,
    /// Whether the log is marked as sent although something of it is lost for good.
    pub accept_losses: bool,
    /// What becomes of it here once it was acknowledged.
    pub cleaning: Cleaning,
    /// Told of every step that a person may want to see.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
}

impl fmt::Debug for UploadJob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UploadJob").field("log", &self.log).field("live", &self.live).finish_non_exhaustive()
    }
}

/// A log that another client wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Foreign {
    /// Another log of the same run was before it, so it continues the run even where it does not say so.
    pub continues: bool,
    /// While it is followed, it ends with its exit record.
    pub ends_at_exit: bool,
}

/// What becomes of links among the files of a run that lead out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// None is followed.
    Never,
    /// Those to regular files that are neither hidden nor the system's own.
    #[default]
    Saved,
    /// Those to any regular file.
    Always,
}

/// What is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleaning {
    /// Nothing.
    No,
    /// Log and files of a run that has ended and was acknowledged whole.
    AtEnd,
    /// The same, and files of rows as soon as they are acknowledged.
    AsAcknowledged,
}

/// How far a log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// Read at most to here; `None` is the end of the file.
    pub position: Option<LogPosition>,
    /// Nothing will be added to it by this process.
    pub complete: bool,
    /// What to do with a log that is complete but holds no exit.
    pub close: Close,
}

impl LogEnd {
    /// The whole file, as it is.
    pub fn whole(close: Close) -> Self {
        Self { position: None, complete: true, close }
    }
}

/// What to do with a run whose log holds no exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// It goes on later.
    LeaveRunning,
    /// Whoever wrote it is gone: it failed with this code.
    Fail(i32),
    /// A later log of the same run goes on, so this one is done, and the run is not.
    Continued,
    /// It ended with this code: the exit stands behind what is to be read, and may be cut off at any time.
    Ended(i32),
}

/// What to do with a run whose id holds something else on the server: rows that are not in the log, or nothing any more
/// of what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// Leave it alone: it is skipped.
    Skip,
    /// Upload it under another id, which is the same one the next time.
    NewId,
    /// Send all rows of the log behind those that are there.
    Append,
    /// It fails, with an explanation.
    #[default]
    Fail,
}

/// What the user chose instead of what the log says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// The entity.
    pub entity: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// The run id.
    pub run_id: Option<String>,
    /// The job type.
    pub job_type: Option<String>,
    /// Tags for others; what becomes empty is left out.
    pub replace_tags: Vec<(String, String)>,
}

impl Overrides {
    /// These, and where nothing was chosen, those.
    #[must_use]
    pub fn or(self, those: Self) -> Self {
        Self {
            entity: self.entity.or(those.entity),
            project: self.project.or(those.project),
            run_id: self.run_id.or(those.run_id),
            job_type: self.job_type.or(those.job_type),
            replace_tags: if self.replace_tags.is_empty() { those.replace_tags } else { self.replace_tags },
        }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The server knows the run.
    Opened {
        /// Where people see it.
        url: String,
        /// What people see.
        display_name: String,
    },
    /// The server has more of it. The log before `position` need not be kept for its sake.
    Acknowledged {
        /// How many more rows.
        rows: u64,
        /// How many bytes these were.
        bytes: u64,
        /// The log up to here was acknowledged.
        position: LogPosition,
    },
    /// Files that rows before `position` speak of were deleted here after they were acknowledged.
    Deleted {
        /// The log up to here was acknowledged.
        position: LogPosition,
    },
    /// All of it is there, and the mark that says so could not be set beside the log.
    Unmarked {
        /// What the system said, and of which file.
        why: String,
    },
    /// Files were not taken by the server, or not now: they stay.
    FilesRefused {
        /// Their sizes.
        bytes: u64,
    },
}

/// How a run stands after an upload.
#[derive(Debug)]
pub enum RunState {
    /// All of it is on the server, and it is finished there.
    Synced,
    /// It is finished there, but something of it could not be carried.
    Partial,
    /// All of the log so far is on the server; the run goes on.
    Running,
    /// Left alone, because the user wants runs with such a conflict to be.
    Skipped(UploadError),
    /// It could not be uploaded to its end.
    Failed(UploadError),
}

/// What became of an upload.
#[derive(Debug)]
pub struct UploadOutcome {
    /// How it stands.
    pub state: RunState,
    /// Rows sent by this call.
    pub rows_sent: u64,
    /// Files sent by this call, however often each.
    pub files_sent: u64,
    /// Artifacts of the log that are there because of this call.
    pub artifacts_sent: u64,
    /// Rows of the log that the server acknowledged, now or before.
    pub rows_total: u64,
    /// What is not on the server, and why.
    pub skips: Skips,
    /// What there was of what is to be attached, where it came to that.
    pub attached: Vec<Attached>,
    /// Why some of that is not, where sending it again later helps.
    pub later: Option<ApiError>,
    /// Where people see it; empty when the server was never reached.
    pub url: String,
    /// What people see.
    pub display_name: String,
    /// The group that the log names; empty when it names none.
    pub group: String,
    /// The entity as the server names it, or as it was asked for.
    pub entity: String,
    /// The project as the server names it, or as it was asked for.
    pub project: String,
    /// The run id; empty for a log that names none.
    pub run_id: String,
}

impl Overrides {
    /// Tags as they are to be on the server.
    pub(crate) fn tags(&self, tags: &[String]) -> Vec<String> {
        let replaced = |tag: &String| {
            let new = self.replace_tags.iter().find(|(old, _)| old == tag).map(|(_, new)| new);
            new.unwrap_or(tag).clone()
        };
        tags.iter().map(replaced).filter(|tag| !tag.is_empty()).collect()
    }
}

impl UploadOutcome {
    /// An upload that did not begin.
    pub fn not_tried(run_id: String, error: UploadError) -> Self {
        Self {
            state: RunState::Failed(error),
            rows_sent: 0,
            files_sent: 0,
            artifacts_sent: 0,
            rows_total: 0,
            skips: Skips::default(),
            attached: Vec::new(),
            later: None,
            url: String::new(),
            display_name: String::new(),
            group: String::new(),
            entity: String::new(),
            project: String::new(),
            run_id,
        }
    }
}

/// Why an upload could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The server or the network. Its class says whether trying again helps.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Another run met this error, and it concerns this one too.
    #[error("not tried, because of another run: {0}")]
    Stopped(ApiError),
    /// Somebody else writes to the run, or did; or what was acknowledged is gone. A person has to choose: see
    /// [`OnConflict`].
    #[error("`{run}` holds {there} rows on the server, and {why}")]
    Conflict {
        /// Entity, project and id.
        run: String,
        /// How many history lines the server has.
        there: u64,
        /// What does not fit.
        why: String,
    },
    /// The log is being made anew, and is shorter yet than what the server holds of the run: nobody can tell yet whether
    /// that is the same.
    #[error("`{run}` holds {there} rows on the server, and so far only {here} are here to compare them with")]
    Behind {
        /// Entity, project and id.
        run: String,
        /// How many history lines the server has.
        there: u64,
        /// How many the log has so far.
        here: u64,
    },
    /// What was acknowledged is not there any more. A person has to choose: see [`OnConflict`].
    #[error("the server holds nothing of the {rows} rows that it acknowledged of `{run}`: the run was deleted there")]
    Vanished {
        /// Entity, project and id.
        run: String,
        /// How many rows it had acknowledged.
        rows: u64,
    },
    /// The upload ended in a way that it must not: a mistake in this program. What was acknowledged is kept.
    #[error("the upload broke off: {0}")]
    Broken(String),
    /// An earlier log of the same run comes first, and could not be uploaded.
    #[error("not tried, because `{}` comes before it and could not be uploaded whole", .0.display())]
    NotItsTurn(PathBuf),
    /// The log names no run.
    #[error("`{}` holds no run record", .0.display())]
    NoRun(PathBuf),
    /// The log names a run as no run can be called. `--id` chooses another id.
    #[error("`{}` cannot be sent to a run of that id", log.display())]
    RunId {
        /// The log.
        log: PathBuf,
        /// What is wrong with it.
        source: InvalidRunId,
    },
    /// The log names an entity or a project by what does not survive in an address: it would lead to another place.
    /// `--entity` and `--project` choose others.
    #[error("`{}` names {what} `{}`, and no address can hold its control characters", log.display(), name.escape_debug())]
    Place {
        /// The log.
        log: PathBuf,
        /// `the entity` or `the project`.
        what: &'static str,
        /// As the log has it.
        name: String,
    },
    /// The log cannot be read.
    #[error("cannot read `{}`", log.display())]
    Log {
        /// The log.
        log: PathBuf,
        /// Why.
        source: LogError,
    },
    /// An artifact of the run did not get there. Its class says whether trying again helps.
    #[error("the artifact `{name}` was not uploaded")]
    Artifact {
        /// Its name.
        name: String,
        /// Why not.
        source: ArtifactError,
    },
    /// What was acknowledged cannot be read or written down.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The log begins where logs ended that were deleted after they were sent elsewhere.
    #[error("`{}` is only the end of the run: {rows} rows before it were sent to another place, and deleted here", .log.display())]
    Cleaned {
        /// The log.
        log: PathBuf,
        /// How many rows are missing.
        rows: u64,
    },
    /// What was deleted, or is to be, cannot be told.
    #[error(transparent)]
    Cleaning(#[from] CleanError),
    /// Another process uploads this run.
    #[error("another process uploads this run: {0}")]
    Held(String),
    /// The state cannot be locked on its file system.
    #[error("the upload cannot be kept to one process")]
    NoLocks(#[source] LockError),
    /// The directory for the state cannot be made.
    #[error("cannot make `{}`: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl UploadError {
    /// The class of the error, where the server or the network is to blame.
    pub fn class(&self) -> Option<Class> {
        match self {
            Self::Api(error) | Self::Stopped(error) => Some(error.class()),
            Self::Artifact { source, .. } => Some(source.class()),
            _ => None,
        }
    }
}
