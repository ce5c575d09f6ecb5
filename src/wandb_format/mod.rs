//! The W&B run datastore: bytes ↔ entries of a `run-ID.wandb` log, and the directories in which logs lie.
//!
//! Writing: [`RecordEncoder`] turns a [`RunUpdate`](crate::model::RunUpdate) into a record, [`LogWriter`] appends it.
//! Reading: [`LogReader`] walks a log, also one that grows or is damaged, and [`HistoryLines`] turns a history entry into
//! the line that a server wants. The folds ([`Telemetry`], [`Metrics`], [`Environment`], [`apply_config`],
//! [`apply_summary`]) gather what many records say into the values that a server wants whole.
//!
//! This room has never heard of TensorBoard or HTTP. It does not know what is durable, who holds a run, or what was
//! uploaded.

mod block;
mod config_yaml;
mod encode;
mod entry;
mod environment;
mod history_line;
mod metrics;
mod reader;
mod run_dir;
mod telemetry;
mod tree;
mod wire;
mod writer;

pub use block::LogError;
pub use config_yaml::config_yaml;
pub use encode::{RecordEncoder, environment_record, files_record, header_record, telemetry_record};
pub use entry::{Entry, EntryKind};
pub use environment::{Environment, pretty};
pub use history_line::{HistoryLine, HistoryLines, row_items};
pub use metrics::Metrics;
pub use reader::{LogReader, Next};
pub use run_dir::{
    FoundLogs, RunDir, RunDirIndex, create_offline, find_logs, find_logs_beside, first_step, is_synced,
    mark_first_step, mark_synced, point_latest_run_at, synced_marker, unmark_synced, wandb_dir,
};
pub use telemetry::Telemetry;
pub use tree::{apply_config, apply_summary};
pub use writer::LogWriter;
