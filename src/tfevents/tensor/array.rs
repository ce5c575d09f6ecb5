//! All numbers of a tensor.
//!
//! The memory that is taken follows from what the payload holds, never from the shape alone: a list of values that is
//! shorter than the shape stands for a longest one of [`MAX_REPEATED`] elements.

use crate::model::Number;
use crate::proto::tensorboard::TensorProto;
use crate::tfevents::tensor::element::Type;
use crate::tfevents::tensor::{BadTensor, dimensions};

/// The most elements that are read: half a gigabyte of doubles.
const MAX_ELEMENTS: usize = 64 << 20;

/// The most elements that the last value of a short list is repeated for. Five bytes could stand for terabytes otherwise;
/// real writers put numbers that differ into `tensor_content`, and repeat only what is constant.
const MAX_REPEATED: usize = 1 << 20;

/// The dimensions and the numbers of a tensor, row by row. A list of values that ends early repeats its last one.
///
/// With an element missing in one dimension, the others may be of any size.
pub fn numbers(tensor: &TensorProto) -> Result<(Vec<usize>, Vec<f64>), BadTensor> {
    let kind = Type::of(tensor.dtype).ok_or(BadTensor::Type { dtype: tensor.dtype })?;
    let shape = dimensions(tensor.tensor_shape.as_ref()).ok_or(BadTensor::Shape)?;
    let elements = elements(&shape)?;
    let content = &tensor.tensor_content;
    let numbers = if content.is_empty() {
        from_list(kind, tensor, elements)?
    } else if elements.checked_mul(kind.size()) == Some(content.len()) {
        from_content(kind, content)
    } else {
        return Err(BadTensor::Shape);
    };
    Ok((shape, numbers))
}

/// One of [`numbers`], with the width that it has in a tensor of type `dtype`.
pub fn in_width(dtype: i32, number: f64) -> Number {
    match Type::of(dtype) {
        Some(Type::Float | Type::Half | Type::BFloat16) => Number::F32(number as f32),
        _ => Number::F64(number),
    }
}

fn elements(shape: &[usize]) -> Result<usize, BadTensor> {
    if shape.contains(&0) {
        return Ok(0);
    }
    let product = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    match product {
        Some(elements) if elements <= MAX_ELEMENTS => Ok(elements),
        more => Err(BadTensor::TooLarge { elements: more.map_or(u64::MAX, |elements| elements as u64) }),
    }
}

fn from_content(kind: Type, content: &[u8]) -> Vec<f64> {
    match kind {
        // What histograms of TF2 are.
        Type::Double => content.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        Type::Float => content.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
        _ => content.chunks_exact(kind.size()).map(|bytes| kind.number(bytes).as_f64()).collect(),
    }
}

