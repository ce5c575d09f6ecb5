//! Sync: upload logs that are there, ours or any W&B client's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::checkpoint::Checkpoint;
use crate::cleaned::Cleaned;
use crate::convert::artifact_rule::ArtifactRule;
use crate::model::{LogPosition, RunId};
use crate::pipeline::attach;
use crate::pipeline::naming::chosen_target;
use crate::pipeline::report::{RunEnd, Watcher};
use crate::pipeline::segments::{self, Segment};
use crate::pipeline::uploads::{Ended, RunToUpload, Uploads};
use crate::recorder::RecordError;
use crate::state_file::lock::{LockError, who_holds};
use crate::state_file::place::StateHome;
use crate::state_file::sync_directory;
use crate::upload::{Close, LogEnd, Overrides};
use crate::wandb_format::{is_synced, unmark_synced};

/// The exit code that the official client gives such a run.
const DIED: i32 = 1;

/// Starts the upload of each log. Several logs of one run are uploaded one after the other.
///
/// A log of another client that has no exit and has not grown for `stale_after` is that of a run that died. `artifacts` are
/// made of files beside each log.
pub fn sync(
    logs: Vec<PathBuf>,
    overrides: &Overrides,
    stale_after: Duration,
    artifacts: &[ArtifactRule],
    uploads: &Uploads,
    watcher: &Arc<dyn Watcher>,
) {
    for group in segments::in_turn(logs, uploads.state(), overrides) {
        let mut runs: Vec<(RunToUpload, Ended)> = Vec::new();
        for Segment { log, foreign, earlier, continued, .. } in group {
            let id = id_of(&log);
            let LogLook { end, chosen, .. } = match LogLook::at(&log, uploads.state(), stale_after) {
                Ok(look) => look,
                Err(error) => {
                    watcher.ended(RunEnd { source: log, id, record_error: Some(error), ..RunEnd::default() });
                    continue;
                }
            };
            let close = if continued { Close::Continued } else { end.close };
            let to_upload = RunToUpload {
                id: id.clone(),
                log: log.clone(),
                overrides: overrides.clone().or(chosen),
                end: watch::channel(LogEnd { close, ..end }).1,
                live: false,
                attach: attach::to_log(artifacts, &log, uploads.state()),
                foreign,
                earlier,
                meter: None,
            };
            let (watcher_at_end, state) = (watcher.clone(), uploads.state().clone());
            let ended = move |uploaded| {
                LogLook::unmark_if_outdated(&log, &state, end);
                watcher_at_end.ended(RunEnd { source: log, id, uploaded: Some(uploaded), ..RunEnd::default() });
            };
            runs.push((to_upload, Box::new(ended)));
        }
        uploads.start_in_turn(runs);
    }
}

/// A log as it is now.
#[derive(Debug, Clone)]
pub(super) struct LogLook {
    /// How far it counts, as if nothing more came.
    pub(super) end: LogEnd,
    /// Where it is sent.
    pub(super) chosen: Overrides,
    /// Whether its end is known, or more may come.
    ended: bool,
    /// How long the log of another client is: it counts as far as it goes.
    length: Option<LogPosition>,
}

impl LogLook {
    /// Looks at a log. One of ours counts only up to its checkpoint, whatever stands behind it.
    ///
    /// An exit does not count either: it is cut off when the run goes on, which may happen while it is read. What it says
    /// is in the checkpoint too, and whatever stands before it stays as it is.
    ///
    /// One of another client that has not grown for `stale_after` has ended, with or without an exit.
    pub(super) fn at(log: &Path, state: &StateHome, stale_after: Duration) -> Result<Self, RecordError> {
        let place = state.of_log(log);
        let Some(checkpoint) = Checkpoint::load(&place)? else {
            return match Checkpoint::is_ours(&place) {
                false => Ok(Self::of_others(log, stale_after)),
                // Whoever holds it has only just begun.
                true => Err(match who_holds(&place.writer_lock()) {
                    Some(holder) => RecordError::Locked(LockError::Held(holder)),
                    None => RecordError::CutShort,
                }),
            };
        };
        let length = std::fs::metadata(log).map(|metadata| metadata.len()).unwrap_or_default();
        let (position, close) = match checkpoint.ending {
            Some(ending) => (ending.before_exit, Close::Ended(ending.code)),
            None => (checkpoint.position, Close::LeaveRunning),
        };
        if length < position.0 {
            return Err(RecordError::Shorter { length, position: position.0 });
        }
        // Another process may have put the checkpoint there just now. What is sent must last, so that must last too.
        if let Err(error) = sync_directory(place.directory()) {
            tracing::debug!(%error, log = %log.display(), "the checkpoint may not last");
        }
        Ok(Self {
            end: LogEnd { position: Some(position), complete: true, close },
            chosen: chosen_target(&checkpoint),
            ended: checkpoint.ending.is_some(),
            length: None,
        })
    }

    fn of_others(log: &Path, stale_after: Duration) -> Self {
        let metadata = std::fs::metadata(log).ok();
        let length = metadata.as_ref().map(|metadata| LogPosition(metadata.len()));
        let modified = metadata.and_then(|metadata| metadata.modified().ok());
        let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok()).unwrap_or_default();
        let ended = age >= stale_after;
        let close = if ended { Close::Fail(DIED) } else { Close::LeaveRunning };
        Self { end: LogEnd { position: None, complete: true, close }, chosen: Overrides::default(), ended, length }
    }

    /// How far it counts, if more may come as long as it has not ended.
    pub(super) fn live_end(&self) -> LogEnd {
        LogEnd { complete: self.ended, position: self.end.position.or(self.length), ..self.end }
    }

    /// A later log of the run goes on, so nothing more comes of this one.
    pub(super) fn continued(self) -> Self {
        Self { end: LogEnd { close: Close::Continued, ..self.end }, ended: true, ..self }
    }

    /// Takes the mark away from a log that another process went on with while it was uploaded. That process takes it away
    /// first, and may have been early. A run of which a log was deleted bears the mark for good.
    pub(super) fn unmark_if_outdated(log: &Path, state: &StateHome, uploaded: LogEnd) {
        let outdated = |now: Self| {
            now.length.is_none() && (now.end.position, now.end.close) != (uploaded.position, uploaded.close)
        };
        let was_cleaned = || Cleaned::is_there(&state.of_log(log));
        if uploaded.position.is_some()
            && !was_cleaned()
            && is_synced(log)
            && Self::at(log, state, Duration::MAX).is_ok_and(outdated)
            && let Err(error) = unmark_synced(log)
        {
            tracing::warn!(%error, log = %log.display(), "the log is marked as uploaded, and has more");
        }
    }
}

/// The id in the name of a log: `run-<id>.wandb`.
pub fn id_of(log: &Path) -> Option<RunId> {
    let name = log.file_stem()?.to_str()?;
    RunId::new(name.strip_prefix("run-")?).ok()
}
