//! Turns what happens to a run into records, in the form that the official client writes.
//!
//! Promises that a row is encoded without allocating, that no value is changed or dropped, and that every record has
//! exactly one record type. Knows no file, no clock and no order of updates: that is the caller's part.

use prost::Message;

use crate::model::{
    ArtifactFile, ArtifactInfo, Exit, FileCategory, Json, MetricDefinition, MetricSummary, Number, Row, RunInfo,
    RunUpdate, SummaryItem,
};
use crate::proto::wandb_internal as proto;
use crate::proto::wandb_internal::Record;
use crate::proto::wandb_internal::record::RecordType;
use crate::wandb_format::wire::{put_bytes, put_varint, varint_length};

/// The oldest server that understands our logs; what the official client states in its own.
const MIN_CONSUMER: &str = "0.70.0";

/// The one way in which servers keep the files of artifacts.
const STORAGE_POLICY: &str = "wandb-storage-policy-v1";

/// Encodes updates; keeps its buffers from one to the next.
#[derive(Debug, Default)]
pub struct RecordEncoder {
    history: Vec<u8>,
    value: Vec<u8>,
}

impl RecordEncoder {
    /// Replaces `body` by the update's record without its number, for
    /// [`LogWriter::append_encoded`](crate::wandb_format::LogWriter::append_encoded).
    pub fn encode(&mut self, update: &RunUpdate, body: &mut Vec<u8>) {
        body.clear();
        let record = match update {
            RunUpdate::Row(row) => return self.row(row, body),
            RunUpdate::Run(run) => run_record(run),
            RunUpdate::Config(values) => config_record(values),
            RunUpdate::Files(files) => files_record(files),
            RunUpdate::Artifact(artifact) => artifact_record(artifact),
            RunUpdate::Metric(metric) => metric_record(metric),
            RunUpdate::Summary(items) => summary_record(items),
            RunUpdate::Preempting => RecordType::Preempting(proto::RunPreemptingRecord {}),
            RunUpdate::Exit(exit) => exit_record(*exit),
        };
        body.extend_from_slice(&Record { record_type: Some(record), ..Record::default() }.encode_to_vec());
    }

    fn row(&mut self, row: &Row, body: &mut Vec<u8>) {
        debug_assert!(row.values.iter().all(|(key, _)| *key != row.axis), "a row holds its axis once");
        self.history.clear();
        self.number("_step", Number::U64(row.index));
        self.number("_timestamp", Number::F64(row.timestamp));
        self.number("_runtime", Number::F64(row.runtime));
        self.number(&row.axis, Number::I64(row.axis_value));
        for (key, value) in &row.values {
            self.value.clear();
            value.write_json(&mut self.value);
            self.item(key);
        }
        // HistoryStep { num = 1 }, field 2.
        self.value.clear();
        if row.index != 0 {
            self.value.push(0x08);
            put_varint(row.index, &mut self.value);
        }
        put_bytes(2, &self.value, &mut self.history);
        put_bytes(2, &self.history, body);
    }

    fn number(&mut self, key: &str, number: Number) {
        self.value.clear();
        number.write_json(&mut self.value);
        self.item(key);
    }

    /// HistoryItem { nested_key = 2: [key], value_json = 16: the value }, field 1.
    fn item(&mut self, key: &str) {
        let (key, value) = (key.as_bytes(), self.value.as_slice());
        let length =
            1 + varint_length(key.len() as u64) + key.len() + 2 + varint_length(value.len() as u64) + value.len();
        self.history.push(0x0A);
        put_varint(length as u64, &mut self.history);
        put_bytes(2, key, &mut self.history);
        self.history.extend_from_slice(&[0x82, 0x01]);
        put_varint(value.len() as u64, &mut self.history);
        self.history.extend_from_slice(value);
    }
}

/// The record that opens a log: who wrote it.
pub fn header_record() -> RecordType {
    let version = proto::VersionInfo { producer: tool(), min_consumer: MIN_CONSUMER.to_owned() };
    RecordType::Header(proto::HeaderRecord { version_info: Some(version) })
}

/// The record without which a server does not count a run as started, so that it could never be resumed.
///
/// Says only what is true of every run of ours: it comes from TensorBoard event files that were not read by the training
/// process (feature 49, `sync_tfevents`). There is no Python, and the versions are those of the official client.
pub fn telemetry_record() -> RecordType {
    const SYNC_TFEVENTS: u64 = 49;
    let mut feature = Vec::new();
    put_varint(SYNC_TFEVENTS << 3, &mut feature);
    feature.push(1);
    RecordType::Telemetry(proto::TelemetryRecord { feature: feature.into(), ..proto::TelemetryRecord::default() })
}

/// The metadata of a run: its host and start as the event files state them, this program and its version, nothing else.
pub fn environment_record(host: &str, started_at: f64) -> RecordType {
    RecordType::Environment(proto::EnvironmentRecord {
        host: host.to_owned(),
        started_at: Some(timestamp(started_at)),
        program: tool(),
        ..proto::EnvironmentRecord::default()
    })
}

