//! TensorBoard's own reader reads the same scalars from event files as arrive on a server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wandb_bridge::model::{Json, Number};

use super::{fixtures, imported_online};
use crate::support::python::script;
use crate::support::server::RunSnapshot;

/// One value of a metric: the step, the number, and the wall time in the bits of an f64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    step: i64,
    value: Bits,
    wall_time: u64,
}

/// A number as the file holds it: exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Bits {
    Single(u32),
    Double(u64),
    Integer(i128),
    Nan,
}

/// The points of a run, by key, in order.
type Points = BTreeMap<String, Vec<Point>>;

/// One point as the script prints it: step, wall time, value, type.
type Printed = (i64, String, Value, String);

/// What TensorBoard reads: TB run → tag → points.
fn read_by_tensorboard() -> BTreeMap<String, Points> {
    let answer = script("event_accumulator.py").arg(fixtures()).run().ok().stdout;
    let answer: BTreeMap<String, BTreeMap<String, Vec<Printed>>> = serde_json::from_str(&answer).unwrap();
    let point = |(step, wall_time, value, dtype): Printed| Point {
        step,
        value: match (dtype.as_str(), value) {
            ("float64", Value::String(bits)) => double(hex(&bits)),
            ("float32" | "float16" | "bfloat16", Value::String(bits)) => single(hex(&bits) as f32),
            (_, Value::Number(number)) => Bits::Integer(number.to_string().parse().unwrap()),
            (dtype, value) => panic!("{dtype}: {value}"),
        },
        wall_time: hex(&wall_time).to_bits(),
    };
    let points = |tags: BTreeMap<String, Vec<_>>| -> Points {
        tags.into_iter().map(|(tag, points)| (tag, points.into_iter().map(point).collect())).collect()
    };
    answer.into_iter().map(|(run, tags)| (run, points(tags))).collect()
}

fn hex(bits: &str) -> f64 {
    f64::from_bits(u64::from_str_radix(bits, 16).unwrap())
}

fn single(value: f32) -> Bits {
    if value.is_nan() { Bits::Nan } else { Bits::Single(value.to_bits()) }
}

fn double(value: f64) -> Bits {
    if value.is_nan() { Bits::Nan } else { Bits::Double(value.to_bits()) }
}

/// From a tag to the key of its history.
type Key = Box<dyn Fn(&str) -> String>;

/// The name of the W&B run that a TB run is part of, and what is done to its tags: in words, for each case there is.
fn place(tb_run: &str) -> (String, Key) {
    for split in ["train", "validation"] {
        if let Some(run) = tb_run.strip_suffix(split).and_then(|run| run.strip_suffix('/')) {
            return (run.to_owned(), Box::new(move |tag| format!("{split}/{tag}")));
        }
    }
    // Sessions that are the config and summary of the run in the directory above.
    for (run, session) in [
        ("mixed/tensorboardx", "hparams_session"),
        ("mixed/torch", "1784016735.2500048"),
        ("every_kind/tensorboardx", "session"),
        ("every_kind/torch", "1784188808.25"),
        ("habits/accelerate/finetune", "1784016006.25"),
        ("habits/add_hparams/trained", "final"),
    ] {
        if tb_run == format!("{run}/{session}") {
            return (run.to_owned(), Box::new(str::to_owned));
        }
    }
    for (run, below) in [
        ("torch/add_scalars", "loss_total_"),
        ("tensorboardx/add_scalars", "losses/policy/"),
        ("habits/lightning/lightning_logs/version_0", "parts_loss_"),
        ("habits/lightning/lightning_logs/version_1", "parts_loss_"),
    ] {
        if let Some(name) = tb_run.strip_prefix(&format!("{run}/{below}")) {
            let name = name.to_owned();
            return (run.to_owned(), Box::new(move |tag| format!("{tag}/{name}")));
        }
    }
    // What W&B keeps for itself moves aside.
    let own = |tag: &str| match tag {
        "_step" => format!("tb/{tag}"),
        other => other.to_owned(),
    };
    (tb_run.to_owned(), Box::new(own))
}

/// The points that should be in each W&B run.
fn expected() -> BTreeMap<String, Points> {
    let mut tensorboard = read_by_tensorboard();
    // TensorBoard reads nothing from compressed files; these hold the records of `tf1/supervisor`.
    for compressed in ["gzip/supervisor", "zlib/supervisor"] {
        assert!(tensorboard[compressed].is_empty());
        tensorboard.insert(compressed.to_owned(), tensorboard["tf1/supervisor"].clone());
    }
    // TensorBoard stops at the record with the wrong payload; the ones behind it are whole.
    let mut whole = tensorboard["torch/ppo/seed0"].clone();
    assert_eq!(tensorboard["damaged/flipped_payload_byte"].values().map(Vec::len).sum::<usize>(), 60);
    for (tag, points) in &tensorboard["damaged/flipped_payload_byte"] {
        assert_eq!(*points, whole[tag][..20]);
    }
    let damaged = whole.get_mut("rollout/ep_rew_mean").unwrap();
    assert_eq!(damaged.remove(20).step, 2000);
    tensorboard.insert("damaged/flipped_payload_byte".to_owned(), whole);
    // Two files by two writers at the same time: TensorBoard reads one after the other, here they are merged by time.
    for points in tensorboard.get_mut("tensorboardx/two_writers").unwrap().values_mut() {
        points.sort_by_key(|point| point.wall_time);
    }

    let mut runs: BTreeMap<String, Points> = BTreeMap::new();
    for (tb_run, tags) in tensorboard {
        if tags.is_empty() {
            continue;
        }
        let (run, key) = place(&tb_run);
        for (tag, points) in tags {
            let there = runs.entry(run.clone()).or_default().entry(key(&tag)).or_default();
            // What a session says at its end comes behind what the run itself said.
            assert!(there.is_empty() || tb_run.ends_with("/final"), "`{tag}` of `{tb_run}` has the key of another");
            there.extend(points);
        }
    }
    runs
}

