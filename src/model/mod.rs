//! The words that every room shares: ids, numbers, JSON, the updates a run is made of, and how it ended.
//!
//! Plain data and pure functions. Knows no protobuf, no files, no network and no clock.

mod histogram;
mod ids;
pub mod json;
pub mod json_text;
mod number;
mod outcome;
mod same;
mod update;

pub use histogram::Histogram;
pub use ids::{InvalidRunId, LogPosition, RunId, Step, WallTime, is_forbidden_in_project};
pub use json::Json;
pub use number::Number;
pub use outcome::{Count, KindCount, Kinds, Skipped, SkippedReason, Skips, shortened};
pub use update::{
    ArtifactFile, ArtifactInfo, Exit, FileCategory, Host, MetricDefinition, MetricSummary, Row, RowValue, RunInfo,
    RunUpdate, SummaryItem,
};