/// A record of files of the run, by their paths below `files/`: to be uploaded at once, and again when they grow.
pub fn files_record<S: AsRef<str>>(files: &[(S, FileCategory)]) -> RecordType {
    let file = |(path, category): &(S, FileCategory)| proto::FilesItem {
        path: path.as_ref().to_owned(),
        policy: match category {
            FileCategory::Media | FileCategory::Other => proto::files_item::PolicyType::Now,
            FileCategory::Growing => proto::files_item::PolicyType::Live,
        }
        .into(),
        r#type: match category {
            FileCategory::Media => proto::files_item::FileType::Media,
            FileCategory::Other | FileCategory::Growing => proto::files_item::FileType::Other,
        }
        .into(),
    };
    RecordType::Files(proto::FilesRecord { files: files.iter().map(file).collect() })
}

/// A record of an artifact, as the official client writes one that is whole: to be committed, as the latest of its name.
fn artifact_record(artifact: &ArtifactInfo) -> RecordType {
    let entry = |file: &ArtifactFile| proto::ArtifactManifestEntry {
        path: file.path.clone(),
        digest: file.digest.clone(),
        size: i64::try_from(file.size).unwrap_or(i64::MAX),
        // Never sent: it only says where to read.
        local_path: file.local.to_string_lossy().into_owned(),
        ..proto::ArtifactManifestEntry::default()
    };
    let layout = proto::StoragePolicyConfigItem { key: "storageLayout".to_owned(), value_json: "\"V2\"".to_owned() };
    RecordType::Artifact(proto::ArtifactRecord {
        run_id: artifact.run_id.to_string(),
        entity: artifact.entity.clone(),
        project: artifact.project.clone(),
        r#type: artifact.kind.clone(),
        name: artifact.name.clone(),
        digest: artifact.digest.clone(),
        aliases: vec!["latest".to_owned()],
        manifest: Some(proto::ArtifactManifest {
            version: 1,
            storage_policy: STORAGE_POLICY.to_owned(),
            storage_policy_config: vec![layout],
            contents: artifact.files.iter().map(entry).collect(),
            ..proto::ArtifactManifest::default()
        }),
        finalize: true,
        client_id: artifact.client_id.clone(),
        sequence_client_id: artifact.sequence_client_id.clone(),
        ..proto::ArtifactRecord::default()
    })
}

fn tool() -> String {
    concat!("wandb-bridge ", env!("CARGO_PKG_VERSION")).to_owned()
}

fn run_record(run: &RunInfo) -> RecordType {
    RecordType::Run(proto::RunRecord {
        run_id: run.id.to_string(),
        entity: run.entity.clone(),
        project: run.project.clone(),
        display_name: run.name.clone(),
        run_group: run.group.clone(),
        job_type: run.job_type.clone(),
        notes: run.notes.clone(),
        tags: run.tags.clone(),
        host: run.host.0.clone(),
        start_time: Some(timestamp(run.start_time)),
        ..proto::RunRecord::default()
    })
}

fn config_record(values: &[(Vec<String>, Json)]) -> RecordType {
    let item = |(path, value): &(Vec<String>, Json)| proto::ConfigItem {
        nested_key: path.clone(),
        value_json: value.to_string(),
        ..proto::ConfigItem::default()
    };
    RecordType::Config(proto::ConfigRecord { update: values.iter().map(item).collect(), remove: Vec::new() })
}

/// `step_sync` stays unset: our rows carry their axis, and nobody is to insert a value that is not in the files.
fn metric_record(metric: &MetricDefinition) -> RecordType {
    RecordType::Metric(proto::MetricRecord {
        name: metric.name.to_string(),
        step_metric: metric.step_metric.as_deref().unwrap_or_default().to_owned(),
        options: Some(proto::MetricOptions { defined: true, ..proto::MetricOptions::default() }),
        summary: metric.summary.map(|MetricSummary { min, max, mean, last, first, none }| proto::MetricSummary {
            min,
            max,
            mean,
            last,
            first,
            none,
            ..proto::MetricSummary::default()
        }),
        control: metric.anew.then_some(proto::MetricControl { overwrite: true }),
        ..proto::MetricRecord::default()
    })
}

fn summary_record(items: &[SummaryItem]) -> RecordType {
    let item = |item: &SummaryItem| proto::SummaryItem {
        nested_key: item.path.clone(),
        value_json: item.value.to_string(),
        ..proto::SummaryItem::default()
    };
    RecordType::Summary(proto::SummaryRecord { update: items.iter().map(item).collect(), remove: Vec::new() })
}

fn exit_record(exit: Exit) -> RecordType {
    RecordType::Exit(proto::RunExitRecord { exit_code: exit.code, runtime: exit.runtime, not_complete: false })
}

