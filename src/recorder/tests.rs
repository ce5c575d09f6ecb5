//! What a recorder keeps when it is let go at a bad moment: like a crash, but at a moment that the test chooses.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use super::pass::ROWS_PER_COMMIT;
use super::*;
use crate::checkpoint::Shape;
use crate::proto::tensorboard::{Event, Summary, event, summary};
use crate::survey::{PlannedRun, Survey};
use crate::tfevents::write::write_event;

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
            let value = Some(summary::value::Value::SimpleValue(1.0));
            let value = summary::Value { tag: tag.to_owned().into(), value, ..summary::Value::default() };
            let what = Some(event::What::Summary(Summary { value: vec![value] }));
            let (wall_time, step) = (f64::from(time), i64::from(time));
            write_event(&mut bytes, &Event { wall_time, step, what, ..Event::default() });
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
            shape: Shape::default(),
            filter: Arc::default(),
            summaries: Vec::new(),
            generation: 0,
            save_events: false,
            dry_run: false,
        };
        let plan = self.plan();
        Recorder::open(&self.path("run"), &plan.id, &plan, &Described::default(), &options).unwrap()
    }

    /// How many rows one pass writes, and how many values these hold.
    fn pass(&self, recorder: &mut Recorder, end: End, go_on: bool) -> (u64, u64) {
        let pass = recorder.pass(&self.plan().sources, end, |_| {}, |_| go_on).unwrap();
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
    assert_eq!(place.pass(&mut recorder, End::Exit(0), false).0, ROWS_PER_COMMIT);
    assert_eq!(recorder.checkpoint().ending, None);
    recorder
}

#[test]
fn what_was_read_ahead_is_not_lost_when_a_pass_is_stopped() {
    let place = Place::new();
    let mut recorder = stopped_early(&place);
    assert_eq!(place.pass(&mut recorder, End::Exit(0), true).0, 150_003 - ROWS_PER_COMMIT);
}

#[test]
fn what_was_read_ahead_is_not_lost_in_a_crash() {
    let place = Place::new();
    drop(stopped_early(&place));
    assert_eq!(place.pass(&mut place.open(), End::Exit(0), true).0, 150_003 - ROWS_PER_COMMIT);
}
