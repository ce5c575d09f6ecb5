//! Is everything there, once? On the server, and in the run directories.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as State;
use sha2::{Digest as _, Sha256};
use wandb_bridge::checkpoint::Checkpoint;
use wandb_bridge::model::Json;
use wandb_bridge::state_file::place::StateHome;
use wandb_bridge::wandb_format::is_synced;

use super::input::{Point, Points, Stream, Value, points};
use super::log;
use crate::support::official::logs_below;
use crate::support::server::{FakeServer, RunSnapshot, RunStatus, hex};

/// Panics unless the server holds every point of the input once, and the runs are complete.
#[track_caller]
pub(super) fn assert_server_has(server: &FakeServer, streams: &[Stream]) {
    server.assert_content();
    let runs = server.runs();
    let wanted = points(streams);
    let names: Vec<&str> = runs.iter().map(|run| run.display_name.as_str()).collect();
    assert_eq!(sorted(names), sorted(wanted.keys().map(String::as_str).collect::<Vec<_>>()), "runs on the server");
    for run in &runs {
        let hash = |path: &str| {
            let file = run.files.get(path)?;
            assert!(run.reported.contains(path), "{path} was uploaded, and not reported");
            Some(file.sha256.clone())
        };
        let rows = run.history_rows();
        let name = &run.display_name;
        assert_rows(&format!("run {name} on the server"), &rows, hash, &wanted[name]);
        assert_eq!((run.status, run.exit_code), (RunStatus::Finished, Some(0)), "run {name}");
        assert_summary(run, &rows);
        assert_config(run);
        for generated in ["wandb-summary.json", "config.yaml", "wandb-metadata.json"] {
            assert!(run.files.contains_key(generated), "run {name} has no {generated}");
        }
        let summary = Json::parse(&run.files["wandb-summary.json"].text()).unwrap();
        assert_eq!(number(&summary, "_step"), number(&run.summary_value(), "_step"), "run {name}");
    }
}

/// Panics unless every point of the input is in the logs once, and what is kept beside them fits.
#[track_caller]
pub(super) fn assert_recorded(out: &Path, streams: &[Stream]) {
    let wanted = points(streams);
    let logs = logs_below(out);
    let mut names = Vec::new();
    for path in &logs {
        let directory = path.parent().unwrap();
        let checkpoint = Checkpoint::load(&StateHome::default().of(directory))
            .unwrap()
            .unwrap_or_else(|| panic!("{path:?} has no checkpoint"));
        let log = log::read(path);
        let name = checkpoint.description.name.clone();
        assert_eq!(log.length, checkpoint.position.0, "where the log of run {name} ends, and what counts of it");
        assert_eq!(log.next_num, checkpoint.next_num, "the next number in the log of run {name}");
        assert_eq!(log.exit, Some(0), "the exit of run {name}");
        let hash = |file: &str| {
            assert!(log.files.iter().any(|known| known == file), "the log of run {name} does not name {file}");
            Some(hex(&Sha256::digest(fs::read(directory.join("files").join(file)).ok()?)))
        };
        assert_rows(&format!("the log of run {name}"), &log.rows, hash, &wanted[&name]);
        names.push(name);
    }
    assert_eq!(sorted(names), sorted(wanted.keys().cloned().collect::<Vec<_>>()), "recorded runs: {logs:?}");
}

/// Panics if the server holds a row that a crash may still take back: one that is not in a log that counts.
#[track_caller]
pub(super) fn assert_server_is_not_ahead(server: &FakeServer, out: &Path) {
    let runs = server.runs();
    let mut rows: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for path in if out.exists() { logs_below(out) } else { Vec::new() } {
        let directory = path.parent().unwrap();
        if let Some(checkpoint) = Checkpoint::load(&StateHome::default().of(directory)).unwrap() {
            let log = log::read_up_to(&path, checkpoint.position.0 as usize);
            rows.insert(checkpoint.run_id.to_string(), log.rows);
        }
    }
    for run in runs {
        let ours = rows.get(&run.id).map(Vec::as_slice).unwrap_or_default();
        let theirs = run.history_rows();
        let name = &run.display_name;
        assert!(theirs.len() <= ours.len(), "run {name}: {} rows are there, and {} count", theirs.len(), ours.len());
        for (index, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
            assert_eq!(theirs.to_string(), ours.to_string(), "row {index} of run {name}");
        }
    }
}

