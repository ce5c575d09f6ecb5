//! Uploads a log: what is durable in it goes to the server, once, and what was acknowledged is remembered.
//!
//! [`upload_run`] follows one log until it ends. It reads entries, folds them, makes batches of lines at their offsets, and
//! keeps a state beside the run, so that the next start reads only what lies behind it. A request whose answer was lost is
//! sent again to the same offsets. One [`Fleet`] is shared by all runs of the process.
//!
//! Pure: `fold`, `batch`, `console`, `terminal`, `upsert`. This room does not know who writes the log, nor what the person asked for.

mod artifacts;
mod batch;
mod console;
mod console_file;
mod contact;
mod contents;
mod cursor;
mod damage;
mod files;
mod fleet;
mod fold;
mod job;
mod log_mark;
mod outlook;
mod seat;
mod state;
mod terminal;
mod unsettled;
mod upsert;
mod worker;

pub use artifacts::{
    ArtifactError, ArtifactUpload, Lacking, LackingFile, Manner, PutArtifact, PutError, PutRequest, UploadedArtifact,
    WhyLacking, put_artifact, settled, upload_artifact,
};
pub use contents::{RunContents, RunLog};
pub use cursor::{RunStart, run_start};
pub use fleet::{Fleet, Queued};
pub use job::{
    Cleaning, Close, Foreign, Links, LogEnd, OnConflict, Overrides, Progress, RunState, UploadError, UploadJob,
    UploadOutcome,
};
pub use outlook::{Acknowledged, FileOutlook, Outlook, all_acknowledged};
pub use worker::{upload_queued_run, upload_run};
