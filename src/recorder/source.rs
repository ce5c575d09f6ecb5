//! One event file of a run, as rows: opened when its rows are due, read to the end of what is there, and let go.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::checkpoint::SourceCheckpoint;
use crate::convert::axes::Axes;
use crate::convert::filters::Filter;
use crate::convert::kinds::{Cell, SessionEnd};
use crate::convert::merge::RowSource;
use crate::convert::restarts::Superseded;
use crate::convert::rows::{Resume, RowBuilder, SourceRow};
use crate::model::{Count, SkippedReason, Skips, WallTime};
use crate::recorder::judge::Judge;
use crate::recorder::losses::Losses;
use crate::recorder::reasons::{place_of_file, reason};
use crate::recorder::values::{Beside, Values};
use crate::recorder::{End, OpenRow, Pass, RecordError};
use crate::survey::PlannedSource;
use crate::tfevents::{EventFile, FilePosition, Next, TagTable};

/// A source between and during passes.
pub(super) struct Source {
    /// Its place in the checkpoint.
    pub(super) index: usize,
    /// Size of the file at the start of the last pass that read it to its end.
    seen_size: u64,
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
    events: u64,
    bytes: u64,
    skips: Skips,
    /// What was lost of the file, in earlier passes too.
    losses: Losses,
    /// A record that is not whole yet, at the end of what was read.
    unfinished: Option<(SkippedReason, String)>,
    /// When a pass last found anything new.
    grown: Instant,
    /// The open row after the last pass, and when it was first seen.
    open: Option<(u64, Instant)>,
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Source").field("path", &self.path).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn new(
        index: usize,
        plan: &PlannedSource,
        saved: &SourceCheckpoint,
        axes: Arc<Axes>,
        tags: Arc<Mutex<TagTable>>,
        beside: Arc<Mutex<Beside>>,
        filter: Arc<Filter>,
    ) -> Self {
        let at = Resume { offset: saved.position.offset, wall_time: saved.position.wall_time };
        Self {
            index,
            seen_size: saved.seen_size,
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
            events: 0,
            bytes: 0,
            skips: Skips::default(),
            losses: Losses::new(&saved.lost),
            unfinished: None,
            grown: Instant::now(),
            open: None,
        }
    }

    /// Gets ready to give rows again, if the file has anything new.
    pub(super) fn start_pass(&mut self, plan: &PlannedSource, end: End) {
        self.path.clone_from(&plan.path);
        self.size = plan.size;
        self.close_at_end = end != End::KeepRow;
        let nothing_new = self.size == self.seen_size;
        self.ended = nothing_new && !(self.close_at_end && self.rows.has_open_row());
    }

    /// Whether the file gives nothing in this pass.
    pub(super) fn has_nothing_new(&self) -> bool {
        self.size == self.seen_size
    }

    /// Says what of it a restart superseded.
    pub(super) fn set_superseded(&mut self, superseded: Superseded) {
        self.judge.set_superseded(superseded);
    }

    /// The metrics that filters judged since the last call.
    pub(super) fn take_new_metrics(&mut self) -> Vec<Arc<str>> {
        self.judge.take_new_metrics()
    }

    /// Lets go of the file, and adds up what the pass read.
    ///
    /// `complete` says that every row that it gave was kept.
    pub(super) fn end_pass(&mut self, pass: &mut Pass, complete: bool) {
        self.file = None;
        if self.events > 0 {
            self.grown = Instant::now();
        }
        let known = self.open.take();
        let seen_now = |row| (row, Instant::now());
        self.open =
            self.rows.open_row().map(|row| known.filter(|(known, _)| *known == row).unwrap_or_else(|| seen_now(row)));
        pass.events += std::mem::take(&mut self.events);
        pass.bytes += std::mem::take(&mut self.bytes);
        pass.skips.merge(&std::mem::take(&mut self.skips));
        pass.kinds.merge(&std::mem::take(&mut self.values.kinds));
        self.judge.take_counts(&mut pass.kinds, &mut pass.skips);
        pass.known.merge(&self.losses.take_known());
        if complete && self.ended && self.closed.is_empty() && !self.rows.has_open_row() {
            self.resume_at = Some(self.at);
        }
    }

    /// Where the file is to be read on after a crash; `None` when there is no such place now.
    pub(super) fn position(&self) -> Option<FilePosition> {
        let Resume { offset, wall_time } = self.resume_at?;
        Some(FilePosition { offset, wall_time, writer: self.writer.clone() })
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

    /// What is there of a record that is not whole.
    pub(super) fn count_unfinished(&self, skips: &mut Skips) {
        if let Some((reason, first)) = &self.unfinished {
            skips.add(reason.clone(), 1, || first.clone());
        }
    }

    /// Equal wall times: the row of the smaller one comes first.
    pub(super) fn tie_break(&self) -> (&str, &str) {
        (&self.directory, &self.file_name)
    }

    /// Reads one event. False when nothing more comes in this pass.
    fn read(&mut self) -> Result<bool, ReadError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let position =
                    FilePosition { offset: self.at.offset, wall_time: self.at.wall_time, writer: self.writer.clone() };
                self.file.insert(EventFile::open(&self.path, &position)?)
            }
        };
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        let next = file.next_event(&mut tags)?;
        self.unfinished = None;
        let (skips, at) = (&mut Skips::default(), self.at.offset);
        let more = match next {
            Next::Event => {
                self.events += 1;
                let event = file.event();
                let (wall_time, step) = (event.wall_time, event.step);
                let taken = self.judge.judge(event, &self.path, |tag| self.rows.place(tag));
                if event.points.iter().all(|point| point.number.is_some()) {
                    let is_taken = |index: usize| taken.is_none_or(|taken| taken.get(index) == Some(&true));
                    let taken = event.points.iter().enumerate().filter(|(index, _)| is_taken(*index));
                    let cells = taken.filter_map(|(_, point)| Some((&point.tag, Cell::Number(point.number?))));
                    self.rows.push(wall_time, step, cells, self.at, &mut self.closed);
                } else {
                    let cells = self.values.cells(event, taken, &self.path, &mut self.rows, &self.beside, skips)?;
                    self.rows.push(wall_time, step, cells.into_iter(), self.at, &mut self.closed);
                }
                true
            }
            Next::BadRecord { .. } => {
                if let Some((reason, first)) = reason(&next, &self.path, at) {
                    skips.add(reason, 1, || first);
                }
                true
            }
            Next::BadLength { .. } => {
                self.losses.found_damage(&next, &self.path, skips);
                false
            }
            Next::Incomplete { .. } => {
                self.unfinished = reason(&next, &self.path, at);
                false
            }
            Next::NothingYet | Next::Zeros { .. } => false,
        };
        if !skips.is_empty() {
            self.losses.add(at, skips);
            self.skips.merge(skips);
        }
        if more {
            self.losses.passed_damage();
            let position = file.position();
            self.bytes += position.offset.saturating_sub(self.at.offset);
            self.at = Resume { offset: position.offset, wall_time: position.wall_time };
            self.writer = position.writer;
        }
        Ok(more)
    }
}

