//! What is in the files: event files that grow piece by piece, and every point that was put into them.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use wandb_bridge::proto::tensorboard::{Event, Summary, event, summary};
use wandb_bridge::tfevents::write::write_event;

use crate::support::events::START;
use crate::support::faults::Chance;
use crate::support::official::copy_tree;
use crate::support::server::hex;

/// What a tag holds at a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Number(f32),
    /// The hash of its bytes.
    Image(String),
}

/// One value, its step and its wall time.
pub(super) type Point = (i64, Value, f64);

/// The points of one metric, in the order in which they were written.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    pub(super) points: Vec<Point>,
    /// The first step of each file but the first.
    files: Vec<i64>,
}

impl Series {
    /// Puts points into the order in which they were written, as far as that is kept: points of one file do not change
    /// places.
    pub(super) fn by_file(&self, mut points: Vec<Point>) -> Vec<Point> {
        points.sort_by_key(|(step, ..)| self.files.partition_point(|first| first <= step));
        points
    }
}

/// The points of a run, by metric.
pub(super) type Points = BTreeMap<String, Series>;

/// What a writer puts into its files.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// The run that it belongs to, by name.
    pub(super) run: String,
    directory: PathBuf,
    /// What its metrics are called: a directory's name and its own.
    prefix: String,
    own: String,
    files: u32,
    path: PathBuf,
    step: i64,
    now: f64,
    /// Written by the writer, but not to the file yet.
    rest: Vec<u8>,
    points: BTreeMap<String, Vec<Point>>,
    /// The steps at which it went on in new files.
    restarts: Vec<i64>,
}

impl Stream {
    /// A writer in the directory of a run, or one below it. Writers of one run have names of their own.
    pub(super) fn new(logs: &Path, began: f64, run: &str, below: &str, own: &str) -> Self {
        let directory = logs.join(run).join(below);
        fs::create_dir_all(&directory).unwrap();
        let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
        let mut stream = Self {
            run: run.to_owned(),
            directory,
            prefix,
            own: own.to_owned(),
            files: 0,
            path: PathBuf::new(),
            step: 0,
            now: began,
            rest: Vec::new(),
            points: BTreeMap::new(),
            restarts: Vec::new(),
        };
        stream.restart();
        stream.flush(0);
        stream
    }

    /// Goes on in a new file, as a job does that was started again.
    pub(super) fn restart(&mut self) {
        if !self.path.as_os_str().is_empty() {
            self.flush(0);
            self.restarts.push(self.step);
        }
        let name = format!("events.out.tfevents.{:010.0}.{}.{}", self.now, self.own, self.files);
        self.path = self.directory.join(name);
        self.files += 1;
        let version = event::What::FileVersion("brain.Event:2".into());
        self.event(Event { what: Some(version), ..Event::default() });
    }

    /// One step: two numbers, and an image if asked for.
    pub(super) fn step(&mut self, chance: &mut Chance, image: bool) {
        self.now += 1.0;
        for tag in ["loss", "accuracy"] {
            let value = chance.below(1 << 24) as f32 / 16.0;
            self.value(tag, summary::value::Value::SimpleValue(value), Value::Number(value));
        }
        if image {
            let bytes = picture(chance);
            let hash = hex(&Sha256::digest(&bytes));
            let picture = summary::Image { height: 2, width: 2, colorspace: 3, encoded_image_string: bytes.into() };
            self.value("picture", summary::value::Value::Image(picture), Value::Image(hash));
        }
        self.step += 1;
    }

    /// Some steps, or none; now and then a new file. What comes is written but for the last bytes, which may be in the
    /// middle of a record.
    pub(super) fn grow(&mut self, chance: &mut Chance) {
        if chance.one_in(12) {
            self.restart();
        }
        for _ in 0..chance.below(25) {
            let image = chance.one_in(6);
            self.step(chance, image);
        }
        self.flush(chance.below(80) as usize);
    }

