//! What the server holds, and what it has to complain about.
//!
//! Plain data under one lock. Lines are kept by offset, as they came; nothing is parsed away, so that tests compare what
//! was really sent. Knows neither HTTP nor GraphQL.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wandb_bridge::model::{Json, Number};

use super::artifacts::{Artifact, Multipart};
use super::fault::{Fault, Storm};

/// Entity, project and id of a run.
pub type RunKey = (String, String, String);

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Upserted, and not complete since. An upsert of a run that was complete makes it run again.
    #[default]
    Running,
    Finished,
    Failed,
    Preempted,
}

/// Everything held about one run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RunSnapshot {
    pub entity: String,
    pub project: String,
    pub id: String,
    pub storage_id: String,
    pub display_name: String,
    pub group: Option<String>,
    pub job_type: Option<String>,
    pub notes: Option<String>,
    pub tags: Vec<String>,
    pub host: Option<String>,
    pub sweep: Option<String>,
    pub commit: Option<String>,
    pub repo: Option<String>,
    pub program: Option<String>,
    /// The text of the config as last sent.
    pub config: String,
    /// The text of the summary line as last sent.
    pub summary: Option<String>,
    pub history: Vec<String>,
    pub events: Vec<String>,
    pub console: Vec<String>,
    /// Lines of files with other names, by name.
    pub other_lines: BTreeMap<String, Vec<String>>,
    pub files: BTreeMap<String, StoredFile>,
    /// The paths that the client reported as uploaded.
    pub reported: BTreeSet<String>,
    pub status: RunStatus,
    pub complete: bool,
    pub exit_code: Option<i64>,
    pub alerts: Vec<Alert>,
    /// File stream requests with nothing in them.
    pub heartbeats: usize,
    pub upserts: usize,
    /// All file stream requests that were carried out.
    pub stream_requests: usize,
    /// History and events lines that were sent again as they were: harmless, but a sign of lost answers.
    pub resent_lines: usize,
    /// Events and console lines that were replaced by others.
    pub rewritten_lines: usize,
    #[serde(skip)]
    pub(super) last_step: Option<i64>,
    #[serde(skip)]
    pub(super) completing: Option<StreamBody>,
}

impl RunSnapshot {
    pub fn key(&self) -> RunKey {
        (self.entity.clone(), self.project.clone(), self.id.clone())
    }

    /// The history as values; `NaN` and the infinities are kept.
    pub fn history_rows(&self) -> Vec<Json> {
        self.history.iter().map(|line| Json::parse(line).unwrap()).collect()
    }

    /// The events lines as values.
    pub fn event_rows(&self) -> Vec<Json> {
        self.events.iter().map(|line| Json::parse(line).unwrap()).collect()
    }

    /// The summary as a value; an empty object where none came.
    pub fn summary_value(&self) -> Json {
        self.summary.as_deref().map_or_else(Json::object, |line| Json::parse(line).unwrap())
    }

    /// The config without its `{"value": …}` shells.
    pub fn config_value(&self) -> Json {
        let config = Json::parse(&self.config).unwrap();
        let members = config.as_object().unwrap().iter();
        Json::Object(
            members.map(|(key, shell)| (key.clone(), shell.get("value").cloned().unwrap_or_default())).collect(),
        )
    }

    /// One key of all rows that have it, in order.
    pub fn column(&self, key: &str) -> Vec<Json> {
        self.history_rows().iter().filter_map(|row| row.get(key).cloned()).collect()
    }
}

/// A file as it arrived.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StoredFile {
    pub size: usize,
    pub sha256: String,
    /// How often it was uploaded.
    pub uploads: usize,
    /// The content, unless it was larger than the server keeps.
    #[serde(skip)]
    pub bytes: Option<bytes::Bytes>,
}

impl StoredFile {
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes.as_ref().unwrap().to_vec()).unwrap()
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Alert {
    pub title: String,
    pub text: String,
    pub severity: String,
    pub wait_duration: Value,
}

