//! The right half of a command: one task a run, one client, one budget.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::ApiClient;
use crate::model::RunId;
use crate::pipeline::report::Watcher;
use crate::upload::{Fleet, LogEnd, Overrides, UploadJob, UploadOutcome, upload_run};

/// All uploads of a command.
pub struct Uploads {
    runtime: Arc<Runtime>,
    fleet: Arc<Fleet>,
    cancel: CancellationToken,
    watcher: Arc<dyn Watcher>,
    tasks: Mutex<JoinSet<()>>,
    /// A run that ended and goes on is uploaded by a second task, which waits for the first.
    turns: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

impl fmt::Debug for Uploads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Uploads").field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

/// A run that is to be uploaded.
#[derive(Debug)]
pub struct RunToUpload {
    /// Its id, as far as it is known.
    pub id: Option<RunId>,
    /// The log, in its run directory.
    pub log: PathBuf,
    /// What replaces what the log says of its destination.
    pub overrides: Overrides,
    /// How far the log counts, and whether more will come.
    pub end: watch::Receiver<LogEnd>,
    /// Whether the run is to be shown as running while nothing comes.
    pub live: bool,
}

impl Uploads {
    /// At most `transfers` runs are sent at once.
    pub fn new(runtime: Arc<Runtime>, api: ApiClient, transfers: u16, watcher: Arc<dyn Watcher>) -> Self {
        let cancel = CancellationToken::new();
        Self {
            runtime,
            fleet: Fleet::new(Arc::new(api), usize::from(transfers), &cancel),
            cancel,
            watcher,
            tasks: Mutex::new(JoinSet::new()),
            turns: Mutex::new(HashMap::new()),
        }
    }

    /// Cancelled to stop all uploads where they are; what they saved is resumable.
    pub fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Uploads a run beside everything else; `ended` is called once, at the end.
    pub fn start(&self, run: RunToUpload, ended: impl FnOnce(UploadOutcome) + Send + 'static) {
        let turn =
            self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(run.log.clone()).or_default().clone();
        let (fleet, watcher) = (self.fleet.clone(), self.watcher.clone());
        let task = async move {
            let _turn = turn.lock().await;
            let directory = run.log.parent().unwrap_or(Path::new(".")).to_owned();
            let id = run.id;
            let job = UploadJob {
                log: run.log,
                files_dir: directory.join("files"),
                state_dir: directory,
                end: run.end,
                overrides: run.overrides,
                live: run.live,
                progress: Arc::new(move |progress| {
                    if let Some(id) = &id {
                        watcher.progress(id, progress);
                    }
                }),
            };
            ended(upload_run(job, fleet).await);
        };
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn_on(task, self.runtime.handle());
    }

    /// Waits until all uploads have ended. After `limit` they are cancelled, which leaves them resumable; false then.
    pub async fn finish(&self, limit: Option<Duration>) -> bool {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        let in_time = match limit {
            Some(limit) => tokio::time::timeout(limit, all).await.is_ok(),
            None => {
                all.await;
                true
            }
        };
        if !in_time {
            self.cancel.cancel();
            while tasks.join_next().await.is_some() {}
        }
        in_time
    }
}

/// The runtime of a command: its uploads, timers and signals.
pub fn runtime() -> io::Result<Arc<Runtime>> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map(Arc::new)
}
