//! Logs of older official clients: all that is in them arrives, and what the newest official client makes of them is part of
//! it.

use std::path::Path;

use wandb_bridge::model::Json;

use crate::support::bridge::Place;
use crate::support::compare::{Compared, same_run_but_for};
use crate::support::official::{copy_tree, end_at_exit, logs_below, official_sync};
use crate::support::server::{FakeServer, RunSnapshot, RunStatus};

const VERSIONS: [&str; 4] = ["0.16.6", "0.17.9", "0.18.7", "0.19.11"];

fn id_of(version: &str) -> String {
    format!("v{}", version.replace('.', "_"))
}

/// Syncs a copy of the fixtures with this program.
fn sync(place: &Place, server: &FakeServer) {
    place.call(["sync", "--json"]).args(VERSIONS.map(|version| place.path(version))).server(server).run().ok();
    server.assert_content();
}

/// The age of a fixture's files is that of the checkout, so the logs end with their exit or not at all.
fn copy(place: &Place) {
    for version in VERSIONS {
        place.fixture(&format!("wandb_clients/{version}"), version);
    }
}

/// What the recording script logged.
fn check(run: &RunSnapshot, whole_summary: bool) {
    assert_eq!(run.display_name, "after ü");
    assert_eq!((run.group.as_deref(), run.job_type.as_deref()), (Some("g"), Some("train")));
    assert_eq!(
        (run.notes.as_deref(), run.tags.as_slice()),
        (Some("several\nlines"), &["a".to_owned(), "b c".into()][..])
    );
    assert_eq!((run.status, run.exit_code), (RunStatus::Failed, Some(3)));
    assert_eq!(run.column("_step"), [0, 1, 2, 3, 4, 5, 20].map(Json::from));
    let rows = run.history_rows();
    assert_eq!(rows[4].get("deep").unwrap().to_string(), r#"{"er":4,"est":{"x":-4}}"#);
    assert_eq!(rows[3].get("huge").unwrap().to_string(), "Infinity");
    assert_eq!(rows[3].get("large").unwrap().to_string(), "9007199254740993");
    let config = run.config_value();
    assert_eq!(config.get("nested").unwrap().to_string(), r#"{"a":{"b":[1,{"c":null}]}}"#);
    assert_eq!(config.get("late").unwrap().to_string(), r#"{"x":1}"#);
    let summary = run.summary_value();
    if whole_summary {
        assert_eq!(summary.get("best").unwrap().to_string(), r#"{"loss":0.125}"#);
        assert_eq!(summary.get("loss").unwrap().to_string(), r#"{"max":1}"#.replace("1}", &max_of(&summary)));
        assert_eq!(summary.get("gone"), None);
    }
    let texts: Vec<&str> = run
        .console
        .iter()
        .map(|line| line.trim_start_matches("ERROR ").split_once(' ').map_or("", |(_, text)| text))
        .collect();
    assert_eq!(texts, ["5/6 #####", "on stdout", "done done"]);
    for policy in ["now", "live", "end"] {
        assert_eq!(run.files[&format!("{policy}.txt")].text(), format!("{policy}\n"));
    }
    assert_eq!(run.files.keys().filter(|name| name.starts_with("media/")).count(), 2);
    assert_eq!(run.alerts.len(), 1);
}

/// A whole float has a point in what Python wrote.
fn max_of(summary: &Json) -> String {
    let text = summary.get("loss").unwrap().get("max").unwrap().to_string();
    assert!(text == "1" || text == "1.0", "{text}");
    format!("{text}}}")
}

#[test]
fn logs_of_older_clients_arrive_whole() {
    let (place, server) = (Place::new(), FakeServer::start());
    copy(&place);
    sync(&place, &server);
    for version in VERSIONS {
        check(&server.run(&id_of(version)).unwrap(), true);
    }
}

#[test]
fn the_official_client_sends_the_same_of_them_up_to_their_exit() {
    let (place, ours, theirs) = (Place::new(), FakeServer::start(), FakeServer::start());
    copy(&place);
    for version in VERSIONS {
        // Behind it the Python cores wrote the summary, which the official client loses.
        logs_below(&place.path(version)).iter().for_each(|log: &std::path::PathBuf| end_at_exit(log));
        let other: &Path = &place.path(&format!("copy/{version}"));
        copy_tree(&place.path(version), other);
        official_sync(other, &theirs);
    }
    sync(&place, &ours);
    for version in VERSIONS {
        let id = id_of(version);
        let (run, other) = (ours.run(&id).unwrap(), theirs.run(&id).unwrap());
        // The official client drops what it does not know any more: modules, environments and features.
        let (ignored_telemetry, ignored_features) = ([5, 55].into(), [23, 45, 48, 55, 76].into());
        let compared = Compared { console: true, ignored_telemetry, ignored_features, ..Compared::default() };
        assert_eq!(same_run_but_for(&run, &other, &compared), Ok(()), "{version}");
    }
}
