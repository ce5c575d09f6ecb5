//! What a server tells of a run that is there: the questions of the official client's public API, as typed calls.
//!
//! Names and shapes are those of `wandb/apis/public` and of `core/api/graphql/query_runhistory_backend.graphql` (wandb 0.31).
//! Rows are asked for by ranges of `_step`: a range in which there are no more rows than `samples` is answered whole.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::artifacts::ArtifactState;
use crate::api::client::ApiClient;
use crate::api::error::ApiError;
use crate::api::graphql::{Named, Operation, or_null};

/// How many files or versions one answer is to list. A server may list fewer and say that there are more.
const PER_PAGE: u32 = 200;

/// No run has so many pages of anything: a server that says so again and again is not believed.
const MOST_PAGES: usize = 10_000;

/// A run by its names; an empty entity or project is the server's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunName {
    /// The entity.
    pub entity: String,
    /// The project.
    pub project: String,
    /// The id.
    pub run_id: String,
}

/// What a server says of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFacts {
    /// As the server names it.
    pub name: RunName,
    /// What people see.
    pub display_name: String,
    /// `running`, `finished`, `failed`, `crashed`…
    pub state: String,
    /// How many history lines there are.
    pub history_lines: u64,
    /// The largest `_step`, if the server says it.
    pub last_step: Option<i64>,
    /// How many lines of system metrics there are.
    pub events_lines: u64,
    /// How many console lines there are.
    pub console_lines: u64,
    /// The text of the summary.
    pub summary: String,
    /// The text of the config, each value wrapped.
    pub config: String,
}

/// A run, and as much of it as was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunSeen {
    /// What the server says of it.
    pub facts: RunFacts,
    /// Rows, as texts.
    pub rows: Vec<String>,
    /// Its first files.
    pub files: Vec<RunFile>,
    /// Where further files begin ([`ApiClient::run_files`]), if there are more.
    pub more_files: Option<String>,
}

/// A file of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFile {
    /// Its path below the run's `files/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// The MD5 in base64, if the store tells one.
    pub md5: Option<String>,
}

/// A range of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRange {
    /// The least `_step`.
    pub from: i64,
    /// The `_step` behind the last one.
    pub to: i64,
    /// How many rows are wanted at most.
    pub samples: u64,
}

/// A version of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionFacts {
    /// How it stands.
    pub state: ArtifactState,
    /// The digest of its manifest.
    pub digest: String,
}

/// Where rows or files are not wanted, nothing is asked of them.
const RUN: Operation = Operation::new(
    "Run",
    "query Run($project: String, $entity: String, $name: String!, $rows: Boolean!, $minStep: Int64 = 0, \
    $maxStep: Int64 = 0, $pageSize: Int = 0, $files: Boolean!, $fileLimit: Int = 50) { project(name: $project, \
    entityName: $entity) { name entity { name } run(name: $name) { name displayName state config summaryMetrics \
    historyLineCount historyKeys eventsLineCount logLineCount \
    history(minStep: $minStep, maxStep: $maxStep, samples: $pageSize) @include(if: $rows) \
    files(first: $fileLimit) @include(if: $files) { edges { node { name sizeBytes md5 } cursor } \
    pageInfo { endCursor hasNextPage } } } } }",
);

const HISTORY_PAGE: Operation = Operation::new(
    "HistoryPage",
    "query HistoryPage($entity: String!, $project: String!, $run: String!, $minStep: Int64!, \
    $maxStep: Int64!, $pageSize: Int!) { project(name: $project, entityName: $entity) { run(name: $run) { \
    history(minStep: $minStep, maxStep: $maxStep, samples: $pageSize) } } }",
);

const RUN_FILES: Operation = Operation::new(
    "RunFiles",
    "query RunFiles($project: String!, $entity: String!, $name: String!, $fileCursor: String, \
    $fileLimit: Int = 50) { project(name: $project, entityName: $entity) { run(name: $name) { \
    files(after: $fileCursor, first: $fileLimit) { edges { node { name sizeBytes md5 } cursor } \
    pageInfo { endCursor hasNextPage } } } } }",
);

const ARTIFACT: Operation =
    Operation::new("ArtifactByID", "query ArtifactByID($id: ID!) { artifact(id: $id) { state digest } }");

const PROJECT_ARTIFACTS: Operation = Operation::new(
    "ProjectArtifacts",
    "query ProjectArtifacts($entity: String!, $project: String!, $type: String!, \
    $collection: String!, $cursor: String, $perPage: Int = 50) { project(entityName: $entity, name: $project) { \
    artifactType(name: $type) { artifactCollection(name: $collection) { artifacts(after: $cursor, first: $perPage) { \
    pageInfo { endCursor hasNextPage } edges { node { state digest } } } } } } }",
);

