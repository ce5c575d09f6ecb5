//! Events of one source become history rows.
//!
//! Events with the same axis value, next to each other, make one row, until a tag comes that the row already holds:
//! that starts a new row. No value ever overwrites another. Steps that go back, repeat or jump stay rows. A row that
//! would be larger than W&B takes is divided: only a single value can be too large.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::convert::axes::Axes;
use crate::convert::keys::KeyRule;
use crate::convert::kinds::{Cell, MeshPart};
use crate::convert::tag_names::TagNames;
use crate::model::json::text_size;
use crate::model::{RowValue, Step, WallTime};

/// A row is closed before its line would be longer than this, in bytes: W&B refuses lines above 10,383,360.
const MAX_ROW: usize = 8 << 20;
/// What a number takes of a line at most, with what stands between it and its key.
const NUMBER: usize = 28;
/// What a value takes that is put together from parts: names and digests of files.
const PART: usize = 1 << 10;

/// A row of one source, before it has its place among the rows of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceRow {
    /// The key of the step axis.
    pub axis: Arc<str>,
    /// The TensorBoard step.
    pub axis_value: i64,
    /// Wall time of the row's last event, in seconds since the Unix epoch.
    pub timestamp: f64,
    /// The latest wall time that the source had shown by then: never smaller than that of an earlier row.
    pub order: WallTime,
    /// The values in the order of the file; no key stands here twice.
    pub values: Vec<(Arc<str>, RowValue)>,
    /// Parts of bodies, by the keys of their tags: they become values when the row is whole.
    pub parts: Vec<(Arc<str>, MeshPart)>,
    /// How many events have their last value in this row.
    pub events: u64,
    /// Where in the source to read on when everything up to this row is kept. `None` in the middle of an
    /// event: there is no way to read on from there without doubling a value.
    pub resume_at: Option<Resume>,
}

/// Where to read on in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resume {
    /// Offset of a record.
    pub offset: u64,
    /// Wall time of the event before it: events that state none have the same.
    pub wall_time: Option<WallTime>,
    /// The bytes before the offset, where they are known: they tell whether the file still holds what was read.
    pub before: Option<[u8; 4]>,
}

/// Builds the rows of one source.
#[derive(Debug)]
pub struct RowBuilder {
    names: TagNames,
    /// The key of each tag, as an index into `keys`. Two tags may have one key: `loss` and `train/loss` in `train/`.
    tags: HashMap<Arc<str>, usize>,
    keys: Vec<Key>,
    by_name: HashMap<Arc<str>, usize>,
    open: Option<SourceRow>,
    /// At most so long is the line of the open row, but for its counter, times and axis.
    size: usize,
    /// Numbers the rows, so that a key knows whether the open row holds it already.
    serial: u64,
    latest: Option<WallTime>,
    /// Whether the open row began within an event, whose first values are in the row before.
    within_event: bool,
}

#[derive(Debug)]
struct Key {
    name: Arc<str>,
    axis: Arc<str>,
    in_row: u64,
    /// What it takes of a line, in bytes.
    size: usize,
}

impl RowBuilder {
    /// `latest` is the latest wall time that earlier passes over this source have seen.
    pub fn new(rule: KeyRule, axes: Arc<Axes>, from_tf2_writer: bool, latest: Option<WallTime>) -> Self {
        let (tags, keys, by_name) = (HashMap::new(), Vec::new(), HashMap::new());
        let names = TagNames::new(rule, axes, from_tf2_writer);
        Self { names, tags, keys, by_name, open: None, size: 0, serial: 0, latest, within_event: false }
    }

    /// The latest wall time seen so far.
    pub fn latest(&self) -> Option<WallTime> {
        self.latest
    }

    /// Whether the open row began within an event. Then there is no place to read on from before it is closed.
    pub fn began_within_event(&self) -> bool {
        self.open.is_some() && self.within_event
    }

    /// Whether a row is waiting for more values of its step.
    pub fn has_open_row(&self) -> bool {
        self.open.is_some()
    }

    /// The number of the row that is waiting for more values of its step: another row has another.
    pub fn open_row(&self) -> Option<u64> {
        self.open.as_ref().map(|_| self.serial)
    }

    /// The key that a tag has in the run.
    pub fn key(&mut self, tag: &Arc<str>) -> Arc<str> {
        let known = self.tags.get(tag).copied();
        let index = known.unwrap_or_else(|| self.meet(tag));
        self.keys.get(index).map(|key| key.name.clone()).unwrap_or_default()
    }

    /// The key that a tag has in the run, and the axis that it lies on.
    pub fn place(&mut self, tag: &Arc<str>) -> (Arc<str>, Arc<str>) {
        let known = self.tags.get(tag).copied();
        let index = known.unwrap_or_else(|| self.meet(tag));
        self.keys.get(index).map(|key| (key.name.clone(), key.axis.clone())).unwrap_or_default()
    }

