//! Tensors as `.npy` files: NumPy's own simple format, which everything that reads arrays reads.
//!
//! ```text
//! 93 'NUMPY' · 1 0 · uint16 length · text of the header, padded with spaces and ended with a line feed · elements
//! ```
//!
//! The header makes the whole a multiple of 64 bytes; elements are little-endian, row by row.
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use bytes::Bytes;

use crate::proto::tensorboard::TensorProto;
use crate::tfevents::tensor::numbers;

/// Added to the number of a type for a reference to it.
const REFERENCE: i32 = 100;

/// Returns the file of a numeric tensor; `None` where NumPy has no such type, or the elements are not as many as the
/// shape says.
pub(super) fn npy(tensor: &TensorProto) -> Option<Bytes> {
    as_written(tensor).or_else(|| as_read(tensor))
}

/// Floats that NumPy has no type for, and one value that stands for several: as numbers of the next width.
fn as_read(tensor: &TensorProto) -> Option<Bytes> {
    let (shape, numbers) = numbers(tensor).ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "they were no wider than this")]
    let (descr, elements): (_, Vec<u8>) = match tensor.dtype % REFERENCE {
        1 | 14 | 19 => ("<f4", numbers.iter().flat_map(|number| (*number as f32).to_le_bytes()).collect()),
        2 => ("<f8", numbers.iter().flat_map(|number| number.to_le_bytes()).collect()),
        _ => return None,
    };
    let mut file = header(descr, &shape)?;
    file.extend_from_slice(&elements);
    Some(file.into())
}

/// The elements as they are in the tensor.
fn as_written(tensor: &TensorProto) -> Option<Bytes> {
    let (descr, size) = element(tensor.dtype % REFERENCE)?;
    let shape = shape(tensor)?;
    let count = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
    let values;
    let content: &[u8] = if tensor.tensor_content.is_empty() {
        values = from_values(tensor);
        &values
    } else {
        &tensor.tensor_content
    };
    if count.checked_mul(size) != Some(content.len()) {
        return None;
    }
    let mut file = header(descr, &shape)?;
    file.extend_from_slice(content);
    Some(file.into())
}

/// The dimensions; none for a scalar.
fn shape(tensor: &TensorProto) -> Option<Vec<usize>> {
    let Some(shape) = &tensor.tensor_shape else { return Some(Vec::new()) };
    if shape.unknown_rank {
        return None;
    }
    shape.dim.iter().map(|dim| usize::try_from(dim.size).ok()).collect()
}

/// NumPy's name and the bytes of an element. Quantized integers count as integers. Half floats must be raw: torch
/// writes other bits into their field than everybody else.
fn element(dtype: i32) -> Option<(&'static str, usize)> {
    Some(match dtype {
        1 => ("<f4", 4),
        2 => ("<f8", 8),
        3 | 13 => ("<i4", 4),
        4 | 12 => ("|u1", 1),
        5 | 15 => ("<i2", 2),
        6 | 11 => ("|i1", 1),
        8 => ("<c8", 8),
        9 => ("<i8", 8),
        10 => ("|b1", 1),
        16 | 17 => ("<u2", 2),
        18 => ("<c16", 16),
        19 => ("<f2", 2),
        22 => ("<u4", 4),
        23 => ("<u8", 8),
        _ => return None,
    })
}

/// The elements of the list that the type has; a number that the type cannot hold makes the list too short.
fn from_values(tensor: &TensorProto) -> Vec<u8> {
    fn bytes<T: Copy, const N: usize>(values: &[T], to: impl Fn(T) -> Option<[u8; N]>) -> Vec<u8> {
        values.iter().filter_map(|value| to(*value)).flatten().collect()
    }
    // Torch writes 8-bit integers into `uint32_val`.
    let small = |value: i32| u8::try_from(value).ok().map(u8::to_le_bytes);
    match tensor.dtype % REFERENCE {
        1 => bytes(&tensor.float_val, |value| Some(value.to_le_bytes())),
        8 => bytes(&tensor.scomplex_val, |value| Some(value.to_le_bytes())),
        2 => bytes(&tensor.double_val, |value| Some(value.to_le_bytes())),
        18 => bytes(&tensor.dcomplex_val, |value| Some(value.to_le_bytes())),
        3 | 13 => bytes(&tensor.int_val, |value| Some(value.to_le_bytes())),
        4 | 12 if tensor.int_val.is_empty() => {
            bytes(&tensor.uint32_val, |value| u8::try_from(value).ok().map(u8::to_le_bytes))
        }
        4 | 12 => bytes(&tensor.int_val, small),
        5 | 15 => bytes(&tensor.int_val, |value| i16::try_from(value).ok().map(i16::to_le_bytes)),
        6 | 11 => bytes(&tensor.int_val, |value| i8::try_from(value).ok().map(i8::to_le_bytes)),
        16 | 17 => bytes(&tensor.int_val, |value| u16::try_from(value).ok().map(u16::to_le_bytes)),
        9 => bytes(&tensor.int64_val, |value| Some(value.to_le_bytes())),
        10 => bytes(&tensor.bool_val, |value| Some([u8::from(value)])),
        22 => bytes(&tensor.uint32_val, |value| Some(value.to_le_bytes())),
        23 => bytes(&tensor.uint64_val, |value| Some(value.to_le_bytes())),
        _ => Vec::new(),
    }
}

