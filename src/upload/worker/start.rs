//! What a worker finds before it reads: whose log it is, and what of it was acknowledged before.

use std::path::Path;

use tokio::task::spawn_blocking;
use tracing::info;

use crate::cleaned::{self, Cleaned};
use crate::model::RunId;
use crate::upload::contact::blocking;
use crate::upload::cursor::{first_run, is_blank};
use crate::upload::fold::RunParameters;
use crate::upload::job::{Cleaning, Close, UploadError};
use crate::upload::state::{RunAddress, Target, UploadState, state_path};
use crate::upload::upsert;
use crate::upload::worker::Worker;
use crate::upload::worker::keep::Keep;
use crate::upload::worker::reading::Reading;

/// The server takes other odd names or says what is wrong with them.
fn check_place(target: &Target, log: &Path) -> Result<(), UploadError> {
    let places = [("the entity", &target.entity), ("the project", &target.project)];
    match places.into_iter().find(|(_, name)| name.contains(char::is_control)) {
        Some((what, name)) => Err(UploadError::Place { log: log.to_owned(), what, name: name.clone() }),
        None => Ok(()),
    }
}

/// What a log says of its run.
pub(super) enum Named {
    /// Nothing: its process has only begun.
    NotYet,
    /// Which it is; and its first batch, where that was read at the same time.
    Run(Option<Reading>),
}

impl Worker<'_> {
    /// Waits until the log names its run. Of one that is sent for the first time, which most are, the first batch is returned
    /// too: it is what comes next, and a change of threads takes longer than to read a small log.
    pub(super) async fn find_target(&mut self) -> Result<Named, UploadError> {
        if let Some(cleaned) = self.take_up().await? {
            let own = RunParameters {
                entity: cleaned.entity.clone(),
                project: cleaned.project.clone(),
                run_id: cleaned.run_id.clone(),
                ..RunParameters::default()
            };
            self.target = upsert::target(&own, &self.job.overrides);
            self.cleaned = Some(cleaned);
            return Ok(Named::Run(None));
        }
        loop {
            let end = self.end();
            let (log, cancel) = (self.job.log.clone(), self.fleet.cancel().clone());
            let (overrides, state, server) =
                (self.job.overrides.clone(), self.job.state.clone(), self.fleet.api.base_url().clone());
            let read = move || {
                let Some(run) = first_run(&log, end.position, &cancel)? else { return Ok(None) };
                let target = upsert::target(&run, &overrides);
                let is_new = end.complete && !state_path(&state, &server, &target).exists();
                Ok(Some((target, is_new.then(|| Reading::first(log, end)))))
            };
            if let Some((target, first)) = blocking(&self.job.log, self.fleet.cancel(), read).await? {
                self.target = target;
                // It becomes a part of addresses, where some ids lead elsewhere.
                RunId::new(&*self.target.run_id)
                    .map_err(|source| UploadError::RunId { log: self.job.log.clone(), source })?;
                check_place(&self.target, &self.job.log)?;
                return Ok(Named::Run(first));
            }
            if end.complete {
                let log = self.job.log.clone();
                let may_begin = end.close == Close::LeaveRunning;
                if may_begin && blocking(&self.job.log, self.fleet.cancel(), move || is_blank(&log)).await? {
                    return Ok(Named::NotYet);
                }
                return Err(UploadError::NoRun(self.job.log.clone()));
            }
            self.changed_or(None).await?;
        }
    }

    pub(super) fn load(&mut self) -> Result<(), UploadError> {
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

    /// What is kept of logs of the run that were deleted. Few runs have any.
    async fn take_up(&self) -> Result<Option<Cleaned>, UploadError> {
        if !Cleaned::is_there(&self.job.state) {
            return Ok(None);
        }
        let (log, state) = (self.job.log.clone(), self.job.state.clone());
        Ok(spawn_blocking(move || cleaned::take_up(&log, &state)).await.unwrap_or(Ok(None))?)
    }
}
