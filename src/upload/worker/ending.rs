//! How an upload ends: files, then the run's exit, and the marks that say that all of it was sent.

use tokio::task::spawn_blocking;
use tracing::debug;

use crate::cleaned::{self, Cleaned};
use crate::upload::batch::{Batch, MAX_LINE};
use crate::upload::console_file;
use crate::upload::contents::RunLog;
use crate::upload::files::{self, Generated, Plan};
use crate::upload::fold::{Exit, Fold};
use crate::upload::job::{Cleaning, Close, LogEnd, Progress, RunState, UploadError};
use crate::upload::worker::Worker;
use crate::upload::worker::opening::Opened;
use crate::wandb_format::{mark_synced, synced_marker};

/// What the end of a log says of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It goes on, in this log or in a later one.
    GoesOn,
    /// This log is over, and another process ends the run.
    LeftRunning,
    /// It ended with that exit code.
    Exit(i32),
}

impl Ending {
    fn of(fold: &Fold, end: LogEnd) -> Self {
        match (fold.exit, end.close) {
            (Some(Exit { not_complete: true, .. }), _) => Self::LeftRunning,
            (None, Close::LeaveRunning | Close::Continued) => Self::GoesOn,
            (Some(Exit { code, .. }), _) | (None, Close::Fail(code) | Close::Ended(code)) => Self::Exit(code),
        }
    }

    fn code(self) -> Option<i32> {
        if let Self::Exit(code) = self { Some(code) } else { None }
    }
}

