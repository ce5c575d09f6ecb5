//! One event file of a run, as rows: opened when its rows are due, read to the end of what is there, and let go.

mod reading;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use crate::checkpoint::SourceCheckpoint;
use crate::convert::axes::Axes;
use crate::convert::filters::Filter;
use crate::convert::kinds::SessionEnd;
use crate::convert::restarts::Superseded;
use crate::convert::rows::{Resume, RowBuilder, SourceRow};
use crate::model::{Count, SkippedReason, Skips, WallTime};
use crate::recorder::hindrance::Hindrance;
use crate::recorder::judge::Judge;
use crate::recorder::losses::Losses;
use crate::recorder::tally::{OpenFiles, Tally};
use crate::recorder::values::{Beside, Values};
use crate::recorder::{End, OpenRow, Pass};
use crate::survey::PlannedSource;
use crate::tfevents::{EventFile, FilePosition, TagTable};

/// A source between and during passes.
pub(super) struct Source {
    /// Its place in the checkpoint.
    pub(super) index: usize,
    /// Size of the file at the start of the last pass that read it to its end.
    seen_size: u64,
    /// When it was written last, as of then; `None` while this process has not read it to its end.
    seen_modified: Option<SystemTime>,
    /// Where to read on when everything it gave is kept; `None` right after a row that ended within an event.
    pub(super) resume_at: Option<Resume>,
    path: PathBuf,
    directory: String,
    file_name: String,
    writer: Option<String>,
    first_due: WallTime,
    rows: RowBuilder,
    closed: VecDeque<SourceRow>,
    tags: Arc<Mutex<TagTable>>,
    beside: Arc<Mutex<Beside>>,
    values: Values,
    judge: Judge,
    file: Option<EventFile>,
    /// Where reading goes on: ahead of `resume_at` while rows wait.
    at: Resume,
    close_at_end: bool,
    /// Whether nothing more comes in this pass.
    ended: bool,
    size: u64,
    modified: SystemTime,
    /// Whether zeros or damage lie behind what was read.
    ends_oddly: bool,
    /// Bytes that were read in this pass.
    bytes: u64,
    /// What was read behind the last closed row.
    tally: Tally,
    /// The same for each row that is closed, in their order.
    of_closed: VecDeque<Tally>,
    /// The same for each row that was given and not yet taken.
    of_given: VecDeque<Tally>,
    /// The same for all rows that were taken since it was asked for.
    taken: Tally,
    /// Whether anything was read in this pass.
    came: bool,
    /// Whether so many files came of what was read that it should be committed.
    files_are_due: bool,
    /// Whether the file is not looked at any more.
    left: bool,
    /// Where to read on when every row that was given is kept.
    given_to: Option<Resume>,
    /// How many files of the run are open.
    open_files: Arc<OpenFiles>,
    max_record: u64,
    /// What was lost of the file, in earlier passes too.
    losses: Losses,
    /// What keeps it from being read on, as it was found last.
    hindrance: Option<Hindrance>,
    /// When a pass last found anything new.
    grown: Instant,
    /// The open row after the last pass, and when it was first seen.
    open: Option<(u64, Instant)>,
}

