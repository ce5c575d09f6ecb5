//! Follows one log until it ends, and keeps the server's copy of its run in step.
//!
//! ```text
//! read a batch ─► first contact ─► UpsertBucket if what it says changed ─► files due now ─► lines ─► state
//!      └── at the end of the log: wait for more, send heartbeats; at its end for good: files, then the exit
//! ```
//!
//! One request of a run is on its way at a time; the next batch is read meanwhile. Where nothing is new, nothing is sent.

mod artifacts;
mod attached;
mod ending;
mod keep;
mod requests;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::info;

use crate::api::{ApiError, Class, run_url};
use crate::cleaned::{self, Cleaned};
use crate::model::{LogPosition, RunId, SkippedReason, Skips};
use crate::upload::batch::{Batch, MAX_BYTES, MAX_LINE};
use crate::upload::contact::{self, blocking};
use crate::upload::cursor::{Cursor, first_run, media_named_before};
use crate::upload::files::{self, Due, Plan};
use crate::upload::fleet::{Fleet, Queued};
use crate::upload::fold::{Fold, Policy, RunParameters, is_uploaded_once};
use crate::upload::job::{Cleaning, LogEnd, OnConflict, Progress, RunState, UploadError, UploadJob, UploadOutcome};
use crate::upload::seat::Seat;
use crate::upload::state::{Base, RunAddress, Target, UploadState, state_path};
use crate::upload::worker::artifacts::Going;
use crate::upload::worker::attached::Attaching;
use crate::upload::worker::keep::Keep;
use crate::wandb_format::LogError;

/// A running run that is quiet for so long says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Files that change while a run goes on are not uploaded again more often than this, nor so often that it takes more
/// than a part of the time.
const LIVE_INTERVAL: Duration = Duration::from_secs(30);
const LIVE_SHARE: u32 = 10;

/// A running run does not tell of changes of its config more often than this.
const UPSERT_INTERVAL: Duration = Duration::from_secs(5);

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

/// The place in the log: at hand, or with a thread that reads on.
enum Reading {
    Not,
    At(Box<Cursor>),
    /// And up to where, as it was known then.
    Ahead(JoinHandle<(Box<Cursor>, Result<Batch, LogError>)>, LogEnd),
}

/// How a run was opened.
#[derive(PartialEq, Eq)]
enum Opened {
    /// What was read is what is to be sent.
    AsRead,
    /// The log is to be read again from where the state stands, and sent from this row on.
    ReadAgain(u64),
}

/// Whether a batch was delivered.
#[derive(PartialEq, Eq)]
enum Delivered {
    Yes,
    /// The server has more than was known: read again, and send from this row on.
    ReadAgain(u64),
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
        self.find_target().await?;
        self.load()?;
        // What was acknowledged before.
        self.acknowledged(0, 0);
        self.delete_acknowledged().await;
        self.read_from(self.state.fold.clone(), 0);
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

    /// What is kept of logs of the run that were deleted. Few runs have any.
    async fn take_up(&self) -> Result<Option<Cleaned>, UploadError> {
        if !Cleaned::is_there(&self.job.state) {
            return Ok(None);
        }
        let (log, state) = (self.job.log.clone(), self.job.state.clone());
        Ok(spawn_blocking(move || cleaned::take_up(&log, &state)).await.unwrap_or(Ok(None))?)
    }

    /// Waits until the log names its run.
    async fn find_target(&mut self) -> Result<(), UploadError> {
        if let Some(cleaned) = self.take_up().await? {
            let own = RunParameters {
                entity: cleaned.entity.clone(),
                project: cleaned.project.clone(),
                run_id: cleaned.run_id.clone(),
                ..RunParameters::default()
            };
            self.target = contact::target(&own, &self.job.overrides);
            self.cleaned = Some(cleaned);
            return Ok(());
        }
        loop {
            let end = self.end();
            let (log, cancel) = (self.job.log.clone(), self.fleet.cancel().clone());
            let read = move || first_run(&log, end.position, &cancel);
            if let Some(run) = blocking(&self.job.log, self.fleet.cancel(), read).await? {
                self.target = contact::target(&run, &self.job.overrides);
                // It becomes a part of addresses, where some ids lead elsewhere.
                RunId::new(&*self.target.run_id)
                    .map_err(|source| UploadError::RunId { log: self.job.log.clone(), source })?;
                return Ok(());
            }
            if end.complete {
                return Err(UploadError::NoRun(self.job.log.clone()));
            }
            self.changed_or(None).await?;
        }
    }

