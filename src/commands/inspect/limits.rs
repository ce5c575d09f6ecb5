//! What W&B asks of a run, and what an upload costs. Pure: counts in, verdicts and estimates out.
//!
//! The limits are those that W&B documents under <https://docs.wandb.ai/models/track/limits> (read in 2026): fewer than
//! 100,000 distinct metrics a run, 100,000 points of a scalar, 50,000 of a medium and 10,000 of a histogram, values below
//! 1 MB and a config below 10 MB. Above them pages become slow; nothing is refused. One is no advice: the server refuses a
//! history line above 10,383,360 bytes, which is what the official client holds to as well.

use serde::Serialize;

use crate::tfevents::ValueKind;

/// What can be too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Limit {
    /// Distinct keys of a run's history.
    Metrics,
    /// Values of one scalar.
    ScalarPoints,
    /// Values of one tag with media.
    MediaPoints,
    /// Values of one tag with histograms.
    HistogramPoints,
    /// Bytes of a value in history.
    ValueBytes,
    /// Bytes of a history line.
    RowBytes,
    /// Bytes of a run's config.
    ConfigBytes,
}

impl Limit {
    /// The limit for the points of a tag of this kind.
    pub(super) fn of_points(kind: &ValueKind) -> Self {
        match kind {
            ValueKind::Scalar | ValueKind::Bad(_) => Self::ScalarPoints,
            ValueKind::Histograms | ValueKind::OldHistograms => Self::HistogramPoints,
            _ => Self::MediaPoints,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Metrics => "distinct metrics of a run",
            Self::ScalarPoints => "points of a scalar",
            Self::MediaPoints => "points of a tag with media",
            Self::HistogramPoints => "points of a tag with histograms",
            Self::ValueBytes => "bytes of a value",
            Self::RowBytes => "bytes of a row",
            Self::ConfigBytes => "bytes of the config",
        }
    }

    /// As much as is still fine.
    pub(super) fn allowed(self) -> u64 {
        match self {
            Self::Metrics | Self::ScalarPoints => 100_000,
            Self::MediaPoints => 50_000,
            Self::HistogramPoints => 10_000,
            Self::ValueBytes => 1_000_000,
            Self::RowBytes => 10_383_360,
            Self::ConfigBytes => 10_000_000,
        }
    }

    /// Whether what is above it is refused and not only slow.
    fn is_refused(self) -> bool {
        self == Self::RowBytes
    }
}

/// A limit that is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Broken {
    /// Of what there is too much.
    pub(super) limit: &'static str,
    /// How much would be fine.
    pub(super) allowed: u64,
    /// The most that there is.
    pub(super) most: u64,
    /// How many break it.
    pub(super) count: u64,
    /// Which one does so first.
    pub(super) first: String,
    /// Whether that is refused, and so lost.
    pub(super) loss: bool,
    #[serde(skip)]
    order: Limit,
}

/// All limits that are broken, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Limits(Vec<Broken>);

impl Limits {
    /// Notes how much there is of something; `what` names it, and is asked only when it is too much and the first.
    pub(super) fn check(&mut self, limit: Limit, most: u64, what: impl FnOnce() -> String) {
        if most > limit.allowed() {
            self.add(limit, most, 1, what);
        }
    }

    /// Adds what was found elsewhere.
    pub(super) fn merge(&mut self, other: &Self) {
        for broken in &other.0 {
            self.add(broken.order, broken.most, broken.count, || broken.first.clone());
        }
    }

    fn add(&mut self, limit: Limit, most: u64, count: u64, what: impl FnOnce() -> String) {
        match self.0.binary_search_by_key(&limit, |broken| broken.order) {
            Ok(index) => {
                if let Some(broken) = self.0.get_mut(index) {
                    broken.most = broken.most.max(most);
                    broken.count += count;
                }
            }
            Err(index) => self.0.insert(
                index,
                Broken {
                    limit: limit.name(),
                    allowed: limit.allowed(),
                    most,
                    count,
                    first: what(),
                    loss: limit.is_refused(),
                    order: limit,
                },
            ),
        }
    }

    /// Each limit that is broken.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Broken> {
        self.0.iter()
    }
}

/// What the runs hold, as far as it decides what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Volume {
    /// History rows.
    pub(super) rows: u64,
    /// Values in rows, without the four of our own that each row has.
    pub(super) cells: u64,
    /// Bytes of the keys of these values.
    pub(super) key_bytes: u64,
    /// Bytes of the texts of these values.
    pub(super) text_bytes: u64,
    /// Bytes of the texts of the rows' steps, and of the keys of their axes.
    pub(super) axis_bytes: u64,
    /// Distinct metrics.
    pub(super) metrics: u64,
    /// Bytes of the keys of the metrics.
    pub(super) metric_bytes: u64,
    /// Bytes of the text of one value of each metric: the summary holds the last.
    pub(super) last_bytes: u64,
    /// Bytes of the config's text.
    pub(super) config_bytes: u64,
    /// Files that rows speak of, or that are kept.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) file_bytes: u64,
}

