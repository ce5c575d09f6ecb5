//! How far a run was recorded: the file that decides, after any crash, what counts.
//!
//! It lies where [`StatePlace`] says. The log is read only up to [`Checkpoint::position`] by every process of
//! ours, and cut back to it before anything is appended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use crate::convert::axes::AxisRule;
use crate::convert::filters::Filters;
use crate::convert::keys::KeyRule;
use crate::convert::kinds::SessionEnd;
use crate::convert::layout::Layout;
use crate::convert::restarts::Restarts;
use crate::convert::run::RunState;
use crate::convert::run_filter::RunFilter;
use crate::convert::run_id::Fingerprint;
use crate::convert::summaries::SummaryRule;
use crate::convert::template::Template;
use crate::model::{Count, Json, LogPosition, RunId, SkippedReason, WallTime, json_text};
use crate::state_file::durable::Durability;
use crate::state_file::place::StatePlace;
use crate::state_file::{self, StateFileError};
use crate::tfevents::{FilePosition, TagTable};

mod saved_source;

use saved_source::SavedSource;

/// No log has more bytes, rows or records, and no file more bytes.
const LARGEST_COUNT: u64 = 1 << 60;

/// Options that decide which rows and runs there are. A pass with others would mix two readings of the same logs, so it
/// is refused; `--generation` makes a fresh run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shape {
    /// `--layout`
    pub layout: Layout,
    /// `--join`
    pub join: Option<Template>,
    /// `--axis`
    pub axes: Vec<AxisRule>,
    /// `--restarts`
    #[serde(default)]
    pub restarts: Restarts,
    /// `--tags-include`, `--tags-exclude`, `--kinds`, `--since`, `--until`
    #[serde(default)]
    pub filters: Filters,
    /// `--include` and `--exclude`
    #[serde(default, skip_serializing_if = "RunFilter::is_empty")]
    pub runs: RunFilter,
}

impl Shape {
    /// The flags in which two shapes differ, for a run that these TB runs belong to. A filter that leaves out others, or
    /// none of them, makes no difference to it.
    pub fn differences(&self, other: &Self, tb_runs: &[String]) -> Vec<&'static str> {
        let Self { layout, join, axes, restarts, filters, runs } = self;
        let Filters { tags_include, tags_exclude, kinds, since, until } = filters;
        [
            ("--layout", *layout == other.layout),
            ("--join", *join == other.join),
            ("--axis", *axes == other.axes),
            ("--restarts", *restarts == other.restarts),
            ("--tags-include", *tags_include == other.filters.tags_include),
            ("--tags-exclude", *tags_exclude == other.filters.tags_exclude),
            ("--kinds", *kinds == other.filters.kinds),
            ("--since", *since == other.filters.since),
            ("--until", *until == other.filters.until),
        ]
        .into_iter()
        .filter_map(|(flag, same)| (!same).then_some(flag))
        .chain(runs.differences(&other.runs, tb_runs))
        .collect()
    }
}

/// What describes a run to people. A later pass may change it without touching the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Description {
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
    /// As settings or flags said when the run was made; empty: the server's default.
    pub entity: String,
    /// Empty: the server's default.
    pub project: String,
}

/// Where a run is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Empty: the server's default.
    pub entity: String,
    /// Empty: the server's default.
    pub project: String,
}

/// A run that ended. More may still come: then the log is cut back to before its exit record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Where the exit record begins.
    pub before_exit: LogPosition,
    /// The number that the exit record has.
    pub exit_num: i64,
    /// 0 is finished, anything else failed.
    pub code: i32,
}

/// One source of a run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "SavedSource")]
pub struct SourceCheckpoint {
    /// Path below the experiment's directory, for people and for telling copies apart.
    pub label: String,
    /// Name of the file, as its writer made it.
    pub file_name: String,
    /// Hash of its first record.
    pub fingerprint: Fingerprint,
    /// What its tags are called in the run.
    pub rule: KeyRule,
    /// Where to read on: everything before is in the log.
    pub position: FilePosition,
    /// The latest wall time seen before `position`.
    pub latest: Option<WallTime>,
    /// Size of the file when it was last read to its end, in bytes; nothing is new while it stays the same.
    pub seen_size: u64,
    /// What is lost of everything before `position`: it is still not on the server when nothing is new.
    pub lost: Vec<(SkippedReason, Count)>,
}

impl Serialize for SourceCheckpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SavedSource::of(self).serialize(serializer)
    }
}

impl SourceCheckpoint {
    /// The directory's part of the label; empty for the experiment's own.
    pub fn directory(&self) -> &str {
        self.label.strip_suffix(&self.file_name).map_or("", |directory| directory.trim_end_matches('/'))
    }

