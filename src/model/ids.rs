//! Newtypes for what has a unit or an origin.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The id of a W&B run: what its URL ends in, and what its log is named after.
///
/// Never empty, never with surrounding white space, and with none of the characters that W&B refuses (`: ; , # ? / '`).
/// We also refuse what would not be one safe path component, because run directories carry the id in their name.
/// What is read from state files is checked too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

/// A text that cannot be a run id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be a run id: it must be 1 to 128 characters, without `: ; , # ? / ' \\` and control characters")]
pub struct InvalidRunId(pub String);

impl RunId {
    /// Checks a text that is to be a run id.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidRunId> {
        let text = text.into();
        let valid = !text.is_empty()
            && text.len() <= 128
            && text.trim() == text
            && text != "."
            && text != ".."
            && !text.contains(Self::forbids);
        if valid { Ok(Self(text)) } else { Err(InvalidRunId(text)) }
    }

    /// A name from outside, such as a path, as it can stand in an id: what no id can hold becomes `-`.
    pub fn spelled(name: &str) -> String {
        name.trim().replace(Self::forbids, "-")
    }

    fn forbids(c: char) -> bool {
        matches!(c, ':' | ';' | ',' | '#' | '?' | '/' | '\'' | '\\') || c.is_control()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidRunId;

    fn try_from(text: String) -> Result<Self, InvalidRunId> {
        Self::new(text)
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether W&B refuses a character in the name of a project. Control characters would not even reach it: they do not
/// survive in a URL, and the project that is asked for is another one than the project that was made.
pub fn is_forbidden_in_project(c: char) -> bool {
    matches!(c, '/' | '\\' | '#' | '?' | '%' | ':') || c.is_control()
}

/// A TensorBoard step: any i64, also negative, also going back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Step(pub i64);

/// Seconds since the Unix epoch as an event states them. Always finite, so nobody else has to check.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(f64);

impl WallTime {
    /// Returns `None` for NaN and the infinities.
    pub fn new(seconds: f64) -> Option<Self> {
        seconds.is_finite().then_some(Self(seconds))
    }

    /// Seconds since the Unix epoch.
    pub fn seconds(self) -> f64 {
        self.0
    }
}

impl Eq for WallTime {}

#[expect(clippy::derive_ord_xor_partial_ord, reason = "both orders agree on finite numbers")]
impl Ord for WallTime {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// A byte offset in a `.wandb` log that lies on a record boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogPosition(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_safe_path_components() {
        for bad in ["", " a", "a ", "a/b", "..", ".", "a:b", "a'b", "a\0b", "a\\b"] {
            assert!(RunId::new(bad).is_err(), "{bad:?}");
        }
        for (name, spelled) in [("a/b", "a-b"), (" C:\n", "C-"), ("plain", "plain")] {
            assert_eq!(RunId::spelled(name), spelled);
        }
        assert!(serde_json::from_str::<RunId>("\"../x\"").is_err(), "also in state files");
        assert_eq!(RunId::new("ppo-2.x").map(|id| id.to_string()), Ok("ppo-2.x".to_owned()));
    }

    #[test]
    fn wall_time_refuses_what_is_not_a_time() {
        assert_eq!(WallTime::new(f64::NAN), None);
        assert_eq!(WallTime::new(f64::INFINITY), None);
        assert_eq!(WallTime::new(1.5).map(WallTime::seconds), Some(1.5));
    }
}
