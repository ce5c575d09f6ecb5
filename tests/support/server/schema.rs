//! The answers to GraphQL fields: what the official client asks for, and what the server then holds.
//!
//! Each root field is one function from arguments to the whole answer; `graphql.rs` cuts it to what was asked for.

use serde_json::{Map, Value, json};
use wandb_bridge::model::Json;

use super::Options;
use super::artifacts::Artifact;
use super::graphql::{Field, Operation};
use super::public;
use super::state::{Alert, Grant, RunKey, RunSnapshot, RunStatus, Target, ViolationKind, World, path_of};

/// What the answers need besides what is held.
pub struct Context<'a> {
    pub world: &'a mut World,
    pub options: &'a Options,
    /// Where the server listens.
    pub url: &'a str,
}

/// Answers a whole operation; the error is a GraphQL error.
pub fn answer(context: &mut Context, operation: &Operation) -> Result<Value, String> {
    let mut data = Map::new();
    for field in &operation.fields {
        let Some(value) = context.resolve(field)? else {
            context.world.unknown_operations.insert(operation.name.clone());
            return Err(format!("cannot query field `{}`: the server does not know it", field.name));
        };
        data.insert(field.key.clone(), field.cut(value)?);
    }
    Ok(Value::Object(data))
}

const UPSERT_INPUT: [&str; 20] = [
    "id",
    "name",
    "groupName",
    "modelName",
    "entityName",
    "description",
    "displayName",
    "notes",
    "config",
    "commit",
    "host",
    "debug",
    "jobProgram",
    "jobRepo",
    "jobType",
    "state",
    "sweep",
    "tags",
    "summaryMetrics",
    "clientMutationId",
];