fn from_list(kind: Type, tensor: &TensorProto, elements: usize) -> Result<Vec<f64>, BadTensor> {
    let list = kind.list(tensor);
    if list.len() > elements || (list.len() == 0 && elements > 0) {
        return Err(BadTensor::Shape);
    }
    if list.len() < elements && elements > MAX_REPEATED {
        return Err(BadTensor::TooLarge { elements: elements as u64 });
    }
    let mut numbers = Vec::with_capacity(elements);
    for index in 0..list.len() {
        numbers.push(list.number(index).ok_or(BadTensor::Range)?.as_f64());
    }
    let last = numbers.last().copied().unwrap_or_default();
    numbers.resize(elements, last);
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::proto::tensorboard::TensorShapeProto;
    use crate::proto::tensorboard::tensor_shape_proto::Dim;

    fn shape(sizes: &[i64]) -> Option<TensorShapeProto> {
        let dim = sizes.iter().map(|&size| Dim { size, ..Default::default() }).collect();
        Some(TensorShapeProto { dim, unknown_rank: false })
    }

    fn of(dtype: i32, sizes: &[i64]) -> TensorProto {
        TensorProto { dtype, tensor_shape: shape(sizes), ..Default::default() }
    }

    fn check(tensor: &TensorProto, expected: &[f64]) {
        let (shape, numbers) = numbers(tensor).unwrap();
        assert_eq!(numbers, expected, "{tensor:?}");
        assert_eq!(shape.iter().product::<usize>(), numbers.len());
    }

    #[test]
    fn content_of_every_width() {
        let content = |dtype, sizes: &[i64], bytes: &[u8]| TensorProto {
            tensor_content: bytes.to_vec().into(),
            // Content wins.
            float_val: vec![9.0],
            ..of(dtype, sizes)
        };
        let floats: Vec<u8> = [1.5_f32, -2.0].into_iter().flat_map(f32::to_le_bytes).collect();
        check(&content(1, &[2], &floats), &[1.5, -2.0]);
        check(&content(101, &[1, 2], &floats), &[1.5, -2.0]);
        let doubles: Vec<u8> = [0.1, f64::MAX].into_iter().flat_map(f64::to_le_bytes).collect();
        check(&content(2, &[2, 1], &doubles), &[0.1, f64::MAX]);
        check(&content(3, &[1], &(-7_i32).to_le_bytes()), &[-7.0]);
        check(&content(4, &[3], &[0, 7, 255]), &[0.0, 7.0, 255.0]);
        check(&content(6, &[2], &[0xf9, 1]), &[-7.0, 1.0]);
        check(&content(10, &[2], &[0, 1]), &[0.0, 1.0]);
        check(&content(14, &[2], &[0xc0, 0x3f, 0x80, 0x3f]), &[1.5, 1.0]);
        check(&content(19, &[2], &[0x00, 0x3e, 0x00, 0x3c]), &[1.5, 1.0]);
    }

    #[test]
    fn lists_of_every_width() {
        check(&TensorProto { float_val: vec![1.5, 0.5], ..of(1, &[2]) }, &[1.5, 0.5]);
        check(&TensorProto { int_val: vec![1, -2], ..of(3, &[2]) }, &[1.0, -2.0]);
        check(&TensorProto { uint32_val: vec![1, 255], ..of(4, &[2]) }, &[1.0, 255.0]);
        check(&TensorProto { bool_val: vec![true, false], ..of(10, &[2]) }, &[1.0, 0.0]);
        check(&TensorProto { half_val: vec![0x3e00, 0x3c00], ..of(19, &[2]) }, &[1.5, 1.0]);
        check(&TensorProto { half_val: vec![0x3fc0_0000, 0x3f80_0000], ..of(19, &[2]) }, &[1.5, 1.0]);
        check(&TensorProto { double_val: vec![0.1], ..TensorProto { dtype: 2, ..Default::default() } }, &[0.1]);
    }

    #[test]
    fn a_short_list_repeats_its_last_value() {
        check(&TensorProto { float_val: vec![1.0, 2.0], ..of(1, &[2, 2]) }, &[1.0, 2.0, 2.0, 2.0]);
        check(&TensorProto { int_val: vec![7], ..of(4, &[3]) }, &[7.0, 7.0, 7.0]);
    }

    #[test]
    fn nothing_has_any_shape() {
        check(&of(1, &[0, 3]), &[]);
        assert_eq!(numbers(&of(1, &[1 << 40, 1 << 40, 0])).unwrap().1, [0.0; 0]);
    }

    #[test]
    fn what_is_not_believed() {
        let check = |tensor: TensorProto, expected| assert_eq!(numbers(&tensor), Err(expected), "{tensor:?}");
        let one = |sizes: &[i64]| TensorProto { float_val: vec![1.0], ..of(1, sizes) };
        check(one(&[1 << 40, 1 << 40]), BadTensor::TooLarge { elements: u64::MAX });
        check(one(&[1 << 30]), BadTensor::TooLarge { elements: 1 << 30 });
        check(one(&[(1 << 20) + 1]), BadTensor::TooLarge { elements: (1 << 20) + 1 });
        check(one(&[-1]), BadTensor::Shape);
        check(one(&[0]), BadTensor::Shape);
        check(of(1, &[1]), BadTensor::Shape);
        check(TensorProto { tensor_content: vec![0; 7].into(), ..of(1, &[2]) }, BadTensor::Shape);
        check(TensorProto { tensor_content: vec![0; 8].into(), ..of(1, &[1]) }, BadTensor::Shape);
        check(TensorProto { int_val: vec![0, 256], ..of(4, &[2]) }, BadTensor::Range);
        check(of(7, &[0]), BadTensor::Type { dtype: 7 });
        check(of(8, &[0]), BadTensor::Type { dtype: 8 });
    }

    proptest! {
        #[test]
        fn any_tensor_is_survived(
            dtype: i32,
            sizes in proptest::collection::vec(prop_oneof![0..5_i64, any::<i64>()], 0..5),
            bytes in proptest::collection::vec(any::<u8>(), 0..33),
            int_val in proptest::collection::vec(any::<i32>(), 0..5),
        ) {
            for dtype in [dtype, dtype.rem_euclid(40)] {
                let listed = TensorProto { int_val: int_val.clone(), half_val: int_val.clone(), ..of(dtype, &sizes) };
                let raw = TensorProto { tensor_content: bytes.clone().into(), ..listed.clone() };
                for tensor in [listed, raw] {
                    if let Ok((shape, numbers)) = numbers(&tensor) {
                        prop_assert_eq!(shape.iter().fold(1, |n: usize, s| n.saturating_mul(*s)), numbers.len());
                    }
                }
            }
        }

        #[test]
        fn one_number_alone_is_the_scalar(dtype in 0..40, bytes in proptest::collection::vec(any::<u8>(), 1..9)) {
            let tensor = TensorProto { tensor_content: bytes.into(), ..of(dtype, &[1]) };
            let alone = crate::tfevents::tensor::scalar(&tensor).ok().map(Number::as_f64).map(f64::to_bits);
            let all = numbers(&tensor).ok().and_then(|(_, numbers)| numbers.first().copied()).map(f64::to_bits);
            prop_assert_eq!(alone, all);
        }
    }
}
