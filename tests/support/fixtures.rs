//! What the fixtures hold, and what runs they should be: written down by hand, and read event by event.
//!
//! Deliberately knows nothing of how the program lays out runs, names keys or chooses axes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use wandb_bridge::model::{Json, Number};
use wandb_bridge::tfevents::{EventFile, FilePosition, Next, TagTable, ValueKind};

use super::bridge::fixture_path;
use super::server::RunSnapshot;

/// What becomes of a directory's tags.
#[derive(Debug, Clone, Copy)]
pub enum Keys {
    Same,
    /// This and a slash come first.
    Prefix(&'static str),
    /// The one tag there has this name.
    Named(&'static str),
}

/// A run that a fixture folder should make.
#[derive(Debug)]
pub struct ExpectedRun {
    pub name: &'static str,
    pub group: Option<&'static str>,
    /// Directories below the folder.
    pub members: &'static [(&'static str, Keys)],
    /// Scalars in it, where the fixtures' README says it; else 0.
    pub scalars: usize,
}

/// Each folder of fixtures with the runs that it makes.
pub const FOLDERS: &[(&str, &[ExpectedRun])] = &[
    (
        "showcase",
        &[
            run("lr-sweep/lr-0.001", Some("lr-sweep"), &[("lr-sweep/lr-0.001", Keys::Same)], 220),
            run("lr-sweep/lr-0.01", Some("lr-sweep"), &[("lr-sweep/lr-0.01", Keys::Same)], 220),
            run(
                "mlp",
                None,
                &[("mlp/train", Keys::Prefix("train")), ("mlp/validation", Keys::Prefix("validation"))],
                140,
            ),
        ],
    ),
    (
        "tensorboardx",
        &[
            run(
                "add_scalars",
                None,
                &[
                    ("add_scalars", Keys::Same),
                    ("add_scalars/losses/policy/actor", Keys::Named("losses/policy/actor")),
                    ("add_scalars/losses/policy/critic", Keys::Named("losses/policy/critic")),
                ],
                90,
            ),
            run("odd_values", None, &[("odd_values", Keys::Same)], 0),
            run("steps_back", None, &[("steps_back", Keys::Same)], 0),
            run("sweep/baseline", Some("sweep"), &[("sweep/baseline", Keys::Same)], 132),
            run("sweep/deep", Some("sweep"), &[("sweep/deep", Keys::Same)], 176),
            run("sweep/wide", Some("sweep"), &[("sweep/wide", Keys::Same)], 154),
            run("two_writers", None, &[("two_writers", Keys::Same)], 40),
        ],
    ),
    (
        "torch",
        &[
            run(
                "add_scalars",
                None,
                &[
                    ("add_scalars", Keys::Same),
                    ("add_scalars/loss_total_train", Keys::Named("loss/total/train")),
                    ("add_scalars/loss_total_valid", Keys::Named("loss/total/valid")),
                ],
                90,
            ),
            run("ppo/seed0", Some("ppo"), &[("ppo/seed0", Keys::Same)], 120),
            run("ppo/seed1", Some("ppo"), &[("ppo/seed1", Keys::Same)], 120),
            run("ppo/seed2", Some("ppo"), &[("ppo/seed2", Keys::Same)], 120),
            run("precise", None, &[("precise", Keys::Same)], 0),
            run("restarted", None, &[("restarted", Keys::Same)], 110),
        ],
    ),
    (
        "keras",
        &[
            run(
                "batches",
                None,
                &[("batches/train", Keys::Prefix("train")), ("batches/validation", Keys::Prefix("validation"))],
                0,
            ),
            run(
                "epochs",
                None,
                &[("epochs/train", Keys::Prefix("train")), ("epochs/validation", Keys::Prefix("validation"))],
                0,
            ),
        ],
    ),
    (
        "tf2",
        &[
            run("dtypes", None, &[("dtypes", Keys::Same)], 0),
            run("eager", None, &[("eager", Keys::Same)], 80),
            run("function", None, &[("function", Keys::Same)], 80),
        ],
    ),
    (
        "tf1",
        &[
            run("supervisor", None, &[("supervisor", Keys::Same)], 100),
            run("tensors", None, &[("tensors", Keys::Same)], 160),
        ],
    ),
    ("gzip", &[run("supervisor", None, &[("supervisor", Keys::Same)], 100)]),
    ("zlib", &[run("supervisor", None, &[("supervisor", Keys::Same)], 100)]),
    (
        "mixed",
        &[
            run("tensorboardx", None, &[("tensorboardx", Keys::Same), ("tensorboardx/hparams_session", Keys::Same)], 4),
            run("torch", None, &[("torch", Keys::Same), ("torch/1784016735.2500048", Keys::Same)], 4),
        ],
    ),
];

