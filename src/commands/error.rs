//! How a command ends: the exit code that a script reads, and the error that a person reads.
//!
//! An error is what happened, to which thing, in the user's words; its causes; and one thing they can do. Never a key.

use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;

use crate::settings::SettingsError;

/// The exit code of a command, in the order in which they apply: of several, the first one here is the program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExitCode {
    /// 2: the command line or a setting is wrong.
    Usage,
    /// 4: no key, or not the right one.
    Authentication,
    /// 130: cut short by SIGINT.
    Interrupted,
    /// 143: cut short by SIGTERM.
    Terminated,
    /// 10: the time limit has passed; the next start goes on from there.
    TimeLimit,
    /// 5: trying again helps.
    Temporary,
    /// 11: another process holds the run.
    Held,
    /// 1: no run succeeded.
    Failed,
    /// 3: whole data of the files is not on the server, and nobody asked for that.
    Partial,
    /// 9: there is no event file or log under the paths.
    NothingFound,
    /// 0
    Success,
}

impl ExitCode {
    /// The number.
    pub fn number(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Authentication => 4,
            Self::Interrupted => 130,
            Self::Terminated => 143,
            Self::TimeLimit => 10,
            Self::Temporary => 5,
            Self::Held => 11,
            Self::Failed => 1,
            Self::Partial => 3,
            Self::NothingFound => 9,
            Self::Success => 0,
        }
    }

    /// The one that applies when all of these do.
    pub fn combine(codes: impl IntoIterator<Item = Self>) -> Self {
        codes.into_iter().min().unwrap_or(Self::Success)
    }
}

/// An error as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    /// What the program ends with, if this is all that went wrong.
    pub code: ExitCode,
    /// What happened, to which thing.
    pub message: String,
    /// Why, the nearest cause first.
    pub causes: Vec<String>,
    /// What can be done.
    pub hints: Vec<String>,
}

impl CommandError {
    /// An error without causes and hints.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// Adds an error and all that caused it, each once.
    #[must_use]
    pub fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Some types repeat their source in their own text.
            if self.causes.last().is_none_or(|last| !last.ends_with(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds one thing that can be done.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// An error of the file system, with what was tried (`read`, `create`, …) on what.
    pub fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        let code = match error.kind() {
            // Space and quota come back without anybody changing the command.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ExitCode::Temporary,
            _ => ExitCode::Failed,
        };
        Self::new(code, format!("cannot {action} `{}`", path.display())).caused_by(error)
    }
}

/// The lines of the screen, without colors and without a line break at the end.
impl fmt::Display for CommandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error: {}", self.details())
    }
}

impl CommandError {
    /// All but the word `error: `, which the screen may color.
    pub(super) fn details(&self) -> String {
        let mut text = indent_after_first_line(&self.message, "  ");
        for cause in &self.causes {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  caused by: {}", indent_after_first_line(cause, "    "));
        }
        for (index, hint) in self.hints.iter().enumerate() {
            let gap = if index == 0 && !self.causes.is_empty() { "\n\n" } else { "\n" };
            let _ = write!(text, "{gap}hint: {}", indent_after_first_line(hint, "  "));
        }
        text
    }
}

impl std::error::Error for CommandError {}

impl From<SettingsError> for CommandError {
    fn from(error: SettingsError) -> Self {
        let code = if error.is_about_the_key() { ExitCode::Authentication } else { ExitCode::Usage };
        Self { hints: error.hint().into_iter().collect(), ..Self::new(code, error.to_string()) }
    }
}

/// Says what was being done when the file system failed.
pub trait IoContext<T> {
    /// `fs::read(path).context("read", path)?` gives ``cannot read `path` `` and its cause.
    fn context(self, action: &str, path: &Path) -> Result<T, CommandError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &str, path: &Path) -> Result<T, CommandError> {
        self.map_err(|error| CommandError::io(action, path, &error))
    }
}

/// Texts from outside may have several lines; only ours begin at the margin.
fn indent_after_first_line(text: &str, indent: &str) -> String {
    text.trim_end().replace('\n', &format!("\n{indent}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_error_is_what_happened_why_and_what_to_do() {
        let error = CommandError {
            code: ExitCode::Authentication,
            message: "W&B did not accept the API key".to_owned(),
            causes: vec!["401 Unauthorized from `https://api.wandb.ai/graphql`".to_owned(), "two\nlines".to_owned()],
            hints: vec!["set `WANDB_API_KEY`".to_owned(), "or go".to_owned()],
        };
        insta::assert_snapshot!(error, @r"
        error: W&B did not accept the API key
          caused by: 401 Unauthorized from `https://api.wandb.ai/graphql`
          caused by: two
            lines

        hint: set `WANDB_API_KEY`
        hint: or go
        ");
        let error = CommandError::new(ExitCode::NothingFound, "nothing to import in `logs/`").hint("look elsewhere");
        insta::assert_snapshot!(error, @r"
        error: nothing to import in `logs/`
        hint: look elsewhere
        ");
    }

    #[test]
    fn causes_are_walked_once_each() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[source] io::Error);
        let error = CommandError::new(ExitCode::Failed, "no").caused_by(&Outer(io::Error::other("inner")));
        assert_eq!(error.causes, ["outer: inner"]);

        let result: io::Result<()> = Err(io::Error::from(io::ErrorKind::PermissionDenied));
        insta::assert_snapshot!(result.context("read", Path::new("logs/x")).unwrap_err(), @r"
        error: cannot read `logs/x`
          caused by: permission denied
        ");
    }

    #[test]
    fn the_first_code_that_applies_wins() {
        use ExitCode::*;
        let order = [
            Usage,
            Authentication,
            Interrupted,
            Terminated,
            TimeLimit,
            Temporary,
            Held,
            Failed,
            Partial,
            NothingFound,
            Success,
        ];
        assert_eq!(order.map(ExitCode::number), [2, 4, 130, 143, 10, 5, 11, 1, 3, 9, 0]);
        for (index, code) in order.into_iter().enumerate() {
            assert_eq!(ExitCode::combine(order[index..].iter().rev().copied()), code);
        }
        assert_eq!(ExitCode::combine([]), Success);
    }

    #[test]
    fn settings_tell_keys_from_usage() {
        let error = CommandError::from(SettingsError::NoKey { host: "api.wandb.ai".to_owned() });
        insta::assert_snapshot!(error, @r"
        error: there is no W&B API key for `api.wandb.ai`
        hint: set `WANDB_API_KEY`, or use `--mode offline` now and `wandb-bridge sync` later
        ");
        assert_eq!(error.code.number(), 4);
        assert_eq!(CommandError::from(SettingsError::OfflineSync).code.number(), 2);
    }
}