    fn load(&mut self) -> Result<(), UploadError> {
        let path = state_path(&self.job.state, self.fleet.api.base_url(), &self.target);
        let (keep, state) = Keep::open(path, self.job.log.clone(), self.job.state.locking())?;
        self.keep = Some(keep);
        self.state = state.unwrap_or_default();
        if let Some(cleaned) = &self.cleaned {
            let before = self.state.logs;
            if !self.state.follow(cleaned) {
                return Err(UploadError::Cleaned { log: self.job.log.clone(), rows: cleaned.rows });
            }
            if before != self.state.logs {
                self.touch();
            }
        }
        if self.state.mark.is_some_and(|mark| !mark.is_of(&self.job.log)) {
            info!(log = %self.job.log.display(), "the log is another one than what was acknowledged; starting over");
            self.state = UploadState { logs: self.state.logs, ..UploadState::default() };
        }
        self.forget_artifacts_to_try_again();
        self.begins_at = self.target.clone();
        if let Some(run) = self.run_of_earlier_logs() {
            self.begins_at.run_id = run.run_id;
        }
        if self.job.cleaning == Cleaning::AsAcknowledged {
            // What a process that ended in between did not come to.
            self.to_delete = self.state.sent.files.keys().cloned().collect();
        }
        Ok(())
    }

    /// What is known of the run from the logs before this one.
    fn run_of_earlier_logs(&self) -> Option<RunAddress> {
        self.job.earlier.iter().rev().find_map(|log| {
            let path = state_path(&log.state, self.fleet.api.base_url(), &self.target);
            UploadState::load(&path).ok().flatten()?.run
        })
    }

    /// Sends what a batch brings, if it brings anything, and takes it over into the state. `last` is the run's exit code,
    /// when nothing else is left to send behind this batch: then it goes with it.
    async fn deliver(&mut self, batch: Batch, end: LogEnd, last: Option<i32>) -> Result<Delivered, UploadError> {
        let mut plan = files::plan_now(&batch.after, &self.state.sent, (&self.job.files_dir, self.job.links));
        let mut media = files::plan_media(&batch.media, &self.state.sent, (&self.job.files_dir, self.job.links));
        if !media.missing.is_empty() {
            // What was named before was uploaded then, and may have gone since.
            let known = self.media_before().await?;
            media.missing.retain(|path| !known.contains(path));
        }
        plan.due.extend(media.due);
        plan.missing.extend(media.missing);
        plan.due.extend(self.changed_files(&batch.after));
        let changed = batch.after.revisions != self.state.sent.revisions;
        let alerts = batch.after.alerts > self.state.sent.alerts;
        let artifacts = batch.after.artifacts.len() > self.state.fold.artifacts.len();
        if !batch.has_lines() && !changed && !alerts && !artifacts && plan == Plan::default() {
            let moved = self.state.fold.position != batch.after.position;
            self.take_over(batch.after, &batch.media);
            if moved {
                self.touch();
                self.acknowledged(0, 0);
            }
            return Ok(Delivered::Yes);
        }
        if batch.after.run.is_none() {
            return Err(UploadError::NoRun(self.job.log.clone()));
        }
        self.take_place().await?;
        if !self.opened
            && let Opened::ReadAgain(from) = self.open(&batch.after, end).await?
        {
            return Ok(Delivered::ReadAgain(from));
        }
        if !batch.at_end {
            self.read_ahead(end);
        }
        if last.is_some() || !self.job.live || self.last_upsert.elapsed() >= UPSERT_INTERVAL {
            self.tell_changes(&batch.after).await?;
        }
        if last.is_some() {
            plan.add(self.plan_at_end(&batch.after, end).await);
        }
        self.upload_files(plan).await?;
        self.send_alerts(&batch).await?;

        let room = MAX_BYTES.saturating_sub(batch.bytes);
        let summary = self.new_summary(&batch.after, if batch.has_lines() { room } else { MAX_LINE });
        let revision = batch.after.revisions.summary;
        // A summary that is too long for these lines goes with the next request, and the exit behind it.
        let exit = last.filter(|_| summary.is_some() || self.state.sent.revisions.summary == revision);
        if batch.has_lines() || summary.is_some() || !self.state.sent.unreported.is_empty() || exit.is_some() {
            let (rows, bytes) = (batch.history.count, batch.bytes as u64);
            let (after, media) = (batch.after.clone(), batch.media.clone());
            self.state.sent.in_flight = rows;
            self.touch();
            self.send(Some(batch), summary.clone(), exit).await?;
            self.state.sent.in_flight = 0;
            self.take_over(after, &media);
            if summary.is_some() {
                self.state.sent.revisions.summary = revision;
            }
            self.ended = exit.is_some();
            self.state.sent.finished = exit.or(self.state.sent.finished);
            self.rows_sent += rows;
            self.acknowledged(rows, bytes);
        } else {
            self.take_over(batch.after, &batch.media);
            self.acknowledged(0, 0);
        }
        self.go_on_with_artifacts()?;
        self.touch();
        if self.ended || self.keep.as_ref().is_some_and(Keep::is_due) {
            self.save().await?;
        }
        Ok(Delivered::Yes)
    }