impl Context<'_> {
    fn resolve(&mut self, field: &Field) -> Result<Option<Value>, String> {
        let input = field.argument("input").and_then(Value::as_object).cloned().unwrap_or_default();
        let input = Input(input);
        Ok(Some(match field.name.as_str() {
            "viewer" => self.viewer(),
            "serverInfo" => self.server_info(),
            "upsertBucket" => self.upsert_bucket(&input)?,
            "rewindRun" => self.rewind_run(&input)?,
            "model" | "project" => self.project(field),
            "entity" => self.entity(field),
            "createRunFiles" => self.create_run_files(&input)?,
            "markRunFilesUploaded" => self.mark_run_files_uploaded(&input)?,
            "notifyScriptableRunAlert" => self.alert(&input)?,
            "createArtifact" => self.create_artifact(&input)?,
            "createArtifactManifest" => self.create_artifact_manifest(&input)?,
            "updateArtifactManifest" => self.update_artifact_manifest(&input)?,
            "createArtifactFiles" => self.create_artifact_files(&input)?,
            "completeMultipartUploadArtifact" => self.complete_multipart(&input)?,
            "commitArtifact" => self.commit_artifact(&input)?,
            "useArtifact" => self.use_artifact(&input)?,
            "linkArtifact" => json!({"versionIndex": 0}),
            "artifact" => self.artifact_by_id(field),
            "clientIDMapping" => self.client_id_mapping(field),
            _ => return Ok(None),
        }))
    }

    fn viewer(&self) -> Value {
        let entity = &self.options.entity;
        let teams = json!({"edges": [{"node": {"name": entity}}]});
        json!({
            "id": "VXNlcjox", "entity": entity, "username": entity, "email": "someone@example.com",
            "name": entity, "admin": false, "flags": "{}", "teams": teams,
        })
    }

    fn server_info(&self) -> Value {
        let features = self.options.features.iter();
        let features: Vec<Value> = features.map(|name| json!({"name": name, "isEnabled": true})).collect();
        let latest = json!({"outOfDate": false, "latestVersionString": "", "versionOnThisInstanceString": ""});
        json!({"features": features, "cliVersionInfo": {"max_cli_version": "99"}, "latestLocalVersionInfo": latest})
    }

    /// Entity and project as a run of theirs is kept under.
    pub fn place(&self, entity: Option<String>, project: Option<String>) -> (String, String) {
        (
            entity.filter(|name| !name.is_empty()).unwrap_or_else(|| self.options.entity.clone()),
            project.filter(|name| !name.is_empty()).unwrap_or_else(|| "uncategorized".to_owned()),
        )
    }

    fn key(&self, input: &Input) -> Result<RunKey, String> {
        let (entity, project) = self.place(input.text("entityName"), input.text("projectName"));
        let key = (entity, project, input.text("runName").ok_or("`runName` is missing")?);
        if self.world.run_at(&key).is_some() { Ok(key) } else { Err(format!("run {} not found", path_of(&key))) }
    }

    fn upsert_bucket(&mut self, input: &Input) -> Result<Value, String> {
        if let Some(unknown) = input.0.keys().find(|name| !UPSERT_INPUT.contains(&name.as_str())) {
            return Err(format!("field `{unknown}` is not defined by type UpsertBucketInput"));
        }
        let by_id = input
            .text("id")
            .and_then(|id| self.world.runs.values().find(|run| run.storage_id == id).map(RunSnapshot::key));
        let key = match (by_id, input.text("name")) {
            (Some(key), _) => key,
            (None, Some(name)) => {
                let (entity, project) = self.place(input.text("entityName"), input.text("modelName"));
                (entity, project, name)
            }
            (None, None) => return Err("neither `id` nor `name` of a run".to_owned()),
        };
        let path = path_of(&key);
        if let Some(text) = input.text("config") {
            let shells = Json::parse(&text).ok();
            let shells = shells.as_ref().and_then(Json::as_object);
            if !shells.is_some_and(|shells| shells.values().all(|shell| shell.get("value").is_some())) {
                self.world.complain(ViolationKind::BadRequest, &path, format!("not a config: {text}"));
            }
        }
        let inserted = !self.world.runs.contains_key(&path);
        let count = self.world.runs.len() + 1;
        let run = self.world.runs.entry(path.clone()).or_insert_with(|| RunSnapshot {
            storage_id: storage_id(&key),
            entity: key.0.clone(),
            project: key.1.clone(),
            id: key.2.clone(),
            display_name: format!("still-run-{count}"),
            config: "{}".to_owned(),
            ..RunSnapshot::default()
        });
        run.upserts += 1;
        run.complete = false;
        run.completing = None;
        run.exit_code = None;
        run.status = RunStatus::Running;
        input.replace("groupName", &mut run.group);
        input.replace("jobType", &mut run.job_type);
        input.replace("notes", &mut run.notes);
        input.replace("host", &mut run.host);
        input.replace("sweep", &mut run.sweep);
        input.replace("commit", &mut run.commit);
        input.replace("jobRepo", &mut run.repo);
        input.replace("jobProgram", &mut run.program);
        input.replace("summaryMetrics", &mut run.summary);
        if let Some(config) = input.text("config") {
            run.config = config;
        }
        if let Some(name) = input.text("displayName").filter(|name| !name.is_empty()) {
            run.display_name = name;
        }
        if let Some(tags) = input.texts("tags") {
            run.tags = tags;
        }
        Ok(json!({"bucket": bucket(run), "inserted": inserted}))
    }

    fn rewind_run(&mut self, input: &Input) -> Result<Value, String> {
        let key = self.key(input)?;
        if input.text("metricName").as_deref() != Some("_step") {
            return Err("only `_step` can be rewound".to_owned());
        }
        let step = input.0.get("metricValue").and_then(Value::as_f64).ok_or("`metricValue` is missing")?;
        let run = self.world.run_mut(&key).ok_or("no such run")?;
        run.rewind(step);
        Ok(json!({"rewoundRun": bucket(run)}))
    }

    /// `model` and `project` are two names of one thing, as are `bucket` and `run` in it.
    fn project(&self, field: &Field) -> Value {
        let (entity, project) = self.place(field.text("entityName"), field.text("name"));
        let mut answer = json!({
            "id": "UHJvamVjdDox", "name": project, "entity": {"id": "RW50aXR5OjE=", "name": entity}, "readOnly": false,
        });
        let artifact = field.child("artifact").and_then(|asked| asked.text("name"));
        let artifact = artifact.and_then(|name| self.world.artifact(name.split(':').next().unwrap_or_default()));
        answer["artifact"] = artifact.map_or(
            Value::Null,
            |artifact| json!({"id": artifact.id, "digest": artifact.digest, "artifactType": {"name": artifact.kind}}),
        );
        if let Some(asked) = field.child("artifactType") {
            let is_here = |artifact: &&Artifact| artifact.entity == entity && artifact.project == project;
            let there: Vec<&Artifact> = self.world.artifacts.iter().filter(is_here).collect();
            answer["artifactType"] = public::artifact_type(&there, asked);
        }
        for name in ["bucket", "run"] {
            let asked = field.child(name);
            let id = asked.and_then(|asked| asked.text("name")).unwrap_or_default();
            let run = self.world.run_at(&(entity.clone(), project.clone(), id));
            answer[name] = match (run, asked) {
                (Some(run), Some(asked)) => run_status(run, asked, self.world.stopped.contains(&run.id)),
                _ => Value::Null,
            };
        }
        answer
    }

    fn entity(&self, field: &Field) -> Value {
        let organization = json!({"name": "org", "coreWeaveOrganizationId": null, "orgEntity": {"name": "org"}});
        json!({"id": "RW50aXR5OjE=", "name": field.text("name"), "organization": organization})
    }

    fn create_run_files(&mut self, input: &Input) -> Result<Value, String> {
        let key = self.key(input)?;
        let mut files = Vec::new();
        for name in input.texts("files").ok_or("`files` is missing")? {
            if name.starts_with('/')
                || name.contains('\\')
                || name.split('/').any(|part| part == ".." || part.is_empty())
            {
                self.world.complain(ViolationKind::BadRequest, &path_of(&key), format!("unsafe file name {name:?}"));
            }
            let target = Target::RunFile { run: key.clone(), path: name.clone() };
            let place = format!("{}/{}/{}/{}", key.0, key.1, key.2, name);
            let headers = self.options.upload_headers.clone();
            let url = self.grant(&place, target, headers);
            files.push(json!({"name": name, "uploadUrl": url}));
        }
        let storage_id = &self.world.run_at(&key).ok_or("no such run")?.storage_id;
        Ok(json!({"runID": storage_id, "uploadHeaders": self.options.upload_headers, "files": files}))
    }

    fn mark_run_files_uploaded(&mut self, input: &Input) -> Result<Value, String> {
        let key = self.key(input)?;
        let run = self.world.run_mut(&key).ok_or("no such run")?;
        run.reported.extend(input.texts("files").unwrap_or_default());
        Ok(json!({"success": true}))
    }

    fn alert(&mut self, input: &Input) -> Result<Value, String> {
        let key = self.key(input)?;
        let run = self.world.run_mut(&key).ok_or("no such run")?;
        run.alerts.push(Alert {
            title: input.text("title").ok_or("`title` is missing")?,
            text: input.text("text").ok_or("`text` is missing")?,
            severity: input.text("severity").unwrap_or_else(|| "INFO".to_owned()),
            wait_duration: input.0.get("waitDuration").cloned().unwrap_or_default(),
        });
        Ok(json!({"success": true}))
    }

    /// Gives out an address for uploading something.
    pub fn grant(&mut self, place: &str, target: Target, headers: Vec<String>) -> String {
        let signature = format!("{:016x}", (self.world.grants.len() as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        self.world.grants.insert(signature.clone(), Grant { target, headers });
        format!("{}/storage/{}?signature={signature}", self.url, escape(place))
    }
}

/// The arguments of a mutation.
pub struct Input(pub Map<String, Value>);

impl Input {
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.as_str().map(str::to_owned)
    }

    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        let texts = self.0.get(name)?.as_array()?.iter();
        Some(texts.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Null leaves a field as it is.
    fn replace(&self, name: &str, place: &mut Option<String>) {
        if let Some(text) = self.text(name) {
            *place = Some(text);
        }
    }
}

fn storage_id((entity, project, id): &RunKey) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(format!("Run:v1:{id}:{project}:{entity}"))
}

