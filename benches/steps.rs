//! The steps that each value goes through, one by one: what a change of one of them costs or saves.
//!
//! `cargo bench` measures; `cargo test --benches` runs each once. Whole commands are measured by `scripts/bench`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use wandb_bridge::convert::axes::Axes;
use wandb_bridge::convert::keys::KeyRule;
use wandb_bridge::convert::kinds::Cell;
use wandb_bridge::convert::rows::{Resume, RowBuilder};
use wandb_bridge::model::{Histogram, LogPosition, Number, Row, RowValue, RunUpdate, Step, WallTime};
use wandb_bridge::proto::tensorboard::{Event, Summary, event, summary};
use wandb_bridge::tfevents::record::{Frame, frame};
use wandb_bridge::tfevents::write::write_record;
use wandb_bridge::tfevents::{EventFile, FilePosition, Next, TagTable, event as decoding};
use wandb_bridge::wandb_format::{EntryKind, HistoryLines, LogReader, LogWriter, Next as NextEntry, RecordEncoder};

const EVENTS: usize = 20_000;
const TAGS: usize = 4;

/// As many rows as `EVENTS` scalars make, with these values in each.
fn rows(values: impl Fn(usize) -> Vec<(Arc<str>, RowValue)>) -> Vec<RunUpdate> {
    let axis: Arc<str> = Arc::from("global_step");
    let row = |index: usize| {
        RunUpdate::Row(Row {
            index: index as u64,
            timestamp: 1.7e9 + index as f64 / 8.0,
            runtime: index as f64 / 8.0,
            axis: axis.clone(),
            axis_value: index as i64,
            values: values(index),
        })
    };
    (0..EVENTS / TAGS).map(row).collect()
}

/// Rows of one histogram of 30 bins.
fn histograms() -> Vec<RunUpdate> {
    let key: Arc<str> = Arc::from("weights");
    rows(|index| {
        let edge = |bin: usize| (index as f64).sin() + bin as f64 * 0.037;
        let histogram = Histogram {
            edges: (0..=30).map(edge).collect(),
            weights: (0..30).map(|bin| f64::from(bin * bin % 1000)).collect(),
        };
        vec![(key.clone(), histogram.into())]
    })
}

/// Scalars of some tags, one an event.
fn payloads() -> Vec<Vec<u8>> {
    let event = |index: usize| {
        let value = summary::Value {
            tag: format!("train/metric_{}", index % TAGS).into(),
            value: Some(summary::value::Value::SimpleValue((index as f32).sin())),
            ..Default::default()
        };
        let what = Some(event::What::Summary(Summary { value: vec![value] }));
        Event { wall_time: 1.7e9 + index as f64 / 8.0, step: (index / TAGS) as i64, what, ..Default::default() }
    };
    (0..EVENTS).map(|index| event(index).encode_to_vec()).collect()
}

fn framed() -> Vec<u8> {
    let mut bytes = Vec::new();
    payloads().iter().for_each(|payload| write_record(&mut bytes, payload));
    bytes
}

fn updates() -> Vec<RunUpdate> {
    let keys: Vec<Arc<str>> = (0..TAGS).map(|tag| Arc::from(format!("train/metric_{tag}"))).collect();
    rows(|index| {
        let value = |key: &Arc<str>| (key.clone(), RowValue::Number(Number::F32((index as f32).sin())));
        keys.iter().map(value).collect()
    })
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reading");
    group.throughput(Throughput::Elements(EVENTS as u64));
    let bytes = framed();
    group.bench_function("framing and checksums", |bencher| {
        bencher.iter(|| {
            let (mut at, mut records) = (0, 0);
            while let Frame::Record { consumed, .. } = frame(black_box(&bytes[at..]), u64::MAX) {
                (at, records) = (at + consumed, records + 1);
            }
            assert_eq!(records, EVENTS);
        });
    });
    let payloads: Vec<Bytes> = payloads().into_iter().map(Bytes::from).collect();
    group.bench_function("decoding events, whole", |bencher| {
        bencher.iter(|| payloads.iter().filter(|payload| decoding::decode((*payload).clone()).is_ok()).count());
    });
    let mut file = tempfile::Builder::new().prefix("tfevents").tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    group.bench_function("an event file, the short way", |bencher| {
        bencher.iter(|| {
            let mut tags = TagTable::default();
            let mut file = EventFile::open(file.path(), &FilePosition::default()).unwrap();
            let mut events = 0;
            while file.next_event(&mut tags).unwrap() == Next::Event {
                events += file.event().points.len();
            }
            assert_eq!(events, EVENTS);
        });
    });
}

