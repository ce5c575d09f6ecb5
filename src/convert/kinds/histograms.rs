//! Histograms: buckets with counts become W&B's edges and weights.
//!
//! Follows the official client where that carries a histogram: the same first edge, and the same way to put more than
//! 512 bins together to 512. What it refuses or what nobody can draw is mended where the data says how: ends at infinity
//! or at the largest double are brought to the smallest and largest value, gaps become empty bins. History holds finite
//! numbers alone, because W&B drops the value otherwise. A histogram without a bin has nothing to show and gives no cell.

use crate::convert::kinds::{BadValue, Carried, Cell, Subject};
use crate::model::{Histogram, SkippedReason};
use crate::proto::tensorboard::{HistogramProto, TensorProto};
use crate::tfevents::event::{Data, Value};
use crate::tfevents::tensor::numbers;

/// The most bins that W&B takes.
const MAX_BINS: usize = 512;

pub(super) fn carry(_subject: &Subject<'_>, value: &Value) -> Result<Carried, BadValue> {
    let histogram = match &value.data {
        Data::Histogram(histogram) => Histogram::of_buckets(histogram)?,
        Data::Tensor(tensor) => Histogram::of_tensor(tensor)?,
        _ => return Err(BadValue::new("a histogram in a form that is not known")),
    };
    let Some(mut histogram) = histogram else { return Ok(Carried::default()) };
    let mut notes = Vec::new();
    if histogram.weights.len() > MAX_BINS {
        histogram = histogram.reduced(MAX_BINS);
        notes.push(SkippedReason::Rebinned);
    }
    if !histogram.edges.iter().chain(&histogram.weights).all(|number| number.is_finite()) {
        return Err(BadValue::new("a histogram with an edge or a count that is not finite"));
    }
    Ok(Carried { cell: Some(Cell::Histogram(histogram)), notes, ..Carried::default() })
}

impl Histogram {
    /// The form of TF1, torch and tensorboardX, where bucket i reaches from limit i−1 to limit i.
    fn of_buckets(histogram: &HistogramProto) -> Result<Option<Self>, BadValue> {
        let (limits, counts) = (&histogram.bucket_limit, &histogram.bucket);
        if limits.len() != counts.len() {
            return Err(BadValue::new(format!("{} limits for {} buckets", limits.len(), counts.len())));
        }
        let (Some(&first_limit), Some(&first_count)) = (limits.first(), counts.first()) else { return Ok(None) };
        let bins = if first_count == 0.0 {
            // Most writers begin with an empty bucket, only so that the next one has a left edge.
            Self { edges: limits.clone(), weights: counts.get(1..).unwrap_or_default().to_vec() }
        } else {
            let first = if histogram.min <= first_limit { histogram.min } else { f64::NEG_INFINITY };
            let edges = std::iter::once(first).chain(limits.iter().copied()).collect();
            Self { edges, weights: counts.clone() }
        };
        bins.closed(histogram.min, histogram.max)
    }

    /// The form of TF2: rows of left edge, right edge and count.
    fn of_tensor(tensor: &TensorProto) -> Result<Option<Self>, BadValue> {
        let (shape, numbers) = numbers(tensor).map_err(|why| BadValue::new(why.to_string()))?;
        if !matches!(shape.as_slice(), [_, 3]) {
            return Err(BadValue::new(format!("a histogram of shape {shape:?}, which is not rows of 3")));
        }
        let count = numbers.len() / 3;
        let mut bins = Self { edges: Vec::with_capacity(count + 1), weights: Vec::with_capacity(count) };
        let mut reached = None;
        for row in numbers.chunks_exact(3) {
            let &[left, right, count] = row else { continue };
            if let Some(reached) = reached
                && left - reached > GAP * (right - left).abs().max(f64::MIN_POSITIVE)
            {
                bins.edges.push(reached);
                bins.weights.push(0.0);
            }
            bins.edges.push(left);
            bins.weights.push(count);
            reached = Some(right);
        }
        bins.edges.extend(reached);
        bins.closed(f64::NEG_INFINITY, f64::INFINITY)
    }

