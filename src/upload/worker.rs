//! Follows one log until it ends, and keeps the server's copy of its run in step.
//!
//! ```text
//! read a batch ─► first contact ─► UpsertBucket if what it says changed ─► files due now ─► lines ─► state
//!      └── at the end of the log: wait for more, send heartbeats; at its end for good: files, then the exit
//! ```
//!
//! One request of a run is on its way at a time; the next batch is read meanwhile. Where nothing is new, nothing is sent.
//!
//! What it knows is in one place, [`Worker`]; each of its steps is a file: `start`, `reading`, `opening`, `delivery` (with
//! `requests`, `artifacts`, `attached`), `waiting`, `ending`, `outcome`. Each leaves the state true of what was acknowledged.

mod artifacts;
mod attached;
mod delivery;
mod ending;
mod keep;
mod opening;
mod outcome;
mod reading;
mod requests;
mod start;
mod waiting;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use crate::api::ApiError;
use crate::cleaned::Cleaned;
use crate::model::LogPosition;
use crate::upload::fleet::{Fleet, Queued};
use crate::upload::fold::Fold;
use crate::upload::job::{LogEnd, RunState, UploadError, UploadJob, UploadOutcome};
use crate::upload::seat::Seat;
use crate::upload::state::{Base, Target, UploadState};
use crate::upload::worker::artifacts::Going;
use crate::upload::worker::attached::Attaching;
use crate::upload::worker::delivery::Delivered;
use crate::upload::worker::keep::Keep;
use crate::upload::worker::reading::Reading;
use crate::upload::worker::start::Named;
use crate::upload::worker::waiting::LIVE_INTERVAL;
use crate::wandb_format::LogError;

/// Uploads one log until it ends, or is cancelled, or cannot go on.
///
/// A mistake in this program that ends it in mid-way is an outcome too, and costs only this run.
pub async fn upload_run(job: UploadJob, fleet: Arc<Fleet>) -> UploadOutcome {
    upload_queued_run(job, fleet, None).await
}

/// The same, for a run that has a place in the queue already.
pub async fn upload_queued_run(job: UploadJob, fleet: Arc<Fleet>, queued: Option<Queued>) -> UploadOutcome {
    let broken = Worker::new(&job, &fleet, None).outcome(Ok(RunState::Running));
    match tokio::spawn(upload(job, fleet, queued)).await {
        Ok(outcome) => outcome,
        Err(error) => {
            let error = match error.try_into_panic() {
                Ok(panic) => UploadError::Broken(words_of(panic.as_ref())),
                Err(_) => ApiError::Cancelled.into(),
            };
            UploadOutcome { state: RunState::Failed(error), ..broken }
        }
    }
}

async fn upload(job: UploadJob, fleet: Arc<Fleet>, queued: Option<Queued>) -> UploadOutcome {
    let _active = fleet.enter();
    let mut worker = Worker::new(&job, &fleet, queued);
    let ended = match worker.follow().await {
        Ok(state) => Ok(state),
        Err(error) => Err(worker.explain(error)),
    };
    let saved = worker.save().await;
    worker.outcome(ended.and_then(|state| saved.map(|()| state)))
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".to_owned())
}

struct Worker<'a> {
    job: &'a UploadJob,
    end: watch::Receiver<LogEnd>,
    fleet: &'a Arc<Fleet>,
    target: Target,
    /// Where a log begins of which nothing is known: the target, or the other id under which the logs before it went.
    begins_at: Target,
    state: UploadState,
    keep: Option<Keep>,
    reading: Reading,
    seat: Arc<Seat>,
    /// Whether this call has opened the run on the server.
    opened: bool,
    /// Nothing was there when it did, under the run's own id, and nothing was known of it.
    begins_anew: bool,
    /// How many rows of ours were there already when nothing was known of the run.
    rows_found: Option<u64>,
    first_request: bool,
    last_request: Instant,
    last_upsert: Instant,
    /// When to look at files that change again.
    next_live: Instant,
    rows_sent: u64,
    files_sent: BTreeSet<String>,
    artifacts_sent: u64,
    /// What is known of logs of this run that were deleted.
    cleaned: Option<Cleaned>,
    /// See [`Worker::media_before`].
    media_before: Option<HashSet<String>>,
    /// Files that may be deleted here once the state that says that they were sent is saved.
    to_delete: Vec<String>,
    incomplete: bool,
    /// The run's exit was sent with its last lines.
    ended: bool,
    /// Why files could not be uploaded that may be later.
    later: Option<ApiError>,
    abandoned: bool,
    /// The artifacts that are on their way.
    artifacts: Going,
    /// What is to be attached beside them.
    attaching: Attaching,
}

