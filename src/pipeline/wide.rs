//! Many small runs at once: each takes little time and waits for the disk, so that they wait together.
//!
//! Does not know what is done with a run.

use std::sync::{Mutex, PoisonError};

use crate::pipeline::recording::Recording;
use crate::state_file::durable::Durability;
use crate::survey::PlannedRun;

/// Bytes of a run that is recorded in so little time that it mostly waits for the disk.
const SMALL: u64 = 1 << 20;

/// From so many small runs on, the whole file system is asked to keep what it was given, also by others.
const WORTH_IT: usize = 16;

/// Small runs that are recorded at once, at most.
const WIDTH: usize = 32;

/// Open files that a run takes while it is recorded: its lock, its log, an event file, and others for a moment.
const FILES_OF_A_RUN: usize = 8;

/// Whether a run mostly waits for the disk.
pub(super) fn is_small(plan: &PlannedRun) -> bool {
    plan.sources.iter().map(|source| source.size).sum::<u64>() <= SMALL
}

/// How so many small runs are made to last together; `None` where each had better do that by itself.
pub(super) fn together(small: usize, recording: &Recording) -> Option<Durability> {
    if small < WORTH_IT { None } else { recording.together() }
}

/// Works on many runs at once that mostly wait for the disk. What comes of them is in no order.
pub(super) fn wide<T: Send, R: Send>(runs: Vec<T>, each: impl Fn(T) -> R + Sync) -> Vec<R> {
    let width = (most_open_files() / FILES_OF_A_RUN / 2).clamp(2, WIDTH).min(runs.len());
    let done = Mutex::new(Vec::with_capacity(runs.len()));
    let left = Mutex::new(runs.into_iter());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                while let Some(run) = next() {
                    let result = each(run);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// How many files may be open in this process.
fn most_open_files() -> usize {
    #[cfg(unix)]
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    let limit = Some(512);
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
