//! A run as the log tells it so far: what many records add up to. Pure.
//!
//! Folding a log in pieces gives the same as folding it at once. History rows are only counted here; they are lines, and
//! lines are not kept. What changed since something was sent is seen by the revisions.

mod content;
mod run_parameters;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Count, Json, LogPosition, Number, SkippedReason, Skips, json_text};
use crate::proto::wandb_internal::files_item::PolicyType;
use crate::proto::wandb_internal::record::RecordType;
use crate::proto::wandb_internal::{
    FilesItem, OutputRawRecord, OutputRecord, RunRecord, StatsRecord, Timestamp, output_raw_record, output_record,
};
use crate::upload::console::{Console, Printed, Stream};
use crate::upload::damage::Damage;
pub(crate) use crate::upload::fold::content::Inherited;
pub(crate) use crate::upload::fold::run_parameters::RunParameters;
use crate::wandb_format::{Environment, Metrics, Telemetry, apply_config, apply_summary};

/// What a log says of its run, up to a position.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Fold {
    /// The end of the last entry that is in it. Behind an exit only where `passed_exit` says so.
    pub(crate) position: LogPosition,
    /// How many history lines there were.
    pub(crate) history_lines: u64,
    /// How many lines of system metrics there were.
    pub(crate) events_lines: u64,
    /// How many alerts there were.
    #[serde(default)]
    pub(crate) alerts: u64,
    /// What was printed.
    #[serde(default)]
    pub(crate) console: Console,
    /// What describes the run; none before the first run record.
    pub(crate) run: Option<RunParameters>,
    #[serde(with = "json_text")]
    config: Json,
    #[serde(with = "json_text")]
    summary: Json,
    /// The `_step` of the latest row.
    implied_step: Option<i64>,
    /// What the run had before a log that continues it.
    #[serde(default)]
    inherited: Inherited,
    telemetry: Telemetry,
    metrics: Metrics,
    environment: Environment,
    /// The files that the run wants to keep, by their path below its `files/`, and when they are to be uploaded. Those that
    /// are [uploaded once](is_uploaded_once) are not among them: of those there may be very many.
    pub(crate) files: BTreeMap<String, Policy>,
    /// Files that are uploaded once, named since whoever builds requests took them. That the log up to `position` was
    /// acknowledged says that these were uploaded, so nothing of them needs to be kept.
    #[serde(skip)]
    pub(crate) fresh: Vec<String>,
    /// Where in the log artifacts are recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) artifacts: Vec<LogPosition>,
    /// How often each of these changed.
    pub(crate) revisions: Revisions,
    skips: Vec<(SkippedReason, Count)>,
    /// What is no record.
    #[serde(default)]
    pub(crate) damage: Damage,
    /// How the run ended, if the log ends so. Not kept: it is found again behind `position`.
    #[serde(skip)]
    pub(crate) exit: Option<Exit>,
    /// The exit that lies before `position`, because records of the run came behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) passed_exit: Option<Exit>,
}

/// Counts of changes: what was sent can be compared with what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Revisions {
    /// Config, telemetry, metrics, environment.
    pub(crate) config: u64,
    /// What describes the run.
    pub(crate) parameters: u64,
    /// The summary.
    pub(crate) summary: u64,
}

/// When a file is to be uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Policy {
    /// As soon as it is named.
    Now,
    /// As soon as it is named, and again as it changes.
    Live,
    /// When the run ends.
    End,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// 0 is finished, anything else failed.
    pub(crate) code: i32,
    /// The run is to be left as running.
    pub(crate) not_complete: bool,
}

/// What a record did, for whoever builds requests.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// Nothing beyond the fold.
    Nothing,
    /// A line of system metrics is in the buffer.
    Event,
    /// Somebody is to be told something.
    Alert,
    /// The process will be stopped and go on later.
    Preempting,
    /// An artifact is recorded, at the place of the record.
    Artifact,
    /// It is not carried.
    Skipped(SkippedReason, u64, &'static str),
}

