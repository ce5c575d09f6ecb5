//! Sync that stays: logs are uploaded while another process records them, and logs that appear are taken too.
//!
//! The other process says how far a log counts with its checkpoint, which is looked at every now and then. What counts
//! never changes, so nothing is shared but files, and either process may die at any moment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::api::Class;
use crate::pipeline::report::{Note, RunEnd, Watcher};
use crate::pipeline::segments::{self, Segment};
use crate::pipeline::stopping::{Stopping, at};
use crate::pipeline::sync::{LogLook, id_of};
use crate::pipeline::uploads::{RunToUpload, Uploads};
use crate::recorder::RecordError;
use crate::state_file::place::StateHome;
use crate::upload::{Foreign, LogEnd, Overrides, RunState, UploadError, UploadOutcome};

/// The pause between two uploads of a log that has ended, when one could not go on.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The coarsest clock that a file system has for its files, seconds with some to spare.
const AT_REST_AFTER: Duration = Duration::from_secs(3);

/// Until when logs are followed, and how closely.
#[derive(Debug, Clone, Copy)]
pub struct LiveOptions {
    /// `--poll`
    pub poll: Duration,
    /// `--until-idle`
    pub until_idle: Option<Duration>,
    /// `--stale-after`
    pub stale_after: Duration,
    /// How long what is left may take after a signal.
    pub drain: Duration,
    /// `--max-duration`
    pub until: Option<Instant>,
}

/// How following logs ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveEnd {
    /// The time limit has passed.
    pub time_limit: bool,
    /// The uploads came to an end of their own.
    pub delivered: bool,
}

/// Uploads the logs that `find` finds, as they grow and appear, until something ends it. Uploads are drained before it
/// returns.
pub async fn sync_live(
    mut find: impl FnMut() -> Vec<PathBuf>,
    options: LiveOptions,
    overrides: &Overrides,
    uploads: &Uploads,
    stopping: &Stopping,
    watcher: &Arc<dyn Watcher>,
) -> LiveEnd {
    let mut live = Live {
        overrides,
        uploads,
        watcher,
        stale_after: options.stale_after,
        logs: BTreeMap::new(),
        places: BTreeMap::new(),
        last: false,
    };
    let mut last_growth: Option<Instant> = None;
    let mut next_look = Instant::now();
    let mut time_limit = false;
    loop {
        let idle = options.until_idle.and_then(|limit| Some(last_growth? + limit));
        tokio::select! {
            biased;
            _ = stopping.first() => break,
            () = uploads.refused() => break,
            () = at(options.until) => {
                time_limit = true;
                stopping.allow(options.drain);
                break;
            }
            () = at(idle) => {
                if !tokio::task::block_in_place(|| live.look(find())) {
                    break;
                }
                last_growth = Some(Instant::now());
            }
            () = sleep_until(next_look) => {
                if tokio::task::block_in_place(|| live.look(find())) {
                    last_growth = Some(Instant::now());
                }
                next_look = Instant::now() + options.poll;
            }
        }
    }
    if stopping.signal().is_some() {
        watcher.note(Note::Ending(options.drain));
    }
    let delivered = loop {
        tokio::task::block_in_place(|| live.look_once_more(find()));
        let delivered = uploads.deliver(stopping).await;
        if !delivered || !tokio::task::block_in_place(|| live.is_behind()) {
            break delivered;
        }
    };
    live.end();
    LiveEnd { time_limit, delivered }
}

struct Live<'a> {
    overrides: &'a Overrides,
    uploads: &'a Uploads,
    watcher: &'a Arc<dyn Watcher>,
    stale_after: Duration,
    logs: BTreeMap<PathBuf, Followed>,
    /// Their places among the logs of their runs.
    places: BTreeMap<PathBuf, Segment>,
    /// Nothing more is waited for.
    last: bool,
}

