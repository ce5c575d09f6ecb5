//! The rows of several sources in one order.
//!
//! Rows of one source never change places. Sources are merged by the latest wall time each has shown; ties go to the
//! source that was given first. A source is opened when its first event is due, so a thousand files need no thousand
//! open handles. The same sources always give the same order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::convert::rows::SourceRow;
use crate::model::WallTime;

/// Something that gives rows in its own order.
pub trait RowSource {
    /// Why a source cannot go on.
    type Error;

    /// A lower bound for the order of its rows: the wall time of its first event.
    fn first_due(&self) -> WallTime;

    /// The next row, or `None` when there is none for now.
    fn next_row(&mut self) -> Result<Option<SourceRow>, Self::Error>;
}

/// Merges sources.
#[derive(Debug)]
pub struct Merge<S> {
    sources: Vec<S>,
    heads: Vec<Option<SourceRow>>,
    due: BinaryHeap<Reverse<(WallTime, usize)>>,
}

impl<S: RowSource> Merge<S> {
    /// The order of the sources breaks ties.
    pub fn new(sources: Vec<S>) -> Self {
        let due = sources.iter().enumerate().map(|(index, source)| Reverse((source.first_due(), index))).collect();
        Self { heads: sources.iter().map(|_| None).collect(), sources, due }
    }

    /// The next row with the index of its source.
    pub fn next_row(&mut self) -> Result<Option<(usize, SourceRow)>, S::Error> {
        while let Some(Reverse((_, index))) = self.due.pop() {
            let (Some(source), Some(head)) = (self.sources.get_mut(index), self.heads.get_mut(index)) else { continue };
            let ready = head.take();
            if let Some(next) = source.next_row()? {
                self.due.push(Reverse((next.order, index)));
                *head = Some(next);
            }
            if let Some(row) = ready {
                return Ok(Some((index, row)));
            }
        }
        Ok(None)
    }

    /// The sources, in the order they were given.
    pub fn sources_mut(&mut self) -> &mut [S] {
        &mut self.sources
    }

    /// One source, by the index that its rows come with.
    pub fn source_mut(&mut self, index: usize) -> Option<&mut S> {
        self.sources.get_mut(index)
    }

    /// The sources, in the order they were given.
    pub fn into_sources(self) -> Vec<S> {
        self.sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::Arc;

    struct Scripted(f64, VecDeque<f64>);

    impl RowSource for Scripted {
        type Error = Infallible;

        fn first_due(&self) -> WallTime {
            WallTime::new(self.0).expect("finite")
        }

        fn next_row(&mut self) -> Result<Option<SourceRow>, Infallible> {
            Ok(self.1.pop_front().map(|order| SourceRow {
                axis: Arc::from("global_step"),
                axis_value: 0,
                timestamp: order,
                order: WallTime::new(order).expect("finite"),
                values: Vec::new(),
                parts: Vec::new(),
                events: 1,
                resume_at: None,
            }))
        }
    }

    fn check(sources: &[(f64, &[f64])], expected: &[(usize, f64)]) {
        let sources = sources.iter().map(|(due, rows)| Scripted(*due, rows.iter().copied().collect())).collect();
        let mut merge = Merge::new(sources);
        let mut found = Vec::new();
        while let Ok(Some((index, row))) = merge.next_row() {
            found.push((index, row.timestamp));
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn rows_come_by_wall_time_and_ties_by_source() {
        check(&[(1.0, &[1.0, 3.0]), (1.0, &[1.0, 2.0, 4.0])], &[(0, 1.0), (1, 1.0), (1, 2.0), (0, 3.0), (1, 4.0)]);
        check(&[(5.0, &[5.0]), (1.0, &[])], &[(0, 5.0)]);
        check(&[], &[]);
    }

    #[test]
    fn a_source_keeps_its_own_order() {
        // Orders of one source never fall, because they are the latest time it has shown.
        check(&[(1.0, &[9.0, 9.0, 9.0]), (2.0, &[2.0, 8.0])], &[(1, 2.0), (1, 8.0), (0, 9.0), (0, 9.0), (0, 9.0)]);
    }
}
