//! Is what was to arrive there? What logs say of a run is compared with what the server tells of it.
//!
//! Rows of small runs are compared value by value, and so are the first and the last rows of large ones; the others by
//! their number. Only what is missing on the server, or differs there, is a [`Finding`]: what the server has besides is
//! nobody's loss. Pure: does not know where either side comes from.

mod compare;
mod rows;
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::api::{RunFacts, RunFile, VersionFacts};
use crate::model::{Json, shortened};

pub use compare::compare;
pub use rows::Rows;

/// What is to be on the server of a run.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The rows of the logs that are here.
    pub rows: Rows,
    /// How many rows the run has besides: those of logs that are not here any more.
    pub rows_before: u64,
    /// Keys of the summary.
    pub summary: Json,
    /// Keys of the config, not wrapped, with `_wandb`.
    pub config: Json,
    /// Lines of system metrics, at least.
    pub events: u64,
    /// Console lines, at least.
    pub console: u64,
    /// Files, by their path below the run's `files/`.
    pub files: BTreeMap<String, ExpectedFile>,
    /// Versions of artifacts.
    pub artifacts: Vec<ExpectedArtifact>,
    /// The exit code, if the run has ended.
    pub exit: Option<i32>,
}

impl Expected {
    /// All rows of the run.
    pub fn all_rows(&self) -> u64 {
        self.rows.count().saturating_add(self.rows_before)
    }
}

/// A file that is to be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpectedFile {
    /// Where it lies here, if it does.
    pub local: Option<PathBuf>,
    /// Its bytes, as far as they are known.
    pub size: Option<u64>,
    /// The MD5 in base64, if it was worth hashing.
    pub md5: Option<String>,
    /// Whether it may have changed here since it was sent, and will be sent again.
    pub changes: bool,
}

/// A version that is to be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpectedArtifact {
    /// Type of the artifact.
    pub kind: String,
    /// Its name, without a version; empty where only the server's id is known.
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The server's id.
    pub id: Option<String>,
}

/// What the server tells of a run that is there.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Counts, summary, config.
    pub run: RunFacts,
    /// The rows of each of the ranges that were asked for ([`Rows::ranges`]).
    pub rows: Vec<Vec<String>>,
    /// Files by their path.
    pub files: BTreeMap<String, RunFile>,
    /// For each version that is expected, the one that was found.
    pub artifacts: Vec<Option<VersionFacts>>,
}

/// Something that is not on the server as it is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is a part of.
    pub what: What,
    /// Which: a step, a key, a path.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

/// The parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// All of it.
    Run,
    /// Event files that were not recorded.
    EventFile,
    /// History rows.
    Rows,
    /// Summary.
    Summary,
    /// Config and metric definitions.
    Config,
    /// Lines of system metrics.
    Events,
    /// Console lines.
    Console,
    /// Run files.
    File,
    /// Versions of artifacts.
    Artifact,
    /// That it ended.
    End,
}

/// How much was compared, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// History rows: `exact` of them value by value, all by their number.
    pub rows: Counts,
    /// The last `_step` here and there, where either is known.
    pub last_step: (Option<i64>, Option<i64>),
    /// Keys of the summary, compared exactly.
    pub summary_keys: u64,
    /// Keys of the config and metric definitions, compared exactly.
    pub config_keys: u64,
    /// Files: `exact` of them by their digest.
    pub files: Counts,
    /// Files that could be compared by their size only.
    pub files_by_size: u64,
    /// Versions of artifacts, by their digest.
    pub artifacts: Counts,
    /// Lines of system metrics, by their number.
    pub events: Counts,
    /// Console lines, by their number.
    pub console: Counts,
}

/// How many there are here and there, and how many of them were compared exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Here.
    pub here: u64,
    /// On the server.
    pub there: u64,
    /// Compared exactly.
    pub exact: u64,
}

/// What came of comparing a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is missing or differs.
    pub findings: Vec<Finding>,
    /// So many more findings are not listed.
    pub more: u64,
    /// How much was compared, and how.
    pub compared: Compared,
}

/// So many findings of one kind are listed.
const LISTED: usize = 50;

impl Verdict {
    /// Adds a finding.
    pub fn add(&mut self, what: What, name: impl Into<String>, why: impl Into<String>) {
        if self.findings.iter().filter(|finding| finding.what == what).count() < LISTED {
            self.findings.push(Finding { what, name: shortened(name.into()), why: shortened(why.into()) });
        } else {
            self.more += 1;
        }
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }
}
