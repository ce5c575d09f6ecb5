//! The tags of one event file, counted as fast as it can be read: points, steps, times, rows, and how long their texts
//! would be. Nothing is allocated for a point.
//!
//! Rows are counted by the rule of [`rows`](crate::convert::rows): events with the same axis value next to each other
//! make one row, until a key comes that the row holds already.

use std::collections::HashMap;
use std::sync::Arc;

use crate::convert::kinds::MeshPart;
use crate::convert::tag_names::TagNames;
use crate::model::{Number, RowValue};
use crate::tfevents::{Encoding, Point, ValueKind};

/// Of these first points of a tag each is measured, and then one in so many.
const MEASURED: u64 = 64;

/// No more than this is left unmeasured, in bytes: what comes near a limit of W&B is known exactly.
const SHORT: u64 = 64 << 10;

/// Whether the text of a tag's n-th value is one of those that stand for all.
#[inline]
fn is_measured(n: u64) -> bool {
    n <= MEASURED || n.is_multiple_of(MEASURED)
}

/// What there is of one tag in one form.
#[derive(Debug, Clone)]
pub(super) struct Tag {
    /// The tag, as the writer called it.
    pub(super) tag: Arc<str>,
    /// The kind of its values.
    pub(super) kind: ValueKind,
    /// Their form.
    pub(super) encoding: Encoding,
    /// Its key in the run, by number.
    key: usize,
    /// Values.
    pub(super) points: u64,
    /// Values that are NaN.
    pub(super) nan: u64,
    /// The smallest and the largest step.
    pub(super) steps: (i64, i64),
    /// The first and the last wall time.
    pub(super) times: (f64, f64),
    /// Values in rows.
    pub(super) cells: u64,
    /// Bytes of the texts that were measured, and how many these were.
    measured: (u64, u64),
    /// Bytes of the longest text.
    pub(super) longest: u64,
    /// Bytes of files.
    pub(super) file_bytes: u64,
}

impl Tag {
    /// Whether a point belongs here: the same tag in the same form. Why a value is bad makes no difference.
    #[inline]
    fn is_of(&self, point: &Point) -> bool {
        self.encoding == point.encoding
            && (self.kind == point.kind || matches!((&self.kind, &point.kind), (ValueKind::Bad(_), ValueKind::Bad(_))))
    }

    /// Bytes that the texts of its cells take.
    pub(super) fn text_bytes(&self) -> u64 {
        let (bytes, count) = self.measured;
        // Rounding a mean of a few bytes would be an error of several percent.
        if count == 0 { 0 } else { (u128::from(bytes) * u128::from(self.cells) / u128::from(count)) as u64 }
    }

    /// Notes the text of a value.
    pub(super) fn measure(&mut self, bytes: u64) {
        self.measured = (self.measured.0 + bytes, self.measured.1 + 1);
        self.longest = self.longest.max(bytes);
    }
}

#[derive(Debug)]
struct Key {
    name: Arc<str>,
    axis: Arc<str>,
    in_row: u64,
}

/// A row of one file.
#[derive(Debug)]
pub(super) struct Row {
    axis: Arc<str>,
    /// Its step.
    pub(super) step: i64,
    /// Values in it.
    pub(super) cells: u64,
    /// Bytes of their texts.
    pub(super) bytes: u64,
    /// Parts of bodies, by the keys of their tags.
    pub(super) parts: Vec<(Arc<str>, MeshPart)>,
}

/// The tags of one file.
#[derive(Debug)]
pub(super) struct Tags {
    names: TagNames,
    /// By the tag's number: the place of its latest form in `tags`, from 1.
    by_id: Vec<u32>,
    tags: Vec<Tag>,
    /// By the tag's number: the places of all its forms.
    forms: HashMap<usize, Vec<usize>>,
    keys: Vec<Key>,
    by_name: HashMap<Arc<str>, usize>,
    open: Option<Row>,
    serial: u64,
    text: Vec<u8>,
    /// Closed rows whose bodies are to be put together before they are counted.
    unfinished: Vec<Row>,
    /// Rows.
    pub(super) rows: u64,
    /// Bytes of the texts of the largest of them, and its step.
    pub(super) largest_row: (u64, i64),
    /// Bytes of the texts of their axes.
    pub(super) axis_bytes: u64,
}

impl Tags {
    /// No tags yet, which will be called so.
    pub(super) fn new(names: TagNames) -> Self {
        Self {
            names,
            by_id: Vec::new(),
            tags: Vec::new(),
            forms: HashMap::new(),
            keys: Vec::new(),
            by_name: HashMap::new(),
            open: None,
            serial: 0,
            text: Vec::new(),
            unfinished: Vec::new(),
            rows: 0,
            largest_row: (0, 0),
            axis_bytes: 0,
        }
    }

