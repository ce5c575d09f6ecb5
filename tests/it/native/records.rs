//! Records that no script can make the official client write, though its core reads them: what older and newer clients, or
//! other programs, put into a log. Both clients make the same of them.

use prost::Message as _;
use wandb_bridge::proto::wandb_internal as proto;
use wandb_bridge::proto::wandb_internal::history_item::Value;
use wandb_bridge::proto::wandb_internal::record::RecordType;
use wandb_bridge::wandb_format::{LogWriter, is_synced};

use super::logs::{exit, printed, row, run_directory, run_record, write};
use crate::support::bridge::Place;
use crate::support::compare::{Compared, same_run_but_for};
use crate::support::official::{copy_tree, official_sync};
use crate::support::server::{FakeServer, RunStatus};

const START: i64 = 1_790_000_000;

fn time(seconds: i64, nanos: i32) -> Option<proto::Timestamp> {
    Some(proto::Timestamp { seconds: START + seconds, nanos })
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn config_item(path: &[&str], value: &str) -> proto::ConfigItem {
    proto::ConfigItem { nested_key: texts(path), value_json: value.to_owned(), ..Default::default() }
}

fn config(update: &[(&[&str], &str)], remove: &[&[&str]]) -> RecordType {
    RecordType::Config(proto::ConfigRecord {
        update: update.iter().map(|(path, value)| config_item(path, value)).collect(),
        remove: remove.iter().map(|path| config_item(path, "")).collect(),
    })
}

fn summary(update: &[(&[&str], &str)], remove: &[&[&str]]) -> RecordType {
    let item = |path: &[&str], value: &str| proto::SummaryItem {
        nested_key: texts(path),
        value_json: value.to_owned(),
        ..Default::default()
    };
    RecordType::Summary(proto::SummaryRecord {
        update: update.iter().map(|(path, value)| item(path, value)).collect(),
        remove: remove.iter().map(|path| item(path, "")).collect(),
    })
}

/// Run records: the first one makes the run, with config and telemetry in it; later ones say some of it anew.
fn runs() -> Vec<RecordType> {
    let RecordType::Run(first) = run_record("p", "odd") else { unreachable!() };
    let first = proto::RunRecord {
        run_group: "group".to_owned(),
        sweep_id: "sw33p1d".to_owned(),
        host: "trainer-0".to_owned(),
        notes: "first".to_owned(),
        tags: texts(&["b", "a"]),
        git: Some(proto::GitRepoRecord {
            remote_url: "https://git.example.com/x.git".to_owned(),
            commit: "abc".to_owned(),
        }),
        config: Some(proto::ConfigRecord {
            update: vec![
                config_item(&["lr"], "0.1"),
                config_item(&["deep", "er"], "{\"x\":1,\"y\":[1,{}]}"),
                proto::ConfigItem { key: "dotted.key".to_owned(), value_json: "1".to_owned(), ..Default::default() },
            ],
            remove: Vec::new(),
        }),
        telemetry: Some(proto::TelemetryRecord {
            python_version: "3.9.1".to_owned(),
            cli_version: "0.15.0".to_owned(),
            ..Default::default()
        }),
        ..first
    };
    let later = proto::RunRecord {
        run_id: "odd".to_owned(),
        project: "p".to_owned(),
        display_name: "renamed".to_owned(),
        tags: texts(&["c"]),
        job_type: "train".to_owned(),
        start_time: time(0, 0),
        // Only the first record's counts.
        config: Some(proto::ConfigRecord { update: vec![config_item(&["lr"], "9")], remove: Vec::new() }),
        ..Default::default()
    };
    vec![RecordType::Run(first), RecordType::Run(later)]
}

fn metrics() -> Vec<RecordType> {
    use proto::metric_record::MetricGoal;
    let options = |hidden, step_sync| Some(proto::MetricOptions { defined: true, hidden, step_sync });
    let metric = |name: &str, glob: &str, step: &str, hidden: bool, goal: MetricGoal| proto::MetricRecord {
        name: name.to_owned(),
        glob_name: glob.to_owned(),
        step_metric: step.to_owned(),
        options: options(hidden, !step.is_empty()),
        goal: goal.into(),
        ..Default::default()
    };
    let minimum = proto::MetricSummary { min: true, max: true, last: true, best: true, ..Default::default() };
    vec![
        RecordType::Metric(metric("epoch", "", "", true, MetricGoal::GoalUnset)),
        RecordType::Metric(proto::MetricRecord {
            summary: Some(minimum),
            ..metric("", "val/*", "epoch", false, MetricGoal::GoalMinimize)
        }),
        RecordType::Metric(metric("accuracy", "", "epoch", false, MetricGoal::GoalMaximize)),
        RecordType::Metric(metric("top", "", "never_logged", false, MetricGoal::GoalMaximize)),
        RecordType::Metric(proto::MetricRecord {
            control: Some(proto::MetricControl { overwrite: true }),
            summary: Some(proto::MetricSummary { mean: true, ..Default::default() }),
            ..metric("accuracy", "", "", true, MetricGoal::GoalMinimize)
        }),
        RecordType::Metric(proto::MetricRecord {
            expanded_from_glob: true,
            ..metric("val/loss", "", "epoch", false, MetricGoal::GoalMinimize)
        }),
    ]
}

/// Rows as old and new clients write their items.
fn rows() -> Vec<RecordType> {
    let item = |key: &str, nested: &[&str], json: &str, value: Option<Value>| proto::HistoryItem {
        key: key.to_owned(),
        nested_key: texts(nested),
        value_json: json.to_owned(),
        value,
    };
    let row = |step: i64, item: Vec<proto::HistoryItem>| {
        RecordType::History(proto::HistoryRecord { item, step: Some(proto::HistoryStep { num: step }) })
    };
    vec![
        row(
            0,
            vec![
                item("_step", &[], "0", None),
                item("flat.key", &[], "1", None),
                item("", &["deep", "er"], "{\"a\":[1,null]}", None),
                item("", &["deep", "est"], "NaN", None),
                item("", &["typed", "text"], "", Some(Value::Text("ü".to_owned()))),
                item("typed_number", &[], "", Some(Value::Number(1.5))),
            ],
        ),
        row(
            7,
            vec![
                item("_step", &[], "7", None),
                item("twice", &[], "1", None),
                item("twice", &[], "2", None),
                item("both", &[], "3", Some(Value::Integer(3))),
                item("boolean", &[], "", Some(Value::Boolean(true))),
                item("empty", &[], "{}", None),
            ],
        ),
    ]
}

fn environments() -> Vec<RecordType> {
    let disk = |total, used| proto::DiskInfo { total, used };
    let graphics = proto::GpuNvidiaInfo {
        name: "A100".to_owned(),
        memory_total: 80 << 30,
        cuda_cores: 6912,
        architecture: "Ampere".to_owned(),
        uuid: "GPU-1".to_owned(),
        ..Default::default()
    };
    let whole = proto::EnvironmentRecord {
        os: "Linux".to_owned(),
        python: "CPython 3.9.1".to_owned(),
        started_at: time(1, 500_000_000),
        docker: "image:tag".to_owned(),
        args: texts(&["--lr", "0.1", "ü"]),
        program: "/home/trainer/train.py".to_owned(),
        code_path: "train.py".to_owned(),
        code_path_local: "train.py".to_owned(),
        git: Some(proto::GitRepoRecord {
            remote_url: "https://git.example.com/x.git".to_owned(),
            commit: "abc".to_owned(),
        }),
        email: "trainer@example.com".to_owned(),
        root: "/home/trainer".to_owned(),
        host: "trainer-0".to_owned(),
        username: "trainer".to_owned(),
        executable: "/usr/bin/python".to_owned(),
        colab: "https://colab.example.com".to_owned(),
        cpu_count: 4,
        cpu_count_logical: 8,
        gpu_type: "A100".to_owned(),
        gpu_count: 2,
        disk: [("/".to_owned(), disk(10 << 30, 5 << 30))].into(),
        memory: Some(proto::MemoryInfo { total: 64 << 30 }),
        cpu: Some(proto::CpuInfo { count: 4, count_logical: 8, model: "EPYC".to_owned() }),
        apple: Some(proto::AppleInfo { name: "M2".to_owned(), ecpu_cores: 4, memory_gb: 16, ..Default::default() }),
        gpu_nvidia: vec![graphics.clone(), graphics],
        cuda_version: "12.4".to_owned(),
        gpu_amd: vec![proto::GpuAmdInfo { id: "0".to_owned(), vendor: "AMD".to_owned(), ..Default::default() }],
        slurm: [("job_id".to_owned(), "17".to_owned()), ("cluster".to_owned(), "c".to_owned())].into(),
        trainium: Some(proto::TrainiumInfo { name: "trn".to_owned(), neuron_device_count: 2, ..Default::default() }),
        tpu: Some(proto::TpuInfo { name: "v4".to_owned(), hbm_gib: 32, devices_per_chip: 1, count: 4 }),
        coreweave: Some(proto::CoreWeaveInfo { cluster_name: "c".to_owned(), ..Default::default() }),
        writer_id: "writer".to_owned(),
    };
    // What is learned later is added.
    let later = proto::EnvironmentRecord {
        cuda_version: "12.5".to_owned(),
        gpu_count: 3,
        writer_id: "writer".to_owned(),
        ..Default::default()
    };
    vec![RecordType::Environment(whole), RecordType::Environment(later)]
}

fn stats(seconds: i64, items: &[(&str, &str)]) -> RecordType {
    let item =
        |(key, value): &(&str, &str)| proto::StatsItem { key: (*key).to_owned(), value_json: (*value).to_owned() };
    let item = items.iter().map(item).collect();
    RecordType::Stats(proto::StatsRecord { timestamp: time(seconds, 250_000_000), item, ..Default::default() })
}

fn records() -> Vec<RecordType> {
    let alert = |title: &str, level: &str| {
        let (title, level) = (title.to_owned(), level.to_owned());
        RecordType::Alert(proto::AlertRecord { title, text: "text".to_owned(), level, wait_duration: 60 })
    };
    let used = proto::UseArtifactRecord {
        id: "QXJ0aWZhY3Q6MQ==".to_owned(),
        name: "data:v0".to_owned(),
        ..Default::default()
    };
    let mut records = runs();
    records.extend(environments());
    records.extend(metrics());
    records.extend([
        config(&[(&["deep", "er", "x"], "2"), (&["late"], "{\"a\":{\"b\":1}}")], &[]),
        config(&[(&["late", "a", "c"], "[]")], &[&["deep", "er", "y"], &["missing"], &["lr"]]),
        summary(&[(&["best", "loss"], "0.5"), (&["best", "at"], "3"), (&["gone"], "1"), (&["flat.key"], "{}")], &[]),
    ]);
    records.extend(rows());
    records.extend([
        summary(&[(&["best", "at"], "4")], &[&["best", "loss"], &["gone"], &["missing", "too"]]),
        stats(3, &[("cpu", "12.5"), ("gpu.0.memory", "7"), ("nested", "{\"a\":1}"), ("bad", "not JSON")]),
        stats(2, &[("cpu", "1")]),
        alert("quiet", "INFO"),
        alert("loud", "ERROR"),
        RecordType::UseArtifact(used),
        RecordType::Header(proto::HeaderRecord::default()),
        RecordType::OutputLogger(proto::OutputLoggerRecord { line: "logged".to_owned() }),
        printed("printed\n"),
        RecordType::Preempting(proto::RunPreemptingRecord {}),
        RecordType::Final(proto::FinalRecord {}),
        RecordType::Footer(proto::FooterRecord {}),
        exit(0),
    ]);
    records
}

#[test]
fn records_of_any_shape_come_to_the_same_by_either_client() {
    let (place, ours, theirs) = (Place::new(), FakeServer::start(), FakeServer::start());
    write(&run_directory(&place.path("wandb"), 0, "odd"), records());
    copy_tree(&place.path("wandb"), &place.path("copy"));
    official_sync(&place.path("copy"), &theirs);
    place.call(["sync"]).server(&ours).run().ok();
    ours.assert_content();
    let (run, other) = (ours.run("odd").unwrap(), theirs.run("odd").unwrap());
    let compared = Compared { console: true, ..Compared::default() };
    assert_eq!(same_run_but_for(&run, &other, &compared), Ok(()));
    assert_eq!((run.history.len(), run.events.len(), run.alerts.len()), (2, 2, 2));
    assert_eq!((run.sweep.as_deref(), run.display_name.as_str()), (Some("sw33p1d"), "renamed"));
}

#[test]
fn records_of_newer_clients_are_counted_by_their_number_and_passed_over() {
    let (place, server) = (Place::new(), FakeServer::start());
    let log = run_directory(&place.path("wandb"), 0, "newer");
    let mut writer = LogWriter::create(&log).unwrap();
    writer.append(run_record("p", "newer")).unwrap();
    // Field 150 with a message that nobody knows; a row of today that also has a field of tomorrow.
    for step in 0..3 {
        let RecordType::History(history) = row(step, 5) else { unreachable!() };
        let known = proto::Record { record_type: Some(RecordType::History(history)), ..Default::default() };
        let mut record = known.encode_to_vec();
        record.extend([0xb2, 0x09, 0x02, 0x08, 0x01]);
        writer.append_encoded(&record).unwrap();
        writer.append_encoded(&[0xb2, 0x09, 0x03, 0x0a, 0x01, b'x']).unwrap();
    }
    // Older clients wrote this one beside a request; the core of today falls over it.
    writer.append(RecordType::NoopLinkArtifact(proto::Empty {})).unwrap();
    writer.append(exit(0)).unwrap();
    writer.flush().unwrap();
    let ended = place.call(["sync", "--json"]).server(&server).run().ok();
    server.assert_content();
    let run = server.run("newer").unwrap();
    assert_eq!((run.history.len(), run.status), (3, RunStatus::Finished));
    let skipped = &ended.json_runs()[0]["skipped"][0];
    assert_eq!(
        (&skipped["reason"], &skipped["count"]),
        (&"record of a newer W&B client".into(), &3.into()),
        "{skipped}"
    );
    assert!(skipped["first"].as_str().unwrap().contains("type 150"), "{skipped}");
}

#[test]
fn a_run_that_another_process_ends_is_not_ended_by_this_log() {
    let (place, ours, theirs) = (Place::new(), FakeServer::start(), FakeServer::start());
    let ended = RecordType::Exit(proto::RunExitRecord { not_complete: true, ..Default::default() });
    let policy = proto::files_item::PolicyType::End.into();
    let late = proto::FilesItem { path: "late.txt".to_owned(), policy, ..Default::default() };
    let files = RecordType::Files(proto::FilesRecord { files: vec![late] });
    let log = run_directory(&place.path("wandb"), 0, "shared");
    write(&log, [run_record("p", "shared"), files, row(0, 5), printed("hello\n"), ended]);
    std::fs::write(log.parent().unwrap().join("files/late.txt"), "at the end").unwrap();
    copy_tree(&place.path("wandb"), &place.path("copy"));
    official_sync(&place.path("copy"), &theirs);
    let synced = place.call(["sync", "--json"]).server(&ours).run().ok();
    assert_eq!(synced.json_runs()[0]["state"], "synced");
    assert!(is_synced(&log));
    ours.assert_content();
    let (run, other) = (ours.run("shared").unwrap(), theirs.run("shared").unwrap());
    assert_eq!(same_run_but_for(&run, &other, &Compared::default()), Ok(()));
    assert_eq!((run.status, run.exit_code), (RunStatus::Running, None));
    assert_eq!((run.files["late.txt"].text().as_str(), run.console.len()), ("at the end", 1));
    // There is nothing left to do, and nothing missing.
    let requests = ours.requests().len();
    place.call(["sync", "--include-synced"]).server(&ours).run().ok();
    assert_eq!(ours.requests().len(), requests);
    place.call(["verify", "wandb"]).server(&ours).run().ok();
    ours.edit("shared", |run| drop(run.files.remove("late.txt")));
    place.call(["verify", "wandb"]).server(&ours).run().code(3);
}
