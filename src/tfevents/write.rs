//! Writing of records: the inverse of [`record`](crate::tfevents::record), for generators and tests.
//!
//! Appends to memory; knows no files.

use prost::Message;

use crate::proto::tensorboard::Event;
use crate::tfevents::crc::masked_crc;

/// Appends one framed record.
pub fn write_record(out: &mut Vec<u8>, payload: &[u8]) {
    let length = (payload.len() as u64).to_le_bytes();
    out.reserve(payload.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(&masked_crc(payload).to_le_bytes());
}

/// Appends one event as a framed record.
pub fn write_event(out: &mut Vec<u8>, event: &Event) {
    write_record(out, &event.encode_to_vec());
}
