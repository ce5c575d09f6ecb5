//! What a tag is called in its run.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Where tags go that W&B keeps for itself, so that none of them is lost or misunderstood.
const RESERVED_PREFIX: &str = "tb/";

/// From the tags of one directory to the history keys of its run. The default leaves every tag as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeyRule {
    /// Put before every tag that does not begin with it already; ends in `/`, or is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    prefix: String,
    /// One tag that has another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renamed: Option<(String, String)>,
}

impl KeyRule {
    /// Puts `name/` before every tag that does not begin with it already. Nothing is put before for an empty name.
    pub fn prefix(name: &str) -> Self {
        let prefix = if name.is_empty() { String::new() } else { format!("{name}/") };
        Self { prefix, renamed: None }
    }

    /// Calls one tag by another name.
    pub fn rename(tag: &str, key: &str) -> Self {
        Self { prefix: String::new(), renamed: Some((tag.to_owned(), key.to_owned())) }
    }

    /// This rule first, then the prefix of the directory around it.
    #[must_use]
    pub fn within(self, outer: &Self) -> Self {
        Self {
            prefix: if self.prefix.starts_with(&outer.prefix) {
                self.prefix
            } else {
                outer.prefix.clone() + &self.prefix
            },
            renamed: self.renamed.or_else(|| outer.renamed.clone()),
        }
    }

    /// The history key of a tag.
    ///
    /// Keys that begin with `_` belong to W&B, so such tags get `tb/` before them. An empty tag is called `untitled`.
    pub fn key(&self, tag: &str) -> String {
        let tag = if tag.is_empty() { "untitled" } else { tag };
        let own = match &self.renamed {
            Some((renamed, key)) if renamed == tag => key,
            _ => tag,
        };
        let mut key = String::with_capacity(self.prefix.len() + own.len() + RESERVED_PREFIX.len());
        if !own.starts_with(&self.prefix) {
            key.push_str(&self.prefix);
        }
        key.push_str(own);
        if key.starts_with('_') {
            key.insert_str(0, RESERVED_PREFIX);
        }
        key
    }
}

/// A key that differs from every step axis: a metric must not overwrite its own axis.
pub fn apart_from_axes(key: String, is_axis: impl Fn(&str) -> bool) -> String {
    if is_axis(&key) { format!("{RESERVED_PREFIX}{key}") } else { key }
}

/// The name of a metric as metric definitions spell it: a dot would otherwise mean a nested value.
pub fn metric_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for c in key.chars() {
        // Writing to a String cannot fail.
        let _ = if c == '.' { name.write_str("\\.") } else { name.write_char(c) };
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_not_repeated() {
        let rule = KeyRule::prefix("validation");
        assert_eq!(rule.key("loss"), "validation/loss");
        assert_eq!(rule.key("validation/loss"), "validation/loss");
        assert_eq!(KeyRule::prefix("").key("loss"), "loss");
    }

    #[test]
    fn rules_compose_outwards() {
        let rule = KeyRule::rename("loss", "loss/a").within(&KeyRule::prefix("train"));
        assert_eq!(rule.key("loss"), "train/loss/a");
        assert_eq!(rule.key("other"), "train/other");
    }

    #[test]
    fn reserved_names_move_aside() {
        for tag in ["_step", "_timestamp", "_wandb", "_x"] {
            assert_eq!(KeyRule::default().key(tag), format!("tb/{tag}"));
        }
        assert_eq!(KeyRule::default().key(""), "untitled");
        assert_eq!(apart_from_axes("global_step".to_owned(), |key| key == "global_step"), "tb/global_step");
        assert_eq!(metric_name("a.b/c"), "a\\.b/c");
    }
}