/// A log that is followed.
#[derive(Default)]
struct Followed {
    /// The checkpoint beside it when it was read last.
    seen: Option<(SystemTime, u64)>,
    /// How far the log counted then, or why that cannot be told.
    look: Option<Result<LogLook, RecordError>>,
    /// The upload that is under way.
    upload: Option<Upload>,
    /// What the last upload was told, if it came to its end.
    delivered: Option<LogEnd>,
    /// Why the last upload did not, and when.
    failed: Option<(UploadOutcome, Instant)>,
}

struct Upload {
    end: watch::Sender<LogEnd>,
    outcome: Arc<Mutex<Option<UploadOutcome>>>,
}

impl Live<'_> {
    /// Looks at all logs. True when there is anything new.
    fn look(&mut self, found: Vec<PathBuf>) -> bool {
        for log in found {
            self.logs.entry(log).or_default();
        }
        if self.places.len() != self.logs.len() || self.places.values().any(|place| !place.begun) {
            let groups = segments::in_turn(self.logs.keys().cloned().collect(), self.uploads.state(), self.overrides);
            self.places = groups.into_iter().flatten().map(|place| (place.log.clone(), place)).collect();
        }
        let (mut grew, state) = (false, self.uploads.state());
        for (log, followed) in &mut self.logs {
            let place = self.places.get(log);
            followed.take_outcome(log, state, self.watcher);
            grew |= followed.look(log, state, self.stale_after, place.is_some_and(|place| place.continued));
            let begun = self.last || place.is_none_or(|place| place.begun);
            if begun
                && followed.is_due()
                && let Some(Ok(look)) = &followed.look
            {
                followed.upload = Some(start(log, look, place, self.overrides, self.uploads));
            }
        }
        grew
    }

    /// Looks a last time. After that nothing more comes.
    fn look_once_more(&mut self, found: Vec<PathBuf>) {
        self.last = true;
        self.look(found);
        for upload in self.logs.values().filter_map(|followed| followed.upload.as_ref()) {
            upload.end.send_modify(|end| end.complete = true);
        }
    }

    /// Whether a log counted farther at the last look than what was uploaded of it: an upload that was under way then, to
    /// an end that was taken back, has not heard of the next one.
    fn is_behind(&mut self) -> bool {
        let state = self.uploads.state();
        for (log, followed) in &mut self.logs {
            followed.take_outcome(log, state, self.watcher);
        }
        self.logs.values().any(|followed| match (&followed.delivered, &followed.look) {
            (Some(told), Some(Ok(look))) if followed.failed.is_none() => {
                let end = look.live_end();
                (told.position, told.close) != (end.position, end.close)
            }
            _ => false,
        })
    }

    /// Says what became of the logs that nothing was said of yet.
    fn end(&mut self) {
        for (log, mut followed) in std::mem::take(&mut self.logs) {
            followed.take_outcome(&log, self.uploads.state(), self.watcher);
            let (record_error, uploaded) = match (followed.failed, followed.look) {
                (Some((outcome, _)), _) => (None, Some(outcome)),
                // One that is gone was deleted because all of it had arrived.
                (None, Some(Err(error))) if log.exists() => (Some(error), None),
                _ => continue,
            };
            let id = id_of(&log);
            self.watcher.ended(RunEnd { source: log, id, record_error, uploaded, ..RunEnd::default() });
        }
    }
}

impl Followed {
    /// Finds out how far the log counts now. True when that is news.
    fn look(&mut self, log: &Path, state: &StateHome, stale_after: Duration, continued: bool) -> bool {
        // Before the checkpoint is read: what is written meanwhile is seen at the next look.
        let seen = mark_of(log, state);
        let known = self.look.is_some();
        // A log of another client has no checkpoint, and it ends by growing old.
        if known && seen.is_some() && self.seen == seen {
            return false;
        }
        let look = LogLook::at(log, state, stale_after);
        let look = if continued { look.map(LogLook::continued) } else { look };
        let grew = match (&self.look, &look) {
            (Some(Ok(before)), Ok(now)) => before.live_end() != now.live_end(),
            (_, Ok(_)) => true,
            // Its first commit is still to come.
            (before, Err(_)) => before.is_none(),
        };
        (self.seen, self.look) = (seen, Some(look));
        if let (Some(upload), Some(Ok(look))) = (&self.upload, &self.look) {
            upload.end.send_if_modified(|told| {
                // An end that was taken back is for the next upload.
                let news = !told.complete && *told != look.live_end();
                if news {
                    *told = look.live_end();
                }
                news
            });
        }
        grew
    }

