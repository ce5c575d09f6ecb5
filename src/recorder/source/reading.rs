//! How a source gives its rows: events are read until rows are closed, and what was read goes with the row that it led to.

use std::io;
use std::sync::{Arc, PoisonError};

use crate::convert::kinds::Cell;
use crate::convert::merge::RowSource;
use crate::convert::rows::{Resume, SourceRow};
use crate::model::{Skips, WallTime};
use crate::recorder::RecordError;
use crate::recorder::hindrance::Hindrance;
use crate::recorder::reasons::reason;
use crate::recorder::source::Source;
use crate::recorder::tally::Tally;
use crate::tfevents::{EventFile, FilePosition, Next};

/// How many events are read for one row, before others may have a look at how things are.
const READS_AT_ONCE: usize = 4096;

impl RowSource for Source {
    type Error = RecordError;

    fn first_due(&self) -> WallTime {
        self.rows.latest().unwrap_or(self.first_due)
    }

    fn next_row(&mut self) -> Result<Option<SourceRow>, RecordError> {
        if let Some(row) = self.closed.pop_front() {
            return self.give(row).map(Some);
        }
        let limit = self.open_files.rows_at_once(self.file.is_some());
        let mut reads = 0;
        self.files_are_due = false;
        while !self.ended && self.closed.len() < limit && reads < READS_AT_ONCE && !self.files_are_due {
            reads += 1;
            match self.read() {
                Ok(true) => continue,
                Ok(false) => self.saw_its_end(),
                Err(ReadError::Record(error)) => return Err(error),
                Err(ReadError::Source(error)) => self.hindrance = Some(Hindrance::of(&self.path, &error)),
            }
            self.ended = true;
            // After a row that began within an event there is no place to resume from, so it cannot be left open.
            if self.close_at_end || self.rows.began_within_event() {
                self.close_row();
            }
        }
        // A thousand files of one run are not open at the same time.
        if self.ended || limit > 1 {
            self.close_file();
        }
        match self.closed.pop_front() {
            Some(row) => self.give(row).map(Some),
            None if self.ended => Ok(None),
            None => Ok(Some(self.pause())),
        }
    }
}

impl Source {
    /// Reads one event. False when nothing more comes in this pass.
    fn read(&mut self) -> Result<bool, ReadError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let Resume { offset, wall_time, before } = self.at;
                let position = FilePosition { offset, wall_time, writer: self.writer.clone(), before };
                let opened = self.file.insert(EventFile::open(&self.path, &position)?.with_limit(self.max_record));
                self.open_files.opened();
                opened
            }
        };
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        let next = file.next_event(&mut tags)?;
        self.hindrance = None;
        self.ends_oddly = matches!(next, Next::BadLength { .. } | Next::Zeros { .. });
        let (skips, at) = (&mut Skips::default(), self.at.offset);
        let closed = self.closed.len();
        let mut events = 0;
        let more = match next {
            Next::Event => {
                events = 1;
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
                    let beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
                    self.files_are_due = beside.files.are_due();
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
                self.losses.found_damage(&next, &self.path);
                false
            }
            Next::Incomplete { .. } => {
                self.hindrance = reason(&next, &self.path, at).map(|(_, first)| Hindrance::Tail(first));
                false
            }
            Next::NothingYet => {
                // The size is asked of the file that is open: a network file system may have an old one.
                if self.size < at && file.is_too_short()? {
                    let why = format!("`{}`: {} bytes were read of it", self.path.display(), at);
                    self.hindrance = Some(Hindrance::Shrunk(why));
                }
                false
            }
            Next::Zeros { .. } => false,
        };
        // What was read before belongs to the rows that this event closed.
        for _ in closed..self.closed.len() {
            self.judge.take_counts_into(&mut self.tally);
            self.of_closed.push_back(std::mem::take(&mut self.tally));
        }
        self.tally.events += events;
        if !self.values.kinds.is_empty() {
            self.tally.kinds_and_skips().0.merge(&std::mem::take(&mut self.values.kinds));
        }
        if !skips.is_empty() {
            self.losses.add(at, skips);
            self.tally.kinds_and_skips().1.merge(skips);
        }
        if more {
            self.came = true;
            self.losses.passed_damage();
            let bytes = file.offset().saturating_sub(self.at.offset);
            self.bytes += bytes;
            self.tally.bytes += bytes;
            self.at = Resume { offset: file.offset(), wall_time: file.wall_time(), before: file.before() };
            if self.writer.as_deref() != file.writer() {
                self.writer = file.writer().map(str::to_owned);
            }
        }
        Ok(more)
    }

    fn saw_its_end(&mut self) {
        // What comes in the place of zeros or of damage leaves the size as it is, so another process has to look again.
        self.seen_size = if self.ends_oddly { 0 } else { self.size };
        self.seen_modified = Some(self.modified);
    }

    pub(super) fn close_row(&mut self) {
        if let Some(row) = self.rows.close(self.at) {
            self.closed.push_back(row);
            self.judge.take_counts_into(&mut self.tally);
            self.of_closed.push_back(std::mem::take(&mut self.tally));
        }
    }

    pub(super) fn close_file(&mut self) {
        if self.file.take().is_some() {
            self.open_files.closed();
        }
    }

    /// Gives a row away, after what was read up to it.
    fn give(&mut self, mut row: SourceRow) -> Result<SourceRow, RecordError> {
        let mut skips = Skips::default();
        let mut tally = self.of_closed.pop_front().unwrap_or_default();
        if !row.parts.is_empty() {
            let kinds = &mut tally.kinds_and_skips().0;
            self.values.finish(&mut row, &self.path, &self.beside, kinds, &mut skips)?;
        }
        if !skips.is_empty() {
            let at = row.resume_at.map_or(self.at.offset, |resume| resume.offset.saturating_sub(1));
            self.losses.add(at, &skips);
            tally.kinds_and_skips().1.merge(&skips);
        }
        self.of_given.push_back(tally);
        self.given_to = row.resume_at;
        Ok(row)
    }

    /// A row without values: much was read, and no row came of it. It lets others have a look at how things are.
    fn pause(&mut self) -> SourceRow {
        if !self.rows.has_open_row() {
            self.given_to = Some(self.at);
            self.judge.take_counts_into(&mut self.tally);
            self.of_given.push_back(std::mem::take(&mut self.tally));
        } else {
            self.of_given.push_back(Tally::default());
        }
        SourceRow {
            axis: Arc::default(),
            axis_value: 0,
            timestamp: 0.0,
            order: self.rows.latest().unwrap_or(self.first_due),
            values: Vec::new(),
            parts: Vec::new(),
            events: 0,
            resume_at: self.given_to,
        }
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
