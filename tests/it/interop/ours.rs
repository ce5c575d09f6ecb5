//! Logs that this program writes, synced by the official client: it brings the same to a server as we do ourselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use wandb_bridge::model::{Json, Number};
use wandb_bridge::proto::tensorboard::summary::{Value, value};
use wandb_bridge::proto::tensorboard::{Event, Summary, event};
use wandb_bridge::tfevents::write::write_event;

use super::bridge::bridge;
use super::{Runs, assert_same_runs, fixtures, imported_online, official_runs, runs_of, with_official_numbers};
use crate::support::compare::{Compared, same_run_but_for};
use crate::support::events::Writer;
use crate::support::official::{copy_tree, logs_below};
use crate::support::python::inline;
use crate::support::server::{FakeServer, RunSnapshot, RunStatus};

/// What we make of a copy of all logs in a `wandb` folder.
#[track_caller]
fn synced_by_us(folder: &Path) -> Runs {
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("wandb");
    copy_tree(folder, &copy);
    let server = FakeServer::start();
    // What was synced to one server was not synced to another.
    bridge(["sync", "--include-synced"]).arg(&copy).server(&server).run().ends_with(0);
    runs_of(&server)
}

/// Records offline below a directory.
#[track_caller]
fn import_offline(source: &Path, directory: &Path, options: &[&str], code: i32) {
    let import = bridge(["import", "--mode", "offline", "-p", "fixtures", "--dir"]).arg(directory).arg(source);
    import.args(options).run().ends_with(code);
}

#[test]
fn fixtures_arrive_the_same_by_either_client() {
    let directory = tempfile::tempdir().unwrap();
    import_offline(&fixtures(), directory.path(), &[], 3);
    let folder = directory.path().join("wandb");
    let official = official_runs(&folder, &[]);
    let ours = synced_by_us(&folder);
    assert!(official.len() >= 80, "{} runs", official.len());
    let paths: Vec<&String> = official.values().flat_map(|run| run.files.keys()).collect();
    for (start, at_least) in [("media/images/", 30), ("media/audio/", 15), ("media/html/", 15), ("media/table/", 8)] {
        let count = paths.iter().filter(|path| path.starts_with(start)).count();
        assert!(count >= at_least, "{count} files below {start}");
    }
    for start in ["media/videos/", "media/object3D/", "tensorboard/graphs/", "tensorboard/tensors/"] {
        assert!(paths.iter().any(|path| path.starts_with(start)), "{start}");
    }
    let rows: usize = official.values().map(|run| run.history.len()).sum();
    assert!(rows > 1500, "{rows} rows");
    for run in official.values() {
        assert_eq!((run.status, run.exit_code), (RunStatus::Finished, Some(0)), "{}", run.display_name);
    }
    assert_same_runs(&ours, imported_online(), &Compared::default());
    assert_same_runs(&official, &with_official_numbers(ours), &Compared::default());
}

#[test]
fn run_that_grew_after_its_exit_arrives_whole() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let events = only_file(&fixtures().join("torch/ppo/seed0"));
    let whole = fs::read(&events).unwrap();
    let file = logs.join(events.file_name().unwrap());
    let folder = directory.path().join("wandb");

    let server = FakeServer::start();
    let mut rows = Vec::new();
    // The first cut is in the middle of a record. Each pass ends the run.
    for length in [whole.len() / 3 + 1, whole.len() * 2 / 3, whole.len()] {
        fs::write(&file, &whole[..length]).unwrap();
        import_offline(&logs, directory.path(), &[], 0);
        bridge(["sync"]).arg(&folder).server(&server).run().ends_with(0);
        let run = server.runs().pop().unwrap();
        assert_eq!((run.status, run.exit_code), (RunStatus::Finished, Some(0)));
        rows.push(run.history.len());
    }
    assert!(rows.is_sorted() && rows[0] < rows[1] && rows[1] < rows[2], "{rows:?}");
    assert_eq!(logs_below(&folder).len(), 1);

    let bit_by_bit = runs_of(&server);
    assert_same_runs(&official_runs(&folder, &[]), &bit_by_bit, &Compared::default());
    assert_same_runs(&synced_by_us(&folder), &bit_by_bit, &Compared::default());
    // Nor does it matter for the values that the file was read bit by bit.
    let run = bit_by_bit.values().next().unwrap();
    let at_once = imported_online().values().find(|run| run.display_name == "torch/ppo/seed0").unwrap();
    assert_eq!(run.column("train/value_loss"), at_once.column("train/value_loss"));
    assert_eq!(run.column("train/value_loss").len(), 40);
}