    /// Brings open ends to `min` and `max`, and checks that the edges ascend. `None` when no bin is left.
    fn closed(self, min: f64, max: f64) -> Result<Option<Self>, BadValue> {
        let Self { mut edges, mut weights } = self;
        // Empty bins that reach to infinity say nothing.
        let nothing = |(edge, weight): &(&f64, &f64)| is_open(**edge) && **weight == 0.0;
        let before = edges.iter().zip(&weights).take_while(nothing).count();
        edges.drain(..before);
        weights.drain(..before);
        let behind = edges.iter().rev().zip(weights.iter().rev()).take_while(nothing).count();
        edges.truncate(edges.len() - behind);
        weights.truncate(weights.len() - behind);
        if weights.is_empty() {
            return Ok(None);
        }
        close(&mut edges, min);
        if edges.last().is_some_and(|edge| is_open(*edge)) {
            edges.reverse();
            close(&mut edges, max);
            edges.reverse();
        }
        let pairs = || edges.iter().zip(edges.iter().skip(1));
        if edges.iter().any(|edge| !edge.is_finite()) {
            return Err(BadValue::new("a histogram with an edge that is not finite"));
        }
        if pairs().any(|(left, right)| left > right) {
            return Err(BadValue::new("a histogram whose edges do not ascend"));
        }
        Ok(Some(Self { edges, weights }))
    }

    /// The same weight in fewer bins, as the official client distributes it: an edge stands at every `bins / count`-th
    /// old edge, between two of them where that is no whole number, and an old bin that an edge divides gives each side
    /// its part.
    fn reduced(&self, count: usize) -> Self {
        let edge = |index: usize| self.edges.get(index).copied().unwrap_or(f64::NAN);
        let bins = self.weights.len();
        let edges: Vec<f64> = (0..=count)
            .map(|new| {
                // Bins are no more than a payload has bytes, so that this does not overflow.
                let (whole, part) = (new * bins / count, new * bins % count);
                if part == 0 { edge(whole) } else { between(edge(whole), edge(whole + 1), part as f64 / count as f64) }
            })
            .collect();
        let mut weights = vec![0.0; count];
        let mut add = |bin: usize, weight: f64| {
            if let Some(sum) = weights.get_mut(bin.min(count - 1)) {
                *sum += weight;
            }
        };
        let mut old = 0;
        for (new, &right) in edges.iter().skip(1).enumerate() {
            while old < bins && edge(old + 1) < right {
                add(new, self.weights.get(old).copied().unwrap_or_default());
                old += 1;
            }
            if old < bins && right <= edge(old + 1) {
                let weight = self.weights.get(old).copied().unwrap_or_default();
                let part = part_below(right, edge(old), edge(old + 1));
                add(new, part * weight);
                add(new + 1, (1.0 - part) * weight);
                old += 1;
            }
        }
        // Where edges coincide, bins may be left over; their weight belongs to the last edge.
        for weight in self.weights.iter().skip(old) {
            add(count - 1, *weight);
        }
        Self { edges, weights }
    }
}

/// Edges closer than this part of a bin are the same edge, rounded in two ways.
const GAP: f64 = 1e-6;

/// Whether an edge only says that nothing lies beyond: TF1 writes the largest double.
fn is_open(edge: f64) -> bool {
    edge.abs() >= f64::MAX
}

/// Moves the first edge, if it is open: to the outermost value if that is known and on its side, otherwise as far from
/// the second edge as that is from the third.
fn close(edges: &mut [f64], outermost: f64) {
    let [open, second, rest @ ..] = edges else { return };
    if !is_open(*open) {
        return;
    }
    let known = outermost.is_finite()
        && !is_open(outermost)
        && if *open < *second { outermost <= *second } else { outermost >= *second };
    let width = rest.first().map_or(0.0, |third| *third - *second);
    *open = if known { outermost } else { *second - if is_open(width) { 0.0 } else { width } };
}

fn between(left: f64, right: f64, part: f64) -> f64 {
    let width = right - left;
    if width.is_finite() { left + width * part } else { left * (1.0 - part) + right * part }
}

