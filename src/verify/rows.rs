//! Rows as a log holds them: all are counted, and the first and last ones kept to be compared.

use std::collections::VecDeque;

use crate::api::StepRange;

/// So many rows at the beginning are compared value by value, and so many at the end.
const FIRST: usize = 5000;
const LAST: usize = 1000;

/// As far as they are not larger than this together, in bytes of either end.
const BYTES: usize = 16 << 20;

/// What one question asks for: so many rows, or so many bytes of them.
const ROWS_PER_PAGE: usize = 1000;
const BYTES_PER_PAGE: usize = 2 << 20;

/// A server may hold more rows in a range than are here: so many more are told.
const SPARE: u64 = 1000;

/// A row that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Its `_step`.
    pub(super) step: i64,
    /// Its line.
    pub(super) line: String,
}

/// The rows of a run, in their order.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    first: Vec<Kept>,
    last: VecDeque<Kept>,
    /// Bytes of either.
    bytes: (usize, usize),
    /// Whether the first ones are not all any more.
    is_cut: bool,
    count: u64,
    last_step: Option<i64>,
}

impl Rows {
    /// Adds a row. One without a step can only be counted.
    pub fn push(&mut self, step: Option<i64>, line: &[u8]) {
        self.count += 1;
        let Some(step) = step else { return };
        self.last_step = self.last_step.max(Some(step));
        let row = Kept { step, line: String::from_utf8_lossy(line).into_owned() };
        if !self.is_cut && self.first.len() < FIRST && self.bytes.0 + row.line.len() <= BYTES {
            self.bytes.0 += row.line.len();
            self.first.push(row);
            return;
        }
        self.is_cut = true;
        self.bytes.1 += row.line.len();
        self.last.push_back(row);
        while self.last.len() > LAST || self.bytes.1 > BYTES {
            let Some(gone) = self.last.pop_front() else { break };
            self.bytes.1 -= gone.line.len();
        }
    }

    /// Drops the rows behind a step. Of very many rows nobody knows here how many are left, so none are.
    pub fn rewind(&mut self, step: f64) {
        let left = if self.is_cut { Vec::new() } else { std::mem::take(&mut self.first) };
        *self = Self::default();
        for row in left.into_iter().filter(|row| row.step as f64 <= step) {
            self.push(Some(row.step), row.line.as_bytes());
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest `_step`.
    pub fn last_step(&self) -> Option<i64> {
        self.last_step
    }

    /// How many are compared value by value.
    pub(super) fn kept(&self) -> u64 {
        (self.first.len() + self.last.len()) as u64
    }

    /// What is to be asked for, so that all rows that are kept are among the answers.
    pub fn ranges(&self) -> Vec<StepRange> {
        let range = |page: &[&Kept]| {
            let steps = || page.iter().map(|row| row.step);
            let (from, to) = (steps().min().unwrap_or_default(), steps().max().unwrap_or_default());
            StepRange { from, to: to.saturating_add(1), samples: page.len() as u64 + SPARE }
        };
        self.pages().iter().map(|page| range(page)).collect()
    }

    /// The rows that are kept, as they are asked for.
    pub(super) fn pages(&self) -> Vec<Vec<&Kept>> {
        let last: Vec<&Kept> = self.last.iter().collect();
        let first: Vec<&Kept> = self.first.iter().collect();
        [first, last].iter().flat_map(|rows| split(rows)).collect()
    }
}

fn split<'a>(rows: &[&'a Kept]) -> Vec<Vec<&'a Kept>> {
    let mut pages: Vec<Vec<&Kept>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        bytes += row.line.len();
        match pages.last_mut() {
            Some(page) if page.len() < ROWS_PER_PAGE && bytes <= BYTES_PER_PAGE => page.push(row),
            _ => {
                bytes = row.line.len();
                pages.push(vec![row]);
            }
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: i64, size: usize) -> Rows {
        let mut rows = Rows::default();
        for step in 0..count {
            rows.push(Some(step * 2), "x".repeat(size).as_bytes());
        }
        rows
    }

    #[test]
    fn small_runs_are_asked_for_whole() {
        assert_eq!(Rows::default().ranges(), []);
        let small = rows(2500, 1);
        let ranges: Vec<_> = small.ranges().iter().map(|range| (range.from, range.to, range.samples)).collect();
        assert_eq!(ranges, [(0, 1999, 2000), (2000, 3999, 2000), (4000, 4999, 1500)]);
        assert_eq!((small.kept(), small.count(), small.last_step()), (2500, 2500, Some(4998)));
    }

    #[test]
    fn of_large_runs_both_ends_are_asked_for() {
        let large = rows(20_000, 1);
        assert_eq!((large.kept(), large.count()), (6000, 20_000));
        let last = large.ranges().pop().map(|range| (range.from, range.to));
        assert_eq!(last, Some((38_000, 39_999)));
    }

    #[test]
    fn what_is_wound_back_is_gone() {
        let mut rows = rows(10, 1);
        rows.rewind(6.0);
        assert_eq!((rows.count(), rows.kept(), rows.last_step()), (4, 4, Some(6)));
        let mut large = self::rows(20_000, 1);
        large.rewind(6.0);
        assert_eq!(large.count(), 0);
    }

    #[test]
    fn rows_are_kept_as_far_as_they_are_not_too_large() {
        let large = rows(300, 200_000);
        assert!(large.kept() < 170 && large.kept() > 160, "{}", large.kept());
        assert!(large.ranges().iter().all(|range| range.to - range.from < 25));
        let mut one = Rows::default();
        one.push(Some(1), &vec![b'x'; BYTES + 1]);
        one.push(None, b"{}");
        assert_eq!((one.kept(), one.count(), one.ranges()), (0, 2, vec![]));
    }
}
