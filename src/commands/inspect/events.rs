//! What event files hold, as the run that they would make.
//!
//! Keys, values and reasons come from the code that records, so that the same is said before and after. Nothing is
//! written; of the files that a run would have only their sizes are kept.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use super::limits::{Limit, Limits, Volume};
use super::seen::{FileSeen, KindSeen, RunSeen, SeenAs, SessionSeen, TagSeen};
use super::tags::{Row, Tags};
use crate::convert::axes::Axes;
use crate::convert::config;
use crate::convert::kinds::{Carried, CarriedFile, Cell, Names, assemble, carry_point, counted_as};
use crate::convert::restarts::Restarts;
use crate::convert::tag_names::TagNames;
use crate::model::{Json, Kinds, RowValue, SkippedReason, Skips};
use crate::pipeline::Planned;
use crate::proto::tensorboard::session_log::SessionStatus;
use crate::recorder::{
    Judge, RecordOptions, ToScan, find_superseded, kind_of, place_of_file, place_of_value, reason, rules, side_files_of,
};
use crate::survey::{PlannedRun, PlannedSource};
use crate::tfevents::{EventFile, FilePosition, Next, SourceEvent, TagTable, ValueKind};

/// Damaged places of one file that are named one by one.
const PLACES: usize = 20;

/// Reads all files of a run.
pub(super) fn look_at_run(planned: &Planned<'_>, options: &RecordOptions, axes: &Arc<Axes>) -> RunSeen {
    let plan = planned.plan;
    let mut reading = Reading { max_record: options.max_record, ..Reading::default() };
    let mut tables: BTreeMap<&str, TagTable> = BTreeMap::new();
    let mut files = Vec::with_capacity(plan.sources.len());
    let rules = rules(planned.recorded.as_ref().map(|(_, checkpoint)| checkpoint), &plan.sources);
    let superseded = match options.shape.restarts {
        Restarts::Keep => Vec::new(),
        Restarts::Purge => {
            let files: Vec<_> = plan.sources.iter().zip(&rules).map(|(plan, rule)| ToScan { plan, rule }).collect();
            find_superseded(&files, axes, options.max_record)
        }
    };
    let mut superseded = superseded.into_iter();
    for (source, rule) in plan.sources.iter().zip(rules) {
        let table = tables.entry(&source.directory).or_default();
        let names = TagNames::new(rule, axes.clone(), source.from_tf2_writer);
        let mut judge = Judge::new(options.filter.clone());
        judge.set_superseded(superseded.next().unwrap_or_default());
        files.push(reading.read(source, names, judge, table));
    }
    reading.side_files(plan, options);
    reading.run(planned, files)
}

/// What all files of a run hold together.
#[derive(Default)]
struct Reading {
    tags: BTreeMap<(Arc<str>, String), TagSeen>,
    skips: Skips,
    kinds: Kinds,
    session: Option<SessionSeen>,
    config: Json,
    max_record: u64,
    /// Hashes of the paths of files that the run would have.
    run_files: HashSet<u64>,
    judged: BTreeSet<String>,
    /// Bytes of files beside the event files, by kind.
    side_bytes: BTreeMap<&'static str, u64>,
    events: u64,
    volume: Volume,
    limits: Limits,
}

impl Reading {
    fn read(&mut self, source: &PlannedSource, names: TagNames, mut judge: Judge, table: &mut TagTable) -> FileSeen {
        let mut file = FileSeen {
            path: source.label.clone(),
            bytes: source.size,
            uncompressed_bytes: 0,
            compression: None,
            writer: None,
            events: 0,
            damage: Vec::new(),
        };
        let mut tags = Tags::new(names);
        if let Err(error) = self.read_events(&source.path, &mut tags, &mut judge, table, &mut file) {
            let place = place_of_file(&source.path, &error);
            file.damage.push(error.to_string());
            self.skips.add(SkippedReason::Unreadable, 1, || place);
        }
        judge.take_counts(&mut self.kinds, &mut self.skips);
        self.judged.extend(judge.take_new_metrics().iter().map(ToString::to_string));
        tags.close();
        self.finish_rows(&mut tags, &source.path);
        self.events += file.events;
        self.take(&tags, source);
        file
    }

    fn read_events(
        &mut self,
        path: &Path,
        tags: &mut Tags,
        judge: &mut Judge,
        table: &mut TagTable,
        seen: &mut FileSeen,
    ) -> std::io::Result<()> {
        let mut file = EventFile::open(path, &FilePosition::default())?.with_limit(self.max_record);
        loop {
            let next = file.next_event(table)?;
            if next == Next::Event {
                seen.events += 1;
                self.event(file.event(), path, judge, tags);
                continue;
            }
            if let Some((reason, place)) = reason(&next, path, file.offset()) {
                if seen.damage.len() < PLACES && reason != SkippedReason::IncompleteTail {
                    seen.damage.push(match &next {
                        Next::BadRecord { at, why } => format!("record at byte {at}: {why}"),
                        Next::BadLength { at, why } => format!("everything from byte {at}: {why}"),
                        _ => place.clone(),
                    });
                }
                self.skips.add(reason, 1, || place);
            }
            if !matches!(next, Next::BadRecord { .. }) {
                break;
            }
        }
        let position = file.position();
        seen.uncompressed_bytes = position.offset;
        seen.writer = position.writer;
        seen.compression = file.compression().and_then(|compression| compression.name());
        Ok(())
    }