/// Why an event could not be read.
enum ReadError {
    /// The source cannot be read: that is counted, and others go on.
    Source(io::Error),
    /// What it holds could not be written: the run cannot go on.
    Record(RecordError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Source(error)
    }
}

impl From<RecordError> for ReadError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

impl RowSource for Source {
    type Error = RecordError;

    fn first_due(&self) -> WallTime {
        self.rows.latest().unwrap_or(self.first_due)
    }

    fn next_row(&mut self) -> Result<Option<SourceRow>, RecordError> {
        loop {
            if let Some(mut row) = self.closed.pop_front() {
                let mut skips = Skips::default();
                self.values.finish(&mut row, &self.path, &self.beside, &mut skips)?;
                if !skips.is_empty() {
                    let at = row.resume_at.map_or(self.at.offset, |resume| resume.offset.saturating_sub(1));
                    self.losses.add(at, &skips);
                    self.skips.merge(&skips);
                }
                return Ok(Some(row));
            }
            if self.ended {
                return Ok(None);
            }
            match self.read() {
                Ok(true) => continue,
                Ok(false) => self.seen_size = self.size,
                Err(ReadError::Record(error)) => return Err(error),
                Err(ReadError::Source(error)) => {
                    self.skips.add(SkippedReason::Unreadable, 1, || place_of_file(&self.path, &error));
                }
            }
            self.ended = true;
            // A thousand files of one run are not open at the same time.
            self.file = None;
            // After a row that began within an event there is no place to resume from, so it cannot be left open.
            if self.close_at_end || self.rows.began_within_event() {
                self.closed.extend(self.rows.close(self.at));
                if self.closed.is_empty() {
                    return Ok(None);
                }
            }
        }
    }
}
