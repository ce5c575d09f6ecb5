//! What a log of the run datastore holds, ours or any W&B client's: read up to where it counts, and nothing changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::limits::{Limit, Limits};
use super::seen::SeenAs;
use crate::checkpoint::Checkpoint;
use crate::model::{LogPosition, Skipped, SkippedReason, Skips};
use crate::pipeline::{chosen_target, id_of};
use crate::proto::wandb_internal::record::RecordType;
use crate::state_file::place::{StateHome, StatePlace};
use crate::upload::{Acknowledged, Links, Outlook, Overrides, all_acknowledged};
use crate::wandb_format::{Entry, EntryKind, is_synced, row_items};

/// A log of the run datastore.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "log")]
pub(crate) struct LogSeen {
    #[serde(flatten)]
    pub(crate) seen_as: SeenAs,
    pub(crate) bytes: u64,
    /// Whether this program recorded it, and up to where it counts then.
    pub(crate) ours: bool,
    pub(crate) counts_to: Option<u64>,
    pub(crate) records: BTreeMap<&'static str, u64>,
    pub(crate) rows: u64,
    pub(super) keys: Vec<KeySeen>,
    pub(crate) first_step: Option<i64>,
    pub(crate) last_step: Option<i64>,
    pub(crate) first_time: Option<f64>,
    pub(crate) last_time: Option<f64>,
    pub(crate) config_bytes: u64,
    /// The files that it names.
    pub(crate) files: u64,
    pub(crate) file_bytes: u64,
    pub(crate) files_missing: Vec<String>,
    /// Versions of artifacts that it records, that the run used, and that it was to link somewhere.
    pub(crate) artifacts: u64,
    pub(crate) artifacts_used: u64,
    pub(crate) artifacts_linked: u64,
    pub(crate) exit_code: Option<i32>,
    /// Whether it bears the mark of a log that is on a server.
    pub(crate) synced: bool,
    pub(crate) uploads: Vec<UploadSeen>,
    /// Where bytes are no record.
    pub(crate) damage: Vec<String>,
    pub(super) limits: Limits,
    pub(crate) skipped: Vec<Skipped>,
    #[serde(skip)]
    pub(crate) skips: Skips,
    /// Where it is sent, instead of where it says.
    #[serde(skip)]
    pub(crate) chosen: Overrides,
    #[serde(skip)]
    pub(crate) outlook: Outlook,
}

/// A key of a log's history.
#[derive(Debug, Serialize)]
pub(super) struct KeySeen {
    pub(crate) key: String,
    pub(crate) points: u64,
    pub(crate) nan: u64,
    /// Bytes of its texts.
    pub(crate) bytes: u64,
    #[serde(skip)]
    longest: u64,
}

/// What a server acknowledged.
#[derive(Debug, Serialize)]
pub(crate) struct UploadSeen {
    pub(crate) run_path: String,
    pub(crate) rows: u64,
    pub(crate) files: u64,
    pub(crate) artifacts: u64,
    pub(crate) exit_code: Option<i32>,
}

/// Reads a log.
pub(crate) fn look_at_log(log: &Path, state: &StateHome, links: Links) -> LogSeen {
    let directory = log.parent().unwrap_or(Path::new("."));
    let place = state.of_log(log);
    let mut reading = Reading::default();
    let mut skips = Skips::default();
    let unreadable = |skips: &mut Skips, why: String| skips.add(SkippedReason::Unreadable, 1, || why);
    let (counts_to, chosen) = counted(&place).unwrap_or_else(|why| {
        unreadable(&mut skips, why);
        (Some(LogPosition(0)), Overrides::default())
    });
    let length = std::fs::metadata(log).map(|metadata| metadata.len()).unwrap_or_default();
    if let Some(position) = counts_to.filter(|position| position.0 > length) {
        unreadable(&mut skips, format!("`{}` has {length} bytes of the {} that count", log.display(), position.0));
    }
    let outlook = match Outlook::read(log, (&directory.join("files"), links), counts_to, |entry| reading.entry(entry)) {
        Ok(outlook) => outlook,
        Err(error) => {
            unreadable(&mut skips, format!("`{}`: {error}", log.display()));
            Outlook::default()
        }
    };
    skips.merge(&outlook.skips);
    skips.merge(&outlook.missing());
    if let Some(at) = outlook.incomplete {
        skips.add(SkippedReason::IncompleteTail, 1, || format!("at byte {}", at.0));
    }
    reading.seen(Found { log: log.to_owned(), place, length, counts_to, chosen, outlook, skips })
}

