//! What a recorder keeps when it is let go at a bad moment: like a crash, but at a moment that the test chooses.
#![allow(clippy::unwrap_used, reason = "tests")]

mod crashes;

use std::fs;
use std::path::PathBuf;

use super::pass::{ROWS_PER_COMMIT, ROWS_PER_QUESTION};
use super::*;
use crate::checkpoint::Shape;
use crate::proto::tensorboard::{Event, HistogramProto, Summary, event, summary};
use crate::state_file::place::StateHome;
use crate::survey::{PlannedRun, Survey};
use crate::tfevents::write::write_event;

/// Appends an event with one value.
fn write_scalar(bytes: &mut Vec<u8>, tag: &str, wall_time: f64, step: i64, value: f32) {
    let value = Some(summary::value::Value::SimpleValue(value));
    let value = summary::Value { tag: tag.to_owned().into(), value, ..summary::Value::default() };
    let what = Some(event::What::Summary(Summary { value: vec![value] }));
    write_event(bytes, &Event { wall_time, step, what, ..Event::default() });
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("logs")).unwrap();
        place
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// A file with a value at each of these times; the time is its step, too.
    fn write(&self, name: &str, tag: &str, times: impl Iterator<Item = u32>) {
        let mut bytes = Vec::new();
        for time in times {
            write_scalar(&mut bytes, tag, f64::from(time), i64::from(time), 1.0);
        }
        fs::write(self.path("logs").join(format!("events.out.tfevents.0000000000.{name}")), bytes).unwrap();
    }

    fn plan(&self) -> PlannedRun {
        let mut found = Survey::new(&Shape::default(), 0).look(&[self.path("logs")]).unwrap();
        assert_eq!(found.runs.len(), 1);
        found.runs.remove(0)
    }

    fn open(&self) -> Recorder {
        let options = RecordOptions {
            max_record: u64::MAX,
            shape: Shape::default(),
            filter: Arc::default(),
            summaries: Vec::new(),
            generation: 0,
            state: StateHome::default(),
            save_events: false,
            dry_run: false,
        };
        let plan = self.plan();
        Recorder::open(&self.path("run"), &plan.id, &plan, &Described::default(), &options).unwrap()
    }

    /// How many rows one pass writes, and how many values these hold.
    fn pass(&self, recorder: &mut Recorder, end: End, go_on: bool) -> (u64, u64) {
        let (pass, result) = recorder.pass(&self.plan().sources, end, |_| {}, |_| go_on);
        result.unwrap();
        (pass.rows, pass.kinds.clone().sum().sent)
    }
}

#[test]
fn a_row_that_was_open_is_read_again_though_the_file_did_not_grow() {
    let place = Place::new();
    place.write("a", "loss", 0..3);
    let mut recorder = place.open();
    assert_eq!(place.pass(&mut recorder, End::KeepRow, true), (2, 2));
    assert_eq!(recorder.open_rows().count(), 1);
    drop(recorder);
    let mut recorder = place.open();
    assert_eq!(place.pass(&mut recorder, End::KeepRow, true), (0, 0));
    assert_eq!(place.pass(&mut recorder, End::CloseRow, true), (1, 1));
    drop(recorder);
    assert_eq!(place.pass(&mut place.open(), End::Exit(0), true), (0, 0));
}

/// One file is read to its end long before its last row is due.
fn stopped_early(place: &Place) -> Recorder {
    place.write("a", "loss", (0..150_000).chain([200_000]));
    place.write("b", "accuracy", [0, 170_000].into_iter());
    let mut recorder = place.open();
    assert_eq!(place.pass(&mut recorder, End::Exit(0), false), (ROWS_PER_QUESTION, ROWS_PER_QUESTION));
    assert_eq!(recorder.checkpoint().ending, None);
    recorder
}

#[test]
fn what_was_read_ahead_is_not_lost_when_a_pass_is_stopped() {
    let place = Place::new();
    let mut recorder = stopped_early(&place);
    assert_eq!(place.pass(&mut recorder, End::Exit(0), true).0, 150_003 - ROWS_PER_QUESTION);
}

