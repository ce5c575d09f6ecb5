//! Logs like another client's, made here: for what takes too many of them, or damaged ones.

use std::fs;
use std::path::{Path, PathBuf};

use wandb_bridge::proto::wandb_internal as proto;
use wandb_bridge::proto::wandb_internal::record::RecordType;
use wandb_bridge::wandb_format::LogWriter;

/// Seconds since the Unix epoch at which the runs began.
const START: i64 = 1_790_000_000;

/// The directory of a run in a `wandb` folder, with its `files/`, and its log, which is not there yet.
pub(super) fn run_directory(folder: &Path, number: usize, id: &str) -> PathBuf {
    let directory =
        folder.join(format!("offline-run-20260101_{:02}{:02}{:02}-{id}", number / 3600, number / 60 % 60, number % 60));
    fs::create_dir_all(directory.join("files")).unwrap();
    directory.join(format!("run-{id}.wandb"))
}

pub(super) fn run_record(project: &str, id: &str) -> RecordType {
    RecordType::Run(proto::RunRecord {
        run_id: id.to_owned(),
        project: project.to_owned(),
        display_name: id.to_owned(),
        start_time: Some(proto::Timestamp { seconds: START, nanos: 0 }),
        ..proto::RunRecord::default()
    })
}

/// A row with a text of that many characters.
pub(super) fn row(step: u64, size: usize) -> RecordType {
    let item = |key: &str, value: String| proto::HistoryItem {
        nested_key: vec![key.to_owned()],
        value_json: value,
        ..proto::HistoryItem::default()
    };
    let item = vec![item("_step", step.to_string()), item("text", format!("\"{}\"", "x".repeat(size)))];
    RecordType::History(proto::HistoryRecord { item, ..proto::HistoryRecord::default() })
}

pub(super) fn printed(text: &str) -> RecordType {
    RecordType::OutputRaw(proto::OutputRawRecord {
        output_type: proto::output_raw_record::OutputType::Stdout as i32,
        timestamp: Some(proto::Timestamp { seconds: START, nanos: 0 }),
        line: text.to_owned(),
    })
}

pub(super) fn exit(exit_code: i32) -> RecordType {
    RecordType::Exit(proto::RunExitRecord { exit_code, ..proto::RunExitRecord::default() })
}

pub(super) fn write(log: &Path, records: impl IntoIterator<Item = RecordType>) {
    let mut writer = LogWriter::create(log).unwrap();
    records.into_iter().for_each(|record| writer.append(record).unwrap());
    writer.flush().unwrap();
}
