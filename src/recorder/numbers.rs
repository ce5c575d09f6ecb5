//! The numbers of a run's metrics, read from its own log.
//!
//! For a summary that is asked for after the rows were written: the log has them all.

use std::collections::BTreeMap;
use std::path::Path;

use crate::convert::summaries::Running;
use crate::model::{Json, LogPosition};
use crate::wandb_format::{EntryKind, HistoryLines, LogError, LogReader, Next};

/// All numbers of some metrics up to a position in the log, in their order.
pub(super) fn numbers_of(
    log: &Path,
    until: LogPosition,
    metrics: Vec<String>,
) -> Result<BTreeMap<String, Running>, LogError> {
    let mut numbers: BTreeMap<String, Running> =
        metrics.into_iter().map(|metric| (metric, Running::default())).collect();
    let mut reader = LogReader::open(log)?;
    reader.set_limit(Some(until));
    let (mut lines, mut line) = (HistoryLines::default(), Vec::new());
    loop {
        match reader.next()? {
            Next::Entry(entry) => {
                let EntryKind::History(history) = entry.kind else { continue };
                line.clear();
                lines.append(history, &mut line);
                let row = std::str::from_utf8(&line).ok().and_then(|line| Json::parse(line).ok());
                let Some(Json::Object(row)) = row else { continue };
                for (key, value) in row {
                    if let (Some(running), Json::Number(number)) = (numbers.get_mut(&key), value) {
                        running.add(number);
                    }
                }
            }
            // Our own log is whole up to there; what somebody damaged in it is on no server either.
            Next::Damaged { .. } => {}
            Next::End | Next::Incomplete { .. } => return Ok(numbers),
        }
    }
}