/// Up to where a log of ours counts, and where it is sent instead of where it says; `None` for one that is not ours.
fn counted(place: &StatePlace) -> Result<(Option<LogPosition>, Overrides), String> {
    match Checkpoint::load(place) {
        Ok(Some(checkpoint)) => Ok((Some(checkpoint.position), chosen_target(&checkpoint))),
        // Its recording was cut short before anything of it counted.
        Ok(None) => Ok((Checkpoint::is_ours(place).then_some(LogPosition(0)), Overrides::default())),
        Err(error) => Err(error.to_string()),
    }
}

/// What is known of a log beside its records.
struct Found {
    log: PathBuf,
    place: StatePlace,
    length: u64,
    counts_to: Option<LogPosition>,
    chosen: Overrides,
    outlook: Outlook,
    skips: Skips,
}

/// What its records hold.
#[derive(Default)]
struct Reading {
    records: BTreeMap<&'static str, u64>,
    keys: Vec<KeySeen>,
    by_key: BTreeMap<String, usize>,
    /// The place of the key that stood at each place of the row before: rows are mostly alike.
    places: Vec<usize>,
    steps: Option<(i64, i64)>,
    times: Option<(f64, f64)>,
    limits: Limits,
}

impl Reading {
    fn entry(&mut self, entry: &Entry<'_>) {
        let kind = match &entry.kind {
            EntryKind::History(row) => {
                self.row(row);
                "history"
            }
            EntryKind::Summary(_) => SUMMARY,
            EntryKind::Record(record) => kind_name(record),
            EntryKind::Unknown(_) => "unknown",
        };
        *self.records.entry(kind).or_default() += 1;
    }

    fn row(&mut self, row: &[u8]) {
        let mut bytes = 0;
        for (place, (key, text)) in row_items(row).enumerate() {
            bytes += (key.len() + text.len()) as u64;
            match key {
                "_step" => widen(&mut self.steps, text.parse().ok()),
                "_timestamp" => widen(&mut self.times, text.parse().ok()),
                _ => {}
            }
            let index = self.index(place, key);
            if let Some(seen) = self.keys.get_mut(index) {
                seen.points += 1;
                seen.nan += u64::from(text == "NaN");
                seen.bytes += text.len() as u64;
                seen.longest = seen.longest.max(text.len() as u64);
            }
        }
        self.limits.check(Limit::RowBytes, bytes, || {
            let step = self.steps.map(|(_, last)| last).unwrap_or_default();
            format!("the row of `_step` {step}")
        });
    }

    fn index(&mut self, place: usize, key: &str) -> usize {
        if let Some(index) = self.places.get(place)
            && self.keys.get(*index).is_some_and(|seen| seen.key == key)
        {
            return *index;
        }
        let index = self.by_key.get(key).copied().unwrap_or_else(|| {
            self.by_key.insert(key.to_owned(), self.keys.len());
            self.keys.push(KeySeen { key: key.to_owned(), points: 0, nan: 0, bytes: 0, longest: 0 });
            self.keys.len() - 1
        });
        match self.places.get_mut(place) {
            Some(known) => *known = index,
            // A row of a million keys is not remembered.
            None if place < 1000 => self.places.push(index),
            None => {}
        }
        index
    }