/// The step axis of each metric, as the run's config defines it.
fn axes(run: &RunSnapshot) -> BTreeMap<String, String> {
    let config = run.config_value();
    let Some(Json::Array(metrics)) = config.get("_wandb").and_then(|own| own.get("m")) else { return BTreeMap::new() };
    let name = |metric: &Json| metric.get("1").and_then(Json::as_str).unwrap().to_owned();
    let with_axis = metrics.iter().filter_map(|metric| match metric.get("5") {
        Some(Json::Number(Number::I64(place))) => {
            // A dot in a name is written as `\.`.
            Some((name(metric).replace("\\.", "."), name(&metrics[usize::try_from(*place - 1).unwrap()])))
        }
        _ => None,
    });
    with_axis.collect()
}

/// Checks a run on the server against what should be in it, and returns how many points it has.
fn check(run: &RunSnapshot, expected: &Points) -> usize {
    let name = &run.display_name;
    let axes = axes(run);
    let mut next: BTreeMap<&str, std::slice::Iter<'_, Point>> =
        expected.iter().map(|(key, points)| (key.as_str(), points.iter())).collect();
    let mut count = 0;
    for (index, row) in run.history_rows().iter().enumerate() {
        let members = row.as_object().unwrap();
        assert_eq!(row.get("_step"), Some(&Json::from(i64::try_from(index).unwrap())), "`{name}`");
        let own = ["_step", "_timestamp", "_runtime"];
        let row_axes: BTreeSet<&str> = members
            .keys()
            .filter(|key| !own.contains(&key.as_str()))
            .filter_map(|key| axes.get(key))
            .map(String::as_str)
            .collect();
        // What is no number is not charted, so its rows may have no metric.
        let axis = row_axes.first().copied().unwrap_or("global_step");
        assert!(row_axes.len() < 2, "`{name}`: row {index} has several axes: {row}");
        let Some(Json::Number(Number::I64(step))) = row.get(axis) else { panic!("`{name}`: row {index}: {row}") };
        let mut latest = f64::NEG_INFINITY;
        let values = members.iter().filter(|(key, _)| !own.contains(&key.as_str()) && key.as_str() != axis);
        let (scalars, others): (Vec<_>, Vec<_>) = values.partition(|(_, value)| value.get("_type").is_none());
        assert!(scalars.is_empty() == row_axes.is_empty(), "`{name}`: row {index} has a number without axis: {row}");
        for (key, value) in scalars {
            let point = next.get_mut(key.as_str()).and_then(Iterator::next);
            let point = point.unwrap_or_else(|| panic!("`{name}`: row {index}: `{key}` is not in the file: {row}"));
            let text = value.to_string();
            let arrived = match point.value {
                Bits::Integer(_) => Bits::Integer(text.parse().unwrap()),
                Bits::Double(_) => double(text.parse().unwrap()),
                Bits::Single(_) => single(text.parse().unwrap()),
                Bits::Nan => double(text.parse().unwrap()),
            };
            assert_eq!((*step, &arrived), (point.step, &point.value), "`{name}`: row {index}: `{key}`: {row}");
            latest = latest.max(f64::from_bits(point.wall_time));
            count += 1;
        }
        let timestamp: f64 = row.get("_timestamp").unwrap().to_string().parse().unwrap();
        // The clocks of these writers do not go back within a step. Values of other kinds may be later.
        let is_time = if others.is_empty() { timestamp.to_bits() == latest.to_bits() } else { timestamp >= latest };
        assert!(is_time, "`{name}`: row {index} at {latest}: {row}");
    }
    for (key, mut rest) in next {
        assert_eq!(rest.next(), None, "`{name}`: `{key}` is not all there");
    }
    count
}

#[test]
fn every_scalar_is_what_tensorboard_reads() {
    let expected = expected();
    let runs: BTreeMap<&str, &RunSnapshot> =
        imported_online().values().map(|run| (run.display_name.as_str(), run)).collect();
    assert_eq!(runs.len(), imported_online().len(), "names differ");
    assert_eq!(runs.keys().copied().collect::<Vec<_>>(), expected.keys().map(String::as_str).collect::<Vec<_>>());
    let check = |(name, points): (&String, &Points)| (name.starts_with("habits/"), check(runs[name.as_str()], points));
    let counts: Vec<(bool, usize)> = expected.iter().map(check).collect();
    let sum = |habits: bool| counts.iter().filter(|(of, _)| *of == habits).map(|(_, count)| count).sum::<usize>();
    assert_eq!(sum(false), 3330);
    assert!(sum(true) > 200, "{}", sum(true));
}
