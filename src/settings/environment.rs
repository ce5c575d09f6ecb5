//! What the process was started in: variables, working directory, home.
//!
//! A value that is passed in, so that tests can make up their own. Variables that are set to nothing count as not set.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Variables, working directory and home.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    working_dir: PathBuf,
    home: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process: the one place that does.
    pub fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            working_dir: std::env::current_dir().unwrap_or_default(),
            home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
        }
    }

    /// Makes one up.
    pub fn new<K, V>(variables: impl IntoIterator<Item = (K, V)>, working_dir: PathBuf, home: Option<PathBuf>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, working_dir, home }
    }

    /// The value of a variable; `None` when it is not set, or to nothing.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Whether a variable is set to nothing, as a secret is that a CI system does not have.
    pub(super) fn is_empty(&self, name: &str) -> bool {
        self.variables.get(OsStr::new(name)).is_some_and(|value| value.is_empty())
    }

    /// A path as it is meant: relative ones start at the working directory.
    pub(super) fn at(&self, path: &Path) -> PathBuf {
        self.working_dir.join(path)
    }

    /// A path below the home directory.
    pub(super) fn in_home(&self, path: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(path))
    }

    /// Resolves a leading `~`, which no shell resolves inside a variable of a job script.
    pub(super) fn expand_home(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_owned(),
        }
    }

    /// A path with the home directory shortened to `~`, for the screen.
    pub(super) fn show(&self, path: &Path) -> String {
        match self.home.as_ref().and_then(|home| path.strip_prefix(home).ok()) {
            Some(rest) => Path::new("~").join(rest).display().to_string(),
            None => path.display().to_string(),
        }
    }
}

/// Names only: values may be keys.
impl std::fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("working_dir", &self.working_dir)
            .field("home", &self.home)
            .finish()
    }
}
