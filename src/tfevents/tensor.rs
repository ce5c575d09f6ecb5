//! Scalars out of tensors, of every numeric type and in every form that writers give them.
//!
//! Pure. No size that a tensor claims is believed; nothing is allocated. Tensors of more than one element are for the
//! rooms that know what they mean.

use bytes::Bytes;

use crate::model::Number;
use crate::proto::tensorboard::{TensorProto, TensorShapeProto};

/// Why a tensor is not a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotScalar {
    /// A well-formed tensor of another size.
    #[error("tensor of {elements} elements, not one")]
    Elements {
        /// How many; [`u64::MAX`] stands for all that is more.
        elements: u64,
    },
    /// Texts, complex numbers, 8-bit floats, or a type that is newer than this program.
    #[error("tensor of type {dtype}, which is not a real number")]
    Type {
        /// The number of the type.
        dtype: i32,
    },
    /// A negative or unknown dimension.
    #[error("tensor of unknown size")]
    Shape,
    /// The raw bytes are not as many as one element takes.
    #[error("tensor content of {got} bytes, not {want}")]
    Content {
        /// How many there are.
        got: u64,
        /// How many one element takes.
        want: u64,
    },
    /// The list of values does not hold one.
    #[error("tensor with {got} values for one element")]
    Values {
        /// How many there are.
        got: u64,
    },
    /// A number that its type cannot hold.
    #[error("tensor with a value out of the range of its type")]
    Range,
    /// The metadata promises a scalar and there is nothing.
    #[error("no value")]
    Missing,
}

impl NotScalar {
    /// Whether this is a sound tensor that only is not a scalar.
    pub fn is_other_tensor(self) -> bool {
        matches!(self, Self::Elements { .. } | Self::Type { .. })
    }
}

/// Added to the number of a type for a reference to it.
const REFERENCE: i32 = 100;

/// Returns the one number of a tensor that has exactly one element, whatever its rank.
pub fn scalar(tensor: &TensorProto) -> Result<Number, NotScalar> {
    let dtype = if tensor.dtype > REFERENCE { tensor.dtype - REFERENCE } else { tensor.dtype };
    let kind = Type::of(dtype).ok_or(NotScalar::Type { dtype: tensor.dtype })?;
    match elements(tensor.tensor_shape.as_ref())? {
        1 => {}
        elements => return Err(NotScalar::Elements { elements }),
    }
    if tensor.tensor_content.is_empty() {
        from_values(kind, tensor)
    } else {
        from_content(kind, &tensor.tensor_content)
    }
}

/// A tensor that is not what was expected of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTensor {
    /// Its shape is missing, negative, or more than its values fill.
    #[error("tensor whose shape does not fit its values")]
    Shape,
    /// Its type is another one.
    #[error("tensor of type {dtype}")]
    Type {
        /// The number of the type.
        dtype: i32,
    },
}

/// The dimensions and the texts of a tensor of texts, row by row. One text alone fills no shape of several.
pub fn texts(tensor: &TensorProto) -> Result<(Vec<usize>, &[Bytes]), BadTensor> {
    const STRING: i32 = 7;
    if tensor.dtype % REFERENCE != STRING {
        return Err(BadTensor::Type { dtype: tensor.dtype });
    }
    let shape = dimensions(tensor.tensor_shape.as_ref()).ok_or(BadTensor::Shape)?;
    let elements = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    if elements == Some(tensor.string_val.len()) { Ok((shape, &tensor.string_val)) } else { Err(BadTensor::Shape) }
}

/// The dimensions of a shape; a missing shape is that of a scalar.
fn dimensions(shape: Option<&TensorShapeProto>) -> Option<Vec<usize>> {
    let Some(shape) = shape else { return Some(Vec::new()) };
    if shape.unknown_rank || shape.dim.len() > 254 {
        return None;
    }
    shape.dim.iter().map(|dim| usize::try_from(dim.size).ok()).collect()
}

