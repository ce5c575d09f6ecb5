//! The first words with the server about a run: is it there, is it ours, where do we go on?
//!
//! Our own acknowledged counts win. They may lag behind the server, because the state is not saved after every request; and
//! they may be lost. So more lines there than we know of are looked at before anything is called a conflict: if the last
//! line there is the line with that number in our log, they are ours. That is one rule for both cases, and it needs
//! nothing to be written down before a request is sent.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::api::{ApiClient, ApiError, Bucket, Patience, RunStatus, UpsertBucket};
use crate::model::LogPosition;
use crate::upload::cursor::{history_line_at, last_line_like, same_line};
use crate::upload::fold::{Fold, RunParameters};
use crate::upload::job::{Overrides, UploadError};
use crate::upload::state::{Base, RunAddress, Target};
use crate::wandb_format::LogError;

/// The longest run id that W&B takes.
const LONGEST_ID: usize = 128;

/// The parts of an `UpsertBucket` that are to be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Parts<'a> {
    /// What describes the run, as far as it differs from what the server was told before.
    pub(crate) told: Option<&'a RunParameters>,
    /// The whole config.
    pub(crate) config: bool,
}

/// A log, and how far it may be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogUpTo<'a> {
    pub(crate) path: &'a Path,
    pub(crate) limit: Option<LogPosition>,
}

/// What is known before a run is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) target: Target,
    /// The number of the first line to send.
    pub(crate) from: u64,
    /// Lines there that are not of this log.
    pub(crate) base: Base,
    pub(crate) storage_id: Option<String>,
    /// The server holds lines of the run: whoever sent them has described it, and people may have since.
    pub(crate) described: bool,
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

/// The target with the `number`th id, counted from 1, which is its own.
pub(crate) fn with_other_id(target: &Target, number: u32) -> Target {
    if number <= 1 {
        return target.clone();
    }
    let suffix = format!("-{number}");
    let mut id = target.run_id.clone();
    while id.len() + suffix.len() > LONGEST_ID {
        id.pop();
    }
    Target { run_id: id + &suffix, ..target.clone() }
}

/// What describes the run, with what the user chose instead.
pub(crate) fn description(fold: &Fold, overrides: &Overrides) -> Option<RunParameters> {
    let mut run = fold.run.clone()?;
    if let Some(job_type) = &overrides.job_type {
        run.job_type.clone_from(job_type);
    }
    Some(run)
}

/// The variables of an `UpsertBucket` for a run as it is folded.
pub(crate) fn upsert_variables(
    fold: &Fold,
    target: &Target,
    storage_id: Option<&str>,
    overrides: &Overrides,
    parts: Parts<'_>,
) -> UpsertBucket {
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut variables = UpsertBucket {
        id: storage_id.and_then(set),
        name: set(&target.run_id),
        project: set(&target.project),
        entity: set(&target.entity),
        config: parts.config.then(|| fold.config_json().to_string()),
        ..UpsertBucket::default()
    };
    if let Some(run) = description(fold, overrides) {
        // What the server was told already is not told again: somebody may have changed it there.
        let new = |part: fn(&RunParameters) -> &String| {
            let is_new = parts.told.is_none_or(|told| part(told) != part(&run));
            set(part(&run)).filter(|_| is_new)
        };
        variables.group_name = new(|run| &run.group);
        variables.display_name = new(|run| &run.display_name);
        variables.notes = new(|run| &run.notes);
        variables.commit = new(|run| &run.commit);
        variables.repo = new(|run| &run.repository);
        variables.host = new(|run| &run.host);
        variables.job_type = new(|run| &run.job_type);
        variables.sweep = new(|run| &run.sweep);
        let tags_are_new = parts.told.is_none_or(|told| told.tags != run.tags);
        variables.tags = (tags_are_new && !run.tags.is_empty()).then_some(run.tags);
    }
    variables
}

