//! Whole-program tests of files as they really are: damaged, replaced, moved, odd, and very many.
//!
//! Each case says what is intact in its files; the server must hold exactly that, each value once with its step and wall
//! time, and what is not there must be counted with its reason, its file and its byte.

mod damage;
#[allow(clippy::duplicate_mod, reason = "what is in it is for the tests below one module")]
#[path = "watch/harness.rs"]
mod harness;
#[cfg(target_os = "linux")]
mod many;
#[cfg(unix)]
mod odd;
#[cfg(unix)]
mod replaced;
#[cfg(target_os = "linux")]
mod share;
#[cfg(unix)]
mod writers;

use serde_json::Value;

use crate::support::server::{FakeServer, RunSnapshot};
use harness::*;

/// A whole value of a file: its step, which is its value too, and its wall time.
type Point = (i64, f64);

/// The values of one tag that a run holds, in their order: step, value, wall time.
fn cells(run: &RunSnapshot, tag: &str) -> Vec<(i64, f64, f64)> {
    let cell = |line: &String| {
        let row: Value = serde_json::from_str(line).unwrap();
        let number = |key: &str| row[key].as_f64().unwrap();
        Some((row["global_step"].as_i64()?, row.get(tag)?.as_f64().unwrap(), number("_timestamp")))
    };
    run.history.iter().filter_map(cell).collect()
}

/// The bytes of some values.
fn events(tag: &str, points: &[Point]) -> Vec<u8> {
    points.iter().flat_map(|(step, time)| scalar_event(*time, *step, tag, *step as f32)).collect()
}

/// Steps one second apart.
fn seconds(start: f64, steps: std::ops::Range<i64>) -> Vec<Point> {
    steps.map(|step| (step, start + step as f64)).collect()
}

/// Whole seconds, so that wall times are exact in every text.
fn start() -> f64 {
    now().floor() - 60.0
}

/// The run holds exactly these values of a tag.
#[track_caller]
fn assert_holds(server: &FakeServer, name: &str, tag: &str, points: &[Point]) {
    let run = the_run(server, name);
    let expected: Vec<(i64, f64, f64)> = points.iter().map(|(step, time)| (*step, *step as f64, *time)).collect();
    assert_eq!(cells(&run, tag), expected, "`{tag}` of {name}");
}

/// What was not carried, as `--json` says it at the end: reason, count, loss, and the first place.
fn skipped(ended: &Ended) -> Vec<(String, u64, bool, String)> {
    let summary: Value = serde_json::from_str(ended.out.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", ended.out, ended.err));
    assert_eq!(summary["type"], "summary");
    let skip = |skip: &Value| {
        let text = |key: &str| skip[key].as_str().unwrap().to_owned();
        (text("reason"), skip["count"].as_u64().unwrap(), skip["loss"].as_bool().unwrap(), text("first"))
    };
    summary["skipped"].as_array().unwrap().iter().map(skip).collect()
}
