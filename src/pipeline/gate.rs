//! Whether a run may be read on: the spool and the disk must both have room.
//!
//! Asked before a run is read, and after each commit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use tokio_util::sync::CancellationToken;

use crate::free_space::{self, LowSpace, MinFree};
use crate::model::LogPosition;
use crate::pipeline::recording::{OpenRun, Recording};
use crate::pipeline::spool::{Fate, Meter, Room};
use crate::pipeline::uploads::Uploads;
use crate::recorder::RecordError;

/// How much is written between two looks at the disk, where the spool asks for no smaller portions.
const PORTION: u64 = 64 << 20;

/// The gate of one run.
#[derive(Debug)]
pub(super) struct Gate {
    directory: PathBuf,
    min_free: MinFree,
    /// A dry run writes nothing.
    open: bool,
    pub(super) meter: Option<Meter>,
    /// Cancelled when nothing is sent any more, where reading goes on all the same.
    only_recorded: Option<CancellationToken>,
    /// Whether uploads that go on make room on the disk.
    uploads_clean: bool,
    portion: u64,
    media: Arc<AtomicU64>,
    /// What was counted of the log and the media.
    log_counted: u64,
    media_counted: u64,
}

/// What a gate says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Verdict {
    /// Read on.
    #[default]
    Go,
    /// Not now; what is being uploaded makes room.
    Wait,
    /// The disk is too full, and nothing is on its way that would change it.
    Low(LowSpace),
    /// The spool is full of what cannot be sent.
    Stuck,
}

impl Gate {
    pub(super) fn new(recording: &Recording, uploads: Option<&Uploads>) -> Self {
        let meter = uploads.map(|uploads| uploads.spool().enter());
        let portion = uploads.map_or(PORTION, |uploads| uploads.spool().portion().min(PORTION));
        Self {
            directory: recording.wandb_directory.clone(),
            min_free: recording.min_free,
            open: recording.options.dry_run,
            only_recorded: None,
            uploads_clean: uploads.is_some_and(Uploads::cleans),
            meter,
            portion,
            media: Arc::default(),
            log_counted: 0,
            media_counted: 0,
        }
    }

    /// A run that is recorded whether the server lets us in or not: then nothing waits for uploads any more.
    pub(super) fn or_only_record(mut self, uploads: Option<&Uploads>) -> Self {
        self.only_recorded = uploads.map(|uploads| uploads.refusal().clone());
        self
    }

    /// Follows what a run writes from now on. What is there of it waits for its upload.
    pub(super) fn follow(&mut self, run: &mut OpenRun) {
        run.recorder.commit_every(self.portion);
        self.media = run.recorder.media_written();
        let position = run.recorder.checkpoint().position;
        self.log_counted = position.0;
        if let Some(meter) = self.meter.as_ref().filter(|_| position > LogPosition(0)) {
            // An exit is never acknowledged as a place in the log, and is cut off before the run goes on.
            let acknowledged = run.recorder.checkpoint().ending.map_or(position, |ending| ending.before_exit);
            meter.found(acknowledged, position.0 + size_below(&run.directory.join("files")));
        }
    }

    /// The run was committed up to a position, which is about to be published.
    pub(super) fn committed(&mut self, position: LogPosition) {
        let media = self.media.load(Ordering::Relaxed);
        // A log that ended is cut back before it goes on.
        let bytes = position.0.saturating_sub(self.log_counted) + (media - self.media_counted);
        (self.log_counted, self.media_counted) = (position.0, media);
        if let Some(meter) = &self.meter {
            meter.committed(position, bytes);
        }
    }

    /// Whether the run may be read on now. A run that `begins` has nothing yet that others could wait for.
    pub(super) fn ask(&self, begins: bool) -> Verdict {
        self.judge(|meter| meter.room(begins))
    }

    /// The same, after waiting for as long as that may help; [`Verdict::Wait`] only when it was `given_up`.
    pub(super) fn wait(&self, begins: bool, given_up: impl Fn() -> bool) -> Verdict {
        loop {
            match self.judge(|meter| meter.wait(begins, &given_up)) {
                // The disk is full, and uploads make room on it.
                Verdict::Wait if !given_up() => self.meter.iter().for_each(Meter::pause),
                verdict => return verdict,
            }
        }
    }

    fn judge(&self, room: impl FnOnce(&Meter) -> Room) -> Verdict {
        if self.open {
            return Verdict::Go;
        }
        let only_recorded = self.only_recorded.as_ref().is_some_and(CancellationToken::is_cancelled);
        match self.meter.as_ref().filter(|_| !only_recorded).map_or(Room::Go, room) {
            Room::Go => {}
            Room::Wait => return Verdict::Wait,
            Room::Never => return Verdict::Stuck,
        }
        match free_space::check(&self.directory, self.min_free, self.portion) {
            Ok(()) => Verdict::Go,
            Err(low) => {
                self.rest();
                let drains = self.meter.as_ref().is_some_and(Meter::others_drain);
                if self.uploads_clean && drains { Verdict::Wait } else { Verdict::Low(low) }
            }
        }
    }

    /// Nothing is written until it is asked again.
    pub(super) fn rest(&self) {
        if let Some(meter) = &self.meter {
            meter.rests();
        }
    }

    /// What to say of a run that was not read to its end.
    pub(super) fn error(&self, verdict: Verdict) -> Option<RecordError> {
        let failed =
            self.meter.as_ref().is_some_and(|meter| matches!(meter.fate(), Some(Fate::Failed | Fate::FailedAlone)));
        match verdict {
            Verdict::Low(low) => Some(RecordError::LowSpace(low)),
            // Why it cannot be sent is what matters, and its upload says that.
            Verdict::Stuck if !failed => Some(RecordError::SpoolFull),
            Verdict::Stuck | Verdict::Go | Verdict::Wait => None,
        }
    }
}

/// The bytes of all files below a directory. Links are not followed.
fn size_below(directory: &Path) -> u64 {
    let look = |entry: io::Result<fs::DirEntry>| {
        let metadata = entry.as_ref().ok()?.metadata().ok()?;
        Some(if metadata.is_dir() { size_below(&entry.ok()?.path()) } else { metadata.len() })
    };
    fs::read_dir(directory).map_or(0, |entries| entries.filter_map(look).sum())
}
