//! The artifacts of a log: brought to the server in the order of the log, beside the lines, and before the run ends.
//!
//! Where they are recorded is part of the fold, so none is forgotten by a process that ends in between. One that was cut
//! short begins anew, and the server says what it has. One that cannot be made for lack of its files is counted, and
//! waits for them; whatever else the server or a file has against one is about that one alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::{ApiClient, ApiError, Class};
use crate::artifact::{HashError, Multipart, Places};
use crate::model::{LogPosition, SkippedReason, Skips};
use crate::proto::wandb_internal::ArtifactRecord;
use crate::proto::wandb_internal::record::RecordType;
use crate::upload::artifacts::{
    ArtifactError, Lacking, Manner, RecordError, WhyLacking, from_record, may_be_here, upload_artifact,
};
use crate::upload::job::UploadError;
use crate::upload::state::{ArtifactNote, FileMark};
use crate::upload::worker::Worker;
use crate::wandb_format::{EntryKind, LogReader, Next};

/// How many files of one artifact are on their way at once.
pub(super) const AT_ONCE: usize = 8;

/// How soon one looks whether artifacts have arrived, while there is nothing else to do.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The artifacts that are on their way: one after the other, as the versions of a name are numbered in the order in which
/// they come. Ended when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Going(JoinSet<Arrived>);

/// What became of some artifacts, and why the others were not tried.
#[derive(Debug, Default)]
struct Arrived {
    notes: Vec<(LogPosition, ArtifactNote)>,
    stopped: Option<UploadError>,
}

impl Going {
    /// When to look whether they have arrived.
    pub(super) fn look_again(&self) -> Option<Instant> {
        (!self.0.is_empty()).then(|| Instant::now() + LOOK_AGAIN)
    }
}

impl Worker<'_> {
    /// Whether there are artifacts that are not there, and nothing is known against them.
    pub(super) fn has_artifacts_left(&self) -> bool {
        !self.waiting_artifacts().is_empty() || self.attaching.is_waiting()
    }

    /// Notes what has arrived, and starts what waits.
    pub(super) fn go_on_with_artifacts(&mut self) -> Result<(), UploadError> {
        while let Some(arrived) = self.artifacts.0.try_join_next() {
            self.note_artifacts(arrived)?;
        }
        if self.opened {
            self.start_artifacts();
        }
        Ok(())
    }

    /// Returns when all have arrived, or are known not to. The run must be there.
    pub(super) async fn finish_artifacts(&mut self) -> Result<(), UploadError> {
        loop {
            self.start_artifacts();
            match self.artifacts.0.join_next().await {
                Some(arrived) => self.note_artifacts(arrived)?,
                None => return self.attach().await,
            }
        }
    }

    /// Those that the server refused, and those whose files are here again, are tried again.
    pub(super) fn forget_artifacts_to_try_again(&mut self) {
        let notes = &mut self.state.sent.artifacts;
        notes.retain(|_, note| !note.was_refused());
        if notes.values().any(ArtifactNote::lacks_file) {
            let places = Places::of_log(&self.job.log, self.job.staging.to_vec());
            let is_here = |note: &ArtifactNote| match note {
                ArtifactNote::Failed { missing: Some(path), size, seen, .. } => {
                    may_be_here(path, *size, *seen, &places)
                }
                _ => false,
            };
            notes.retain(|_, note| !is_here(note));
        }
    }

    /// Counts those that are not there.
    pub(super) fn skip_artifacts(&self, skips: &mut Skips) {
        for note in self.state.sent.artifacts.values() {
            if let ArtifactNote::Failed { why, .. } = note {
                skips.add(SkippedReason::Artifact, 1, || why.clone());
            }
        }
    }

    fn waiting_artifacts(&self) -> Vec<LogPosition> {
        let known = &self.state.sent.artifacts;
        self.state.fold.artifacts.iter().filter(|position| !known.contains_key(position)).copied().collect()
    }

    fn start_artifacts(&mut self) {
        let waiting = self.waiting_artifacts();
        let Some(run) = self.state.run.as_ref().filter(|_| self.artifacts.0.is_empty()) else { return };
        if waiting.is_empty() {
            return;
        }
        let run = [run.entity.clone(), run.project.clone(), run.run_id.clone()];
        let (api, cancel) = (self.fleet.api.clone(), self.fleet.cancel().clone());
        let of = (self.job.log.clone(), self.job.staging.clone());
        self.artifacts.0.spawn(upload(api, of, waiting, run, cancel));
    }

    fn note_artifacts(&mut self, arrived: Result<Arrived, JoinError>) -> Result<(), UploadError> {
        let Arrived { notes, stopped } = arrived.map_err(|_| ApiError::Cancelled)?;
        let sent = notes.iter().filter(|(_, note)| note.is_there()).count() as u64;
        self.artifacts_sent += sent;
        let known = &mut self.state.sent.artifacts;
        known.extend(notes);
        if sent > 0 {
            // What others lack may have come with these.
            known.retain(|_, note| !note.lacks_file());
        }
        self.touch();
        stopped.map_or(Ok(()), Err)
    }
}