    /// The files that are uploaded once, and were, because what names them was acknowledged. Few runs need to know.
    async fn media_before(&mut self) -> Result<&HashSet<String>, UploadError> {
        if self.media_before.is_none() {
            let (log, position) = (self.job.log.clone(), self.state.fold.position);
            let cancel = self.fleet.cancel().clone();
            let read = move || media_named_before(&log, position, &cancel);
            self.media_before = Some(blocking(&self.job.log, self.fleet.cancel(), read).await?);
        }
        Ok(self.media_before.get_or_insert_default())
    }

    /// The log up to the end of a batch was acknowledged, and with it the files that are uploaded once.
    fn take_over(&mut self, after: Fold, media: &[String]) {
        self.state.fold = after;
        if let Some(known) = &mut self.media_before {
            known.extend(media.iter().cloned());
        }
        if self.job.cleaning == Cleaning::AsAcknowledged {
            self.to_delete.extend_from_slice(media);
            return;
        }
        for path in media {
            self.state.sent.files.remove(path);
        }
    }

    /// Whether there is a log that counts.
    fn has_log(&mut self) -> bool {
        self.end().position != Some(LogPosition(0)) && self.job.log.exists()
    }

    /// Waits for more at the end of the log. Meanwhile a running run says that it lives, and late changes are told.
    async fn idle(&mut self) -> Result<(), UploadError> {
        self.seat.leave();
        self.save().await?;
        loop {
            let mut wake = None;
            if self.opened {
                let fold = &self.state.fold.revisions;
                let sent = &self.state.sent.revisions;
                let changed = fold.config != sent.config || fold.parameters != sent.parameters;
                let files = self.job.live && self.state.fold.has_live_files();
                let summary = fold.summary != sent.summary || !self.state.sent.unreported.is_empty();
                wake = [
                    self.job.live.then(|| self.last_request + HEARTBEAT),
                    changed.then(|| self.last_upsert + UPSERT_INTERVAL),
                    summary.then(|| self.last_request + self.fleet.send_interval()),
                    files.then_some(self.next_live),
                    self.artifacts.look_again(),
                ]
                .into_iter()
                .flatten()
                .min();
            }
            if self.changed_or(wake).await? {
                return Ok(());
            }
            self.take_place().await?;
            self.go_on_with_artifacts()?;
            let fold = self.state.fold.clone();
            if self.last_upsert.elapsed() >= UPSERT_INTERVAL {
                self.tell_changes(&fold).await?;
            }
            let due = self.changed_files(&fold);
            if !due.is_empty() {
                self.upload_files(Plan { due, ..Plan::default() }).await?;
            }
            self.flush_summary(&fold).await?;
            if self.job.live && self.last_request.elapsed() >= HEARTBEAT {
                self.send(None, None, None).await?;
            }
            self.seat.leave();
            self.save().await?;
        }
    }

