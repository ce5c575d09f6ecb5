//! What is known about the upload of one log to one target: the fold of all that was acknowledged, and what was sent.
//!
//! It may lag behind the server, never run ahead of it: everything in it was acknowledged. What was sent since is sent
//! again, to the same offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::api::Bucket;
use crate::cleaned::Cleaned;
use crate::model::LogPosition;
use crate::state_file::place::StatePlace;
use crate::state_file::{self, StateFileError};
use crate::upload::fold::{Fold, Revisions, RunParameters};
use crate::upload::log_mark::LogMark;

/// No log has more bytes or lines.
const LARGEST_COUNT: u64 = 1 << 60;

/// The state of one log and one target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct UploadState {
    /// What the server calls the run; none before the first contact.
    pub(crate) run: Option<RunAddress>,
    /// The log up to what was acknowledged.
    pub(crate) fold: Fold,
    /// What was sent besides lines.
    pub(crate) sent: Sent,
    /// What the log looks like just before the position of the fold: a log that looks otherwise is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<LogMark>,
    /// How many logs of the run were deleted before the one that the fold is in.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) logs: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl UploadState {
    /// Goes on in the next log of a run whose logs were deleted. False when not all of them are on the server.
    pub(crate) fn follow(&mut self, cleaned: &Cleaned) -> bool {
        if self.logs == cleaned.logs {
            return true;
        }
        let has_all = self.run.is_some() && self.logs + 1 == cleaned.logs && self.fold.history_lines == cleaned.rows;
        if has_all {
            self.fold.begin_next_log();
            self.mark = None;
            self.logs = cleaned.logs;
        }
        has_all
    }
}

/// A run as the server named it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct RunAddress {
    pub(crate) storage_id: String,
    pub(crate) entity: String,
    pub(crate) project: String,
    pub(crate) run_id: String,
    pub(crate) display_name: String,
    /// What was there before ours.
    #[serde(flatten)]
    pub(crate) base: Base,
}

/// What a run held before the first line of a log that continues it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Base {
    /// History lines.
    #[serde(rename = "history_base")]
    pub(crate) history: u64,
    /// Lines of system metrics.
    #[serde(default, rename = "events_base")]
    pub(crate) events: u64,
    /// Console lines.
    #[serde(default, rename = "console_base")]
    pub(crate) console: u64,
    /// The least `_step` of the log's first row. 0 leaves all steps as they are.
    #[serde(default)]
    pub(crate) first_step: i64,
}

impl Base {
    /// What the next row's `_step` must be at least, given that of the latest row of the log.
    pub(crate) fn least_step(&self, latest: Option<i64>) -> Option<i64> {
        (self.first_step > 0).then(|| latest.map_or(self.first_step, |step| step.saturating_add(1)))
    }

    /// Nothing of ours is renumbered, but so many rows were there before.
    #[cfg(test)]
    pub(crate) fn rows(history: u64) -> Self {
        Self { history, ..Self::default() }
    }
}

impl RunAddress {
    /// The address in the terms of the API.
    pub(crate) fn bucket(&self) -> Bucket {
        Bucket {
            storage_id: self.storage_id.clone(),
            run_id: self.run_id.clone(),
            entity: self.entity.clone(),
            project: self.project.clone(),
            display_name: self.display_name.clone(),
            history_lines: 0,
            inserted: false,
        }
    }
}

