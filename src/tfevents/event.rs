//! What one record says: the whole event, as its writer meant it.
//!
//! Decodes with prost and flattens what protobuf nests. Payload bytes stay slices of the record. Does not know what a
//! plugin's data means, and keeps no memory of earlier events; [`source`](crate::tfevents::source) does.

use bytes::Bytes;
use prost::Message;

use crate::model::{Step, WallTime};
use crate::proto::tensorboard as proto;
use crate::proto::tensorboard::event::What as ProtoWhat;
use crate::proto::tensorboard::session_log::SessionStatus;
use crate::proto::tensorboard::summary::value::Value as ProtoData;
use crate::tfevents::wire::decoded_size;

/// A payload that is no event. The record is skipped; the next one may be good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no event.
    #[error("record is not an event")]
    Malformed(#[from] prost::DecodeError),
    /// An event that is made to take more memory than any real one does.
    #[error("event of {bytes} bytes would take more than {MAX_DECODED} bytes of memory")]
    TooLarge {
        /// Size of the payload.
        bytes: u64,
    },
}

/// The most memory that a decoded event may take beside its payload, where images, audio, graphs and raw tensors stay.
pub const MAX_DECODED: u64 = 256 << 20;

/// Payloads up to here are decoded unseen: none can take more than [`MAX_DECODED`].
const SMALL: usize = 256 << 10;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `None`: NaN or infinite.
    pub wall_time: Option<WallTime>,
    /// 0 where the writer gave none.
    pub step: Step,
    /// What the event is about.
    pub what: What,
    /// The program that wrote the file; stands in a file's first event.
    pub writer: Option<Bytes>,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Values of tags.
    Values(Vec<Value>),
    /// The first event of a file, such as `brain.Event:2`.
    FileVersion(Bytes),
    /// Bookkeeping of a training session.
    Session(SessionStatus),
    /// A serialized GraphDef.
    Graph(Bytes),
    /// A serialized MetaGraphDef.
    MetaGraph(Bytes),
    /// A serialized RunMetadata.
    RunMetadata {
        /// The tag it belongs to.
        tag: Bytes,
        /// The message.
        run_metadata: Bytes,
    },
    /// A log message, deprecated upstream.
    LogMessage(Bytes),
    /// None of these.
    Nothing,
}

/// One value of a tag.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// As written, which need not be UTF-8; the deprecated node name where the tag is empty.
    pub tag: Bytes,
    /// Often only on the first value of a tag.
    pub metadata: Option<Metadata>,
    /// The value itself.
    pub data: Data,
}

/// What a value says about its tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Empty: none.
    pub plugin_name: Bytes,
    /// A message of the plugin's own.
    pub plugin_content: Bytes,
    /// Empty: the tag itself.
    pub display_name: Bytes,
    /// Markdown.
    pub description: Bytes,
}

/// The value itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// A scalar of TensorFlow 1 and of torch.
    SimpleValue(f32),
    /// Anything of TensorFlow 2.
    Tensor(Box<proto::TensorProto>),
    /// An encoded image, also animated.
    Image(proto::summary::Image),
    /// Buckets with counts.
    Histogram(proto::HistogramProto),
    /// An encoded clip.
    Audio(proto::summary::Audio),
    /// A form of histogram that nothing reads any more.
    OldHistogram(Bytes),
    /// A serialized GraphDef, MetaGraphDef or RunMetadata.
    Graph(Graph),
    /// No value, or one of a kind that is newer than this program. Hyperparameters are in the metadata alone.
    None,
}

/// A graph, or what was measured of its execution: one serialized message of TensorFlow's, which is not looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Graph {
    /// A GraphDef.
    Definition(Bytes),
    /// A MetaGraphDef.
    Meta(Bytes),
    /// A RunMetadata.
    RunMetadata(Bytes),
}

/// Decodes a payload.
pub fn decode(payload: Bytes) -> Result<proto::Event, DecodeError> {
    if payload.len() > SMALL && decoded_size(&payload).is_none_or(|size| size > MAX_DECODED) {
        return Err(DecodeError::TooLarge { bytes: payload.len() as u64 });
    }
    Ok(proto::Event::decode(payload)?)
}

impl Event {
    /// Decodes a payload and flattens it.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        decode(payload).map(Self::from)
    }
}

impl From<proto::Event> for Event {
    fn from(event: proto::Event) -> Self {
        let what = match event.what {
            Some(ProtoWhat::Summary(summary)) => What::Values(summary.value.into_iter().map(Value::from).collect()),
            Some(ProtoWhat::FileVersion(version)) => What::FileVersion(version),
            Some(ProtoWhat::SessionLog(log)) => What::Session(log.status()),
            Some(ProtoWhat::GraphDef(graph)) => What::Graph(graph),
            Some(ProtoWhat::MetaGraphDef(graph)) => What::MetaGraph(graph),
            Some(ProtoWhat::TaggedRunMetadata(tagged)) => {
                What::RunMetadata { tag: tagged.tag, run_metadata: tagged.run_metadata }
            }
            Some(ProtoWhat::LogMessage(log)) => What::LogMessage(log.message),
            None => What::Nothing,
        };
        Self {
            wall_time: WallTime::new(event.wall_time),
            step: Step(event.step),
            what,
            writer: event.source_metadata.map(|metadata| metadata.writer),
        }
    }
}