/// What a run without state finds on the server. With `append`, lines of somebody else are not in the way.
///
/// Nothing is changed there before it is clear that the run is ours.
pub(crate) async fn look(
    api: &ApiClient,
    log: LogUpTo<'_>,
    target: &Target,
    append: bool,
    patience: &impl Patience,
) -> Result<Found, UploadError> {
    let target = target.clone();
    let Some(there) = api.run_status(&target.entity, &target.project, &target.run_id, patience).await? else {
        return Ok(Found { target, from: 0, base: Base::default(), storage_id: None, described: false });
    };
    let (mut from, mut base) = (there.history_lines, Base::default());
    if there.history_lines > 0 {
        match ours(log, Fold::default(), 0, &there, &path_of(&target), patience.token()).await {
            Err(UploadError::Conflict { .. }) if append => {
                (from, base) = append_to(log, &there, patience.token()).await?
            }
            other => other?,
        }
    }
    let described = there.history_lines > 0;
    Ok(Found { target, from, base, storage_id: Some(there.storage_id), described })
}

/// Where the lines of a log go behind those of somebody else: behind them, or on from where they were appended before.
async fn append_to(
    log: LogUpTo<'_>,
    there: &RunStatus,
    cancel: &CancellationToken,
) -> Result<(u64, Base), UploadError> {
    let theirs = there.last_history_line.clone().unwrap_or_default();
    let (path, limit, stop) = (log.path.to_owned(), log.limit, cancel.clone());
    let found = blocking(log.path, cancel, move || last_line_like(&path, limit, &theirs, &stop)).await?;
    // The last line there may be one of ours: then all before it that we have is there too.
    let from = found.map_or(0, |number| number + 1).min(there.history_lines);
    let events = if from == 0 { there.events_lines } else { 0 };
    Ok((from, Base { history: there.history_lines - from, events }))
}

/// Whether the server has lost what it acknowledged: then the run was deleted there, and made again by somebody or by the
/// very request that `bucket` is the answer to.
pub(crate) fn vanished(run: &RunAddress, fold: &Fold, bucket: &Bucket) -> Option<UploadError> {
    let acknowledged = fold.history_lines;
    let other = bucket.storage_id != run.storage_id && bucket.history_lines < run.base.history + acknowledged;
    let gone = bucket.inserted || (acknowledged > 0 && (bucket.history_lines == 0 || other));
    let path = format!("{}/{}/{}", bucket.entity, bucket.project, bucket.run_id);
    gone.then_some(UploadError::Vanished { run: path, rows: acknowledged })
}

/// The number of the first line to send to a run that was opened again. `in_flight` lines may have arrived without an
/// answer. With `append`, lines of somebody else only move the base.
pub(crate) async fn check(
    api: &ApiClient,
    log: LogUpTo<'_>,
    fold: &Fold,
    address: &mut RunAddress,
    bucket: &Bucket,
    (in_flight, append): (u64, bool),
    patience: &impl Patience,
) -> Result<u64, UploadError> {
    let known = address.base.history + fold.history_lines;
    if bucket.history_lines <= known {
        return Ok(fold.history_lines);
    }
    let there = api.run_status(&bucket.entity, &bucket.project, &bucket.run_id, patience).await?.unwrap_or_default();
    if there.history_lines <= known {
        return Ok(fold.history_lines);
    }
    let path = format!("{}/{}/{}", bucket.entity, bucket.project, bucket.run_id);
    match ours(log, fold.clone(), address.base.history, &there, &path, patience.token()).await {
        Ok(()) => Ok(there.history_lines - address.base.history),
        // These are the lines whose answer was lost, whatever the server made of them: they are sent again.
        Err(UploadError::Conflict { .. }) if there.history_lines <= known + in_flight => Ok(fold.history_lines),
        Err(UploadError::Conflict { .. }) if append => {
            address.base.history = there.history_lines - fold.history_lines;
            Ok(fold.history_lines)
        }
        Err(error) => Err(error),
    }
}

