//! The one number of a tensor that has exactly one element.
//!
//! Nothing is allocated. Tensors of more than one element are for [`array`](super::array).

use crate::model::Number;
use crate::proto::tensorboard::{TensorProto, TensorShapeProto};
use crate::tfevents::tensor::element::Type;

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

/// Returns the one number of a tensor that has exactly one element, whatever its rank.
pub fn scalar(tensor: &TensorProto) -> Result<Number, NotScalar> {
    let kind = Type::of(tensor.dtype).ok_or(NotScalar::Type { dtype: tensor.dtype })?;
    match elements(tensor.tensor_shape.as_ref())? {
        1 => {}
        elements => return Err(NotScalar::Elements { elements }),
    }
    let content = &tensor.tensor_content;
    if content.is_empty() {
        let list = kind.list(tensor);
        match list.len() {
            1 => list.number(0).ok_or(NotScalar::Range),
            got => Err(NotScalar::Values { got: got as u64 }),
        }
    } else if content.len() == kind.size() {
        Ok(kind.number(content))
    } else {
        Err(NotScalar::Content { got: content.len() as u64, want: kind.size() as u64 })
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
