//! The form in which a value stands in its file: the same number may be a field of its own or a tensor of some type.

use std::fmt;

use crate::tfevents::event::Data;

/// The form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// A number in a field of its own, as TensorFlow 1, torch and tensorboardX write it.
    SimpleValue,
    /// A tensor, with the number of its type.
    Tensor(i32),
    /// An encoded image.
    Image,
    /// Buckets with counts.
    Histogram,
    /// An encoded clip.
    Audio,
    /// A form of histogram that nothing reads any more.
    OldHistogram,
    /// An event of its own kind that holds a graph.
    Graph,
    /// Nothing but what is said about the tag.
    Metadata,
}

impl Encoding {
    /// The form of a value's data.
    pub fn of(data: &Data) -> Self {
        match data {
            Data::SimpleValue(_) => Self::SimpleValue,
            Data::Tensor(tensor) => Self::Tensor(tensor.dtype),
            Data::Image(_) => Self::Image,
            Data::Histogram(_) => Self::Histogram,
            Data::Audio(_) => Self::Audio,
            Data::OldHistogram(_) => Self::OldHistogram,
            Data::Graph(_) => Self::Graph,
            Data::None => Self::Metadata,
        }
    }
}

/// The field's name; of a tensor also its type's, such as `tensor float32`.
impl fmt::Display for Encoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::SimpleValue => "simple_value",
            Self::Tensor(dtype) => {
                return match type_name(*dtype) {
                    Some(name) => write!(formatter, "tensor {name}"),
                    None => write!(formatter, "tensor of type {dtype}"),
                };
            }
            Self::Image => "image",
            Self::Histogram => "histo",
            Self::Audio => "audio",
            Self::OldHistogram => "obsolete_old_style_histogram",
            Self::Graph => "graph",
            Self::Metadata => "metadata",
        })
    }
}

/// TensorFlow's names of the types that are in use.
fn type_name(dtype: i32) -> Option<&'static str> {
    Some(match dtype {
        1 => "float32",
        2 => "float64",
        3 => "int32",
        4 => "uint8",
        5 => "int16",
        6 => "int8",
        7 => "string",
        8 => "complex64",
        9 => "int64",
        10 => "bool",
        14 => "bfloat16",
        17 => "uint16",
        18 => "complex128",
        19 => "float16",
        22 => "uint32",
        23 => "uint64",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_have_the_names_of_their_fields() {
        for (encoding, name) in [
            (Encoding::SimpleValue, "simple_value"),
            (Encoding::Tensor(1), "tensor float32"),
            (Encoding::Tensor(99), "tensor of type 99"),
            (Encoding::of(&Data::None), "metadata"),
        ] {
            assert_eq!(encoding.to_string(), name);
        }
    }
}