/// What the server has besides lines.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// The revisions that the server knows.
    pub(crate) revisions: Revisions,
    /// What describes the run, as the server was told last.
    #[serde(default)]
    pub(crate) told: Option<RunParameters>,
    /// How many lines behind the acknowledged ones may have arrived without an answer.
    #[serde(default)]
    pub(crate) in_flight: u64,
    /// The files that were uploaded, as they were then; without those that the log up to its position names and that are
    /// uploaded once ([`Fold::fresh`]).
    pub(crate) files: BTreeMap<String, FileMark>,
    /// Files that could not be uploaded, as they were then: counted as lost until they change.
    pub(crate) failed_files: BTreeSet<String>,
    /// Files that were uploaded, but not yet reported to be.
    pub(crate) unreported: Vec<String>,
    /// How many alerts were sent, and how many of those nobody wanted.
    #[serde(default)]
    pub(crate) alerts: u64,
    #[serde(default)]
    pub(crate) failed_alerts: u64,
    /// The size of a summary that is too large to be sent.
    pub(crate) summary_too_large: Option<u64>,
    /// What became of the artifacts of the log, by the place of their records. Those that are not here wait.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) artifacts: BTreeMap<LogPosition, ArtifactNote>,
    /// What was attached to the run besides, and what was in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) attached: BTreeMap<String, AttachedNote>,
    /// The exit code with which the run was completed there.
    pub(crate) finished: Option<i32>,
    /// All was sent of a log that is over, and another process ends the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) left_running: bool,
}

/// The newest version of something that was attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttachedNote {
    /// The digest of all of it.
    pub(crate) digest: String,
    /// What its files looked like: as long as they do, they need not be read.
    pub(crate) look: String,
}

/// What became of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ArtifactNote {
    /// It is there, under this id.
    Done(String),
    /// It could not be brought there.
    Failed {
        /// Its name, and why.
        why: String,
        /// A file without which it cannot be made, where it was when it was recorded: it is tried again when that is there.
        missing: Option<PathBuf>,
        /// The recorded size of that file, in bytes; 0 where it is not known.
        #[serde(default)]
        size: u64,
        /// What was in its place instead.
        #[serde(default)]
        seen: Option<FileMark>,
        /// It was the server that refused it, or whose answer made no sense: another time it may not.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        refused: bool,
    },
}

impl ArtifactNote {
    /// Whether the server has it.
    pub(crate) fn is_there(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// Whether it is tried again by whoever begins anew.
    pub(crate) fn was_refused(&self) -> bool {
        matches!(self, Self::Failed { refused: true, .. })
    }

    /// Whether it waits for a file.
    pub(crate) fn lacks_file(&self) -> bool {
        matches!(self, Self::Failed { missing: Some(_), .. })
    }
}

/// Enough to see that a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileMark {
    pub(crate) size: u64,
    pub(crate) modified_ns: u64,
}

impl From<&Metadata> for FileMark {
    fn from(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self { size: metadata.len(), modified_ns: modified.map(|time| time.as_nanos() as u64).unwrap_or_default() }
    }
}

impl UploadState {
    /// Reads the state at a path; `None` when there is none.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, StateFileError> {
        let found: Option<Self> = state_file::load(path)?;
        match found {
            Some(state) if !state.is_plausible() => {
                Err(StateFileError::implausible(path, "it counts more than there can be"))
            }
            found => Ok(found),
        }
    }

    /// Numbers are added to, and none may overflow.
    fn is_plausible(&self) -> bool {
        let base = self.run.as_ref().map(|run| run.base).unwrap_or_default();
        let before = [base.history, base.events, base.console];
        let counts = [self.fold.position.0, self.fold.history_lines, self.fold.events_lines, self.fold.alerts];
        before.into_iter().chain(counts).all(|count| count <= LARGEST_COUNT)
            && self.fold.console.count() <= LARGEST_COUNT
            && self.fold.console.is_plausible()
    }
}

/// Where a log is to go, as the caller asked for it. Empty is the server's default.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    pub(crate) entity: String,
    pub(crate) project: String,
    pub(crate) run_id: String,
}

/// The state file of a target: another target of the same log has another.
pub(crate) fn state_path(place: &StatePlace, server: &Url, target: &Target) -> PathBuf {
    let mut hash = Sha256::new();
    for part in [server.as_str().trim_end_matches('/'), &target.entity, &target.project, &target.run_id] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    place.upload(&hex)
}
