//! The events of one file, one after the other, with interned tags and the kind of every value.
//!
//! Promises: each whole record is delivered once and in order; nothing of it is dropped in silence but values in which
//! there is nothing; the position after it can be saved and gone on from. Decoding takes the short way where it can, and both ways give the same. Does not
//! know what other files of the TB run say, except through the [`TagTable`] they share.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::{Number, Step, WallTime};
use crate::proto::tensorboard::session_log::SessionStatus;
use crate::tfevents::encoding::Encoding;
use crate::tfevents::event::{Data, DecodeError, Event, Graph, Value, What};
use crate::tfevents::file_name::start_of;
use crate::tfevents::inflate::Compression;
use crate::tfevents::kind::{ValueKind, classify};
use crate::tfevents::reader::{Found, Read, RecordReader};
use crate::tfevents::record::LengthError;
use crate::tfevents::scan::{ScalarData, scan};
use crate::tfevents::tags::{TagId, TagTable};

/// The tag under which graphs that have none of their own are delivered, as TensorBoard does.
pub const GRAPH_TAG: &str = "__run_graph__";

/// How far a file was read, and what must be known to go on there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FilePosition {
    /// Where the next record starts, in uncompressed bytes.
    pub offset: u64,
    /// The time of the last event, for events without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time: Option<WallTime>,
    /// The program that wrote the file, as its first event says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// The bytes before the offset, where they are known. Reading on fails with [`Rewritten`](crate::tfevents::Rewritten)
    /// where others stand there now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<[u8; 4]>,
}

/// One event file.
pub struct EventFile {
    reader: RecordReader,
    /// The time in the file's name, for a first event without one.
    named_time: Option<WallTime>,
    wall_time: Option<WallTime>,
    writer: Option<String>,
    event: SourceEvent,
    /// [`position`](Self::position) before the current event, but for the writer.
    before: (u64, Option<WallTime>, Option<[u8; 4]>),
}

/// One event, without the tags' metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceEvent {
    /// Where its record starts in the file.
    pub at: u64,
    /// The time that the event states, or that of the event before when it states none.
    pub wall_time: WallTime,
    /// Whether the event states no time: NaN or an infinity.
    pub wall_time_replaced: bool,
    /// The step.
    pub step: Step,
    /// Its values in the order of the record. Empty for bookkeeping.
    pub points: Vec<Point>,
    /// What a training session reported about itself.
    pub session: Option<SessionStatus>,
}

impl SourceEvent {
    /// Whether a training session says that it begins, or goes on, with this step.
    pub fn starts_session(&self) -> bool {
        self.session == Some(SessionStatus::Start)
    }
}

/// One value of a tag.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The tag's name. Never the place to look for meaning: it is the writer's free choice and may be empty.
    pub tag: Arc<str>,
    /// The tag's number in the table.
    pub tag_id: TagId,
    /// The kind of the value.
    pub kind: ValueKind,
    /// The form that it has in the file.
    pub encoding: Encoding,
    /// The number of a scalar.
    pub number: Option<Number>,
    /// The value itself, unless it is a scalar.
    pub value: Option<Box<Value>>,
}

/// What came next. All but `Event` and `BadRecord` leave the file where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// An event: [`EventFile::event`].
    Event,
    /// The file ends here. Ask again when it has grown.
    NothingYet,
    /// The file ends within a record. Ask again when it has grown.
    Incomplete {
        /// How many bytes of the record are there.
        bytes: u64,
    },
    /// A damaged record, which is skipped: count it and ask for the next.
    BadRecord {
        /// Where it starts.
        at: u64,
        /// What is wrong.
        why: BadRecord,
    },
    /// The rest of the file cannot be read. Asking again reads the place anew.
    BadLength {
        /// Where the readable part ends.
        at: u64,
        /// What is wrong.
        why: LengthError,
    },
    /// Nothing but zeros up to the end of the file. Ask again when it has changed.
    Zeros {
        /// Where they start.
        at: u64,
    },
}

