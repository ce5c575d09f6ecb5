//! The protobuf wire format in place, and how much memory a payload takes once it is decoded.
//!
//! Pure, allocates nothing. A field is a varint `number << 3 | type` and then, by type, 0: a varint, 1: 8 bytes, 2: a
//! length and so many bytes, 5: 4 bytes. The types 3 and 4 (groups) are long gone and never in event files.

use bytes::Bytes;

use crate::proto::tensorboard::summary::Value;
use crate::proto::tensorboard::tensor_shape_proto::Dim;

/// What is left of a message.
#[derive(Debug, Clone)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        match self.0 {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    /// Up to ten bytes of seven bits, lowest first; all but the last have their highest bit set.
    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (index, &byte) in self.0.iter().enumerate().take(10) {
            if index == 9 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.0 = self.0.get(index + 1..)?;
                return Some(value);
            }
        }
        None
    }

    #[inline]
    pub(crate) fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    #[inline]
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// One field of a message.
enum Field<'a> {
    Bytes(&'a [u8]),
    /// A number of any width.
    Number,
}

impl<'a> Input<'a> {
    /// The next field with its number; `None` at the end, at damage and at a group.
    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => self.varint().map(|_| Field::Number)?,
            1 => self.fixed::<8>().map(|_| Field::Number)?,
            2 => Field::Bytes(self.bytes()?),
            5 => self.fixed::<4>().map(|_| Field::Number)?,
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

/// Returns a bound of the memory that decoding an event takes beyond the payload itself, in which long byte strings
/// stay; `None` when it cannot be told because the payload is damaged.
///
/// Two bytes of an empty value, a dimension or a string become hundreds once decoded, which is how a small file could
/// take all memory.
pub(crate) fn decoded_size(event: &[u8]) -> Option<u64> {
    const SUMMARY: u64 = 5;
    const VALUE: u64 = 1;
    const HISTOGRAM: u64 = 5;
    const TENSOR: u64 = 8;
    let mut total = 0;
    each(event, |number, field| {
        let Field::Bytes(summary) = field else { return Some(()) };
        if number != SUMMARY {
            return Some(());
        }
        each(summary, |number, field| {
            let Field::Bytes(value) = field else { return Some(()) };
            if number != VALUE {
                return Some(());
            }
            total += size_of::<Value>() as u64;
            each(value, |number, field| {
                match (number, field) {
                    (TENSOR, Field::Bytes(tensor)) => total += tensor_size(tensor)?,
                    (HISTOGRAM, Field::Bytes(histogram)) => total += histogram.len() as u64,
                    _ => {}
                }
                Some(())
            })
        })
    })?;
    // Lists grow by doubling.
    Some(total.saturating_mul(2))
}

fn tensor_size(tensor: &[u8]) -> Option<u64> {
    const SHAPE: u64 = 2;
    const CONTENT: u64 = 4;
    const STRINGS: u64 = 8;
    let mut total = 0;
    each(tensor, |number, field| {
        total += match (number, field) {
            (SHAPE, Field::Bytes(shape)) => {
                let mut dims = 0;
                each(shape, |_, _| {
                    dims += size_of::<Dim>() as u64;
                    Some(())
                })?;
                dims
            }
            (CONTENT, Field::Bytes(_)) => 0,
            (STRINGS, Field::Bytes(_)) => size_of::<Bytes>() as u64,
            // A packed list: one byte may stand for a number of eight.
            (_, Field::Bytes(list)) => 8 * list.len() as u64,
            (_, Field::Number) => 8,
        };
        Some(())
    })?;
    Some(total)
}

fn each<'a>(message: &'a [u8], mut visit: impl FnMut(u64, Field<'a>) -> Option<()>) -> Option<()> {
    let mut input = Input(message);
    while !input.0.is_empty() {
        let (number, field) = input.field()?;
        visit(number, field)?;
    }
    Some(())
}
