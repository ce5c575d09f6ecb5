//! What the official client's public API asks of a run: rows by steps, files, versions of artifacts.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use wandb_bridge::model::{Json, Number};

use super::artifacts::Artifact;
use super::graphql::Field;
use super::state::RunSnapshot;

/// No page is longer, whatever was asked for.
const LONGEST_PAGE: usize = 20;

/// Adds what is asked of a run besides its own fields.
pub(super) fn add_to_run(answer: &mut Value, run: &RunSnapshot, asked: &Field) {
    let steps = || run.history.iter().filter_map(|line| step_of(line));
    answer["historyKeys"] = json!({"lastStep": steps().max().unwrap_or(-1), "sets": [], "keys": {}});
    answer["fileCount"] = json!(run.files.len());
    if let Some(asked) = asked.child("history") {
        answer["history"] = json!(history(run, asked));
    }
    if let Some(asked) = asked.child("files") {
        let node = |(path, file): (&String, &super::StoredFile)| {
            let md5 = file.bytes.as_ref().map(|bytes| BASE64_STANDARD.encode(Md5::digest(bytes)));
            json!({
                "id": format!("file-of-{path}"), "name": path, "sizeBytes": file.size.to_string(), "md5": md5,
                "mimetype": "", "updatedAt": "2026-01-01T00:00:00", "url": null, "directUrl": null,
            })
        };
        let names: Vec<String> =
            serde_json::from_value(asked.argument("names").cloned().unwrap_or_default()).unwrap_or_default();
        let wanted = |path: &String| names.is_empty() || names.contains(path);
        answer["files"] = page(run.files.iter().filter(|(path, _)| wanted(path)).map(node).collect(), asked);
    }
}

/// The rows from `minStep` to before `maxStep`; of more than `samples`, some of them.
fn history(run: &RunSnapshot, asked: &Field) -> Vec<String> {
    let number = |name: &str, default: i64| asked.argument(name).and_then(Value::as_i64).unwrap_or(default);
    let range = number("minStep", 0)..number("maxStep", i64::MAX);
    let samples = number("samples", 500).max(0) as usize;
    let rows = run.history.iter().filter(|line| step_of(line).is_some_and(|step| range.contains(&step)));
    let mut rows: Vec<String> = rows.cloned().collect();
    if rows.len() > samples {
        let every = rows.len().div_ceil(samples.max(1));
        rows = rows.into_iter().step_by(every).collect();
    }
    rows
}

fn step_of(line: &str) -> Option<i64> {
    match Json::parse(line).ok()?.get("_step")? {
        Json::Number(Number::I64(step)) => Some(*step),
        _ => None,
    }
}

/// The versions of a project's artifacts, by type and name.
pub(super) fn artifact_type(there: &[&Artifact], asked: &Field) -> Value {
    let kind = asked.text("name").unwrap_or_default();
    let of_kind: Vec<&&Artifact> = there.iter().filter(|artifact| artifact.kind == kind).collect();
    let Some(asked) = asked.child("artifactCollection").filter(|_| !of_kind.is_empty()) else { return Value::Null };
    let name = asked.text("name").unwrap_or_default();
    let versions: Vec<&&&Artifact> = of_kind.iter().filter(|artifact| artifact.name == name).collect();
    let Some(asked) = asked.child("artifacts").filter(|_| !versions.is_empty()) else {
        return json!({"name": kind, "artifactCollection": null});
    };
    let node = |artifact: &&&&Artifact| {
        let state = if artifact.version.is_some() { "COMMITTED" } else { "PENDING" };
        json!({"id": artifact.id, "state": state, "digest": artifact.digest, "versionIndex": artifact.version})
    };
    let artifacts = page(versions.iter().map(node).collect(), asked);
    json!({"name": kind, "artifactCollection": {"name": name, "artifacts": artifacts}})
}

/// One page of a connection.
fn page(nodes: Vec<Value>, asked: &Field) -> Value {
    let from = asked.text("after").and_then(|cursor| cursor.parse().ok()).map_or(0, |last: usize| last + 1);
    let first = asked.argument("first").and_then(Value::as_u64).unwrap_or(50) as usize;
    let to = nodes.len().min(from.saturating_add(first.min(LONGEST_PAGE)));
    let edge = |at: usize| json!({"node": nodes[at], "cursor": at.to_string(), "version": null});
    let edges: Vec<Value> = (from..to).map(edge).collect();
    let end = to.checked_sub(1).map(|last| last.to_string());
    json!({
        "edges": edges, "totalCount": nodes.len(),
        "pageInfo": {"endCursor": end, "hasNextPage": to < nodes.len()},
    })
}