async fn upload(
    api: Arc<ApiClient>,
    (log, staging): (PathBuf, Arc<[PathBuf]>),
    waiting: Vec<LogPosition>,
    run: [String; 3],
    cancel: CancellationToken,
) -> Arrived {
    let mut arrived = Arrived::default();
    let places = Arc::new(Places::of_log(&log, staging.to_vec()));
    for position in waiting {
        let (path, of, places) = (log.clone(), run.clone(), places.clone());
        let read = tokio::task::spawn_blocking(move || {
            let record = read(&path, position).map_err(|why| (why, None))?;
            let name = record.name.clone();
            from_record(record, of, places).map(|artifact| (name.clone(), artifact)).map_err(|error| {
                let missing = match &error {
                    RecordError::List { path, .. } => Some(path.clone()),
                    _ => None,
                };
                (format!("`{name}`: {error}"), missing)
            })
        });
        let (name, artifact) = match read.await {
            Ok(Ok(read)) => read,
            Ok(Err((why, missing))) => {
                warn!(%why, "artifact left out");
                let seen = missing.as_deref().and_then(look);
                arrived.notes.push((position, ArtifactNote::Failed { why, missing, size: 0, seen, refused: false }));
                continue;
            }
            Err(_) => {
                arrived.stopped = Some(ApiError::Cancelled.into());
                break;
            }
        };
        let manner = Manner { transfers: AT_ONCE, multipart: Multipart::default() };
        let note = match upload_artifact(&api, artifact, manner, &cancel).await {
            Ok(done) => {
                info!(artifact = %name, id = %done.id, files = done.files, was_there = done.was_there, "artifact there");
                ArtifactNote::Done(done.id)
            }
            Err(error) if concerns_more(&error) => {
                arrived.stopped = Some(stopping(name, error));
                break;
            }
            Err(error) => {
                warn!(artifact = %name, %error, "artifact left out");
                let why = format!("`{name}`: {}", told(&error));
                let refused = matches!(error, ArtifactError::Api(_) | ArtifactError::Transfer { .. });
                let (missing, size, seen) = match error {
                    ArtifactError::Lacking(lacking) => first_of(&lacking),
                    // It may be read another time.
                    ArtifactError::File(HashError::Changed(path) | HashError::Read { path, .. }) => {
                        (Some(path), 0, None)
                    }
                    _ => (None, 0, None),
                };
                ArtifactNote::Failed { why, missing, size, seen, refused }
            }
        };
        arrived.notes.push((position, note));
    }
    arrived
}

/// A version that lacks files waits for the first of them. When that is there, the next one is seen.
fn first_of(lacking: &Lacking) -> (Option<PathBuf>, u64, Option<FileMark>) {
    let Some(first) = lacking.files.first() else { return (None, 0, None) };
    let seen = (first.why == WhyLacking::Differs).then(|| look(&first.path)).flatten();
    (Some(first.path.clone()), first.size, seen)
}

fn look(path: &Path) -> Option<FileMark> {
    path.metadata().ok().map(|metadata| FileMark::from(&metadata))
}

/// An error that is not about one artifact, as one of the run.
pub(super) fn stopping(name: String, error: ArtifactError) -> UploadError {
    match error {
        ArtifactError::Api(error) => error.into(),
        source => UploadError::Artifact { name, source },
    }
}

/// Whether an error is not about one artifact: then the others wait too, and so does this one.
pub(super) fn concerns_more(error: &ArtifactError) -> bool {
    matches!(error.class(), Class::Auth | Class::Temporary | Class::Cancelled)
}

/// An error and what is behind it, in one line.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The record at a place of the log.
fn read(log: &Path, position: LogPosition) -> Result<ArtifactRecord, String> {
    let place = |why: &str| format!("the record at byte {} of the log: {why}", position.0);
    let mut reader = LogReader::open_at(log, position).map_err(|error| place(&error.to_string()))?;
    let next = reader.next().map_err(|error| place(&error.to_string()))?;
    let Next::Entry(entry) = next else { return Err(place("it cannot be read again")) };
    match entry.kind {
        EntryKind::Record(record) => match *record {
            RecordType::Artifact(artifact) => Ok(artifact),
            _ => Err(place("it is no artifact any more")),
        },
        _ => Err(place("it is no artifact any more")),
    }
}
