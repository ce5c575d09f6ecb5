//! What tensors hold, of every type and in every form that writers give them.
//!
//! Pure. No size that a tensor claims is believed. [`scalar()`] reads the one number of a tensor, [`numbers`] all of them,
//! [`texts`] a tensor of texts. What they mean is for others to know.

mod array;
mod element;
mod scalar;

use bytes::Bytes;

pub use array::{in_width, numbers};
pub use scalar::{NotScalar, scalar};

use crate::proto::tensorboard::{TensorProto, TensorShapeProto};
use crate::tfevents::tensor::element::REFERENCE;

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
    /// One of its numbers is out of the range of its type.
    #[error("tensor with a value out of the range of its type")]
    Range,
    /// More elements than are read at once, or than its few values are repeated for.
    #[error("tensor of {elements} elements, which are too many")]
    TooLarge {
        /// How many; [`u64::MAX`] stands for all that is more.
        elements: u64,
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
