//! The first words with the server about a run: is it there, is it ours, where do we go on?
//!
//! Our own acknowledged counts win. They may lag behind the server, because the state is not saved after every request; and
//! they may be lost. So more lines there than we know of are looked at before anything is called a conflict: if the last
//! line there is the line with that number in our log, they are ours. That is one rule for both cases, and it needs
//! nothing to be written down before a request is sent.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::api::{ApiClient, ApiError, Bucket, Patience, RunStatus};
use crate::model::{Json, LogPosition};
use crate::upload::cursor::{Found, find_line, last_line_like, step_of};
use crate::upload::fold::{Fold, Inherited};
use crate::upload::job::UploadError;
use crate::upload::state::{Base, RunAddress, Target};
use crate::wandb_format::LogError;

/// A log, and how far it may be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogUpTo<'a> {
    pub(crate) path: &'a Path,
    pub(crate) limit: Option<LogPosition>,
    /// Nothing will be added to it.
    pub(crate) complete: bool,
}

/// Where a run begins, before it is opened.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) target: Target,
    /// The number of the first line of the log to send.
    pub(crate) from: u64,
    /// The storage id, if the run is there.
    pub(crate) storage_id: Option<String>,
    /// What was there before the log's first line.
    pub(crate) base: Base,
    /// What the run had before, for a log that continues it.
    pub(crate) inherited: Option<Inherited>,
    /// The server was told before what describes the run, and people may have changed it since.
    pub(crate) described: bool,
}

impl Beginning {
    /// Nothing is there.
    fn new(target: Target) -> Self {
        Self { target, from: 0, storage_id: None, base: Base::default(), inherited: None, described: false }
    }

    /// What is known of a run that was opened before.
    pub(crate) fn known(run: &RunAddress, fold: &Fold) -> Self {
        let target = Target { entity: run.entity.clone(), project: run.project.clone(), run_id: run.run_id.clone() };
        Self { from: fold.history_lines, storage_id: Some(run.storage_id.clone()), base: run.base, ..Self::new(target) }
    }
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
    /// It goes behind the lines of somebody else, where those would be in the way.
    pub(crate) append: bool,
}

/// What a run without state finds on the server.
///
/// Nothing is changed there before it is clear that the run is ours, or is to be continued.
pub(crate) async fn look(
    api: &ApiClient,
    log: LogUpTo<'_>,
    target: &Target,
    relation: Relation,
    patience: &impl Patience,
) -> Result<Beginning, UploadError> {
    let target = target.clone();
    let Some(there) = api.run_status(&target.entity, &target.project, &target.run_id, patience).await? else {
        return Ok(Beginning::new(target));
    };
    let continues = relation.continues || relation.rewind_to.is_some();
    let found = match continues {
        true => continued(log, &there, &target, relation, patience.token()).await,
        false => begun(log, &there, &target, patience.token()).await,
    };
    let found = match found {
        Err(UploadError::Conflict { .. }) if relation.append => {
            return append_to(log, &there, target, patience.token()).await;
        }
        found => found?,
    };
    let beginning = Beginning { storage_id: Some(there.storage_id.clone()), ..Beginning::new(target) };
    let inherited = continues.then(|| inherited(&there));
    if let Some((from, base)) = found {
        return Ok(Beginning { from, base, inherited, described: from > 0, ..beginning });
    }
    if let Some(step) = relation.rewind_to {
        let Target { entity, project, run_id } = &beginning.target;
        let back = api.rewind(entity, project, run_id, step, patience).await?;
        let inherited = inherited.map(|inherited| Inherited { config: inherited.config, ..Inherited::default() });
        let base = Base { history: back.history_lines, ..Base::default() };
        return Ok(Beginning { storage_id: Some(back.storage_id), base, inherited, ..beginning });
    }
    let base = Base {
        history: there.history_lines,
        events: there.events_lines,
        console: there.console_lines,
        first_step: next_step(&there),
    };
    Ok(Beginning { base, inherited, ..beginning })
}

/// How much is there of a log that begins its run.
async fn begun(
    log: LogUpTo<'_>,
    there: &RunStatus,
    target: &Target,
    cancel: &CancellationToken,
) -> Result<Option<(u64, Base)>, UploadError> {
    if there.history_lines > 0 {
        let number = Some(there.history_lines - 1);
        ours(log, Fold::default(), Base::default(), number, there, &path_of(target), cancel).await?;
    }
    Ok(Some((there.history_lines, Base::default())))
}