/// What a client must not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ViolationKind {
    /// An offset beyond the lines that are held.
    Gap,
    /// A history line was replaced by a different one.
    RewrittenHistory,
    /// A file stream request after `complete`, without an UpsertBucket in between.
    WriteAfterComplete,
    /// Something for a run that was never upserted.
    UnknownRun,
    /// A summary that is not exactly one JSON object at offset 0.
    SummaryShape,
    /// A history or events line that is not a JSON object.
    NotAnObject,
    /// A `_step` that is not larger than the one before.
    StepNotIncreasing,
    /// The key was sent to storage.
    AuthorizationOnStorage,
    /// An upload to an address that was not given out, or without the headers that were.
    BadUpload,
    /// A file was reported as uploaded that never came.
    ReportedWithoutUpload,
    /// A request that a real server could not make sense of.
    BadRequest,
    /// A step of making an artifact in the wrong order, or an artifact that is not whole.
    Artifact,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub kind: ViolationKind,
    pub run: String,
    pub text: String,
}

/// One request as it was seen.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RequestRecord {
    /// Since the start of the server.
    pub at: Duration,
    pub method: String,
    /// Without its query.
    pub path: String,
    /// Of GraphQL requests.
    pub operation: Option<String>,
    /// Of GraphQL requests.
    pub variables: Option<Value>,
    /// Of file stream requests: the run's id.
    pub run: Option<String>,
    /// Of file stream requests: file, offset and number of lines.
    pub lines: Vec<(String, usize, usize)>,
    /// Of file stream requests.
    pub complete: bool,
    /// Size of the body as it was sent.
    pub bytes: usize,
    pub gzip: bool,
    /// The request carried a key.
    pub authorization: bool,
    pub user_agent: String,
    /// A fault decided what the client heard.
    pub faulted: bool,
    /// `None` until it is answered; 0 for a connection that was reset.
    pub status: Option<u16>,
}

/// The body of a file stream request.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamBody {
    #[serde(default)]
    pub files: BTreeMap<String, Chunk>,
    #[serde(default)]
    pub uploaded: Vec<String>,
    pub preempting: Option<bool>,
    pub complete: Option<bool>,
    pub exitcode: Option<i64>,
    /// Lines that a client gave up, and whether it failed: the official client's when it was Python still says so.
    pub dropped: Option<u64>,
    pub failed: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunk {
    pub offset: usize,
    pub content: Vec<String>,
}

impl StreamBody {
    fn is_heartbeat(&self) -> bool {
        *self == Self::default()
    }
}

/// All that the server holds.
#[derive(Debug, Default, Serialize)]
pub struct World {
    pub runs: BTreeMap<String, RunSnapshot>,
    pub artifacts: Vec<Artifact>,
    pub violations: Vec<Violation>,
    /// GraphQL operations that the server does not know, by name.
    pub unknown_operations: BTreeSet<String>,
    pub requests: Vec<RequestRecord>,
    #[serde(skip)]
    pub(super) faults: Vec<Fault>,
    #[serde(skip)]
    pub(super) storm: Option<Storm>,
    #[serde(skip)]
    pub(super) grants: BTreeMap<String, Grant>,
    #[serde(skip)]
    pub(super) stopped: BTreeSet<String>,
    #[serde(skip)]
    pub(super) multiparts: BTreeMap<String, Multipart>,
}

/// An address that was given out for uploading.
#[derive(Debug, Clone)]
pub struct Grant {
    pub target: Target,
    pub headers: Vec<String>,
}

#[derive(Debug, Clone)]
pub enum Target {
    RunFile { run: RunKey, path: String },
    ArtifactFile { artifact: String, name: String, md5: String },
    Manifest { artifact: String },
    Part { upload: String, number: i64 },
}

impl World {
    pub fn run_at(&self, key: &RunKey) -> Option<&RunSnapshot> {
        self.runs.get(&path_of(key))
    }