impl ApiClient {
    /// Asks about a run, with the rows of a range and the first files, where these are wanted. `None` when it is not there.
    pub async fn run_facts(
        &self,
        run: &RunName,
        range: Option<StepRange>,
        files: bool,
        cancel: &CancellationToken,
    ) -> Result<Option<RunSeen>, ApiError> {
        let mut variables = json!({
            "project": or_null(&run.project), "entity": or_null(&run.entity), "name": run.run_id,
            "rows": range.is_some(), "files": files, "fileLimit": PER_PAGE,
        });
        if let (Some(range), Some(variables)) = (range, variables.as_object_mut()) {
            variables.insert("minStep".to_owned(), range.from.into());
            variables.insert("maxStep".to_owned(), range.to.into());
            variables.insert("pageSize".to_owned(), range.samples.into());
        }
        let asked = self.graphql::<Found<RunNode>>(&RUN, Some(variables), cancel).await;
        let project = match asked {
            // No such project.
            Err(error) if error.status() == Some(404) => return Ok(None),
            answer => answer?.partial()?.project,
        };
        let Some(project) = project else { return Ok(None) };
        let entity = project.entity.map(|entity| entity.name).unwrap_or_default();
        let project_name = project.name.unwrap_or_default();
        let Some(there) = project.run else { return Ok(None) };
        let facts = RunFacts {
            name: RunName { entity, project: project_name, run_id: there.name },
            display_name: there.display_name.unwrap_or_default(),
            state: there.state.unwrap_or_default(),
            history_lines: there.history_line_count.unwrap_or_default(),
            last_step: there.history_keys.as_ref().and_then(last_step),
            events_lines: there.events_line_count.unwrap_or_default(),
            console_lines: there.log_line_count.unwrap_or_default(),
            summary: there.summary_metrics.unwrap_or_default(),
            config: there.config.unwrap_or_default(),
        };
        let (files, more_files) = there.files.map(files_of).unwrap_or_default();
        Ok(Some(RunSeen { facts, rows: there.history.unwrap_or_default(), files, more_files }))
    }

    /// The rows of a run in a range of steps, as texts.
    pub async fn history_page(
        &self,
        run: &RunName,
        range: StepRange,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, ApiError> {
        let variables = json!({
            "entity": run.entity, "project": run.project, "run": run.run_id,
            "minStep": range.from, "maxStep": range.to, "pageSize": range.samples,
        });
        let answer = self.graphql::<Found<HistoryNode>>(&HISTORY_PAGE, Some(variables), cancel).await?;
        let there = answer.needed(|data| data.project)?.run;
        Ok(there.and_then(|run| run.history).unwrap_or_default())
    }

    /// The files of a run behind those that are known, to the last.
    pub async fn run_files(
        &self,
        run: &RunName,
        behind: String,
        cancel: &CancellationToken,
    ) -> Result<Vec<RunFile>, ApiError> {
        let mut files = Vec::new();
        let mut cursor = behind;
        for _ in 0..MOST_PAGES {
            let variables = json!({
                "entity": run.entity, "project": run.project, "name": run.run_id,
                "fileCursor": cursor, "fileLimit": PER_PAGE,
            });
            let answer = self.graphql::<Found<FilesNode>>(&RUN_FILES, Some(variables), cancel).await?;
            let run = answer.needed(|data| data.project)?.run;
            let Some(page) = run.and_then(|run| run.files) else { break };
            let (more, next) = files_of(page);
            files.extend(more);
            match next {
                Some(next) if next != cursor => cursor = next,
                _ => break,
            }
        }
        Ok(files)
    }

    /// A version by the server's id; `None` when it is not there.
    pub async fn artifact_facts(&self, id: &str, cancel: &CancellationToken) -> Result<Option<VersionFacts>, ApiError> {
        let variables = json!({"id": id});
        let answer = self.graphql::<VersionAnswer>(&ARTIFACT, Some(variables), cancel).await?;
        Ok(answer.needed(|data| Some(data.artifact))?.map(VersionNode::facts))
    }

    /// The versions of an artifact; none where the server does not know its name.
    pub async fn artifact_versions(
        &self,
        [entity, project]: [&str; 2],
        kind: &str,
        name: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<VersionFacts>, ApiError> {
        let mut versions = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let variables = json!({
                "entity": entity, "project": project, "type": kind, "collection": name,
                "cursor": cursor, "perPage": PER_PAGE,
            });
            let answer = self.graphql::<Found<()>>(&PROJECT_ARTIFACTS, Some(variables), cancel).await?;
            let project = answer.needed(|data| data.project)?;
            let collection = project.artifact_type.and_then(|kind| kind.artifact_collection);
            let Some(page) = collection.and_then(|collection| collection.artifacts) else { break };
            versions.extend(page.edges.into_iter().map(|edge| edge.node.facts()));
            match page.page_info.next(None) {
                Some(next) if Some(&next) != cursor.as_ref() => cursor = Some(next),
                _ => break,
            }
        }
        Ok(versions)
    }
}

/// The files of a page, and where the next one begins.
fn files_of(page: Page<FileEdge>) -> (Vec<RunFile>, Option<String>) {
    let last = page.edges.last().and_then(|edge| edge.cursor.clone());
    let next = page.page_info.next(last);
    (page.edges.into_iter().map(|edge| edge.node.file()).collect(), next)
}

/// `lastStep` in the JSON of `historyKeys`, which some servers send as text.
fn last_step(keys: &Value) -> Option<i64> {
    let step = |keys: &Value| keys.get("lastStep").and_then(Value::as_f64).map(|step| step as i64);
    match keys {
        Value::String(text) => step(&serde_json::from_str(text).ok()?),
        keys => step(keys),
    }
}

#[derive(Deserialize)]
struct Found<R> {
    project: Option<ProjectNode<R>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "R: Deserialize<'de>")]