/// What is wrong with a record whose length is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The bytes are not those that were written.
    #[error("payload checksum mismatch")]
    Checksum,
    /// The bytes are right, but no event.
    #[error(transparent)]
    Content(#[from] DecodeError),
}

impl EventFile {
    /// Opens a file where an earlier reading of it stopped, or at the default position to read all of it.
    pub fn open(path: &Path, position: &FilePosition) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        #[expect(clippy::cast_precision_loss, reason = "ten digits")]
        let named_time = start_of(&name).and_then(|seconds| WallTime::new(seconds as f64));
        Ok(Self {
            reader: RecordReader::open_behind(path, position.offset, position.before)?,
            named_time,
            wall_time: position.wall_time,
            writer: position.writer.clone(),
            event: SourceEvent {
                at: position.offset,
                wall_time: WallTime::new(0.0).ok_or_else(|| io::Error::other("zero is a time"))?,
                wall_time_replaced: false,
                step: Step(0),
                points: Vec::new(),
                session: None,
            },
            before: (position.offset, position.wall_time, position.before),
        })
    }

    /// Changes the longest record that is believed.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.reader = self.reader.with_limit(limit);
        self
    }

    /// Reads the next event. The table is that of the file's TB run.
    pub fn next_event(&mut self, tags: &mut TagTable) -> io::Result<Next> {
        // Whoever still holds a payload makes the reader leave its memory to it, and take new.
        self.event.points.clear();
        let (at, before) = (self.reader.offset(), self.reader.before());
        let payload = match self.reader.find()? {
            Found::Record(payload) => payload,
            Found::Other(read) => return Ok(self.no_record(read)),
        };
        self.before = (at, self.wall_time, before);
        self.event.at = at;
        self.event.session = None;
        if self.short_way(payload.clone(), tags) {
            return Ok(Next::Event);
        }
        self.event.points.clear();
        match Event::decode(self.reader.payload(payload)) {
            Ok(event) => {
                self.long_way(event, tags);
                Ok(Next::Event)
            }
            Err(error) => Ok(Next::BadRecord { at, why: error.into() }),
        }
    }

    /// The event that [`next_event`](Self::next_event) read last.
    pub fn event(&self) -> &SourceEvent {
        &self.event
    }

    /// Where to go on after the current event.
    pub fn position(&self) -> FilePosition {
        FilePosition {
            offset: self.reader.offset(),
            wall_time: self.wall_time,
            writer: self.writer.clone(),
            before: self.reader.before(),
        }
    }

    /// Where to go on so that the current event is read again.
    pub fn position_before(&self) -> FilePosition {
        let (offset, wall_time, before) = self.before;
        FilePosition { offset, wall_time, writer: self.writer.clone(), before }
    }

    /// The start of the next record.
    pub fn offset(&self) -> u64 {
        self.reader.offset()
    }

    /// The time of the last event.
    pub fn wall_time(&self) -> Option<WallTime> {
        self.wall_time
    }

    /// The bytes before [`offset`](Self::offset), where they are known.
    pub fn before(&self) -> Option<[u8; 4]> {
        self.reader.before()
    }

    /// Whether the file is shorter now than what was read of it.
    pub fn is_too_short(&mut self) -> io::Result<bool> {
        let is_plain = matches!(self.reader.compression(), None | Some(Compression::None));
        Ok(self.reader.size_on_disk()? < self.reader.offset() && is_plain)
    }

    /// The program that wrote the file, as its first event says.
    pub fn writer(&self) -> Option<&str> {
        self.writer.as_deref()
    }

    /// The file's path, as it was given.
    pub fn path(&self) -> &Path {
        self.reader.path()
    }

    /// How the file is compressed; known once something was read of it.
    pub fn compression(&self) -> Option<Compression> {
        self.reader.compression()
    }

    #[cold]
    fn no_record(&mut self, read: Read) -> Next {
        match read {
            Read::Record(_) | Read::NothingYet => Next::NothingYet,
            Read::Incomplete { bytes } => Next::Incomplete { bytes },
            Read::BadPayload { at } => Next::BadRecord { at, why: BadRecord::Checksum },
            Read::BadLength { at, why } => Next::BadLength { at, why },
            Read::Zeros { at } => Next::Zeros { at },
        }
    }

    /// Reads an event that holds nothing but scalars; false when it holds something else.
    #[inline]
    fn short_way(&mut self, payload: Range<usize>, tags: &mut TagTable) -> bool {
        let Some(scanned) = scan(self.reader.payload_slice(payload)) else { return false };
        let points = &mut self.event.points;
        points.clear();
        for value in scanned.values() {
            let Ok(value) = value else { return false };
            let tag_id = tags.intern(value.tag);
            match value.plugin {
                None => {}
                Some(b"scalars") if tags.plugin(tag_id).is_some() => {}
                Some(b"scalars") => tags.remember(tag_id, &ValueKind::Scalar),
                Some(_) => return false,
            }
            let (number, encoding) = match value.data {
                ScalarData::Simple(number) => (Number::F32(number), Encoding::SimpleValue),
                ScalarData::Tensor(number, dtype) => {
                    let other = || !matches!(tags.plugin(tag_id), None | Some(ValueKind::Scalar));
                    if value.plugin.is_none() && other() {
                        return false;
                    }
                    (number, Encoding::Tensor(dtype))
                }
            };
            let tag = tags.name(tag_id);
            points.push(Point { tag, tag_id, kind: ValueKind::Scalar, encoding, number: Some(number), value: None });
        }
        let (wall_time, step) = (WallTime::new(scanned.wall_time), Step(scanned.step));
        self.take_time(wall_time);
        self.event.step = step;
        true
    }

    #[cold]
    fn long_way(&mut self, event: Event, tags: &mut TagTable) {
        self.take_time(event.wall_time);
        self.event.step = event.step;
        if let Some(writer) = event.writer {
            self.writer = Some(String::from_utf8_lossy(&writer).into_owned());
        }
        match event.what {
            What::Values(values) => points(values, tags, &mut self.event.points),
            What::Graph(bytes) => self.event.points.push(graph(GRAPH_TAG.into(), Graph::Definition(bytes), tags)),
            What::MetaGraph(bytes) => self.event.points.push(graph(GRAPH_TAG.into(), Graph::Meta(bytes), tags)),
            What::RunMetadata { tag, run_metadata } => {
                self.event.points.push(graph(tag, Graph::RunMetadata(run_metadata), tags));
            }
            What::Session(status) => self.event.session = Some(status),
            What::FileVersion(_) | What::LogMessage(_) | What::Nothing => {}
        }
    }

    fn take_time(&mut self, stated: Option<WallTime>) {
        self.event.wall_time_replaced = stated.is_none();
        let known = stated.or(self.wall_time).or(self.named_time).or(WallTime::new(0.0));
        if let Some(wall_time) = known {
            self.event.wall_time = wall_time;
            self.wall_time = known;
        }
    }
}

