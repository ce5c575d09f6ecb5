//! The framing of event files (TFRecord): finds the next record in bytes that are at hand.
//!
//! Pure: a slice in, a range out. Both checksums are always checked, and no length is believed: a length only ever
//! moves a comparison, never an allocation. Knows no files, no compression and no events.
//!
//! ```text
//! u64 length · u32 masked CRC-32C of the 8 length bytes · payload · u32 masked CRC-32C of the payload
//! ```
//!
//! All integers are little-endian. Records follow each other without header, index or padding.

use std::ops::Range;

use crate::tfevents::crc::masked_crc;

/// Bytes before the payload.
pub const HEADER: usize = 12;
/// Bytes behind the payload.
pub const FOOTER: usize = 4;
/// The longest payload that is believed unless the caller says otherwise. Protobuf's own limit is twice this.
pub const DEFAULT_LIMIT: u64 = 1 << 30;

/// What the next bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A whole record with good checksums.
    Record {
        /// Where its payload is in the buffer.
        payload: Range<usize>,
        /// How many bytes the record takes.
        consumed: usize,
    },
    /// The record is not whole. Call again with a longer buffer.
    Incomplete {
        /// How many bytes it will take, as far as is known: a bound for comparisons, not something to allocate.
        need: u64,
    },
    /// The length is right but the payload is not. Skip `consumed` bytes and go on.
    BadPayload {
        /// How many bytes the record takes.
        consumed: usize,
    },
    /// The length cannot be used, so nothing behind it can be found.
    BadLength(LengthError),
    /// A header of zeros: what a crash or a preallocated file leaves behind the last record.
    Zeros,
}

/// Why a length cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// Nothing behind this place can be trusted.
    #[error("length checksum mismatch: got {got:#010x}, want {want:#010x}")]
    Checksum {
        /// What the length gives.
        got: u32,
        /// What stands in the file.
        want: u32,
    },
    /// The checksum is right, but no event is this large. A higher limit may help.
    #[error("record of {length} bytes is above the limit of {limit} bytes")]
    TooLong {
        /// What the header says.
        length: u64,
        /// The limit in force.
        limit: u64,
    },
    /// Zeros that are followed by something else.
    #[error("zeros in place of a record, and data behind them")]
    Hole,
    /// The compressed stream around the records is damaged.
    #[error("compressed data is damaged")]
    Compression,
}

/// Looks for one record at the start of the buffer. Payloads above `limit` bytes are refused.
#[inline]
pub fn frame(buffer: &[u8], limit: u64) -> Frame {
    let Some((length_bytes, rest)) = buffer.split_first_chunk::<8>() else {
        return Frame::Incomplete { need: HEADER as u64 };
    };
    let Some((crc_bytes, rest)) = rest.split_first_chunk::<4>() else {
        return Frame::Incomplete { need: HEADER as u64 };
    };
    let length = u64::from_le_bytes(*length_bytes);
    let want = u32::from_le_bytes(*crc_bytes);
    let got = masked_crc(length_bytes);
    if got != want {
        return if length == 0 && want == 0 {
            Frame::Zeros
        } else {
            Frame::BadLength(LengthError::Checksum { got, want })
        };
    }
    if length > limit {
        return Frame::BadLength(LengthError::TooLong { length, limit });
    }
    let incomplete = Frame::Incomplete { need: length.saturating_add((HEADER + FOOTER) as u64) };
    let Ok(length) = usize::try_from(length) else { return incomplete };
    let Some((payload, rest)) = rest.split_at_checked(length) else { return incomplete };
    let Some(want) = rest.first_chunk::<4>() else { return incomplete };
    let consumed = HEADER + length + FOOTER;
    if masked_crc(payload) == u32::from_le_bytes(*want) {
        Frame::Record { payload: HEADER..HEADER + length, consumed }
    } else {
        Frame::BadPayload { consumed }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tfevents::write::write_record;

    fn header(length: u64) -> Vec<u8> {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(masked_crc(&length.to_le_bytes()).to_le_bytes());
        bytes
    }

    #[test]
    fn a_record_is_found_and_its_parts_are_not() {
        let mut bytes = Vec::new();
        write_record(&mut bytes, b"payload");
        for cut in 0..bytes.len() {
            let need = if cut < HEADER { 12 } else { 23 };
            assert_eq!(frame(&bytes[..cut], 100), Frame::Incomplete { need }, "{cut}");
        }
        bytes.extend(b"more");
        assert_eq!(frame(&bytes, 100), Frame::Record { payload: 12..19, consumed: 23 });
    }

    #[test]
    fn damage_is_told_apart() {
        let mut bytes = Vec::new();
        write_record(&mut bytes, b"payload");
        bytes[14] ^= 1;
        assert_eq!(frame(&bytes, 100), Frame::BadPayload { consumed: 23 });
        bytes[0] ^= 1;
        assert!(matches!(frame(&bytes, 100), Frame::BadLength(LengthError::Checksum { .. })));
        assert_eq!(frame(&[0; 12], 100), Frame::Zeros);
        assert_eq!(frame(&[0; 11], 100), Frame::Incomplete { need: 12 });
    }

    #[test]
    fn an_empty_payload_is_a_record() {
        let mut bytes = Vec::new();
        write_record(&mut bytes, b"");
        assert_eq!(frame(&bytes, 0), Frame::Record { payload: 12..12, consumed: 16 });
    }

    #[test]
    fn lengths_are_not_believed() {
        for length in [u64::MAX, u64::MAX - 15, 1 << 63, 1 << 40, 101] {
            let expected = Frame::BadLength(LengthError::TooLong { length, limit: 100 });
            assert_eq!(frame(&header(length), 100), expected);
        }
        assert_eq!(frame(&header(1 << 40), u64::MAX), Frame::Incomplete { need: (1 << 40) + 16 });
        assert_eq!(frame(&header(u64::MAX), u64::MAX), Frame::Incomplete { need: u64::MAX });
    }

    proptest! {
        #[test]
        fn any_bytes_are_framed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), limit: u64) {
            if let Frame::Record { payload, consumed } = frame(&bytes, limit) {
                prop_assert!(payload.end <= consumed && consumed <= bytes.len());
            }
        }
    }
}
