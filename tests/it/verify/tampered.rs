//! What a server lacks is named, and nothing else is.

use std::fs;
use std::path::Path;

use serde_json::Value;
use wandb_bridge::model::Json;

use super::{line, lines, missing, scalars, verify};
use crate::support::bridge::Place;
use crate::support::events::Writer;
use crate::support::python::script;
use crate::support::server::{FakeServer, RunSnapshot, RunStatus};

/// Imports a run with media, spoils what the server holds of it, and tells what is said to be missing.
fn spoiled(spoil: impl FnOnce(&mut RunSnapshot)) -> Vec<String> {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.fixture("every_kind/torch", "logs");
    place.import(&server, [&logs]).run().ok();
    let id = server.runs().pop().unwrap().id;
    server.edit(&id, spoil);
    let line = line(&verify(&place, &server, &[&logs]).run().code(3));
    assert_eq!(line["state"], "incomplete");
    missing(&line)
}

fn first_media(run: &RunSnapshot) -> String {
    run.files.keys().find(|path| path.starts_with("media/images")).unwrap().clone()
}

#[test]
fn rows_that_are_missing_are_named() {
    assert_eq!(spoiled(|run| drop(run.history.pop())).len(), 1);
    let found = spoiled(|run| drop(run.history.remove(3)));
    assert_eq!(found, ["rows _step 3: missing"]);
    let found = spoiled(|run| drop(run.history.drain(2..6)));
    assert_eq!(found, ["rows _step 2 to 5: 4 missing"]);
}

