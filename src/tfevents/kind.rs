//! What kind of data a value is.
//!
//! Pure. Decides from the form of the value and the plugin its tag belongs to; what a kind becomes is not known here.

use std::fmt;
use std::sync::Arc;

use crate::model::Number;
use crate::tfevents::event::Data;
use crate::tfevents::tensor::{NotScalar, scalar};

/// So much of the name of an unknown plugin tells it apart, in bytes.
const MAX_PLUGIN: usize = 200;

/// The kind of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueKind {
    /// A number.
    Scalar,
    /// Images, also animated.
    Images,
    /// Sound.
    Audio,
    /// Counts by bucket.
    Histograms,
    /// A form of histogram that nothing reads any more.
    OldHistograms,
    /// Markdown.
    Text,
    /// Precision and recall by threshold.
    PrCurves,
    /// Parts of three-dimensional bodies.
    Mesh,
    /// Hyperparameters of a session.
    HParams,
    /// Layout of the custom scalars dashboard.
    CustomScalars,
    /// Graphs and what was measured of their execution.
    Graphs,
    /// A tensor that no plugin claims.
    Tensors,
    /// Data of a plugin that is not known, by its name.
    Plugin(Arc<str>),
    /// A value that should be a number and is none.
    Bad(NotScalar),
}

impl ValueKind {
    /// The kind that a plugin's tensors are; `None` for an empty name.
    pub fn of_plugin(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"" => return None,
            b"scalars" => Self::Scalar,
            b"images" => Self::Images,
            b"audio" => Self::Audio,
            b"histograms" => Self::Histograms,
            b"text" => Self::Text,
            b"pr_curves" => Self::PrCurves,
            b"mesh" => Self::Mesh,
            b"hparams" => Self::HParams,
            b"custom_scalars" => Self::CustomScalars,
            b"graphs"
            | b"graph_run_metadata"
            | b"graph_run_metadata_graph"
            | b"graph_keras_model"
            | b"graph_tagged_run_metadata" => Self::Graphs,
            // What torch calls its plain tensors.
            b"tensor" | b"tensors" => Self::Tensors,
            // The name is kept with every tag and value; nobody's plugin has a longer one.
            other => Self::Plugin(String::from_utf8_lossy(other.get(..MAX_PLUGIN).unwrap_or(other)).into()),
        })
    }

    /// The word for it on the screen and in filters.
    pub fn name(&self) -> &str {
        match self {
            Self::Scalar => "scalars",
            Self::Images => "images",
            Self::Audio => "audio",
            Self::Histograms => "histograms",
            Self::OldHistograms => "obsolete_histograms",
            Self::Text => "text",
            Self::PrCurves => "pr_curves",
            Self::Mesh => "mesh",
            Self::HParams => "hparams",
            Self::CustomScalars => "custom_scalars",
            Self::Graphs => "graphs",
            Self::Tensors => "tensors",
            Self::Plugin(name) => name,
            Self::Bad(_) => "bad",
        }
    }
}

impl fmt::Display for ValueKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Returns the kind of a value, and its number when it is a scalar; `None` when there is nothing at all.
///
/// `own` is what the value itself says about its plugin, `remembered` what an earlier value of the tag said. The old
/// forms of values carry their kind in their form, so that nothing said about them matters.
pub fn classify(
    data: &Data,
    own: Option<&ValueKind>,
    remembered: Option<&ValueKind>,
) -> Option<(ValueKind, Option<Number>)> {
    Some(match data {
        Data::SimpleValue(number) => (ValueKind::Scalar, Some(Number::F32(*number))),
        Data::Image(_) => (ValueKind::Images, None),
        Data::Histogram(_) => (ValueKind::Histograms, None),
        Data::OldHistogram(_) => (ValueKind::OldHistograms, None),
        Data::Audio(_) => (ValueKind::Audio, None),
        Data::Graph(_) => (ValueKind::Graphs, None),
        Data::Tensor(tensor) => match (own.or(remembered), scalar(tensor)) {
            (None | Some(ValueKind::Scalar), Ok(number)) => (ValueKind::Scalar, Some(number)),
            (Some(ValueKind::Scalar), Err(why)) => (ValueKind::Bad(why), None),
            (None, Err(why)) if why.is_other_tensor() => (ValueKind::Tensors, None),
            (None, Err(why)) => (ValueKind::Bad(why), None),
            (Some(kind), _) => (kind.clone(), None),
        },
        // Some plugins keep all they have in the metadata.
        Data::None => match own? {
            ValueKind::Scalar => (ValueKind::Bad(NotScalar::Missing), None),
            kind => (kind.clone(), None),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tensorboard::TensorProto;

    fn tensor(values: &[f32]) -> Data {
        let shape = crate::proto::tensorboard::TensorShapeProto {
            dim: vec![crate::proto::tensorboard::tensor_shape_proto::Dim {
                size: i64::try_from(values.len()).unwrap_or(i64::MAX),
                ..Default::default()
            }],
            unknown_rank: false,
        };
        Data::Tensor(Box::new(TensorProto {
            dtype: 1,
            tensor_shape: Some(shape),
            float_val: values.to_vec(),
            ..Default::default()
        }))
    }

    fn check(data: &Data, own: &str, remembered: &str, expected: Option<(&str, Option<f32>)>) {
        let own = ValueKind::of_plugin(own.as_bytes());
        let remembered = ValueKind::of_plugin(remembered.as_bytes());
        let got = classify(data, own.as_ref(), remembered.as_ref());
        let got = got.as_ref().map(|(kind, number)| (kind.name(), *number));
        assert_eq!(got, expected.map(|(kind, number)| (kind, number.map(Number::F32))), "{data:?}");
    }

    #[test]
    fn kinds_follow_form_and_plugin() {
        let number = Some(("scalars", Some(2.0)));
        check(&Data::SimpleValue(2.0), "", "", number);
        check(&Data::SimpleValue(2.0), "text", "images", number);
        check(&tensor(&[2.0]), "scalars", "", number);
        check(&tensor(&[2.0]), "", "scalars", number);
        check(&tensor(&[2.0]), "", "", number);
        check(&tensor(&[2.0]), "", "text", Some(("text", None)));
        check(&tensor(&[2.0]), "scalars", "text", number);
        check(&tensor(&[2.0]), "tensor", "", Some(("tensors", None)));
        check(&tensor(&[2.0]), "my_plugin", "", Some(("my_plugin", None)));
        check(&tensor(&[1.0, 2.0]), "", "", Some(("tensors", None)));
        check(&tensor(&[1.0, 2.0]), "scalars", "", Some(("bad", None)));
        check(&Data::None, "hparams", "", Some(("hparams", None)));
        check(&Data::None, "scalars", "", Some(("bad", None)));
        check(&Data::None, "", "scalars", None);
        check(&Data::OldHistogram(bytes::Bytes::new()), "", "", Some(("obsolete_histograms", None)));
    }

    #[test]
    fn names_give_their_kind_back() {
        for name in ["scalars", "text", "graphs", "tensors", "unknown", "mesh", "hparams", "custom_scalars"] {
            let kind = ValueKind::of_plugin(name.as_bytes());
            assert_eq!(kind.as_ref().map(ValueKind::name), Some(name));
        }
        assert_eq!(ValueKind::of_plugin(b""), None);
    }
}
