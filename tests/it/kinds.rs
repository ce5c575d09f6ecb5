//! Every kind of value arrives on a server as TensorBoard's own reader finds it in the files, whichever writer wrote it.
//!
//! The fixtures of `every_kind/` are imported once, and read once by TensorBoard. Media are compared by their bytes.

mod bodies;
mod counts;
mod kept;
mod media;
mod memory;
mod numbers;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::bridge::{Ended, Place, fixture_path};
use crate::support::python::script;
use crate::support::server::{FakeServer, RunSnapshot};

/// The writers, each with a folder of its own: the name of its run, too.
const WRITERS: [&str; 4] = ["tensorboardx", "tf1", "tf2", "torch"];

/// The fixtures as an import brings them to a server.
struct Imported {
    /// By name.
    runs: BTreeMap<String, RunSnapshot>,
    ended: Ended,
}

fn imported() -> &'static Imported {
    static IMPORTED: OnceLock<Imported> = OnceLock::new();
    IMPORTED.get_or_init(|| {
        let (place, server) = (Place::new(), FakeServer::start());
        let ended = place.import(&server, [fixture_path("every_kind")]).arg("--json").run();
        server.assert_content();
        let runs = server.runs().into_iter().map(|run| (run.display_name.clone(), run)).collect();
        Imported { runs, ended }
    })
}

/// What TensorBoard reads: TB run → `counts`, `graphs` and `tags`, as `every_kind.py` prints them.
fn read_by_tensorboard() -> &'static BTreeMap<String, Value> {
    static READ: OnceLock<BTreeMap<String, Value>> = OnceLock::new();
    READ.get_or_init(|| {
        let answer = script("every_kind.py").arg(fixture_path("every_kind")).run().ok().stdout;
        serde_json::from_str(&answer).unwrap()
    })
}

/// A tag of one kind: what TensorBoard reads of it, and the run that it should be in.
struct Tag {
    /// Writer and tag, for messages.
    what: String,
    name: &'static str,
    points: &'static [Value],
    run: &'static RunSnapshot,
}

/// All tags of a kind, of all writers. There are at least that many points of it.
#[track_caller]
fn tags(kind: &str, at_least: usize) -> Vec<Tag> {
    let mut tags = Vec::new();
    for writer in WRITERS {
        let run = &imported().runs[writer];
        for (name, points) in read_by_tensorboard()[writer]["tags"].as_object().unwrap() {
            let points = points.as_array().unwrap().as_slice();
            if points[0]["kind"] == kind {
                tags.push(Tag { what: format!("{writer}, `{name}`"), name, points, run });
            }
        }
    }
    let count: usize = tags.iter().map(|tag| tag.points.len()).sum();
    assert!(count >= at_least, "{count} points of {kind}");
    tags
}

impl Tag {
    /// The cells of its key, in the order of the rows, which are to stand at those of its points that make a cell.
    #[track_caller]
    fn cells(&self, makes_a_cell: impl Fn(&Value) -> bool) -> Vec<(&'static Value, Value)> {
        let points: Vec<&Value> = self.points.iter().filter(|point| makes_a_cell(point)).collect();
        let cells = column(self.run, self.name);
        let steps: Vec<&Value> = points.iter().map(|point| &point["step"]).collect();
        let rows: Vec<&Value> = cells.iter().map(|(step, _)| step).collect();
        assert_eq!(rows, steps, "{}: steps of its rows", self.what);
        points.into_iter().zip(cells.into_iter().map(|(_, cell)| cell)).collect()
    }
}

/// The rows that hold a key: step and value.
fn column(run: &RunSnapshot, key: &str) -> Vec<(Value, Value)> {
    let cell = |row: &Value| Some((row["global_step"].clone(), row.get(key)?.clone()));
    rows(run).iter().filter_map(cell).collect()
}

fn rows(run: &RunSnapshot) -> Vec<Value> {
    run.history.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The paths of all files that a value speaks of, in order.
fn paths(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(paths).collect(),
        Value::Object(members) => {
            let named = members.iter().flat_map(|(key, member)| match (key.as_str(), member) {
                ("path", Value::String(path)) => vec![path.clone()],
                // In a list of bodies they are the objects' own names once more, without their directory.
                ("filenames", Value::Array(names)) if value["_type"] == "object3D" => {
                    let objects = value["objects"].as_array().unwrap().iter();
                    let named = objects.map(|object| object["path"].as_str().unwrap().strip_prefix("media/object3D/"));
                    assert_eq!(named.collect::<Vec<_>>(), names.iter().map(Value::as_str).collect::<Vec<_>>());
                    Vec::new()
                }
                ("filenames", Value::Array(names)) => {
                    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
                }
                (_, member) => paths(member),
            });
            named.collect()
        }
        _ => Vec::new(),
    }
}

/// Digest and size of each file that a value speaks of, as they are on the server.
#[track_caller]
fn files(run: &RunSnapshot, cell: &Value) -> Vec<(String, usize)> {
    let file = |path: &String| {
        let file = run.files.get(path).unwrap_or_else(|| panic!("there is no `{path}`, which a row speaks of: {cell}"));
        (file.sha256.clone(), file.size)
    };
    paths(cell).iter().map(file).collect()
}

/// The same of what TensorBoard read.
fn expected_files(files: &Value) -> Vec<(String, usize)> {
    let file = |file: &Value| {
        (file["sha256"].as_str().unwrap().to_owned(), file["size"].as_u64().unwrap().try_into().unwrap())
    };
    files.as_array().unwrap().iter().map(file).collect()
}

/// The text of the one file that a value speaks of.
#[track_caller]
fn text(run: &RunSnapshot, cell: &Value) -> String {
    let paths = paths(cell);
    assert_eq!(paths.len(), 1, "{cell}");
    run.files[&paths[0]].text()
}
