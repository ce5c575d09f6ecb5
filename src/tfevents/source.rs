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
        Self::behind(RecordReader::open_behind(path, position.offset, position.before)?, position)
    }

    /// All events of a file that was opened to look at its records, from the first on.
    pub(super) fn over(mut reader: RecordReader) -> io::Result<Self> {
        reader.rewind();
        Self::behind(reader, &FilePosition::default())
    }

    fn behind(reader: RecordReader, position: &FilePosition) -> io::Result<Self> {
        let name = reader.path().file_name().unwrap_or_default().to_string_lossy();
        #[expect(clippy::cast_precision_loss, reason = "ten digits")]
        let named_time = start_of(&name).and_then(|seconds| WallTime::new(seconds as f64));
        Ok(Self {
            reader,
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
mod tests;
