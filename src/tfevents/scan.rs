//! The short way through a payload: events that hold nothing but scalars, read in place.
//!
//! Promises: what it yields is what [`event::decode`](crate::tfevents::event::decode) and
//! [`tensor::scalar`](crate::tfevents::tensor::scalar) yield. Whatever is unusual in any way, valid or not, it leaves to
//! them. Allocates nothing.

use crate::model::Number;
use crate::tfevents::wire::Input;

/// An event with values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scanned<'a> {
    /// As written: may be NaN.
    pub wall_time: f64,
    /// 0 where there is none.
    pub step: i64,
    summary: &'a [u8],
}

/// One value of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScannedValue<'a> {
    /// Never empty; need not be UTF-8.
    pub tag: &'a [u8],
    /// The name of the plugin in the value's own metadata, where it is not empty.
    pub plugin: Option<&'a [u8]>,
    /// The number.
    pub data: ScalarData,
}

/// The number of a value, by the form it has in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScalarData {
    /// A scalar, whatever the metadata says.
    Simple(f32),
    /// A tensor of one element, with the number of its type: a scalar unless it belongs to a plugin of another kind.
    Tensor(Number, i32),
}

/// There is something in the event that takes the long way. What was yielded before counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unusual;

/// Reads the frame of an event; `None` when it is unusual.
#[inline]
pub fn scan(payload: &[u8]) -> Option<Scanned<'_>> {
    let mut input = Input(payload);
    let mut wall_time = 0.0;
    let mut step = 0;
    let mut summary = None;
    while !input.0.is_empty() {
        match input.varint()? {
            key::EVENT_WALL_TIME => wall_time = f64::from_bits(u64::from_le_bytes(input.fixed()?)),
            key::EVENT_STEP => step = input.varint()?.cast_signed(),
            key::EVENT_SUMMARY if summary.is_none() => summary = Some(input.bytes()?),
            _ => return None,
        }
    }
    Some(Scanned { wall_time, step, summary: summary? })
}

impl<'a> Scanned<'a> {
    /// The values in their order. An error is the last item.
    pub fn values(&self) -> Values<'a> {
        Values(Input(self.summary))
    }
}

/// Iterates over the values of an event.
#[derive(Debug, Clone)]
pub struct Values<'a>(Input<'a>);

impl<'a> Iterator for Values<'a> {
    type Item = Result<ScannedValue<'a>, Unusual>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.0.is_empty() {
            return None;
        }
        let value = next_value(&mut self.0);
        if value.is_none() {
            self.0 = Input(&[]);
        }
        Some(value.ok_or(Unusual))
    }
}

/// Field number and wire type, as they stand before a field: `number << 3 | type`, where the type is 0 for a varint, 1
/// for 8 bytes, 2 for a length and so many bytes, 5 for 4 bytes.
mod key {
    pub(super) const EVENT_WALL_TIME: u64 = 1 << 3 | 1;
    pub(super) const EVENT_STEP: u64 = 2 << 3;
    pub(super) const EVENT_SUMMARY: u64 = 5 << 3 | 2;
    pub(super) const SUMMARY_VALUE: u64 = 1 << 3 | 2;
    pub(super) const VALUE_TAG: u64 = 1 << 3 | 2;
    pub(super) const VALUE_SIMPLE: u64 = 2 << 3 | 5;
    pub(super) const VALUE_TENSOR: u64 = 8 << 3 | 2;
    pub(super) const VALUE_METADATA: u64 = 9 << 3 | 2;
    pub(super) const METADATA_PLUGIN_DATA: u64 = 1 << 3 | 2;
    pub(super) const METADATA_DISPLAY_NAME: u64 = 2 << 3 | 2;
    pub(super) const METADATA_DESCRIPTION: u64 = 3 << 3 | 2;
    pub(super) const METADATA_DATA_CLASS: u64 = 4 << 3;
    pub(super) const PLUGIN_NAME: u64 = 1 << 3 | 2;
    pub(super) const PLUGIN_CONTENT: u64 = 2 << 3 | 2;
    pub(super) const TENSOR_DTYPE: u64 = 1 << 3;
    pub(super) const TENSOR_SHAPE: u64 = 2 << 3 | 2;
    pub(super) const TENSOR_VERSION: u64 = 3 << 3;
    pub(super) const TENSOR_CONTENT: u64 = 4 << 3 | 2;
    pub(super) const TENSOR_FLOATS: u64 = 5 << 3 | 2;
    pub(super) const TENSOR_FLOAT: u64 = 5 << 3 | 5;
    pub(super) const TENSOR_DOUBLES: u64 = 6 << 3 | 2;
    pub(super) const TENSOR_DOUBLE: u64 = 6 << 3 | 1;
    pub(super) const SHAPE_DIM: u64 = 2 << 3 | 2;
    pub(super) const DIM_SIZE: u64 = 1 << 3;
    pub(super) const DIM_NAME: u64 = 2 << 3 | 2;
}

