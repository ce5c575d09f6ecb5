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

use crate::api::{ApiClient, Class};
use crate::artifact::Attachment;
use crate::checkpoint::Checkpoint;
use crate::model::RunId;
use crate::pipeline::report::{Note, Watcher};
use crate::pipeline::spool::{Fate, Meter, Spool};
use crate::pipeline::stopping::Stopping;
use crate::state_file::place::StateHome;
use crate::upload::{
    Cleaning, Fleet, Foreign, Links, LogEnd, OnConflict, Overrides, Progress, Queued, RunLog, RunState, UploadError,
    UploadJob, UploadOutcome, upload_queued_run,
};

/// The pause between two uploads of a log that still grows, when one could not go on.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// From so many runs on it is looked which of them are still at work.
const TURNS_KEPT: usize = 64;

/// All uploads of a command.
pub struct Uploads {
    runtime: Arc<Runtime>,
    fleet: Arc<Fleet>,
    cancel: CancellationToken,
    watcher: Arc<dyn Watcher>,
    state: StateHome,
    tasks: Mutex<JoinSet<()>>,
    /// By run id, or by log where that is not known. A run that ended and goes on is uploaded by a second task, which
    /// waits for the first; so do two logs of one run, which must not be written over each other.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    spool: Arc<Spool>,
    choices: Choices,
}

/// What the user chose for all runs.
#[derive(Debug, Clone, Default)]
struct Choices {
    clean: bool,
    on_conflict: OnConflict,
    links: Links,
    staging: Arc<[PathBuf]>,
    accept_losses: bool,
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
    /// What is special about the log where another client wrote it.
    pub foreign: Option<Foreign>,
    /// The logs of the run before it, in the order of their start.
    pub earlier: Vec<RunLog>,
    /// What is made of files beside the log, and sent when all of it was.
    pub attach: Vec<Attachment>,
    /// Its bytes in the spool, if it is read in this process.
    pub meter: Option<Meter>,
}

/// What is to be done when an upload has ended.
pub(super) type Ended = Box<dyn FnOnce(UploadOutcome) + Send>;

impl Uploads {
    /// At most `transfers` runs are sent at once.
    pub fn new(
        runtime: Arc<Runtime>,
        api: ApiClient,
        transfers: u16,
        state: StateHome,
        watcher: Arc<dyn Watcher>,
    ) -> Self {
        let cancel = CancellationToken::new();
        Self {
            runtime,
            fleet: Fleet::new(Arc::new(api), usize::from(transfers), &cancel),
            cancel,
            watcher,
            state,
            spool: Spool::new(u64::MAX, 1),
            tasks: Mutex::new(JoinSet::new()),
            turns: Mutex::new(HashMap::new()),
            choices: Choices::default(),
        }
    }