/// To the microsecond: what a double of this size still tells apart.
fn timestamp(seconds: f64) -> proto::Timestamp {
    // Saturates for what no clock ever said; NaN becomes 0.
    let micros = (seconds * 1e6).round() as i64;
    proto::Timestamp { seconds: micros.div_euclid(1_000_000), nanos: (micros.rem_euclid(1_000_000) * 1000) as i32 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::model::{Host, RunId};

    fn encode(update: &RunUpdate) -> Vec<u8> {
        let mut body = b"what was there before".to_vec();
        RecordEncoder::default().encode(update, &mut body);
        body
    }

    fn row(index: u64, values: Vec<(&str, Number)>) -> Row {
        Row {
            index,
            timestamp: 1_700_000_000.25,
            runtime: 0.5,
            axis: "global_step".into(),
            axis_value: -7,
            values: values.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        }
    }

    #[test]
    fn a_row_is_the_record_that_prost_would_write() {
        let long = "k".repeat(300);
        for index in [0, 1, 127, 128, u64::MAX >> 1] {
            let values =
                vec![("loss", Number::F32(0.1)), (long.as_str(), Number::F64(f64::NAN)), ("ä/b.c", Number::I64(3))];
            let body = encode(&RunUpdate::Row(row(index, values)));
            let item = |key: &str, value: &str| proto::HistoryItem {
                nested_key: vec![key.to_owned()],
                value_json: value.to_owned(),
                ..proto::HistoryItem::default()
            };
            let history = proto::HistoryRecord {
                item: vec![
                    item("_step", &index.to_string()),
                    item("_timestamp", "1700000000.25"),
                    item("_runtime", "0.5"),
                    item("global_step", "-7"),
                    item("loss", "0.1"),
                    item(&long, "NaN"),
                    item("ä/b.c", "3"),
                ],
                step: Some(proto::HistoryStep { num: index as i64 }),
            };
            let expected = Record { record_type: Some(RecordType::History(history)), ..Record::default() };
            assert_eq!(body, expected.encode_to_vec());
        }
    }

    #[test]
    fn items_have_the_known_form() {
        let mut encoder = RecordEncoder::default();
        encoder.number("_step", Number::U64(0));
        encoder.number("loss", Number::F32(0.5));
        let hex: String = encoder.history.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0a0b12055f73746570820101300a0c12046c6f7373820103302e35");
    }

    #[test]
    fn the_other_updates_become_their_records() {
        let decode = |update: RunUpdate| Record::decode(encode(&update).as_slice()).unwrap().record_type.unwrap();
        let run = RunInfo {
            id: RunId::new("abc").unwrap(),
            entity: "e".into(),
            project: "p".into(),
            name: "n".into(),
            group: "g".into(),
            job_type: "j".into(),
            notes: "t".into(),
            tags: vec!["x".into(), "y".into()],
            start_time: -0.25,
            host: Host("h".into()),
        };
        let RecordType::Run(run) = decode(RunUpdate::Run(Box::new(run))) else { unreachable!() };
        assert_eq!((run.run_id.as_str(), run.display_name.as_str(), run.run_group.as_str()), ("abc", "n", "g"));
        assert_eq!(run.start_time, Some(proto::Timestamp { seconds: -1, nanos: 750_000_000 }));

        let metric = MetricDefinition {
            name: "loss".into(),
            step_metric: Some("global_step".into()),
            summary: None,
            anew: false,
        };
        let RecordType::Metric(plain) = decode(RunUpdate::Metric(metric.clone())) else { unreachable!() };
        assert_eq!(plain.step_metric, "global_step");
        assert_eq!(plain.options, Some(proto::MetricOptions { defined: true, ..Default::default() }));
        assert_eq!((plain.summary, plain.control), (None, None));
        let summary = MetricSummary { min: true, first: true, ..MetricSummary::default() };
        let metric = MetricDefinition { summary: Some(summary), anew: true, ..metric };
        let RecordType::Metric(anew) = decode(RunUpdate::Metric(metric)) else { unreachable!() };
        assert_eq!(anew.summary, Some(proto::MetricSummary { min: true, first: true, ..Default::default() }));
        assert_eq!(anew.control, Some(proto::MetricControl { overwrite: true }));

        let values = vec![(vec!["a".to_owned(), "b".to_owned()], Json::from("c"))];
        let RecordType::Config(config) = decode(RunUpdate::Config(values)) else { unreachable!() };
        assert_eq!((config.update[0].nested_key.len(), config.update[0].value_json.as_str()), (2, "\"c\""));

        let exit = decode(RunUpdate::Exit(Exit { code: 1, runtime: 2 }));
        assert_eq!(exit, RecordType::Exit(proto::RunExitRecord { exit_code: 1, runtime: 2, not_complete: false }));
        assert_eq!(decode(RunUpdate::Preempting), RecordType::Preempting(proto::RunPreemptingRecord {}));
    }
}
