//! Where the state of runs lies: beside each run, or all of it under one directory.
//!
//! Beside a run it is `.wandb-bridge/` in the run directory. Under `--state-dir DIR` it is `DIR/NAME/`, by the name of the
//! run directory, so that the state stays right when either is moved; nothing of ours is written to the run directories
//! then. A run that was begun with its state beside it keeps it there. Does not know what the states say.

use std::fs;
use std::path::{Path, PathBuf};

use crate::state_file::lock::Locking;

/// The directory beside a log that holds our state about the run.
pub(crate) const BESIDE: &str = ".wandb-bridge";

/// Where the states of all runs of a command lie, and whether they must be locked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateHome {
    /// `--state-dir`; `None` is beside the runs.
    pub directory: Option<PathBuf>,
    /// `--no-lock`
    pub locking: Locking,
}

impl StateHome {
    /// The state of the run in a directory.
    pub fn of(&self, run_directory: &Path) -> StatePlace {
        let beside = run_directory.join(BESIDE);
        let directory = match &self.directory {
            Some(home) => {
                let under = home.join(name_of(run_directory));
                if !under.is_dir() && beside.is_dir() { beside } else { under }
            }
            None => beside,
        };
        StatePlace { directory, locking: self.locking }
    }

    /// The state of the run that a log holds.
    pub fn of_log(&self, log: &Path) -> StatePlace {
        self.of(log.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }

    /// The lock of whoever makes run directories below a `wandb/` directory.
    pub fn making_lock(&self, wandb_directory: &Path) -> PathBuf {
        self.directory.clone().unwrap_or_else(|| wandb_directory.join(BESIDE)).join("making.lock")
    }
}

/// Links are followed, so that `latest-run` means the run that it points at. Only a path like `/` has no name.
fn name_of(run_directory: &Path) -> PathBuf {
    let real = run_directory.canonicalize().or_else(|_| std::path::absolute(run_directory));
    let name = real.as_deref().unwrap_or(run_directory).file_name();
    name.map_or_else(|| PathBuf::from("root"), PathBuf::from)
}

/// The state of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePlace {
    directory: PathBuf,
    locking: Locking,
}

impl StatePlace {
    /// The directory that holds it; it need not be there.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether its locks are required.
    pub fn locking(&self) -> Locking {
        self.locking
    }

    /// How far the run was recorded.
    pub fn checkpoint(&self) -> PathBuf {
        self.directory.join("checkpoint.json")
    }

    /// The lock of whoever records it.
    pub fn writer_lock(&self) -> PathBuf {
        self.directory.join("writer.lock")
    }

    /// The mark of a log that was begun here and of which nothing counts yet: made before the log, and gone once there is a
    /// checkpoint.
    pub fn uncounted(&self) -> PathBuf {
        self.directory.join("uncounted")
    }

    /// What is kept of logs that were deleted.
    pub fn cleaned(&self) -> PathBuf {
        self.directory.join("cleaned.json")
    }

    /// What logs that were deleted had printed.
    pub fn console(&self) -> PathBuf {
        self.directory.join("output.log")
    }

    /// What was acknowledged by the target that the key stands for.
    pub fn upload(&self, key: &str) -> PathBuf {
        self.directory.join(format!("upload-{key}.json"))
    }

    /// What was acknowledged by all targets so far, in the order of their keys.
    pub fn uploads(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let is_state = |name: &str| name.starts_with("upload-") && name.ends_with(".json");
        let mut paths: Vec<_> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_str().is_some_and(is_state))
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        paths
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn state_lies_beside_the_run_or_under_a_directory_by_the_name_of_the_run() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("wandb/offline-run-1-a");
        fs::create_dir_all(&run).unwrap();
        let home = StateHome { directory: Some(root.path().join("state")), ..StateHome::default() };
        assert_eq!(StateHome::default().of(&run).directory(), run.join(".wandb-bridge"));
        assert_eq!(home.of(&run).directory(), root.path().join("state/offline-run-1-a"));
        // Whatever the path is called that leads there.
        assert_eq!(home.of(&root.path().join("wandb/../wandb/offline-run-1-a/")), home.of(&run));
        assert_eq!(home.of_log(&run.join("run-a.wandb")), home.of(&run));
        assert_eq!(StateHome::default().of_log(Path::new("run-a.wandb")).directory(), Path::new("./.wandb-bridge"));
        assert_eq!(home.of(Path::new("not/there")).directory(), root.path().join("state/there"));
        assert_eq!(home.of(&run).checkpoint(), root.path().join("state/offline-run-1-a/checkpoint.json"));
    }

    #[test]
    fn a_run_keeps_its_state_where_it_began() {
        let root = tempfile::tempdir().unwrap();
        let (run, state) = (root.path().join("run"), root.path().join("state"));
        let home = StateHome { directory: Some(state.clone()), ..StateHome::default() };
        fs::create_dir_all(run.join(BESIDE)).unwrap();
        assert_eq!(home.of(&run).directory(), run.join(BESIDE));
        fs::create_dir_all(state.join("run")).unwrap();
        assert_eq!(home.of(&run).directory(), state.join("run"));
    }

    #[test]
    fn states_of_uploads_are_found_by_name() {
        let root = tempfile::tempdir().unwrap();
        let place = StateHome::default().of(root.path());
        assert_eq!(place.uploads(), Vec::<PathBuf>::new());
        fs::create_dir(place.directory()).unwrap();
        for name in ["upload-b.json", "upload-a.json", "upload-a.lock", "upload-a.json.tmp", "checkpoint.json"] {
            fs::write(place.directory().join(name), "").unwrap();
        }
        assert_eq!(place.uploads(), [place.upload("a"), place.upload("b")]);
    }
}
