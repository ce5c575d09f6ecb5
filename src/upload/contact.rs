//! The first words with the server about a run: is it there, is it ours, where do we go on?
//!
//! Our own acknowledged counts win. They may lag behind the server, because the state is not saved after every request; and
//! they may be lost. So more lines there than we know of are looked at before anything is called a conflict: if the last
//! line there is the line with that number in our log, they are ours. That is one rule for both cases, and it needs
//! nothing to be written down before a request is sent.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::api::{ApiClient, Bucket, RunStatus, UpsertBucket};
use crate::model::{Json, LogPosition};
use crate::upload::cursor::{find_line, step_of};
use crate::upload::fold::{Fold, Inherited, RunParameters};
use crate::upload::job::{Overrides, UploadError};
use crate::upload::state::{Base, RunAddress, Target};

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
        variables.tags = Some(overrides.tags(&run.tags)).filter(|tags| !tags.is_empty());
    }
    variables
}

/// Where a run without state begins.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    /// The number of the first line of the log to send.
    pub(crate) from: u64,
    /// The storage id, if the run is there.
    pub(crate) storage_id: Option<String>,
    /// What was there before the log's first line.
    pub(crate) base: Base,
    /// What the run had before, for a log that continues it.
    pub(crate) inherited: Option<Inherited>,
}

/// How a log stands to what may be there of its run already.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Relation {
    /// It continues the run: it says so, or another log of the run was before it.
    pub(crate) continues: bool,
    /// The run is to be wound back to this step first.
    pub(crate) rewind_to: Option<f64>,
    /// The least `_step` of its first row, if it was uploaded before, at least in part.
    pub(crate) first_step: Option<i64>,
}

/// What a run without state finds on the server.
///
/// Nothing is changed there before it is clear that the run is ours, or is to be continued.
pub(crate) async fn look(
    api: &ApiClient,
    log: LogUpTo<'_>,
    target: &Target,
    relation: Relation,
    cancel: &CancellationToken,
) -> Result<Beginning, UploadError> {
    let Some(there) = api.run_status(&target.entity, &target.project, &target.run_id, cancel).await? else {
        return Ok(Beginning::default());
    };
    let storage_id = Some(there.storage_id.clone());
    if !relation.continues && relation.rewind_to.is_none() {
        if there.history_lines > 0 {
            let number = Some(there.history_lines - 1);
            ours(log, Fold::default(), Base::default(), number, &there, &path_of(target)).await?;
        }
        return Ok(Beginning { from: there.history_lines, storage_id, ..Beginning::default() });
    }
    // The log may be there already, in part or whole: then its steps begin where they began then.
    let before = Base { first_step: relation.first_step.unwrap_or_default(), ..Base::default() };
    if there.history_lines > 0 {
        match ours(log, Fold::default(), before, None, &there, &path_of(target)).await {
            Ok(number) => {
                let history = there.history_lines.checked_sub(number + 1);
                let history = history.ok_or_else(|| conflict(&path_of(target), there.history_lines, NOT_IN_LOG))?;
                let lines = relation.continues;
                return Ok(Beginning {
                    from: number + 1,
                    storage_id,
                    // Lines of system metrics and of the console may come twice; none are lost.
                    base: Base {
                        history,
                        events: if lines { there.events_lines } else { 0 },
                        console: if lines { there.console_lines } else { 0 },
                        ..before
                    },
                    inherited: Some(inherited(&there)),
                });
            }
            // It was uploaded before, and the run has gone on since.
            Err(UploadError::Conflict { .. }) if relation.first_step.is_none() => {}
            Err(UploadError::Conflict { .. }) if Some(next_step(&there)) == relation.first_step => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(step) = relation.rewind_to {
        let back = api.rewind(&target.entity, &target.project, &target.run_id, step, cancel).await?;
        let inherited = Inherited { config: inherited(&there).config, ..Inherited::default() };
        let base = Base { history: back.history_lines, ..Base::default() };
        return Ok(Beginning { from: 0, storage_id: Some(back.storage_id), base, inherited: Some(inherited) });
    }
    let base = Base {
        history: there.history_lines,
        events: there.events_lines,
        console: there.console_lines,
        first_step: next_step(&there),
    };
    Ok(Beginning { from: 0, storage_id, base, inherited: Some(inherited(&there)) })
}

/// The `_step` that a run goes on with.
fn next_step(there: &RunStatus) -> i64 {
    let parsed = |text: &Option<String>| text.as_deref().and_then(|text| Json::parse(text).ok());
    let step = |text| parsed(text).as_ref().and_then(step_of);
    let latest = step(&there.last_history_line).or_else(|| step(&there.summary)).unwrap_or_default();
    if there.history_lines > 0 { latest.saturating_add(1) } else { latest }
}

/// What a run has that a log continues.
fn inherited(there: &RunStatus) -> Inherited {
    let parsed = |text: &Option<String>| text.as_deref().and_then(|text| Json::parse(text).ok()).unwrap_or_default();
    let config = match parsed(&there.config) {
        Json::Object(members) => {
            let unwrapped = members.into_iter().map(|(key, shell)| (key, shell.get("value").cloned().unwrap_or(shell)));
            Json::Object(unwrapped.collect())
        }
        other => other,
    };
    Inherited { config, summary: parsed(&there.summary) }
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
    let known = address.base.history + fold.history_lines;
    if bucket.history_lines <= known {
        return Ok(fold.history_lines);
    }
    let there = api.run_status(&bucket.entity, &bucket.project, &bucket.run_id, cancel).await?.unwrap_or_default();
    if there.history_lines <= known {
        return Ok(fold.history_lines);
    }
    let path = format!("{}/{}/{}", bucket.entity, bucket.project, bucket.run_id);
    let number = there.history_lines - address.base.history - 1;
    ours(log, fold.clone(), address.base, Some(number), &there, &path).await?;
    Ok(there.history_lines - address.base.history)
}

const NOT_IN_LOG: &str = "the last of them is not in this log: something else wrote to this run";

fn conflict(run: &str, there: u64, why: &str) -> UploadError {
    UploadError::Conflict { run: run.to_owned(), there, why: why.to_owned() }
}

/// The number that the last line there has in our log: the given one, or any. It is a conflict when there is none.
async fn ours(
    log: LogUpTo<'_>,
    from: Fold,
    base: Base,
    number: Option<u64>,
    there: &RunStatus,
    run: &str,
) -> Result<u64, UploadError> {
    let Some(theirs) = there.last_history_line.clone() else {
        return Err(conflict(
            run,
            there.history_lines,
            "it does not show the last of them to compare it with this log",
        ));
    };
    let (path, limit) = (log.path.to_owned(), log.limit);
    let found = tokio::task::spawn_blocking(move || find_line(&path, &from, limit, base, number, &theirs)).await;
    let found = found.unwrap_or(Ok(None)).map_err(|source| UploadError::Log { log: log.path.to_owned(), source })?;
    found.ok_or_else(|| conflict(run, there.history_lines, NOT_IN_LOG))
}

fn path_of(target: &Target) -> String {
    let parts = [target.entity.as_str(), target.project.as_str(), target.run_id.as_str()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

/// The address of a run that the server just named.
pub(crate) fn address(bucket: &Bucket, base: Base) -> RunAddress {
    RunAddress {
        storage_id: bucket.storage_id.clone(),
        entity: bucket.entity.clone(),
        project: bucket.project.clone(),
        run_id: bucket.run_id.clone(),
        display_name: bucket.display_name.clone(),
        base,
    }
}