    #[inline]
    fn event(&mut self, event: &SourceEvent, path: &Path, judge: &mut Judge, tags: &mut Tags) {
        let (step, time) = (event.step.0, event.wall_time.seconds());
        let taken = judge.judge(event, path, |tag| tags.place(tag));
        for (index, point) in event.points.iter().enumerate() {
            if taken.is_some_and(|taken| taken.get(index) != Some(&true)) {
                continue;
            }
            match point.number {
                Some(number) => tags.scalar(point, number, step, time),
                None => self.value(point, event, path, tags),
            }
        }
        if let Some(status) = event.session {
            let session = self.session.get_or_insert_default();
            session.starts += u64::from(status == SessionStatus::Start);
            session.stops += u64::from(status == SessionStatus::Stop);
        }
        self.finish_rows(tags, path);
    }

    /// A value of any kind but a scalar.
    #[cold]
    fn value(&mut self, point: &crate::tfevents::Point, event: &SourceEvent, path: &Path, tags: &mut Tags) {
        let step = event.step.0;
        let index = tags.point(point, step, event.wall_time.seconds());
        let carried = carry_point(point, &tags.key(index), step, Names::Passing);
        Carried::count(&carried, self.kinds.of(counted_as(&point.kind)));
        let Carried { cell, files, config, session, notes } = match carried {
            Ok(carried) => carried,
            Err(why) => {
                self.skips.add(SkippedReason::BadValue, 1, || place_of_value(path, event.at, &point.tag, &why));
                return;
            }
        };
        for note in notes {
            self.skips.add(note, 1, || place_of_value(path, event.at, &point.tag, &"carried all the same"));
        }
        let bytes = self.files(&files);
        if let Some(tag) = tags.tag_mut(index) {
            tag.file_bytes += bytes;
        }
        for (keys, value) in config {
            self.config.set_path(&keys, value);
        }
        if session.is_some() {
            self.session.get_or_insert_default().end = session;
        }
        match cell {
            Some(Cell::Json(json)) => self.cell(index, step, &json.into(), tags),
            Some(Cell::Histogram(histogram)) => self.cell(index, step, &histogram.into(), tags),
            Some(Cell::Number(number)) => self.cell(index, step, &number.into(), tags),
            Some(Cell::MeshPart(part)) => tags.part(index, step, *part),
            None => {}
        }
    }

    fn cell(&mut self, index: usize, step: i64, value: &RowValue, tags: &mut Tags) {
        let bytes = tags.value(index, step, value);
        self.limits.check(Limit::ValueBytes, bytes, || format!("`{}` at step {step}", tags.key(index)));
    }

    /// Puts bodies together, and counts the rows that waited for that.
    #[inline]
    fn finish_rows(&mut self, tags: &mut Tags, path: &Path) {
        for row in tags.take_unfinished() {
            self.finish_row(row, tags, path);
        }
    }

    fn finish_row(&mut self, mut row: Row, tags: &mut Tags, path: &Path) {
        for assembled in assemble(std::mem::take(&mut row.parts)) {
            match assembled.body {
                Ok((value, files)) => {
                    let (text, bytes) = (value.to_string().len() as u64, self.files(&files));
                    row.cells += 1;
                    row.bytes += text;
                    if let Some(tag) = tags.of_key(&assembled.key) {
                        tag.measure(text);
                        tag.cells += 1;
                        tag.file_bytes += bytes;
                    }
                }
                Err(why) => {
                    let count = self.kinds.of(ValueKind::Mesh.name());
                    count.sent = count.sent.saturating_sub(assembled.parts);
                    count.lost += assembled.parts;
                    self.skips.add(SkippedReason::BadValue, assembled.parts, || {
                        format!("`{}`: `{}` at step {}: {why}", path.display(), assembled.key, row.step)
                    });
                }
            }
        }
        tags.count_row(&row);
    }

    /// Counts files that are new; their bytes.
    fn files(&mut self, files: &[CarriedFile]) -> u64 {
        let mut bytes = 0;
        for file in files {
            let mut hasher = DefaultHasher::new();
            file.path.hash(&mut hasher);
            if self.run_files.insert(hasher.finish()) {
                self.volume.files += 1;
                bytes += file.content.len() as u64;
            }
        }
        self.volume.file_bytes += bytes;
        bytes
    }