/// Which part of a bin lies below `edge`. A bin without a width lies below its own edge.
fn part_below(edge: f64, left: f64, right: f64) -> f64 {
    if left == right {
        return 1.0;
    }
    let width = right - left;
    if width.is_finite() { (edge - left) / width } else { (edge / 2.0 - left / 2.0) / (right / 2.0 - left / 2.0) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::convert::kinds::Names;
    use crate::convert::kinds::fixture;
    use crate::proto::tensorboard::TensorShapeProto;
    use crate::proto::tensorboard::tensor_shape_proto::Dim;

    fn carried(data: Data) -> Result<Carried, BadValue> {
        let subject = Subject { tag: "weights", key: "weights", step: 0, names: Names::Sha256 };
        carry(&subject, &Value { tag: "weights".into(), metadata: None, data })
    }

    fn buckets(min: f64, max: f64, limits: &[f64], counts: &[f64]) -> Data {
        let (bucket_limit, bucket) = (limits.to_vec(), counts.to_vec());
        Data::Histogram(HistogramProto { min, max, bucket_limit, bucket, ..Default::default() })
    }

    fn rows(sizes: &[i64], double_val: &[f64]) -> Data {
        let dim = sizes.iter().map(|&size| Dim { size, ..Default::default() }).collect();
        let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
        let double_val = double_val.to_vec();
        Data::Tensor(Box::new(TensorProto { dtype: 2, tensor_shape, double_val, ..Default::default() }))
    }

    /// Edges and weights of a cell.
    fn drawn(carried: &Carried) -> (Vec<f64>, Vec<f64>) {
        let Some(Cell::Histogram(histogram)) = &carried.cell else { return Default::default() };
        (histogram.edges.clone(), histogram.weights.clone())
    }

    fn check(data: Data, edges: &[f64], weights: &[f64]) {
        let carried = carried(data.clone()).unwrap();
        assert_eq!(drawn(&carried), (edges.to_vec(), weights.to_vec()), "{data:?}");
        assert_eq!(carried.notes, []);
    }

    fn refused(data: Data, why: &str) {
        assert_eq!(carried(data).unwrap_err().to_string(), why);
    }

    #[test]
    fn fewer_bins_are_those_of_the_official_client() {
        // What the official client 0.31.0 makes of the same files, at steps 0, 1 and 2.
        let expected: [(&[f64], &[f64], f64); 3] = [
            (
                &[-1.0089710279437536, -0.9058459545169094, -0.8131322909036752, -0.7297893268356828],
                &[3.2734375, 2.000000000000001, 1.5468750000000009, 2.2734374999999964],
                12775.000000000002,
            ),
            (
                &[-2.1628190051144287, -1.938968355243662, -1.7379432862988662, -1.5574436980279698],
                &[1.4570312500000004, 3.4570312499999973, 3.0, 2.3046875000000018],
                8834.30078125,
            ),
            (
                &[-3.1665833053880363, -2.8367990290714746, -2.5408054203051305, -2.275184211239514],
                &[2.480468749999999, 3.4804687500000018, 3.4804687500000018, 2.8398437499999973],
                6846.52734375,
            ),
        ];
        for file in fixture::MIXED {
            let values = fixture::values(file, "weights");
            assert_eq!(values.len(), 3);
            for ((_, value), (edges, weights, moment)) in values.into_iter().zip(expected) {
                let carried = carried(value.data).unwrap();
                assert_eq!(carried.notes, [SkippedReason::Rebinned]);
                let (got_edges, got_weights) = drawn(&carried);
                assert_eq!((got_edges.len(), got_weights.len()), (513, 512));
                assert_eq!(got_edges.get(..edges.len()), Some(edges));
                assert_eq!(got_weights.get(..weights.len()), Some(weights));
                let got_moment: f64 = got_weights.iter().enumerate().map(|(index, weight)| index as f64 * weight).sum();
                assert!((got_moment - moment).abs() < 1e-9, "{got_moment}");
                assert!((got_weights.iter().sum::<f64>() - 50.0).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn the_first_edge_is_the_one_of_the_official_client() {
        check(buckets(-1.0, 9.0, &[0.0, 1.0, 2.0], &[0.0, 3.0, 4.0]), &[0.0, 1.0, 2.0], &[3.0, 4.0]);
        check(buckets(-1.0, 9.0, &[0.0, 1.0], &[3.0, 4.0]), &[-1.0, 0.0, 1.0], &[3.0, 4.0]);
    }

    #[test]
    fn a_first_edge_that_is_not_known_mirrors_the_second_bin() {
        check(buckets(0.0, 9.0, &[0.0, 1.0], &[3.0, 4.0]), &[0.0, 0.0, 1.0], &[3.0, 4.0]);
        for min in [5.0, f64::NAN, f64::NEG_INFINITY, -f64::MAX] {
            check(buckets(min, 9.0, &[0.0, 1.0], &[3.0, 4.0]), &[-1.0, 0.0, 1.0], &[3.0, 4.0]);
        }
    }

    #[test]
    fn open_ends_are_closed() {
        const END: f64 = f64::MAX;
        // As TF1 writes them: an empty bucket on each side.
        check(buckets(1.0, 2.0, &[0.9, 1.5, 2.1, END], &[0.0, 3.0, 4.0, 0.0]), &[0.9, 1.5, 2.1], &[3.0, 4.0]);
        check(buckets(1.0, 9.0, &[0.9, 1.5, END], &[0.0, 3.0, 4.0]), &[0.9, 1.5, 9.0], &[3.0, 4.0]);
        check(buckets(-7.0, 2.0, &[-END, -5.0, 2.0], &[0.0, 3.0, 4.0]), &[-7.0, -5.0, 2.0], &[3.0, 4.0]);
        check(buckets(-7.0, 2.0, &[-END, -5.0, 2.0], &[0.0, 0.0, 4.0]), &[-5.0, 2.0], &[4.0]);
        check(buckets(1.0, 2.0, &[f64::INFINITY], &[3.0]), &[1.0, 2.0], &[3.0]);
        check(buckets(1.0, 1.0, &[0.9, 1.5, f64::INFINITY], &[0.0, 3.0, 4.0]), &[0.9, 1.5, 2.1], &[3.0, 4.0]);
        check(rows(&[2, 3], &[0.0, 1.0, 3.0, 1.0, f64::INFINITY, 4.0]), &[0.0, 1.0, 2.0], &[3.0, 4.0]);
    }

    #[test]
    fn rows_of_edges_and_counts() {
        check(rows(&[2, 3], &[0.0, 0.5, 7.0, 0.5, 1.0, 5.0]), &[0.0, 0.5, 1.0], &[7.0, 5.0]);
        // Data that is constant, and none at all, as TF2 writes them.
        check(rows(&[2, 3], &[4.0, 4.0, 0.0, 4.0, 4.0, 9.0]), &[4.0; 3], &[0.0, 9.0]);
        check(rows(&[2, 3], &[0.0; 6]), &[0.0; 3], &[0.0; 2]);
        check(rows(&[2, 3], &[0.0, 1.0, 7.0, 3.0, 4.0, 5.0]), &[0.0, 1.0, 3.0, 4.0], &[7.0, 0.0, 5.0]);
    }

    #[test]
    fn a_histogram_of_nothing_gives_no_cell() {
        for data in [
            rows(&[0, 3], &[]),
            buckets(0.0, 0.0, &[], &[]),
            buckets(0.0, 0.0, &[f64::MAX], &[0.0]),
            buckets(0.0, 0.0, &[1.0], &[0.0]),
        ] {
            assert_eq!(carried(data), Ok(Carried::default()));
        }
    }

    #[test]
    fn what_is_no_histogram() {
        refused(buckets(0.0, 1.0, &[0.0, 1.0], &[1.0]), "2 limits for 1 buckets");
        refused(buckets(-1.0, 1.0, &[0.0, f64::NAN, 1.0], &[1.0; 3]), "a histogram with an edge that is not finite");
        refused(buckets(-1.0, 3.0, &[0.0, 3.0, 1.0], &[1.0; 3]), "a histogram whose edges do not ascend");
        refused(
            buckets(-1.0, 1.0, &[0.0, 1.0], &[1.0, f64::NAN]),
            "a histogram with an edge or a count that is not finite",
        );
        refused(rows(&[6], &[0.0; 6]), "a histogram of shape [6], which is not rows of 3");
        refused(rows(&[3, 2], &[0.0; 6]), "a histogram of shape [3, 2], which is not rows of 3");
        refused(Data::None, "a histogram in a form that is not known");
    }

    fn total(weights: &[f64]) -> f64 {
        weights.iter().sum()
    }

    proptest! {
        #[test]
        fn weight_is_kept(
            first: f64,
            bins in proptest::collection::vec((prop_oneof![Just(0.0), 0.0..1e6], 0..1000_u32), 513..1500),
        ) {
            let mut edges = vec![first % 1e9];
            edges.extend(bins.iter().scan(first % 1e9, |at, (width, _)| { *at += width; Some(*at) }));
            let weights: Vec<f64> = bins.iter().map(|(_, weight)| f64::from(*weight)).collect();
            let whole = Histogram { edges, weights };
            let reduced = whole.reduced(512);
            prop_assert_eq!(reduced.weights.len(), 512);
            prop_assert!(reduced.edges.is_sorted());
            prop_assert!((total(&reduced.weights) - total(&whole.weights)).abs() < 1e-6);
        }

        #[test]
        fn any_histogram_is_survived_and_finite(
            min: f64, max: f64, bins in proptest::collection::vec((any::<f64>(), any::<f64>()), 0..700),
            sorted: bool,
        ) {
            let (mut limits, counts): (Vec<f64>, Vec<f64>) = bins.into_iter().unzip();
            if sorted {
                limits.sort_by(f64::total_cmp);
            }
            let flat: Vec<f64> = limits.iter().zip(limits.iter().skip(1)).zip(&counts).flat_map(|((a, b), c)| [*a, *b, *c]).collect();
            let tensor = rows(&[i64::try_from(flat.len() / 3).unwrap(), 3], &flat);
            for data in [buckets(min, max, &limits, &counts), tensor] {
                if let Ok(carried) = carried(data) {
                    let (edges, weights) = drawn(&carried);
                    prop_assert!(edges.iter().chain(&weights).all(|number| number.is_finite()));
                    prop_assert!(weights.len() <= 512 && (edges.is_empty() || edges.len() == weights.len() + 1));
                }
            }
        }
    }
}