/// What recording and uploading a run takes.
///
/// Lines, records and requests are counted as they are made: see the constants. Numbers are not all printed; the length
/// of their texts comes from samples. What compression saves on the way is not known beforehand and left out, so the
/// bytes on the wire are fewer: scalars mostly shrink to a quarter. Against real imports of the fixtures, each of the
/// three is within 30 %; a test holds it to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(super) struct Estimate {
    /// Bytes of the log.
    pub(super) log_bytes: u64,
    /// Bytes of log and files together, as long as they are kept.
    pub(super) disk_bytes: u64,
    /// Bytes of lines and files, before compression.
    pub(super) upload_bytes: u64,
    /// Requests, when nothing has to be tried again.
    pub(super) requests: u64,
}

/// `{"_step":0,"_timestamp":1784016000.123456,"_runtime":12.345678,` and the quotes, colon and brace of the axis.
const LINE: u64 = 2 + 8 + 14 + 19 + 11 + 10 + 4;
/// `"":` and the comma around a key and a value.
const LINE_ITEM: u64 = 4;
/// The frame of a record, its number, and the heads of a history record and its step.
const RECORD: u64 = 7 + 4 + 4 + 6;
/// The heads of an item, its key and its value.
const RECORD_ITEM: u64 = 7;
/// Our own four values of a row, without the text of the axis.
const RECORD_ROW: u64 = RECORD + 4 * RECORD_ITEM + 5 + 10 + 8 + 2 + 17 + 17;
/// The definition of a metric with its axis, and the heads of its last value in the summary, each without its key.
const RECORD_METRIC: u64 = 45 + 12;
/// Run, telemetry, environment, the summary's own values, exit.
const LOG: u64 = 550;
/// `wandb-summary.json`, `config.yaml` and `wandb-metadata.json`, without metrics and config.
const GENERATED: u64 = 900;
/// The definition of a metric in the config that is uploaded, and its last value in the summary.
const GENERATED_METRIC: u64 = 60 + 8;
/// Lines of one request; the uploader's limit.
const REQUEST_BYTES: u64 = 10 << 20;
/// Files that are asked for in one request.
const FILES_PER_REQUEST: u64 = 100;
/// Rows between two summary records.
const ROWS_PER_COMMIT: u64 = 100_000;

impl Volume {
    /// What a run of this volume takes.
    pub(super) fn estimate(&self) -> Estimate {
        let lines = self.rows * LINE + self.axis_bytes + self.cells * LINE_ITEM + self.key_bytes + self.text_bytes;
        let summaries = 1 + self.rows / ROWS_PER_COMMIT;
        let log_bytes = LOG
            + self.rows * RECORD_ROW
            + self.axis_bytes
            + self.cells * RECORD_ITEM
            + self.key_bytes
            + self.text_bytes
            + self.metrics * RECORD_METRIC
            + self.metric_bytes * (1 + summaries)
            + self.last_bytes * summaries
            + self.config_bytes
            + self.files * 40;
        let generated =
            GENERATED + self.metrics * GENERATED_METRIC + 2 * self.metric_bytes + self.last_bytes + self.config_bytes;
        let files = self.files + 3;
        // Look, open, and complete; then lines, and places for files, and the files.
        let requests = 3 + lines.div_ceil(REQUEST_BYTES).max(1) + files.div_ceil(FILES_PER_REQUEST) + files;
        Estimate {
            log_bytes,
            disk_bytes: log_bytes + self.file_bytes + generated,
            upload_bytes: lines + self.file_bytes + generated,
            requests,
        }
    }
}

impl Estimate {
    /// Adds another run's.
    pub(super) fn add(&mut self, other: &Self) {
        self.log_bytes += other.log_bytes;
        self.disk_bytes += other.disk_bytes;
        self.upload_bytes += other.upload_bytes;
        self.requests += other.requests;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reported_once_with_its_worst() {
        let mut limits = Limits::default();
        limits.check(Limit::RowBytes, 10_383_360, || unreachable!("exactly as much is fine"));
        limits.check(Limit::ValueBytes, 2_000_000, || "a".to_owned());
        limits.check(Limit::ScalarPoints, 100_001, || "b".to_owned());
        let mut other = Limits::default();
        other.check(Limit::ValueBytes, 3_000_000, || "c".to_owned());
        limits.merge(&other);
        let shown: Vec<String> = limits
            .iter()
            .map(|broken| format!("{} {} {} {}", broken.limit, broken.most, broken.count, broken.first))
            .collect();
        assert_eq!(shown, ["points of a scalar 100001 1 b", "bytes of a value 3000000 2 a"]);
    }

    #[test]
    fn every_kind_has_a_limit() {
        assert_eq!(Limit::of_points(&ValueKind::Scalar).allowed(), 100_000);
        assert_eq!(Limit::of_points(&ValueKind::Images).allowed(), 50_000);
        assert_eq!(Limit::of_points(&ValueKind::Histograms).allowed(), 10_000);
    }

    #[test]
    fn many_files_take_many_requests() {
        let few = Volume { rows: 10, ..Volume::default() }.estimate();
        let many = Volume { rows: 10, files: 250, file_bytes: 1000, ..Volume::default() }.estimate();
        assert_eq!(many.requests - few.requests, 250 + 2);
        assert_eq!(many.upload_bytes - few.upload_bytes, 1000);
    }
}