    /// Counts what lies beside the event files and would become files of the run.
    fn side_files(&mut self, plan: &PlannedRun, options: &RecordOptions) {
        let found = side_files_of(&plan.sources, &plan.listings);
        for (path, why) in &found.left {
            self.skips.add(SkippedReason::File, 1, || place_of_file(path, why));
        }
        for file in &found.files {
            let count = self.kinds.of(file.kind.name());
            count.read += 1;
            if options.filter.takes(kind_of(file)) {
                count.kept += 1;
                *self.side_bytes.entry(file.kind.name()).or_default() += file.size;
                self.volume.files += 1;
                self.volume.file_bytes += file.size;
            } else {
                count.left_out += 1;
                self.skips.add(SkippedReason::LeftOut, 1, || format!("`{}`", file.source.display()));
            }
        }
    }

    /// Takes over what one file held.
    fn take(&mut self, tags: &Tags, source: &PlannedSource) {
        self.volume.rows += tags.rows;
        self.volume.axis_bytes += tags.axis_bytes;
        let (bytes, step) = tags.largest_row;
        self.limits.check(Limit::RowBytes, bytes, || format!("`{}` at step {step}", source.label));
        for (tag, key, axis) in tags.iter() {
            self.volume.cells += tag.cells;
            self.volume.key_bytes += tag.cells * key.len() as u64;
            self.volume.text_bytes += tag.text_bytes();
            self.volume.last_bytes += tag.text_bytes() / tag.cells.max(1);
            if tag.kind == ValueKind::Scalar {
                let count = self.kinds.of(ValueKind::Scalar.name());
                count.read += tag.points;
                count.sent += tag.points;
            }
            let kind = tag.kind.name().to_owned();
            match self.tags.get_mut(&(key.clone(), kind.clone())) {
                Some(seen) => seen.merge(tag),
                None => {
                    self.tags.insert((key.clone(), kind), TagSeen::new(tag, key, axis));
                }
            }
        }
    }

    fn run(mut self, planned: &Planned<'_>, files: Vec<FileSeen>) -> RunSeen {
        let description = &planned.description;
        let named = || format!("run `{}`", description.name);
        let tags: Vec<TagSeen> = self.tags.into_values().collect();
        let mut kinds: BTreeMap<String, KindSeen> =
            self.kinds.iter().map(|(kind, count)| (kind.to_owned(), KindSeen { count: *count, bytes: 0 })).collect();
        let keys: HashSet<&str> = tags.iter().map(|tag| tag.key.as_str()).collect();
        self.volume.metrics = keys.len() as u64;
        self.volume.metric_bytes = keys.iter().map(|key| key.len() as u64).sum();
        self.limits.check(Limit::Metrics, keys.len() as u64, named);
        for tag in &tags {
            kinds.entry(counted_as(&tag.value_kind).to_owned()).or_default().bytes += tag.bytes;
            self.limits.check(Limit::of_points(&tag.value_kind), tag.points, || format!("`{}`", tag.key));
        }
        for (kind, bytes) in &self.side_bytes {
            kinds.entry((*kind).to_owned()).or_default().bytes += bytes;
        }
        // As it would be written: files and flags are nearer than what the logs say, and credentials are masked.
        config::lay_over(&mut self.config, planned.config.clone());
        config::mask(&mut self.config);
        let mut config = Vec::new();
        leaves(&self.config, &mut String::new(), &mut config);
        self.volume.config_bytes = if config.is_empty() { 0 } else { self.config.to_string().len() as u64 };
        self.limits.check(Limit::ConfigBytes, self.volume.config_bytes, named);
        RunSeen {
            seen_as: SeenAs {
                source: planned.plan.directory.display().to_string(),
                run_id: planned.id.to_string(),
                name: description.name.clone(),
                group: description.group.clone(),
                entity: description.entity.clone(),
                project: description.project.clone(),
            },
            dir: planned.recorded.as_ref().map(|(directory, _)| directory.display().to_string()),
            rows_recorded: planned.recorded.as_ref().map_or(0, |(_, checkpoint)| checkpoint.state.rows),
            copy: !planned.plan.copy_names.is_empty(),
            events: self.events,
            rows: self.volume.rows,
            bytes: files.iter().map(|file| file.bytes).sum(),
            files,
            kinds,
            tags,
            session: self.session,
            config,
            run_files: self.volume.files,
            run_file_bytes: self.volume.file_bytes,
            limits: self.limits,
            estimate: self.volume.estimate(),
            skipped: self.skips.report(),
            skips: self.skips,
            judged: self.judged,
        }
    }
}

/// The values of a config, each as `a.b=value`.
fn leaves(value: &Json, path: &mut String, out: &mut Vec<String>) {
    match value {
        Json::Object(members) => {
            // What W&B keeps for itself is no config of the run.
            let is_root = path.is_empty();
            for (key, value) in members.iter().filter(|(key, _)| !is_root || *key != "_wandb") {
                let length = path.len();
                if length > 0 {
                    path.push('.');
                }
                path.push_str(key);
                leaves(value, path, out);
                path.truncate(length);
            }
        }
        Json::Null if path.is_empty() => {}
        value => out.push(format!("{path}={value}")),
    }
}
