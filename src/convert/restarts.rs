//! Which events a restart superseded: a training that goes on from a checkpoint writes some steps again.
//!
//! Two things say that it did: a `SessionLog START` with the step that it goes on from, and a file whose steps begin where
//! those of an earlier one had been already. The second counts per axis, only for a file that began after the earlier one
//! had ended, and only when both hold a metric in common: several writers of one directory supersede nothing. Pure: what
//! the files hold comes in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::WallTime;

/// What happens to what a restart superseded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restarts {
    /// It is a row like any other.
    #[default]
    Keep,
    /// It is left out.
    Purge,
}

/// What one file says about its steps.
#[derive(Debug, Clone, Default)]
pub struct FileSteps {
    /// Offset and step of each `SessionLog START`.
    starts: Vec<(u64, i64)>,
    axes: HashMap<Arc<str>, AxisSteps>,
    times: Option<(WallTime, WallTime)>,
}

#[derive(Debug, Clone, Default)]
struct AxisSteps {
    /// The metrics with the step at which each begins, in the order in which they begin.
    begins: Vec<(Arc<str>, i64)>,
    known: HashSet<Arc<str>>,
    last: i64,
}

impl FileSteps {
    /// Takes down a start of a session: where its event lies, and its step.
    pub fn start(&mut self, at: u64, step: i64) {
        self.starts.push((at, step));
    }

    /// Takes down a scalar.
    pub fn scalar(&mut self, key: &Arc<str>, axis: &Arc<str>, step: i64, time: WallTime) {
        if !self.axes.contains_key(axis) {
            self.axes.insert(axis.clone(), AxisSteps::default());
        }
        if let Some(steps) = self.axes.get_mut(axis) {
            steps.last = step;
            if !steps.known.contains(key) {
                steps.known.insert(key.clone());
                steps.begins.push((key.clone(), step));
            }
        }
        let (first, last) = self.times.unwrap_or((time, time));
        self.times = Some((first.min(time), last.max(time)));
    }

    /// Where the steps of `later` begin on an axis, if it goes on from within this file.
    fn resumed_by(&self, later: &Self, axis: &Arc<str>) -> Option<i64> {
        let ((_, ended), (began, _)) = (self.times?, later.times?);
        let (own, its) = (self.axes.get(axis)?, later.axes.get(axis)?);
        let (_, begin) = its.begins.iter().find(|(key, _)| own.known.contains(key))?;
        (ended <= began && *begin <= own.last).then_some(*begin)
    }
}

/// What of one file was superseded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Superseded {
    /// For the part of the file before an offset: the lowest step of a later start. By offset, and so by step.
    before: Vec<(u64, i64)>,
    /// The lowest step of a start in a later file.
    everywhere: Option<i64>,
    axes: HashMap<Arc<str>, i64>,
}