struct ProjectNode<R> {
    name: Option<String>,
    entity: Option<Named>,
    run: Option<R>,
    artifact_type: Option<TypeNode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunNode {
    name: String,
    display_name: Option<String>,
    state: Option<String>,
    config: Option<String>,
    summary_metrics: Option<String>,
    history_line_count: Option<u64>,
    history_keys: Option<Value>,
    events_line_count: Option<u64>,
    log_line_count: Option<u64>,
    history: Option<Vec<String>>,
    files: Option<Page<FileEdge>>,
}

#[derive(Deserialize)]
struct HistoryNode {
    history: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct FilesNode {
    files: Option<Page<FileEdge>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<E> {
    edges: Vec<E>,
    page_info: PageInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageInfo {
    end_cursor: Option<String>,
    has_next_page: bool,
}

impl PageInfo {
    /// Where the next page begins; `last` is the cursor of the last entry of this one.
    fn next(self, last: Option<String>) -> Option<String> {
        last.or(self.end_cursor).filter(|_| self.has_next_page)
    }
}

#[derive(Deserialize)]
struct FileEdge {
    node: FileNode,
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileNode {
    name: String,
    /// A number, or its text.
    size_bytes: Option<Value>,
    md5: Option<String>,
}

impl FileNode {
    fn file(self) -> RunFile {
        let size = self.size_bytes.as_ref();
        let size = size.and_then(|size| size.as_u64().or_else(|| size.as_str()?.parse().ok()));
        let md5 = self.md5.filter(|md5| !md5.is_empty());
        RunFile { path: self.name, size: size.unwrap_or_default(), md5 }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeNode {
    artifact_collection: Option<CollectionNode>,
}

#[derive(Deserialize)]
struct CollectionNode {
    artifacts: Option<Page<VersionEdge>>,
}

#[derive(Deserialize)]
struct VersionEdge {
    node: VersionNode,
}

#[derive(Deserialize)]
struct VersionNode {
    state: ArtifactState,
    digest: Option<String>,
}

impl VersionNode {
    fn facts(self) -> VersionFacts {
        VersionFacts { state: self.state, digest: self.digest.unwrap_or_default() }
    }
}

#[derive(Deserialize)]
struct VersionAnswer {
    artifact: Option<VersionNode>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_every_form() {
        for (keys, expected) in [
            (json!({"lastStep": 7, "keys": {}}), Some(7)),
            (json!({"lastStep": 7.0}), Some(7)),
            (json!("{\"lastStep\":7}"), Some(7)),
            (json!({"keys": {}}), None),
            (json!(null), None),
            (json!("oops"), None),
        ] {
            assert_eq!(last_step(&keys), expected, "{keys}");
        }
        for (size, expected) in [(json!(5), 5), (json!("5"), 5), (json!(null), 0), (json!([]), 0)] {
            let node = json!({"name": "f", "sizeBytes": size, "md5": ""});
            let file = serde_json::from_value::<FileNode>(node).map(FileNode::file).unwrap_or_default();
            assert_eq!((file.size, file.md5), (expected, None));
        }
    }
}