const DT_FLOAT: u64 = 1;
const DT_DOUBLE: u64 = 2;
const DT_INT32: u64 = 3;
const DT_INT64: u64 = 9;

#[inline]
fn next_value<'a>(summary: &mut Input<'a>) -> Option<ScannedValue<'a>> {
    if summary.varint()? != key::SUMMARY_VALUE {
        return None;
    }
    let mut input = Input(summary.bytes()?);
    let mut tag: &[u8] = &[];
    let mut plugin: &[u8] = &[];
    let mut data = None;
    while !input.0.is_empty() {
        match input.varint()? {
            key::VALUE_TAG => tag = input.bytes()?,
            key::VALUE_SIMPLE if data.is_none() => {
                data = Some(ScalarData::Simple(f32::from_bits(u32::from_le_bytes(input.fixed()?))));
            }
            key::VALUE_TENSOR if data.is_none() => {
                let (number, dtype) = tensor(input.bytes()?)?;
                data = Some(ScalarData::Tensor(number, dtype));
            }
            // A second message adds to the first, field by field.
            key::VALUE_METADATA => metadata(input.bytes()?, &mut plugin)?,
            _ => return None,
        }
    }
    if tag.is_empty() {
        return None;
    }
    Some(ScannedValue { tag, plugin: (!plugin.is_empty()).then_some(plugin), data: data? })
}

fn metadata<'a>(bytes: &'a [u8], plugin: &mut &'a [u8]) -> Option<()> {
    let mut input = Input(bytes);
    while !input.0.is_empty() {
        match input.varint()? {
            key::METADATA_PLUGIN_DATA => {
                let mut input = Input(input.bytes()?);
                while !input.0.is_empty() {
                    match input.varint()? {
                        key::PLUGIN_NAME => *plugin = input.bytes()?,
                        key::PLUGIN_CONTENT => drop(input.bytes()?),
                        _ => return None,
                    }
                }
            }
            key::METADATA_DISPLAY_NAME | key::METADATA_DESCRIPTION => drop(input.bytes()?),
            key::METADATA_DATA_CLASS => drop(input.varint()?),
            _ => return None,
        }
    }
    Some(())
}

/// The number of a tensor, and the number of its type.
fn tensor(bytes: &[u8]) -> Option<(Number, i32)> {
    let mut input = Input(bytes);
    let mut dtype = 0;
    let mut content: &[u8] = &[];
    let mut number = None;
    while !input.0.is_empty() {
        match input.varint()? {
            key::TENSOR_DTYPE => dtype = input.varint()?,
            key::TENSOR_SHAPE => shape_of_one(input.bytes()?)?,
            key::TENSOR_VERSION => drop(input.varint()?),
            key::TENSOR_CONTENT => content = input.bytes()?,
            key::TENSOR_FLOATS if number.is_none() => number = Some(single(input.bytes()?.try_into().ok()?)),
            key::TENSOR_FLOAT if number.is_none() => number = Some(single(input.fixed()?)),
            key::TENSOR_DOUBLES if number.is_none() => number = Some(double(input.bytes()?.try_into().ok()?)),
            key::TENSOR_DOUBLE if number.is_none() => number = Some(double(input.fixed()?)),
            _ => return None,
        }
    }
    let number = match (dtype, number) {
        (DT_FLOAT, _) if !content.is_empty() => single(content.try_into().ok()?),
        (DT_DOUBLE, _) if !content.is_empty() => double(content.try_into().ok()?),
        (DT_INT32, _) => Number::I64(i64::from(i32::from_le_bytes(content.try_into().ok()?))),
        (DT_INT64, _) => Number::I64(i64::from_le_bytes(content.try_into().ok()?)),
        (DT_FLOAT, Some(number @ Number::F32(_))) | (DT_DOUBLE, Some(number @ Number::F64(_))) => number,
        _ => return None,
    };
    Some((number, i32::try_from(dtype).ok()?))
}

/// Checks that a shape has exactly one element.
fn shape_of_one(bytes: &[u8]) -> Option<()> {
    let mut input = Input(bytes);
    while !input.0.is_empty() {
        if input.varint()? != key::SHAPE_DIM {
            return None;
        }
        let mut input = Input(input.bytes()?);
        let mut size = 0;
        while !input.0.is_empty() {
            match input.varint()? {
                key::DIM_SIZE => size = input.varint()?,
                key::DIM_NAME => drop(input.bytes()?),
                _ => return None,
            }
        }
        if size != 1 {
            return None;
        }
    }
    Some(())
}

