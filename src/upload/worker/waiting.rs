//! When a worker waits: for more of the log, for the moment of its next request, for its place among the runs that send.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::api::ApiError;
use crate::upload::batch::MAX_BYTES;
use crate::upload::files::{self, Due, Plan};
use crate::upload::fold::Fold;
use crate::upload::job::{LogEnd, UploadError};
use crate::upload::worker::Worker;
use crate::upload::worker::opening::UPSERT_INTERVAL;
use crate::upload::worker::reading::Reading;

/// A running run that is quiet for so long says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Files that change while a run goes on are not uploaded again more often than this, nor so often that it takes more
/// than a part of the time.
pub(super) const LIVE_INTERVAL: Duration = Duration::from_secs(30);
pub(super) const LIVE_SHARE: u32 = 10;

impl Worker<'_> {
    /// Waits for more at the end of the log. Meanwhile a running run says that it lives, and late changes are told.
    pub(super) async fn idle(&mut self) -> Result<(), UploadError> {
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
    pub(super) fn changed_files(&mut self, fold: &Fold) -> Vec<Due> {
        if !self.job.live || !self.opened || Instant::now() < self.next_live {
            return Vec::new();
        }
        self.next_live = Instant::now() + LIVE_INTERVAL;
        files::plan_live(fold, &self.state.sent, (&self.job.files_dir, self.job.links))
    }

    /// Waits until the next small request may go out. A full one goes at once, and so does the first.
    pub(super) async fn pace(&mut self) -> Result<(), UploadError> {
        loop {
            let end = self.end();
            let at = match &self.reading {
                Reading::At(cursor) => cursor.position(),
                Reading::Ahead(..) | Reading::Done(..) | Reading::Not => return Ok(()),
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
    pub(super) async fn changed_or(&mut self, moment: Option<Instant>) -> Result<bool, UploadError> {
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
    pub(super) fn end(&mut self) -> LogEnd {
        let end = *self.end.borrow_and_update();
        LogEnd { complete: end.complete || self.abandoned, ..end }
    }

    /// Waits until the run may send, unless it is known that nothing more of it may be sent.
    pub(super) async fn take_place(&mut self) -> Result<(), UploadError> {
        if let Some(error) = self.fleet.reason_to_stop(&self.target.entity, &self.target.project) {
            return Err(UploadError::Stopped(error));
        }
        Ok(self.seat.take().await?)
    }
}