/// Classifies the values of one event. What any of them says about its tag holds for all of them, so that reading the
/// event again, with a table that knows it already, gives the same.
fn points(values: Vec<Value>, tags: &mut TagTable, points: &mut Vec<Point>) {
    let own = |value: &Value| ValueKind::of_plugin(&value.metadata.as_ref()?.plugin_name);
    for value in &values {
        if let Some(kind) = own(value) {
            let tag_id = tags.intern(&value.tag);
            tags.remember(tag_id, &kind);
        }
    }
    for value in values {
        let tag_id = tags.intern(&value.tag);
        let Some((kind, number)) = classify(&value.data, own(&value).as_ref(), tags.plugin(tag_id)) else { continue };
        let encoding = Encoding::of(&value.data);
        let value = (kind != ValueKind::Scalar).then(|| Box::new(value));
        points.push(Point { tag: tags.name(tag_id), tag_id, kind, encoding, number, value });
    }
}

fn graph(tag: Bytes, graph: Graph, tags: &mut TagTable) -> Point {
    let tag_id = tags.intern(&tag);
    let value = Box::new(Value { tag, metadata: None, data: Data::Graph(graph) });
    Point {
        tag: tags.name(tag_id),
        tag_id,
        kind: ValueKind::Graphs,
        encoding: Encoding::Graph,
        number: None,
        value: Some(value),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::fs::{self, File};
    use std::io::Write;

    use proptest::prelude::*;
    use proptest::sample::Index;
    use prost::Message;

    use super::*;
    use crate::proto::tensorboard as proto;
    use crate::proto::tensorboard::event::What as ProtoWhat;
    use crate::proto::tensorboard::summary::value::Value as ProtoData;
    use crate::tfevents::arbitrary;
    use crate::tfevents::write::{write_event, write_record};

    fn event(step: i64, values: &[(&'static str, &'static str, ProtoData)]) -> proto::Event {
        let value = |(tag, plugin, data): &(&'static str, &'static str, ProtoData)| proto::summary::Value {
            tag: Bytes::from(*tag),
            value: Some(data.clone()),
            metadata: (!plugin.is_empty()).then(|| proto::SummaryMetadata {
                plugin_data: Some(proto::summary_metadata::PluginData {
                    plugin_name: Bytes::from(*plugin),
                    content: Bytes::new(),
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let what = Some(ProtoWhat::Summary(proto::Summary { value: values.iter().map(value).collect() }));
        proto::Event { wall_time: 100.0, step, what, source_metadata: None }
    }

    fn tensor(value: f32) -> ProtoData {
        ProtoData::Tensor(proto::TensorProto { dtype: 1, float_val: vec![value], ..Default::default() })
    }

    fn file_of(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.out.tfevents.1700000000.host");
        fs::write(&path, bytes).unwrap();
        (directory, path)
    }

    /// All that a file gives until it ends.
    fn drain(file: &mut EventFile, tags: &mut TagTable, into: &mut Vec<SourceEvent>) -> Next {
        loop {
            match file.next_event(tags).unwrap() {
                Next::Event => into.push(file.event().clone()),
                Next::BadRecord { .. } => {}
                other => return other,
            }
        }
    }

    fn read(events: &[proto::Event]) -> Vec<SourceEvent> {
        let mut bytes = Vec::new();
        events.iter().for_each(|event| write_event(&mut bytes, event));
        let (_directory, path) = file_of(&bytes);
        let mut read = Vec::new();
        let mut file = EventFile::open(&path, &FilePosition::default()).unwrap();
        assert_eq!(drain(&mut file, &mut TagTable::default(), &mut read), Next::NothingYet);
        read
    }

    /// `tag:kind` or `tag=number` for each value.
    fn shown(event: &SourceEvent) -> Vec<String> {
        let show = |point: &Point| match point.number {
            Some(Number::F32(number)) => format!("{}={number}", point.tag),
            _ => format!("{}:{}", point.tag, point.kind),
        };
        event.points.iter().map(show).collect()
    }

    #[test]
    fn metadata_of_the_first_value_holds_for_later_ones() {
        let read = read(&[
            event(1, &[("a", "text", tensor(1.0)), ("b", "scalars", tensor(2.0)), ("c", "", tensor(3.0))]),
            event(2, &[("a", "", tensor(1.0)), ("b", "", tensor(2.0)), ("c", "", tensor(3.0))]),
            event(3, &[("a", "", ProtoData::SimpleValue(1.0))]),
        ]);
        assert_eq!(shown(&read[0]), ["a:text", "b=2", "c=3"]);
        assert_eq!(shown(&read[1]), ["a:text", "b=2", "c=3"]);
        assert_eq!(shown(&read[2]), ["a=1"]);
        assert_eq!(read[2].step, Step(3));
        assert_eq!(read[0].points[0].tag_id, read[2].points[0].tag_id);
    }

    #[test]
    fn events_without_a_time_take_that_of_the_one_before() {
        let timed = |wall_time| proto::Event { wall_time, ..event(1, &[("a", "", ProtoData::SimpleValue(1.0))]) };
        let read = read(&[timed(f64::NAN), timed(5.0), timed(f64::INFINITY), timed(4.0)]);
        let times: Vec<(f64, bool)> =
            read.iter().map(|event| (event.wall_time.seconds(), event.wall_time_replaced)).collect();
        assert_eq!(times, [(1_700_000_000.0, true), (5.0, false), (5.0, true), (4.0, false)]);
    }

    #[test]
    fn bookkeeping_has_no_values_and_graphs_have_one() {
        let of = |what| proto::Event { what: Some(what), ..Default::default() };
        let session = proto::SessionLog { status: 1, ..Default::default() };
        let run_metadata = proto::TaggedRunMetadata { tag: "step1".into(), ..Default::default() };
        let read = read(&[
            of(ProtoWhat::FileVersion("brain.Event:2".into())),
            of(ProtoWhat::SessionLog(session)),
            of(ProtoWhat::GraphDef("graph".into())),
            of(ProtoWhat::MetaGraphDef("graph".into())),
            of(ProtoWhat::TaggedRunMetadata(run_metadata)),
        ]);
        let shown: Vec<Vec<String>> = read.iter().map(shown).collect();
        assert_eq!(
            shown,
            [vec![], vec![], vec!["__run_graph__:graphs"], vec!["__run_graph__:graphs"], vec!["step1:graphs"]]
        );
        assert_eq!(read[1].session, Some(SessionStatus::Start));
        assert_eq!(read[2].session, None);
    }

    #[test]
    fn the_writer_is_part_of_the_position() {
        let metadata = proto::SourceMetadata { writer: "some.writer".into() };
        let mut bytes = Vec::new();
        write_event(&mut bytes, &proto::Event { source_metadata: Some(metadata), ..Default::default() });
        let (_directory, path) = file_of(&bytes);
        let mut file = EventFile::open(&path, &FilePosition::default()).unwrap();
        assert_eq!(file.next_event(&mut TagTable::default()).unwrap(), Next::Event);
        let again = EventFile::open(&path, &file.position()).unwrap();
        assert_eq!(again.writer(), Some("some.writer"));
    }

    #[test]
    fn damaged_records_are_reported_and_skipped() {
        let mut bytes = Vec::new();
        write_event(&mut bytes, &event(1, &[]));
        let second = bytes.len() as u64;
        write_record(&mut bytes, b"\xff\xff");
        let third = bytes.len();
        write_event(&mut bytes, &event(2, &[]));
        bytes[third + 12] ^= 1;
        write_event(&mut bytes, &event(3, &[]));
        let (_directory, path) = file_of(&bytes);
        let mut file = EventFile::open(&path, &FilePosition::default()).unwrap();
        let tags = &mut TagTable::default();
        assert_eq!(file.next_event(tags).unwrap(), Next::Event);
        let Next::BadRecord { at, why: BadRecord::Content(_) } = file.next_event(tags).unwrap() else { panic!() };
        assert_eq!(at, second);
        let bad = Next::BadRecord { at: third as u64, why: BadRecord::Checksum };
        assert_eq!(file.next_event(tags).unwrap(), bad);
        assert_eq!(file.next_event(tags).unwrap(), Next::Event);
        assert_eq!(file.event().step, Step(3));
        assert_eq!(file.next_event(tags).unwrap(), Next::NothingYet);
    }

    /// Events in a form that compares NaNs.
    fn comparable(events: &[SourceEvent]) -> Vec<String> {
        let bits = |number: Number| match number {
            Number::F32(value) => format!("f32 {:x}", value.to_bits()),
            Number::F64(value) => format!("f64 {:x}", value.to_bits()),
            other => format!("{other:?}"),
        };
        let point =
            |point: &Point| format!("{} {:?} {:?} {:?}", point.tag, point.kind, point.number.map(bits), point.value);
        let event = |event: &SourceEvent| {
            let points: Vec<String> = event.points.iter().map(point).collect();
            format!("{} {:?} {:?} {points:?}", event.at, event.wall_time, event.step)
        };
        events.iter().map(event).collect()
    }

    /// What the long way alone makes of the events.
    fn the_long_way(events: &[proto::Event]) -> Vec<Vec<(String, ValueKind)>> {
        let mut tags = TagTable::default();
        let values = |event: &proto::Event| {
            let What::Values(values) = Event::decode(event.encode_to_vec().into()).unwrap().what else {
                return Vec::new();
            };
            let mut found = Vec::new();
            points(values, &mut tags, &mut found);
            found.into_iter().map(|point| (point.tag.to_string(), point.kind)).collect()
        };
        events.iter().map(values).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_payload_is_an_event_or_a_bad_record(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5),
        ) {
            let mut bytes = Vec::new();
            payloads.iter().for_each(|payload| write_record(&mut bytes, payload));
            let (_directory, path) = file_of(&bytes);
            let mut file = EventFile::open(&path, &FilePosition::default()).unwrap();
            let mut tags = TagTable::default();
            for _ in &payloads {
                let next = file.next_event(&mut tags).unwrap();
                prop_assert!(matches!(next, Next::Event | Next::BadRecord { .. }), "{:?}", next);
            }
            prop_assert_eq!(file.next_event(&mut tags).unwrap(), Next::NothingYet);
        }

        #[test]
        fn both_ways_give_the_same(events in proptest::collection::vec(arbitrary::events(), 0..6)) {
            let read = read(&events);
            let got: Vec<Vec<(String, ValueKind)>> = read
                .iter()
                .map(|event| event.points.iter().map(|point| (point.tag.to_string(), point.kind.clone())).collect())
                .collect();
            prop_assert_eq!(got, the_long_way(&events));
        }

        /// However the file grows, and wherever reading is given up and begun anew with what was saved.
        #[test]
        fn cuts_do_not_matter(
            events in proptest::collection::vec(arbitrary::events(), 1..6),
            cuts in proptest::collection::vec((any::<Index>(), 0_u8..3), 0..5),
        ) {
            let mut bytes = Vec::new();
            events.iter().for_each(|event| write_event(&mut bytes, event));
            let mut cuts: Vec<(usize, u8)> = cuts.iter().map(|(cut, how)| (cut.index(bytes.len() + 1), *how)).collect();
            cuts.push((bytes.len(), 0));
            cuts.sort_unstable();
            let (_directory, path) = file_of(b"");
            let mut writer = File::create(&path).unwrap();
            let mut tags = TagTable::default();
            let mut file = EventFile::open(&path, &FilePosition::default()).unwrap();
            let mut got = Vec::new();
            let mut written = 0;
            for (cut, how) in cuts {
                writer.write_all(&bytes[written..cut]).unwrap();
                written = cut;
                drain(&mut file, &mut tags, &mut got);
                if how > 0 {
                    // With 2 the last event is read once more.
                    let mut position = file.position();
                    if how == 2 && got.last().is_some_and(|last| last.at == file.position_before().offset) {
                        position = file.position_before();
                        got.pop();
                    }
                    let position: FilePosition =
                        serde_json::from_str(&serde_json::to_string(&position).unwrap()).unwrap();
                    tags = serde_json::from_str(&serde_json::to_string(&tags).unwrap()).unwrap();
                    file = EventFile::open(&path, &position).unwrap();
                }
            }
            drain(&mut file, &mut tags, &mut got);
            let (_directory, path) = file_of(&bytes);
            let mut expected = Vec::new();
            let mut file = EventFile::open(&path, &FilePosition::default()).unwrap();
            drain(&mut file, &mut TagTable::default(), &mut expected);
            prop_assert_eq!(comparable(&got), comparable(&expected));
        }
    }
}
