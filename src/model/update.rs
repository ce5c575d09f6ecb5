//! What happens to a run, one step at a time: the closed set that `convert` makes and `sink` writes down.

use std::path::PathBuf;
use std::sync::Arc;

use crate::model::{Histogram, Json, Number, RunId};

/// One change to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunUpdate {
    /// Always the first update of a run; a later one changes what describes it (name, group, tags, notes, job type).
    Run(Box<RunInfo>),
    /// Configuration values, each at its path of keys.
    Config(Vec<(Vec<String>, Json)>),
    /// How a metric is to be charted and summarized. Comes before the first row that holds the metric.
    Metric(MetricDefinition),
    /// Files of the run, by their paths below its `files/`: they are there already.
    Files(Vec<(String, FileCategory)>),
    /// A version of an artifact of the run.
    Artifact(Box<ArtifactInfo>),
    /// One history row.
    Row(Row),
    /// Summary values that changed.
    Summary(Vec<SummaryItem>),
    /// The process is about to be stopped and will go on later.
    Preempting,
    /// The run ended. Only ever the last update of a log.
    Exit(Exit),
}

/// A version of an artifact, as it is recorded: its files stay where they are until they are uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactInfo {
    /// The run that it belongs to.
    pub run_id: RunId,
    /// Empty: the server's default.
    pub entity: String,
    /// Empty: the server's default.
    pub project: String,
    /// Its type.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The digest of all of it.
    pub digest: String,
    /// What this version is known by before the server gives it an id.
    pub client_id: String,
    /// The same for the sequence of its versions.
    pub sequence_client_id: String,
    /// What is in it.
    pub files: Vec<ArtifactFile>,
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// Its path in the artifact.
    pub path: String,
    /// The base64 of its MD5.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// Where it is.
    pub local: PathBuf,
}

/// What a file of a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileCategory {
    /// Something that a history row speaks of.
    Media,
    /// Anything else.
    Other,
    /// A file that grows while the run goes on: it is uploaded again as it does, and when the run ends.
    Growing,
}

/// What describes a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunInfo {
    /// The run's id.
    pub id: RunId,
    /// Empty: the server's default for the credentials.
    pub entity: String,
    /// Empty: the server's default.
    pub project: String,
    /// The name that people see.
    pub name: String,
    /// Empty: none.
    pub group: String,
    /// Empty: none.
    pub job_type: String,
    /// Empty: none.
    pub notes: String,
    /// Labels.
    pub tags: Vec<String>,
    /// Seconds since the Unix epoch of the run's first event.
    pub start_time: f64,
    /// Where the event files say that they were written.
    pub host: Host,
}

/// The machine's name, as the name of an event file states it; empty when it does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host(pub String);

/// A metric and its step axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricDefinition {
    /// The exact history key.
    pub name: Arc<str>,
    /// The key of the step axis; `None` defines an axis itself.
    pub step_metric: Option<Arc<str>>,
    /// What the summary holds of it; `None` is the latest value.
    pub summary: Option<MetricSummary>,
    /// Whether nothing of an earlier definition counts any more.
    pub anew: bool,
}

/// What the summary holds of a metric. When it is all false, that is the latest value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetricSummary {
    /// The lowest value.
    pub min: bool,
    /// The highest value.
    pub max: bool,
    /// The mean of all values.
    pub mean: bool,
    /// The latest value.
    pub last: bool,
    /// The first value.
    pub first: bool,
    /// Nothing at all, whatever else is wanted.
    pub none: bool,
}

/// One history row. Its `_step` only counts rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// `_step`: 0 for the first row of the run.
    pub index: u64,
    /// `_timestamp`: seconds since the Unix epoch.
    pub timestamp: f64,
    /// `_runtime`: seconds since the run's first event, never negative.
    pub runtime: f64,
    /// The key of the step axis.
    pub axis: Arc<str>,
    /// The TensorBoard step.
    pub axis_value: i64,
    /// The values, in the order of the file. No key stands here twice.
    pub values: Vec<(Arc<str>, RowValue)>,
}

/// A value of a history row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowValue {
    /// A number, as nearly all are.
    Number(Number),
    /// The bins of a histogram.
    Histogram(Arc<Histogram>),
    /// Anything else, such as what history says of a media file.
    Json(Arc<Json>),
}

impl RowValue {
    /// The value as JSON.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Number(number) => Json::Number(*number),
            Self::Histogram(histogram) => histogram.to_json(),
            Self::Json(json) => Json::clone(json),
        }
    }

    /// Appends its JSON text.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => number.write_json(out),
            Self::Histogram(histogram) => histogram.write_json(out),
            Self::Json(json) => json.write(out),
        }
    }

    /// A bound of the length of its text, which costs less than the text.
    pub fn size(&self) -> usize {
        match self {
            Self::Number(_) => Json::NUMBER_SIZE,
            Self::Histogram(histogram) => histogram.size(),
            Self::Json(json) => json.size(),
        }
    }
}

impl From<Histogram> for RowValue {
    fn from(histogram: Histogram) -> Self {
        Self::Histogram(Arc::new(histogram))
    }
}

impl From<Json> for RowValue {
    fn from(json: Json) -> Self {
        Self::Json(Arc::new(json))
    }
}

impl From<Number> for RowValue {
    fn from(number: Number) -> Self {
        Self::Number(number)
    }
}

/// A summary value.
#[derive(Debug, Clone, PartialEq)]
pub struct SummaryItem {
    /// Path of keys; one element for a flat key, however many slashes or dots it holds.
    pub path: Vec<String>,
    /// The new value.
    pub value: Json,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// 0 is finished, anything else failed.
    pub code: i32,
    /// Whole seconds from the first event to the last.
    pub runtime: i32,
}