    /// Each tag in each of its forms, with its key and axis.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Tag, &Arc<str>, &Arc<str>)> {
        self.tags.iter().filter_map(|tag| self.keys.get(tag.key).map(|key| (tag, &key.name, &key.axis)))
    }

    /// Counts a scalar, in its row.
    #[inline]
    pub(super) fn scalar(&mut self, point: &Point, number: Number, step: i64, time: f64) {
        let index = self.point(point, step, time);
        let Some(tag) = self.tags.get_mut(index) else { return };
        tag.nan += u64::from(number.is_nan());
        if is_measured(tag.points) {
            self.text.clear();
            number.write_json(&mut self.text);
            tag.measure(self.text.len() as u64);
        }
        tag.cells += 1;
        let (key, length) = (tag.key, tag.longest);
        self.add_cell(key, step, length);
    }

    /// Counts a point of any kind, and returns the place of its tag.
    #[inline]
    pub(super) fn point(&mut self, point: &Point, step: i64, time: f64) -> usize {
        let known = self.by_id.get(point.tag_id.index()).copied().unwrap_or_default() as usize;
        let index = match known.checked_sub(1).and_then(|index| self.tags.get(index)) {
            Some(tag) if tag.is_of(point) => known - 1,
            _ => self.meet(point, step, time),
        };
        if let Some(tag) = self.tags.get_mut(index) {
            tag.points += 1;
            tag.steps = (tag.steps.0.min(step), tag.steps.1.max(step));
            tag.times = (tag.times.0.min(time), tag.times.1.max(time));
        }
        index
    }

    /// Counts a value that is no scalar, in its row, and returns the bytes of its text: of a short one that is not measured
    /// as many as the longest before it had.
    pub(super) fn value(&mut self, index: usize, step: i64, value: &RowValue) -> u64 {
        let Some(tag) = self.tags.get_mut(index) else { return 0 };
        let bound = value.size() as u64;
        let bytes = if is_measured(tag.points) || bound > SHORT || bound > 8 * tag.longest {
            self.text.clear();
            value.write_json(&mut self.text);
            self.text.len() as u64
        } else {
            tag.longest
        };
        match is_measured(tag.points) {
            true => tag.measure(bytes),
            // One that was measured for its length would change the mean.
            false => tag.longest = tag.longest.max(bytes),
        }
        tag.cells += 1;
        let key = tag.key;
        self.add_cell(key, step, bytes);
        bytes
    }

    /// Sets a part of a body aside until its row is whole.
    pub(super) fn part(&mut self, index: usize, step: i64, part: MeshPart) {
        let Some(key) = self.tags.get(index).map(|tag| tag.key) else { return };
        let name = self.keys.get(key).map(|key| key.name.clone()).unwrap_or_default();
        if let Some(row) = self.row_of(key, step) {
            row.parts.push((name, part));
        }
    }

    /// The key and the axis of a tag, which need not have been counted.
    pub(super) fn place(&mut self, tag: &str) -> (Arc<str>, Arc<str>) {
        let index = self.key_of(tag);
        self.keys.get(index).map(|key| (key.name.clone(), key.axis.clone())).unwrap_or_default()
    }

    /// The key of the tag at a place.
    pub(super) fn key(&self, index: usize) -> Arc<str> {
        let key = self.tags.get(index).and_then(|tag| self.keys.get(tag.key));
        key.map(|key| key.name.clone()).unwrap_or_default()
    }

    /// The first tag that has a key.
    pub(super) fn of_key(&mut self, key: &str) -> Option<&mut Tag> {
        let index = *self.by_name.get(key)?;
        self.tags.iter_mut().find(|tag| tag.key == index)
    }

    /// The tag at a place.
    pub(super) fn tag_mut(&mut self, index: usize) -> Option<&mut Tag> {
        self.tags.get_mut(index)
    }

    /// The file has ended, and so has its last row.
    pub(super) fn close(&mut self) {
        if let Some(row) = self.open.take() {
            self.closed(row);
        }
    }

    /// Closed rows whose bodies are to be put together; then they are to be [`counted`](Self::count_row).
    #[inline]
    pub(super) fn take_unfinished(&mut self) -> Vec<Row> {
        if self.unfinished.is_empty() { Vec::new() } else { std::mem::take(&mut self.unfinished) }
    }

    /// Counts a row, unless nothing is in it.
    pub(super) fn count_row(&mut self, row: &Row) {
        if row.cells == 0 {
            return;
        }
        self.rows += 1;
        self.axis_bytes += row.axis.len() as u64 + digits(row.step);
        if row.bytes > self.largest_row.0 {
            self.largest_row = (row.bytes, row.step);
        }
    }

    #[inline]
    fn add_cell(&mut self, key: usize, step: i64, bytes: u64) {
        if let Some(row) = self.row_of(key, step) {
            row.cells += 1;
            row.bytes += bytes;
        }
    }

    /// The row that the next value of a key goes into.
    #[inline]
    fn row_of(&mut self, key: usize, step: i64) -> Option<&mut Row> {
        let key = self.keys.get_mut(key)?;
        let belongs = self.open.as_ref().is_some_and(|row| {
            row.step == step && key.in_row != self.serial && (Arc::ptr_eq(&row.axis, &key.axis) || row.axis == key.axis)
        });
        if !belongs {
            self.serial += 1;
            let next = Row { axis: key.axis.clone(), step, cells: 0, bytes: 0, parts: Vec::new() };
            key.in_row = self.serial;
            let bytes = key.name.len() as u64;
            if let Some(row) = self.open.replace(next) {
                self.closed(row);
            }
            let row = self.open.as_mut()?;
            row.bytes += bytes;
            return Some(row);
        }
        key.in_row = self.serial;
        let row = self.open.as_mut()?;
        row.bytes += key.name.len() as u64;
        Some(row)
    }

    fn closed(&mut self, row: Row) {
        if row.parts.is_empty() {
            self.count_row(&row);
        } else {
            self.unfinished.push(row);
        }
    }

    /// A tag that is new, or that has another form now than before.
    #[cold]
    fn meet(&mut self, point: &Point, step: i64, time: f64) -> usize {
        let id = point.tag_id.index();
        let same = |place: &&usize| self.tags.get(**place).is_some_and(|tag| tag.is_of(point));
        let known = self.forms.get(&id).and_then(|forms| forms.iter().find(same)).copied();
        let index = known.unwrap_or_else(|| {
            let key = self.key_of(&point.tag);
            self.tags.push(Tag {
                tag: point.tag.clone(),
                kind: point.kind.clone(),
                encoding: point.encoding,
                key,
                points: 0,
                nan: 0,
                steps: (step, step),
                times: (time, time),
                cells: 0,
                measured: (0, 0),
                longest: 0,
                file_bytes: 0,
            });
            let index = self.tags.len() - 1;
            self.forms.entry(id).or_default().push(index);
            index
        });
        if id >= self.by_id.len() {
            self.by_id.resize(id + 1, 0);
        }
        if let Some(place) = self.by_id.get_mut(id) {
            *place = u32::try_from(index + 1).unwrap_or_default();
        }
        index
    }

    fn key_of(&mut self, tag: &str) -> usize {
        let (name, axis) = self.names.of(tag);
        // The same name on another axis never shares a row with this one.
        let same = |index: &usize| self.keys.get(*index).is_some_and(|known| known.axis == *axis);
        if let Some(known) = self.by_name.get(name.as_str()).copied().filter(same) {
            return known;
        }
        let name: Arc<str> = name.into();
        let index = self.keys.len();
        self.by_name.insert(name.clone(), index);
        self.keys.push(Key { name, axis: axis.clone(), in_row: 0 });
        index
    }
}

