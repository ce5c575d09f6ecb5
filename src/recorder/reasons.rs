//! Why something that is in an event file is not a value of the run, in the words that are reported. Pure.
//!
//! What is recorded and what is shown beforehand use the same function, so that both say the same.

use std::fmt::Display;
use std::path::Path;

use crate::model::SkippedReason;
use crate::tfevents::Next;

/// Why what came next in a file is missing, and where; `None` when nothing is. `offset` is where the file was read to.
pub fn reason(next: &Next, path: &Path, offset: u64) -> Option<(SkippedReason, String)> {
    let path = path.display();
    Some(match next {
        Next::Event | Next::NothingYet | Next::Zeros { .. } => return None,
        Next::BadRecord { at, why } => (SkippedReason::DamagedRecord, format!("`{path}` at byte {at}: {why}")),
        Next::BadLength { at, why } => (SkippedReason::DamagedFile, format!("`{path}` from byte {at}: {why}")),
        Next::Incomplete { bytes } => {
            (SkippedReason::IncompleteTail, format!("`{path}` at byte {offset}: {bytes} bytes of it are there"))
        }
    })
}

/// The place of a value, with what is to be said about it.
pub fn place_of_value(path: &Path, at: u64, tag: &str, why: &dyn Display) -> String {
    format!("`{}` at byte {at}: `{tag}`: {why}", path.display())
}

/// The place of a file that cannot be read, and why.
pub fn place_of_file(path: &Path, why: &dyn Display) -> String {
    format!("`{}`: {why}", path.display())
}