impl Worker<'_> {
    /// Whether nothing comes behind what was read to the end of the log.
    pub(super) fn is_over(&self, fold: &Fold, end: LogEnd) -> bool {
        let ends_at_exit = || self.job.foreign.is_some_and(|foreign| foreign.ends_at_exit);
        end.complete || (fold.exit.is_some() && ends_at_exit())
    }

    /// The exit code that may go with the last lines of the log: the run ends, and only files come before its exit.
    pub(super) fn last_word(&self, batch: &Batch, end: LogEnd) -> Option<i32> {
        let artifacts = !batch.after.artifacts.is_empty() || !self.job.attach.is_empty();
        Ending::of(&batch.after, end).code().filter(|_| self.is_over(&batch.after, end) && !artifacts)
    }

    /// The log is at its end for good. `None` when it has to be read again first.
    pub(super) async fn finish(&mut self, end: LogEnd) -> Result<Option<RunState>, UploadError> {
        if self.ended {
            return self.close(end).await.map(Some);
        }
        let ending = Ending::of(&self.state.fold, end);
        let fold = self.state.fold.clone();
        self.find_attachments().await;
        let artifacts = self.has_artifacts_left();
        // All of the log was acknowledged before, and later ones may have been since: then the run is not to be opened for it.
        let is_past = end.close == Close::Continued && !self.opened && self.state.run.is_some();
        if ending == Ending::GoesOn {
            if artifacts && is_past {
                self.take_place().await?;
                self.finish_artifacts().await?;
            } else if self.opened || artifacts {
                self.take_place().await?;
                if !self.opened
                    && let Opened::ReadAgain(from) = self.open(&fold, end).await?
                {
                    self.read_from(self.state.fold.clone(), from);
                    return Ok(None);
                }
                self.finish_artifacts().await?;
                self.tell_changes(&fold).await?;
                self.flush_summary(&fold).await?;
            }
            self.seat.leave();
            if end.close != Close::Continued {
                return Ok(Some(RunState::Running));
            }
            return self.all_sent(end).await.map(Some);
        }
        let sent = &self.state.sent;
        let ended = sent.finished == ending.code() && sent.left_running == (ending == Ending::LeftRunning);
        let finished = ended && fold.revisions == sent.revisions;
        // What this program makes itself is tried again when it did not arrive.
        let failed = |path: &&str| self.state.sent.failed_files.contains(*path);
        let again: Vec<&str> = files::GENERATED.into_iter().filter(failed).collect();
        if finished && !again.is_empty() {
            // It may be missing there because it could not even be written here.
            self.write_generated(&fold, end).await;
        }
        let named = files::plan_again(&fold, &again, &self.state.sent, (&self.job.files_dir, self.job.links));
        if artifacts && is_past && finished && named.due.is_empty() {
            self.take_place().await?;
            self.finish_artifacts().await?;
        } else if !finished || !named.due.is_empty() || artifacts {
            self.take_place().await?;
            if !self.opened
                && let Opened::ReadAgain(from) = self.open(&fold, end).await?
            {
                self.read_from(self.state.fold.clone(), from);
                return Ok(None);
            }
            self.complete(&fold, ending, end).await?;
        }
        self.close(end).await.map(Some)
    }

    /// The run has ended on the server.
    async fn close(&mut self, end: LogEnd) -> Result<RunState, UploadError> {
        self.seat.leave();
        // An end that nobody wrote may turn out to be none: then the log must be looked at again.
        if self.state.fold.exit.is_none() && !matches!(end.close, Close::Ended(_)) && !self.lost() {
            return Ok(RunState::Synced);
        }
        self.all_sent(end).await
    }

    /// Marks the log as sent, unless something of it was lost and nobody accepts that.
    pub(super) async fn all_sent(&mut self, end: LogEnd) -> Result<RunState, UploadError> {
        let lost = self.lost();
        // What may be sent later is not lost for good.
        if lost && !(self.job.accept_losses && self.later.is_none()) {
            return Ok(RunState::Partial);
        }
        if self.is_found_again() {
            self.fleet.unsettled.mark(self.job.log.clone());
        } else if let Err(error) = mark_synced(&self.job.log) {
            let why = format!("`{}`: {error}", synced_marker(&self.job.log).display());
            (self.job.progress)(Progress::Unmarked { why });
        }
        if lost {
            return Ok(RunState::Partial);
        }
        if self.job.cleaning != Cleaning::No {
            self.clean(end).await?;
        }
        Ok(RunState::Synced)
    }

    /// Deletes what is on the server. Whoever finds it gone finds the state that says so.
    pub(super) async fn clean(&mut self, end: LogEnd) -> Result<(), UploadError> {
        self.save().await?;
        let run = self.state.fold.run.clone().unwrap_or_default();
        let note = Cleaned {
            logs: self.state.logs + 1,
            under_way: true,
            rows: self.state.fold.history_lines,
            entity: run.entity,
            project: run.project,
            run_id: run.run_id,
            started: run.start_time,
        };
        self.keep_console(end).await?;
        let (log, state) = (self.job.log.clone(), self.job.state.clone());
        let cleaned = spawn_blocking(move || cleaned::clean(&log, &state, end.position, note)).await;
        if !cleaned.unwrap_or(Ok(false))? {
            debug!(log = %self.job.log.display(), "not cleaned: it goes on");
        }
        Ok(())
    }

    /// A later log of the run begins its `output.log` with what this one had printed. Our own logs print nothing.
    async fn keep_console(&self, end: LogEnd) -> Result<(), UploadError> {
        if self.job.foreign.is_none() {
            return Ok(());
        }
        let (logs, place) = (self.printed_in(end), self.job.state.clone());
        let kept = spawn_blocking(move || console_file::keep(&logs, &place)).await;
        let failed = |source: std::io::Error| self.log_error(source.into());
        kept.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(failed)
    }

    /// The logs whose text is the run's, this one last.
    fn printed_in(&self, end: LogEnd) -> Vec<RunLog> {
        let own = RunLog { log: self.job.log.clone(), state: self.job.state.clone(), limit: end.position };
        self.job.earlier.iter().cloned().chain([own]).collect()
    }

    /// Files, then the last request.
    pub(super) async fn complete(&mut self, fold: &Fold, ending: Ending, end: LogEnd) -> Result<(), UploadError> {
        self.tell_changes(fold).await?;
        self.finish_artifacts().await?;
        let plan = self.plan_at_end(fold, end).await;
        self.upload_files(plan).await?;
        let summary = self.new_summary(fold, MAX_LINE);
        self.send(None, summary, ending.code()).await?;
        self.state.sent.revisions.summary = fold.revisions.summary;
        (self.state.sent.finished, self.state.sent.left_running) = (ending.code(), ending == Ending::LeftRunning);
        self.touch();
        self.save().await
    }

    /// The files that are due before the exit, with those that this program makes itself.
    pub(super) async fn plan_at_end(&self, fold: &Fold, end: LogEnd) -> Plan {
        let generated = self.write_generated(fold, end).await;
        files::plan_at_end(fold, generated, &self.state.sent, (&self.job.files_dir, self.job.links))
    }

    /// Writes what this program makes itself of a run; returns what it is, written or not.
    pub(super) async fn write_generated(&self, fold: &Fold, end: LogEnd) -> Vec<Generated> {
        let (to_write, directory) = (fold.clone(), self.job.files_dir.clone());
        let logs = self.printed_in(end);
        let write = move || files::write_generated(&to_write, &logs, &directory);
        let written = spawn_blocking(write).await.unwrap_or_default();
        for made in &written {
            if let Err(error) = &made.written {
                debug!(path = made.path, %error, "not written");
            }
        }
        written
    }
}
