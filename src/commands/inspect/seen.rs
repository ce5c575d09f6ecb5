//! What `inspect` says of a run: the objects of `--json`, of which the screen shows the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::limits::{Estimate, Limits};
use super::tags::Tag;
use crate::convert::kinds::SessionEnd;
use crate::model::{KindCount, Skipped, Skips};
use crate::tfevents::ValueKind;

/// Which run it is, and where it was found: said in the same words of event files, of logs, and of runs without one.
#[derive(Debug, Serialize)]
pub(crate) struct SeenAs {
    pub(crate) source: String,
    pub(crate) run_id: String,
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) entity: String,
    pub(crate) project: String,
}

/// A run as event files would make it.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "run")]
pub(super) struct RunSeen {
    #[serde(flatten)]
    pub(super) seen_as: SeenAs,
    /// Its run directory, and its rows, where it was recorded before.
    pub(super) dir: Option<String>,
    pub(super) rows_recorded: u64,
    /// Other directories begin with the same record.
    pub(super) copy: bool,
    pub(super) files: Vec<FileSeen>,
    pub(super) events: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) kinds: BTreeMap<String, KindSeen>,
    pub(super) tags: Vec<TagSeen>,
    pub(super) session: Option<SessionSeen>,
    /// The config that files, flags and hyperparameters make, each value at its keys.
    pub(super) config: Vec<String>,
    /// Files that the run would have.
    pub(super) run_files: u64,
    pub(super) run_file_bytes: u64,
    pub(super) limits: Limits,
    pub(super) estimate: Estimate,
    pub(super) skipped: Vec<Skipped>,
    /// What of it makes the command end with code 3.
    #[serde(skip)]
    pub(super) skips: Skips,
    /// The metrics that filters were asked about, taken or not.
    #[serde(skip)]
    pub(super) judged: BTreeSet<String>,
}

/// One event file.
#[derive(Debug, Serialize)]
pub(super) struct FileSeen {
    pub(super) path: String,
    pub(super) bytes: u64,
    /// Without compression, as far as it was read.
    pub(super) uncompressed_bytes: u64,
    pub(super) compression: Option<&'static str>,
    pub(super) writer: Option<String>,
    pub(super) events: u64,
    /// What could not be read, the first places in words.
    pub(super) damage: Vec<String>,
}

/// One tag of a run, or several that have one key.
#[derive(Debug, Serialize)]
pub(super) struct TagSeen {
    pub(super) key: String,
    pub(super) tag: String,
    pub(super) kind: String,
    pub(super) encodings: Vec<String>,
    pub(super) axis: String,
    pub(super) points: u64,
    pub(super) nan: u64,
    pub(super) first_step: i64,
    pub(super) last_step: i64,
    pub(super) first_time: f64,
    pub(super) last_time: f64,
    /// What its values take in rows and files.
    pub(super) bytes: u64,
    #[serde(skip)]
    pub(super) value_kind: ValueKind,
}

/// What becomes of the values of one kind.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct KindSeen {
    #[serde(flatten)]
    pub(super) count: KindCount,
    /// What its values take in rows and files.
    pub(super) bytes: u64,
}

/// What training sessions say of themselves.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct SessionSeen {
    pub(super) starts: u64,
    pub(super) stops: u64,
    /// As hyperparameters say.
    pub(super) end: Option<SessionEnd>,
}

impl TagSeen {
    pub(super) fn new(tag: &Tag, key: &str, axis: &str) -> Self {
        Self {
            key: key.to_owned(),
            tag: tag.tag.to_string(),
            kind: tag.kind.name().to_owned(),
            encodings: vec![tag.encoding.to_string()],
            axis: axis.to_owned(),
            points: tag.points,
            nan: tag.nan,
            first_step: tag.steps.0,
            last_step: tag.steps.1,
            first_time: tag.times.0,
            last_time: tag.times.1,
            bytes: tag.text_bytes() + tag.file_bytes,
            value_kind: tag.kind.clone(),
        }
    }

    pub(super) fn merge(&mut self, tag: &Tag) {
        let encoding = tag.encoding.to_string();
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
        self.points += tag.points;
        self.nan += tag.nan;
        self.first_step = self.first_step.min(tag.steps.0);
        self.last_step = self.last_step.max(tag.steps.1);
        self.first_time = self.first_time.min(tag.times.0);
        self.last_time = self.last_time.max(tag.times.1);
        self.bytes += tag.text_bytes() + tag.file_bytes;
    }
}