impl From<proto::summary::Value> for Value {
    fn from(value: proto::summary::Value) -> Self {
        let data = match value.value {
            Some(ProtoData::SimpleValue(number)) => Data::SimpleValue(number),
            Some(ProtoData::Tensor(tensor)) => Data::Tensor(Box::new(tensor)),
            Some(ProtoData::Image(image)) => Data::Image(image),
            Some(ProtoData::Histo(histogram)) => Data::Histogram(histogram),
            Some(ProtoData::Audio(audio)) => Data::Audio(audio),
            Some(ProtoData::ObsoleteOldStyleHistogram(bytes)) => Data::OldHistogram(bytes),
            None => Data::None,
        };
        Self {
            tag: if value.tag.is_empty() { value.node_name } else { value.tag },
            metadata: value.metadata.map(Metadata::from),
            data,
        }
    }
}

impl From<proto::SummaryMetadata> for Metadata {
    fn from(metadata: proto::SummaryMetadata) -> Self {
        let plugin = metadata.plugin_data.unwrap_or_default();
        Self {
            plugin_name: plugin.plugin_name,
            plugin_content: plugin.content,
            display_name: metadata.display_name,
            description: metadata.summary_description,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_need_not_be_utf8() {
        let value = proto::summary::Value {
            tag: Bytes::from_static(b"a\xff"),
            value: Some(ProtoData::SimpleValue(1.0)),
            ..Default::default()
        };
        let event = proto::Event {
            what: Some(ProtoWhat::Summary(proto::Summary { value: vec![value] })),
            ..Default::default()
        };
        let What::Values(values) = Event::decode(event.encode_to_vec().into()).unwrap().what else { unreachable!() };
        assert_eq!(values[0].tag, b"a\xff".as_slice());
    }

    #[test]
    fn repeated_fields_follow_the_wire_rules() {
        // Two summaries in one event are one longer summary; of two different members of a oneof the last one holds.
        let summary = |tag: &'static [u8]| {
            let value = proto::summary::Value { tag: Bytes::from_static(tag), ..Default::default() };
            let what = Some(ProtoWhat::Summary(proto::Summary { value: vec![value] }));
            proto::Event { what, step: 1, ..Default::default() }.encode_to_vec()
        };
        let version = proto::Event {
            what: Some(ProtoWhat::FileVersion(Bytes::from_static(b"brain.Event:2"))),
            step: 2,
            ..Default::default()
        };
        let both = Event::decode([summary(b"a"), summary(b"b")].concat().into()).unwrap();
        assert!(matches!(both.what, What::Values(values) if values.len() == 2));
        let last = Event::decode([summary(b"a"), version.encode_to_vec()].concat().into()).unwrap();
        assert!(matches!(last.what, What::FileVersion(_)));
        assert_eq!(last.step, Step(2));
    }

    #[test]
    fn nesting_is_not_followed() {
        // 10,000 levels of the variant tensors that nothing reads, and as many of a group.
        let mut nested: Vec<u8> = Vec::new();
        for _ in 0..10_000 {
            let mut outer = Vec::new();
            prost::encoding::bytes::encode(15, &nested, &mut outer);
            nested = outer;
        }
        let tensor = proto::TensorProto { dtype: 21, ..Default::default() }.encode_to_vec();
        let mut value = Vec::new();
        prost::encoding::bytes::encode(8, &[tensor, nested].concat(), &mut value);
        let mut summary = Vec::new();
        prost::encoding::bytes::encode(1, &value, &mut summary);
        let mut event = Vec::new();
        prost::encoding::bytes::encode(5, &summary, &mut event);
        assert!(Event::decode(event.into()).is_ok());
        assert!(Event::decode([0x83, 0x01].repeat(10_000).into()).is_err());
    }

    /// Wraps bytes in the fields with these numbers, the innermost first.
    fn wrapped(bytes: &[u8], fields: &[u32]) -> Bytes {
        let mut inner = bytes.to_vec();
        for &field in fields {
            let mut outer = Vec::new();
            prost::encoding::bytes::encode(field, &inner, &mut outer);
            inner = outer;
        }
        inner.into()
    }

    #[test]
    fn small_payloads_that_would_take_much_memory_are_refused() {
        let value = [0x0a, 0];
        let dim = [0x12, 0];
        let text = [0x42, 0];
        for (unit, fields) in [(value, [5].as_slice()), (dim, &[2, 8, 1, 5]), (text, &[8, 1, 5])] {
            let refused = Event::decode(wrapped(&unit.repeat(8 << 20), fields));
            assert!(matches!(refused, Err(DecodeError::TooLarge { .. })), "{fields:?}");
            assert!(Event::decode(wrapped(&unit.repeat(SMALL * 5 / 8), fields)).is_ok(), "{fields:?}");
        }
        // Numbers of one byte each.
        assert!(Event::decode(wrapped(&vec![1; 64 << 20], &[10, 8, 1, 5])).is_err());
        // A graph, an image and a raw tensor of any size stay where they are.
        let large = vec![1; 32 << 20];
        for fields in [[4].as_slice(), &[4, 4, 1, 5], &[4, 8, 1, 5]] {
            assert!(Event::decode(wrapped(&large, fields)).is_ok(), "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Event::decode(bytes.into());
        }
    }
}
