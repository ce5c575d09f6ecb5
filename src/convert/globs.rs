//! Globs over the names of metrics, as options take them.
//!
//! A glob matches the whole final name of a metric, as it is in the run; `*` crosses `/`.

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

/// One glob. Two are equal when they were written alike.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MetricGlob {
    text: String,
    matcher: GlobMatcher,
}

/// A text that is not a glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{glob}` is not a glob: {why}")]
pub struct BadGlob {
    glob: String,
    why: String,
}

impl MetricGlob {
    /// Whether it matches a name.
    pub fn is_match(&self, key: &str) -> bool {
        self.matcher.is_match(key)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl std::str::FromStr for MetricGlob {
    type Err = BadGlob;

    fn from_str(text: &str) -> Result<Self, BadGlob> {
        let bad = |why: String| BadGlob { glob: text.to_owned(), why };
        if text.is_empty() {
            return Err(bad("it is empty".to_owned()));
        }
        let glob = Glob::new(text).map_err(|error| bad(error.kind().to_string()))?;
        Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher() })
    }
}

impl TryFrom<String> for MetricGlob {
    type Error = BadGlob;

    fn try_from(text: String) -> Result<Self, BadGlob> {
        text.parse()
    }
}

impl From<MetricGlob> for String {
    fn from(glob: MetricGlob) -> Self {
        glob.text
    }
}

impl PartialEq for MetricGlob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for MetricGlob {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(glob: &str, matching: &[&str], other: &[&str]) {
        let glob: MetricGlob = glob.parse().expect("a glob");
        for key in matching {
            assert!(glob.is_match(key), "{key}");
        }
        for key in other {
            assert!(!glob.is_match(key), "{key}");
        }
    }

    #[test]
    fn a_glob_matches_whole_names_and_crosses_slashes() {
        check("val/*", &["val/loss", "val/a/b", "val/"], &["val", "x/val/loss", "Val/loss"]);
        check("*loss", &["loss", "a/b/loss", "a.loss"], &["loss/a"]);
        check("{train,val}/loss", &["train/loss", "val/loss"], &["test/loss"]);
        check("a?c", &["abc", "a/c"], &["ac"]);
        check("w[[]0]", &["w[0]"], &["w0"]);
        check("ключ*", &["ключ/ü"], &["key"]);
        for bad in ["", "[", "{a", "a{b"] {
            assert!(bad.parse::<MetricGlob>().is_err(), "{bad}");
        }
    }
}
