//! What names directories held when they were walked.
//!
//! Event files, config files, side files, logs and state are looked for in the same directories, by rooms that do not know
//! each other. One of them reads the directories; the others ask here what they need not look for. A directory that is not
//! known, or holds many names, has to be asked itself: these answers save work and decide nothing.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

/// A directory with more names is not remembered: it is the many small ones that cost.
const MOST_NAMES: usize = 32;

/// The names in some directories, as of one walk.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Listings(HashMap<PathBuf, Box<[OsString]>>);

impl Listings {
    /// Remembers the names in a directory, unless they are many.
    pub fn insert(&mut self, directory: PathBuf, names: Vec<OsString>) {
        if names.len() <= MOST_NAMES {
            self.0.insert(directory, names.into());
        }
    }

    /// Adds what another walk saw.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether no directory is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names in a directory; `None` where they are not known.
    pub fn names(&self, directory: &Path) -> Option<&[OsString]> {
        self.0.get(directory).map(AsRef::as_ref)
    }

    /// Whether a directory is known to hold no such name.
    pub fn lacks(&self, directory: &Path, wanted: impl Fn(&OsStr) -> bool) -> bool {
        self.names(directory).is_some_and(|names| !names.iter().any(|name| wanted(name)))
    }

    /// Whether a directory is known to hold no file or directory by which a relative path could begin. File systems may
    /// take small and large letters for the same.
    pub fn lacks_path(&self, directory: &Path, below: &Path) -> bool {
        let Some(first) = below.iter().next() else { return false };
        self.lacks(directory, |name| name.eq_ignore_ascii_case(first))
    }
}

impl fmt::Debug for Listings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listings of {} directories", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_lacking() {
        let mut listings = Listings::default();
        listings.insert("a".into(), vec!["Config.yaml".into(), ".hydra".into()]);
        listings.insert("many".into(), vec![OsString::new(); MOST_NAMES + 1]);
        let lacks = |directory: &str, path: &str| listings.lacks_path(Path::new(directory), Path::new(path));
        assert!(lacks("a", "hparams.yaml") && lacks("a", "hydra/config.yaml"));
        assert!(!lacks("a", "config.yaml") && !lacks("a", ".hydra/config.yaml") && !lacks("a", ""));
        assert!(!lacks("b", "hparams.yaml") && !lacks("many", "hparams.yaml"));
    }
}
