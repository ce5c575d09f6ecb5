//! Reads a log on from what is known of it, and makes batches of what comes. Blocking; meant for a thread of its own.
//!
//! The log is opened anew whenever its end was reached, from the position that the fold stands at: so it does not matter
//! whether it has grown, or was cut back to before its exit and has grown again.

use std::path::{Path, PathBuf};

use crate::model::{Json, LogPosition, SkippedReason};
use crate::proto::wandb_internal::record::RecordType;
use crate::upload::batch::{Batch, BatchBuilder, MAX_LINE, Pushed, row};
use crate::upload::fold::{Fold, RunParameters};
use crate::wandb_format::{EntryKind, HistoryLines, LogError, LogReader, Next};

/// A place in a log, from which batches are made.
#[derive(Debug)]
pub(crate) struct Cursor {
    log: PathBuf,
    builder: BatchBuilder,
    reader: Option<LogReader>,
}

impl Cursor {
    /// Goes on after `fold`. See [`BatchBuilder::new`].
    pub(crate) fn new(log: PathBuf, fold: Fold, base: u64, resend_from: u64) -> Self {
        Self { log, builder: BatchBuilder::new(fold, base, resend_from), reader: None }
    }

    /// Where the next entry begins.
    pub(crate) fn position(&self) -> LogPosition {
        self.builder.position()
    }

    /// The next batch: full, or all that there is up to `limit`.
    pub(crate) fn next_batch(&mut self, limit: Option<LogPosition>) -> Result<Batch, LogError> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => {
                if let Some(limit) = limit.filter(|limit| *limit < self.builder.position()) {
                    return Err(LogError::Shorter { length: limit.0, position: self.builder.position().0 });
                }
                let Some(reader) = open(&self.log, self.builder.position())? else {
                    return Ok(Batch { at_end: true, ..self.builder.finish() });
                };
                // An exit is only the end if it is found again.
                self.builder.forget_exit();
                reader
            }
        };
        reader.set_limit(limit);
        loop {
            match reader.next()? {
                Next::Entry(entry) => {
                    if self.builder.push(&entry) == Pushed::Full {
                        let batch = self.builder.finish();
                        // An empty batch has room for any one entry.
                        let _ = self.builder.push(&entry);
                        self.reader = Some(reader);
                        return Ok(batch);
                    }
                }
                Next::End => return Ok(Batch { at_end: true, ..self.builder.finish() }),
                Next::Incomplete { .. } => {
                    return Ok(Batch { at_end: true, incomplete: true, ..self.builder.finish() });
                }
                Next::Damaged { from, to, why } => {
                    self.builder.damaged(to, SkippedReason::DamagedRecord, || format!("{why} at byte {}", from.0));
                }
            }
        }
    }
}

/// What the first run record of a log says; `None` when there is none yet.
pub(crate) fn first_run(log: &Path, limit: Option<LogPosition>) -> Result<Option<RunParameters>, LogError> {
    let Some(mut reader) = open(log, LogPosition(0))? else { return Ok(None) };
    reader.set_limit(limit);
    let mut fold = Fold::default();
    loop {
        match reader.next()? {
            Next::Entry(entry) => {
                let EntryKind::Record(record) = entry.kind else { continue };
                if matches!(*record, RecordType::Run(_)) {
                    let _ = fold.apply(&record, &mut Vec::new());
                    return Ok(fold.run);
                }
            }
            Next::Damaged { .. } => {}
            Next::End | Next::Incomplete { .. } => return Ok(None),
        }
    }
}

/// The history line with a number, where the log has one. `fold` is a place at or before it.
pub(crate) fn history_line_at(
    log: &Path,
    fold: &Fold,
    limit: Option<LogPosition>,
    number: u64,
) -> Result<Option<String>, LogError> {
    let Some(mut reader) = open(log, fold.position)? else { return Ok(None) };
    reader.set_limit(limit);
    let mut next = fold.history_lines;
    let (mut lines, mut line) = (HistoryLines::default(), Vec::new());
    loop {
        match reader.next()? {
            Next::Entry(entry) => {
                let EntryKind::History(record) = entry.kind else { continue };
                row(&mut lines, record, &mut line);
                if line.len() > MAX_LINE {
                    continue;
                }
                if next == number {
                    return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
                }
                next += 1;
            }
            Next::Damaged { .. } => {}
            Next::End | Next::Incomplete { .. } => return Ok(None),
        }
    }
}

/// Whether two lines say the same. Servers may write numbers in their own way, and order keys as they like.
pub(crate) fn same_line(ours: &str, theirs: &str) -> bool {
    match (Json::parse(ours), Json::parse(theirs)) {
        (Ok(ours), Ok(theirs)) => same(&ours, &theirs),
        _ => false,
    }
}

fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            // Other writers print -0.0 as -0, which reads back as the integer 0.
            let (a, b) = (as_f64(*a), as_f64(*b));
            a == b || (a.is_nan() && b.is_nan())
        }
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((key, a), (other, b))| key == other && same(a, b))
        }
        _ => a == b,
    }
}

fn as_f64(number: crate::model::Number) -> f64 {
    use crate::model::Number;
    match number {
        Number::F32(value) => f64::from(value),
        Number::F64(value) => value,
        Number::I64(value) => value as f64,
        Number::U64(value) => value as f64,
    }
}

/// Opens a log; `None` when it has not even its header yet.
fn open(log: &Path, position: LogPosition) -> Result<Option<LogReader>, LogError> {
    match LogReader::open_at(log, position) {
        Ok(reader) => Ok(Some(reader)),
        Err(LogError::NoHeader { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_as_values() {
        assert!(same_line(r#"{"a":1,"b":[0.00001,NaN],"c":2}"#, r#"{"b": [1e-05, NaN], "c": 2.0, "a": 1}"#));
        assert!(!same_line(r#"{"a":1}"#, r#"{"a":2}"#));
        assert!(!same_line(r#"{"a":1}"#, r#"{"a":1,"b":2}"#));
        assert!(!same_line(r#"{"a":1}"#, ""));
    }
}