    pub(super) fn run_mut(&mut self, key: &RunKey) -> Option<&mut RunSnapshot> {
        self.runs.get_mut(&path_of(key))
    }

    /// The run with that id, when there is exactly one.
    pub fn run(&self, id: &str) -> Option<&RunSnapshot> {
        let mut found = self.runs.values().filter(|run| run.id == id);
        let run = found.next();
        assert!(found.next().is_none(), "more than one run has the id {id}: name its project too");
        run
    }

    pub(super) fn complain(&mut self, kind: ViolationKind, run: &str, text: impl Into<String>) {
        self.violations.push(Violation { kind, run: run.to_owned(), text: text.into() });
    }

    /// Carries out one file stream request. `steps` holds what [`steps_of`] said of its history lines.
    pub(super) fn stream(&mut self, key: &RunKey, body: StreamBody, steps: &[Result<Option<i64>, String>]) -> bool {
        let mut complaints = Vec::new();
        let Some(run) = self.run_mut(key) else {
            self.complain(ViolationKind::UnknownRun, &path_of(key), "file stream to a run that was never upserted");
            return false;
        };
        run.stream(body, steps, &mut complaints);
        for (kind, text) in complaints {
            self.complain(kind, &path_of(key), text);
        }
        true
    }

    /// Keeps the bytes of an upload; the error is what a store says to other bytes than were announced.
    pub(super) fn store(&mut self, target: Target, file: StoredFile, body: bytes::Bytes) -> Result<(), String> {
        match target {
            Target::RunFile { run, path } => {
                if let Some(run) = self.run_mut(&run) {
                    let uploads = run.files.get(&path).map_or(0, |file| file.uploads) + 1;
                    run.files.insert(path, StoredFile { uploads, ..file });
                }
                Ok(())
            }
            Target::ArtifactFile { artifact, name, md5 } => self.store_artifact_file(&artifact, name, md5, file, &body),
            Target::Manifest { artifact } => self.store_manifest(&artifact, &body),
            Target::Part { upload, number } => self.store_part(&upload, number, body),
        }
    }
}

/// `entity/project/id`
pub fn path_of((entity, project, id): &RunKey) -> String {
    format!("{entity}/{project}/{id}")
}

