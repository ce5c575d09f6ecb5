//! One record of a log and its place. Rows and summaries are left as the bytes that they are: most of a log is these.

use prost::Message;

use crate::model::LogPosition;
use crate::proto::wandb_internal::Record;
use crate::proto::wandb_internal::record::RecordType;
use crate::wandb_format::wire::{Fields, Value};

/// An intact record and its place.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Where its first chunk begins.
    pub start: LogPosition,
    /// Where its last chunk ends.
    pub end: LogPosition,
    /// Its number: writers count their records from 1. 0 where none is said.
    pub number: u64,
    /// What it holds.
    pub kind: EntryKind<'a>,
}

/// What an entry holds.
#[derive(Debug)]
pub enum EntryKind<'a> {
    /// A history row: the bytes of a `HistoryRecord`, for [`HistoryLines`](crate::wandb_format::HistoryLines).
    History(&'a [u8]),
    /// What changed in the summary: the bytes of a `SummaryRecord`, for [`apply_summary`](crate::wandb_format::apply_summary).
    Summary(&'a [u8]),
    /// Any other record.
    Record(Box<RecordType>),
    /// The record of a newer client, by the number of its field; 0 where a record holds nothing at all.
    Unknown(u32),
}

/// The number of a record, and what it holds; `None` when it is not a message.
pub(super) fn entry_kind(payload: &[u8]) -> Option<(u64, EntryKind<'_>)> {
    let mut record_number = 0;
    let mut kind = EntryKind::Unknown(0);
    let mut known = false;
    for field in Fields::new(payload) {
        let (number, value) = field.ok()?;
        match (number, value) {
            (2, Value::Bytes(history)) => (kind, known) = (EntryKind::History(history), true),
            // The official client writes one with each row.
            (3, Value::Bytes(summary)) => (kind, known) = (EntryKind::Summary(summary), true),
            (4..=13 | 17 | 18 | 20..=27, Value::Bytes(_)) => (kind, known) = (EntryKind::Unknown(number), true),
            (1, Value::Varint(number)) => record_number = number,
            // Control, uuid and info stand beside the record type, as the number does.
            (1 | 16 | 19 | 200, _) => {}
            (_, Value::Bytes(_)) if !known => kind = EntryKind::Unknown(number),
            _ => {}
        }
    }
    let kind = match kind {
        EntryKind::Unknown(_) if known => {
            let record = Record::decode(payload).ok()?.record_type?;
            EntryKind::Record(Box::new(record))
        }
        kind => kind,
    };
    Some((record_number, kind))
}
