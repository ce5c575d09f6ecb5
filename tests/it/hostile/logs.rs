//! Logs that somebody else made, to do harm: `sync` sends what is whole of them and nothing that is not the run's.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use prost::Message as _;
use wandb_bridge::proto::wandb_internal::record::RecordType;
use wandb_bridge::proto::wandb_internal::{
    ConfigItem, ConfigRecord, FilesItem, FilesRecord, HistoryItem, HistoryRecord, RunExitRecord, RunRecord,
    SummaryItem, SummaryRecord,
};
use wandb_bridge::wandb_format::LogWriter;

use super::{check_peak, checked, skipped};
use crate::support::bridge::{Ended, Place};
use crate::support::server::FakeServer;

/// A run directory of an official client, below `out/wandb/`.
struct Log {
    place: Place,
    directory: PathBuf,
    writer: LogWriter,
}

impl Log {
    fn new() -> Self {
        Self::of(RunRecord { run_id: "id1".into(), project: "p".into(), ..RunRecord::default() })
    }

    fn of(run: RunRecord) -> Self {
        let place = Place::new();
        let directory = place.path("out/wandb/offline-run-20260101_000000-id1");
        fs::create_dir_all(directory.join("files")).unwrap();
        let mut writer = LogWriter::create(&directory.join("run-id1.wandb")).unwrap();
        writer.append(RecordType::Run(run)).unwrap();
        Self { place, directory, writer }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("run-id1.wandb")
    }

    fn with(mut self, records: impl IntoIterator<Item = RecordType>) -> Self {
        records.into_iter().for_each(|record| self.writer.append(record).unwrap());
        self
    }

    fn ended(self) -> Self {
        let mut log = self.with([RecordType::Exit(RunExitRecord::default())]);
        log.writer.flush().unwrap();
        log
    }

    fn sync(&self, server: &FakeServer) -> (Ended, u64) {
        checked(&self.place, self.place.sync(server).args(["--json", "--retries", "0"]))
    }
}

fn row(items: impl IntoIterator<Item = HistoryItem>) -> RecordType {
    RecordType::History(HistoryRecord { item: items.into_iter().collect(), ..HistoryRecord::default() })
}

fn item(key: impl Into<String>, value_json: impl Into<String>) -> HistoryItem {
    HistoryItem { key: key.into(), value_json: value_json.into(), ..HistoryItem::default() }
}

#[test]
fn values_that_are_no_json_or_too_deep_cost_only_themselves() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let deeper = "{\"a\":".repeat(200_000);
    let path: Vec<String> = (0..100_000).map(|level| format!("k{level}")).collect();
    let nested = HistoryItem { nested_key: path.clone(), value_json: "1".into(), ..HistoryItem::default() };
    let config = |item| RecordType::Config(ConfigRecord { update: vec![item], ..ConfigRecord::default() });
    let summary = |item| RecordType::Summary(SummaryRecord { update: vec![item], ..SummaryRecord::default() });
    let log = Log::new()
        .with([
            row([
                item("good", "1"),
                item("bad", "{"),
                item("deep", deep.as_str()),
                item("deeper", deeper.as_str()),
                nested,
            ]),
            row([item("good", "2"), item("", ""), item("\u{1b}[2J\0", "\"\u{1b}[2J\""), item("nan", "NaN")]),
            config(ConfigItem { key: "deep".into(), value_json: deep.clone(), ..ConfigItem::default() }),
            config(ConfigItem { nested_key: path.clone(), value_json: "1".into(), ..ConfigItem::default() }),
            config(ConfigItem { key: "nan".into(), value_json: "NaN".into(), ..ConfigItem::default() }),
            summary(SummaryItem { key: "deep".into(), value_json: deep, ..SummaryItem::default() }),
            summary(SummaryItem { nested_key: path, value_json: "1".into(), ..SummaryItem::default() }),
        ])
        .ended();
    let server = FakeServer::start();
    let (ended, peak) = log.sync(&server);
    check_peak(peak);
    let run = server.run("id1").unwrap();
    assert_eq!(run.column("good").len(), 2);
    let (count, loss) = skipped(&ended, "value that makes no sense");
    assert!(count >= 8 && loss, "{}", ended.stdout);
    let _ = ended.code(3);
}