/// Panics unless the state of every upload says that all was acknowledged.
#[track_caller]
pub(super) fn assert_acknowledged(out: &Path) {
    for log in logs_below(out) {
        let directory = log.parent().unwrap();
        let checkpoint = Checkpoint::load(&StateHome::default().of(directory)).unwrap().unwrap();
        let states = upload_states(directory);
        assert_eq!(states.len(), 1, "upload states of {}", directory.display());
        let state = &states[0]["state"];
        // An exit may be cut off again, so it does not count as read.
        let wanted = checkpoint.ending.unwrap().before_exit.0;
        assert_eq!(state["fold"]["position"], wanted, "what was acknowledged of {}", log.display());
        assert_eq!(state["sent"]["finished"], 0, "{}", log.display());
    }
}

/// Panics unless every log is marked as uploaded.
#[track_caller]
pub(super) fn assert_marked(out: &Path) {
    for log in logs_below(out) {
        assert!(is_synced(&log), "{} does not bear the mark", log.display());
    }
}

pub(super) fn upload_states(directory: &Path) -> Vec<State> {
    let entries = fs::read_dir(directory.join(".wandb-bridge")).unwrap().map(|entry| entry.unwrap().path());
    let is_state = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("upload-") && name.ends_with(".json")
    };
    entries.filter(is_state).map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
}

#[track_caller]
fn assert_rows(what: &str, rows: &[Json], hash: impl Fn(&str) -> Option<String>, wanted: &Points) {
    let mut found: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(number(row, "_step"), Some(index as f64), "`_step` of row {index} of {what}: {row}");
        let step = number(row, "global_step").unwrap_or_else(|| panic!("row {index} of {what} has no axis: {row}"));
        let time = number(row, "_timestamp").unwrap();
        for (key, value) in row.as_object().unwrap() {
            if key.starts_with('_') || key == "global_step" {
                continue;
            }
            let value = match value {
                Json::Number(number) => Value::Number(number.as_f64() as f32),
                Json::Object(_) => Value::Image(image(what, value, &hash)),
                other => panic!("{key} is {other} in row {index} of {what}"),
            };
            found.entry(key.clone()).or_default().push((step as i64, value, time));
        }
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "the metrics of {what}");
    for (key, found) in found {
        let wanted = &wanted[&key];
        assert_points(what, &key, &wanted.by_file(found), &wanted.points);
    }
}

/// Says where two sequences part, rather than showing both.
#[track_caller]
fn assert_points(what: &str, key: &str, found: &[Point], wanted: &[Point]) {
    let same = found.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    let (found_next, wanted_next) = (found.get(same), wanted.get(same));
    assert!(
        found == wanted,
        "{key} of {what} has {} points of {}, and they are the same up to point {same}: there it has {found_next:?} for {wanted_next:?}",
        found.len(),
        wanted.len(),
    );
}

/// The hash of the one file that a picture names.
fn image(what: &str, value: &Json, hash: impl Fn(&str) -> Option<String>) -> String {
    let text = |value: &Json| match value {
        Json::String(text) => text.to_string(),
        other => panic!("not a text: {other}"),
    };
    let Some(Json::Array(names)) = value.get("filenames") else { panic!("not a picture: {value}") };
    assert_eq!(names.len(), 1, "{value}");
    let name = text(&names[0]);
    hash(&name).unwrap_or_else(|| panic!("{what} speaks of {name}, which is not there"))
}

/// The last value of each metric. How long the run lasted is the longest of all rows: the last one may be of a writer that
/// is behind.
#[track_caller]
fn assert_summary(run: &RunSnapshot, rows: &[Json]) {
    let mut last = BTreeMap::new();
    for row in rows {
        last.extend(row.as_object().unwrap().iter().filter(|(key, _)| *key != "global_step"));
    }
    if let Some(row) = rows.iter().max_by(|a, b| number(a, "_runtime").partial_cmp(&number(b, "_runtime")).unwrap()) {
        last.extend(row.as_object().unwrap().get_key_value("_runtime"));
    }
    let summary = run.summary_value();
    for (key, value) in last {
        let found = summary.get(key).unwrap_or_else(|| panic!("the summary of {} has no {key}", run.display_name));
        assert_eq!(found.to_string(), value.to_string(), "{key} in the summary of {}", run.display_name);
    }
}

#[track_caller]
fn assert_config(run: &RunSnapshot) {
    let config = run.config_value();
    assert_eq!(number(&config, "lr"), Some(0.25), "the config of {}: {config}", run.display_name);
    let model = config.get("model").map(ToString::to_string);
    assert_eq!(model.as_deref(), Some(r#"{"name":"tiny"}"#), "the config of {}", run.display_name);
}

fn number(object: &Json, key: &str) -> Option<f64> {
    match object.get(key)? {
        Json::Number(number) => Some(number.as_f64()),
        _ => None,
    }
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}