fn recording(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recording");
    group.throughput(Throughput::Elements(EVENTS as u64));
    let tags: Vec<Arc<str>> = (0..TAGS).map(|tag| Arc::from(format!("train/metric_{tag}"))).collect();
    group.bench_function("building rows", |bencher| {
        bencher.iter(|| {
            let mut rows = RowBuilder::new(KeyRule::default(), Arc::new(Axes::new(&[])), false, None);
            let mut closed = std::collections::VecDeque::new();
            for index in 0..EVENTS {
                let time = WallTime::new(1.7e9 + index as f64 / 8.0).unwrap();
                let cell = (&tags[index % TAGS], Cell::Number(Number::F32(0.5)));
                let before = Resume { offset: index as u64, ..Resume::default() };
                rows.push(time, Step((index / TAGS) as i64), [cell].into_iter(), before, &mut closed);
                closed.clear();
            }
        });
    });
    let rows = histograms();
    group.bench_function("encoding rows of histograms", |bencher| {
        let (mut encoder, mut body) = (RecordEncoder::default(), Vec::new());
        bencher.iter(|| {
            for row in &rows {
                encoder.encode(row, &mut body);
                assert!(!black_box(&body).is_empty());
            }
        });
    });
    let updates = updates();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run-a.wandb");
    group.bench_function("appending to a log", |bencher| {
        let mut encoder = RecordEncoder::default();
        let mut body = Vec::new();
        let fresh = || {
            let _ = std::fs::remove_file(&path);
            LogWriter::create(&path).unwrap()
        };
        bencher.iter_batched(
            fresh,
            |mut log| {
                for update in &updates {
                    encoder.encode(update, &mut body);
                    log.append_encoded(&body).unwrap();
                }
                log.flush().unwrap();
            },
            BatchSize::PerIteration,
        );
    });
}

fn uploading(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run-a.wandb");
    let mut log = LogWriter::create(&path).unwrap();
    let (mut encoder, mut body) = (RecordEncoder::default(), Vec::new());
    for update in &updates() {
        encoder.encode(update, &mut body);
        log.append_encoded(&body).unwrap();
    }
    log.flush().unwrap();
    let mut group = criterion.benchmark_group("uploading");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("reading a log", |bencher| {
        bencher.iter(|| each_row(&path, |row| assert!(!black_box(row).is_empty())));
    });
    group.bench_function("reading a log and building its lines", |bencher| {
        let (mut lines, mut text) = (HistoryLines::default(), Vec::new());
        bencher.iter(|| {
            text.clear();
            each_row(&path, |row| assert_eq!(lines.append(row, &mut text).skipped, 0));
        });
    });
}

fn each_row(path: &std::path::Path, mut visit: impl FnMut(&[u8])) {
    let mut log = LogReader::open_at(path, LogPosition(0)).unwrap();
    let mut rows = 0;
    while let NextEntry::Entry(entry) = log.next().unwrap() {
        if let EntryKind::History(row) = entry.kind {
            visit(row);
            rows += 1;
        }
    }
    assert_eq!(rows, EVENTS / TAGS);
}

criterion_group!(benches, reading, recording, uploading);
criterion_main!(benches);