    /// What to do with runs whose ids hold something else on the server.
    #[must_use]
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.choices.on_conflict = on_conflict;
        self
    }

    /// What becomes of links among the files of runs.
    #[must_use]
    pub fn following(mut self, links: Links) -> Self {
        self.choices.links = links;
        self
    }

    /// Where staged files of artifacts may lie, besides where they were and around their logs.
    #[must_use]
    pub fn staged_in(mut self, staging: &[PathBuf]) -> Self {
        self.choices.staging = staging.into();
        self
    }

    /// Whether logs of which something is lost for good are marked as sent all the same.
    #[must_use]
    pub fn accepting_losses(mut self, accept: bool) -> Self {
        self.choices.accept_losses = accept;
        self
    }

    /// The client that all of them use.
    pub fn api(&self) -> &Arc<ApiClient> {
        self.fleet.api()
    }

    /// Where the state of runs lies.
    pub fn state(&self) -> &StateHome {
        &self.state
    }

    /// With at most so many bytes of log and media that wait to be acknowledged; `clean` deletes what was.
    #[must_use]
    pub fn keeping(mut self, max_spool: u64, clean: bool) -> Self {
        self.spool = Spool::new(max_spool, rayon::current_num_threads());
        self.choices.clean = clean;
        self
    }

    /// What waits to be acknowledged.
    pub fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    /// Whether what was acknowledged is deleted here.
    pub fn cleans(&self) -> bool {
        self.choices.clean
    }

    /// Whether somebody waits for what is sent: then it is sent in small pieces too.
    pub fn hurry(&self, hurry: bool) {
        self.fleet.hurry(hurry);
    }

    /// Cancelled when the server has refused the key.
    pub fn refusal(&self) -> &CancellationToken {
        self.fleet.cancel()
    }

    /// Cancelled to stop all uploads where they are; what they saved is resumable.
    pub fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Waits until the server has refused the key.
    pub async fn refused(&self) {
        // Of the two, only the server cancels the fleet alone.
        self.fleet.cancel().cancelled().await;
    }

    /// Uploads a run beside everything else; `ended` is called once, at the end.
    ///
    /// As long as more is recorded, an upload that could not go on is tried again: the server may come back, and another
    /// process that sends its rest will be done.
    pub fn start(&self, run: RunToUpload, ended: impl FnOnce(UploadOutcome) + Send + 'static) {
        self.start_in_turn(vec![(run, Box::new(ended))]);
    }

    /// Uploads several logs of one run, one after the other. When one fails, those behind it are not tried: their rows
    /// would take its place.
    pub(super) fn start_in_turn(&self, runs: Vec<(RunToUpload, Ended)>) {
        let Some((first, _)) = runs.first() else { return };
        let turn = first.id.as_ref().map_or_else(|| first.log.display().to_string(), ToString::to_string);
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits for those that only this map knows: a long watch must not keep all that ever were.
            if turns.len() >= TURNS_KEPT && turns.len().is_power_of_two() {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            turns.entry(turn).or_default().clone()
        };
        let (fleet, watcher, state) = (self.fleet.clone(), self.watcher.clone(), self.state.clone());
        let (spool, choices) = (self.spool.clone(), self.choices.clone());
        // What is started first is read first. Whoever waits for its turn takes no place meanwhile.
        let its_turn = turn.clone().try_lock_owned().ok();
        let mut queued = (its_turn.is_some() && !first.live).then(|| fleet.queue());
        let task = async move {
            let _turn = match its_turn {
                Some(turn) => turn,
                None => turn.lock_owned().await,
            };
            // An upload takes memory from its first step on, and thousands may wait.
            if let Some(waiting) = queued.take() {
                queued = Some(waiting.reached(&fleet).await);
            }
            let mut failed: Option<(PathBuf, bool)> = None;
            for (run, ended) in runs {
                if let Some((before, skipped)) = &failed {
                    let id = run.id.map(|id| id.to_string()).unwrap_or_default();
                    let mut outcome = UploadOutcome::not_tried(id, UploadError::NotItsTurn(before.clone()));
                    if *skipped {
                        outcome.state = RunState::Skipped(UploadError::NotItsTurn(before.clone()));
                    }
                    ended(outcome);
                    continue;
                }
                let upload = upload(&run, &fleet, queued.take(), &watcher, &state, &spool, &choices);
                let outcome = Box::pin(upload).await;
                failed = match &outcome.state {
                    RunState::Failed(_) => Some((run.log.clone(), false)),
                    RunState::Skipped(_) => Some((run.log.clone(), true)),
                    // It is opened once more for its files, and the run must not have gone on by then.
                    RunState::Partial if outcome.later.is_some() => Some((run.log.clone(), false)),
                    _ => None,
                };
                if let Some(meter) = &run.meter {
                    meter.ended(fate(&outcome.state));
                }
                ended(outcome);
            }
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended are let go.
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, self.runtime.handle());
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
        self.fleet.settle().await.into_iter().for_each(|why| self.watcher.note(Note::Trouble(why)));
        in_time
    }

    /// Waits for all uploads as long as there is time; false when that was not enough.
    pub async fn deliver(&self, stopping: &Stopping) -> bool {
        let finish = self.finish(None);
        tokio::pin!(finish);
        tokio::select! {
            biased;
            _ = &mut finish => !self.cancel.is_cancelled(),
            () = stopping.no_more() => {
                self.cancel.cancel();
                finish.await;
                false
            }
        }
    }
}

fn fate(state: &RunState) -> Fate {
    match state {
        RunState::Synced | RunState::Partial | RunState::Running => Fate::Delivered,
        RunState::Skipped(_) => Fate::FailedAlone,
        RunState::Failed(error) => match error.class() {
            Some(Class::Temporary | Class::Auth | Class::Forbidden | Class::Cancelled) => Fate::Failed,
            _ => Fate::FailedAlone,
        },
    }
}

