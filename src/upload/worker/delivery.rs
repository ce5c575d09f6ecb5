//! Delivers one batch: files that its rows speak of, then its lines, then the state that says that they are there.

use std::collections::HashSet;

use crate::upload::batch::{Batch, MAX_BYTES, MAX_LINE};
use crate::upload::contact::blocking;
use crate::upload::cursor::media_named_before;
use crate::upload::files::{self, Plan};
use crate::upload::fold::Fold;
use crate::upload::job::{Cleaning, LogEnd, UploadError};
use crate::upload::worker::Worker;
use crate::upload::worker::keep::Keep;
use crate::upload::worker::opening::{Opened, UPSERT_INTERVAL};

/// Whether a batch was delivered.
#[derive(PartialEq, Eq)]
pub(super) enum Delivered {
    Yes,
    /// The server has more than was known: read again, and send from this row on.
    ReadAgain(u64),
}

impl Worker<'_> {
    /// Sends what a batch brings, if it brings anything, and takes it over into the state. `last` is the run's exit code,
    /// when nothing else is left to send behind this batch: then it goes with it.
    pub(super) async fn deliver(
        &mut self,
        batch: Batch,
        end: LogEnd,
        last: Option<i32>,
    ) -> Result<Delivered, UploadError> {
        let changed = batch.after.revisions != self.state.sent.revisions;
        let alerts = batch.after.alerts > self.state.sent.alerts;
        let artifacts = batch.after.artifacts.len() > self.state.fold.artifacts.len();
        let has_news = batch.has_lines() || changed || alerts || artifacts;
        let place = (self.job.files_dir.as_path(), self.job.links);
        // What the run names is looked at again at its end.
        let mut plan = match last.filter(|_| has_news) {
            Some(_) => Plan::default(),
            None => files::plan_now(&batch.after, &self.state.sent, place),
        };
        let mut media = files::plan_media(&batch.media, &self.state.sent, place);
        if !media.missing.is_empty() {
            // What was named before was uploaded then, and may have gone since.
            let known = self.media_before().await?;
            media.missing.retain(|path| !known.contains(path));
        }
        plan.due.extend(media.due);
        plan.missing.extend(media.missing);
        plan.due.extend(self.changed_files(&batch.after));
        if !has_news && plan == Plan::default() {
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
    pub(super) async fn media_before(&mut self) -> Result<&HashSet<String>, UploadError> {
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
}
