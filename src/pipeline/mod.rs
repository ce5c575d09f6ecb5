//! The wiring: the only place that starts threads and tasks, and where the two halves meet.
//!
//! The left half runs on rayon's threads, the right half on tokio's. They share a run's log and one number: how far it
//! counts.

mod attach;
mod child;
mod gate;
mod import;
mod live;
mod making;
mod naming;
mod published;
mod recording;
mod report;
mod segments;
mod signals;
mod spool;
mod stopping;
mod sync;
mod unrecorded;
mod uploads;
mod verify;
mod watch;
mod wide;

pub use attach::to_log as attachments_of_log;
pub use child::RunningCommand;
pub use import::import;
pub use live::{LiveEnd, LiveOptions, sync_live};
pub use naming::{DEFAULT_PROJECT, GivenConfig, Naming, chosen_target};
pub use recording::{Planned, Recording};
pub use report::{LeftOut, Note, Recorded, RunEnd, Watcher};
pub use signals::{Signal, Signals};
pub use spool::Spool;
pub use stopping::Stopping;
pub use sync::{id_of, sync};
pub use unrecorded::Unrecorded;
pub use uploads::{Uploads, open_many_files, runtime};
pub use verify::{RunToVerify, RunVerified, Standing, VerifyError, runs_of_logs, verify};
pub use watch::{Ending, WatchEnd, WatchOptions, watch};
