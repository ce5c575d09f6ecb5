//! What a worker says to the server about its run: one request at a time, each noted when it was answered.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::api::file_stream::{Content, Lines, gzip};
use crate::api::run_url;
use crate::upload::batch::{Batch, MAX_LINE};
use crate::upload::contact::{self, Found, LogUpTo, Parts};
use crate::upload::files::{self, Plan};
use crate::upload::fold::{Fold, Policy, RunParameters, is_uploaded_once};
use crate::upload::job::{Cleaning, LogEnd, OnConflict, Progress, UploadError};
use crate::upload::state::{RunAddress, Target, UploadState};
use crate::upload::worker::{LIVE_SHARE, Opened, Worker};
use crate::wandb_format::unmark_synced;

/// How many ids are tried for a run whose own holds something else.
const MOST_IDS: u32 = 10;

impl Worker<'_> {
    /// Opens the run on the server, or another one in its place where the user chose so.
    pub(super) async fn open(&mut self, after: &Fold, end: LogEnd) -> Result<Opened, UploadError> {
        let policy = self.job.on_conflict;
        let base = |state: &UploadState| state.run.as_ref().map(|run| run.base).unwrap_or_default();
        let (before, mut started_over) = (base(&self.state), false);
        let (mut append, mut number) = (false, 1);
        let from = loop {
            let error = match self.contact(after, end, number, append).await {
                Ok(from) => break from,
                Err(error) => error,
            };
            let is_conflict = matches!(error, UploadError::Conflict { .. } | UploadError::Vanished { .. });
            let is_gone = matches!(&error, UploadError::Api(error) if matches!(error.status(), Some(409 | 410)));
            match (&error, policy) {
                // What is left of a run whose logs were deleted is not all of it.
                _ if self.cleaned.is_some() && (is_conflict || is_gone) && !append => {
                    if policy == OnConflict::Append && matches!(error, UploadError::Conflict { .. }) {
                        append = true;
                        continue;
                    }
                    return Err(error);
                }
                // There was nothing to lose.
                (UploadError::Vanished { rows: 0, .. }, _) if !started_over => {}
                (UploadError::Vanished { .. }, OnConflict::Append) if !append => append = true,
                (UploadError::Conflict { .. }, OnConflict::Append) if !append => {
                    append = true;
                    continue;
                }
                (_, OnConflict::NewId) if (is_conflict || is_gone) && number < MOST_IDS => number += 1,
                _ => return Err(error),
            }
            info!(%error, "the run is uploaded anew");
            self.state = UploadState::default();
            started_over = true;
        };
        if started_over || from > self.state.fold.history_lines || base(&self.state) != before {
            return Ok(Opened::ReadAgain(from));
        }
        Ok(Opened::AsRead)
    }

    /// Returns the number of the first row to send.
    async fn contact(&mut self, after: &Fold, end: LogEnd, number: u32, append: bool) -> Result<u64, UploadError> {
        let (api, seat) = (self.fleet.api.clone(), self.seat.clone());
        let log = LogUpTo { path: &self.job.log, limit: end.position };
        let known = self.state.run.clone();
        let found = match &known {
            Some(run) => Found {
                target: target_of(run),
                from: self.state.fold.history_lines,
                base: run.base,
                storage_id: Some(run.storage_id.clone()),
                described: false,
            },
            None => contact::look(&api, log, &contact::with_other_id(&self.target, number), append, &*seat).await?,
        };
        let description = contact::description(after, &self.job.overrides);
        let told = if found.described { description.clone() } else { self.state.sent.told.clone() };
        let parts = Parts {
            told: told.as_ref(),
            config: known.is_none() || after.revisions.config != self.state.sent.revisions.config,
        };
        let storage_id = found.storage_id.as_deref();
        let variables = contact::upsert_variables(after, &found.target, storage_id, &self.job.overrides, parts);
        let bucket = api.upsert_bucket(&variables, &*seat).await?;
        let mut address = contact::address(&bucket, found.base);
        let mut from = found.from;
        if let Some(run) = &known {
            if let Some(error) = contact::vanished(run, &self.state.fold, &bucket) {
                return Err(error);
            }
            let how = (self.state.sent.in_flight, append);
            from = contact::check(&api, log, &self.state.fold, &mut address, &bucket, how, &*seat).await?;
        } else if bucket.history_lines > found.base.history + from {
            // They were not there a moment ago.
            return Err(UploadError::Conflict {
                run: format!("{}/{}/{}", address.entity, address.project, address.run_id),
                there: bucket.history_lines,
                why: "they were not there a moment ago: something else writes to this run".to_owned(),
            });
        }
        let url = run_url(api.app_url(), &address.entity, &address.project, &address.run_id);
        info!(%url, from, "run opened");
        if self.state.sent.finished.take().is_some() && self.cleaned.is_none() {
            // Whoever goes on with a log removes the marker; this is for logs that others wrote.
            let _ = unmark_synced(&self.job.log);
        }
        (self.job.progress)(Progress::Opened { url, display_name: address.display_name.clone() });
        self.state.run = Some(address);
        self.told(after, description);
        self.opened = true;
        self.last_request = Instant::now();
        self.save().await?;
        Ok(from)
    }

    /// Notes what an `UpsertBucket` told.
    fn told(&mut self, after: &Fold, description: Option<RunParameters>) {
        self.state.sent.told = description;
        self.state.sent.revisions.config = after.revisions.config;
        self.state.sent.revisions.parameters = after.revisions.parameters;
        self.last_upsert = Instant::now();
        self.touch();
    }

    /// Tells the server what changed besides lines and summary.
    pub(super) async fn tell_changes(&mut self, after: &Fold) -> Result<(), UploadError> {
        let sent = self.state.sent.revisions;
        let config = after.revisions.config != sent.config;
        let changed = config || after.revisions.parameters != sent.parameters;
        let Some(run) = self.state.run.as_ref().filter(|_| changed) else { return Ok(()) };
        let parts = Parts { told: self.state.sent.told.as_ref(), config };
        let variables =
            contact::upsert_variables(after, &target_of(run), Some(&run.storage_id), &self.job.overrides, parts);
        self.fleet.api.upsert_bucket(&variables, &*self.seat).await?;
        self.told(after, contact::description(after, &self.job.overrides));
        Ok(())
    }

    pub(super) async fn upload_files(&mut self, plan: Plan) -> Result<(), UploadError> {
        let Some(run) = self.state.run.as_ref().map(RunAddress::bucket) else { return Ok(()) };
        let began = Instant::now();
        let sizes: BTreeMap<String, u64> = plan.due.iter().map(|due| (due.path.clone(), due.size())).collect();
        let uploaded = files::upload(&self.fleet.api, &run, plan.due, &self.seat).await?;
        self.next_live = self.next_live.max(Instant::now() + began.elapsed() * LIVE_SHARE);
        self.later = self.later.take().or(uploaded.later);
        let sent = &mut self.state.sent;
        sent.failed_files.extend(plan.missing);
        let refused: u64 = uploaded.failed.iter().filter_map(|path| sizes.get(path)).sum();
        if refused > 0 {
            (self.job.progress)(Progress::FilesRefused { bytes: refused });
        }
        sent.failed_files.extend(uploaded.failed);
        for (path, mark) in uploaded.done {
            sent.failed_files.remove(&path);
            self.files_sent.insert(path.clone());
            sent.unreported.push(path.clone());
            // Those that are uploaded once go with the rows that speak of them.
            if self.job.cleaning == Cleaning::AsAcknowledged && !is_uploaded_once(&path, Policy::Now) {
                self.to_delete.push(path.clone());
            }
            sent.files.insert(path, mark);
        }
        self.touch();
        Ok(())
    }

    /// The summary's one line, when the server does not have it yet and there is room for it.
    pub(super) fn new_summary(&mut self, after: &Fold, room: usize) -> Option<Lines> {
        if after.revisions.summary == self.state.sent.revisions.summary {
            return None;
        }
        let mut line = Vec::new();
        after.summary().write(&mut line);
        self.state.sent.summary_too_large = None;
        if line.len() > MAX_LINE {
            // The server would refuse it. It is looked at again when it changes.
            self.state.sent.summary_too_large = Some(line.len() as u64);
            self.state.sent.revisions.summary = after.revisions.summary;
            return None;
        }
        if line.len() > room {
            return None;
        }
        let mut lines = Lines::at(0);
        lines.push(&line);
        Some(lines)
    }

    /// Sends one request of the file stream.
    pub(super) async fn send(
        &mut self,
        batch: Option<Batch>,
        summary: Option<Lines>,
        exit: Option<i32>,
    ) -> Result<(), UploadError> {
        let Some(run) = self.state.run.as_ref().map(RunAddress::bucket) else { return Ok(()) };
        let seat = &*self.seat;
        let api = &self.fleet.api;
        let packed = api.wants_gzip() && api.features(seat).await?.has("FILESTREAM_GZIP");
        let uploaded = std::mem::take(&mut self.state.sent.unreported);
        let reported = uploaded.clone();
        let made = spawn_blocking(move || {
            let content = Content {
                history: batch.as_ref().map(|batch| &batch.history),
                events: batch.as_ref().map(|batch| &batch.events),
                summary: summary.as_ref(),
                uploaded: &uploaded,
                preempting: batch.as_ref().is_some_and(|batch| batch.preempting),
                exit_code: exit,
            };
            let body = content.body();
            match packed.then(|| gzip(&body)) {
                Some(Ok(small)) => (Bytes::from(small), true),
                _ => (Bytes::from(body), false),
            }
        });
        let sent = match made.await {
            Ok((body, packed)) => api.file_stream(&run, body, packed, seat).await,
            Err(error) => return Err(UploadError::Broken(error.to_string())),
        };
        self.last_request = Instant::now();
        self.first_request = false;
        match sent {
            Ok(stopped) => {
                if stopped {
                    debug!(run = %run.run_id, "the server asks the run to stop");
                }
                Ok(())
            }
            Err(error) => {
                self.state.sent.unreported = reported;
                Err(error.into())
            }
        }
    }

    pub(super) async fn flush_summary(&mut self, fold: &Fold) -> Result<(), UploadError> {
        let summary = self.new_summary(fold, MAX_LINE);
        if summary.is_some() || !self.state.sent.unreported.is_empty() {
            self.send(None, summary, None).await?;
            self.state.sent.revisions.summary = fold.revisions.summary;
            self.touch();
        }
        Ok(())
    }
}

fn target_of(run: &RunAddress) -> Target {
    Target { entity: run.entity.clone(), project: run.project.clone(), run_id: run.run_id.clone() }
}
