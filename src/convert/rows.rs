//! Events of one source become history rows.
//!
//! Events with the same axis value, next to each other, make one row, until a tag comes that the row already holds:
//! that starts a new row. No value ever overwrites another. Steps that go back, repeat or jump stay rows. A row that would
//! become a longer line than W&B takes is closed before, and the rest of its step makes another.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::convert::axes::Axes;
use crate::convert::keys::KeyRule;
use crate::convert::kinds::{Cell, MeshPart};
use crate::convert::tag_names::TagNames;
use crate::model::{Json, RowValue, Step, WallTime};

/// A row holds no second value that would make its line longer than this, in bytes. W&B takes 10,383,360.
const LINE: usize = 10_000_000;
/// What a line holds beside its values: its number and times, and its step.
const LINE_FRAME: usize = 512;
/// No number is longer.
const NUMBER: usize = 32;
/// A body is a reference to its file.
const BODY: usize = 1024;

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
    /// At least as long as the line of the open row.
    line: usize,
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
    /// How much of a line its name takes.
    length: usize,
}

impl RowBuilder {
    /// `latest` is the latest wall time that earlier passes over this source have seen.
    pub fn new(rule: KeyRule, axes: Arc<Axes>, from_tf2_writer: bool, latest: Option<WallTime>) -> Self {
        let (tags, keys, by_name) = (HashMap::new(), Vec::new(), HashMap::new());
        let names = TagNames::new(rule, axes, from_tf2_writer);
        Self { names, tags, keys, by_name, open: None, line: 0, serial: 0, latest, within_event: false }
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
            let length = key.length + length_of(&cell);
            let belongs = self.open.as_ref().is_some_and(|row| {
                row.axis_value == step.0
                    && self.line + length <= LINE
                    && key.in_row != self.serial
                    && (Arc::ptr_eq(&row.axis, &key.axis) || row.axis == key.axis)
            });
            if !belongs {
                if let Some(mut row) = self.open.take() {
                    row.resume_at = first_point.then_some(before);
                    closed.push_back(row);
                }
                self.serial += 1;
                self.within_event = !first_point;
                self.line = LINE_FRAME + key.axis.len();
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
            self.line += length;
            if let Some(row) = &mut self.open {
                let name = key.name.clone();
                match cell {
                    Cell::Number(number) => row.values.push((name, RowValue::Number(number))),
                    Cell::Json(json) => row.values.push((name, RowValue::Json(Box::new(json)))),
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
            // Serial 0 is never an open row's. A colon and a comma stand beside the name.
            let length = length_of_text(&name) + 2;
            self.keys.push(Key { name, axis: axis.clone(), in_row: 0, length });
            index
        });
        self.tags.insert(tag.clone(), index);
        index
    }
}

/// At least as long as a cell is in a line.
fn length_of(cell: &Cell) -> usize {
    match cell {
        Cell::Number(_) => NUMBER,
        Cell::Json(json) => length_of_json(json),
        Cell::MeshPart(_) => BODY,
    }
}

fn length_of_json(json: &Json) -> usize {
    match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => NUMBER,
        Json::String(text) => length_of_text(text),
        Json::Array(items) => 2 + items.iter().map(|item| length_of_json(item) + 1).sum::<usize>(),
        Json::Object(members) => {
            2 + members.iter().map(|(key, value)| length_of_text(key) + length_of_json(value) + 2).sum::<usize>()
        }
    }
}

fn length_of_text(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    2 + text.len() + text.bytes().map(escaped).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Number;

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
            assert!(length < LINE && (length > LINE / 2 || row == &closed[closed.len() - 1]), "{length}");
            values += row.values.len();
        }
        assert_eq!((values, closed.len()), (600, 4));
        // Where it was split between events, reading can go on.
        assert!(closed[0].resume_at.is_some_and(|resume| resume.offset > 0));
        // One value that is longer than that stands alone.
        let long = Cell::Json(Json::from("x".repeat(2 * LINE)));
        builder.push(times.0, times.1, [(Arc::<str>::from("a"), long)].into_iter(), Resume::default(), &mut closed);
        let number = Cell::Number(Number::I64(1));
        builder.push(times.0, times.1, [(Arc::<str>::from("b"), number)].into_iter(), Resume::default(), &mut closed);
        assert_eq!(closed.back().map(|row| row.values.len()), Some(1));
    }
}