impl Fold {
    /// Folds one record. A line of system metrics is left in `line`.
    pub(crate) fn apply(&mut self, record: &RecordType, line: &mut Vec<u8>) -> Change {
        match record {
            RecordType::Run(run) => {
                return bad_values(self.apply_run(run), "a config value that is not JSON");
            }
            RecordType::Config(config) => {
                self.revisions.config += 1;
                return bad_values(apply_config(&mut self.config, config), "a config value that is not JSON");
            }
            RecordType::Telemetry(telemetry) => {
                self.telemetry.add(telemetry);
                self.revisions.config += 1;
            }
            RecordType::Metric(metric) => {
                self.metrics.add(metric);
                self.revisions.config += 1;
            }
            RecordType::Environment(environment) => {
                self.environment.add(environment);
                self.revisions.config += 1;
            }
            RecordType::Files(files) => files.files.iter().for_each(|file| self.add_file(file)),
            RecordType::Stats(stats) => {
                self.set_time(stats.timestamp.as_ref());
                return self.stats_line(stats, line);
            }
            RecordType::Exit(exit) => {
                // A second exit says nothing new.
                self.exit.get_or_insert(Exit { code: exit.exit_code, not_complete: exit.not_complete });
            }
            RecordType::Preempting(_) => return Change::Preempting,
            RecordType::Alert(_) => {
                self.alerts += 1;
                return Change::Alert;
            }
            RecordType::Artifact(_) => return Change::Artifact,
            RecordType::Tbrecord(_) => return not_carried("tensorboard directories named in a log"),
            // What was printed is for `print`; with the others the official client does nothing either.
            RecordType::Output(_)
            | RecordType::OutputRaw(_)
            | RecordType::OutputLogger(_)
            | RecordType::Header(_)
            | RecordType::Footer(_)
            | RecordType::Final(_)
            | RecordType::UseArtifact(_)
            | RecordType::NoopLinkArtifact(_)
            // Readers give these by their bytes.
            | RecordType::History(_)
            | RecordType::Summary(_) => {}
        }
        Change::Nothing
    }

    /// Folds what changed in the summary. Returns how many values could not be read.
    pub(crate) fn apply_summary(&mut self, record: &[u8]) -> u64 {
        self.revisions.summary += 1;
        apply_summary(&mut self.summary, record)
    }

    /// Folds what was printed, if a record says so.
    pub(crate) fn print(&mut self, record: &RecordType, printed: &mut Printed) {
        match record {
            RecordType::OutputRaw(OutputRawRecord { output_type, timestamp, line, .. }) => {
                self.set_time(timestamp.as_ref());
                let error = *output_type == output_raw_record::OutputType::Stderr as i32;
                self.console.print(if error { Stream::Error } else { Stream::Output }, line, printed);
            }
            // The official core passes these over, and loses the console of runs whose client did the terminal's work.
            RecordType::Output(OutputRecord { output_type, timestamp, line, .. }) => {
                self.set_time(timestamp.as_ref());
                let error = *output_type == output_record::OutputType::Stderr as i32;
                self.console.print(if error { Stream::Error } else { Stream::Output }, line, printed);
            }
            RecordType::OutputLogger(logger) => self.console.add_lines(&logger.line, printed),
            _ => {}
        }
    }

    /// Goes on at the beginning of another log of the same run.
    pub(crate) fn begin_next_log(&mut self) {
        self.position = LogPosition(0);
        (self.exit, self.passed_exit) = (None, None);
    }

    /// The same run before anything of its log was read.
    pub(crate) fn at_the_beginning(&self) -> Self {
        let mut fold = Self::default();
        if self.inherited != Inherited::default() {
            fold.inherit(self.inherited.clone());
        }
        fold
    }

