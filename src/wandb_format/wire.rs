//! Protobuf's wire format, for the two hot paths that cannot afford a struct per message: history rows out and in.
//!
//! Reading never panics and never copies. Does not know any message.

/// One field's value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// Integers, booleans and enums.
    Varint(u64),
    /// Doubles and fixed 64-bit integers.
    Fixed64([u8; 8]),
    /// Floats and fixed 32-bit integers.
    Fixed32([u8; 4]),
    /// Strings, bytes, messages and packed lists.
    Bytes(&'a [u8]),
}

/// Bytes that are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Walks over the fields of a message. After an error it yields nothing more.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
        if number == 0 {
            return Err(Malformed);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.fixed()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(self.fixed()?),
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        if let Some((&byte, rest)) = self.0.split_first()
            && byte < 0x80
        {
            self.0 = rest;
            return Ok(u64::from(byte));
        }
        let mut value = 0_u64;
        for (index, &byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte < 0x80 {
                self.0 = self.0.get(index + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Appends a varint.
#[inline]
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field of bytes, a string or a message whose number is below 16.
#[inline]
pub(crate) fn put_bytes(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    debug_assert!((1..16).contains(&number));
    out.push(number << 3 | 2);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// How many bytes [`put_varint`] appends.
#[inline]
pub(crate) fn varint_length(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn fields_come_in_their_order() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8];
        let fields: Vec<_> = Fields::new(&bytes).map(Result::unwrap).collect();
        let expected = [
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Fixed32([1, 2, 3, 4])),
            (4, Value::Fixed64([1, 2, 3, 4, 5, 6, 7, 8])),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn lengths_are_not_believed() {
        assert_eq!(Fields::new(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]).collect::<Vec<_>>(), [Err(Malformed)]);
        assert_eq!(Fields::new(&[0xff; 20]).collect::<Vec<_>>(), [Err(Malformed)]);
        assert_eq!(Fields::new(&[0x0b]).collect::<Vec<_>>(), [Err(Malformed)]);
    }

    proptest::proptest! {
        #[test]
        fn varints_survive(value in proptest::num::u64::ANY, shift in 0..64_u32) {
            let value = value >> shift;
            let mut bytes = vec![0x08];
            put_varint(value, &mut bytes);
            proptest::prop_assert_eq!(bytes.len() - 1, varint_length(value));
            proptest::prop_assert_eq!(Fields::new(&bytes).next(), Some(Ok((1, Value::Varint(value)))));
        }

        #[test]
        fn any_bytes_are_fields_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let fields = Fields::new(&bytes).count();
            proptest::prop_assert!(fields <= bytes.len());
        }
    }
}