const fn run(
    name: &'static str,
    group: Option<&'static str>,
    members: &'static [(&'static str, Keys)],
    scalars: usize,
) -> ExpectedRun {
    ExpectedRun { name, group, members, scalars }
}

/// One scalar of an event file.
#[derive(Debug, Clone)]
pub struct Scalar {
    /// Its name in the run.
    pub key: String,
    pub axis: &'static str,
    pub step: i64,
    pub wall_time: f64,
    pub number: Number,
}

/// What is in the event files of one directory.
#[derive(Debug, Default)]
pub struct Contents {
    /// In the order of the file, one list for each file.
    pub files: Vec<Vec<Scalar>>,
    /// How many values there are of every other kind.
    pub others: BTreeMap<String, u64>,
    /// The first wall time of all.
    pub start: Option<f64>,
}

/// Reads all event files of one directory, its subdirectories left out.
pub fn read(directory: &Path, keys: Keys) -> Contents {
    let mut contents = Contents::default();
    let mut tags = TagTable::default();
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    for path in files {
        let keras = path.extension().is_some_and(|extension| extension == "v2");
        let mut scalars = Vec::new();
        let mut file = EventFile::open(&path, &FilePosition::default()).unwrap();
        while let Next::Event | Next::BadRecord { .. } = file.next_event(&mut tags).unwrap() {
            let event = file.event();
            let wall_time = event.wall_time.seconds();
            contents.start = Some(contents.start.map_or(wall_time, |start| start.min(wall_time)));
            for point in &event.points {
                if point.kind != ValueKind::Scalar {
                    *contents.others.entry(point.kind.name().to_owned()).or_default() += 1;
                    continue;
                }
                scalars.push(Scalar {
                    key: match keys {
                        _ if point.tag.starts_with('_') => format!("tb/{}", point.tag),
                        Keys::Same => point.tag.to_string(),
                        Keys::Prefix(prefix) => format!("{prefix}/{}", point.tag),
                        Keys::Named(name) => name.to_owned(),
                    },
                    axis: if keras && point.tag.starts_with("epoch_") { "epoch" } else { "global_step" },
                    step: event.step.0,
                    wall_time,
                    number: point.number.unwrap(),
                });
            }
        }
        contents.files.push(scalars);
    }
    contents
}

impl ExpectedRun {
    /// All that its directories hold.
    pub fn contents(&self, folder: &str) -> Contents {
        let mut all = Contents::default();
        for (directory, keys) in self.members {
            let one = read(&fixture_path(folder).join(directory), *keys);
            all.files.extend(one.files);
            for (kind, count) in one.others {
                *all.others.entry(kind).or_default() += count;
            }
            all.start = [all.start, one.start].into_iter().flatten().reduce(f64::min);
        }
        all
    }
}

/// The number as its own type reads it from the server's text: two are the same only when all their bits are.
fn bits_as_read(json: &Json, number: Number) -> String {
    let text = json.to_string();
    let bits = match number {
        Number::F32(_) => text.replace("Infinity", "inf").parse::<f32>().map(|value| bits(Number::F32(value))),
        Number::F64(_) => text.replace("Infinity", "inf").parse::<f64>().map(|value| bits(Number::F64(value))),
        Number::I64(_) | Number::U64(_) => return text,
    };
    bits.unwrap_or_else(|_| format!("no number: {text}"))
}

fn bits(number: Number) -> String {
    match number {
        // There are many NaNs, and JSON has one.
        number if number.is_nan() => "NaN".to_owned(),
        Number::F32(value) => format!("f32 {:08x}", value.to_bits()),
        Number::F64(value) => format!("f64 {:016x}", value.to_bits()),
        Number::I64(value) => value.to_string(),
        Number::U64(value) => value.to_string(),
    }
}

