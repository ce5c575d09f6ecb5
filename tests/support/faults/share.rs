//! A network share under the program: old sizes, reads that fail, no events, and how much room there is.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::compile;

/// The directory that lies on the share, and what the share says.
pub struct Share {
    under: PathBuf,
    says: tempfile::NamedTempFile,
    trace: tempfile::NamedTempFile,
}

impl Share {
    /// Event files below `under` lie on it. It need not be there yet.
    pub fn new(under: &Path) -> Self {
        let parent = under.parent().unwrap().canonicalize().unwrap();
        let file = || tempfile::NamedTempFile::new().unwrap();
        Self { under: parent.join(under.file_name().unwrap()), says: file(), trace: file() }
    }

    /// What it says from now on, as `share.c` knows it; all at once.
    pub fn says(&self, words: &str) {
        let fresh = self.says.path().with_extension("fresh");
        fs::write(&fresh, words).unwrap();
        fs::rename(fresh, self.says.path()).unwrap();
    }

    /// The directories that were to tell of changes.
    pub fn watched(&self) -> Vec<String> {
        fs::read_to_string(self.trace.path()).unwrap().lines().map(str::to_owned).collect()
    }

    /// The variables that put a process on this share.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
        vec![
            ("LD_PRELOAD", LIBRARY.get_or_init(|| compile("share")).into()),
            ("SHARE_UNDER", self.under.clone().into()),
            ("SHARE_SAYS", self.says.path().into()),
            ("SHARE_TRACE", self.trace.path().into()),
        ]
    }
}