    /// Gives it another file name, in its directory.
    pub fn rename(&mut self, file_name: String) {
        self.label = match self.directory() {
            "" => file_name.clone(),
            directory => format!("{directory}/{file_name}"),
        };
        self.file_name = file_name;
    }
}

/// Enough to see that a file changed since it was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideMark {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since the Unix epoch; 0 where the file system does not say.
    pub modified_ns: u64,
}

/// The newest version of an artifact that was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactMark {
    /// The digest of all of it.
    pub digest: String,
    /// What its files looked like: as long as they do, they need not be read.
    pub look: String,
}

/// The recorded part of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The run's id; never changes.
    pub run_id: RunId,
    /// `--generation`
    pub generation: u32,
    /// Options that made the rows.
    pub shape: Shape,
    /// The published position: everything before it is durable.
    pub position: LogPosition,
    /// The number of the next record.
    pub next_num: i64,
    /// Set when the log ends with an exit record.
    pub ending: Option<Ending>,
    /// How the run is described to people, as the log says it last.
    pub description: Description,
    /// What files and flags say of the config, as the log says it last: nothing that an event holds may change that.
    #[serde(default = "Json::object", with = "json_text")]
    pub config: Json,
    /// Where the run is sent, if a later pass chose something else than the log names. The log goes on naming what it named
    /// first: the official client would send the rest of a log that changes its mind to another run.
    #[serde(default)]
    pub target: Option<Target>,
    /// The machine that wrote the event files.
    pub host: String,
    /// Rows, times and metrics so far.
    pub state: RunState,
    /// The last names of the path of the experiment's directory when it was first seen: they tell copies apart.
    #[serde(default)]
    pub names: Vec<String>,
    /// The files that were read.
    pub sources: Vec<SourceCheckpoint>,
    /// What kind of data each tag holds, by directory: later events leave it out.
    pub tags: BTreeMap<String, TagTable>,
    /// How the run's training session says that it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionEnd>,
    /// What the summary holds of which metrics, as asked for last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub summaries: Vec<SummaryRule>,
    /// Metrics that filters judged and that are in no row: they were left out, or are kept as files.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub other_keys: BTreeSet<String>,
    /// Files beside the event files that were copied or left out, by their path below `files/`, as they were then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub side_files: BTreeMap<String, SideMark>,
    /// Artifacts that were recorded, by type and name: what was in them then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, ArtifactMark>,
    /// The directories of the experiment, seen from the run directory, and what paths of their files begin with. Artifacts
    /// are looked for there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub experiments: Vec<(String, PathBuf)>,
    /// Event files that are files of the run too, by their path below `files/`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub saved_events: BTreeSet<String>,
}

impl Checkpoint {
    /// Where the run is sent.
    pub fn target(&self) -> Target {
        let Description { entity, project, .. } = &self.description;
        self.target.clone().unwrap_or_else(|| Target { entity: entity.clone(), project: project.clone() })
    }

    /// Whether the log was deleted after all of it had arrived. A run that grows goes on in another.
    pub fn log_is_gone(&self) -> bool {
        // Every log that counts has a header.
        self.position == LogPosition(0)
    }

    /// Whether a run is of our making: it has a checkpoint, or its recording was cut short before the first one. Then its
    /// log counts for nothing and is made anew.
    pub fn is_ours(place: &StatePlace) -> bool {
        place.checkpoint().is_file() || place.writer_lock().is_file()
    }

    /// Reads the checkpoint of a run; `None` for a log that is not ours.
    pub fn load(place: &StatePlace) -> Result<Option<Self>, StateFileError> {
        let path = place.checkpoint();
        let found: Option<Self> = state_file::load(&path)?;
        match found {
            Some(checkpoint) if !checkpoint.is_plausible() => {
                Err(StateFileError::implausible(&path, "it counts more than there can be"))
            }
            found => Ok(found),
        }
    }

    /// Numbers are added to, and none may overflow. A cleaned run has more rows than its log has bytes.
    fn is_plausible(&self) -> bool {
        let Self { position, next_num, state, sources, ending, .. } = self;
        let counts = |count: u64| count <= LARGEST_COUNT;
        let numbers = |number: i64| u64::try_from(number).is_ok_and(counts);
        counts(position.0)
            && counts(state.rows)
            && numbers(*next_num)
            && sources.iter().all(|source| counts(source.position.offset) && counts(source.seen_size))
            && ending.is_none_or(|ending| ending.before_exit <= *position && numbers(ending.exit_num))
    }

    /// Replaces the checkpoint of a run, durably.
    pub fn save(&self, place: &StatePlace) -> Result<(), StateFileError> {
        self.save_by(place, &Durability::Each)
    }

    /// The same, made to last in that way.
    pub fn save_by(&self, place: &StatePlace, durability: &Durability) -> Result<(), StateFileError> {
        state_file::save_by(&place.checkpoint(), self, durability)
    }
}
