//! Reads a log on from what is known of it, and makes batches of what comes. Blocking; meant for a thread of its own.
//!
//! The log is opened anew whenever its end was reached, from the position that the fold stands at: so it does not matter
//! whether it has grown, or was cut back to before its exit and has grown again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::model::{Json, LogPosition, Number};
use crate::proto::wandb_internal::record::RecordType;
use crate::upload::batch::{Batch, BatchBuilder, MAX_LINE, Pushed, row};
use crate::upload::fold::{Fold, RunParameters};
use crate::upload::job::{Close, LogEnd};
use crate::upload::state::Base;
use crate::wandb_format::{EntryKind, HistoryLines, LogError, LogReader, Next};

/// Damage that is nearer to the end of a log than this, or was first seen less than this time ago, may be a write that this
/// machine does not see all of yet: network file systems show zeros where data is still to come.
const MAY_BECOME_WHOLE: u64 = 32 << 10;
const MAY_BECOME_WHOLE_FOR: Duration = Duration::from_secs(30);

/// How many entries are read between two looks at whether anybody still wants them.
const ENTRIES_BETWEEN_LOOKS: u64 = 256;

/// A place in a log, from which batches are made.
#[derive(Debug)]
pub(crate) struct Cursor {
    log: PathBuf,
    builder: BatchBuilder,
    reader: Option<LogReader>,
    /// Damage that may become whole, and when it was first seen.
    suspect: Option<(LogPosition, Instant)>,
}

impl Cursor {
    /// Goes on after `fold`. See [`BatchBuilder::new`].
    pub(crate) fn new(log: PathBuf, fold: Fold, base: Base, resend_from: u64) -> Self {
        Self { log, builder: BatchBuilder::new(fold, base, resend_from), reader: None, suspect: None }
    }

    /// Where the next entry begins.
    pub(crate) fn position(&self) -> LogPosition {
        self.builder.position()
    }

    /// The next batch: full, or all that there is up to the end.
    pub(crate) fn next_batch(&mut self, end: LogEnd) -> Result<Batch, LogError> {
        let limit = end.position;
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
                    if self.may_become_whole(from, end) {
                        return Ok(Batch { at_end: true, incomplete: true, ..self.builder.finish() });
                    }
                    self.builder.damaged(from, to, why);
                }
            }
        }
    }

    /// Whether damage is to be looked at again later, instead of being passed over for ever.
    fn may_become_whole(&mut self, from: LogPosition, end: LogEnd) -> bool {
        // A log that others write is never said to be complete; it is only that nothing more is waited for.
        let left_open = end.complete && end.position.is_none() && end.close == Close::LeaveRunning;
        if end.complete && !left_open {
            return false;
        }
        let length = std::fs::metadata(&self.log).map(|metadata| metadata.len()).unwrap_or_default();
        let length = end.position.map_or(length, |position| position.0.min(length));
        let is_near = length.saturating_sub(from.0) <= MAY_BECOME_WHOLE;
        if left_open {
            return is_near;
        }
        let (at, seen) = self.suspect.unwrap_or((from, Instant::now()));
        let seen = if at == from { seen } else { Instant::now() };
        self.suspect = Some((from, seen));
        is_near || seen.elapsed() < MAY_BECOME_WHOLE_FOR
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
    /// The run's id.
    pub run_id: String,
    /// The name that people see; may be empty.
    pub name: String,
}

/// What the first run record of a log says of its beginning; `None` without one.
pub fn run_start(log: &Path) -> Option<RunStart> {
    let run = first_run(log, None, &CancellationToken::new()).ok()??;
    let (run_id, name) = (run.run_id, run.display_name);
    Some(RunStart { time: run.start_time, entity: run.entity, project: run.project, run_id, name })
}

