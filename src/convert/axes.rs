//! On which step axis a metric lies.

use std::sync::Arc;

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

/// The axis of everything that no rule says otherwise about: TensorBoard's step.
pub const DEFAULT_AXIS: &str = "global_step";
/// The axis of Keras' per-epoch metrics.
const EPOCH_AXIS: &str = "epoch";

/// A rule that puts metrics on an axis: `GLOB=NAME`. The glob matches the whole final name of the metric; `*` crosses `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AxisRule {
    glob: String,
    axis: String,
}

/// Why a text is not an axis rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AxisRuleError {
    /// There is no `=`, or nothing on one side of it.
    #[error("`{0}` is not of the form GLOB=NAME, such as `val/*=epoch`")]
    Form(String),
    /// The part before the `=` is not a glob.
    #[error("`{0}` is not a glob: {1}")]
    Glob(String, String),
    /// The name cannot be a step axis.
    #[error("`{0}` cannot name a step axis: it must not begin with `_` nor hold a `.`")]
    Name(String),
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
        Glob::new(glob).map_err(|error| AxisRuleError::Glob(glob.to_owned(), error.kind().to_string()))?;
        Ok(Self { glob: glob.to_owned(), axis: axis.to_owned() })
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
        format!("{}={}", rule.glob, rule.axis)
    }
}

/// All rules, ready to be asked.
#[derive(Debug, Clone)]
pub struct Axes {
    rules: Vec<(GlobMatcher, Arc<str>, String)>,
    default: Arc<str>,
    epoch: Arc<str>,
}

impl Axes {
    /// Rules given first win.
    pub fn new(rules: &[AxisRule]) -> Self {
        let matcher = |rule: &AxisRule| {
            // A rule was checked when it was parsed, so none falls away here.
            Glob::new(&rule.glob)
                .ok()
                .map(|glob| (glob.compile_matcher(), Arc::from(rule.axis.as_str()), String::from(rule.clone())))
        };
        Self {
            rules: rules.iter().filter_map(matcher).collect(),
            default: Arc::from(DEFAULT_AXIS),
            epoch: Arc::from(EPOCH_AXIS),
        }
    }

    /// The axis of a metric by its tag and its final name.
    ///
    /// Keras counts epochs, not steps, in tags `epoch_*`; only the TF2 writer's are taken for Keras'.
    pub fn axis(&self, tag: &str, key: &str, from_tf2_writer: bool) -> &Arc<str> {
        let ruled = self.rules.iter().find(|(glob, ..)| glob.is_match(key)).map(|(_, axis, _)| axis);
        let keras = || (from_tf2_writer && tag.starts_with("epoch_")).then_some(&self.epoch);
        ruled.or_else(keras).unwrap_or(&self.default)
    }

    /// Whether a key is a step axis under these rules. `epoch` is one by itself only where Keras may have written: many
    /// others log a metric of that name.
    pub fn is_axis(&self, key: &str, from_tf2_writer: bool) -> bool {
        key == &*self.default
            || (from_tf2_writer && key == &*self.epoch)
            || self.rules.iter().any(|(_, axis, _)| key == &**axis)
    }

    /// The texts of the rules that match none of the keys.
    pub fn unmatched<'a>(&'a self, keys: impl Iterator<Item = &'a str> + Clone) -> impl Iterator<Item = &'a str> {
        self.rules
            .iter()
            .filter(move |(glob, ..)| !keys.clone().any(|key| glob.is_match(key)))
            .map(|(_, _, text)| text.as_str())
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
        assert_eq!(axes.unmatched(["x"].into_iter()).collect::<Vec<_>>(), ["val/*=epoch"]);
    }
}
