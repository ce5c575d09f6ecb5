//! Sync: upload logs that are there, ours or any W&B client's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::checkpoint::Checkpoint;
use crate::model::RunId;
use crate::pipeline::recording::chosen_target;
use crate::pipeline::report::{RunEnd, Watcher};
use crate::pipeline::segments::{self, Segment};
use crate::pipeline::uploads::{Ended, RunToUpload, Uploads};
use crate::recorder::RecordError;
use crate::upload::{Close, LogEnd, Overrides};

/// The exit code that the official client gives such a run.
const DIED: i32 = 1;

/// Starts the upload of each log. Several logs of one run are uploaded one after the other.
///
/// A log of another client that has no exit and has not grown for `stale_after` is that of a run that died.
pub fn sync(
    logs: Vec<PathBuf>,
    overrides: &Overrides,
    stale_after: Duration,
    uploads: &Uploads,
    watcher: &Arc<dyn Watcher>,
) {
    for group in segments::in_turn(logs, overrides) {
        let mut runs: Vec<(RunToUpload, Ended)> = Vec::new();
        for Segment { log, foreign, continued } in group {
            let id = id_of(&log);
            let (end, chosen) = match log_end(&log, stale_after) {
                Ok(known) => known,
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
                foreign,
                meter: None,
            };
            let watcher_at_end = watcher.clone();
            let ended = move |uploaded| {
                watcher_at_end.ended(RunEnd { source: log, id, uploaded: Some(uploaded), ..RunEnd::default() });
            };
            runs.push((to_upload, Box::new(ended)));
        }
        uploads.start_in_turn(runs);
    }
}

/// How far a log counts, and where it is sent. A log of ours counts only up to its checkpoint, whatever stands behind it.
fn log_end(log: &Path, stale_after: Duration) -> Result<(LogEnd, Overrides), RecordError> {
    let directory = log.parent().unwrap_or(Path::new("."));
    Ok(match Checkpoint::load(directory)? {
        Some(checkpoint) => {
            let length = std::fs::metadata(log).map(|metadata| metadata.len()).unwrap_or_default();
            if length < checkpoint.position.0 {
                return Err(RecordError::Shorter { length, position: checkpoint.position.0 });
            }
            let end = LogEnd { position: Some(checkpoint.position), complete: true, close: Close::LeaveRunning };
            (end, chosen_target(&checkpoint))
        }
        None if Checkpoint::is_ours(directory) => return Err(RecordError::CutShort),
        None => {
            let modified = std::fs::metadata(log).and_then(|metadata| metadata.modified()).ok();
            let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok()).unwrap_or_default();
            let close = if age >= stale_after { Close::Fail(DIED) } else { Close::LeaveRunning };
            (LogEnd { position: None, complete: true, close }, Overrides::default())
        }
    })
}

/// The id in the name of a log: `run-<id>.wandb`.
pub fn id_of(log: &Path) -> Option<RunId> {
    let name = log.file_stem()?.to_str()?;
    RunId::new(name.strip_prefix("run-")?).ok()
}