/// What the sources of a run have in common; the tags are those of its directory.
pub(super) struct Shared {
    pub(super) axes: Arc<Axes>,
    pub(super) tags: Arc<Mutex<TagTable>>,
    pub(super) beside: Arc<Mutex<Beside>>,
    pub(super) filter: Arc<Filter>,
    pub(super) open_files: Arc<OpenFiles>,
    /// Records are believed up to so many bytes.
    pub(super) max_record: u64,
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Source").field("path", &self.path).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn new(index: usize, plan: &PlannedSource, saved: &SourceCheckpoint, shared: Shared) -> Self {
        let Shared { axes, tags, beside, filter, open_files, max_record } = shared;
        let FilePosition { offset, wall_time, before, .. } = saved.position;
        let at = Resume { offset, wall_time, before };
        Self {
            index,
            seen_size: saved.seen_size,
            seen_modified: None,
            resume_at: Some(at),
            path: plan.path.clone(),
            directory: plan.directory.clone(),
            file_name: plan.file_name.clone(),
            writer: saved.position.writer.clone(),
            first_due: plan.first_due,
            // The rule of the first look counts: later files never change the layout of a run.
            rows: RowBuilder::new(saved.rule.clone(), axes, plan.from_tf2_writer, saved.latest),
            closed: VecDeque::new(),
            tags,
            beside,
            values: Values::default(),
            judge: Judge::new(filter),
            file: None,
            at,
            close_at_end: false,
            ended: true,
            size: plan.size,
            modified: plan.modified,
            ends_oddly: false,
            bytes: 0,
            tally: Tally::default(),
            of_closed: VecDeque::new(),
            of_given: VecDeque::new(),
            taken: Tally::default(),
            came: false,
            files_are_due: false,
            left: false,
            given_to: Some(at),
            open_files,
            max_record,
            losses: Losses::new(&saved.lost),
            hindrance: None,
            grown: Instant::now(),
            open: None,
        }
    }

    /// Gets ready to give rows again, if the file has anything new.
    pub(super) fn start_pass(&mut self, plan: &PlannedSource, end: End) {
        self.path.clone_from(&plan.path);
        (self.size, self.modified) = (plan.size, plan.modified);
        self.left = false;
        self.close_at_end = end != End::KeepRow;
        self.given_to = self.resume_at;
        self.ended = self.has_nothing_new() && !(self.close_at_end && self.rows.has_open_row());
    }

    /// Whether the file gives nothing in this pass.
    pub(super) fn has_nothing_new(&self) -> bool {
        // A file may be written to within its size.
        self.size == self.seen_size && self.seen_modified.is_none_or(|modified| modified == self.modified)
    }

    /// Says what of it a restart superseded.
    pub(super) fn set_superseded(&mut self, superseded: Superseded) {
        self.judge.set_superseded(superseded);
    }

    /// The metrics that filters judged since the last call.
    pub(super) fn take_new_metrics(&mut self) -> Vec<Arc<str>> {
        self.judge.take_new_metrics()
    }

    /// The row that was given first of those that were not taken yet is in the log. Whether the place to read on at is
    /// known was known before, and is known now.
    pub(super) fn take(&mut self, resume_at: Option<Resume>) -> (bool, bool) {
        let known = self.resume_at.is_some();
        self.resume_at = resume_at;
        if let Some(tally) = self.of_given.pop_front() {
            self.taken.add(tally);
        }
        (known, resume_at.is_some())
    }

    /// Adds what was read up to the last row that was taken.
    pub(super) fn count_taken(&mut self, pass: &mut Pass) {
        std::mem::take(&mut self.taken).count(pass);
    }

    /// Lets go of the file, and adds up what the pass read and kept.
    ///
    /// `complete` says that every row that it gave was kept.
    pub(super) fn end_pass(&mut self, pass: &mut Pass, complete: bool) {
        self.close_file();
        if std::mem::take(&mut self.came) {
            self.grown = Instant::now();
        }
        let known = self.open.take();
        let seen_now = |row| (row, Instant::now());
        self.open =
            self.rows.open_row().map(|row| known.filter(|(known, _)| *known == row).unwrap_or_else(|| seen_now(row)));
        self.bytes = 0;
        self.count_taken(pass);
        if complete {
            self.of_given.drain(..).chain(self.of_closed.drain(..)).for_each(|tally| tally.count(pass));
            std::mem::take(&mut self.tally).count(pass);
            self.judge.take_counts(&mut pass.kinds, &mut pass.skips);
        }
        pass.known.merge(&self.losses.take_known());
        if complete && self.ended && self.closed.is_empty() && !self.rows.has_open_row() {
            self.resume_at = Some(self.at);
        }
    }

    /// Where the file is to be read on after a crash; `None` when there is no such place now.
    pub(super) fn position(&self) -> Option<FilePosition> {
        let Resume { offset, wall_time, before } = self.resume_at?;
        Some(FilePosition { offset, wall_time, writer: self.writer.clone(), before })
    }

    /// The size that the file had when it was read to its end, if all that was read is recorded. Otherwise 0, which no
    /// size of a file with rows equals: what waits in memory is to be read again after a crash, whether the file has
    /// grown or not.
    pub(super) fn recorded_size(&self) -> u64 {
        if self.resume_at == Some(self.at) { self.seen_size } else { 0 }
    }

    /// How the training session says that it ended, as far as this process has read.
    pub(super) fn session(&self) -> Option<SessionEnd> {
        self.values.session
    }

    /// What is lost of the part of the file that is recorded.
    pub(super) fn lost(&mut self) -> Vec<(SkippedReason, Count)> {
        let all = self.resume_at == Some(self.at);
        self.losses.before(self.resume_at.map(|resume| resume.offset), all)
    }

    /// Bytes that this pass has read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn latest(&self) -> Option<WallTime> {
        self.rows.latest()
    }

    /// The row that waits for more values of its step.
    pub(super) fn open_row(&self) -> Option<OpenRow<'_>> {
        self.open.map(|(_, opened)| OpenRow { path: &self.path, opened, grown: self.grown })
    }

    /// What kept it from being read on, or to its end. `missing` says whether a file that is gone is worth a word.
    pub(super) fn count_hindrance(&self, missing: bool, skips: &mut Skips) {
        if let Some(first) = self.losses.new_damage() {
            skips.add(SkippedReason::DamagedFile, 1, || first.to_owned());
        }
        if let Some(hindrance) = &self.hindrance {
            hindrance.count(missing, skips);
        }
    }

    /// Whether it is worth trying again, although the file does not change.
    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self.hindrance, Some(Hindrance::Unreadable(_)))
    }

    /// Where it was found last.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a row waits for more values.
    pub(super) fn has_open_row(&self) -> bool {
        self.rows.has_open_row()
    }

    /// Says that the file is not looked at any more, until a pass has it again: it is gone, or another one has its name.
    pub(super) fn leave(&mut self) {
        self.left = true;
    }

    /// Whether the file is not there any more.
    pub(super) fn is_gone(&self) -> bool {
        self.left || !self.path.exists()
    }

    /// Closes what is open, and reads nothing: the file is gone.
    pub(super) fn end_here(&mut self) {
        self.given_to = self.resume_at;
        self.ended = true;
        self.close_row();
    }

    /// What earlier processes could not carry.
    pub(super) fn take_known(&mut self) -> Skips {
        self.losses.take_known()
    }

    /// The same was told in this process.
    pub(super) fn forget_known(&mut self) {
        self.losses.forget_known();
    }

    /// Equal wall times: the row of the smaller one comes first.
    pub(super) fn tie_break(&self) -> (&str, &str) {
        (&self.directory, &self.file_name)
    }
}
