//! From a tag of one source to its key in the run's history and the axis that the key lies on.
//!
//! The one place where this is decided, so that what is recorded and what is shown beforehand have the same names.

use std::sync::Arc;

use crate::convert::axes::Axes;
use crate::convert::keys::{KeyRule, apart_from_axes};

/// Names the tags of one source.
#[derive(Debug, Clone)]
pub struct TagNames {
    rule: KeyRule,
    axes: Arc<Axes>,
    from_tf2_writer: bool,
}

impl TagNames {
    /// Tags are called as `rule` says, and kept apart from all `axes`.
    pub fn new(rule: KeyRule, axes: Arc<Axes>, from_tf2_writer: bool) -> Self {
        Self { rule, axes, from_tf2_writer }
    }

    /// The key of a tag, and its axis.
    pub fn of(&self, tag: &str) -> (String, &Arc<str>) {
        let key = apart_from_axes(self.rule.key(tag), |key| self.axes.is_axis(key, self.from_tf2_writer));
        let axis = self.axes.axis(tag, &key, self.from_tf2_writer);
        (key, axis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_a_key_beside_its_axis() {
        let names = TagNames::new(KeyRule::prefix("train"), Arc::new(Axes::new(&[])), true);
        let shown = |tag| {
            let (key, axis) = names.of(tag);
            format!("{key} on {axis}")
        };
        assert_eq!(shown("loss"), "train/loss on global_step");
        assert_eq!(shown("epoch_loss"), "train/epoch_loss on epoch");
        let names = TagNames::new(KeyRule::default(), Arc::new(Axes::new(&[])), true);
        assert_eq!(names.of("epoch").0, "tb/epoch");
    }
}
