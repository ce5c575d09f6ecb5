//! The GraphQL operations on a run that an upload needs, as typed calls.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::client::ApiClient;
use crate::api::error::ApiError;
use crate::api::graphql::{Named, Operation, or_null};
use crate::api::patience::Patience;
use crate::api::retry::Call;
use crate::api::storage::split_headers;

/// The variables of `UpsertBucket`. `None` is sent as `null`: leave it alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpsertBucket {
    /// The storage id, when known.
    pub id: Option<String>,
    /// The run id.
    pub name: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// The entity; none is the key's default.
    pub entity: Option<String>,
    /// The group.
    pub group_name: Option<String>,
    /// Never set.
    pub description: Option<String>,
    /// What people see.
    pub display_name: Option<String>,
    /// Notes.
    pub notes: Option<String>,
    /// The git commit.
    pub commit: Option<String>,
    /// The whole config as JSON text.
    pub config: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// Never set.
    pub debug: Option<bool>,
    /// Never set by an uploader.
    pub program: Option<String>,
    /// The git remote.
    pub repo: Option<String>,
    /// The job type.
    pub job_type: Option<String>,
    /// Never set.
    pub state: Option<String>,
    /// The sweep.
    pub sweep: Option<String>,
    /// Labels.
    pub tags: Option<Vec<String>>,
    /// Never set.
    pub summary_metrics: Option<String>,
}

/// The server's answer to `UpsertBucket`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The storage id.
    pub storage_id: String,
    /// The run id that is used from now on.
    pub run_id: String,
    /// The entity as the server names it.
    pub entity: String,
    /// The project as the server names it.
    pub project: String,
    /// What people see.
    pub display_name: String,
    /// How many history lines the server holds.
    pub history_lines: u64,
    /// Whether the server made the run just now.
    pub inserted: bool,
}

/// What the server holds of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunStatus {
    /// The storage id.
    pub storage_id: String,
    /// How many history lines there are.
    pub history_lines: u64,
    /// How many lines of system metrics there are.
    pub events_lines: u64,
    /// How many console lines there are.
    pub console_lines: u64,
    /// The last history line, if the server shows it.
    pub last_history_line: Option<String>,
    /// The text of the summary, if the server shows it.
    pub summary: Option<String>,
    /// The text of the config, each value wrapped, if the server shows it.
    pub config: Option<String>,
}

/// What somebody is to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alert {
    /// The subject.
    pub title: String,
    /// The message.
    pub text: String,
    /// `INFO`, `WARN` or `ERROR`; empty is the server's default.
    pub level: String,
    /// How long others of the same title are to be held back, as the log says it.
    pub wait_duration: i64,
}

/// Where the files of a run are to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFiles {
    /// Headers that every upload must carry.
    pub headers: Vec<(String, String)>,
    /// The URL of each file; a file without one is not wanted.
    pub urls: BTreeMap<String, Option<String>>,
}

const UPSERT_BUCKET: Operation = Operation::new(
        "UpsertBucket",
        "mutation UpsertBucket($id: String, $name: String, $project: String, $entity: String, \
    $groupName: String, $description: String, $displayName: String, $notes: String, $commit: String, $config: JSONString, \
    $host: String, $debug: Boolean, $program: String, $repo: String, $jobType: String, $state: String, $sweep: String, \
    $tags: [String!], $summaryMetrics: JSONString) { upsertBucket(input: {id: $id, name: $name, modelName: $project, \
    entityName: $entity, groupName: $groupName, description: $description, displayName: $displayName, notes: $notes, \
    commit: $commit, config: $config, host: $host, debug: $debug, jobProgram: $program, jobRepo: $repo, jobType: $jobType, \
    state: $state, sweep: $sweep, tags: $tags, summaryMetrics: $summaryMetrics}) { bucket { id name displayName sweepName \
    project { id name entity { id name } } historyLineCount } inserted } }",
)
.tried_as(Call::Upsert);

const RUN_RESUME_STATUS: Operation = Operation::new(
    "RunResumeStatus",
    "query RunResumeStatus($project: String, $entity: String, $name: String!) { \
    model(name: $project, entityName: $entity) { id name entity { id name } bucket(name: $name, missingOk: true) { id name \
    historyLineCount eventsLineCount logLineCount historyTail summaryMetrics config } } }",
);

const REWIND_RUN: Operation = Operation::new(
    "RewindRun",
    "mutation RewindRun($runName: String!, $entity: String, $project: String, $metricName: String!, \
    $metricValue: Float!) { rewindRun(input: {runName: $runName, entityName: $entity, projectName: $project, \
    metricName: $metricName, metricValue: $metricValue}) { rewoundRun { id name displayName config project { id name \
    entity { id name } } historyLineCount } } }",
);

const CREATE_RUN_FILES: Operation = Operation::new(
    "CreateRunFiles",
    "mutation CreateRunFiles($entity: String!, $project: String!, $run: String!, \
    $files: [String!]!) { createRunFiles(input: {entityName: $entity, projectName: $project, runName: $run, files: $files}) \
    { runID uploadHeaders files { name uploadUrl } } }",
);

const ALERT: Operation = Operation::new(
    "NotifyScriptableRunAlert",
    "mutation NotifyScriptableRunAlert($entityName: String!, $projectName: String!, $runName: String!, \
    $title: String!, $text: String!, $severity: AlertSeverity = INFO, $waitDuration: Duration) { \
    notifyScriptableRunAlert(input: {entityName: $entityName, projectName: $projectName, runName: $runName, title: $title, \
    text: $text, severity: $severity, waitDuration: $waitDuration}) { success } }",
);