/// How much is there already of a log that continues its run; `None` when nothing of it is.
async fn continued(
    log: LogUpTo<'_>,
    there: &RunStatus,
    target: &Target,
    relation: Relation,
    cancel: &CancellationToken,
) -> Result<Option<(u64, Base)>, UploadError> {
    if there.history_lines == 0 {
        return Ok(None);
    }
    let path = path_of(target);
    // The log may be there already, in part or whole: then its steps begin where they began then.
    let before = Base { first_step: relation.first_step.unwrap_or_default(), ..Base::default() };
    match ours(log, Fold::default(), before, None, there, &path, cancel).await {
        Ok(number) => {
            let history = there.history_lines.checked_sub(number + 1);
            let history = history.ok_or_else(|| conflict(&path, there.history_lines, NOT_IN_LOG))?;
            let lines = relation.continues;
            let base = Base {
                history,
                // Lines of system metrics and of the console may come twice; none are lost.
                events: if lines { there.events_lines } else { 0 },
                console: if lines { there.console_lines } else { 0 },
                ..before
            };
            Ok(Some((number + 1, base)))
        }
        Err(UploadError::Conflict { .. }) if relation.first_step.is_none() => Ok(None),
        // It was uploaded before, and the run has gone on since.
        Err(UploadError::Conflict { .. }) if Some(next_step(there)) == relation.first_step => Ok(None),
        Err(error) => Err(error),
    }
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

/// Where a log goes whose lines are to come behind those of somebody else: behind them, or on from where they were appended
/// before.
async fn append_to(
    log: LogUpTo<'_>,
    there: &RunStatus,
    target: Target,
    cancel: &CancellationToken,
) -> Result<Beginning, UploadError> {
    let theirs = there.last_history_line.clone().unwrap_or_default();
    let (path, limit, stop) = (log.path.to_owned(), log.limit, cancel.clone());
    let find = move || last_line_like(&path, limit, Base::default(), &theirs, &stop);
    let found = blocking(log.path, cancel, find).await?;
    // The last line there may be one of ours: then all before it that we have is there too.
    let from = found.map_or(0, |number| number + 1).min(there.history_lines);
    let base = Base {
        history: there.history_lines - from,
        // Those of ours may come twice; none are lost, of nobody.
        events: there.events_lines,
        console: there.console_lines,
        first_step: 0,
    };
    let storage_id = Some(there.storage_id.clone());
    Ok(Beginning { from, storage_id, base, described: true, ..Beginning::new(target) })
}

/// Whether the server has lost what it acknowledged: then the run was deleted there, and made again by somebody or by the
/// very request that `bucket` is the answer to.
pub(crate) fn vanished(run: &RunAddress, fold: &Fold, bucket: &Bucket) -> Option<UploadError> {
    let acknowledged = fold.history_lines;
    let other = bucket.storage_id != run.storage_id && bucket.history_lines < run.base.history + acknowledged;
    let gone = bucket.inserted || (acknowledged > 0 && (bucket.history_lines == 0 || other));
    let path = format!("{}/{}/{}", bucket.entity, bucket.project, bucket.run_id);
    gone.then_some(UploadError::Vanished { run: path, rows: run.base.history + acknowledged })
}

/// How to go on with a run that was opened again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Again {
    /// So many lines may have arrived without an answer.
    pub(crate) in_flight: u64,
    /// Lines of somebody else only move the base.
    pub(crate) append: bool,
    /// All lines of ours are still in the log.
    pub(crate) has_all: bool,
}

/// The number of the first line to send to a run that was opened again. It is less than that of the acknowledged ones
/// where the server lost some of them: lines behind a gap would not be the lines that they are here.
pub(crate) async fn check(
    api: &ApiClient,
    log: LogUpTo<'_>,
    fold: &Fold,
    address: &mut RunAddress,
    bucket: &Bucket,
    how: Again,
    patience: &impl Patience,
) -> Result<u64, UploadError> {
    let known = address.base.history + fold.history_lines;
    if bucket.history_lines == known {
        return Ok(fold.history_lines);
    }
    let there = api.run_status(&bucket.entity, &bucket.project, &bucket.run_id, patience).await?.unwrap_or_default();
    let path = format!("{}/{}/{}", bucket.entity, bucket.project, bucket.run_id);
    // One of the counts may lag behind.
    let lines = there.history_lines.max(bucket.history_lines);
    if lines < known {
        return match lines.checked_sub(address.base.history) {
            Some(from) if how.has_all => Ok(from),
            _ => Err(conflict(
                &path,
                lines,
                &format!("it acknowledged {known}: the others cannot be sent again from here"),
            )),
        };
    }
    if there.history_lines <= known {
        return Ok(fold.history_lines);
    }
    let number = there.history_lines - address.base.history - 1;
    match ours(log, fold.clone(), address.base, Some(number), &there, &path, patience.token()).await {
        Ok(_) => Ok(number + 1),
        // These are the lines whose answer was lost, whatever the server made of them: they are sent again.
        Err(UploadError::Conflict { .. }) if lines <= known + how.in_flight => Ok(fold.history_lines),
        Err(UploadError::Conflict { .. }) if how.append => {
            address.base.history = lines - fold.history_lines;
            Ok(fold.history_lines)
        }
        Err(error) => Err(error),
    }
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
    cancel: &CancellationToken,
) -> Result<u64, UploadError> {
    let Some(theirs) = there.last_history_line.clone() else {
        let why = "it does not show the last of them to compare it with this log";
        return Err(conflict(run, there.history_lines, why));
    };
    let (path, limit, stop) = (log.path.to_owned(), log.limit, cancel.clone());
    let find = move || find_line(&path, &from, limit, base, number, &theirs, &stop);
    match blocking(log.path, cancel, find).await? {
        Found::At(number) => Ok(number),
        // It is being made anew: whether that line is among those to come will be seen.
        Found::Behind(here) if !log.complete => {
            Err(UploadError::Behind { run: run.to_owned(), there: there.history_lines, here })
        }
        Found::Behind(_) | Found::Nowhere => Err(conflict(run, there.history_lines, NOT_IN_LOG)),
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
