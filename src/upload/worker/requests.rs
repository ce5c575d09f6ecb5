//! What a worker says to the server about its run: one request at a time, each noted when it was answered.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::api::file_stream::{Content, Lines, gzip};
use crate::api::{ApiError, run_url};
use crate::upload::batch::{Batch, MAX_LINE};
use crate::upload::contact::{self, LogUpTo, Parts};
use crate::upload::files::{self, Plan};
use crate::upload::fold::Fold;
use crate::upload::job::{Cleaning, LogEnd, Progress, UploadError};
use crate::upload::state::{RunAddress, Target};
use crate::upload::worker::{LIVE_SHARE, Worker};
use crate::wandb_format::unmark_synced;

impl Worker<'_> {
    /// Opens the run on the server. Returns the number of the first row to send.
    pub(super) async fn open(&mut self, after: &Fold, end: LogEnd) -> Result<u64, UploadError> {
        let api = self.fleet.api.clone();
        let cancel = self.fleet.cancel().clone();
        let log = LogUpTo { path: &self.job.log, limit: end.position };
        let known = self.state.run.clone();
        let (target, mut from, storage_id) = match &known {
            Some(run) => (target_of(run), self.state.fold.history_lines, Some(run.storage_id.clone())),
            None => {
                let (from, storage_id) = contact::look(&api, log, &self.target, &cancel).await?;
                (self.target.clone(), from, storage_id)
            }
        };
        let parts = Parts { parameters: true, config: true };
        let variables = contact::upsert_variables(after, &target, storage_id.as_deref(), &self.job.overrides, parts);
        let bucket = api.upsert_bucket(&variables, &cancel).await?;
        let address = contact::address(&bucket, known.as_ref());
        if known.is_some() {
            from = contact::check(&api, log, &self.state.fold, &address, &bucket, &cancel).await?;
        } else if bucket.history_lines > from {
            // Nothing was there a moment ago.
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
        self.state.sent.revisions.config = after.revisions.config;
        self.state.sent.revisions.parameters = after.revisions.parameters;
        self.opened = true;
        self.last_upsert = Instant::now();
        self.last_request = Instant::now();
        self.touch();
        self.save().await?;
        Ok(from)
    }

    /// Tells the server what changed besides lines and summary.
    pub(super) async fn tell_changes(&mut self, after: &Fold) -> Result<(), UploadError> {
        let sent = self.state.sent.revisions;
        let parts = Parts {
            parameters: after.revisions.parameters != sent.parameters,
            config: after.revisions.config != sent.config,
        };
        let Some(run) = self.state.run.as_ref().filter(|_| parts.parameters || parts.config) else { return Ok(()) };
        let variables =
            contact::upsert_variables(after, &target_of(run), Some(&run.storage_id), &self.job.overrides, parts);
        self.fleet.api.upsert_bucket(&variables, self.fleet.cancel()).await?;
        self.state.sent.revisions.config = after.revisions.config;
        self.state.sent.revisions.parameters = after.revisions.parameters;
        self.last_upsert = Instant::now();
        self.touch();
        Ok(())
    }

    pub(super) async fn upload_files(&mut self, plan: Plan) -> Result<(), UploadError> {
        let Some(run) = self.state.run.as_ref().map(RunAddress::bucket) else { return Ok(()) };
        let began = Instant::now();
        let sizes: BTreeMap<String, u64> = plan.due.iter().map(|due| (due.path.clone(), due.size())).collect();
        let uploaded = files::upload(&self.fleet.api, &run, plan.due, self.fleet.cancel()).await?;
        self.next_live = self.next_live.max(Instant::now() + began.elapsed() * LIVE_SHARE);
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
            if self.job.cleaning == Cleaning::AsAcknowledged {
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
        let cancel = self.fleet.cancel();
        let api = &self.fleet.api;
        let packed = api.wants_gzip() && api.features(cancel).await?.has("FILESTREAM_GZIP");
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
            Ok((body, packed)) => api.file_stream(&run, body, packed, cancel).await,
            Err(_) => Err(ApiError::Cancelled),
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
