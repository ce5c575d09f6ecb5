//! Arbitrary events, for the property tests of this room.

use bytes::Bytes;
use proptest::prelude::*;

use crate::proto::tensorboard as proto;
use crate::proto::tensorboard::event::What as ProtoWhat;
use crate::proto::tensorboard::summary::value::Value as ProtoData;

fn tensors() -> impl Strategy<Value = proto::TensorProto> {
    let dims = proptest::collection::vec(prop_oneof![5 => Just(1_i64), 1 => -1_i64..3], 0..3);
    let shape = dims.prop_map(|sizes| proto::TensorShapeProto {
        dim: sizes.into_iter().map(|size| proto::tensor_shape_proto::Dim { size, ..Default::default() }).collect(),
        unknown_rank: false,
    });
    (
        prop_oneof![5 => prop::sample::select(vec![1, 2, 3, 9]), 1 => 0..35],
        proptest::option::of(shape),
        prop_oneof![Just(0), Just(4), Just(8), 0_usize..10]
            .prop_flat_map(|n| proptest::collection::vec(any::<u8>(), n)),
        proptest::collection::vec(any::<u32>().prop_map(f32::from_bits), 0..3),
        proptest::collection::vec(any::<u64>().prop_map(f64::from_bits), 0..2),
        proptest::collection::vec(any::<i32>(), 0..2),
    )
        .prop_map(|(dtype, tensor_shape, content, float_val, double_val, int_val)| proto::TensorProto {
            dtype,
            tensor_shape,
            tensor_content: content.into(),
            float_val,
            double_val,
            int_val,
            ..Default::default()
        })
}

fn metadata() -> impl Strategy<Value = proto::SummaryMetadata> {
    let name = prop::sample::select(vec!["", "scalars", "text"]);
    (proptest::option::of((name, "[a-z]{0,3}")), "[a-z]{0,3}", 0..4).prop_map(|(plugin, text, data_class)| {
        proto::SummaryMetadata {
            plugin_data: plugin.map(|(name, content)| proto::summary_metadata::PluginData {
                plugin_name: Bytes::from(name),
                content: Bytes::from(content),
            }),
            display_name: Bytes::from(text.clone()),
            summary_description: Bytes::from(text),
            data_class,
        }
    })
}

fn values() -> impl Strategy<Value = proto::summary::Value> {
    let data = prop_oneof![
        4 => any::<u32>().prop_map(|bits| Some(ProtoData::SimpleValue(f32::from_bits(bits)))),
        8 => tensors().prop_map(|tensor| Some(ProtoData::Tensor(tensor))),
        1 => Just(Some(ProtoData::Image(Default::default()))),
        1 => Just(None),
    ];
    (proptest::collection::vec(any::<u8>(), 0..5), data, proptest::option::of(metadata())).prop_map(
        |(tag, value, metadata)| proto::summary::Value { tag: tag.into(), value, metadata, ..Default::default() },
    )
}

/// Any event, mostly with values, and mostly of the forms that writers use.
pub(crate) fn events() -> impl Strategy<Value = proto::Event> {
    let what = prop_oneof![
        12 => proptest::collection::vec(values(), 0..4)
            .prop_map(|value| Some(ProtoWhat::Summary(proto::Summary { value }))),
        1 => Just(Some(ProtoWhat::FileVersion(Bytes::from_static(b"brain.Event:2")))),
        1 => Just(None),
    ];
    (prop_oneof![4 => any::<u64>(), 1 => Just(f64::NAN.to_bits())], any::<i64>(), what).prop_map(
        |(wall_time, step, what)| proto::Event {
            wall_time: f64::from_bits(wall_time),
            step,
            what,
            source_metadata: None,
        },
    )
}