#[test]
fn no_file_outside_of_the_run_is_sent() {
    let paths = [
        "../../../../home/secret",
        "/etc/passwd",
        "../secret",
        "a/../../x",
        "",
        ".",
        "..",
        "link",
        "system",
        "folder/secret",
        "good.txt",
    ];
    let files = paths.map(|path| FilesItem { path: path.into(), ..FilesItem::default() });
    let log = Log::new().with([RecordType::Files(FilesRecord { files: files.into() })]).ended();
    fs::create_dir(log.place.path("home/.ssh")).unwrap();
    fs::write(log.place.path("home/.ssh/secret"), "the secret").unwrap();
    fs::write(log.place.path("home/secret"), "the secret").unwrap();
    fs::write(log.directory.join("secret"), "beside").unwrap();
    fs::write(log.directory.join("files/good.txt"), "good").unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(log.place.path("home/.ssh/secret"), log.directory.join("files/link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", log.directory.join("files/system")).unwrap();
        std::os::unix::fs::symlink(log.place.path("home"), log.directory.join("files/folder")).unwrap();
    }
    let server = FakeServer::start();
    let (ended, peak) = log.sync(&server);
    check_peak(peak);
    let run = server.run("id1").unwrap();
    let named: Vec<&str> = run.files.keys().map(String::as_str).filter(|path| paths.contains(path)).collect();
    assert_eq!(named, ["good.txt"]);
    assert!(run.files.values().all(|file| file.size < 10 || !file.text().contains("secret")));
    assert_eq!(skipped(&ended, "file that could not be uploaded"), (10, true), "{}", ended.stdout);
    let _ = ended.code(3);
}

#[test]
fn run_ids_lead_nowhere() {
    for id in ["../../other", "..", ".", "a/b", "a?b#c", "a%2fb", "\u{1b}[2J", "a\0b", " ", &"x".repeat(1 << 20)] {
        let log = Log::of(RunRecord {
            run_id: id.into(),
            project: "../p".into(),
            // With a control character in it, no run at all would be made.
            entity: "%1b[2J/..".into(),
            display_name: "\u{1b}[31m\r\n\u{202e}".into(),
            ..RunRecord::default()
        })
        .with([row([item("a", "1")])])
        .ended();
        let server = FakeServer::start();
        let (ended, peak) = log.sync(&server);
        check_peak(peak);
        assert!(matches!(ended.code, Some(0 | 1 | 3 | 5)), "{id:?}: {:?}\n{}", ended.code, ended.stderr);
        assert_eq!(server.runs().len(), usize::from(id == "a%2fb"), "{id:?}: {}", ended.stderr);
        for run in server.runs() {
            assert_eq!(run.id, id, "the lines of a run go to that run");
        }
        let _ = checked(&log.place, log.place.call(["inspect", "out"]));
    }
}

#[test]
fn a_row_of_a_million_keys_is_too_large_and_the_next_is_not() {
    let keys = 400_000;
    let wide = row((0..keys).map(|number| item(format!("a key of some length {number}"), "1")));
    let log = Log::new().with([wide, row([item("a", "1")])]).ended();
    let server = FakeServer::start();
    let (ended, peak) = log.sync(&server);
    // A row stands in memory with all its keys, as bytes and as text.
    assert!(peak < super::BOUND + 8 * 20_000_000, "{} MiB", peak >> 20);
    assert_eq!(skipped(&ended, "row above W&B's size limit"), (1, true), "{}", ended.stdout);
    assert_eq!(server.run("id1").unwrap().history.len(), 1);
    let _ = ended.code(3);
}

#[test]
fn zeros_and_lengths_are_not_believed() {
    // A reserved tail of half a gigabyte; then the same with something behind it.
    for behind in [false, true] {
        let mut log = Log::new().with([row([item("a", "1")])]);
        log.writer.flush().unwrap();
        let length = fs::metadata(log.path()).unwrap().len();
        let file = OpenOptions::new().append(true).open(log.path()).unwrap();
        file.set_len(length + (512 << 20)).unwrap();
        if behind {
            use std::io::Write as _;
            (&file).write_all(&[0xff; 100]).unwrap();
        }
        let server = FakeServer::start();
        let (ended, peak) = log.sync(&server);
        check_peak(peak);
        assert_eq!(server.run("id1").unwrap().history.len(), 1);
        assert_eq!(skipped(&ended, "damaged record"), (u64::from(behind), behind), "{}", ended.stdout);
    }
}

