//! Which TB runs are read at all: `--include` and `--exclude`.
//!
//! Patterns match the whole name that TensorBoard gives a TB run: its path below the root, `.` for the root itself; `*`
//! crosses `/`. What belongs together, its name and its id are decided before anything is left out, so that a filter
//! never changes which run something belongs to.

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

/// A pattern for names of TB runs.
#[derive(Debug, Clone)]
pub struct RunPattern(GlobMatcher);

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a glob: {1}")]
pub struct RunPatternError(String, String);

/// What is read: all that an including pattern matches, or all when there is none, but what an excluding one matches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFilter {
    /// `--include`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<RunPattern>,
    /// `--exclude`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<RunPattern>,
}

impl RunFilter {
    /// Whether everything is read.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether a TB run is read.
    pub fn admits(&self, tb_run: &str) -> bool {
        let any = |patterns: &[RunPattern]| patterns.iter().any(|pattern| pattern.0.is_match(tb_run));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// The flags in which two filters differ, if any of these TB runs is read by one of them only.
    pub fn differences(&self, other: &Self, tb_runs: &[String]) -> Vec<&'static str> {
        if self == other || tb_runs.iter().all(|tb_run| self.admits(tb_run) == other.admits(tb_run)) {
            return Vec::new();
        }
        let flags = [("--include", self.include != other.include), ("--exclude", self.exclude != other.exclude)];
        flags.into_iter().filter_map(|(flag, differs)| differs.then_some(flag)).collect()
    }

    /// The flags with patterns that match none of the TB runs, as they were typed.
    pub fn idle<'a>(&self, tb_runs: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
        let idle = |pattern: &&RunPattern| !tb_runs.clone().any(|tb_run| pattern.0.is_match(tb_run));
        let named = |flag: &'static str| move |pattern: &RunPattern| format!("{flag} {}", pattern.0.glob());
        let include = self.include.iter().filter(idle).map(named("--include"));
        include.chain(self.exclude.iter().filter(idle).map(named("--exclude"))).collect()
    }
}

impl std::str::FromStr for RunPattern {
    type Err = RunPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `exp/` is what a shell completes.
        let pattern = match text.strip_suffix('/') {
            Some(shorter) if !shorter.is_empty() => shorter,
            _ => text,
        };
        let glob = Glob::new(pattern).map_err(|error| RunPatternError(text.to_owned(), error.kind().to_string()))?;
        Ok(Self(glob.compile_matcher()))
    }
}

impl PartialEq for RunPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.glob().glob() == other.0.glob().glob()
    }
}

impl Eq for RunPattern {}

impl Serialize for RunPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.glob().glob())
    }
}

impl<'de> Deserialize<'de> for RunPattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> RunFilter {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        RunFilter { include: patterns(include), exclude: patterns(exclude) }
    }

    #[test]
    fn patterns_match_whole_names_across_slashes() {
        let admitted = |filter: &RunFilter| {
            [".", "a", "a/train", "b/train"].into_iter().filter(|name| filter.admits(name)).collect::<Vec<_>>()
        };
        assert_eq!(admitted(&filter(&[], &[])), [".", "a", "a/train", "b/train"]);
        assert_eq!(admitted(&filter(&["a/"], &[])), ["a"]);
        assert_eq!(admitted(&filter(&["a*", "."], &[])), [".", "a", "a/train"]);
        assert_eq!(admitted(&filter(&["a*"], &["*/train"])), ["a"]);
        assert_eq!(admitted(&filter(&[], &["*"])), [""; 0]);
        assert!("[".parse::<RunPattern>().is_err());
    }

    #[test]
    fn filters_differ_where_something_else_is_read() {
        let (all, no_eval) = (filter(&[], &[]), filter(&[], &["*/eval"]));
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(all.differences(&no_eval, &names(&["a", "a/train"])), [""; 0]);
        assert_eq!(all.differences(&no_eval, &names(&["a", "a/eval"])), ["--exclude"]);
        assert_eq!(filter(&["b"], &[]).differences(&filter(&[], &["b"]), &names(&["b"])), ["--include", "--exclude"]);
    }

    #[test]
    fn patterns_that_match_nothing_are_named() {
        let filter = filter(&["a*", "c"], &["*/eval", "b"]);
        assert_eq!(filter.idle(["a/eval", "d"].into_iter()), ["--include c", "--exclude b"]);
    }

    #[test]
    fn filters_come_back() {
        let filter = filter(&["a*"], &["b/{x,y}"]);
        let text = serde_json::to_string(&filter).unwrap();
        assert_eq!(text, r#"{"include":["a*"],"exclude":["b/{x,y}"]}"#);
        assert_eq!(serde_json::from_str::<RunFilter>(&text).unwrap(), filter);
    }
}
