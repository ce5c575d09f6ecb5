//! `verify`: a server that holds everything passes, and whatever it lacks is named.

mod command;
mod passes;
mod tampered;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::bridge::{Call, Ended, Place};
use crate::support::events::Writer;
use crate::support::server::FakeServer;

/// `verify --json PATH…`, with what was recorded below `out/`.
fn verify(place: &Place, server: &FakeServer, paths: &[&Path]) -> Call {
    place.call(["verify", "--json", "--dir", "out", "-p", "p"]).args(paths).server(server)
}

/// The lines about runs.
fn lines(ended: &Ended) -> Vec<Value> {
    ended.json().into_iter().filter(|line| line["type"] == "verify").collect()
}

/// The one line about a run.
#[track_caller]
fn line(ended: &Ended) -> Value {
    let lines = lines(ended);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.into_iter().next().unwrap()
}

/// What is missing of a run, in words.
fn missing(line: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let findings = line["missing"].as_array().unwrap().iter();
    findings.map(|it| format!("{} {}: {}", text(&it["what"]), text(&it["name"]), text(&it["why"]))).collect()
}

/// So many rows of `loss` in `logs/run`.
fn scalars(place: &Place, rows: i64) -> PathBuf {
    let mut writer = Writer::new(&place.path("logs/run"));
    writer.scalars("loss", (0..rows).map(|step| (step, step as f32)));
    place.path("logs")
}
