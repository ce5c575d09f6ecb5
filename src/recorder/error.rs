//! Why a run cannot be recorded.

use std::io;
use std::path::PathBuf;

use crate::cleaned::CleanError;
use crate::free_space::LowSpace;
use crate::model::{InvalidRunId, RunId};
use crate::state_file::StateFileError;
use crate::state_file::lock::LockError;
use crate::wandb_format::LogError;

/// Why a run cannot be recorded. Other runs are not concerned.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another process records the run.
    #[error("the run is being recorded by another process")]
    Locked(#[source] LockError),
    /// Another process does not come to an end with beginning a run.
    #[error("another process is beginning a run, and takes long")]
    Making(#[source] LockError),
    /// The locks that keep two processes apart do not work where the state lies.
    #[error("the run cannot be kept to one process")]
    NoLocks(#[source] LockError),
    /// An error before left it half-way: open the run again.
    #[error("an error before left the recording half-way")]
    Broken,
    /// The run is there, and another generation was asked for. Ids that are chosen do not differ by themselves.
    #[error("the run `{id}` is there already, as generation {there}")]
    OtherGeneration {
        /// The run.
        id: RunId,
        /// The generation that it has.
        there: u32,
    },
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
    /// Too little of the disk is free. What is recorded counts, and a later pass goes on from there.
    #[error(transparent)]
    LowSpace(LowSpace),
    /// What cannot be sent now fills the spool. What is recorded counts, and a later pass goes on from there.
    #[error("what waits for the server fills the spool, and cannot be sent now")]
    SpoolFull,
    /// A run whose rows were deleted here cannot be summarized anew.
    #[error("the run's log was deleted after it had arrived, so its rows cannot be summarized anew")]
    RowsAreGone,
    /// A log that was to be deleted is still there.
    #[error(transparent)]
    Cleaning(#[from] CleanError),
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
