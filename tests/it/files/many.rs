//! Very many files, with few that may be open and with bounded memory.
//!
//! `MANY_FILES` sets how many; the default fits into a minute on two cores.

use std::fs;
use std::path::Path;

use wandb_bridge::tfevents::EventFile;

use super::harness::{first_record, scalar_event};
use crate::support::bridge::{Call, Place};

fn many(default: usize) -> usize {
    std::env::var("MANY_FILES").ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

const START: f64 = 1_784_016_000.0;

/// A file of three values, long times apart, whose name and first record no other has.
fn write(directory: &Path, index: usize) {
    let time = START + index as f64 * 0.001;
    let mut bytes = first_record(time);
    bytes.extend(scalar_event(time, 0, "loss", index as f32));
    bytes.extend(scalar_event(time + 100_000.0, 1, "loss", index as f32));
    bytes.extend(scalar_event(time + 200_000.0, 2, "loss", index as f32));
    fs::write(directory.join(format!("events.out.tfevents.1784016000.host.{index:06}")), bytes).unwrap();
}

/// Runs it with so few files that may be open that it notices, and checks the memory that it takes.
fn run_within(call: Call, most_memory: u64) -> serde_json::Value {
    let (ended, peak) = call.with_open_files(64).spawn().wait_and_measure();
    let summary = ended.ok().json_summary();
    eprintln!("peak {} MB, {} s: {}", peak >> 20, summary["seconds"], summary["rows"]);
    assert!(peak < most_memory, "{peak} bytes at most");
    assert_eq!(summary["skipped"], serde_json::json!([]), "{summary}");
    summary
}

#[test]
fn in_many_runs() {
    let (place, count) = (Place::new(), many(2000));
    for index in 0..count {
        let directory = place.path(&format!("logs/{:03}/{index:06}", index / 100));
        fs::create_dir_all(&directory).unwrap();
        write(&directory, index);
    }
    let per_run = 12 << 10;
    let summary = run_within(place.import_offline(["logs"]).arg("--json"), (48 << 20) + count as u64 * per_run);
    let numbers = ["runs", "rows", "events", "offline"].map(|key| summary[key].as_u64().unwrap() as usize);
    assert_eq!(numbers, [count, 3 * count, 3 * count, count]);
    assert_eq!(place.logs().len(), count);
    // All of them are known, and nothing is new.
    let summary = run_within(place.import_offline(["logs"]).arg("--json"), (48 << 20) + count as u64 * per_run);
    assert_eq!(["runs", "rows"].map(|key| summary[key].as_u64().unwrap() as usize), [count, 0]);
}

/// All of them are in the middle at the same time: each has a row that is due before the last one of any other.
#[test]
fn in_one_directory() {
    let (place, count) = (Place::new(), many(20_000));
    fs::create_dir_all(place.path("logs/exp")).unwrap();
    for index in 0..count {
        write(&place.path("logs/exp"), index);
    }
    let per_file = 8 << 10;
    let summary = run_within(place.import_offline(["logs"]).arg("--json"), (48 << 20) + count as u64 * per_file);
    let numbers = ["runs", "rows", "events"].map(|key| summary[key].as_u64().unwrap() as usize);
    assert_eq!(numbers, [1, 3 * count, 3 * count]);
    let summary = run_within(place.import_offline(["logs"]).arg("--json"), (48 << 20) + count as u64 * per_file);
    assert_eq!(["runs", "rows"].map(|key| summary[key].as_u64().unwrap() as usize), [1, 0]);
    let screen = place.call(["inspect", "logs"]).with_open_files(64).run().ok().stdout;
    assert!(screen.contains("exp"), "{}", &screen[..screen.len().min(1000)]);
}

/// It does not depend on this: the files that the tests make are what they claim to be.
#[test]
fn the_files_hold_three_values() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 7);
    let path = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let (mut file, mut tags) = (EventFile::open(&path, &Default::default()).unwrap(), Default::default());
    let mut values = 0;
    while file.next_event(&mut tags).unwrap() == wandb_bridge::tfevents::Next::Event {
        values += file.event().points.len();
    }
    assert_eq!(values, 3);
}