    /// Whether an upload is to begin.
    fn is_due(&self) -> bool {
        let Some(Ok(look)) = &self.look else { return false };
        let again =
            self.failed.as_ref().is_none_or(|(outcome, at)| may_try_again(outcome) && at.elapsed() >= TRY_AGAIN_AFTER);
        self.upload.is_none() && self.delivered != Some(look.live_end()) && again
    }

    /// Takes what became of an upload that has ended.
    fn take_outcome(&mut self, log: &Path, state: &StateHome, watcher: &Arc<dyn Watcher>) {
        let Some(upload) = &self.upload else { return };
        let Some(outcome) = upload.outcome.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let told = *upload.end.borrow();
        self.upload = None;
        self.failed = None;
        if matches!(outcome.state, RunState::Failed(_)) {
            if may_try_again(&outcome) {
                let text = format!("`{}` is not uploaded yet, and is tried again", log.display());
                watcher.note(Note::Trouble(text));
            }
            self.failed = Some((outcome, Instant::now()));
        } else {
            self.delivered = Some(told);
            LogLook::unmark_if_outdated(log, state, told);
            watcher.ended(RunEnd {
                source: log.to_owned(),
                id: id_of(log),
                uploaded: Some(outcome),
                ..RunEnd::default()
            });
        }
    }
}

fn may_try_again(outcome: &UploadOutcome) -> bool {
    match &outcome.state {
        RunState::Failed(error) => matches!(error, UploadError::Held(_)) || error.class() == Some(Class::Temporary),
        _ => true,
    }
}

fn start(log: &Path, look: &LogLook, place: Option<&Segment>, overrides: &Overrides, uploads: &Uploads) -> Upload {
    let foreign = place.and_then(|place| place.foreign);
    let (end, receiver) = watch::channel(look.live_end());
    let outcome = Arc::new(Mutex::new(None));
    let to_upload = RunToUpload {
        id: id_of(log),
        log: log.to_owned(),
        overrides: overrides.clone().or(look.chosen.clone()),
        end: receiver,
        live: !look.live_end().complete,
        foreign: foreign.map(|foreign| Foreign { ends_at_exit: true, ..foreign }),
        earlier: place.map(|place| place.earlier.clone()).unwrap_or_default(),
        // Files beside a run that grows are not whole yet.
        attach: Vec::new(),
        meter: None,
    };
    let noted = outcome.clone();
    uploads.start(to_upload, move |uploaded| {
        *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(uploaded);
    });
    Upload { end, outcome }
}

/// Enough to see that the checkpoint beside a log was replaced; none while it is so young that it may be replaced once
/// more at the same time and at the same length, as far as the file system's clock can tell.
fn mark_of(log: &Path, state: &StateHome) -> Option<(SystemTime, u64)> {
    let metadata = state.of_log(log).checkpoint().metadata().ok()?;
    let modified = metadata.modified().ok()?;
    let at_rest = modified.elapsed().is_ok_and(|age| age >= AT_REST_AFTER);
    at_rest.then_some((modified, metadata.len()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_young_checkpoint_is_read_again_at_each_look() {
        let folder = tempfile::tempdir().unwrap();
        let (state, log) = (StateHome::default(), folder.path().join("run-a.wandb"));
        assert_eq!(mark_of(&log, &state), None);
        let checkpoint = state.of_log(&log).checkpoint();
        std::fs::create_dir_all(checkpoint.parent().unwrap()).unwrap();
        let file = std::fs::File::create(&checkpoint).unwrap();
        assert_eq!(mark_of(&log, &state), None, "it may be replaced again within one tick");
        let earlier = SystemTime::now() - Duration::from_secs(60);
        file.set_modified(earlier).unwrap();
        assert_eq!(mark_of(&log, &state), Some((earlier, 0)));
    }
}
