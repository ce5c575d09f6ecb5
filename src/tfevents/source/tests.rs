//! Events by the short and by the long way, from files that grow and from saved positions.

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
