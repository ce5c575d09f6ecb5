//! The right half of a command: one task a run, one client, one budget.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::ApiClient;
use crate::checkpoint::STATE_DIRECTORY;
use crate::lock::{Lock, LockError};
use crate::upload::{LogEnd, Progress, Target, UploadJob, UploadOutcome, upload_run};

/// All uploads of a command.
#[derive(Debug)]
pub struct Uploads {
    runtime: Arc<Runtime>,
    api: Arc<ApiClient>,
    transfers: Arc<Semaphore>,
    cancel: CancellationToken,
    who: String,
    tasks: Mutex<JoinSet<()>>,
    /// A run that ended and goes on is uploaded by a second task, which waits for the first.
    turns: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

/// A run that is to be uploaded.
#[derive(Debug)]
pub struct RunToUpload {
    /// The log, in its run directory.
    pub log: PathBuf,
    /// Where it goes.
    pub target: Target,
    /// How far the log counts, and whether more will come.
    pub end: watch::Receiver<LogEnd>,
    /// Whether the run is to be shown as running while nothing comes.
    pub live: bool,
}

/// How an upload ended.
#[derive(Debug)]
pub enum Uploaded {
    /// It was tried.
    Tried(Box<UploadOutcome>),
    /// Another process uploads the run, or its lock cannot be taken.
    Locked(LockError),
}

impl Uploads {
    /// At most `transfers` runs are sent at once.
    pub fn new(runtime: Arc<Runtime>, api: ApiClient, transfers: u16, who: String) -> Self {
        Self {
            runtime,
            api: Arc::new(api),
            transfers: Arc::new(Semaphore::new(usize::from(transfers))),
            cancel: CancellationToken::new(),
            who,
            tasks: Mutex::new(JoinSet::new()),
            turns: Mutex::new(HashMap::new()),
        }
    }

    /// Cancelled to stop all uploads where they are; what they saved is resumable.
    pub fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Uploads a run beside everything else; `progress` is told as it goes, and `ended` once, at the end.
    pub fn start(&self, run: RunToUpload, progress: Progress, ended: impl FnOnce(Uploaded) + Send + 'static) {
        let turn = self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(run.log.clone()).or_default().clone();
        let (api, transfers, cancel, who) = (self.api.clone(), self.transfers.clone(), self.cancel.clone(), self.who.clone());
        let task = async move {
            let _turn = turn.lock().await;
            let directory = run.log.parent().map(std::path::Path::to_owned).unwrap_or_default();
            let state_directory = directory.join(STATE_DIRECTORY);
            let lock = std::fs::create_dir_all(&state_directory)
                .map_err(|source| LockError::Io { path: state_directory.clone(), source })
                .and_then(|()| Lock::take(&state_directory.join("uploader.lock"), &who));
            let _lock = match lock {
                Ok(lock) => lock,
                Err(error) => return ended(Uploaded::Locked(error)),
            };
            let job = UploadJob {
                log: run.log,
                state_dir: state_directory,
                files_dir: directory.join("files"),
                end: run.end,
                target: run.target,
                live: run.live,
                cancel,
                transfers,
                progress,
            };
            ended(Uploaded::Tried(Box::new(upload_run(job, api).await)));
        };
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn_on(task, self.runtime.handle());
    }

    /// Waits until all uploads have ended. After `limit` they are cancelled, which leaves them resumable.
    pub async fn finish(&self, limit: Option<Duration>) {
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
    }
}

/// The runtime of a command: its uploads, timers and signals.
pub fn runtime() -> io::Result<Arc<Runtime>> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map(Arc::new)
}