/// Tells the first thing in which the server's history, metrics and summary are not what the event files hold.
pub fn check_run(run: &RunSnapshot, contents: &Contents) -> Result<(), String> {
    let rows = run.history_rows();
    // What the server has of each key and step: rows and bits. Taken away one by one.
    let mut there: BTreeMap<(String, i64), Vec<(usize, String)>> = BTreeMap::new();
    let mut wanted = 0;
    let type_of: BTreeMap<&str, Number> =
        contents.files.iter().flatten().map(|scalar| (scalar.key.as_str(), scalar.number)).collect();
    let axis_of: BTreeMap<&str, &str> =
        contents.files.iter().flatten().map(|scalar| (scalar.key.as_str(), scalar.axis)).collect();
    let mut values = 0;
    for (index, row) in rows.iter().enumerate() {
        let members = row.as_object().unwrap();
        if members.get("_step") != Some(&Json::from(i64::try_from(index).unwrap())) {
            return Err(format!("row {index} has `_step` {:?}", members.get("_step")));
        }
        let time = number(members.get("_timestamp"))?;
        let runtime = number(members.get("_runtime"))?;
        let expected_runtime = (time - contents.start.unwrap_or_default()).max(0.0);
        if (runtime - expected_runtime).abs() > 1e-6 {
            return Err(format!("row {index} at {time} has `_runtime` {runtime}, not {expected_runtime}"));
        }
        for (key, value) in members {
            if let Some(axis) = axis_of.get(key.as_str()) {
                let Some(Json::Number(Number::I64(step))) = members.get(*axis) else {
                    return Err(format!("row {index} has `{key}` but no axis `{axis}`: {row}"));
                };
                let read = bits_as_read(value, type_of[key.as_str()]);
                there.entry((key.clone(), *step)).or_default().push((index, read));
                values += 1;
            } else if value.get("_type").is_none()
                && !["_step", "_timestamp", "_runtime", "global_step", "epoch"].contains(&key.as_str())
            {
                return Err(format!("row {index} has `{key}`, which no file holds"));
            }
        }
    }
    for file in &contents.files {
        let mut last_row = 0;
        for scalar in file {
            wanted += 1;
            let here = there.get_mut(&(scalar.key.clone(), scalar.step)).ok_or_else(|| format!("lost: {scalar:?}"))?;
            // The first one that is not earlier than what came before in this file: events never change places.
            let found =
                here.iter().position(|(row, bits_there)| *row >= last_row && *bits_there == bits(scalar.number));
            let found = found.ok_or_else(|| format!("lost, changed or out of order: {scalar:?}, there is {here:?}"))?;
            last_row = here.remove(found).0;
        }
    }
    if values != wanted {
        return Err(format!("the files hold {wanted} scalars, the server has {values}"));
    }
    check_metrics(run, &axis_of)?;
    check_summary(run, &rows, &axis_of)
}

/// Every metric is defined on its axis, by index.
fn check_metrics(run: &RunSnapshot, axis_of: &BTreeMap<&str, &str>) -> Result<(), String> {
    let config = run.config_value();
    let metrics = config.get("_wandb").and_then(|own| own.get("m")).cloned();
    let Some(Json::Array(metrics)) = metrics else { return Err(format!("no metrics in {config}")) };
    let name = |metric: &Json| metric.get("1").and_then(Json::as_str).unwrap_or_default().replace("\\.", ".");
    for (key, axis) in axis_of {
        let metric =
            metrics.iter().find(|metric| name(metric) == *key).ok_or_else(|| format!("`{key}` is not defined"))?;
        let index = match metric.get("5") {
            Some(Json::Number(Number::I64(index))) => usize::try_from(*index).unwrap(),
            other => return Err(format!("`{key}` has no axis: {other:?}")),
        };
        // Counted from 1.
        let found = index.checked_sub(1).and_then(|index| metrics.get(index)).map(name);
        if found.as_deref() != Some(axis) {
            return Err(format!("`{key}` is on {found:?}, not on `{axis}`"));
        }
    }
    let defined = metrics.len();
    let axes: std::collections::BTreeSet<_> = axis_of.values().collect();
    if defined != axis_of.len() + axes.len() {
        return Err(format!("{defined} metrics are defined for {} keys on {axes:?}", axis_of.len()));
    }
    Ok(())
}

/// The summary is what the last rows say.
fn check_summary(run: &RunSnapshot, rows: &[Json], axis_of: &BTreeMap<&str, &str>) -> Result<(), String> {
    let summary = run.summary_value();
    let last = |key: &str| rows.iter().rev().find_map(|row| row.get(key)).cloned().unwrap_or_default();
    for key in axis_of.keys().chain(&["_step", "_timestamp"]) {
        let (there, expected) = (summary.get(key).cloned().unwrap_or_default(), last(key));
        if there.to_string() != expected.to_string() {
            return Err(format!("the summary says `{key}` is {there}, the last row {expected}"));
        }
    }
    Ok(())
}

fn number(json: Option<&Json>) -> Result<f64, String> {
    match json {
        Some(Json::Number(number)) => match *number {
            Number::F64(value) => Ok(value),
            Number::I64(value) => Ok(value as f64),
            _ => Err(format!("{json:?}")),
        },
        _ => Err(format!("no number: {json:?}")),
    }
}
