//! Input that is made to do harm: whatever stands in event files, logs, config and state, the program ends as designed,
//! counts what it could not carry, writes nowhere but where it should, and takes no more memory than it says.
//!
//! The bounds are those of `docs/limits.md`.

mod config;
mod corpus;
mod event_files;
mod logs;
mod memory;
mod state;
mod tags;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wandb_bridge::proto::tensorboard::summary::value::Value as Data;
use wandb_bridge::proto::tensorboard::summary_metadata::PluginData;
use wandb_bridge::proto::tensorboard::{Event, Summary, SummaryMetadata, event, summary};

use crate::support::bridge::{Call, Ended, Place};
use crate::support::events::Writer;

/// The most memory that reading takes, whatever small input claims: the program itself, and what one decoded event may
/// have.
const BOUND: u64 = 192 << 20;

/// Runs the program and checks what holds of every input. Returns its peak of memory, too.
#[track_caller]
fn checked(place: &Place, call: Call) -> (Ended, u64) {
    #[cfg(target_os = "linux")]
    let (ended, peak) = call.spawn().wait_and_measure();
    #[cfg(not(target_os = "linux"))]
    let (ended, peak) = (call.run(), 0);
    eprintln!("{} MiB at most", peak >> 20);
    assert!(ended.code.is_some(), "ended by a signal:\n{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("overflow"), "{}", ended.stderr);
    let harmful = |c: char| c.is_control() && c != '\n';
    assert!(!ended.stderr.contains(harmful), "the screen is not clean: {:?}", ended.stderr);
    assert!(!ended.stdout.contains(harmful), "the screen is not clean: {:?}", ended.stdout);
    for file in below(&place.path("")) {
        let relative = file.strip_prefix(place.path("")).unwrap();
        let first = relative.iter().next().unwrap().to_str().unwrap();
        assert!(["exp", "out", "home"].contains(&first), "{relative:?} is not where files belong");
        if let Ok(ours) = relative.strip_prefix("out") {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-+=/".contains(c);
            assert!(ours.to_str().unwrap().chars().all(plain), "{ours:?} is no plain name");
        }
    }
    (ended, peak)
}

/// `import` of `exp/`, offline.
#[track_caller]
fn import(place: &Place) -> (Ended, u64) {
    checked(place, place.import_offline(["exp"]).arg("--json"))
}

/// Checks that reading took no more memory than any small input may.
#[track_caller]
fn check_peak(peak: u64) {
    assert!(peak < BOUND, "{} MiB", peak >> 20);
}

/// How often something was skipped for this reason, and whether that counts as lost.
#[track_caller]
fn skipped(ended: &Ended, reason: &str) -> (u64, bool) {
    let summary = ended.json_summary();
    let lines = summary["skipped"].as_array().unwrap();
    let line = lines.iter().find(|line| line["reason"] == reason).unwrap_or(&Value::Null);
    (line["count"].as_u64().unwrap_or(0), line["loss"].as_bool().unwrap_or(false))
}

/// Counts of a kind: read, sent, kept, lost.
#[track_caller]
fn kind(ended: &Ended, kind: &str) -> [u64; 4] {
    let summary = ended.json_summary();
    ["read", "sent", "kept", "lost"].map(|count| summary["kinds"][kind][count].as_u64().unwrap_or(0))
}

/// All files below a directory; links are not followed.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

/// An event with values.
fn values(step: i64, values: Vec<summary::Value>) -> Event {
    Event { step, what: Some(event::What::Summary(Summary { value: values })), ..Event::default() }
}

/// A value of a tag, of a plugin where that is not empty.
fn value(tag: impl Into<Vec<u8>>, plugin: impl Into<Vec<u8>>, data: Option<Data>) -> summary::Value {
    value_with(tag, plugin, Vec::new(), data)
}

/// The same, with the plugin's own message.
fn value_with(
    tag: impl Into<Vec<u8>>,
    plugin: impl Into<Vec<u8>>,
    content: Vec<u8>,
    data: Option<Data>,
) -> summary::Value {
    let plugin = plugin.into();
    let plugin_data = PluginData { plugin_name: plugin.clone().into(), content: content.into() };
    let metadata = SummaryMetadata { plugin_data: Some(plugin_data), ..SummaryMetadata::default() };
    summary::Value {
        tag: tag.into().into(),
        value: data,
        metadata: (!plugin.is_empty()).then_some(metadata),
        ..summary::Value::default()
    }
}

/// A file in `exp/` with three scalars in it, to which hostile events are appended.
fn begun(place: &Place) -> Writer {
    let mut writer = Writer::new(&place.path("exp"));
    writer.scalars("good", (0..3).map(|step| (step, 1.0)));
    writer
}

/// Checks that the scalars before, and those behind, have arrived.
#[track_caller]
fn check_good(ended: &Ended, count: u64) {
    assert_eq!(kind(ended, "scalars")[1], count, "{}", ended.stdout);
}