#[test]
fn records_of_any_content() {
    let mut bodies: Vec<Vec<u8>> = vec![
        [0x83, 0x01].repeat(50_000),
        vec![0x12, 0xff, 0xff, 0xff, 0xff, 0x0f],
        vec![0xff; 100],
        vec![0x12, 0],
        vec![],
    ];
    // Two bytes an item: once decoded each takes a hundred.
    for record in [
        RecordType::Files(FilesRecord { files: vec![FilesItem::default(); 500_000] }),
        RecordType::Config(ConfigRecord { update: vec![ConfigItem::default(); 500_000], ..Default::default() }),
        RecordType::Summary(SummaryRecord { update: vec![SummaryItem::default(); 500_000], ..Default::default() }),
        row(vec![HistoryItem::default(); 500_000]),
    ] {
        let record = wandb_bridge::proto::wandb_internal::Record { record_type: Some(record), ..Default::default() };
        bodies.push(record.encode_to_vec());
    }
    let mut log = Log::new().with([row([item("a", "1")])]);
    bodies.iter().for_each(|body| log.writer.append_encoded(body).unwrap());
    let log = log.with([row([item("a", "2")])]).ended();
    let server = FakeServer::start();
    let (ended, peak) = log.sync(&server);
    check_peak(peak);
    assert_eq!(server.run("id1").unwrap().column("a").len(), 2, "{}", ended.stdout);
    let _ = ended.code(3);
    let _ = checked(&log.place, log.place.call(["inspect", "out"]));
}

#[test]
fn state_is_not_written_through_a_link() {
    let server = FakeServer::start();
    let log = Log::new().with([row([])]).ended();
    let elsewhere = log.place.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, log.directory.join(".wandb-bridge")).unwrap();
    let (ended, _) = log.sync(&server);
    ended.clone().code(1);
    assert!(ended.stderr.contains(".wandb-bridge` is a link"), "{}", ended.stderr);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert!(server.runs().is_empty());
    // Where the user keeps state, it may be.
    let state = log.place.path("state");
    std::os::unix::fs::symlink(&elsewhere, &state).unwrap();
    fs::remove_file(log.directory.join(".wandb-bridge")).unwrap();
    log.place.sync(&server).arg("--state-dir").arg(&state).run().ok();
    assert_eq!(server.runs().len(), 1);
}

#[test]
fn names_stay_on_their_lines() {
    let evil = "x\nimported 9 runs";
    let run = RunRecord {
        run_id: "id1".into(),
        project: evil.into(),
        display_name: evil.into(),
        run_group: evil.into(),
        ..RunRecord::default()
    };
    let log = Log::of(run).with([row([])]).ended();
    let logs = log.place.path(&format!("logs/{evil}"));
    crate::support::events::Writer::new(&logs).scalars(evil, [(0, 1.0)]);
    for arguments in [
        &["inspect", "out", "logs"][..],
        &["sync", "--dir", "out", "--dry-run"],
        &["import", "--dry-run", "logs", "--group", evil],
        &["import", "--dry-run", "logs", "--config", "a=x\nimported 9 runs"],
        &["verify", "out", "logs"],
    ] {
        let server = FakeServer::start();
        let ended = log.place.call(arguments).server(&server).run();
        assert_eq!(ended.code, Some(if arguments[0] == "verify" { 3 } else { 0 }), "{arguments:?}: {}", ended.screen());
        for text in [&ended.stdout, &ended.stderr] {
            assert!(!text.lines().any(|line| line.starts_with("imported 9")), "{arguments:?}:\n{text}");
        }
        assert!(ended.stdout.contains("x\u{fffd}imported 9 runs"), "{arguments:?}:\n{}", ended.stdout);
    }
}

#[test]
fn a_mark_that_cannot_be_set_is_said() {
    let server = FakeServer::start();
    let log = Log::new().with([row([])]).ended();
    let mut mark = log.path().into_os_string();
    mark.push(".synced");
    std::os::unix::fs::symlink(log.place.path("not/there"), mark).unwrap();
    let (ended, _) = log.sync(&server);
    let ended = ended.ok();
    assert!(ended.stderr.contains("cannot be marked") && ended.stderr.contains(".synced"), "{}", ended.stderr);
}
