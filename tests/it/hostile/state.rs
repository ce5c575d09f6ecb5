//! State files that were not written by us, or not whole: the run is left alone or made anew, and nothing outside of it is
//! touched.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{begun, checked};
use crate::support::bridge::Place;
use crate::support::server::FakeServer;

/// A run that was recorded, and more to record.
fn recorded() -> (Place, PathBuf) {
    let place = Place::new();
    let mut writer = begun(&place);
    place.import_offline(["exp"]).run().ok();
    writer.scalars("good", (3..6).map(|step| (step, 2.0)));
    let checkpoint = place.log().parent().unwrap().join(".wandb-bridge/checkpoint.json");
    assert!(checkpoint.is_file());
    (place, checkpoint)
}

/// What is empty is left out of the file, so the last part of the place may be new.
fn set(state: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match state.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        place => place[name] = value,
    }
}

#[test]
fn a_checkpoint_may_say_anything() {
    let huge = json!(u64::MAX);
    for (pointer, value) in [
        ("/state/position", huge.clone()),
        ("/state/position", json!(i64::MAX)),
        ("/state/position", json!(-1)),
        ("/state/position", json!(8)),
        ("/state/state/rows", json!(1_u64 << 59)),
        ("/state/next_num", json!(i64::MIN)),
        ("/state/next_num", json!(i64::MAX)),
        ("/state/generation", json!(u32::MAX)),
        ("/state/run_id", json!("../../../../evil")),
        ("/state/run_id", json!("other")),
        ("/state/state/rows", huge.clone()),
        ("/state/state/rows", json!(-5)),
        ("/state/state/started_at", json!(1e308)),
        ("/state/state/runtime", json!(-1e308)),
        ("/state/state/steps", json!({"good": i64::MAX, "\u{1b}[2J": i64::MIN})),
        ("/state/sources/0/position/offset", huge.clone()),
        ("/state/sources/0/position/offset", json!(13)),
        ("/state/sources/0/seen_size", huge.clone()),
        ("/state/sources/0/label", json!("../../x")),
        ("/state/sources/0/fingerprint", json!("")),
        ("/state/ending/before_exit", huge.clone()),
        ("/state/ending/exit_num", json!(i64::MIN)),
        ("/state/side_files", json!({"../../x": {"size": 1, "modified_ns": 1}})),
        ("/state/saved_events", json!(["../../x"])),
        ("/state/names", json!(vec!["x"; 100_000])),
        ("/state/config", json!("{".repeat(100_000))),
        ("/state/description/name", json!("\u{1b}[2J".repeat(1000))),
        ("/version", json!(99)),
        ("/state", Value::Null),
    ] {
        let (place, path) = recorded();
        let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        set(&mut state, pointer, value.clone());
        fs::write(&path, state.to_string()).unwrap();
        let (ended, peak) = checked(&place, place.import_offline(["exp"]).arg("--json"));
        super::check_peak(peak);
        // 2: another generation was asked for.
        assert!(matches!(ended.code, Some(0..=3)), "{pointer} = {value}: {:?}\n{}", ended.code, ended.stderr);
        let (_, peak) = checked(&place, place.call(["inspect", "out"]));
        super::check_peak(peak);
    }
}

#[test]
fn a_checkpoint_may_be_no_json() {
    for content in [
        "".to_owned(),
        "{".to_owned(),
        "[".repeat(1 << 20),
        "{\"a\":".repeat(1 << 18),
        format!("{{\"version\":1,\"state\":{}}}", "[".repeat(100_000)),
        "\0".repeat(100_000),
        "9".repeat(1 << 20),
    ] {
        let (place, path) = recorded();
        fs::write(&path, &content).unwrap();
        let (ended, peak) = checked(&place, place.import_offline(["exp"]).arg("--json"));
        super::check_peak(peak);
        assert!(matches!(ended.code, Some(0 | 1 | 3)), "{:?}\n{}", ended.code, ended.stderr);
    }
}

#[test]
fn upload_state_may_say_anything() {
    for (pointer, value) in [
        ("/state/fold/position", json!(u64::MAX)),
        ("/state/fold/position", json!(9)),
        ("/state/fold/history_lines", json!(u64::MAX)),
        ("/state/fold/history_lines", json!(1000)),
        ("/state/run/history_base", json!(u64::MAX)),
        ("/state/run/run_id", json!("../../evil")),
        ("/state/run/storage_id", json!("x".repeat(1 << 20))),
        ("/state/sent/files", json!({"../../x": {"size": u64::MAX, "modified_ns": u64::MAX}})),
        ("/state/sent/unreported", json!(["../../x"])),
        ("/state/sent/finished", json!(i32::MIN)),
        ("/state", json!({"fold": null})),
    ] {
        let (place, server) = (Place::new(), FakeServer::start());
        let mut writer = begun(&place);
        place.import(&server, ["exp"]).run().ok();
        writer.scalars("good", (3..6).map(|step| (step, 2.0)));
        let folder = place.log().parent().unwrap().join(".wandb-bridge");
        let path = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                path.extension().is_some_and(|extension| extension == "json") && !path.ends_with("checkpoint.json")
            })
            .unwrap();
        let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        set(&mut state, pointer, value.clone());
        fs::write(&path, state.to_string()).unwrap();
        let call = place.import(&server, ["exp"]).args(["--json", "--retries", "0"]);
        let (ended, peak) = checked(&place, call);
        super::check_peak(peak);
        assert!(matches!(ended.code, Some(0 | 1 | 3 | 5)), "{pointer} = {value}: {:?}\n{}", ended.code, ended.stderr);
        // Whatever it says, no line is there twice.
        for run in server.runs() {
            // A state that knows of more lines than there are leaves empty ones.
            let good = run.history.iter().filter(|line| line.contains("\"good\"")).count();
            assert!(good <= 6, "{pointer} = {value}: {:?}", run.history);
        }
    }
}