fn bucket(run: &RunSnapshot) -> Value {
    let project =
        json!({"id": "UHJvamVjdDox", "name": run.project, "entity": {"id": "RW50aXR5OjE=", "name": run.entity}});
    json!({
        "id": run.storage_id, "name": run.id, "displayName": run.display_name, "description": null,
        "config": run.config, "sweepName": run.sweep, "project": project, "historyLineCount": run.history.len(),
        "notes": run.notes, "tags": run.tags, "groupName": run.group, "jobType": run.job_type,
    })
}

fn run_status(run: &RunSnapshot, asked: &Field, stopped: bool) -> Value {
    let tail = |lines: &[String]| json!(lines.split_at(lines.len().saturating_sub(2)).1).to_string();
    let mut answer = bucket(run);
    answer["summaryMetrics"] = json!(run.summary.as_deref().unwrap_or("{}"));
    answer["logLineCount"] = json!(run.console.len());
    answer["eventsLineCount"] = json!(run.events.len());
    answer["historyTail"] = json!(tail(&run.history));
    answer["eventsTail"] = json!(tail(&run.events));
    answer["stopped"] = json!(stopped);
    answer["state"] = json!(run.status);
    let keys = asked.child("wandbConfig").and_then(|field| field.argument("keys")).and_then(Value::as_array).cloned();
    let config = run.config_value();
    let inner = config.get("_wandb").and_then(Json::as_object).cloned().unwrap_or_default();
    let wanted = |key: &str| keys.as_ref().is_none_or(|keys| keys.iter().any(|wanted| wanted == key));
    public::add_to_run(&mut answer, run, asked);
    answer["wandbConfig"] = json!(Json::Object(inner.into_iter().filter(|(key, _)| wanted(key)).collect()).to_string());
    answer
}

/// Escapes a path for a URL, slashes kept.
fn escape(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let escaped =
        path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    escaped.collect()
}