/// Bytes of the text of a step.
fn digits(step: i64) -> u64 {
    u64::from(step < 0) + u64::from(step.unsigned_abs().checked_ilog10().unwrap_or_default()) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::axes::Axes;
    use crate::convert::keys::KeyRule;
    use crate::tfevents::TagTable;

    /// Events are `step:tag,tag`. The number of rows is that of `convert::rows`, whose tests these are.
    fn rows(events: &[&str]) -> u64 {
        let mut tags = Tags::new(TagNames::new(KeyRule::default(), Arc::new(Axes::new(&[])), true));
        let mut table = TagTable::default();
        for event in events {
            let (step, names) = event.split_once(':').expect("step:tags");
            let step = step.parse().expect("a step");
            for name in names.split(',').filter(|name| !name.is_empty()) {
                let tag_id = table.intern(name.as_bytes());
                let point = Point {
                    tag: table.name(tag_id),
                    tag_id,
                    kind: ValueKind::Scalar,
                    encoding: Encoding::SimpleValue,
                    number: Some(Number::F32(0.5)),
                    value: None,
                };
                tags.scalar(&point, Number::F32(0.5), step, 1.0);
            }
        }
        tags.close();
        tags.rows
    }

    #[test]
    fn rows_are_counted_as_they_are_made() {
        for (events, expected) in [
            (&["1:a", "1:b", "2:a", "2:b"][..], 2),
            (&["1:a,b", "1:c"], 1),
            (&["1:a", "1:a", "1:b"], 2),
            (&["1:a,a"], 2),
            (&["1:_x", "1:tb/_x"], 2),
            (&["5:a", "3:a", "-1:a", "5:b"], 4),
            (&["1:epoch_loss,lr"], 2),
            (&["1:a", "7:", "1:b"], 1),
            (&[], 0),
        ] {
            assert_eq!(rows(events), expected, "{events:?}");
        }
    }

    #[test]
    fn steps_have_as_many_bytes_as_their_text() {
        for step in [0, 9, 10, 999, -1, -10, i64::MIN, i64::MAX] {
            assert_eq!(digits(step), step.to_string().len() as u64, "{step}");
        }
    }
}