/// What the first run record of a log says; `None` when there is none yet, or nobody
/// wants to know any more.
pub(crate) fn first_run(
    log: &Path,
    limit: Option<LogPosition>,
    cancel: &CancellationToken,
) -> Result<Option<RunParameters>, LogError> {
    let Some(mut reader) = open(log, LogPosition(0))? else { return Ok(None) };
    reader.set_limit(limit);
    let mut fold = Fold::default();
    let mut looks = Looks::new(cancel);
    loop {
        if looks.nobody_waits() {
            return Ok(None);
        }
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

/// Whether there is nothing in a log yet but who writes it: its run is still to be named.
pub(crate) fn is_blank(log: &Path) -> Result<bool, LogError> {
    let Some(mut reader) = open(log, LogPosition(0))? else { return Ok(true) };
    loop {
        match reader.next()? {
            Next::Entry(entry) => {
                let EntryKind::Record(record) = entry.kind else { return Ok(false) };
                if !matches!(*record, RecordType::Header(_)) {
                    return Ok(false);
                }
            }
            Next::Damaged { .. } => return Ok(false),
            Next::End | Next::Incomplete { .. } => return Ok(true),
        }
    }
}

/// Where a line of the server stands in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The line with this number says the same.
    At(u64),
    /// None does.
    Nowhere,
    /// The log does not reach as far: so far it has this many lines.
    Behind(u64),
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
    cancel: &CancellationToken,
) -> Result<Found, LogError> {
    let step_there = step_in(theirs);
    let mut found = None;
    let lines = each_history_line(log, fold, limit, base, cancel, |at, step, line| {
        let candidate = number.map_or(step == step_there, |number| number == at);
        if candidate && same_line(&String::from_utf8_lossy(line), theirs) {
            found = Some(at);
        }
        found.is_some() || number == Some(at)
    })?;
    Ok(match (found, number) {
        (Some(at), _) => Found::At(at),
        (None, Some(number)) if lines <= number => Found::Behind(lines),
        (None, _) => Found::Nowhere,
    })
}

/// The number of the last line of a log that says the same as a line of the server.
pub(crate) fn last_line_like(
    log: &Path,
    limit: Option<LogPosition>,
    base: Base,
    theirs: &str,
    cancel: &CancellationToken,
) -> Result<Option<u64>, LogError> {
    let step_there = step_in(theirs);
    let mut found = None;
    each_history_line(log, &Fold::default(), limit, base, cancel, |at, step, line| {
        if step == step_there && same_line(&String::from_utf8_lossy(line), theirs) {
            found = Some(at);
        }
        false
    })?;
    Ok(found)
}

/// Shows history lines with their numbers and steps, from a place on, until one of them is enough or nobody waits any more.
/// Returns how many lines the log has up to there.
fn each_history_line(
    log: &Path,
    fold: &Fold,
    limit: Option<LogPosition>,
    base: Base,
    cancel: &CancellationToken,
    mut is_enough: impl FnMut(u64, Option<i64>, &[u8]) -> bool,
) -> Result<u64, LogError> {
    let Some(mut reader) = open(log, fold.position)? else { return Ok(0) };
    reader.set_limit(limit);
    let mut number = fold.history_lines;
    let mut latest = fold.implied_step();
    let (mut lines, mut line) = (HistoryLines::default(), Vec::new());
    let mut looks = Looks::new(cancel);
    while !looks.nobody_waits() {
        match reader.next()? {
            Next::Entry(entry) => {
                let EntryKind::History(record) = entry.kind else { continue };
                let made = row(&mut lines, record, base.least_step(latest), &mut line);
                latest = made.step.or(latest);
                if line.len() > MAX_LINE {
                    continue;
                }
                if is_enough(number, made.step, &line) {
                    return Ok(number + 1);
                }
                number += 1;
            }
            Next::Damaged { .. } => {}
            Next::End | Next::Incomplete { .. } => break,
        }
    }
    Ok(number)
}

/// The files that are uploaded once and that a log names before a position.
pub(crate) fn media_named_before(
    log: &Path,
    position: LogPosition,
    cancel: &CancellationToken,
) -> Result<HashSet<String>, LogError> {
    let mut named = HashSet::new();
    let Some(mut reader) = open(log, LogPosition(0))? else { return Ok(named) };
    reader.set_limit(Some(position));
    let mut fold = Fold::default();
    let mut looks = Looks::new(cancel);
    while !looks.nobody_waits() {
        match reader.next()? {
            Next::Entry(entry) => {
                if let EntryKind::Record(record) = entry.kind
                    && matches!(*record, RecordType::Files(_))
                {
                    let _ = fold.apply(&record, &mut Vec::new());
                    named.extend(fold.fresh.drain(..));
                }
            }
            Next::Damaged { .. } => {}
            Next::End | Next::Incomplete { .. } => break,
        }
    }
    Ok(named)
}

/// Looks now and then whether a long reading is still wanted.
struct Looks<'a> {
    cancel: &'a CancellationToken,
    count: u64,
}

