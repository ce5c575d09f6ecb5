//! Logs that the official client writes, read and synced by this program: nothing is missing, and the server gets the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use prost::Message as _;
use serde_json::Value;
use wandb_bridge::model::LogPosition;
use wandb_bridge::proto::wandb_internal::record::RecordType;
use wandb_bridge::proto::wandb_internal::{HistoryRecord, Record, SummaryRecord};
use wandb_bridge::wandb_format::{EntryKind, LogReader, LogWriter, Next};

use super::bridge::{Outcome, bridge};
use super::{Runs, assert_same_runs, official_runs, runs_of, with_official_numbers};
use crate::support::compare::Compared;
use crate::support::official::{copy_tree, end_at_exit, logs_below, official_offline_run_with};
use crate::support::python::script;
use crate::support::server::{FakeServer, RunStatus};

/// Runs whose logs hold artifacts, and what is missing of them where the logs were copied to.
const LOSSY: [(&str, &[&str]); 3] = [
    ("artifact", &["artifact that could not be uploaded"]),
    ("offl1", &[]),
    ("table", &["artifact that could not be uploaded"]),
];

/// Records the variants of `record_variants.py` and the run of `record_run.py`, and returns the folder with their run
/// directories.
fn record_all_variants(directory: &Path) -> PathBuf {
    let folder = record_variants(directory, &[]);
    let rich = official_offline_run_with(&directory.join("rich"), &["--table", "--artifact"]);
    let rich = rich.parent().unwrap();
    fs::rename(rich, folder.join(rich.file_name().unwrap())).unwrap();
    folder
}

/// Records some of the variants, or all.
fn record_variants(directory: &Path, names: &[&str]) -> PathBuf {
    script("record_variants.py").arg(directory).args(names).run().ok();
    directory.join("wandb")
}

/// The log of one run.
fn log_of(folder: &Path, id: &str) -> PathBuf {
    let name = format!("run-{id}.wandb");
    logs_below(folder).into_iter().find(|log| log.file_name().unwrap() == name.as_str()).unwrap()
}

/// All records of a log that is whole, each with the place where it begins.
fn records_of(log: &Path) -> Vec<(LogPosition, RecordType)> {
    let mut reader = LogReader::open(log).unwrap();
    let mut records = Vec::new();
    loop {
        match reader.next().unwrap() {
            Next::Entry(entry) => {
                let record = match entry.kind {
                    EntryKind::History(bytes) => RecordType::History(HistoryRecord::decode(bytes).unwrap()),
                    EntryKind::Summary(bytes) => RecordType::Summary(SummaryRecord::decode(bytes).unwrap()),
                    EntryKind::Record(record) => *record,
                    EntryKind::Unknown(field) => panic!("{}: an unknown record: {field}", log.display()),
                };
                records.push((entry.start, record));
            }
            Next::End => return records,
            other => panic!("{}: {other:?}", log.display()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_record_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let folder = record_all_variants(directory.path());
    let logs = logs_below(&folder);
    let answer = script("decode_logs.py").args(&logs).run().ok().stdout;
    let decoded: Vec<Vec<(String, String)>> = serde_json::from_str(&answer).unwrap();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (log, decoded) in logs.iter().zip(&decoded) {
        let records = records_of(log);
        for (index, ((_, record), (kind, expected))) in records.iter().zip(decoded).enumerate() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!(hex(&bytes), *expected, "{}: record {index}, {kind}: {record:?}", log.display());
            *kinds.entry(kind).or_default() += 1;
        }
        assert_eq!(records.len(), decoded.len(), "{}", log.display());
    }
    let expected = [
        "alert",
        "artifact",
        "config",
        "environment",
        "exit",
        "files",
        "header",
        "history",
        "metric",
        "output_logger",
        "output_raw",
        "preempting",
        "run",
        "stats",
        "summary",
        "telemetry",
    ];
    assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), expected);
    assert_eq!((kinds["header"], kinds["exit"]), (logs.len(), logs.len()));
    assert!(kinds["history"] > 350, "{kinds:?}");
}

/// Syncs copies of some logs of a folder with this program.
fn sync(folder: &Path, ids: &BTreeSet<&str>, age: Duration, server: &FakeServer) -> Outcome {
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("wandb");
    copy_tree(folder, &copy);
    let logs: Vec<PathBuf> = ids.iter().map(|id| log_of(&copy, id)).collect();
    for log in &logs {
        File::options().append(true).open(log).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }
    bridge(["sync", "--json"]).args(logs).server(server).run()
}

/// Names what was skipped of each run, as `--json` says it.
fn skipped(outcome: &Outcome) -> BTreeMap<String, Vec<String>> {
    let reasons = |run: &Value| {
        let list = run["skipped"].as_array().unwrap().iter();
        list.map(|skipped| skipped["reason"].as_str().unwrap().to_owned()).collect()
    };
    outcome.run_objects().iter().map(|run| (run["run_id"].as_str().unwrap().to_owned(), reasons(run))).collect()
}

const OLD: Duration = Duration::from_secs(2 * 3600);