/// Logs what it is given, one value a row, and prints the summary that the official client makes of it.
const DEFINED_AND_LOGGED: &str = r#"
import json, sys, wandb
values = json.loads(sys.argv[1])
run = wandb.init(mode="offline", project="p", id="theirs", settings=wandb.Settings(console="off"))
for key, what in json.loads(sys.argv[2]).items():
    run.define_metric(key, step_metric="global_step", step_sync=False, summary=what)
run.define_metric("global_step")
for step in range(max(map(len, values.values()))):
    for key, column in values.items():
        if step < len(column):
            run.log({"global_step": step, key: column[step]})
run.finish()
"#;

#[test]
fn summaries_are_those_that_the_official_client_computes() {
    const RULES: [(&str, &str); 5] = [
        ("all", "min,max,mean,last,first"),
        ("nan", "min,max,mean,last,first"),
        ("infinite", "min,max,mean,last"),
        ("none", "none"),
        ("a/first", "first"),
    ];
    let columns: [(&str, &[f32]); 6] = [
        ("all", &[0.7, 0.1, 1e-20, 16_777_216.0, 0.2]),
        ("nan", &[1.5, f32::NAN, 0.3]),
        ("infinite", &[f32::INFINITY, 1.0, f32::NEG_INFINITY, 0.1]),
        ("none", &[0.1, 0.2]),
        ("a/first", &[0.3, 0.1]),
        ("plain", &[0.3, 0.9]),
    ];
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(&directory.path().join("logs/run"));
    for step in 0..5 {
        for (key, column) in columns {
            writer.scalars(key, column.get(step).map(|value| (step as i64, *value)));
        }
    }
    let rules: Vec<String> =
        RULES.iter().flat_map(|(key, what)| ["--summary".to_owned(), format!("{key}={what}")]).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    import_offline(&directory.path().join("logs"), directory.path(), &rules, 0);
    let folder = directory.path().join("wandb");
    // Either client brings the same to a server: the summary, and the definitions in the config.
    let ours = synced_by_us(&folder);
    assert_same_runs(&official_runs(&folder, &[]), &with_official_numbers(ours.clone()), &Compared::default());

    let values = |column: &[f32]| Json::Array(column.iter().map(|value| Json::Number(Number::F32(*value))).collect());
    let logged: BTreeMap<String, Json> =
        columns.iter().map(|(key, column)| ((*key).to_owned(), values(column))).collect();
    let defined: BTreeMap<String, Json> =
        RULES.iter().map(|(key, what)| ((*key).to_owned(), Json::from(*what))).collect();
    let theirs = directory.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    let arguments = [Json::Object(logged).to_string(), Json::Object(defined).to_string()];
    inline(DEFINED_AND_LOGGED).args(arguments).directory(&theirs).run().ok();
    let official = official_runs(&theirs.join("wandb"), &[]).into_values().next().unwrap();
    let run = ours.into_values().next().unwrap();
    let text = |run: &RunSnapshot, key: &str| {
        let summary = run.summary_value();
        summary.get(key).map(|value| Json::parse(&value.to_string()).unwrap().to_string())
    };
    for (key, _) in columns {
        assert_eq!(text(&run, key), text(&official, key), "{key}");
    }
    assert!(text(&run, "nan").unwrap().contains(r#""mean":NaN"#), "{:?}", text(&run, "nan"));
    let wanted = |run: &RunSnapshot| -> BTreeMap<String, String> {
        let config = run.config_value();
        let metrics = config.get("_wandb").and_then(|own| own.get("m")).cloned();
        let Some(Json::Array(metrics)) = metrics else { panic!("{config}") };
        let sorted = |metric: &Json| match metric.get("7") {
            Some(Json::Array(numbers)) => {
                let mut numbers: Vec<String> = numbers.iter().map(Json::to_string).collect();
                numbers.sort();
                numbers.join(",")
            }
            other => panic!("{other:?}"),
        };
        metrics.iter().map(|metric| (metric.get("1").unwrap().to_string(), sorted(metric))).collect()
    };
    let mut own = wanted(&run);
    // The script defines no metric without a summary.
    assert_eq!(own.remove("\"plain\"").as_deref(), Some(""));
    assert_eq!(own, wanted(&official));
}

/// The one file in a directory.
fn only_file(directory: &Path) -> std::path::PathBuf {
    let files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().unwrap()
}

#[test]
fn descriptions_and_odd_keys_arrive_the_same() {
    const KEYS: [&str; 12] = [
        "plain",
        "with/slash",
        "/leading/and/trailing/",
        "with.dot",
        "with.dot.s",
        "with",
        "quote \" and \\",
        "ключ ü 🦀",
        "tab\tand\nline",
        "glob*[a]?",
        "{template}",
        " ",
    ];
    let directory = tempfile::tempdir().unwrap();
    let experiment = directory.path().join("logs/group ü/name.1");
    fs::create_dir_all(&experiment).unwrap();
    let mut file = Vec::new();
    let first = event::What::FileVersion("brain.Event:2".into());
    write_event(&mut file, &Event { wall_time: 1_700_000_000.5, what: Some(first), ..Event::default() });
    let numbers = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE, f32::MAX, 0.1, 16_777_216.0];
    for (step, number) in (0..).zip(numbers) {
        let scalar = |key: &str| Value {
            tag: key.to_owned().into(),
            value: Some(value::Value::SimpleValue(number)),
            ..Value::default()
        };
        let summary = Summary { value: KEYS.map(scalar).to_vec() };
        let wall_time = 1_700_000_001.0 + step as f64 / 8.0;
        write_event(
            &mut file,
            &Event { wall_time, step, what: Some(event::What::Summary(summary)), ..Event::default() },
        );
    }
    fs::write(experiment.join("events.out.tfevents.1700000000.host-1"), file).unwrap();

    let options = [
        "--tags",
        "one,two words,ü",
        "--notes",
        "several\nlines of \"notes\"",
        "--group",
        "the {parent}",
        "--job-type",
        "train",
        "--run-name",
        "the {dir}",
        "--axis",
        "with*=batch",
    ];
    import_offline(&directory.path().join("logs"), directory.path(), &options, 0);
    let folder = directory.path().join("wandb");
    let official = official_runs(&folder, &[]);
    let ours = synced_by_us(&folder);
    let server = FakeServer::start();
    let import = bridge(["import", "-p", "fixtures"]).args(options).arg("--dir").arg(directory.path().join("online"));
    import.arg(directory.path().join("logs")).server(&server).run().ends_with(0);
    let online = runs_of(&server);
    assert_same_runs(&ours, &online, &Compared::default());
    assert_same_runs(&official, &with_official_numbers(ours), &Compared::default());

    // And it is what was asked for.
    let run = online.into_values().next().unwrap();
    assert_eq!(run.display_name, "the name.1");
    assert_eq!((run.group.as_deref(), run.job_type.as_deref()), (Some("the group ü"), Some("train")));
    assert_eq!(run.notes.as_deref(), Some("several\nlines of \"notes\""));
    assert_eq!(run.tags, ["one", "two words", "ü"]);
    assert_eq!(run.host.as_deref(), Some("host-1"));
    let expected = ["NaN", "Infinity", "-Infinity", "-0.0", "1.1754944e-38", "3.4028235e+38", "0.1", "16777216"];
    for key in KEYS {
        let values: Vec<String> = run.column(key).iter().map(Json::to_string).collect();
        let same = |(value, expected): (&String, &&str)| {
            value.parse::<f64>().unwrap().total_cmp(&expected.parse().unwrap()).is_eq()
        };
        assert!(values.len() == 8 && values.iter().zip(&expected).all(same), "{key:?}: {values:?}");
    }

    // A difference would be noticed.
    let mut other = official.into_values().next().unwrap();
    other.history[0] = other.history[0].replace("NaN", "1");
    assert!(same_run_but_for(&run, &other, &Compared::default()).unwrap_err().contains("history line 0"));
}
