//! Sync: upload logs that are there, ours or any W&B client's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::checkpoint::Checkpoint;
use crate::model::RunId;
use crate::pipeline::recording::chosen_target;
use crate::pipeline::report::{RunEnd, Watcher};
use crate::pipeline::uploads::{RunToUpload, Uploads};
use crate::recorder::RecordError;
use crate::upload::{Close, LogEnd, Overrides};

/// A foreign log that has not grown for this long and has no exit record belongs to a run that died.
const STALE_AFTER: Duration = Duration::from_secs(3600);
/// The exit code that the official client gives such a run.
const DIED: i32 = 1;

/// Starts the upload of each log.
pub fn sync(logs: Vec<PathBuf>, overrides: &Overrides, uploads: &Uploads, watcher: &Arc<dyn Watcher>) {
    for log in logs {
        let id = id_of(&log);
        let (end, chosen) = match log_end(&log) {
            Ok(known) => known,
            Err(error) => {
                watcher.ended(RunEnd { source: log, id, record_error: Some(error), ..RunEnd::default() });
                continue;
            }
        };
        let to_upload = RunToUpload {
            id: id.clone(),
            log: log.clone(),
            overrides: overrides.clone().or(chosen),
            end: watch::channel(end).1,
            live: false,
            meter: None,
        };
        let watcher_at_end = watcher.clone();
        uploads.start(to_upload, move |uploaded| {
            watcher_at_end.ended(RunEnd { source: log, id, uploaded: Some(uploaded), ..RunEnd::default() });
        });
    }
}

/// How far a log counts, and where it is sent. A log of ours counts only up to its checkpoint, whatever stands behind it.
fn log_end(log: &Path) -> Result<(LogEnd, Overrides), RecordError> {
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
            let close = if age >= STALE_AFTER { Close::Fail(DIED) } else { Close::LeaveRunning };
            (LogEnd { position: None, complete: true, close }, Overrides::default())
        }
    })
}

/// The id in the name of a log: `run-<id>.wandb`.
pub fn id_of(log: &Path) -> Option<RunId> {
    let name = log.file_stem()?.to_str()?;
    RunId::new(name.strip_prefix("run-")?).ok()
}
