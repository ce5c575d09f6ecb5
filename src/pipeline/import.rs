//! Import: everything that is there now, once.

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pipeline::recording::Recording;
use crate::pipeline::report::{Recorded, RunEnd, Watcher};
use crate::pipeline::uploads::{RunToUpload, Uploads};
use crate::recorder::{End, Pass};
use crate::survey::PlannedRun;
use crate::upload::{Close, LogEnd, Target};

/// Records all runs, several at once, and uploads them if there is anything to upload them with. Returns when all are
/// recorded; uploads may still be under way. `stop` ends it early, between two commits.
pub fn import(runs: Vec<PlannedRun>, recording: &Recording, uploads: Option<&Uploads>, stop: &CancellationToken, watcher: &Arc<dyn Watcher>) {
    runs.into_par_iter().for_each(|plan| {
        if stop.is_cancelled() {
            return;
        }
        import_run(plan, recording, uploads, stop, watcher);
    });
}

fn import_run(plan: PlannedRun, recording: &Recording, uploads: Option<&Uploads>, stop: &CancellationToken, watcher: &Arc<dyn Watcher>) {
    let mut run = match recording.open(&plan) {
        Ok(run) => run,
        Err(error) => {
            let id = recording.place_of(&plan).map(|(id, _)| id).ok();
            return watcher.ended(RunEnd::not_opened(plan, id, error));
        }
    };
    let project = recording.naming.project(&plan);
    let (published, end) = watch::channel(LogEnd { position: Some(run.recorder.checkpoint().position), complete: false, close: Close::LeaveRunning });
    let recorded = Arc::new(OnceLock::new());
    if let Some(uploads) = uploads {
        let to_upload = RunToUpload {
            log: run.recorder.log().to_owned(),
            target: Target { entity: recording.naming.entity(), project: Some(project), run_id: None },
            end,
            live: false,
        };
        let (recorded, watcher_at_end) = (recorded.clone(), watcher.clone());
        uploads.start(to_upload, watcher.progress(), move |uploaded| {
            // An upload can only end after the recording was filled in, or when it was cancelled before.
            watcher_at_end.ended(RunEnd::of(&recorded, Some(uploaded)));
        });
    }
    let publish = |position| {
        published.send_modify(|end| end.position = Some(position));
    };
    let result = run.recorder.pass(&plan.sources, End::Exit(0), publish, || !stop.is_cancelled());
    let (pass, error) = match result {
        Ok(pass) => (pass, None),
        Err(error) => (Pass::default(), Some(error)),
    };
    // Filled in once: nobody else does.
    let _ = recorded.set(Recorded::new(plan, run, pass, error));
    if uploads.is_none() {
        watcher.ended(RunEnd::of(&recorded, None));
    }
    published.send_modify(|end| end.complete = true);
}
