//! The elements of tensors: their types, and one number out of raw bytes or out of a list of values.
//!
//! Pure; allocates nothing. Does not know shapes.

use crate::model::Number;
use crate::proto::tensorboard::TensorProto;

/// Added to the number of a type for a reference to it.
pub(super) const REFERENCE: i32 = 100;

/// The types that are real numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Float,
    Double,
    Half,
    BFloat16,
    Bool,
    /// With so many bits.
    Signed(u32),
    Unsigned(u32),
}

impl Type {
    /// Quantized integers count as integers: what they stand for is not in the file. References count as what they refer
    /// to.
    pub(super) fn of(dtype: i32) -> Option<Self> {
        Some(match if dtype > REFERENCE { dtype - REFERENCE } else { dtype } {
            1 => Self::Float,
            2 => Self::Double,
            3 | 13 => Self::Signed(32),
            4 | 12 => Self::Unsigned(8),
            5 | 15 => Self::Signed(16),
            6 | 11 => Self::Signed(8),
            9 => Self::Signed(64),
            10 => Self::Bool,
            14 => Self::BFloat16,
            16 | 17 => Self::Unsigned(16),
            19 => Self::Half,
            22 => Self::Unsigned(32),
            23 => Self::Unsigned(64),
            29 => Self::Signed(4),
            30 => Self::Unsigned(4),
            31 => Self::Signed(2),
            32 => Self::Unsigned(2),
            _ => return None,
        })
    }

    /// Bytes of one element in `tensor_content`. Types below 8 bits take a byte each.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Float => 4,
            Self::Double => 8,
            Self::Half | Self::BFloat16 => 2,
            Self::Bool => 1,
            Self::Signed(bits) | Self::Unsigned(bits) => (bits as usize).div_ceil(8),
        }
    }

    /// The number whose bytes stand first in `content`; missing bytes count as 0.
    pub(super) fn number(self, content: &[u8]) -> Number {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(content) {
            *to = *from;
        }
        let bits = u64::from_le_bytes(bytes);
        #[expect(clippy::cast_possible_truncation, reason = "no more bytes than the type has were read")]
        match self {
            Type::Float => Number::F32(f32::from_bits(bits as u32)),
            Type::Double => Number::F64(f64::from_bits(bits)),
            Type::Half => Number::F32(half_to_f32(bits as u16)),
            Type::BFloat16 => Number::F32(bfloat16_to_f32(bits as u16)),
            Type::Bool => Number::U64(u64::from(bits != 0)),
            Type::Signed(width) => {
                // Shifting up and down again extends the sign, and drops what lies above the type's bits in its byte.
                let unused = 64 - width;
                Number::I64((bits << unused).cast_signed() >> unused)
            }
            Type::Unsigned(width) => {
                let unused = 64 - width;
                Number::U64((bits << unused) >> unused)
            }
        }
    }

    /// The values of a tensor without content: those in the field of its type or, when that is empty, in whichever is
    /// not, for torch writes 8-bit integers into `uint32_val`.
    pub(super) fn list(self, tensor: &TensorProto) -> List<'_> {
        let values = match self {
            Self::Float => Values::Float(&tensor.float_val),
            Self::Double => Values::Double(&tensor.double_val),
            Self::Bool => Values::Bool(&tensor.bool_val),
            Self::Half => Values::Short(&tensor.half_val, half_to_f32),
            Self::BFloat16 => Values::Short(&tensor.half_val, bfloat16_to_f32),
            Self::Signed(width) | Self::Unsigned(width) => {
                let int = Values::Int(&tensor.int_val);
                let int64 = Values::Int64(&tensor.int64_val);
                let uint32 = Values::Uint32(&tensor.uint32_val);
                let uint64 = Values::Uint64(&tensor.uint64_val);
                let own = match (self, width) {
                    (Self::Signed(_), 64) => int64,
                    (Self::Unsigned(_), 32) => uint32,
                    (Self::Unsigned(_), 64) => uint64,
                    _ => int,
                };
                [own, int, uint32, int64, uint64].into_iter().find(|values| values.len() > 0).unwrap_or(own)
            }
        };
        List { kind: self, values }
    }
}

/// The values of a tensor, one by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<'a> {
    kind: Type,
    values: Values<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Values<'a> {
    Float(&'a [f32]),
    Double(&'a [f64]),
    Bool(&'a [bool]),
    /// With what their 16 bits mean.
    Short(&'a [i32], fn(u16) -> f32),
    Int(&'a [i32]),
    Int64(&'a [i64]),
    Uint32(&'a [u32]),
    Uint64(&'a [u64]),
}

impl List<'_> {
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// One of the numbers; `None` when there are not so many, and for a number that the type cannot hold.
    pub(super) fn number(&self, index: usize) -> Option<Number> {
        let integer = match self.values {
            Values::Float(values) => return values.get(index).copied().map(Number::F32),
            Values::Double(values) => return values.get(index).copied().map(Number::F64),
            Values::Bool(values) => return values.get(index).map(|value| Number::U64(u64::from(*value))),
            Values::Short(values, widen) => {
                return values.get(index).map(|value| Number::F32(short_float(*value, widen)));
            }
            Values::Int(values) => values.get(index).copied().map(i128::from)?,
            Values::Int64(values) => values.get(index).copied().map(i128::from)?,
            Values::Uint32(values) => values.get(index).copied().map(i128::from)?,
            Values::Uint64(values) => values.get(index).copied().map(i128::from)?,
        };
        match self.kind {
            Type::Signed(width) => {
                let limit = 1_i128 << (width - 1);
                let within = (-limit..limit).contains(&integer);
                within.then(|| i64::try_from(integer).ok().map(Number::I64))?
            }
            Type::Unsigned(width) => {
                let within = (0..1_i128 << width).contains(&integer);
                within.then(|| u64::try_from(integer).ok().map(Number::U64))?
            }
            _ => None,
        }
    }
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Double(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::Short(values, _) | Self::Int(values) => values.len(),
            Self::Int64(values) => values.len(),
            Self::Uint32(values) => values.len(),
            Self::Uint64(values) => values.len(),
        }
    }
}

/// The 16 bits of a short float; torch writes the 32 bits of an ordinary one in their place.
fn short_float(value: i32, widen: fn(u16) -> f32) -> f32 {
    u16::try_from(value).map_or_else(|_| f32::from_bits(value.cast_unsigned()), widen)
}

fn bfloat16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// 1 sign bit, 5 bits of exponent with bias 15, 10 bits of fraction.
fn half_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits & 0x3ff);
    let magnitude = match (exponent, fraction) {
        (0x1f, _) => 0x7f80_0000 | (fraction << 13),
        // Zero and the denormals: so many times 2^-24.
        (0, _) => (fraction as f32 * 2.0_f32.powi(-24)).to_bits(),
        _ => ((exponent + 127 - 15) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_what_its_bits_say() {
        for bits in 0..=u16::MAX {
            let value = f64::from(half_to_f32(bits));
            let (exponent, fraction) = (i32::from(bits >> 10) & 0x1f, f64::from(bits & 0x3ff));
            let magnitude = match exponent {
                0 => fraction * 2.0_f64.powi(-24),
                0x1f if bits & 0x3ff == 0 => f64::INFINITY,
                0x1f => f64::NAN,
                _ => (1.0 + fraction / 1024.0) * 2.0_f64.powi(exponent - 15),
            };
            assert!(value.abs() == magnitude || (value.is_nan() && magnitude.is_nan()), "{bits:#x}");
            assert_eq!(value.is_sign_negative(), bits >> 15 == 1, "{bits:#x}");
        }
    }
}