fn single(bytes: [u8; 4]) -> Number {
    Number::F32(f32::from_le_bytes(bytes))
}

fn double(bytes: [u8; 8]) -> Number {
    Number::F64(f64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::proto::tensorboard as proto;
    use crate::proto::tensorboard::event::What as ProtoWhat;
    use crate::proto::tensorboard::summary::value::Value as ProtoData;
    use crate::tfevents::arbitrary::events;
    use crate::tfevents::event::{Data, Event, What};
    use crate::tfevents::tensor::scalar;

    /// Checks a payload against the long way; returns whether the short way took it.
    fn agrees(payload: &[u8]) -> bool {
        let Some(scanned) = scan(payload) else { return false };
        let Ok(values) = scanned.values().collect::<Result<Vec<_>, _>>() else { return false };
        let raw = proto::Event::decode(payload).unwrap();
        assert_eq!(scanned.wall_time.to_bits(), raw.wall_time.to_bits());
        let event = Event::from(raw);
        assert_eq!(scanned.step, event.step.0);
        assert_eq!(event.writer, None);
        let What::Values(expected) = event.what else { panic!("no values") };
        assert_eq!(values.len(), expected.len());
        for (value, expected) in values.iter().zip(expected) {
            assert_eq!(value.tag, expected.tag);
            let plugin = expected.metadata.map(|metadata| metadata.plugin_name).unwrap_or_default();
            assert_eq!(value.plugin.unwrap_or_default(), plugin);
            match (value.data, expected.data) {
                (ScalarData::Simple(number), Data::SimpleValue(expected)) => {
                    assert_eq!(number.to_bits(), expected.to_bits());
                }
                (ScalarData::Tensor(number, dtype), Data::Tensor(tensor)) => {
                    assert_eq!(dtype, tensor.dtype);
                    assert_eq!(bits(number), bits(scalar(&tensor).unwrap()));
                }
                (got, expected) => panic!("{got:?} is not {expected:?}"),
            }
        }
        true
    }

    /// Numbers with NaNs that can be compared.
    fn bits(number: Number) -> (u8, u64) {
        match number {
            Number::F32(value) => (0, u64::from(value.to_bits())),
            Number::F64(value) => (1, value.to_bits()),
            Number::I64(value) => (2, value.cast_unsigned()),
            Number::U64(value) => (3, value),
        }
    }

    #[test]
    fn what_common_writers_write_takes_the_short_way() {
        let event = |value, metadata| {
            let value =
                proto::summary::Value { tag: "loss".into(), value: Some(value), metadata, ..Default::default() };
            let what = Some(ProtoWhat::Summary(proto::Summary { value: vec![value] }));
            proto::Event { wall_time: 1.5e9, step: -3, what, source_metadata: None }.encode_to_vec()
        };
        let scalars = || {
            let plugin_data =
                proto::summary_metadata::PluginData { plugin_name: "scalars".into(), content: Bytes::new() };
            Some(proto::SummaryMetadata { plugin_data: Some(plugin_data), data_class: 1, ..Default::default() })
        };
        let tensor = proto::TensorProto { dtype: 1, tensor_shape: Some(Default::default()), ..Default::default() };
        assert!(agrees(&event(ProtoData::SimpleValue(0.5), None)));
        let content = proto::TensorProto { tensor_content: vec![1, 2, 3, 4].into(), ..tensor.clone() };
        assert!(agrees(&event(ProtoData::Tensor(content), scalars())));
        let listed = proto::TensorProto { float_val: vec![0.5], ..tensor.clone() };
        assert!(agrees(&event(ProtoData::Tensor(listed), scalars())));
        let double = proto::TensorProto { dtype: 2, double_val: vec![0.5], ..tensor };
        assert!(agrees(&event(ProtoData::Tensor(double), scalars())));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn both_ways_agree(first in events(), second in events(), join: bool) {
            let mut payload = first.encode_to_vec();
            if join {
                // The same as one message in which every field may stand twice.
                payload.extend(second.encode_to_vec());
            }
            agrees(&payload);
        }

        #[test]
        fn both_ways_agree_about_damage(
            event in events(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let mut payload = event.encode_to_vec();
            if !payload.is_empty() {
                for (at, byte) in changes {
                    let at = at.index(payload.len());
                    payload[at] = byte;
                }
                if let Some(cut) = cut {
                    payload.truncate(cut.index(payload.len()));
                }
            }
            agrees(&payload);
        }

        #[test]
        fn both_ways_agree_about_anything(payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            agrees(&payload);
        }
    }
}