    /// Writes all but so many bytes.
    pub(super) fn flush(&mut self, keep: usize) {
        let now: Vec<u8> = self.rest.drain(..self.rest.len().saturating_sub(keep)).collect();
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
        file.write_all(&now).unwrap();
    }

    fn value(&mut self, tag: &str, value: summary::value::Value, point: Value) {
        let tag = format!("{}_{tag}", self.own);
        self.points.entry(format!("{}{tag}", self.prefix)).or_default().push((self.step, point, self.now));
        let value = summary::Value { tag: tag.into(), value: Some(value), ..summary::Value::default() };
        let what = Some(event::What::Summary(Summary { value: vec![value] }));
        self.event(Event { step: self.step, what, ..Event::default() });
    }

    fn event(&mut self, event: Event) {
        write_event(&mut self.rest, &Event { wall_time: self.now, ..event });
    }
}

/// The points of all runs, by run.
pub(super) fn points(streams: &[Stream]) -> BTreeMap<String, Points> {
    let mut runs: BTreeMap<String, Points> = BTreeMap::new();
    for stream in streams {
        let series = |points: &Vec<Point>| Series { points: points.clone(), files: stream.restarts.clone() };
        let points = stream.points.iter().map(|(key, points)| (key.clone(), series(points)));
        runs.entry(stream.run.clone()).or_default().extend(points);
    }
    runs
}

/// The config of every run, and the file that says it.
pub(super) const CONFIG: &str = "lr: 0.25\nmodel:\n  name: tiny\n";

/// Several runs that grow now: two writers in one directory, a split below another, each with its config.
pub(super) fn several(logs: &Path) -> Vec<Stream> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as f64;
    let stream = |run, below, own| Stream::new(logs, now, run, below, own);
    let streams = vec![
        stream("a", "", "first"),
        stream("a", "", "second"),
        stream("b", "", "train"),
        stream("b", "eval", "held"),
        stream("c", "", "alone"),
    ];
    for run in ["a", "b", "c"] {
        fs::write(logs.join(run).join("hparams.yaml"), CONFIG).unwrap();
    }
    streams
}

/// A small input that is all there: numbers and images over two runs, one with so many images that the file system is
/// synced as a whole. `before` gets what was there at an earlier time.
pub(super) fn small(logs: &Path, before: &Path) -> Vec<Stream> {
    let chance = &mut Chance::new(4);
    let stream = |run, own| Stream::new(logs, START, run, "", own);
    let mut streams = [stream("a", "first"), stream("a", "second"), stream("b", "train")];
    for run in ["a", "b"] {
        fs::write(logs.join(run).join("hparams.yaml"), CONFIG).unwrap();
    }
    for part in 0..2 {
        for stream in &mut streams {
            let steps = if stream.run == "a" { [2, 2] } else { [2, 17] };
            for step in 0..steps[part] {
                stream.step(chance, stream.run == "b" || (part, step) == (1, 0));
            }
            stream.flush(0);
        }
        if part == 0 {
            copy_tree(logs, before);
        }
    }
    streams.into()
}

/// More runs than as many as are made durable one by one, each of few steps.
pub(super) fn many(logs: &Path, chance: &mut Chance) -> Vec<Stream> {
    let streams = (0..20).map(|number| {
        let run = format!("r{number:02}");
        let mut stream = Stream::new(logs, START + f64::from(number), &run, "", "one");
        fs::write(logs.join(run).join("hparams.yaml"), CONFIG).unwrap();
        (0..2).for_each(|_| stream.step(chance, number == 0));
        stream.flush(0);
        stream
    });
    streams.collect()
}

/// What begins like a PNG of 2×2 pixels; nobody looks further. No two are the same.
fn picture(chance: &mut Chance) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x02\0\0\0\x02\x08\x02\0\0\0".to_vec();
    for _ in 0..16 + chance.below(200) {
        bytes.extend(chance.next().to_le_bytes());
    }
    bytes
}