impl<'a> Worker<'a> {
    fn new(job: &'a UploadJob, fleet: &'a Arc<Fleet>, queued: Option<Queued>) -> Self {
        let own = |text: &Option<String>| text.clone().unwrap_or_default();
        let over = &job.overrides;
        let target = Target { entity: own(&over.entity), project: own(&over.project), run_id: own(&over.run_id) };
        let now = Instant::now();
        Self {
            job,
            end: job.end.clone(),
            fleet,
            begins_at: target.clone(),
            target,
            state: UploadState::default(),
            keep: None,
            reading: Reading::Not,
            seat: Arc::new(Seat::new(fleet.clone(), !job.live, queued)),
            opened: false,
            begins_anew: false,
            rows_found: None,
            first_request: true,
            last_request: now,
            last_upsert: now,
            next_live: now + LIVE_INTERVAL,
            rows_sent: 0,
            files_sent: BTreeSet::new(),
            artifacts_sent: 0,
            cleaned: None,
            media_before: None,
            to_delete: Vec::new(),
            incomplete: false,
            ended: false,
            later: None,
            abandoned: false,
            artifacts: Going::default(),
            attaching: Attaching::default(),
        }
    }

    async fn follow(&mut self) -> Result<RunState, UploadError> {
        self.seat.enter().await?;
        let Named::Run(first) = self.find_target().await? else { return Ok(RunState::Running) };
        self.load()?;
        // What was acknowledged before.
        self.acknowledged(0, 0);
        self.delete_acknowledged().await;
        match first {
            // Nobody has sent any of it meanwhile.
            Some(first) if self.state == UploadState::default() => self.reading = first,
            _ => self.read_from(self.state.fold.clone(), 0),
        }
        loop {
            if self.cleaned.is_some() && !self.has_log() {
                // All that there was is on the server, and deleted here.
                if self.end().complete {
                    return Ok(if self.lost() { RunState::Partial } else { RunState::Synced });
                }
                self.changed_or(None).await?;
                continue;
            }
            self.pace().await?;
            let end = self.end();
            let (batch, known) = match self.next_batch(end).await {
                // The log is another one than the state speaks of: what the server holds decides.
                Err(UploadError::Log { source: LogError::Shorter { .. }, .. })
                    if !self.opened && self.state.run.is_some() && self.cleaned.is_none() =>
                {
                    info!(log = %self.job.log.display(), "the log is shorter than what was acknowledged; starting over");
                    self.state = UploadState::default();
                    self.read_from(Fold::default(), 0);
                    continue;
                }
                other => other?,
            };
            // What was read ahead may have ended where there is more by now.
            let at_end = batch.at_end && known == end;
            self.incomplete = batch.incomplete;
            let last = if at_end { self.last_word(&batch, end) } else { None };
            if let Delivered::ReadAgain(from) = self.deliver(batch, end, last).await? {
                self.read_from(self.state.fold.clone(), from);
                continue;
            }
            if at_end && self.is_over(&self.state.fold, end) {
                match self.finish(end).await? {
                    Some(state) => return Ok(state),
                    None => continue,
                }
            }
            if at_end {
                self.idle().await?;
            }
        }
    }

    /// Whether there is a log that counts.
    fn has_log(&mut self) -> bool {
        self.end().position != Some(LogPosition(0)) && self.job.log.exists()
    }

    /// What was there before the log's first line, as far as it is known.
    fn base(&self) -> Base {
        self.state.run.as_ref().map(|run| run.base).unwrap_or_default()
    }
}
