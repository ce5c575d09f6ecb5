//! The official client is content with the tests' server, so what it holds of another client's runs can be trusted.

use std::path::Path;

use wandb_bridge::model::Json;

use crate::support::compare::{Compared, same_run, same_run_but_for};
use crate::support::official::{
    copy_tree, official_offline_run, official_offline_run_with, official_online_run, official_sync,
};
use crate::support::server::{FakeServer, RunSnapshot, RunStatus};

/// What `record_run.py` records must be there, to the last row.
fn check_recorded(run: &RunSnapshot, rows: i64) {
    assert_eq!((run.project.as_str(), run.display_name.as_str()), ("interop", "First try"));
    assert_eq!(run.group.as_deref(), Some("some group"));
    assert_eq!(run.job_type.as_deref(), Some("train"));
    assert_eq!(run.notes.as_deref(), Some("several\nlines of notes"));
    assert_eq!(run.tags, ["one", "two words"]);
    assert_eq!((run.status, run.exit_code), (RunStatus::Finished, Some(0)));

    let steps: Vec<Json> = (0..rows).map(Json::from).chain([Json::from(rows + 10)]).collect();
    assert_eq!(run.column("_step"), steps);
    let history = run.history_rows();
    for (i, row) in (0_i32..).zip(&history[..usize::try_from(rows).unwrap()]) {
        let expected = Json::parse(&format!("{:?}", 1.0 / f64::from(i + 1))).unwrap();
        assert_eq!(row.get("loss").unwrap().to_string(), expected.to_string());
        assert_eq!(row.get("nested").unwrap().get("x"), Some(&Json::from(i64::from(i))));
        assert_eq!(row.get("dotted.key"), Some(&Json::from(i64::from(i))));
        assert_eq!(row.get("word"), Some(&Json::from(format!("row {i}"))));
    }
    assert_eq!(history[3].get("strange").unwrap().to_string(), "NaN");
    assert_eq!(history[3].get("negative").unwrap().to_string(), "-Infinity");

    let config = run.config_value();
    assert_eq!(config.get("lr").unwrap().to_string(), "0.1");
    assert_eq!(config.get("optimizer").unwrap().get("name"), Some(&Json::from("sgd")));
    assert_eq!(
        config.get("_wandb").unwrap().get("m").map(|metrics| matches!(metrics, Json::Array(m) if m.len() == 3)),
        Some(true)
    );
    let summary = run.summary_value();
    assert_eq!(summary.get("best").unwrap().to_string(), r#"{"loss":0.125}"#);
    assert_eq!(summary.get("validation/accuracy").unwrap().to_string(), r#"{"min":0.6}"#);

    assert!(run.console.len() >= 10, "{:?}", run.console);
    assert_eq!(run.files["notes/a note.txt"].text(), "hello\n");
    assert_eq!(run.reported, run.files.keys().cloned().collect());
    for name in ["config.yaml", "wandb-metadata.json", "wandb-summary.json", "output.log", "requirements.txt"] {
        assert!(run.files.contains_key(name), "{name}");
    }
    assert!(run.files.keys().any(|name| name.starts_with("media/images/picture_")));
    assert_eq!(run.alerts.len(), 1);
}

#[test]
fn online_run_arrives_whole() {
    let directory = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().feature("FILESTREAM_GZIP").start();
    official_online_run(directory.path(), &server, &["--table", "--artifact"]);
    server.assert_content();
    check_recorded(&server.run("onl1").unwrap(), 8);
    let artifact = server.artifact("data").unwrap();
    assert_eq!((artifact.version, artifact.digest.as_str()), (Some(0), "cba1a673a4f157d9023afb18fdd77c78"));
    assert_eq!(artifact.files["saved.txt"].text(), "x");
    assert!(artifact.aliases.contains(&"best".to_owned()));
    assert!(server.artifact("run-onl1-table").unwrap().version.is_some());
}

#[test]
fn offline_run_arrives_whole_by_sync() {
    let directory = tempfile::tempdir().unwrap();
    let log = official_offline_run_with(directory.path(), &["--artifact"]);
    let server = FakeServer::start();
    official_sync(&log, &server);
    server.assert_content();
    check_recorded(&server.run("offl1").unwrap(), 8);
    assert_eq!(server.artifact("data").unwrap().files["saved.txt"].text(), "x");
}

#[test]
fn two_syncs_of_one_log_are_the_same_run() {
    let directory = tempfile::tempdir().unwrap();
    let log = official_offline_run(directory.path());
    let sync = |name: &str| {
        let server = FakeServer::start();
        let copy = directory.path().join(name);
        copy_tree(log.parent().unwrap(), &copy);
        official_sync(&copy.join(log.file_name().unwrap()), &server);
        server.assert_content();
        server.run("offl1").unwrap()
    };
    let (mut first, second) = (sync("offline-run-a"), sync("offline-run-b"));
    let all = Compared { console: true, ..Compared::default() };
    assert_eq!(same_run_but_for(&first, &second, &all), Ok(()));

    // And a difference would be noticed.
    let row = first.history[2].replace("row 2", "row 3");
    first.history[2] = row;
    assert!(same_run(&first, &second).unwrap_err().contains("history line 2, `word`"));
}

#[test]
fn resumed_run_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let server = FakeServer::start();
    official_online_run(directory.path(), &server, &["--rows", "2"]);
    assert_eq!(server.run("onl1").unwrap().history.len(), 3);
    official_online_run(directory.path(), &server, &["--rows", "2", "--resume", "must"]);
    server.assert_content();
    let run = server.run("onl1").unwrap();
    assert_eq!(run.column("_step"), [0, 1, 12, 13, 14, 25].map(Json::from));
    assert_eq!((run.status, run.exit_code), (RunStatus::Finished, Some(0)));
    assert!(Path::new(directory.path()).join("wandb").exists());
}

#[test]
fn mistakes_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let log = official_offline_run(directory.path());
    let server = FakeServer::start();
    official_sync(&log, &server);
    // The official client appends the same rows once more, with the steps that they had.
    official_sync(&log, &server);
    assert_eq!(server.run("offl1").unwrap().history.len(), 18);
    assert!(server.violations().iter().any(|violation| violation.text.contains("`_step` 0 after 18")));
}
