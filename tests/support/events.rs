//! Event files, as a writer makes them and appends to them.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use wandb_bridge::proto::tensorboard::summary::Value;
use wandb_bridge::proto::tensorboard::{Event, Summary, event, summary};
use wandb_bridge::tfevents::write::write_event;

/// When the first event of every file happens.
pub const START: f64 = 1_784_016_000.0;

/// A writer of one event file, with its version event in it.
pub struct Writer {
    path: PathBuf,
    /// The wall time of the next event; a second passes from one to the next.
    pub now: f64,
}

impl Writer {
    /// A new file in a directory, which is made if need be.
    pub fn create(directory: &Path, name: &str) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let mut writer = Self { path: directory.join(name), now: START };
        let version = event::What::FileVersion("brain.Event:2".into());
        writer.append(&[Event { what: Some(version), ..Event::default() }]);
        writer
    }

    /// With the usual name.
    pub fn new(directory: &Path) -> Self {
        Self::create(directory, "events.out.tfevents.1784016000.trainer-0.4242.0")
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One scalar an event, flushed as one piece.
    pub fn scalars(&mut self, tag: &str, points: impl IntoIterator<Item = (i64, f32)>) -> &mut Self {
        let events: Vec<Event> = points.into_iter().map(|(step, value)| scalar(step, tag, value)).collect();
        self.append(&events);
        self
    }

    /// Appends events, and gives them times.
    pub fn append(&mut self, events: &[Event]) {
        let mut bytes = Vec::new();
        for event in events {
            write_event(&mut bytes, &Event { wall_time: self.now, ..event.clone() });
            self.now += 1.0;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
        file.write_all(&bytes).unwrap();
    }
}

/// An event with one scalar, without a time.
pub fn scalar(step: i64, tag: &str, value: f32) -> Event {
    let value = Value {
        tag: tag.to_owned().into(),
        value: Some(summary::value::Value::SimpleValue(value)),
        ..Value::default()
    };
    Event { step, what: Some(event::What::Summary(Summary { value: vec![value] })), ..Event::default() }
}