    /// Takes the cells of one event, which lies at `before`. Rows that it closes go to `closed`.
    pub fn push<T: Borrow<Arc<str>>>(
        &mut self,
        wall_time: WallTime,
        step: Step,
        points: impl Iterator<Item = (T, Cell)>,
        before: Resume,
        closed: &mut VecDeque<SourceRow>,
    ) {
        let latest = self.latest.map_or(wall_time, |latest| latest.max(wall_time));
        self.latest = Some(latest);
        let mut first_point = true;
        for (tag, cell) in points {
            let tag = tag.borrow();
            let known = self.tags.get(tag).copied();
            let index = known.unwrap_or_else(|| self.meet(tag));
            // Met, so it is there.
            let Some(key) = self.keys.get_mut(index) else { continue };
            let size = key.size
                + match &cell {
                    Cell::Number(_) => NUMBER,
                    Cell::Histogram(histogram) => histogram.size(),
                    Cell::Json(json) => json.size(),
                    Cell::MeshPart(_) => PART,
                };
            let belongs = self.open.as_ref().is_some_and(|row| {
                row.axis_value == step.0
                    && self.size.saturating_add(size) <= MAX_ROW
                    && key.in_row != self.serial
                    && (Arc::ptr_eq(&row.axis, &key.axis) || row.axis == key.axis)
            });
            if !belongs {
                if let Some(mut row) = self.open.take() {
                    row.resume_at = first_point.then_some(before);
                    closed.push_back(row);
                }
                self.serial += 1;
                self.size = 0;
                self.within_event = !first_point;
                self.open = Some(SourceRow {
                    axis: key.axis.clone(),
                    axis_value: step.0,
                    timestamp: wall_time.seconds(),
                    order: latest,
                    values: Vec::with_capacity(4),
                    parts: Vec::new(),
                    events: 0,
                    resume_at: None,
                });
            }
            key.in_row = self.serial;
            self.size += size;
            if let Some(row) = &mut self.open {
                let name = key.name.clone();
                match cell {
                    Cell::Number(number) => row.values.push((name, RowValue::Number(number))),
                    Cell::Histogram(histogram) => row.values.push((name, histogram.into())),
                    Cell::Json(json) => row.values.push((name, json.into())),
                    Cell::MeshPart(part) => row.parts.push((name, *part)),
                }
                row.timestamp = wall_time.seconds();
                row.order = latest;
            }
            first_point = false;
        }
        if let Some(row) = &mut self.open
            && !first_point
        {
            row.events += 1;
        }
    }

    /// Closes the open row; the source has been read up to `here`.
    pub fn close(&mut self, here: Resume) -> Option<SourceRow> {
        let mut row = self.open.take()?;
        self.serial += 1;
        row.resume_at = Some(here);
        Some(row)
    }

    fn meet(&mut self, tag: &Arc<str>) -> usize {
        let (key, axis) = self.names.of(tag);
        // The same name on another axis never shares a row with this one.
        let same = |index: &usize| self.keys.get(*index).is_some_and(|known| known.axis == *axis);
        let known = self.by_name.get(key.as_str()).copied().filter(same);
        let index = known.unwrap_or_else(|| {
            let name: Arc<str> = if key == **tag { tag.clone() } else { Arc::from(key) };
            let index = self.keys.len();
            self.by_name.insert(name.clone(), index);
            // Serial 0 is never an open row's.
            let size = text_size(&name);
            self.keys.push(Key { name, axis: axis.clone(), in_row: 0, size });
            index
        });
        self.tags.insert(tag.clone(), index);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Json, Number};

    /// Events are `step:tag,tag`, one second apart, ten bytes each; rows are printed as `step[axis]:key,key@resume`.
    fn check(events: &[&str], expected: &[&str]) {
        check_with(KeyRule::default(), events, expected);
    }

