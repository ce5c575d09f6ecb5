//! On which step axis a metric lies.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::convert::globs::{BadGlob, MetricGlob};

/// The axis of everything that no rule says otherwise about: TensorBoard's step.
pub const DEFAULT_AXIS: &str = "global_step";
/// The axis of Keras' per-epoch metrics.
const EPOCH_AXIS: &str = "epoch";

/// A rule that puts metrics on an axis: `GLOB=NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AxisRule {
    glob: MetricGlob,
    axis: Arc<str>,
}

/// Why a text is not an axis rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AxisRuleError {
    /// There is no `=`, or nothing on one side of it.
    #[error("`{0}` is not of the form GLOB=NAME, such as `val/*=epoch`")]
    Form(String),
    /// The part before the `=` is not a glob.
    #[error(transparent)]
    Glob(#[from] BadGlob),
    /// The name cannot be a step axis.
    #[error("`{0}` cannot name a step axis: it must not begin with `_` nor hold a `.`")]
    Name(String),
}

impl AxisRule {
    /// Whether it says anything about a metric.
    pub fn is_match(&self, key: &str) -> bool {
        self.glob.is_match(key)
    }
}

impl std::str::FromStr for AxisRule {
    type Err = AxisRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (glob, axis) = text
            .rsplit_once('=')
            .filter(|(glob, axis)| !glob.is_empty() && !axis.is_empty())
            .ok_or_else(|| AxisRuleError::Form(text.to_owned()))?;
        // W&B splits the name of a step metric at every dot, and keeps names that begin with `_` for itself.
        if axis.starts_with('_') || axis.contains('.') {
            return Err(AxisRuleError::Name(axis.to_owned()));
        }
        Ok(Self { glob: glob.parse()?, axis: axis.into() })
    }
}

impl std::fmt::Display for AxisRule {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}={}", self.glob.as_str(), self.axis)
    }
}

impl TryFrom<String> for AxisRule {
    type Error = AxisRuleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AxisRule> for String {
    fn from(rule: AxisRule) -> Self {
        rule.to_string()
    }
}

/// All rules, ready to be asked.
#[derive(Debug, Clone)]
pub struct Axes {
    rules: Vec<AxisRule>,
    default: Arc<str>,
    epoch: Arc<str>,
}

impl Axes {
    /// Rules given first win.
    pub fn new(rules: &[AxisRule]) -> Self {
        Self { rules: rules.to_vec(), default: Arc::from(DEFAULT_AXIS), epoch: Arc::from(EPOCH_AXIS) }
    }

    /// The axis of a metric by its tag and its final name.
    ///
    /// Keras counts epochs, not steps, in tags `epoch_*`; only the TF2 writer's are taken for Keras'.
    pub fn axis(&self, tag: &str, key: &str, from_tf2_writer: bool) -> &Arc<str> {
        let ruled = self.rules.iter().find(|rule| rule.is_match(key)).map(|rule| &rule.axis);
        let keras = || (from_tf2_writer && tag.starts_with("epoch_")).then_some(&self.epoch);
        ruled.or_else(keras).unwrap_or(&self.default)
    }

    /// Whether a key is a step axis under these rules. `epoch` is one by itself only where Keras may have written: many
    /// others log a metric of that name.
    pub fn is_axis(&self, key: &str, from_tf2_writer: bool) -> bool {
        key == &*self.default
            || (from_tf2_writer && key == &*self.epoch)
            || self.rules.iter().any(|rule| key == &*rule.axis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_checked_when_parsed() {
        for bad in ["", "x", "=x", "x=", "[=x", "a=_x", "a=b.c"] {
            assert!(bad.parse::<AxisRule>().is_err(), "{bad}");
        }
        let rule: Result<AxisRule, _> = "a=b/*=epoch".parse();
        assert_eq!(rule.map(String::from), Ok("a=b/*=epoch".to_owned()));
    }

    #[test]
    fn first_rule_wins_then_keras_then_the_step() {
        let rules: Vec<AxisRule> = ["val/*=epoch", "*=batch"].iter().filter_map(|text| text.parse().ok()).collect();
        let axes = Axes::new(&rules);
        assert_eq!(&**axes.axis("x", "val/a/b", false), "epoch");
        assert_eq!(&**axes.axis("epoch_loss", "train/epoch_loss", true), "batch");
        let none = Axes::new(&[]);
        assert_eq!(&**none.axis("epoch_loss", "train/epoch_loss", true), "epoch");
        assert_eq!(&**none.axis("epoch_loss", "train/epoch_loss", false), "global_step");
        let is_axis = |key: &str| axes.is_axis(key, false);
        assert!(is_axis("batch") && is_axis("epoch") && is_axis("global_step") && !is_axis("val"));
        assert!(none.is_axis("epoch", true) && !none.is_axis("epoch", false));
    }
}
