//! States that were saved without waiting for the disk, and logs that are marked as sent when it was waited for, once for all
//! of them.
//!
//! For logs of other clients of which nothing was known, here or on the server, and which were sent whole in one go: a start
//! without the state finds the same on the server. A mark never stands where the state may still be lost.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::state_file::durable::{device, sync_file_system};
use crate::state_file::sync_directory;
use crate::wandb_format::{mark_synced, synced_marker};

/// So many on one file system take it as long as all that is on it.
const MANY: usize = 16;

/// None waits longer: a process that is killed leaves few logs without their mark.
const LONGEST: Duration = Duration::from_secs(1);

/// What waits.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    waiting: Mutex<Waiting>,
    /// Held by who waits for the disk: a log whose state is on its way there is not marked by another. An error says that
    /// something does not last, but not what, so nothing is marked after it.
    failed: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Waiting {
    since: Option<Instant>,
    states: Vec<PathBuf>,
    /// Logs whose state is among those, or was.
    logs: Vec<PathBuf>,
}

impl Unsettled {
    /// Takes in a state that was just saved. Now and then this waits for the disk.
    pub(crate) fn add(&self, state: PathBuf) -> Vec<String> {
        let mut waiting = self.waiting();
        waiting.states.push(state);
        let is_time = waiting.since.get_or_insert_with(Instant::now).elapsed() >= LONGEST;
        drop(waiting);
        if is_time { self.settle() } else { Vec::new() }
    }

    /// Marks a log as sent when its state lasts.
    pub(crate) fn mark(&self, log: PathBuf) {
        self.waiting().logs.push(log);
    }

    pub(crate) fn is_empty(&self) -> bool {
        let waiting = self.waiting();
        waiting.states.is_empty() && waiting.logs.is_empty()
    }

    /// When this returns, all that was taken in lasts. Returns, in words, what could not be done: nothing of it is lost on the
    /// server. Blocking.
    pub(crate) fn settle(&self) -> Vec<String> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { states, logs, .. } = std::mem::take(&mut *self.waiting());
        if failed.is_none() {
            *failed = make_last(states).err().map(|error| error.to_string());
        }
        if let Some(error) = &*failed {
            let count = logs.len();
            return vec![format!(
                "{count} runs are on the server, and cannot be marked so: the official client may send them again: \
                 what is noted of them may not last: {error}"
            )];
        }
        let mark = |log: PathBuf| {
            let error = mark_synced(&log).err()?;
            let mark = synced_marker(&log);
            Some(format!(
                "a run is on the server, and cannot be marked so: the official client may send it again: `{}`: {error}",
                mark.display()
            ))
        };
        logs.into_iter().filter_map(mark).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes files last, with their names.
fn make_last(paths: Vec<PathBuf>) -> io::Result<()> {
    let mut by_device: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    for path in paths {
        match device(&path) {
            Ok(device) => by_device.entry(device).or_default().push(path),
            // Whatever became of it since, it is no more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for paths in by_device.into_values() {
        if let (MANY.., Some(path)) = (paths.len(), paths.first()) {
            sync_file_system(&File::open(path)?)?;
            continue;
        }
        for path in paths {
            File::open(&path)?.sync_all()?;
            path.parent().map_or(Ok(()), sync_directory)?;
        }
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;
    use crate::wandb_format::is_synced;

    #[test]
    fn logs_are_marked_when_their_states_last() {
        let directory = tempfile::tempdir().unwrap();
        for count in [1, MANY] {
            let unsettled = Unsettled::default();
            let log = directory.path().join(format!("run-{count}.wandb"));
            for number in 0..count {
                let path = directory.path().join(number.to_string());
                fs::write(&path, "x").unwrap();
                assert!(unsettled.add(path).is_empty());
            }
            // One that has gone meanwhile does no harm.
            assert!(unsettled.add(directory.path().join("gone")).is_empty());
            unsettled.mark(log.clone());
            assert!(!is_synced(&log) && !unsettled.is_empty());
            assert!(unsettled.settle().is_empty());
            assert!(is_synced(&log) && unsettled.is_empty());
        }
    }

    #[test]
    fn none_waits_longer_than_a_moment() {
        let directory = tempfile::tempdir().unwrap();
        let (log, unsettled) = (directory.path().join("run-a.wandb"), Unsettled::default());
        unsettled.mark(log.clone());
        unsettled.waiting().since = Instant::now().checked_sub(LONGEST);
        assert!(unsettled.add(directory.path().join("gone")).is_empty());
        assert!(is_synced(&log) && unsettled.is_empty());
    }
}