#[test]
fn what_was_lost_before_a_pass_was_stopped_is_counted_once() {
    let place = Place::new();
    place.write("a", "loss", 0..10_000);
    let file = place.path("logs/events.out.tfevents.0000000000.a");
    let mut bytes = fs::read(&file).unwrap();
    // In the second record, which has as many bytes as the first one.
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 16;
    bytes[length + 14] ^= 1;
    fs::write(&file, bytes).unwrap();
    let mut recorder = place.open();
    let mut lost = Skips::default();
    for go_on in [false, true] {
        let (pass, result) = recorder.pass(&place.plan().sources, End::Exit(0), |_| {}, |_| go_on);
        result.unwrap();
        lost.merge(&pass.skips);
        lost.merge(&pass.known);
    }
    assert_eq!(recorder.checkpoint().state.rows, 9_999);
    let counts: Vec<_> = lost.iter().map(|(reason, count)| (reason.to_string(), count.count)).collect();
    assert_eq!(counts, [("damaged record".to_owned(), 1)]);
}

#[test]
fn what_was_read_ahead_is_not_lost_in_a_crash() {
    let place = Place::new();
    drop(stopped_early(&place));
    assert_eq!(place.pass(&mut place.open(), End::Exit(0), true).0, 150_003 - ROWS_PER_QUESTION);
}

/// Histograms, at these times.
fn histograms(times: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for time in times {
        let histogram = HistogramProto {
            min: 0.0,
            max: 1.0,
            num: 1.0,
            bucket_limit: vec![1.0],
            bucket: vec![1.0],
            ..HistogramProto::default()
        };
        let value = Some(summary::value::Value::Histo(histogram));
        let value = summary::Value { tag: "weights".into(), value, ..summary::Value::default() };
        let what = Some(event::What::Summary(Summary { value: vec![value] }));
        let (wall_time, step) = (f64::from(time), i64::from(time));
        write_event(&mut bytes, &Event { wall_time, step, what, ..Event::default() });
    }
    bytes
}

#[test]
fn a_pass_that_is_stopped_counts_what_it_kept() {
    let place = Place::new();
    place.write("a", "loss", 0..6000);
    fs::write(place.path("logs/events.out.tfevents.0000000000.b"), histograms(0..6000)).unwrap();
    let mut recorder = place.open();
    let (mut events, mut rows, mut sent, mut bytes) = (0, 0, 0, 0);
    for round in 0..3 {
        let (pass, result) = recorder.pass(&place.plan().sources, End::Exit(0), |_| {}, |_| false);
        result.unwrap();
        if round < 2 {
            // Every event makes a row of its own.
            assert_eq!((pass.rows, pass.events), (ROWS_PER_QUESTION, ROWS_PER_QUESTION));
        }
        assert_eq!(pass.kinds.sum().sent, pass.events);
        events += pass.events;
        rows += pass.rows;
        sent += pass.kinds.sum().sent;
        bytes += pass.bytes;
        drop(recorder);
        recorder = place.open();
    }
    assert_eq!((events, rows, sent), (12_000, 12_000, 12_000));
    assert_eq!(bytes, place.plan().sources.iter().map(|source| source.size).sum::<u64>());
}

#[test]
fn a_file_without_any_row_stops_as_well() {
    let place = Place::new();
    let mut bytes = Vec::new();
    for time in 0..20_000 {
        write_event(&mut bytes, &Event { wall_time: f64::from(time), ..Event::default() });
    }
    fs::write(place.path("logs/events.out.tfevents.0000000000.a"), &bytes).unwrap();
    let mut recorder = place.open();
    let (pass, result) = recorder.pass(&place.plan().sources, End::Exit(0), |_| {}, |_| false);
    result.unwrap();
    assert!((1..10_000).contains(&pass.events), "{}", pass.events);
    drop(recorder);
    let (rest, result) = place.open().pass(&place.plan().sources, End::Exit(0), |_| {}, |_| true);
    result.unwrap();
    assert_eq!((pass.events + rest.events, pass.bytes + rest.bytes), (20_000, bytes.len() as u64));
}

