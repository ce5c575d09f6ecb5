//! Entries of a log into the content of requests. Pure.
//!
//! A batch holds at most [`MAX_BYTES`] of lines, and always its first line. However entries are cut into batches, the same
//! lines go to the same offsets, because an offset is the number of lines before it and nothing else.

use crate::api::file_stream::Lines;
use crate::model::{LogPosition, SkippedReason};
use crate::proto::wandb_internal::record::RecordType;
use crate::upload::fold::{Change, Fold};
use crate::wandb_format::{Entry, EntryKind, HistoryLine, HistoryLines};

/// How many bytes of lines go into one request, as in the official client.
pub(crate) const MAX_BYTES: usize = 10 << 20;

/// W&B's limit for one line.
pub(crate) const MAX_LINE: usize = MAX_BYTES - (100 << 10);

/// How much log one batch may cover, even when nothing of it becomes lines: what a batch costs is bounded.
const MAX_LOG: u64 = 64 << 20;

/// The content of one request, and what is known once it was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// New history lines.
    pub(crate) history: Lines,
    /// New lines of system metrics.
    pub(crate) events: Lines,
    /// How many bytes these lines have.
    pub(crate) bytes: usize,
    /// Whether the process said that it is about to be stopped.
    pub(crate) preempting: bool,
    /// The run after all entries of this batch.
    pub(crate) after: Fold,
    /// Nothing followed in the log when this batch was made.
    pub(crate) at_end: bool,
    /// The log ended within a record.
    pub(crate) incomplete: bool,
}

impl Batch {
    /// Whether there is anything that only this batch carries.
    pub(crate) fn has_lines(&self) -> bool {
        self.history.count > 0 || self.events.count > 0 || self.preempting
    }
}

/// Whether an entry found a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Pushed {
    /// It is in.
    Taken,
    /// The batch is full: finish it, then push the same entry again.
    Full,
}

/// Makes batches, one after the other.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    fold: Fold,
    history: Lines,
    events: Lines,
    bytes: usize,
    preempting: bool,
    entries: u64,
    from: u64,
    base: u64,
    /// Rows below this number are on the server already.
    resend_from: u64,
    line: Vec<u8>,
    lines: HistoryLines,
    /// The `_step` of the latest row of this batch.
    step: Option<i64>,
}

impl BatchBuilder {
    /// Goes on after `fold`. `base` lines on the server are not of this log; rows of ours below `resend_from` are counted
    /// but not sent.
    pub(crate) fn new(fold: Fold, base: u64, resend_from: u64) -> Self {
        let mut builder = Self {
            history: Lines::default(),
            events: Lines::default(),
            bytes: 0,
            preempting: false,
            entries: 0,
            from: fold.position.0,
            base,
            resend_from,
            line: Vec::new(),
            lines: HistoryLines::default(),
            step: None,
            fold,
        };
        builder.start();
        builder
    }

    /// The end of what was pushed.
    pub(crate) fn position(&self) -> LogPosition {
        self.fold.position
    }

    /// Reading begins again at [`BatchBuilder::position`], which is before any exit.
    pub(crate) fn forget_exit(&mut self) {
        self.fold.exit = None;
    }

    /// Notes that what lies before `to` is no record.
    pub(crate) fn damaged(&mut self, to: LogPosition, reason: SkippedReason, first: impl FnOnce() -> String) {
        // Behind an exit there is nothing to lose.
        if self.fold.exit.is_none() {
            self.fold.skip(reason, 1, first);
            self.fold.position = to;
        }
    }

    /// Adds one entry.
    pub(crate) fn push(&mut self, entry: &Entry<'_>) -> Pushed {
        if self.entries > 0 && entry.end.0.saturating_sub(self.from) > MAX_LOG {
            return Pushed::Full;
        }
        match &entry.kind {
            EntryKind::History(bytes) => {
                let row = row(&mut self.lines, bytes, &mut self.line);
                if self.line.len() > MAX_LINE {
                    self.skip(SkippedReason::RowTooLarge, 1, entry, &format!("a row of {} bytes", self.line.len()));
                } else if self.is_full_for(self.line.len()) {
                    return Pushed::Full;
                } else {
                    if self.fold.history_lines >= self.resend_from {
                        self.history.push(&self.line);
                        self.bytes += self.line.len();
                    } else {
                        self.history.offset += 1;
                    }
                    self.fold.history_lines += 1;
                    self.step = row.step.or(self.step);
                }
                self.skip(SkippedReason::BadValue, row.skipped, entry, "a value that is not JSON, in a row");
            }
            EntryKind::Record(record) => match self.fold.apply(record, &mut self.line) {
                Change::Nothing => {}
                Change::Event => {
                    if self.line.len() > MAX_LINE {
                        self.skip(SkippedReason::RowTooLarge, 1, entry, "a sample of system metrics");
                    } else if self.is_full_for(self.line.len()) {
                        return Pushed::Full;
                    } else {
                        self.events.push(&self.line);
                        self.bytes += self.line.len();
                        self.fold.events_lines += 1;
                    }
                }
                Change::Preempting => self.preempting = true,
                Change::Skipped(reason, count, what) => self.skip(reason, count, entry, what),
            },
            EntryKind::Unknown(number) => {
                self.skip(SkippedReason::UnknownRecord, 1, entry, &format!("a record of type {number}"));
            }
        }
        if !is_closing(&entry.kind) {
            self.fold.exit = None;
        }
        if self.fold.exit.is_none() {
            self.fold.position = entry.end;
        }
        self.entries += 1;
        Pushed::Taken
    }

    /// Takes what was pushed as one batch.
    pub(crate) fn finish(&mut self) -> Batch {
        if let Some(step) = self.step.take() {
            self.fold.imply_step(step);
        }
        let history = std::mem::take(&mut self.history);
        let events = std::mem::take(&mut self.events);
        let batch = Batch {
            history,
            events,
            bytes: std::mem::take(&mut self.bytes),
            preempting: std::mem::take(&mut self.preempting),
            after: self.fold.clone(),
            at_end: false,
            incomplete: false,
        };
        self.start();
        batch
    }

    fn start(&mut self) {
        self.history = Lines::at(self.base + self.fold.history_lines);
        self.events = Lines::at(self.fold.events_lines);
        self.from = self.fold.position.0;
        self.entries = 0;
    }

    fn is_full_for(&self, size: usize) -> bool {
        self.bytes > 0 && self.bytes + size > MAX_BYTES
    }

    fn skip(&mut self, reason: SkippedReason, count: u64, entry: &Entry<'_>, what: &str) {
        if count > 0 {
            self.fold.skip(reason, count, || format!("{what} at byte {}", entry.start.0));
        }
    }
}

/// Makes the line of a history record. It takes a line number when it is at most [`MAX_LINE`] long.
pub(crate) fn row(lines: &mut HistoryLines, record: &[u8], line: &mut Vec<u8>) -> HistoryLine {
    line.clear();
    lines.append(record, line)
}

/// What may follow an exit without meaning that the run went on.
fn is_closing(kind: &EntryKind<'_>) -> bool {
    match kind {
        EntryKind::Record(record) => {
            matches!(
                **record,
                RecordType::Exit(_) | RecordType::Final(_) | RecordType::Footer(_) | RecordType::Header(_)
            )
        }
        EntryKind::History(_) | EntryKind::Unknown(_) => false,
    }
}
