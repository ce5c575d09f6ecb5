//! What a worker says to the server about its run: one request at a time, each noted when it was answered.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::file_stream::{Content, Lines, gzip};
use crate::api::{Alert, Class};
use crate::upload::batch::{Batch, LoggedAlert, MAX_BYTES, MAX_LINE};
use crate::upload::console::{self, ConsoleLine};
use crate::upload::files::{self, Plan};
use crate::upload::fold::{Fold, Policy, is_uploaded_once};
use crate::upload::job::{Cleaning, Progress, UploadError};
use crate::upload::state::RunAddress;
use crate::upload::worker::Worker;
use crate::upload::worker::waiting::LIVE_SHARE;

/// So many bytes of lines are put together without a thread of their own.
const AT_ONCE: usize = 64 << 10;

impl Worker<'_> {
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

    /// Tells what the log wants somebody to be told, each alert once.
    pub(super) async fn send_alerts(&mut self, batch: &Batch) -> Result<(), UploadError> {
        let Some(run) = self.state.run.as_ref().map(RunAddress::bucket) else { return Ok(()) };
        for LoggedAlert { number, rows, alert } in &batch.alerts {
            // Where it was forgotten what was sent, the rows that are there tell it as well as may be.
            if *number < self.state.sent.alerts || self.rows_found.is_some_and(|found| *rows <= found) {
                continue;
            }
            let alert = Alert {
                title: alert.title.clone(),
                text: alert.text.clone(),
                level: alert.level.clone(),
                wait_duration: alert.wait_duration,
            };
            match self.fleet.api.alert(&run, &alert, &*self.seat).await {
                Ok(()) => {}
                // Of a server that knows no alerts. A page of something in between is no answer, and ends no alert.
                Err(error) if error.class() == Class::Rejected || error.status() == Some(501) => {
                    warn!(%error, run = %run.run_id, "an alert was not taken");
                    self.state.sent.failed_alerts += 1;
                }
                Err(error) => return Err(error.into()),
            }
            self.state.sent.alerts = number + 1;
            // Nothing on the server tells later that it was sent.
            self.touch();
            self.save().await?;
        }
        self.state.sent.alerts = batch.after.alerts;
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
        let structured = match &batch {
            Some(batch) if !batch.console.is_empty() => api.features(seat).await?.has("STRUCTURED_CONSOLE_LOGS"),
            _ => false,
        };
        let uploaded = std::mem::take(&mut self.state.sent.unreported);
        let reported = uploaded.clone();
        let is_small = batch.as_ref().is_none_or(|batch| batch.bytes <= AT_ONCE && batch.console.is_empty());
        let make = move || {
            let console = batch.as_ref().map(|batch| console_lines(batch, structured)).unwrap_or_default();
            let mut console = console.into_iter();
            let first = console.next();
            let content = Content {
                history: batch.as_ref().map(|batch| &batch.history),
                events: batch.as_ref().map(|batch| &batch.events),
                summary: summary.as_ref(),
                console: first.as_ref(),
                uploaded: &uploaded,
                preempting: batch.as_ref().is_some_and(|batch| batch.preempting),
                exit_code: exit.filter(|_| console.len() == 0),
            }
            .body();
            // Nothing comes behind an exit.
            let behind = console.len();
            let rest = console.enumerate().map(|(number, lines)| {
                let exit_code = exit.filter(|_| number + 1 == behind);
                Content { console: Some(&lines), exit_code, ..Content::default() }.body()
            });
            let pack = |body: Vec<u8>| match packed.then(|| gzip(&body)) {
                Some(Ok(small)) => (Bytes::from(small), true),
                _ => (Bytes::from(body), false),
            };
            std::iter::once(content).chain(rest).map(pack).collect::<Vec<_>>()
        };
        // A change of threads takes longer than to put little together.
        let made = if is_small { Ok(make()) } else { spawn_blocking(make).await };
        let mut sent = Ok(false);
        for (body, packed) in made.map_err(|error| UploadError::Broken(error.to_string()))? {
            sent = api.file_stream(&run, body, packed, seat).await;
            if sent.is_err() {
                break;
            }
        }
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

/// The console lines of a batch, in as few requests as their size allows.
fn console_lines(batch: &Batch, structured: bool) -> Vec<Lines> {
    let mut from = batch.console_from;
    let lines = |part: &[ConsoleLine]| {
        let mut lines = Lines::at(from);
        let mut text = Vec::new();
        for line in part {
            text.clear();
            line.write(structured, &mut text);
            lines.push(&text);
        }
        from += lines.count;
        lines
    };
    console::parts(&batch.console, MAX_BYTES).into_iter().map(lines).collect()
}