    fn seen(mut self, found: Found) -> LogSeen {
        let Found { log, place, length, counts_to, chosen, outlook, skips } = found;
        // Every row has these.
        self.keys.retain(|seen| !matches!(seen.key.as_str(), "_step" | "_timestamp" | "_runtime"));
        self.keys.sort_by(|a, b| a.key.cmp(&b.key));
        for seen in &self.keys {
            self.limits.check(Limit::ScalarPoints, seen.points, || format!("`{}`", seen.key));
            self.limits.check(Limit::ValueBytes, seen.longest, || format!("`{}`", seen.key));
        }
        let named = || format!("run `{}`", outlook.run_id);
        self.limits.check(Limit::Metrics, self.keys.len() as u64, named);
        self.limits.check(Limit::ConfigBytes, outlook.config_bytes, named);
        let count_of = |kind| self.records.get(kind).copied().unwrap_or_default();
        let missing = outlook.files.iter().filter(|file| file.size.is_none()).map(|file| file.path.clone());
        LogSeen {
            seen_as: SeenAs {
                source: log.display().to_string(),
                run_id: match outlook.run_id.as_str() {
                    "" => id_of(&log).map(|id| id.to_string()).unwrap_or_default(),
                    id => id.to_owned(),
                },
                name: outlook.name.clone(),
                group: outlook.group.clone(),
                entity: chosen.entity.clone().unwrap_or_else(|| outlook.entity.clone()),
                project: chosen.project.clone().unwrap_or_else(|| outlook.project.clone()),
            },
            bytes: length,
            ours: counts_to.is_some(),
            counts_to: counts_to.map(|position| position.0),
            artifacts: outlook.artifacts.len() as u64,
            artifacts_used: count_of(USED),
            artifacts_linked: count_of(LINKED),
            records: self.records,
            rows: outlook.rows,
            keys: self.keys,
            first_step: self.steps.map(|(first, _)| first),
            last_step: self.steps.map(|(_, last)| last),
            first_time: self.times.map(|(first, _)| first),
            last_time: self.times.map(|(_, last)| last),
            config_bytes: outlook.config_bytes,
            files: outlook.files.len() as u64,
            file_bytes: outlook.files.iter().filter_map(|file| file.size).sum(),
            files_missing: missing.collect(),
            exit_code: outlook.exit,
            synced: is_synced(&log),
            uploads: all_acknowledged(&place).into_iter().map(|known| UploadSeen::new(known, Some(&outlook))).collect(),
            limits: self.limits,
            skipped: skips.report(),
            chosen,
            damage: outlook.damage.clone(),
            skips,
            outlook,
        }
    }
}

impl UploadSeen {
    /// Where there is no log any more, nothing is known of files that are uploaded once.
    pub(super) fn new(acknowledged: Acknowledged, outlook: Option<&Outlook>) -> Self {
        let files = outlook.map(|outlook| outlook.files.as_slice()).unwrap_or_default();
        let once = files.iter().filter(|file| file.once && acknowledged.has(file)).count();
        Self {
            run_path: acknowledged.run_path,
            rows: acknowledged.rows,
            files: (acknowledged.files.len() + once) as u64,
            artifacts: acknowledged.artifacts.len() as u64,
            exit_code: acknowledged.finished,
        }
    }
}

fn widen<T: PartialOrd + Copy>(range: &mut Option<(T, T)>, value: Option<T>) {
    let Some(value) = value else { return };
    let (first, last) = range.get_or_insert((value, value));
    if value < *first {
        *first = value;
    }
    if value > *last {
        *last = value;
    }
}

const SUMMARY: &str = "summary";
const USED: &str = "use of an artifact";
const LINKED: &str = "link of an artifact";

/// What people call a kind of record.
fn kind_name(record: &RecordType) -> &'static str {
    match record {
        RecordType::History(_) => "history",
        RecordType::Summary(_) => SUMMARY,
        RecordType::Output(_) | RecordType::OutputRaw(_) | RecordType::OutputLogger(_) => "console",
        RecordType::Config(_) => "config",
        RecordType::Files(_) => "files",
        RecordType::Stats(_) => "stats",
        RecordType::Artifact(_) => "artifact",
        RecordType::UseArtifact(_) => USED,
        RecordType::NoopLinkArtifact(_) => LINKED,
        RecordType::Tbrecord(_) => "tensorboard",
        RecordType::Alert(_) => "alert",
        RecordType::Telemetry(_) => "telemetry",
        RecordType::Metric(_) => "metric",
        RecordType::Run(_) => "run",
        RecordType::Exit(_) => "exit",
        RecordType::Final(_) | RecordType::Footer(_) | RecordType::Header(_) => "envelope",
        RecordType::Preempting(_) => "preempting",
        RecordType::Environment(_) => "environment",
    }
}
