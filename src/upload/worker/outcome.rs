//! What a worker says of its run: what is not there and why, and how its upload ended.

use crate::api::{Class, run_url};
use crate::model::{SkippedReason, Skips};
use crate::upload::files;
use crate::upload::job::{OnConflict, RunState, UploadError, UploadOutcome};
use crate::upload::state::RunAddress;
use crate::upload::worker::Worker;

impl Worker<'_> {
    /// Notes what an error means for other runs, and finds out whether another run's error is behind it.
    pub(super) fn explain(&mut self, error: UploadError) -> UploadError {
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

    /// What is not there, as far as it is known now.
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

    /// Whether something that was whole in the log is not on the server.
    pub(super) fn lost(&self) -> bool {
        self.skips().any_loss()
    }

    /// What there is to say when the upload has ended, so or so.
    pub(super) fn outcome(&self, ended: Result<RunState, UploadError>) -> UploadOutcome {
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