/// Checks that the last line there is the line with that number in our log.
async fn ours(
    log: LogUpTo<'_>,
    from: Fold,
    base: u64,
    there: &RunStatus,
    run: &str,
    cancel: &CancellationToken,
) -> Result<(), UploadError> {
    let count = there.history_lines;
    let conflict = |why: &str| UploadError::Conflict { run: run.to_owned(), there: count, why: why.to_owned() };
    let Some(theirs) = &there.last_history_line else {
        return Err(conflict("it does not show the last of them to compare it with this log"));
    };
    let number = count - base - 1;
    let (path, limit, stop) = (log.path.to_owned(), log.limit, cancel.clone());
    match blocking(log.path, cancel, move || history_line_at(&path, &from, limit, number, &stop)).await? {
        Some(line) if same_line(&line, theirs) => Ok(()),
        Some(_) => Err(conflict("the last of them is not in this log: something else wrote to this run")),
        None => Err(conflict("this log has fewer: something else wrote to this run")),
    }
}

/// Reads in a log on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    log: &Path,
    cancel: &CancellationToken,
    read: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, UploadError> {
    let failed = |source| UploadError::Log { log: PathBuf::from(log), source };
    let read = spawn_blocking(read).await.map_err(|error| failed(std::io::Error::other(error).into()))?;
    // What was cut short has found nothing, which says nothing.
    if cancel.is_cancelled() {
        return Err(ApiError::Cancelled.into());
    }
    read.map_err(failed)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::field_reassign_with_default, reason = "the other fields are not for here")]

    use super::*;

    #[test]
    fn other_ids_are_steady_and_fit() {
        let target = |id: &str| Target { entity: "e".into(), project: "p".into(), run_id: id.into() };
        assert_eq!(with_other_id(&target("abc"), 1), target("abc"));
        assert_eq!(with_other_id(&target("abc"), 2), target("abc-2"));
        assert_eq!(with_other_id(&target(&"é".repeat(64)), 3), target(&("é".repeat(63) + "-3")));
    }

    #[test]
    fn only_what_changed_is_told_again() {
        let run = RunParameters { display_name: "a".into(), tags: vec!["t".into()], ..RunParameters::default() };
        let mut fold = Fold::default();
        fold.run = Some(run.clone());
        let target = target(&run, &Overrides::default());
        let told = |told: Option<&RunParameters>| {
            let parts = Parts { told, config: false };
            upsert_variables(&fold, &target, None, &Overrides::default(), parts)
        };
        assert_eq!((told(None).display_name.as_deref(), told(None).tags), (Some("a"), Some(vec!["t".to_owned()])));
        assert_eq!((told(Some(&run)).display_name, told(Some(&run)).tags), (None, None));
        let before = RunParameters { display_name: "b".into(), ..run };
        assert_eq!((told(Some(&before)).display_name.as_deref(), told(Some(&before)).tags), (Some("a"), None));
    }

    #[test]
    fn a_run_that_lost_what_it_had_is_seen() {
        let run = RunAddress { storage_id: "s".into(), ..RunAddress::default() };
        let bucket = |storage_id: &str, history_lines, inserted| Bucket {
            storage_id: storage_id.into(),
            history_lines,
            inserted,
            ..Bucket::default()
        };
        let gone = |rows, bucket: Bucket| {
            let mut fold = Fold::default();
            fold.history_lines = rows;
            vanished(&run, &fold, &bucket).is_some()
        };
        assert!(gone(3, bucket("s", 0, true)) && gone(0, bucket("s", 0, true)));
        assert!(gone(3, bucket("s", 0, false)) && gone(3, bucket("t", 2, false)));
        // A count may lag behind.
        assert!(!gone(3, bucket("s", 2, false)) && !gone(3, bucket("s", 3, false)) && !gone(0, bucket("s", 0, false)));
    }
}