#[test]
fn a_value_that_differs_is_named() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 20);
    place.import(&server, [&logs]).run().ok();
    let id = server.runs().pop().unwrap().id;
    server.edit(&id, |run| run.history[7] = run.history[7].replace(r#""loss":7"#, r#""loss":8"#));
    let line = line(&verify(&place, &server, &[&logs]).run().code(3));
    assert_eq!(missing(&line), ["rows _step 7: `loss` is 8 there, and 7 here"]);
}

#[test]
fn files_that_are_missing_or_cut_off_are_named() {
    let mut path = String::new();
    let found = spoiled(|run| {
        path = first_media(run);
        run.files.remove(&path);
    });
    assert_eq!(found, [format!("file {path}: missing")]);

    let mut size = 0;
    let found = spoiled(|run| {
        let file = run.files.get_mut(&path).unwrap();
        size = file.size;
        file.size = size - 1;
    });
    assert_eq!(found, [format!("file {path}: {} bytes there, and {size} here", size - 1)]);

    let found = spoiled(|run| {
        let file = run.files.get_mut(&path).unwrap();
        let mut bytes = file.bytes.as_ref().unwrap().to_vec();
        bytes[0] ^= 1;
        file.bytes = Some(bytes.into());
    });
    assert_eq!(found, [format!("file {path}: its content differs")]);
}

#[test]
fn summary_config_and_end_are_compared() {
    let mut key = String::new();
    let mut value = String::new();
    let found = spoiled(|run| {
        let Json::Object(mut summary) = run.summary_value() else { panic!() };
        key = summary.keys().find(|key| summary[*key].as_object().is_none() && !key.starts_with('_')).unwrap().clone();
        value = summary.remove(&key).unwrap().to_string();
        run.summary = Some(Json::Object(summary).to_string());
    });
    assert_eq!(found, [format!("summary {key}: missing")]);
    let found = spoiled(|run| {
        let Json::Object(mut summary) = run.summary_value() else { panic!() };
        summary.insert(key.clone(), Json::from("other"));
        run.summary = Some(Json::Object(summary).to_string());
    });
    assert_eq!(found, [format!("summary {key}: is \"other\" there, and {value} here")]);

    let found = spoiled(|run| run.config = r#"{"_wandb":{"value":{}}}"#.to_owned());
    assert!(found.len() > 2 && found.iter().all(|it| it.starts_with("config ")), "{found:#?}");
    assert!(found.iter().any(|it| it.ends_with(": its definition is missing")), "{found:#?}");

    let found = spoiled(|run| run.status = RunStatus::Running);
    assert_eq!(found, ["end exit code 0: the run is running there"]);
}

#[test]
fn lines_of_console_and_system_metrics_are_counted() {
    let (place, server) = (Place::new(), FakeServer::start());
    let log = place.fixture("wandb_clients/0.16.6", "run");
    place.call(["sync"]).arg(&log).server(&server).run().ok();
    let mut events = 0;
    server.edit("v0_16_6", |run| {
        events = run.events.len();
        run.events.pop();
        run.console.clear();
    });
    assert!(events > 0);
    let line = line(&place.call(["verify", "--json"]).arg(&log).server(&server).run().code(3));
    let expected = [
        format!("events 1 lines of system metrics: {} of {events} are there", events - 1),
        "console 3 console lines: 0 of 3 are there".to_owned(),
    ];
    assert_eq!(missing(&line), expected);
}

#[test]
fn a_run_that_was_deleted_or_is_somebody_elses_is_named() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 5);
    place.import(&server, [&logs]).run().ok();
    let id = server.runs().pop().unwrap().id;
    server.edit(&id, |run| {
        run.history = (0..5).map(|step| format!(r#"{{"_step":{step},"theirs":1}}"#)).collect();
        run.summary = Some(r#"{"theirs":1}"#.to_owned());
    });
    let found = missing(&line(&verify(&place, &server, &[&logs]).run().code(3)));
    assert_eq!(found.iter().filter(|it| it.starts_with("rows _step ")).count(), 5, "{found:#?}");
    assert!(found.contains(&"summary loss: missing".to_owned()), "{found:#?}");

    server.forget_run(&id);
    let line = line(&verify(&place, &server, &[&logs]).run().code(3));
    assert_eq!(missing(&line), [format!("run {id}: the server does not know this run")]);
    assert_eq!((line["state"].as_str(), line["url"].as_str()), (Some("missing"), None));
}

#[test]
fn versions_of_artifacts_are_looked_for() {
    let (place, server) = (Place::new(), FakeServer::start());
    let work = place.path("work");
    fs::create_dir(&work).unwrap();
    script("record_artifacts.py").args(["--many", "2"]).directory(&work).home(&place.path("home")).run().ok();
    let sync = place.call(["sync", "wandb"]).directory(&work).server(&server);
    sync.run().ok();
    let check = |code: i32| {
        let call = place.call(["verify", "--json", "wandb"]).directory(&work).server(&server);
        lines(&call.run().code(code)).iter().flat_map(missing).collect::<Vec<String>>()
    };
    assert_eq!(check(0), [""; 0]);
    let mut name = String::new();
    server.edit_artifacts(|artifacts| name = artifacts.remove(0).name);
    assert_eq!(check(3), [format!("artifact {name}: missing")]);
    server.edit_artifacts(|artifacts| artifacts[0].version = None);
    let found = check(3);
    assert!(found.len() == 2 && found[1].ends_with(": it is Pending there, and not committed"), "{found:#?}");
}

#[test]
fn what_was_written_since_is_named() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("logs/run"));
    writer.scalars("loss", [(0, 1.0), (1, 0.5)]);
    let logs = place.path("logs");
    place.import(&server, [&logs]).run().ok();
    // Half a record is nothing yet.
    let whole = fs::read(writer.path()).unwrap();
    fs::write(writer.path(), [&whole[..], &whole[..20]].concat()).unwrap();
    verify(&place, &server, &[&logs]).run().ok();
    fs::write(writer.path(), whole).unwrap();
    writer.scalars("loss", [(2, 0.25), (3, 0.125)]);
    let check = |file: &str, rows: u64| {
        let line = line(&verify(&place, &server, &[&logs]).run().code(3));
        let expected = [format!("event_file {file}: {rows} rows not recorded yet")];
        assert_eq!((missing(&line), line["state"].as_str()), (expected.to_vec(), Some("incomplete")));
    };
    let first = writer.path().display().to_string();
    check(&first, 2);
    let second = place.path("logs/run/events.out.tfevents.1784017000.trainer-0.1.1");
    let mut other = Writer::create(&place.path("logs/run"), second.file_name().unwrap().to_str().unwrap());
    other.scalars("other", [(0, 1.0)]);
    check(&format!("{first} and 1 file more"), 3);
    fs::remove_file(&second).unwrap();
    place.import(&server, [&logs]).run().ok();
    verify(&place, &server, &[&logs]).run().ok();
}

#[test]
fn of_what_was_never_imported_everything_is_missing() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 7);
    let check = |path: &Path| -> Value { line(&verify(&place, &server, &[path]).run().code(3)) };
    let line = check(&logs);
    let id = line["run_id"].as_str().unwrap();
    assert_eq!(missing(&line), [format!("run {id}: the server does not know this run")]);
    assert_eq!((line["state"].as_str(), line["compared"]["rows"]["here"].as_u64()), (Some("missing"), Some(7)));
    assert!(!place.path("out").exists(), "nothing is written");

    // Recorded and never uploaded is missing, too: by the event files, and by the log.
    place.import_offline([&logs]).run().ok();
    assert_eq!(check(&logs)["state"], "missing");
    assert_eq!(check(&place.path("out"))["state"], "missing");
}

#[test]
fn what_was_imported_elsewhere_is_compared_by_number() {
    let (place, elsewhere, server) = (Place::new(), Place::new(), FakeServer::start());
    let logs = scalars(&place, 7);
    elsewhere.import(&server, [&logs]).run().ok();
    let there = line(&verify(&place, &server, &[&logs]).run().ok());
    let rows = &there["compared"]["rows"];
    assert_eq!((rows["here"].as_u64(), rows["there"].as_u64(), rows["exact"].as_u64()), (Some(7), Some(7), Some(0)));
    server.lose_history(&server.runs()[0].id, 5);
    let found = missing(&line(&verify(&place, &server, &[&logs]).run().code(3)));
    assert_eq!(found, ["rows 2 rows: 5 of 7 rows are there; these are among those that are only counted"]);
}