impl RunToUpload {
    fn job(&self, state: &StateHome, watcher: &Arc<dyn Watcher>, choices: &Choices) -> UploadJob {
        let Choices { clean, on_conflict, links, ref staging, accept_losses } = *choices;
        let directory = self.log.parent().unwrap_or(Path::new("."));
        let state = state.of_log(&self.log);
        let (id, watcher, meter) = (self.id.clone(), watcher.clone(), self.meter.clone());
        let cleaning = match clean {
            false => Cleaning::No,
            // The media of others may still be wanted by those who write their logs.
            true if Checkpoint::is_ours(&state) => Cleaning::AsAcknowledged,
            true => Cleaning::AtEnd,
        };
        UploadJob {
            log: self.log.clone(),
            files_dir: directory.join("files"),
            links,
            state,
            end: self.end.clone(),
            overrides: self.overrides.clone(),
            live: self.live,
            on_conflict,
            foreign: self.foreign,
            earlier: self.earlier.clone(),
            attach: self.attach.clone(),
            staging: staging.clone(),
            accept_losses,
            cleaning,
            progress: Arc::new(move |progress| {
                match (&meter, &progress) {
                    (Some(meter), Progress::Acknowledged { position, .. }) if !clean => meter.acknowledged(*position),
                    (Some(meter), Progress::Deleted { position }) => meter.acknowledged(*position),
                    (Some(meter), Progress::FilesRefused { bytes }) => meter.kept(*bytes),
                    _ => {}
                }
                if let Some(id) = &id {
                    watcher.progress(id, progress);
                }
            }),
        }
    }

    /// Waits a while, or until the log is complete. An error says that there is no time left.
    async fn more_or_pause(&self, cancel: &CancellationToken) -> Result<(), ()> {
        let mut end = self.end.clone();
        tokio::select! {
            () = cancel.cancelled() => return Err(()),
            _ = end.wait_for(|end| end.complete) => {}
            () = tokio::time::sleep(TRY_AGAIN_AFTER) => {}
        }
        Ok(())
    }
}

/// Uploads a run until it has ended, or cannot go on.
async fn upload(
    run: &RunToUpload,
    fleet: &Arc<Fleet>,
    mut queued: Option<Queued>,
    watcher: &Arc<dyn Watcher>,
    state: &StateHome,
    spool: &Spool,
    choices: &Choices,
) -> UploadOutcome {
    loop {
        let job = run.job(state, watcher, choices);
        let outcome = upload_queued_run(job, fleet.clone(), queued.take()).await;
        let RunState::Failed(error) = &outcome.state else { return outcome };
        let log_ends = run.end.borrow().complete;
        let again = matches!(error, UploadError::Held(_)) || error.class() == Some(Class::Temporary);
        // An import says it once, at its end; while a run grows, nobody knows when that will be.
        if run.live && !log_ends && error.class() != Some(Class::Cancelled) {
            watcher.note(Note::Trouble(say(&run.log, error, again)));
        }
        // An import that waits for this very upload would wait for ever.
        let in_vain = !run.live && spool.is_awaited();
        if log_ends || !again || in_vain || run.more_or_pause(fleet.cancel()).await.is_err() {
            return outcome;
        }
    }
}

fn say(log: &Path, error: &UploadError, again: bool) -> String {
    let directory = log.parent().unwrap_or(log).display();
    match (again, error.class()) {
        (true, _) => format!("cannot upload `{directory}` now, and will try again: {error}"),
        // It is the same for all runs.
        (false, Some(Class::Auth)) => "W&B did not accept the API key; runs are only recorded here".to_owned(),
        (false, _) => format!("cannot upload `{directory}`, which is only recorded here: {error}"),
    }
}

/// The runtime of a command: its uploads, timers and signals.
pub fn runtime() -> io::Result<Arc<Runtime>> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map(Arc::new)
}

/// How many files may be open, where the system lets us choose. Each run takes three.
#[cfg(unix)]
const OPEN_FILES: u64 = 1 << 16;

/// Lets this process open many files. A command that was started before is not concerned.
pub fn open_many_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let wanted = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
        if current.is_some_and(|current| current < wanted)
            && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        {
            tracing::debug!(%error, wanted, "no more files may be open than before");
        }
    }
}
