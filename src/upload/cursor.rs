//! Reads a log on from what is known of it, and makes batches of what comes. Blocking; meant for a thread of its own.
//!
//! The log is opened anew whenever its end was reached, from the position that the fold stands at: so it does not matter
//! whether it has grown, or was cut back to before its exit and has grown again.

use std::path::{Path, PathBuf};

use crate::model::{Json, LogPosition, Number};
use crate::proto::wandb_internal::record::RecordType;
use crate::upload::batch::{Batch, BatchBuilder, MAX_LINE, Pushed, row};
use crate::upload::fold::{Fold, RunParameters};
use crate::upload::state::Base;
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
    pub(crate) fn new(log: PathBuf, fold: Fold, base: Base, resend_from: u64) -> Self {
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
                    self.builder.damaged(from, to, why);
                }
            }
        }
    }
}

/// What tells logs of one run apart, and from those of other runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunStart {
    /// Nanoseconds since the Unix epoch.
    pub time: Option<i64>,
    /// Empty: the server's default.
    pub entity: String,
    /// Empty: the server's default.
    pub project: String,
}

/// What the first run record of a log says of its beginning; `None` without one.
pub fn run_start(log: &Path) -> Option<RunStart> {
    let run = first_run(log, None).ok()??;
    Some(RunStart { time: run.start_time, entity: run.entity, project: run.project })
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

/// The number of the line of a log that says the same as a line of the server, if there is one. `fold` is a place at or
/// before it; `number` is the only one that it may have, where that is known.
pub(crate) fn find_line(
    log: &Path,
    fold: &Fold,
    limit: Option<LogPosition>,
    base: Base,
    number: Option<u64>,
    theirs: &str,
) -> Result<Option<u64>, LogError> {
    let Some(mut reader) = open(log, fold.position)? else { return Ok(None) };
    reader.set_limit(limit);
    let step_there = Json::parse(theirs).ok().and_then(|line| step_of(&line));
    let mut next = fold.history_lines;
    let mut latest = fold.implied_step();
    let (mut lines, mut line) = (HistoryLines::default(), Vec::new());
    loop {
        match reader.next()? {
            Next::Entry(entry) => {
                let EntryKind::History(record) = entry.kind else { continue };
                let made = row(&mut lines, record, base.least_step(latest), &mut line);
                latest = made.step.or(latest);
                if line.len() > MAX_LINE {
                    continue;
                }
                let candidate = number.map_or(made.step == step_there, |number| number == next);
                if candidate && same_line(&String::from_utf8_lossy(&line), theirs) {
                    return Ok(Some(next));
                }
                if number == Some(next) {
                    return Ok(None);
                }
                next += 1;
            }
            Next::Damaged { .. } => {}
            Next::End | Next::Incomplete { .. } => return Ok(None),
        }
    }
}

/// The `_step` of a line.
pub(crate) fn step_of(line: &Json) -> Option<i64> {
    match line.get("_step") {
        Some(Json::Number(Number::I64(step))) => Some(*step),
        _ => None,
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

fn as_f64(number: Number) -> f64 {
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