impl Superseded {
    /// Whether a value was superseded: its axis, its step, and where its event lies.
    pub fn has(&self, at: u64, axis: &str, step: i64) -> bool {
        let own = self.before.iter().find(|(offset, _)| at < *offset).map(|(_, lowest)| *lowest);
        let axis = if self.axes.is_empty() { None } else { self.axes.get(axis).copied() };
        [own, self.everywhere, axis].into_iter().flatten().any(|from| step >= from)
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What was superseded of the files of one directory, which come in the order in which they began.
pub fn superseded(files: &[FileSteps]) -> Vec<Superseded> {
    let of_file = |(index, file): (usize, &FileSteps)| {
        let later = files.get(index + 1..).unwrap_or_default();
        let mut before: Vec<(u64, i64)> = Vec::with_capacity(file.starts.len());
        for (at, step) in file.starts.iter().rev() {
            let lowest = before.last().map_or(*step, |(_, lowest)| *lowest.min(step));
            before.push((*at, lowest));
        }
        before.reverse();
        let resumed = |axis: &Arc<str>| later.iter().filter_map(|later| file.resumed_by(later, axis)).min();
        Superseded {
            before,
            everywhere: later.iter().flat_map(|file| &file.starts).map(|(_, step)| *step).min(),
            axes: file.axes.keys().filter_map(|axis| Some((axis.clone(), resumed(axis)?))).collect(),
        }
    };
    files.iter().enumerate().map(of_file).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A file is a time and its events, ten bytes and one second each: `key@step`, `key@step/axis`, or `START@step`.
    /// Expected is what is left of each file.
    fn check(files: &[(u32, &str)], expected: &[&str]) {
        let parse = |event: &str| {
            let (event, axis) = event.split_once('/').unwrap_or((event, "global_step"));
            let (key, step) = event.split_once('@').unwrap();
            (Arc::<str>::from(key), Arc::<str>::from(axis), step.parse::<i64>().unwrap())
        };
        let steps: Vec<FileSteps> = files
            .iter()
            .map(|(time, events)| {
                let mut steps = FileSteps::default();
                for (index, event) in (0_u32..).zip(events.split_whitespace()) {
                    let (key, axis, step) = parse(event);
                    if &*key == "START" {
                        steps.start(u64::from(index) * 10, step);
                    } else {
                        steps.scalar(&key, &axis, step, WallTime::new(f64::from(time + index)).unwrap());
                    }
                }
                steps
            })
            .collect();
        let superseded = superseded(&steps);
        let left: Vec<String> = files
            .iter()
            .zip(&superseded)
            .map(|((_, events), superseded)| {
                let stays = |(index, event): &(u64, &str)| {
                    let (_, axis, step) = parse(event);
                    !event.starts_with("START") && !superseded.has(index * 10, &axis, step)
                };
                let left = (0..).zip(events.split_whitespace()).filter(stays);
                left.map(|(_, event)| event).collect::<Vec<_>>().join(" ")
            })
            .collect();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_start_supersedes_what_came_before_it() {
        check(&[(0, "START@0 a@0 a@1 a@2 START@1 a@1 a@2")], &["a@0 a@1 a@2"]);
        check(&[(0, "a@0 a@1 a@2 a@3 START@2 a@2 START@1 a@1 a@9")], &["a@0 a@1 a@9"]);
        check(&[(0, "a@0 a@5 START@3 a@3 START@9 a@9")], &["a@0 a@3 a@9"]);
        // Of other metrics and axes, too, and in earlier files only.
        check(&[(0, "a@0 b@5 c@7/epoch"), (9, "START@5 a@5"), (20, "a@6")], &["a@0", "a@5", "a@6"]);
        check(&[(0, "START@0 a@0 a@1"), (9, "a@2")], &["a@0 a@1", "a@2"]);
    }

    #[test]
    fn a_later_file_supersedes_from_where_it_begins() {
        check(&[(0, "a@0 a@1 a@2 b@2"), (9, "a@2 a@3")], &["a@0 a@1", "a@2 a@3"]);
        check(&[(0, "a@0 a@1"), (9, "a@2 a@3")], &["a@0 a@1", "a@2 a@3"]);
        check(&[(0, "a@0 a@1"), (9, "a@0")], &["", "a@0"]);
        // From the lowest of several.
        check(&[(0, "a@0 a@1 a@2 a@3"), (9, "a@3 a@4"), (20, "a@2")], &["a@0 a@1", "", "a@2"]);
    }

    #[test]
    fn several_writers_supersede_nothing() {
        // At the same time.
        check(&[(0, "a@0 a@1 a@2"), (1, "a@0 a@1 a@2")], &["a@0 a@1 a@2", "a@0 a@1 a@2"]);
        // Of other metrics.
        check(&[(0, "a@0 a@1"), (9, "b@0 b@1")], &["a@0 a@1", "b@0 b@1"]);
        check(&[(0, "a@0 a@1"), (9, "x@0 a@1")], &["a@0", "x@0 a@1"]);
    }

    #[test]
    fn axes_are_apart() {
        check(
            &[(0, "epoch_loss@0/epoch batch@0 batch@90 epoch_loss@1/epoch"), (9, "epoch_loss@1/epoch batch@91")],
            &["epoch_loss@0/epoch batch@0 batch@90", "epoch_loss@1/epoch batch@91"],
        );
    }

    #[test]
    fn files_without_scalars_say_nothing() {
        check(&[(0, "a@0"), (5, ""), (9, "START@1")], &["a@0", "", ""]);
        assert!(superseded(&[FileSteps::default()])[0].is_empty());
    }
}