    /// The files of a running run that are to be uploaded again because they changed, when it is time to look.
    fn changed_files(&mut self, fold: &Fold) -> Vec<Due> {
        if !self.job.live || !self.opened || Instant::now() < self.next_live {
            return Vec::new();
        }
        self.next_live = Instant::now() + LIVE_INTERVAL;
        files::plan_live(fold, &self.state.sent, (&self.job.files_dir, self.job.links))
    }

    /// Waits until the next small request may go out. A full one goes at once, and so does the first.
    async fn pace(&mut self) -> Result<(), UploadError> {
        loop {
            let end = self.end();
            let at = match &self.reading {
                Reading::At(cursor) => cursor.position(),
                Reading::Ahead(..) | Reading::Not => return Ok(()),
            };
            let waiting = end.position.map_or(u64::MAX, |position| position.0.saturating_sub(at.0));
            let due = self.last_request + self.fleet.send_interval();
            if end.complete
                || self.first_request
                || waiting >= MAX_BYTES as u64
                || Instant::now() >= due
                || self.fleet.is_hurried()
            {
                return Ok(());
            }
            self.seat.leave();
            self.changed_or(Some(due)).await?;
        }
    }

    /// Waits for news about the log's end, or for a moment. Returns whether there are news.
    async fn changed_or(&mut self, moment: Option<Instant>) -> Result<bool, UploadError> {
        let cancel = self.fleet.cancel();
        let wait = async {
            match moment {
                Some(moment) => sleep_until(moment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ApiError::Cancelled.into()),
            changed = self.end.changed() => {
                self.abandoned = changed.is_err();
                Ok(true)
            }
            () = self.fleet.hurry_changes() => Ok(false),
            () = wait => Ok(false),
        }
    }

    /// What is known of the log's end. When nobody is left to say more, it is complete.
    fn end(&mut self) -> LogEnd {
        let end = *self.end.borrow_and_update();
        LogEnd { complete: end.complete || self.abandoned, ..end }
    }

    /// What was there before the log's first line, as far as it is known.
    fn base(&self) -> Base {
        self.state.run.as_ref().map(|run| run.base).unwrap_or_default()
    }

    fn read_from(&mut self, fold: Fold, resend_from: u64) {
        let base = self.base();
        self.reading = Reading::At(Box::new(Cursor::new(self.job.log.clone(), fold, base, resend_from)));
    }

    fn read_ahead(&mut self, end: LogEnd) {
        self.reading = match std::mem::replace(&mut self.reading, Reading::Not) {
            Reading::At(mut cursor) => {
                let read = move || {
                    let batch = cursor.next_batch(end);
                    (cursor, batch)
                };
                Reading::Ahead(spawn_blocking(read), end)
            }
            other => other,
        };
    }

    /// The next batch, and the end that was known when it was read.
    async fn next_batch(&mut self, end: LogEnd) -> Result<(Batch, LogEnd), UploadError> {
        self.read_ahead(end);
        let Reading::Ahead(reading, known) = std::mem::replace(&mut self.reading, Reading::Not) else {
            return Err(ApiError::Cancelled.into());
        };
        let (cursor, batch) = reading.await.map_err(|error| self.log_error(std::io::Error::other(error).into()))?;
        self.reading = Reading::At(cursor);
        let batch = batch.map_err(|source| self.log_error(source))?;
        Ok((batch, known))
    }

    async fn take_place(&mut self) -> Result<(), UploadError> {
        if let Some(error) = self.fleet.reason_to_stop(&self.target.entity, &self.target.project) {
            return Err(UploadError::Stopped(error));
        }
        Ok(self.seat.take().await?)
    }

    fn acknowledged(&self, rows: u64, bytes: u64) {
        (self.job.progress)(Progress::Acknowledged { rows, bytes, position: self.state.fold.position });
    }

    /// The state changed: it is to be saved.
    fn touch(&mut self) {
        if let Some(keep) = &mut self.keep {
            keep.changed();
        }
    }

    async fn save(&mut self) -> Result<(), UploadError> {
        if let Some(keep) = &mut self.keep {
            keep.save(&self.state).await?;
            self.delete_acknowledged().await;
        }
        Ok(())
    }

    /// Deletes what may go now that the state is saved: a process that finds a file missing must know that it was sent.
    async fn delete_acknowledged(&mut self) {
        if self.job.cleaning != Cleaning::AsAcknowledged {
            return;
        }
        // Those that the fold does not name yet are left for later.
        let files = &self.state.fold.files;
        let paths: Vec<String> = self
            .to_delete
            .extract_if(.., |path| files.contains_key(path) || is_uploaded_once(path, Policy::Now))
            .collect();
        if !paths.is_empty() {
            let (fold, sent, directory) =
                (self.state.fold.clone(), self.state.sent.clone(), self.job.files_dir.clone());
            // An upload that ends deletes what is left at the next start.
            let gone = spawn_blocking(move || files::delete_acknowledged(&paths, &fold, &sent, &directory)).await;
            if self.opened {
                for path in gone.unwrap_or_default() {
                    self.state.sent.files.remove(&path);
                }
                self.touch();
            }
        }
        (self.job.progress)(Progress::Deleted { position: self.state.fold.position });
    }

    /// Notes what an error means for other runs, and finds out whether another run's error is behind it.
    fn explain(&mut self, error: UploadError) -> UploadError {
        let UploadError::Api(api) = &error else { return error };
        self.fleet.learn(api, &self.target.entity, &self.target.project);
        if api.class() != Class::Cancelled {
            return error;
        }
        match self.fleet.reason_to_stop(&self.target.entity, &self.target.project) {
            Some(reason) => UploadError::Stopped(reason),
            None => error,
        }
    }

    fn log_error(&self, source: LogError) -> UploadError {
        UploadError::Log { log: self.job.log.clone(), source }
    }

    fn skips(&self) -> Skips {
        let mut skips = self.state.fold.skips();
        let failed = &self.state.sent.failed_files;
        let first = || {
            let first = failed.first().map(String::as_str).unwrap_or_default();
            files::explained(&self.job.files_dir, first, self.job.links)
        };
        skips.add(SkippedReason::File, failed.len() as u64, first);
        self.skip_artifacts(&mut skips);
        self.attaching.skip(&mut skips);
        let summary = self.state.sent.summary_too_large;
        skips.add(SkippedReason::RowTooLarge, u64::from(summary.is_some()), || {
            format!("the summary, of {} bytes", summary.unwrap_or_default())
        });
        let alerts = self.state.sent.failed_alerts;
        skips.add(SkippedReason::Kind("alerts".to_owned()), alerts, || "the server did not take it".to_owned());
        skips.add(SkippedReason::IncompleteTail, u64::from(self.incomplete), || {
            format!("behind byte {}", self.state.fold.position.0)
        });
        skips
    }

    fn lost(&self) -> bool {
        self.skips().any_loss()
    }

    fn outcome(&self, ended: Result<RunState, UploadError>) -> UploadOutcome {
        let run = self.state.run.clone();
        let url = run.as_ref().map(|run| run_url(self.fleet.api.app_url(), &run.entity, &run.project, &run.run_id));
        let run = run.unwrap_or_else(|| RunAddress {
            entity: self.target.entity.clone(),
            project: self.target.project.clone(),
            run_id: self.target.run_id.clone(),
            ..RunAddress::default()
        });
        UploadOutcome {
            state: ended.unwrap_or_else(|error| match error {
                UploadError::Conflict { .. } | UploadError::Vanished { .. }
                    if self.job.on_conflict == OnConflict::Skip =>
                {
                    RunState::Skipped(error)
                }
                error => RunState::Failed(error),
            }),
            rows_sent: self.rows_sent,
            files_sent: self.files_sent.len() as u64,
            artifacts_sent: self.artifacts_sent,
            rows_total: self.state.fold.history_lines,
            skips: self.skips(),
            attached: self.attaching.seen.clone(),
            later: self.later.clone().filter(|_| !self.state.sent.failed_files.is_empty()),
            url: url.unwrap_or_default(),
            display_name: run.display_name,
            group: self.state.fold.run.as_ref().map(|run| run.group.clone()).unwrap_or_default(),
            entity: run.entity,
            project: run.project,
            run_id: run.run_id,
        }
    }
}
