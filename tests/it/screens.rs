//! What a person reads, and the code that a script reads.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use wandb_bridge::state_file::lock::{Lock, Locking};

use crate::assert_screen;
use crate::support::bridge::{Call, Place, fixture_path};
use crate::support::server::{FakeServer, Fault, KEY, Route};

/// A directory with one run in `logs/exp`, and one that holds other files only.
fn place() -> Place {
    let place = Place::new();
    place.fixture("torch/ppo/seed0", "logs/exp");
    fs::create_dir(place.path("empty")).unwrap();
    fs::write(place.path("empty/notes.txt"), "").unwrap();
    place
}

/// A key of the right shape.
fn with_key(call: Call) -> Call {
    call.env("WANDB_API_KEY", KEY)
}

#[test]
fn nothing_to_do() {
    let place = place();
    assert_screen!("import_without_event_files", place.import_offline(["empty"]).run());
    assert_screen!("import_of_an_empty_event_file", place.import_offline([fixture_path("damaged/empty")]).run());
    assert_screen!("inspect_without_event_files", place.call(["inspect", "empty"]).run());
    let server = FakeServer::start();
    assert_screen!("sync_without_runs", place.sync(&server).run());
    assert_screen!("sync_of_event_files", place.call(["sync", "logs"]).server(&server).run());
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn what_was_looked_for_may_lie_elsewhere() {
    let place = place();
    place.import_offline(["logs"]).run().ok();
    let ended = place.call(["import", "out", "--mode", "offline"]).run().code(9);
    assert!(ended.stderr.contains("1 log of W&B runs: `wandb-bridge sync`"), "{}", ended.screen());
    for (call, what) in [
        (place.call(["import", "logs", "--mode", "offline", "--dir", "empty/notes.txt"]), "`--dir` cannot be used"),
        (place.import_offline(["logs"]).args(["--state-dir", "empty/notes.txt"]), "`--state-dir` cannot be used"),
        (with_key(place.call(["artifact", "put", "x", "gone"])), "cannot look at `gone`"),
    ] {
        let ended = call.run().code(2);
        assert!(ended.stderr.contains(what), "{}", ended.screen());
    }
    fs::create_dir(place.path("nothing")).unwrap();
    let ended = place.call(["artifact", "put", "x", "nothing", "--dry-run"]).run().code(9);
    assert!(ended.stderr.contains("there are no files to put in `nothing`"), "{}", ended.screen());
}

/// A script reads what is on stdout, and must not take half of it for all.
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written() {
    let (place, server) = (place(), FakeServer::start());
    let ended = place.import(&server, ["logs"]).arg("--json").on_full_disk().run().code(5);
    assert!(ended.stderr.contains("cannot write to stdout"), "{}", ended.screen());
    // The runs are what matters.
    assert_eq!(server.runs()[0].history.len(), 40);
    place.call(["inspect", "logs"]).on_full_disk().run().code(5);
    place.call(["completions", "bash"]).on_full_disk().run().code(5);
    place.call(["watch", "logs", "--until-idle", "1ms", "--mode", "disabled"]).on_full_disk().run().ok();
    // What the command beside it says of itself comes first.
    let watch =
        place.call(["watch", "logs", "--mode", "offline", "--dir", "other", "--json", "--", "sh", "-c", "exit 7"]);
    watch.on_full_disk().run().code(7);
}

#[test]
fn missing_paths() {
    let place = place();
    assert_screen!("import_of_a_missing_path", place.import_offline(["gone"]).run());
    assert_screen!("inspect_of_a_missing_path", place.call(["inspect", "gone"]).run());
    assert_screen!("sync_of_a_missing_path", with_key(place.call(["sync", "gone"])).run());
    // One that is there changes nothing about one that is not.
    place.import_offline(["logs", "gone"]).run().code(2);
    assert!(!place.path("out").exists());
}

#[test]
fn keys() {
    let place = place();
    let import = || place.call(["import", "logs", "--dir", "out"]);
    assert_screen!("import_without_a_key", import().run());
    assert_screen!("sync_without_a_key", place.call(["sync"]).run());
    assert_screen!("import_with_a_malformed_key", import().env("WANDB_API_KEY", "not a key, s3cret").run());
    let server = FakeServer::builder().key("another-key-000000000000000000000000000000000").start();
    let wrong = import().server(&server).env("WANDB_API_KEY", KEY).args(["-p", "p"]).run();
    assert_screen!("import_with_a_wrong_key", wrong);
    assert!(!wrong.stderr.contains(server.key()));
    // Of many runs, it is said once.
    let many = place.import(&server, [fixture_path("torch")]).env("WANDB_API_KEY", KEY).run().code(4);
    assert_eq!(many.stderr.matches("error:").count(), 1, "{}", many.stderr);
}

#[test]
fn weather() {
    let place = place();
    // Nobody listens there, and no other test will be given that port.
    let nobody = "http://127.0.0.1:1";
    let import = || with_key(place.call(["import", "logs", "--dir", "out", "-p", "p", "--retries", "0"]));
    assert_screen!("import_without_a_network", import().env("WANDB_BASE_URL", nobody).run());
    let server = FakeServer::start();
    server.fault(Fault::status(Route::AnyGraphql, 500).always());
    assert_screen!("import_into_a_broken_server", place.import(&server, ["logs"]).args(["--retries", "0"]).run());
    server.behave();
    server.fault(Fault::html(Route::FileStream, 502).always());
    let ended = place.import(&server, ["logs"]).args(["--retries", "1"]).run();
    assert_eq!(server.requests().iter().filter(|request| request.run.is_some()).count(), 2);
    assert_screen!("import_through_a_broken_proxy", ended);
    server.behave();
    // The hint holds what it promises.
    place.import(&server, ["logs"]).run().ok();
    server.assert_content();
}

#[test]
fn wrong_usage() {
    let place = place();
    assert_screen!("malformed_axis", place.import_offline(["logs"]).args(["--axis", "loss"]).run());
    assert_screen!("unknown_placeholder", place.import_offline(["logs"]).args(["--run-name", "{name}"]).run());
    assert_screen!("unknown_mode", place.call(["import", "logs", "--mode", "later"]).run());
    assert_screen!(
        "variable_that_cannot_be_used",
        place.import_offline(["logs"]).env("WANDB_BRIDGE_LAYOUT", "x").run()
    );
    assert!(!place.path("out").exists());
}

#[test]
fn many_runs_need_a_project() {
    let (place, server) = (Place::new(), FakeServer::start());
    for number in 0..21 {
        place.fixture("torch/ppo/seed0", &format!("logs/exp{number:02}"));
    }
    let import = || place.call(["import", "logs", "--dir", "out"]).server(&server);
    assert_screen!("many_runs_without_a_project", import().run());
    assert_eq!((server.requests().len(), place.path("out").exists()), (0, false));
    import().env("WANDB_PROJECT", "p").run().ok();
    assert_eq!(server.runs().len(), 21);
    // Recorded offline they may wait for a choice.
    Place::new().import_offline([place.path("logs")]).run().ok();
}

#[test]
fn a_held_run() {
    let (place, server) = (place(), FakeServer::start());
    place.import(&server, ["logs"]).run().ok();
    let state = place.log().parent().unwrap().join(".wandb-bridge");
    let held = Lock::take(&state.join("writer.lock"), Locking::Required).unwrap();
    let ended = place.import(&server, ["logs"]).run();
    let screen = ended.screen();
    // The holder is this very test.
    assert!(screen.contains(&std::process::id().to_string()), "{screen}");
    assert_eq!(ended.code, Some(11));
    assert!(screen.contains("hint: wait for the other process"), "{screen}");
    assert!(screen.contains("to try again: `wandb-bridge import --dir out -p p logs`"), "{screen}");
    drop(held);

    let upload = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
    let upload = upload.into_iter().find(|path| path.to_string_lossy().contains("upload-")).unwrap();
    let held = Lock::take(&upload.with_extension("lock"), Locking::Required).unwrap();
    let before = server.requests().len();
    place.sync(&server).arg("--include-synced").run().code(11);
    assert_eq!(server.requests().len(), before);
    drop(held);
    place.import(&server, ["logs"]).run().ok();
}

#[test]
fn successes() {
    let (place, server) = (place(), FakeServer::start());
    assert_screen!("import_online", place.import(&server, ["logs"]).run());
    assert_screen!("import_online_again", place.import(&server, ["logs"]).run());
    let place = self::place();
    assert_screen!("import_offline", place.import_offline(["logs"]).args(["-p", "p"]).run());
    assert_screen!("import_offline_json", place.import_offline(["logs"]).arg("--json").run());
    assert_screen!("sync_dry_run", place.sync(&server).arg("--dry-run").run());
    let other = FakeServer::start();
    assert_screen!("sync", place.sync(&other).run());
    assert_screen!("sync_again", place.sync(&other).run());
    assert_screen!("inspect_event_files", place.call(["inspect", "logs"]).run());
    assert_screen!("inspect_log", place.call(["inspect", "out"]).run());
    assert_screen!("inspect_damage", place.call(["inspect"]).arg(fixture_path("damaged/torn_middle")).run());
    assert_screen!("import_disabled", place.call(["import", "logs", "--mode", "disabled"]).run());
    let quiet = place.import_offline(["logs"]).arg("--quiet").run().ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn a_run_that_cannot_be_carried_whole() {
    let place = Place::new();
    place.fixture("mixed/torch", "logs");
    fs::remove_dir_all(place.path("logs/1784016735.2500048")).unwrap();
    assert_screen!("import_of_other_kinds", place.import_offline(["logs"]).run());
}

#[test]
fn other_options_than_before() {
    let place = place();
    place.import_offline(["logs"]).run().ok();
    assert_screen!("import_with_another_axis", place.import_offline(["logs"]).args(["--axis", "*=frame"]).run());
}

/// Fields of an object, and of the objects in it.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                found.insert(name.clone());
                // Kinds of data are names of `kinds`, not fields.
                let values = if name == "kinds" {
                    value.as_object().into_iter().flat_map(|kinds| kinds.values()).collect()
                } else {
                    vec![value]
                };
                values.into_iter().for_each(|value| fields(value, found));
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn every_field_of_json_is_documented() {
    let (place, server) = (place(), FakeServer::start());
    place.fixture("damaged", "logs/damaged");
    let artifact = ["--artifact", "notes:n=*"];
    let mut printed = Vec::new();
    for call in [
        place.import(&server, ["logs", "--dry-run"]).args(artifact),
        place.import_offline(["logs"]).args(["-p", "p"]),
        place.sync(&server).arg("--dry-run").args(artifact),
        place.sync(&server).args(artifact),
        place.call(["artifact", "put", "a", "empty", "--exclude", "x", "-p", "p"]).server(&server),
    ] {
        printed.extend(call.arg("--json").run().json());
    }
    let documented = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/json.md")).unwrap();
    let words: BTreeSet<&str> =
        documented.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).chain(["type"]).collect();
    let mut found = BTreeSet::new();
    printed.iter().for_each(|object| fields(object, &mut found));
    let missing: Vec<&String> = found.iter().filter(|field| !words.contains(field.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(["attached", "kinds", "rows_before", "first", "was_there"].iter().all(|field| found.contains(*field)));
    // The states of all runs add up.
    for summary in printed.iter().filter(|object| object["type"] == "summary" && object["synced"].is_u64()) {
        let states = ["synced", "running", "offline", "partial", "failed", "skipped_runs"];
        let sum: u64 = states.iter().map(|state| summary[state].as_u64().unwrap()).sum();
        assert_eq!(summary["runs"], sum, "{summary}");
    }
}