    fn check_with(rule: KeyRule, events: &[&str], expected: &[&str]) {
        let mut builder = RowBuilder::new(rule, Arc::new(Axes::new(&[])), true, None);
        let mut closed = VecDeque::new();
        for (index, event) in events.iter().enumerate() {
            let (step, tags) = event.split_once(':').expect("step:tags");
            let tags: Vec<Arc<str>> = tags.split(',').filter(|tag| !tag.is_empty()).map(Arc::from).collect();
            let start = index as u64 * 10;
            builder.push(
                WallTime::new(index as f64).expect("finite"),
                Step(step.parse().expect("a step")),
                tags.iter().map(|tag| (tag, Cell::Number(Number::F32(1.0)))),
                Resume { offset: start, ..Resume::default() },
                &mut closed,
            );
        }
        closed.extend(builder.close(Resume { offset: events.len() as u64 * 10, ..Resume::default() }));
        let print = |row: &SourceRow| {
            let keys: Vec<&str> = row.values.iter().map(|(key, _)| &**key).collect();
            let resume = row.resume_at.map_or("-".to_owned(), |resume| resume.offset.to_string());
            format!("{}[{}]:{}@{resume}", row.axis_value, row.axis, keys.join(","))
        };
        assert_eq!(closed.iter().map(print).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn neighbours_of_one_step_share_a_row() {
        check(&["1:a", "1:b", "2:a", "2:b"], &["1[global_step]:a,b@20", "2[global_step]:a,b@40"]);
        check(&["1:a,b", "1:c"], &["1[global_step]:a,b,c@20"]);
    }

    #[test]
    fn no_value_overwrites_another() {
        check(&["1:a", "1:a", "1:b"], &["1[global_step]:a@10", "1[global_step]:a,b@30"]);
        // Inside one event: there is no offset to resume from between the two rows.
        check(&["1:a,a"], &["1[global_step]:a@-", "1[global_step]:a@10"]);
    }

    #[test]
    fn a_row_is_divided_before_it_is_too_large() {
        let tags: Vec<Arc<str>> = (0..100_000).map(|number| Arc::from(format!("{number:0100}"))).collect();
        let mut builder = RowBuilder::new(KeyRule::default(), Arc::new(Axes::new(&[])), true, None);
        let mut closed = VecDeque::new();
        let wall_time = WallTime::new(1.0).expect("finite");
        for (index, tag) in tags.iter().enumerate() {
            let before = Resume { offset: index as u64, ..Resume::default() };
            let cell = Cell::Number(Number::F64(-1.234_567_890_123_456_7e-300));
            builder.push(wall_time, Step(7), std::iter::once((tag, cell)), before, &mut closed);
        }
        closed.extend(builder.close(Resume { offset: 100_000, ..Resume::default() }));
        let values: Vec<usize> = closed.iter().map(|row| row.values.len()).collect();
        assert_eq!((values.len(), values.iter().sum::<usize>()), (2, 100_000), "{values:?}");
        let size = values[0] * "\"\":-1.2345678901234567e-300,".len() + values[0] * 100;
        assert!(size <= MAX_ROW && size > MAX_ROW * 9 / 10, "{size}");
        assert_eq!(closed[0].resume_at.map(|resume| resume.offset), Some(values[0] as u64));
        // A value that is too large alone has a row of its own.
        let large = || Cell::Json(Json::from("x".repeat(MAX_ROW)));
        let cells = [(&tags[0], large()), (&tags[1], large())];
        builder.push(wall_time, Step(8), cells.into_iter(), Resume::default(), &mut closed);
        assert_eq!(closed.len(), 3);
    }

    #[test]
    fn tags_with_one_key_do_not_share_a_row() {
        check(&["1:_x", "1:tb/_x"], &["1[global_step]:tb/_x@10", "1[global_step]:tb/_x@20"]);
        let rule = KeyRule::prefix("train");
        let expected = ["1[global_step]:train/loss,train/a@20", "1[global_step]:train/loss@30"];
        check_with(rule, &["1:loss", "1:a", "1:train/loss"], &expected);
    }

    #[test]
    fn steps_may_go_anywhere() {
        check(
            &["5:a", "3:a", "-1:a", "5:b"],
            &["5[global_step]:a@10", "3[global_step]:a@20", "-1[global_step]:a@30", "5[global_step]:b@40"],
        );
    }

    #[test]
    fn another_axis_is_another_row() {
        check(&["1:epoch_loss,lr"], &["1[epoch]:epoch_loss@-", "1[global_step]:lr@10"]);
    }

    #[test]
    fn a_metric_named_like_an_axis_moves_aside() {
        check(&["1:global_step,epoch"], &["1[global_step]:tb/global_step,tb/epoch@10"]);
    }

    #[test]
    fn events_without_scalars_change_nothing() {
        check(&["1:a", "7:", "1:b"], &["1[global_step]:a,b@30"]);
    }

    #[test]
    fn a_line_never_becomes_longer_than_may_be_sent() {
        let mut builder = RowBuilder::new(KeyRule::default(), Arc::new(Axes::new(&[])), true, None);
        let mut closed = VecDeque::new();
        let value = |index: u32| {
            // Each character of such a name takes six bytes of a line.
            let tag: Arc<str> = Arc::from(format!("{index:08}{}", "\u{1}".repeat(10_000)));
            let cell = if index.is_multiple_of(2) {
                Cell::Number(Number::F64(f64::MIN_POSITIVE))
            } else {
                Cell::Json(Json::from([("\n", Json::from("\"".repeat(1000)))]))
            };
            (tag, cell)
        };
        let times = (WallTime::default(), Step(3));
        // A value an event, and many in one.
        for index in 0..300 {
            let here = Resume { offset: u64::from(index), ..Resume::default() };
            builder.push(times.0, times.1, [value(index)].into_iter(), here, &mut closed);
        }
        builder.push(times.0, times.1, (300..600).map(value), Resume::default(), &mut closed);
        closed.extend(builder.close(Resume::default()));
        let mut values = 0;
        for row in &closed {
            let object = row.values.iter().map(|(key, value)| (key.to_string(), value.to_json())).collect();
            let length = Json::Object(object).to_string().len();
            assert!(length < MAX_ROW && (length > MAX_ROW / 2 || row == &closed[closed.len() - 1]), "{length}");
            values += row.values.len();
        }
        assert_eq!((values, closed.len()), (600, 5));
    }
}