#[test]
fn a_pass_that_fails_counts_what_was_committed() {
    let place = Place::new();
    let rows = u32::try_from(ROWS_PER_COMMIT).unwrap();
    place.write("a", "loss", 0..rows + 500);
    let path = place.path("logs/events.out.tfevents.0000000000.a");
    let mut bytes = fs::read(&path).unwrap();
    // A file of the run that cannot be made, because something else has the name of its directory.
    let image = summary::Image {
        height: 1,
        width: 1,
        colorspace: 1,
        encoded_image_string: include_bytes!("../../tests/fixtures/every_kind/torch/00001/words/sprite.png")
            .as_slice()
            .into(),
    };
    let value = Some(summary::value::Value::Image(image));
    let value = summary::Value { tag: "picture".into(), value, ..summary::Value::default() };
    let what = Some(event::What::Summary(Summary { value: vec![value] }));
    write_event(&mut bytes, &Event { wall_time: f64::from(rows + 500), what, ..Event::default() });
    fs::write(&path, bytes).unwrap();
    let mut recorder = place.open();
    fs::write(place.path("run/files"), b"").unwrap();
    let (pass, result) = recorder.pass(&place.plan().sources, End::Exit(0), |_| {}, |_| true);
    assert!(matches!(result, Err(RecordError::Io { .. })), "{result:?}");
    assert_eq!((pass.rows, pass.events, pass.kinds.sum().sent), (ROWS_PER_COMMIT, ROWS_PER_COMMIT, ROWS_PER_COMMIT));
    drop(recorder);
    fs::remove_file(place.path("run/files")).unwrap();
    let (pass, result) = place.open().pass(&place.plan().sources, End::Exit(0), |_| {}, |_| true);
    result.unwrap();
    assert_eq!((pass.events, pass.kinds.sum().sent, pass.files.files), (501, 501, 1));
}

#[test]
fn a_row_that_was_open_when_its_file_vanished_is_written() {
    let place = Place::new();
    place.write("a", "loss", 0..3);
    place.write("b", "accuracy", 0..3);
    let mut recorder = place.open();
    assert_eq!(place.pass(&mut recorder, End::KeepRow, true), (4, 4));
    fs::remove_file(place.path("logs/events.out.tfevents.0000000000.a")).unwrap();
    assert_eq!(place.pass(&mut recorder, End::KeepRow, true), (1, 1));
    assert_eq!(recorder.open_rows().count(), 1);
    assert_eq!(place.pass(&mut recorder, End::CloseRow, true), (1, 1));
    // It comes back as it was, and is read on.
    place.write("a", "loss", 0..5);
    assert_eq!(place.pass(&mut recorder, End::CloseRow, true), (2, 2));
}

/// A network file system says how long a file was a while ago, and gives all of it.
#[test]
fn sizes_that_are_old_lose_and_double_nothing() {
    let place = Place::new();
    place.write("a", "loss", 0..10);
    let mut recorder = place.open();
    let mut pass = |size: Option<u64>, end: End| {
        let mut sources = place.plan().sources;
        sources[0].size = size.unwrap_or(sources[0].size);
        let (pass, result) = recorder.pass(&sources, end, |_| {}, |_| true);
        result.unwrap();
        (pass.rows, recorder.unfinished(&sources, true).is_empty())
    };
    assert_eq!(pass(Some(1), End::CloseRow), (10, true));
    // Smaller than what was read, and then smaller again; nothing of that is true.
    assert_eq!(pass(Some(50), End::CloseRow), (0, true));
    assert_eq!(pass(Some(20), End::CloseRow), (0, true));
    assert_eq!(pass(None, End::CloseRow), (0, true));
    // It has grown, which is not known yet.
    let known = place.plan().sources[0].size;
    place.write("a", "loss", 0..12);
    assert_eq!(pass(Some(known + 1), End::CloseRow), (2, true));
    assert_eq!(pass(None, End::CloseRow), (0, true));
    place.write("a", "loss", 0..13);
    let mut plan = place.plan();
    plan.sources[0].size = known;
    Survey::ask_anew(&mut plan);
    assert_eq!(pass(Some(plan.sources[0].size), End::Exit(0)), (1, true));
}