/// The types that are real numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
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
    /// Quantized integers count as integers: what they stand for is not in the file.
    fn of(dtype: i32) -> Option<Self> {
        Some(match dtype {
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
    fn size(self) -> usize {
        match self {
            Self::Float => 4,
            Self::Double => 8,
            Self::Half | Self::BFloat16 => 2,
            Self::Bool => 1,
            Self::Signed(bits) | Self::Unsigned(bits) => (bits as usize).div_ceil(8),
        }
    }
}

/// The number of elements; a missing shape is that of a scalar.
fn elements(shape: Option<&TensorShapeProto>) -> Result<u64, NotScalar> {
    let Some(shape) = shape else { return Ok(1) };
    if shape.unknown_rank {
        return Err(NotScalar::Shape);
    }
    shape.dim.iter().try_fold(1_u64, |product, dim| {
        let size = u64::try_from(dim.size).map_err(|_| NotScalar::Shape)?;
        Ok(product.saturating_mul(size))
    })
}

fn from_content(kind: Type, content: &[u8]) -> Result<Number, NotScalar> {
    if content.len() != kind.size() {
        return Err(NotScalar::Content { got: content.len() as u64, want: kind.size() as u64 });
    }
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(content) {
        *to = *from;
    }
    let bits = u64::from_le_bytes(bytes);
    #[expect(clippy::cast_possible_truncation, reason = "no more bytes than the type has were read")]
    Ok(match kind {
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
    })
}

fn from_values(kind: Type, tensor: &TensorProto) -> Result<Number, NotScalar> {
    match kind {
        Type::Float => only(&tensor.float_val).map(Number::F32),
        Type::Double => only(&tensor.double_val).map(Number::F64),
        Type::Bool => only(&tensor.bool_val).map(|value| Number::U64(u64::from(value))),
        Type::Half => only(&tensor.half_val).map(|value| Number::F32(short_float(value, half_to_f32))),
        Type::BFloat16 => only(&tensor.half_val).map(|value| Number::F32(short_float(value, bfloat16_to_f32))),
        Type::Signed(width) => {
            let value = integer(kind, tensor)?;
            let limit = 1_i128 << (width - 1);
            let value = Some(value).filter(|value| (-limit..limit).contains(value)).ok_or(NotScalar::Range)?;
            i64::try_from(value).map(Number::I64).map_err(|_| NotScalar::Range)
        }
        Type::Unsigned(width) => {
            let value = integer(kind, tensor)?;
            let value = Some(value).filter(|value| (0..1_i128 << width).contains(value)).ok_or(NotScalar::Range)?;
            u64::try_from(value).map(Number::U64).map_err(|_| NotScalar::Range)
        }
    }
}

/// The one integer, in the field of its type or, when that is empty, in whichever is not: torch writes 8-bit integers
/// into `uint32_val`.
fn integer(kind: Type, tensor: &TensorProto) -> Result<i128, NotScalar> {
    let int = || only(&tensor.int_val).map(i128::from);
    let int64 = || only(&tensor.int64_val).map(i128::from);
    let uint32 = || only(&tensor.uint32_val).map(i128::from);
    let uint64 = || only(&tensor.uint64_val).map(i128::from);
    let own = match kind {
        Type::Signed(64) => int64(),
        Type::Unsigned(32) => uint32(),
        Type::Unsigned(64) => uint64(),
        _ => int(),
    };
    let empty = Err(NotScalar::Values { got: 0 });
    [own, int(), uint32(), int64(), uint64()].into_iter().find(|value| *value != empty).unwrap_or(empty)
}

fn only<T: Copy>(values: &[T]) -> Result<T, NotScalar> {
    match values {
        [value] => Ok(*value),
        _ => Err(NotScalar::Values { got: values.len() as u64 }),
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
    use proptest::prelude::*;

    use super::*;
    use crate::proto::tensorboard::tensor_shape_proto::Dim;

    fn content(dtype: i32, bytes: &[u8]) -> TensorProto {
        TensorProto { dtype, tensor_content: bytes.to_vec().into(), ..Default::default() }
    }

    fn shaped(sizes: &[i64]) -> TensorProto {
        let dim = sizes.iter().map(|&size| Dim { size, ..Default::default() }).collect();
        let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
        TensorProto { dtype: 1, float_val: vec![1.5], tensor_shape, ..Default::default() }
    }

    fn check(tensor: &TensorProto, expected: Number) {
        assert_eq!(scalar(tensor), Ok(expected), "{tensor:?}");
    }

    #[test]
    fn raw_content_of_every_type() {
        check(&content(1, &1.5_f32.to_le_bytes()), Number::F32(1.5));
        check(&content(101, &1.5_f32.to_le_bytes()), Number::F32(1.5));
        check(&content(2, &0.1_f64.to_le_bytes()), Number::F64(0.1));
        check(&content(3, &(-7_i32).to_le_bytes()), Number::I64(-7));
        check(&content(4, &[255]), Number::U64(255));
        check(&content(5, &(-7_i16).to_le_bytes()), Number::I64(-7));
        check(&content(6, &[0xf9]), Number::I64(-7));
        check(&content(9, &i64::MIN.to_le_bytes()), Number::I64(i64::MIN));
        check(&content(10, &[1]), Number::U64(1));
        check(&content(14, &[0xc0, 0x3f]), Number::F32(1.5));
        check(&content(17, &[0xff, 0xff]), Number::U64(65535));
        check(&content(19, &[0x00, 0x3e]), Number::F32(1.5));
        check(&content(22, &u32::MAX.to_le_bytes()), Number::U64(u64::from(u32::MAX)));
        check(&content(23, &u64::MAX.to_le_bytes()), Number::U64(u64::MAX));
        check(&content(29, &[0x0f]), Number::I64(-1));
        check(&content(29, &[0xff]), Number::I64(-1));
        check(&content(30, &[0x0f]), Number::U64(15));
    }

    #[test]
    fn listed_values_of_every_type() {
        let of = |dtype| TensorProto { dtype, ..Default::default() };
        check(&TensorProto { float_val: vec![1.5], ..of(1) }, Number::F32(1.5));
        check(&TensorProto { double_val: vec![0.1], ..of(2) }, Number::F64(0.1));
        check(&TensorProto { int_val: vec![-7], ..of(3) }, Number::I64(-7));
        check(&TensorProto { int_val: vec![200], ..of(4) }, Number::U64(200));
        check(&TensorProto { uint32_val: vec![200], ..of(4) }, Number::U64(200));
        check(&TensorProto { int64_val: vec![i64::MIN], ..of(9) }, Number::I64(i64::MIN));
        check(&TensorProto { uint64_val: vec![u64::MAX], ..of(23) }, Number::U64(u64::MAX));
        check(&TensorProto { uint32_val: vec![u32::MAX], ..of(22) }, Number::U64(u64::from(u32::MAX)));
        check(&TensorProto { bool_val: vec![true], ..of(10) }, Number::U64(1));
        check(&TensorProto { half_val: vec![0x3e00], ..of(19) }, Number::F32(1.5));
        check(&TensorProto { half_val: vec![0x3fc0], ..of(14) }, Number::F32(1.5));
        // The 32 bits of an f32, as torch writes them.
        check(&TensorProto { half_val: vec![0x3fc0_0000], ..of(19) }, Number::F32(1.5));
        check(&TensorProto { half_val: vec![(-1.5_f32).to_bits().cast_signed()], ..of(14) }, Number::F32(-1.5));
        // Content wins.
        check(&TensorProto { float_val: vec![9.0], ..content(1, &1.5_f32.to_le_bytes()) }, Number::F32(1.5));
    }

    #[test]
    fn one_element_of_any_rank() {
        check(&shaped(&[]), Number::F32(1.5));
        check(&shaped(&[1]), Number::F32(1.5));
        check(&shaped(&[1, 1, 1]), Number::F32(1.5));
    }

    #[test]
    fn what_is_not_a_scalar() {
        let check = |tensor: &TensorProto, expected| assert_eq!(scalar(tensor), Err(expected), "{tensor:?}");
        check(&shaped(&[2]), NotScalar::Elements { elements: 2 });
        check(&shaped(&[0]), NotScalar::Elements { elements: 0 });
        check(&shaped(&[1 << 40, 1 << 40]), NotScalar::Elements { elements: u64::MAX });
        check(&shaped(&[-1]), NotScalar::Shape);
        check(&content(7, b"text"), NotScalar::Type { dtype: 7 });
        check(&content(8, &[0; 8]), NotScalar::Type { dtype: 8 });
        check(&content(108, &[0; 8]), NotScalar::Type { dtype: 108 });
        check(&content(0, &[]), NotScalar::Type { dtype: 0 });
        check(&content(i32::MIN, &[]), NotScalar::Type { dtype: i32::MIN });
        check(&content(1, &[0; 3]), NotScalar::Content { got: 3, want: 4 });
        check(&TensorProto { float_val: vec![1.0, 2.0], ..content(1, &[]) }, NotScalar::Values { got: 2 });
        check(&content(4, &[]), NotScalar::Values { got: 0 });
        check(&TensorProto { int_val: vec![-1], ..content(4, &[]) }, NotScalar::Range);
        check(&TensorProto { int_val: vec![128], ..content(6, &[]) }, NotScalar::Range);
        check(&TensorProto { uint64_val: vec![u64::MAX], ..content(9, &[]) }, NotScalar::Range);
    }

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

    proptest! {
        #[test]
        fn floats_survive_bit_by_bit(single: u32, double: u64) {
            let Ok(Number::F32(read)) = scalar(&content(1, &single.to_le_bytes())) else { unreachable!() };
            prop_assert_eq!(read.to_bits(), single);
            let Ok(Number::F64(read)) = scalar(&content(2, &double.to_le_bytes())) else { unreachable!() };
            prop_assert_eq!(read.to_bits(), double);
        }

        #[test]
        fn any_tensor_is_survived(
            dtype: i32, sizes: Vec<i64>, bytes in proptest::collection::vec(any::<u8>(), 0..9), int_val: Vec<i32>,
        ) {
            let tensor_shape = shaped(&sizes).tensor_shape;
            for dtype in [dtype, dtype.rem_euclid(40)] {
                let _ = scalar(&TensorProto {
                    int_val: int_val.clone(), tensor_shape: tensor_shape.clone(), ..content(dtype, &bytes)
                });
            }
        }
    }
}