#[test]
fn official_logs_arrive_the_same_by_either_client() {
    let directory = tempfile::tempdir().unwrap();
    let folder = record_all_variants(directory.path());
    logs_below(&folder).iter().for_each(|log| end_at_exit(log));
    cut_logs(&folder);

    let mut official = official_runs(&folder, &["torn"]);
    // The official client loses what stands in an object when it sets something else in it.
    let run = official.get_mut("summary_below_an_object").unwrap();
    assert_eq!(run.summary_value().get("mine").unwrap().to_string(), r#"{"a":{"c":2}}"#);
    let mend = |text: &str| text.replacen(r#""c":2"#, r#""b":1,"c":2"#, 1);
    run.summary = run.summary.as_deref().map(mend);
    let file = run.files.get_mut("wandb-summary.json").unwrap();
    file.bytes = Some(mend(&file.text()).into());

    let rows: usize = official.values().map(|run| run.history.len()).sum();
    assert!(rows > 350, "{rows} rows");
    let (lossy, whole): (Runs, Runs) =
        official.into_iter().partition(|(id, _)| LOSSY.iter().any(|(name, _)| name == id));

    // What is carried arrives as by the official client, and nothing is said to be missing.
    let server = FakeServer::start();
    let ids = whole.keys().map(String::as_str).collect();
    let outcome = sync(&folder, &ids, OLD, &server).ends_with(0);
    let ours = runs_of(&server);
    assert_same_runs(&whole, &with_official_numbers(ours), &Compared { console: true, ..Compared::default() });
    for (id, reasons) in skipped(&outcome) {
        assert_eq!(reasons, if id == "torn" { vec!["unfinished last record"] } else { vec![] }, "{id}");
    }
    let swept = &whole["swept"];
    assert_eq!((swept.sweep.as_deref(), swept.group.as_deref()), (Some("sw33p1d"), Some("sweep ü")));
    assert!(swept.commit.as_deref().is_some_and(|commit| commit.starts_with("0123456789")), "{:?}", swept.commit);
    assert!(swept.repo.as_deref().is_some_and(|repo| repo.contains("git.example.com")), "{:?}", swept.repo);
    assert_eq!(whole["alerts"].alerts.len(), 3);
    let media = |run: &str| whole[run].files.keys().filter(|path| path.starts_with("media/")).count();
    assert_eq!(media("more_media"), 15, "{:?}", whole["more_media"].files.keys());
    for (id, code) in [("plain", 0), ("failed", 3), ("without_exit", 1), ("without_last_row", 1), ("torn", 1)] {
        assert_eq!(whole[id].exit_code, Some(code), "{id}");
    }

    // What is not carried is named, and the rest of the run arrives all the same.
    let server = FakeServer::start();
    let ids = lossy.keys().map(String::as_str).collect();
    let outcome = sync(&folder, &ids, OLD, &server).ends_with(3);
    // The copies of the files of artifacts stayed where the logs were made.
    let expected = LOSSY.map(|(id, reasons)| (id.to_owned(), reasons.iter().map(|r| (*r).to_owned()).collect()));
    assert_eq!(skipped(&outcome), BTreeMap::<String, Vec<String>>::from(expected));
    assert!(outcome.stderr.contains("artifact that could not be uploaded"), "{}", outcome.stderr);
    assert_same_runs(&lossy, &runs_of(&server), &Compared { console: true, ..Compared::default() });
}

/// Cuts a log, so many bytes behind the beginning of its last record of a kind.
fn cut(log: &Path, kind: fn(&RecordType) -> bool, bytes: u64) {
    let records = records_of(log);
    let (position, _) = records.iter().rfind(|(_, record)| kind(record)).unwrap();
    File::options().write(true).open(log).unwrap().set_len(position.0 + bytes).unwrap();
}

/// Cuts logs whose writer died: one before its exit, one before its last row, one within that row.
fn cut_logs(folder: &Path) {
    let row = |record: &RecordType| matches!(record, RecordType::History(_));
    cut(&log_of(folder, "without_exit"), |record| matches!(record, RecordType::Exit(_)), 0);
    cut(&log_of(folder, "without_last_row"), row, 0);
    cut(&log_of(folder, "torn"), row, 20);
}

#[test]
fn run_that_may_still_be_going_on_is_left_running() {
    let directory = tempfile::tempdir().unwrap();
    let folder = record_variants(directory.path(), &["without_exit", "without_last_row", "torn"]);
    cut_logs(&folder);
    let server = FakeServer::start();
    sync(&folder, &BTreeSet::from(["without_exit", "without_last_row", "torn"]), Duration::ZERO, &server).ends_with(0);
    let runs = runs_of(&server);
    for (id, rows) in [("without_exit", 5), ("without_last_row", 4), ("torn", 4)] {
        assert_eq!((runs[id].status, runs[id].exit_code), (RunStatus::Running, None), "{id}");
        assert_eq!(runs[id].history.len(), rows, "{id}");
    }
}

#[test]
fn values_that_are_typed_only_are_the_same_values() {
    let directory = tempfile::tempdir().unwrap();
    let folder = record_variants(directory.path(), &["typed"]);
    let log = log_of(&folder, "typed");
    end_at_exit(&log);
    let server = FakeServer::start();
    sync(&folder, &BTreeSet::from(["typed"]), OLD, &server).ends_with(0);
    let with_both = runs_of(&server);

    let records = records_of(&log);
    fs::remove_file(&log).unwrap();
    let mut writer = LogWriter::create(&log).unwrap();
    let mut values = 0;
    for (_, mut record) in records {
        if let RecordType::History(history) = &mut record {
            for item in &mut history.item {
                // What the core itself adds to a row has no typed form.
                if item.value.is_some() {
                    assert!(!item.value_json.is_empty());
                    item.value_json.clear();
                    values += 1;
                }
            }
        }
        let record = Record { record_type: Some(record), ..Record::default() };
        writer.append_encoded(&record.encode_to_vec()).unwrap();
    }
    writer.flush().unwrap();
    assert!(values > 20, "{values}");

    let server = FakeServer::start();
    sync(&folder, &BTreeSet::from(["typed"]), OLD, &server).ends_with(0);
    let typed_only = runs_of(&server);
    assert_same_runs(&official_runs(&folder, &[]), &typed_only, &Compared::default());
    assert_same_runs(&with_both, &typed_only, &Compared::default());
}