/// Checks history lines: each must be an object, and its `_step`, if any, must be whole.
pub fn steps_of(lines: &[String]) -> Vec<Result<Option<i64>, String>> {
    let step = |line: &String| match Json::parse(line) {
        Ok(Json::Object(row)) => match row.get("_step") {
            None => Ok(None),
            Some(Json::Number(Number::I64(step))) => Ok(Some(*step)),
            Some(other) => Err(format!("`_step` is {other}")),
        },
        Ok(_) => Err("not an object".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    lines.iter().map(step).collect()
}

type Complaints = Vec<(ViolationKind, String)>;

impl RunSnapshot {
    fn stream(&mut self, body: StreamBody, steps: &[Result<Option<i64>, String>], complaints: &mut Complaints) {
        self.stream_requests += 1;
        if self.complete {
            // The answer to the last request may have been lost: then it comes again as it was.
            if self.completing.as_ref() != Some(&body) {
                let text = "file stream after `complete` without an UpsertBucket in between";
                complaints.push((ViolationKind::WriteAfterComplete, text.to_owned()));
            }
        }
        if body.is_heartbeat() {
            self.heartbeats += 1;
        }
        if body.complete.is_some() != body.exitcode.is_some() {
            complaints.push((ViolationKind::BadRequest, "`complete` and `exitcode` come together".to_owned()));
        }
        if body.complete == Some(true) {
            self.completing = Some(body.clone());
            self.complete = true;
            self.exit_code = body.exitcode;
            self.status = if body.exitcode == Some(0) { RunStatus::Finished } else { RunStatus::Failed };
        } else if body.preempting == Some(true) {
            self.status = RunStatus::Preempted;
        } else if !self.complete {
            self.status = RunStatus::Running;
        }
        for path in body.uploaded {
            if !self.files.contains_key(&path) {
                complaints.push((ViolationKind::ReportedWithoutUpload, path.clone()));
            }
            self.reported.insert(path);
        }
        for (name, chunk) in body.files {
            self.chunk(&name, chunk, steps, complaints);
        }
    }

    fn chunk(&mut self, name: &str, chunk: Chunk, steps: &[Result<Option<i64>, String>], complaints: &mut Complaints) {
        match name {
            "wandb-summary.json" => {
                let object = chunk.content.last().is_some_and(|line| matches!(Json::parse(line), Ok(Json::Object(_))));
                if chunk.offset != 0 || chunk.content.len() != 1 || !object {
                    let text = format!("{} lines at offset {}: {:?}", chunk.content.len(), chunk.offset, chunk.content);
                    complaints.push((ViolationKind::SummaryShape, text));
                }
                self.summary = chunk.content.into_iter().last().or(self.summary.take());
            }
            "wandb-history.jsonl" => {
                let known = self.history.len().saturating_sub(chunk.offset);
                for (index, step) in steps.iter().enumerate() {
                    let line = chunk.offset + index;
                    match step {
                        Err(why) => {
                            complaints.push((ViolationKind::NotAnObject, format!("history line {line}: {why}")))
                        }
                        Ok(Some(step)) if index >= known => {
                            if let Some(last) = self.last_step.filter(|last| step <= last) {
                                let text = format!("history line {line} has `_step` {step} after {last}");
                                complaints.push((ViolationKind::StepNotIncreasing, text));
                            }
                            self.last_step = self.last_step.max(Some(*step));
                        }
                        Ok(_) => {}
                    }
                }
                let placed = place(name, &mut self.history, chunk, complaints);
                self.resent_lines += placed.same;
                for line in placed.different {
                    let text = format!("history line {line} was replaced by another");
                    complaints.push((ViolationKind::RewrittenHistory, text));
                }
            }
            "wandb-events.jsonl" => {
                for line in &chunk.content {
                    if !matches!(Json::parse(line), Ok(Json::Object(_))) {
                        complaints.push((ViolationKind::NotAnObject, format!("events line {line}")));
                    }
                }
                let placed = place(name, &mut self.events, chunk, complaints);
                self.resent_lines += placed.same;
                self.rewritten_lines += placed.different.len();
            }
            _ => {
                let held = match name {
                    "output.log" => &mut self.console,
                    _ => self.other_lines.entry(name.to_owned()).or_default(),
                };
                self.rewritten_lines += place(name, held, chunk, complaints).different.len();
            }
        }
    }

    /// Drops history behind a step, as a rewind does.
    pub(super) fn rewind(&mut self, step: f64) {
        let steps = steps_of(&self.history);
        let kept = |step_of: &&Result<Option<i64>, String>| {
            step_of.as_ref().is_ok_and(|of| of.is_some_and(|of| of as f64 <= step))
        };
        self.history.truncate(steps.iter().take_while(kept).count());
        self.last_step = steps.iter().take_while(kept).filter_map(|step| step.clone().ok().flatten()).max();
    }
}

#[derive(Default)]
struct Placed {
    same: usize,
    different: Vec<usize>,
}

/// Puts lines where they say they belong.
fn place(name: &str, held: &mut Vec<String>, chunk: Chunk, complaints: &mut Complaints) -> Placed {
    let mut placed = Placed::default();
    if chunk.offset > held.len() {
        let text = format!("`{name}`: offset {} with only {} lines held", chunk.offset, held.len());
        complaints.push((ViolationKind::Gap, text));
        // A hostile offset must not be able to fill the memory.
        if chunk.offset - held.len() > 1_000_000 {
            return placed;
        }
        held.resize(chunk.offset, String::new());
    }
    for (line, text) in (chunk.offset..).zip(chunk.content) {
        match held.get_mut(line) {
            None => held.push(text),
            Some(there) if *there == text => placed.same += 1,
            Some(there) => {
                *there = text;
                placed.different.push(line);
            }
        }
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (World, RunKey) {
        let key = ("e".to_owned(), "p".to_owned(), "r".to_owned());
        let mut world = World::default();
        let run = RunSnapshot { entity: "e".into(), project: "p".into(), id: "r".into(), ..RunSnapshot::default() };
        world.runs.insert(path_of(&key), run);
        (world, key)
    }

    fn send(world: &mut World, key: &RunKey, body: Value) -> Vec<ViolationKind> {
        let body: StreamBody = serde_json::from_value(body).unwrap();
        let steps = body.files.get("wandb-history.jsonl").map(|chunk| steps_of(&chunk.content)).unwrap_or_default();
        world.stream(key, body, &steps);
        world.violations.drain(..).map(|violation| violation.kind).collect()
    }

    fn history(offset: usize, lines: &[&str]) -> Value {
        serde_json::json!({"files": {"wandb-history.jsonl": {"offset": offset, "content": lines}}})
    }

    #[test]
    fn lines_are_kept_by_offset_and_mistakes_are_told() {
        let (mut world, key) = world();
        assert_eq!(send(&mut world, &key, history(0, &[r#"{"_step":0}"#, r#"{"_step":1,"x":NaN}"#])), []);
        assert_eq!(send(&mut world, &key, history(1, &[r#"{"_step":1,"x":NaN}"#, r#"{"_step":2}"#])), []);
        assert_eq!(world.run("r").unwrap().history.len(), 3);
        assert_eq!(world.run("r").unwrap().resent_lines, 1);
        assert_eq!(send(&mut world, &key, history(4, &[r#"{"_step":3}"#])), [ViolationKind::Gap]);
        assert_eq!(send(&mut world, &key, history(0, &[r#"{"_step":9}"#])), [ViolationKind::RewrittenHistory]);
        assert_eq!(send(&mut world, &key, history(5, &[r#"{"_step":3}"#])), [ViolationKind::StepNotIncreasing]);
        assert_eq!(send(&mut world, &key, history(6, &["[]"])), [ViolationKind::NotAnObject]);
        let summary = serde_json::json!({"files": {"wandb-summary.json": {"offset": 1, "content": ["{}"]}}});
        assert_eq!(send(&mut world, &key, summary), [ViolationKind::SummaryShape]);
        let report = serde_json::json!({"uploaded": ["a"]});
        assert_eq!(send(&mut world, &key, report), [ViolationKind::ReportedWithoutUpload]);
    }

    #[test]
    fn nothing_is_written_after_complete() {
        let (mut world, key) = world();
        let last = serde_json::json!({"complete": true, "exitcode": 1});
        assert_eq!(send(&mut world, &key, last.clone()), []);
        assert_eq!(send(&mut world, &key, last), []);
        assert_eq!(world.run("r").unwrap().status, RunStatus::Failed);
        assert_eq!(send(&mut world, &key, serde_json::json!({})), [ViolationKind::WriteAfterComplete]);
        let nobody = ("e".to_owned(), "p".to_owned(), "nobody".to_owned());
        assert_eq!(send(&mut world, &nobody, serde_json::json!({})), [ViolationKind::UnknownRun]);
    }

    #[test]
    fn a_rewind_drops_lines() {
        let (mut world, key) = world();
        send(&mut world, &key, history(0, &[r#"{"_step":0}"#, r#"{"_step":1}"#, r#"{"_step":5}"#]));
        world.run_mut(&key).unwrap().rewind(1.0);
        assert_eq!(send(&mut world, &key, history(2, &[r#"{"_step":2}"#])), []);
        assert_eq!(world.run("r").unwrap().history.len(), 3);
    }
}