impl<'a> Looks<'a> {
    fn new(cancel: &'a CancellationToken) -> Self {
        Self { cancel, count: 0 }
    }

    fn nobody_waits(&mut self) -> bool {
        self.count += 1;
        self.count.is_multiple_of(ENTRIES_BETWEEN_LOOKS) && self.cancel.is_cancelled()
    }
}

fn step_in(line: &str) -> Option<i64> {
    Json::parse(line).ok().as_ref().and_then(step_of)
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
        (Ok(ours), Ok(theirs)) => ours.is_same_value(&theirs),
        _ => false,
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
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::proto::wandb_internal as proto;
    use crate::upload::job::{Close, LogEnd};
    use crate::wandb_format::LogWriter;

    #[test]
    fn what_may_become_whole_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = LogWriter::create(&path).unwrap();
        let mut ends = Vec::new();
        for step in 0..4 {
            let value = proto::HistoryItem {
                nested_key: vec!["_step".into()],
                value_json: step.to_string(),
                ..Default::default()
            };
            let row = proto::HistoryRecord { item: vec![value], ..Default::default() };
            writer.append(RecordType::History(row)).unwrap();
            ends.push(writer.position().0 as usize);
        }
        writer.flush().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut stale = whole.clone();
        stale[ends[1]..ends[2]].fill(0);
        let growing = LogEnd { position: None, complete: false, close: Close::LeaveRunning };
        for end in [growing, LogEnd { complete: true, ..growing }] {
            // The third row is not to be seen yet, though the fourth one is.
            std::fs::write(&path, &stale).unwrap();
            let mut cursor = Cursor::new(path.clone(), Fold::default(), Base::default(), 0);
            let batch = cursor.next_batch(end).unwrap();
            assert_eq!((batch.history.count, batch.at_end, batch.incomplete), (2, true, true));
            assert_eq!(cursor.next_batch(end).unwrap().history.count, 0);
            std::fs::write(&path, &whole).unwrap();
            let batch = cursor.next_batch(end).unwrap();
            assert_eq!((batch.history.count, batch.incomplete, batch.after.skips().any_loss()), (2, false, false));
        }
        // Nobody writes any more: then it is lost, with what stands behind it in its block.
        std::fs::write(&path, &stale).unwrap();
        let mut cursor = Cursor::new(path, Fold::default(), Base::default(), 0);
        let batch = cursor.next_batch(LogEnd::whole(Close::Fail(1))).unwrap();
        assert_eq!((batch.history.count, batch.after.skips().any_loss()), (2, true));
    }

    #[test]
    fn lines_are_compared_as_values() {
        assert!(same_line(r#"{"a":1,"b":[0.00001,NaN],"c":2}"#, r#"{"b": [1e-05, NaN], "c": 2.0, "a": 1}"#));
        assert!(!same_line(r#"{"a":1}"#, r#"{"a":2}"#));
        assert!(!same_line(r#"{"a":1}"#, r#"{"a":1,"b":2}"#));
        assert!(!same_line(r#"{"a":1}"#, ""));
    }
}
