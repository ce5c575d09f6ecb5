//! One run's left half: sources are read, merged, converted and appended to the log, and the checkpoint follows.
//!
//! The order after which nothing is lost or doubled: append to the log → make the log durable → save the checkpoint, which
//! holds the position that counts → tell the uploader. Whatever the log holds behind the checkpoint's position is cut off
//! at the next start, and its sources are read again from the checkpoint's offsets.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::artifact::{Attached, Attachment};
use crate::checkpoint::Checkpoint;
use crate::convert::axes::Axes;
use crate::convert::filters::Filter;
use crate::convert::run::RunConverter;
use crate::convert::run_id::Fingerprint;
use crate::model::{Json, Skips, WallTime};
use crate::sink::Sink;
use crate::state_file::durable::Durability;
use crate::state_file::lock::Lock;
use crate::state_file::place::StatePlace;
use crate::survey::PlannedSource;
use crate::tfevents::TagTable;

mod abandoned;
mod attach;
mod commit;
mod describe;
mod disk;
mod error;
mod hindrance;
mod judge;
mod losses;
mod numbers;
mod open;
mod pass;
mod places;
mod reasons;
mod run_files;
mod side;
mod source;
mod tally;
#[cfg(test)]
mod tests;
mod values;

pub use abandoned::remove_abandoned;
pub use describe::{AskedDescription, Described};
pub use error::RecordError;
pub use judge::{Judge, ToScan, find_superseded};
pub use open::{RecordOptions, check_generation};
pub use pass::{End, OpenRow, Pass};
pub use places::rules;
pub use reasons::{place_of_file, place_of_value, reason};
pub use run_files::Written;
use side::Side;
pub use side::{kind_of, side_files_of};
use source::Source;
use tally::OpenFiles;
use values::Beside;

/// Records one run.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
    place: StatePlace,
    log: PathBuf,
    checkpoint: Checkpoint,
    converter: RunConverter,
    sink: Sink,
    /// Where the log ended when its growth was counted last.
    counted_to: u64,
    rows_before: u64,
    sources: Vec<Source>,
    /// The sources that this process has read of; what was lost of them before is told once.
    begun: HashSet<usize>,
    open_files: Arc<OpenFiles>,
    /// Records of event files are believed up to so many bytes.
    /// Where the same experiment lies too.
    also_in: Option<PathBuf>,
    max_record: u64,
    axes: Arc<Axes>,
    filter: Arc<Filter>,
    /// What is known about tags, by directory: its files share it.
    tags: HashMap<String, Arc<Mutex<TagTable>>>,
    /// Files that rows speak of, and config.
    beside: Arc<Mutex<Beside>>,
    /// The config that was written by this process.
    config: HashMap<Vec<String>, Json>,
    /// What is known of files beside the event files.
    side: Side,
    /// What else is to be attached when the run ends.
    attachments: Vec<Attachment>,
    /// What of that there was.
    attached: Vec<Attached>,
    /// Where config values stood that look like credentials.
    masked: BTreeSet<String>,
    dry_run: bool,
    /// How much may be written between two commits, but for what comes at once.
    bytes_per_commit: u64,
    /// Whether anything was appended or read since the last commit.
    dirty: bool,
    /// Whether the log was made by this process and nothing of it was committed yet.
    new: bool,
    /// Whether there may be a mark that nothing of the log counts yet.
    uncounted: bool,
    /// Whether an error left it half-way: what is in memory may be more than what is in the log.
    broken: bool,
    /// A log of the same run that was set aside because its state was lost.
    set_aside: Option<PathBuf>,
    /// Whether the log may bear the mark of a log that was uploaded whole.
    marked: bool,
    /// Whether the log was deleted after it had arrived, and no other was begun.
    no_log: bool,
    /// How what is written is made to last.
    durability: Durability,
    _lock: Option<Lock>,
}

impl Recorder {
    /// Where config values stood that look like credentials; they were masked.
    pub fn masked(&self) -> &BTreeSet<String> {
        &self.masked
    }

    /// The run's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The log that was here before, if its state was lost: it was set aside, and the run is recorded anew.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// What was recorded so far.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The latest wall time of any event.
    pub fn newest_event(&self) -> Option<WallTime> {
        let open = self.sources.iter().filter_map(Source::latest);
        open.chain(self.checkpoint.sources.iter().filter_map(|source| source.latest)).max()
    }

    /// Rows that were there when it was opened.
    pub fn rows_before(&self) -> u64 {
        self.rows_before
    }

    /// Values at steps that the same metric had passed before.
    pub fn repeated(&self) -> u64 {
        self.converter.repeated()
    }

    /// All keys that options can speak of: those of rows, and those that filters judged.
    pub fn keys(&self) -> impl Iterator<Item = &str> + Clone {
        self.converter.state().steps.keys().chain(&self.checkpoint.other_keys).map(String::as_str)
    }

    /// Rows that wait for more values of their steps.
    pub fn open_rows(&self) -> impl Iterator<Item = OpenRow<'_>> {
        self.sources.iter().filter_map(Source::open_row)
    }

    /// What stands in these files and could not be read: damage, records that are not whole, files that cannot be read, are
    /// shorter than before or were written anew. Counted where they stand now, so that what was completed or mended since is not
    /// among it. `missing` says whether files that are gone count as unreadable.
    pub fn unfinished(&self, planned: &[PlannedSource], missing: bool) -> Skips {
        let there: HashSet<(&Path, &Fingerprint)> =
            planned.iter().map(|plan| (plan.path.as_path(), &plan.fingerprint)).collect();
        let mut skips = Skips::default();
        for source in &self.sources {
            let saved = self.checkpoint.sources.get(source.index);
            if saved.is_some_and(|saved| there.contains(&(source.path(), &saved.fingerprint))) {
                source.count_hindrance(missing, &mut skips);
            }
        }
        skips
    }

    /// Says which files, by path and first record, are still there. Of the others nothing more is read, and no row waits.
    pub fn only_there(&mut self, is_there: impl Fn(&Path, &Fingerprint) -> bool) {
        for source in &mut self.sources {
            let saved = self.checkpoint.sources.get(source.index);
            if saved.is_some_and(|saved| !is_there(source.path(), &saved.fingerprint)) {
                source.leave();
            }
        }
    }

    /// Whether a file could not be read that may be readable soon, although nothing of it changes.
    pub fn has_unreadable(&self) -> bool {
        self.sources.iter().any(Source::is_unreadable)
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