    /// Counts what is not carried.
    pub(crate) fn skip(&mut self, reason: SkippedReason, more: u64, first: impl FnOnce() -> String) {
        match self.skips.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => count.count += more,
            None => self.skips.push((reason, Count { count: more, first: first() })),
        }
    }

    /// All that was not carried.
    pub(crate) fn skips(&self) -> Skips {
        let damaged = self.damage.report().map(|count| (SkippedReason::DamagedRecord, count));
        self.skips.iter().cloned().chain(damaged).collect()
    }

    /// The `_step` of the latest row.
    pub(crate) fn implied_step(&self) -> Option<i64> {
        self.implied_step
    }

    /// Notes the `_step` of the latest row: that is what the summary says, whatever the summary records say. In logs of the
    /// official client they come before the row, which may be missing.
    pub(crate) fn imply_step(&mut self, step: i64) {
        if self.implied_step.replace(step) != Some(step) {
            self.revisions.summary += 1;
        }
    }

    /// Whether there are files that are uploaded again as they change.
    pub(crate) fn has_live_files(&self) -> bool {
        self.files.values().any(|policy| *policy == Policy::Live)
    }

    /// Returns how many config values could not be read.
    fn apply_run(&mut self, record: &RunRecord) -> u64 {
        let mut bad = 0;
        if self.run.is_none() {
            // Only the first one carries a config that counts.
            if let Some(config) = &record.config {
                bad = apply_config(&mut self.config, config);
            }
            if let Some(telemetry) = &record.telemetry {
                self.telemetry.add(telemetry);
            }
            self.revisions.config += 1;
        }
        let run = self.run.get_or_insert_default();
        run.apply(record);
        if let (true, Some(start)) = (self.console.is_empty(), run.start_time) {
            self.console.set_time(start);
        }
        self.revisions.parameters += 1;
        bad
    }

    /// Lines that are printed from now on are of this time, or later.
    fn set_time(&mut self, time: Option<&Timestamp>) {
        if let Some(time) = time {
            self.console.set_time(nanoseconds(time));
        }
    }

    fn add_file(&mut self, file: &FilesItem) {
        let policy = match file.policy() {
            PolicyType::Now => Policy::Now,
            PolicyType::Live => Policy::Live,
            PolicyType::End => Policy::End,
        };
        if is_uploaded_once(&file.path, policy) {
            self.fresh.push(file.path.clone());
        } else {
            self.files.insert(file.path.clone(), policy);
        }
    }

    fn stats_line(&self, stats: &StatsRecord, line: &mut Vec<u8>) -> Change {
        let Some(start) = self.run.as_ref().and_then(|run| run.start_time) else {
            return Change::Skipped(SkippedReason::BadValue, 1, "system metrics of a run without a start time");
        };
        let time = stats.timestamp.unwrap_or_default();
        // Subtracted as integers: a double cannot tell nanoseconds of today apart.
        let runtime = nanoseconds(&time).saturating_sub(start);
        let runtime = (runtime / 1_000_000_000) as f64 + (runtime % 1_000_000_000) as f64 / 1e9;
        let timestamp = time.seconds as f64 + f64::from(time.nanos) / 1e9;
        let mut members = BTreeMap::from([
            ("_wandb".to_owned(), Json::from(true)),
            ("_timestamp".to_owned(), Number::F64(timestamp).into()),
            ("_runtime".to_owned(), Number::F64(runtime).into()),
        ]);
        for item in &stats.item {
            // What is not JSON is left out, as by the official client.
            if let Ok(value) = Json::parse(&item.value_json) {
                members.insert(format!("system.{}", item.key), value);
            }
        }
        line.clear();
        Json::Object(members).write(line);
        Change::Event
    }
}

/// Media have names of their own for every content, so they never change.
pub(crate) fn is_uploaded_once(path: &str, policy: Policy) -> bool {
    policy == Policy::Now && path.starts_with("media/")
}

/// What a record says was printed.
pub(crate) fn printed_text(record: &RecordType) -> Option<&str> {
    match record {
        RecordType::OutputRaw(output) => Some(&output.line),
        RecordType::Output(output) => Some(&output.line),
        RecordType::OutputLogger(output) => Some(&output.line),
        _ => None,
    }
}

fn not_carried(kind: &'static str) -> Change {
    Change::Skipped(SkippedReason::Kind(kind.to_owned()), 1, kind)
}

fn bad_values(count: u64, what: &'static str) -> Change {
    if count == 0 { Change::Nothing } else { Change::Skipped(SkippedReason::BadValue, count, what) }
}

fn nanoseconds(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos))
}
