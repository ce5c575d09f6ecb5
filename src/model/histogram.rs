//! A histogram as W&B has it, and its JSON text.
//!
//! Plain numbers: a log has millions of them. What makes it one that W&B draws (edges that ascend, no more than 512
//! bins) is for whoever makes it.

use crate::model::{Json, Number};

/// Adjacent bins with weights.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// Ascending; one more than there are weights.
    pub edges: Vec<f64>,
    /// What each bin holds.
    pub weights: Vec<f64>,
}

impl Histogram {
    /// Appends the same text as that of [`to_json`](Self::to_json).
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.reserve(self.size());
        out.extend_from_slice(br#"{"_type":"histogram","bins":"#);
        write_list(&self.edges, out);
        out.extend_from_slice(br#","values":"#);
        write_list(&self.weights, out);
        out.push(b'}');
    }

    /// A bound of the length of its text, the same as that of [`to_json`](Self::to_json).
    pub fn size(&self) -> usize {
        // The members' names and `histogram` as texts, and what stands between them.
        const FRAME: usize = 2 + (7 + 11 + 2) + (6 + 2 + 2) + (8 + 2 + 2);
        FRAME + (Json::NUMBER_SIZE + 1) * (self.edges.len() + self.weights.len())
    }

    /// The value that history holds.
    pub fn to_json(&self) -> Json {
        let list = |numbers: &[f64]| Json::Array(numbers.iter().map(|number| Number::F64(*number).into()).collect());
        Json::from([("_type", Json::from("histogram")), ("values", list(&self.weights)), ("bins", list(&self.edges))])
    }
}

fn write_list(numbers: &[f64], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, number) in numbers.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        Number::F64(*number).write_json(out);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn text_and_bound_are_those_of_its_json(
            edges in proptest::collection::vec(proptest::num::f64::ANY, 0..9),
            weights in proptest::collection::vec(0..1000_u32, 0..9),
        ) {
            let histogram = Histogram { edges, weights: weights.into_iter().map(f64::from).collect() };
            let mut text = Vec::new();
            histogram.write_json(&mut text);
            proptest::prop_assert_eq!(String::from_utf8_lossy(&text), histogram.to_json().to_string());
            proptest::prop_assert_eq!(histogram.size(), histogram.to_json().size());
        }
    }
}
