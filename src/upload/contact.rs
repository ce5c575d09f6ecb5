//! The first words with the server about a run: is it there, is it ours, where do we go on?
//!
//! Our own acknowledged counts win. They may lag behind the server, because the state is not saved after every request; and
//! they may be lost. So more lines there than we know of are looked at before anything is called a conflict: if the last
//! line there is the line with that number in our log, they are ours. That is one rule for both cases, and it needs
//! nothing to be written down before a request is sent.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::api::{ApiClient, Bucket, RunStatus, UpsertBucket};
use crate::model::LogPosition;
use crate::upload::cursor::{history_line_at, same_line};
use crate::upload::fold::{Fold, RunParameters};
use crate::upload::job::{Overrides, UploadError};
use crate::upload::state::{RunAddress, Target};

/// The parts of an `UpsertBucket` that are to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    /// What describes the run.
    pub(crate) parameters: bool,
    /// The whole config.
    pub(crate) config: bool,
}

/// A log, and how far it may be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogUpTo<'a> {
    pub(crate) path: &'a Path,
    pub(crate) limit: Option<LogPosition>,
}

/// Where a log is to go.
pub(crate) fn target(run: &RunParameters, overrides: &Overrides) -> Target {
    let chosen = |over: &Option<String>, own: &str| over.clone().unwrap_or_else(|| own.to_owned());
    Target {
        entity: chosen(&overrides.entity, &run.entity),
        project: chosen(&overrides.project, &run.project),
        run_id: chosen(&overrides.run_id, &run.run_id),
    }
}

/// The variables of an `UpsertBucket` for a run as it is folded.
pub(crate) fn upsert_variables(
    fold: &Fold,
    target: &Target,
    storage_id: Option<&str>,
    overrides: &Overrides,
    parts: Parts,
) -> UpsertBucket {
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut variables = UpsertBucket {
        name: set(&target.run_id),
        project: set(&target.project),
        entity: set(&target.entity),
        config: parts.config.then(|| fold.config_json().to_string()),
        ..UpsertBucket::default()
    };
    if parts.parameters
        && let Some(run) = &fold.run
    {
        variables.id = storage_id.and_then(set);
        variables.group_name = set(&run.group);
        variables.display_name = set(&run.display_name);
        variables.notes = set(&run.notes);
        variables.commit = set(&run.commit);
        variables.repo = set(&run.repository);
        variables.host = set(&run.host);
        variables.job_type = overrides.job_type.clone().or_else(|| set(&run.job_type));
        variables.sweep = set(&run.sweep);
        variables.tags = (!run.tags.is_empty()).then(|| run.tags.clone());
    }
    variables
}

/// What a run without state finds on the server: the number of the first line to send, and the storage id.
///
/// Nothing is changed there before it is clear that the run is ours.
pub(crate) async fn look(
    api: &ApiClient,
    log: LogUpTo<'_>,
    target: &Target,
    cancel: &CancellationToken,
) -> Result<(u64, Option<String>), UploadError> {
    let Some(there) = api.run_status(&target.entity, &target.project, &target.run_id, cancel).await? else {
        return Ok((0, None));
    };
    if there.history_lines > 0 {
        ours(log, Fold::default(), 0, &there, &path_of(target)).await?;
    }
    Ok((there.history_lines, Some(there.storage_id)))
}

/// The number of the first line to send to a run that was opened again.
pub(crate) async fn check(
    api: &ApiClient,
    log: LogUpTo<'_>,
    fold: &Fold,
    address: &RunAddress,
    bucket: &Bucket,
    cancel: &CancellationToken,
) -> Result<u64, UploadError> {
    let known = address.history_base + fold.history_lines;
    if bucket.history_lines <= known {
        return Ok(fold.history_lines);
    }
    let there = api.run_status(&bucket.entity, &bucket.project, &bucket.run_id, cancel).await?.unwrap_or_default();
    if there.history_lines <= known {
        return Ok(fold.history_lines);
    }
    let path = format!("{}/{}/{}", bucket.entity, bucket.project, bucket.run_id);
    ours(log, fold.clone(), address.history_base, &there, &path).await?;
    Ok(there.history_lines - address.history_base)
}

/// Checks that the last line there is the line with that number in our log.
async fn ours(log: LogUpTo<'_>, from: Fold, base: u64, there: &RunStatus, run: &str) -> Result<(), UploadError> {
    let count = there.history_lines;
    let conflict = |why: &str| UploadError::Conflict { run: run.to_owned(), there: count, why: why.to_owned() };
    let Some(theirs) = &there.last_history_line else {
        return Err(conflict("it does not show the last of them to compare it with this log"));
    };
    let number = count - base - 1;
    let (path, limit) = (log.path.to_owned(), log.limit);
    let found = tokio::task::spawn_blocking(move || history_line_at(&path, &from, limit, number)).await;
    let found = found.unwrap_or(Ok(None)).map_err(|source| UploadError::Log { log: log.path.to_owned(), source })?;
    match found {
        Some(line) if same_line(&line, theirs) => Ok(()),
        Some(_) => Err(conflict("the last of them is not in this log: something else wrote to this run")),
        None => Err(conflict("this log has fewer: something else wrote to this run")),
    }
}

fn path_of(target: &Target) -> String {
    let parts = [target.entity.as_str(), target.project.as_str(), target.run_id.as_str()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

/// The address of a run that the server just named.
pub(crate) fn address(bucket: &Bucket, before: Option<&RunAddress>) -> RunAddress {
    RunAddress {
        storage_id: bucket.storage_id.clone(),
        entity: bucket.entity.clone(),
        project: bucket.project.clone(),
        run_id: bucket.run_id.clone(),
        display_name: bucket.display_name.clone(),
        history_base: before.map(|address| address.history_base).unwrap_or_default(),
    }
}