impl ApiClient {
    /// Makes a run, opens it again, or changes what describes it.
    pub async fn upsert_bucket(&self, run: &UpsertBucket, patience: &impl Patience) -> Result<Bucket, ApiError> {
        let variables = serde_json::to_value(run).unwrap_or_default();
        let answer = self.graphql::<UpsertData>(&UPSERT_BUCKET, Some(variables), patience).await?;
        let (bucket, project, inserted) = answer.needed(|data| {
            let Upserted { bucket, inserted } = data.upsert_bucket?;
            let mut bucket = bucket?;
            let project = bucket.project.take()?;
            Some((bucket, project, inserted == Some(true)))
        })?;
        Ok(Bucket {
            storage_id: bucket.id,
            run_id: bucket.name,
            entity: project.entity.map(|entity| entity.name).unwrap_or_default(),
            project: project.name,
            display_name: bucket.display_name.unwrap_or_default(),
            history_lines: bucket.history_line_count.unwrap_or_default(),
            inserted,
        })
    }

    /// What the server holds of a run; `None` when there is no such run.
    pub async fn run_status(
        &self,
        entity: &str,
        project: &str,
        run_id: &str,
        patience: &impl Patience,
    ) -> Result<Option<RunStatus>, ApiError> {
        let variables = json!({"project": or_null(project), "entity": or_null(entity), "name": run_id});
        let asked = self.graphql::<StatusData>(&RUN_RESUME_STATUS, Some(variables), patience).await;
        let model = match asked {
            // No such project yet: then the run is not there either.
            Err(error) if error.status() == Some(404) => return Ok(None),
            answer => answer?.partial()?.model,
        };
        let Some(bucket) = model.and_then(|model| model.bucket) else { return Ok(None) };
        let tail = bucket.history_tail.and_then(|text| serde_json::from_str::<Vec<String>>(&text).ok());
        Ok(Some(RunStatus {
            storage_id: bucket.id,
            history_lines: bucket.history_line_count.unwrap_or_default(),
            events_lines: bucket.events_line_count.unwrap_or_default(),
            console_lines: bucket.log_line_count.unwrap_or_default(),
            last_history_line: tail.and_then(|mut lines| lines.pop()),
            summary: bucket.summary_metrics,
            config: bucket.config,
        }))
    }

    /// Winds a run back to a step: what came behind it is gone.
    pub async fn rewind(
        &self,
        entity: &str,
        project: &str,
        run_id: &str,
        step: f64,
        patience: &impl Patience,
    ) -> Result<RunStatus, ApiError> {
        let variables = json!({
            "runName": run_id,
            "entity": or_null(entity),
            "project": or_null(project),
            "metricName": "_step",
            "metricValue": step,
        });
        let answer = self.graphql::<RewindData>(&REWIND_RUN, Some(variables), patience).await?;
        let run = answer.needed(|data| data.rewind_run?.rewound_run)?;
        Ok(RunStatus {
            storage_id: run.id,
            history_lines: run.history_line_count.unwrap_or_default(),
            config: run.config,
            ..RunStatus::default()
        })
    }

    /// Tells those who want to know it.
    pub async fn alert(&self, run: &Bucket, alert: &Alert, patience: &impl Patience) -> Result<(), ApiError> {
        let mut variables = json!({
            "entityName": run.entity,
            "projectName": run.project,
            "runName": run.run_id,
            "title": alert.title,
            "text": alert.text,
            "waitDuration": alert.wait_duration,
        });
        if let (false, Some(members)) = (alert.level.is_empty(), variables.as_object_mut()) {
            members.insert("severity".to_owned(), alert.level.as_str().into());
        }
        let answer = self.graphql::<Value>(&ALERT, Some(variables), patience).await?;
        answer.needed(|_| Some(()))
    }

    /// Asks where files are to be uploaded.
    pub async fn create_run_files(
        &self,
        run: &Bucket,
        files: &[String],
        patience: &impl Patience,
    ) -> Result<RunFiles, ApiError> {
        let variables = json!({"entity": run.entity, "project": run.project, "run": run.run_id, "files": files});
        let answer = self.graphql::<FilesData>(&CREATE_RUN_FILES, Some(variables), patience).await?;
        let files = answer.needed(|data| data.create_run_files)?;
        Ok(RunFiles {
            headers: split_headers(files.upload_headers),
            urls: files.files.into_iter().map(|file| (file.name, file.upload_url)).collect(),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpsertData {
    upsert_bucket: Option<Upserted>,
}

#[derive(Deserialize)]
struct Upserted {
    bucket: Option<BucketNode>,
    inserted: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BucketNode {
    id: String,
    name: String,
    display_name: Option<String>,
    project: Option<ProjectNode>,
    history_line_count: Option<u64>,
}

#[derive(Deserialize)]
struct ProjectNode {
    name: String,
    entity: Option<Named>,
}

#[derive(Deserialize)]
struct StatusData {
    model: Option<StatusModel>,
}

#[derive(Deserialize)]
struct StatusModel {
    bucket: Option<StatusNode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusNode {
    id: String,
    history_line_count: Option<u64>,
    events_line_count: Option<u64>,
    log_line_count: Option<u64>,
    history_tail: Option<String>,
    summary_metrics: Option<String>,
    config: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RewindData {
    rewind_run: Option<RewindNode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RewindNode {
    rewound_run: Option<RewoundRun>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RewoundRun {
    id: String,
    history_line_count: Option<u64>,
    config: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FilesData {
    create_run_files: Option<FilesNode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FilesNode {
    upload_headers: Option<Vec<String>>,
    files: Vec<FileNode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileNode {
    name: String,
    upload_url: Option<String>,
}