fn header(descr: &str, shape: &[usize]) -> Option<Vec<u8>> {
    const BEFORE: usize = 10;
    // A tuple, as Python writes it: of one element with a comma behind it.
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let sizes = if shape.len() == 1 { sizes.trim_end() } else { sizes.trim_end_matches(", ") };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    let padding = (BEFORE + text.len() + 1).next_multiple_of(64) - (BEFORE + text.len() + 1);
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let length = u16::try_from(text.len()).ok()?;
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(text.as_bytes());
    Some(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::proto::tensorboard::TensorShapeProto;
    use crate::proto::tensorboard::tensor_shape_proto::Dim;

    fn tensor(dtype: i32, sizes: &[i64]) -> TensorProto {
        let dim = sizes.iter().map(|&size| Dim { size, ..Default::default() }).collect();
        TensorProto { dtype, tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }), ..Default::default() }
    }

    /// The header's text without its padding, and the elements.
    fn read(file: &[u8]) -> (String, Vec<u8>) {
        assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
        let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
        assert_eq!((10 + length) % 64, 0);
        let text = str::from_utf8(&file[10..10 + length]).unwrap();
        (text.strip_suffix('\n').unwrap().trim_end().to_owned(), file[10 + length..].to_vec())
    }

    #[test]
    fn raw_content_and_lists_give_the_same_file() {
        let numbers = [1.5_f32, f32::NAN, -0.0, f32::INFINITY, 3.0, 4.0];
        let listed = TensorProto { float_val: numbers.to_vec(), ..tensor(1, &[2, 3]) };
        let raw: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let content = TensorProto { tensor_content: raw.clone().into(), ..tensor(1, &[2, 3]) };
        let file = npy(&listed).unwrap();
        assert_eq!(Some(&file), npy(&content).as_ref());
        assert_eq!(read(&file), ("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }".to_owned(), raw));
    }

    #[test]
    fn shapes_are_tuples() {
        for (shape, expected) in [(vec![], "()"), (vec![1], "(1,)"), (vec![0], "(0,)"), (vec![2, 0], "(2, 0)")] {
            let count: i64 = shape.iter().product();
            let tensor = TensorProto { int64_val: vec![7; usize::try_from(count).unwrap()], ..tensor(9, &shape) };
            let (text, _) = read(&npy(&tensor).unwrap());
            assert!(text.contains(&format!("'shape': {expected}, ")), "{text}");
        }
    }

    #[test]
    fn torch_writes_bytes_as_words() {
        let tensor = TensorProto { uint32_val: vec![0, 255], ..tensor(4, &[2]) };
        assert_eq!(read(&npy(&tensor).unwrap()).1, [0, 255]);
        let beyond = TensorProto { uint32_val: vec![0, 256], ..tensor };
        assert_eq!(npy(&beyond), None);
    }

    #[test]
    fn short_floats_and_repeated_ones_become_floats() {
        let check = |tensor: TensorProto, descr: &str, expected: &[u8]| {
            let (text, elements) = read(&npy(&tensor).unwrap());
            assert!(text.contains(descr) && elements == expected, "{text} {elements:?}");
        };
        let one_and_a_half = 1.5_f32.to_le_bytes();
        // Torch writes the bits of an ordinary float.
        check(TensorProto { half_val: vec![0x3fc0_0000], ..tensor(19, &[1]) }, "'<f4'", &one_and_a_half);
        check(TensorProto { tensor_content: vec![0xc0, 0x3f].into(), ..tensor(14, &[1]) }, "'<f4'", &one_and_a_half);
        check(TensorProto { tensor_content: vec![0x00, 0x3e].into(), ..tensor(19, &[1]) }, "'<f2'", &[0x00, 0x3e]);
        check(TensorProto { float_val: vec![1.5], ..tensor(1, &[3]) }, "'<f4'", &one_and_a_half.repeat(3));
        check(TensorProto { double_val: vec![1.5], ..tensor(2, &[2]) }, "'<f8'", &1.5_f64.to_le_bytes().repeat(2));
    }

    #[test]
    fn what_does_not_fit_is_no_array() {
        assert_eq!(npy(&TensorProto { float_val: vec![0.0], ..tensor(1, &[1 << 40]) }), None, "it is not spread out");
        assert_eq!(npy(&TensorProto { float_val: vec![0.0], ..tensor(1, &[1 << 40, 1 << 40]) }), None);
        assert_eq!(npy(&TensorProto { float_val: vec![0.0], ..tensor(1, &[-1]) }), None);
        assert_eq!(npy(&TensorProto { tensor_content: vec![0; 7].into(), ..tensor(1, &[2]) }), None);
        assert_eq!(npy(&TensorProto { float8_val: vec![0].into(), ..tensor(24, &[]) }), None);
    }

    proptest::proptest! {
        #[test]
        fn no_tensor_is_too_odd(dtype: i32, sizes in proptest::collection::vec(proptest::num::i64::ANY, 0..5)) {
            let _ = npy(&TensorProto { int_val: vec![1, 2], ..tensor(dtype, &sizes) });
        }
    }
}
