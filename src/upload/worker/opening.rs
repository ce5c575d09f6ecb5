//! How a run is opened on the server, and told what changes of it besides its lines: all that is an `UpsertBucket`.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use crate::api::{ApiError, run_url};
use crate::model::LogPosition;
use crate::upload::contact::{self, Again, Beginning, LogUpTo, Relation};
use crate::upload::fold::{Fold, Revisions, RunParameters};
use crate::upload::job::{LogEnd, OnConflict, Progress, UploadError};
use crate::upload::state::{Base, RunAddress, Sent, Target, UploadState};
use crate::upload::upsert::{self, Parts};
use crate::upload::worker::Worker;
use crate::wandb_format::{first_step, mark_first_step, unmark_synced};

/// How many ids are tried for a run whose own holds something else.
const MOST_IDS: u32 = 10;

/// A running run does not tell of changes of its config more often than this.
pub(super) const UPSERT_INTERVAL: Duration = Duration::from_secs(5);

/// How a run was opened.
#[derive(PartialEq, Eq)]
pub(super) enum Opened {
    /// What was read is what is to be sent.
    AsRead,
    /// The log is to be read again from where the state stands, and sent from this row on.
    ReadAgain(u64),
}

impl Worker<'_> {
    /// Opens the run on the server, or another one in its place where the user chose so.
    pub(super) async fn open(&mut self, after: &Fold, end: LogEnd) -> Result<Opened, UploadError> {
        let policy = self.job.on_conflict;
        let (before, mut started_over) = (self.base(), false);
        let (mut append, mut number) = (false, 1);
        let (from, inherits) = loop {
            let error = match self.contact(after, end, number, append).await {
                Ok(opened) => break opened,
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
            // Whoever was told something need not be told again.
            let Sent { alerts, failed_alerts, .. } = self.state.sent;
            self.state = UploadState {
                logs: self.state.logs,
                sent: Sent { alerts, failed_alerts, ..Sent::default() },
                ..UploadState::default()
            };
            started_over = true;
        };
        let acknowledged = self.state.fold.history_lines;
        if from < acknowledged {
            info!(from, acknowledged, "the server lost rows, which are sent again");
            self.media_before().await?;
            self.state.fold = self.state.fold.at_the_beginning();
            // They are counted from the beginning again.
            self.state.sent.revisions = Revisions::default();
        }
        if started_over || inherits || from != acknowledged || self.base() != before {
            return Ok(Opened::ReadAgain(from));
        }
        Ok(Opened::AsRead)
    }

    /// Returns the number of the first row to send, and whether the run goes on with what it had before this log.
    async fn contact(
        &mut self,
        after: &Fold,
        end: LogEnd,
        number: u32,
        append: bool,
    ) -> Result<(u64, bool), UploadError> {
        let (api, seat) = (self.fleet.api.clone(), self.seat.clone());
        let path = self.job.log.clone();
        let log = LogUpTo { path: &path, limit: end.position, complete: true };
        let known = self.state.run.clone();
        let beginning = match &known {
            Some(run) => Beginning::known(run, &self.state.fold),
            None => self.look(after, &upsert::with_other_id(&self.begins_at, number), append).await?,
        };
        let Beginning { target, mut from, storage_id, base, inherited, described } = beginning;
        let inherits = inherited.is_some();
        let mut after = Cow::Borrowed(after);
        if let Some(inherited) = inherited {
            self.state.fold.inherit(inherited.clone());
            after.to_mut().inherit(inherited);
        }
        let description = upsert::description(&after, &self.job.overrides);
        let told = if described { description.clone() } else { self.state.sent.told.clone() };
        let parts = Parts {
            told: told.as_ref(),
            config: known.is_none() || after.revisions.config != self.state.sent.revisions.config,
        };
        let variables = upsert::variables(&after, &target, storage_id.as_deref(), &self.job.overrides, parts);
        let bucket = api.upsert_bucket(&variables, &*seat).await?;
        let mut address = contact::address(&bucket, base);
        if let Some(run) = &known {
            if let Some(error) = contact::vanished(run, &self.state.fold, &bucket) {
                return Err(error);
            }
            let has_all = self.state.logs == 0 && self.cleaned.is_none();
            let how = Again { in_flight: self.state.sent.in_flight, append, has_all };
            from = contact::check(&api, log, &self.state.fold, &mut address, &bucket, how, &*seat).await?;
        } else if bucket.history_lines > base.history + from {
            // They were not there a moment ago.
            return Err(UploadError::Conflict {
                run: format!("{}/{}/{}", address.entity, address.project, address.run_id),
                there: bucket.history_lines,
                why: "they were not there a moment ago: something else writes to this run".to_owned(),
            });
        }
        if known.is_none() && self.job.foreign.is_some() {
            // The official client would begin with the same step.
            let first_step = if base.first_step > 0 { base.first_step } else { rewound_step(&after) };
            if let Err(error) = mark_first_step(&self.job.log, first_step) {
                debug!(%error, "no `.syncstate`");
            }
        }
        let url = run_url(api.app_url(), &address.entity, &address.project, &address.run_id);
        info!(%url, from, "run opened");
        let left_running = std::mem::take(&mut self.state.sent.left_running);
        if (self.state.sent.finished.take().is_some() || left_running) && self.cleaned.is_none() {
            // Whoever goes on with a log removes the marker; this is for logs that others wrote.
            let _ = unmark_synced(&self.job.log);
        }
        (self.job.progress)(Progress::Opened { url, display_name: address.display_name.clone() });
        let has_own_id = address.run_id == self.target.run_id;
        self.state.run = Some(address);
        self.told(&after, description);
        self.opened = true;
        self.last_request = Instant::now();
        // Where the lines of a run begin that had none, and that no other log was before, need not be known: it is at 0.
        let begins = from == 0 && self.base() == Base::default() && !self.continues(&after);
        self.begins_anew = known.is_none() && begins && has_own_id;
        if known.is_some() || inherits || self.job.live || !begins {
            self.save().await?;
        }
        Ok((from, inherits))
    }

    /// Finds out where a run begins of which nothing is known. A log that is made anew while the server has more of the run
    /// is waited for, unless somebody waits for what it holds already.
    async fn look(&mut self, after: &Fold, target: &Target, append: bool) -> Result<Beginning, UploadError> {
        let run = after.run.as_ref();
        let relation = Relation {
            continues: self.continues(after),
            rewind_to: run.and_then(RunParameters::rewind_to),
            first_step: first_step(&self.job.log),
            append,
        };
        // Of its own: what is news for this is still news for whoever follows the log.
        let mut end = self.job.end.clone();
        let mut abandoned = false;
        loop {
            let LogEnd { position, complete, .. } = *end.borrow_and_update();
            let log = LogUpTo { path: &self.job.log, limit: position, complete: complete || abandoned };
            let looked = contact::look(&self.fleet.api, log, target, relation, &*self.seat).await;
            let enough = match &looked {
                Err(UploadError::Behind { there, here, .. }) if !self.fleet.is_hurried() => {
                    info!(run = %target.run_id, there, here, "waiting for the rest of the log");
                    // Half of what is missing, as rows are so far: each look reads all that there is.
                    let missing = there.saturating_sub(*here);
                    let half = |bytes: u64| bytes.saturating_mul(missing) / here.saturating_mul(2).max(1);
                    position.map(|position| LogPosition(position.0.saturating_add(half(position.0))))
                }
                _ => {
                    let beginning = looked?;
                    self.rows_found = (beginning.from > 0).then_some(beginning.from);
                    return Ok(beginning);
                }
            };
            self.seat.leave();
            tokio::select! {
                biased;
                () = self.fleet.cancel().cancelled() => return Err(ApiError::Cancelled.into()),
                more = end.wait_for(|end| end.complete || end.position > enough) => abandoned = more.is_err(),
                () = self.fleet.hurry_changes() => {}
            }
            self.take_place().await?;
        }
    }

    /// Whether the log goes on with a run: it says so, or another log was before it.
    fn continues(&self, fold: &Fold) -> bool {
        self.job.foreign.is_some_and(|foreign| foreign.continues) || fold.run.as_ref().is_some_and(|run| run.resume)
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
        let variables = upsert::variables(after, &target_of(run), Some(&run.storage_id), &self.job.overrides, parts);
        self.fleet.api.upsert_bucket(&variables, &*self.seat).await?;
        self.told(after, upsert::description(after, &self.job.overrides));
        Ok(())
    }
}

/// The first step of a log that winds its run back; 0 for any other.
fn rewound_step(fold: &Fold) -> i64 {
    fold.run.as_ref().and_then(RunParameters::rewind_to).map_or(0, |step| (step as i64).saturating_add(1))
}

fn target_of(run: &RunAddress) -> Target {
    Target { entity: run.entity.clone(), project: run.project.clone(), run_id: run.run_id.clone() }
}
