//! Turns at making run directories: one process at a time, and in it several threads, each for a run of its own.
//!
//! A turn holds the lock that keeps other processes out; it ends when all that entered have left, and does not go on for
//! ever: others wait for it. Does not know what is made.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::recorder::RecordError;
use crate::state_file::lock::Lock;

/// So many enter a turn, at most.
const ENTER: usize = 64;

/// Who is making run directories in this process.
#[derive(Debug, Default)]
pub(super) struct Making {
    turn: Mutex<Turn>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Turn {
    lock: Option<Lock>,
    /// What the lock said when this process held it last.
    last: String,
    inside: usize,
    entered: usize,
}

/// A place in a turn; left when dropped.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a Making);

impl Making {
    /// Enters the turn, or begins one when there is none, with the lock that `take` gets; it is told what that said when
    /// this process held it last.
    pub(super) fn enter(
        &self,
        take: impl FnOnce(&mut String) -> Result<Lock, RecordError>,
    ) -> Result<Place<'_>, RecordError> {
        let mut turn = self.turn();
        while turn.inside > 0 && turn.entered >= ENTER {
            turn = self.left.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        if turn.inside == 0 {
            turn.lock = Some(take(&mut turn.last)?);
            turn.entered = 0;
        }
        turn.inside += 1;
        turn.entered += 1;
        Ok(Place(self))
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut turn = self.0.turn();
        turn.inside -= 1;
        if turn.inside == 0 {
            turn.lock = None;
            self.0.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::state_file::lock::Locking;

    #[test]
    fn a_turn_has_one_lock_and_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("making.lock");
        let taken = std::cell::Cell::new(0);
        let making = Making::default();
        let enter = || {
            making
                .enter(|_| {
                    taken.set(taken.get() + 1);
                    Ok(Lock::take(&path, Locking::Required).unwrap())
                })
                .unwrap()
        };
        let first = enter();
        let second = enter();
        assert_eq!(taken.get(), 1);
        drop(first);
        Lock::take(&path, Locking::Required).expect_err("one is still inside");
        drop(second);
        drop(Lock::take(&path, Locking::Required).expect("all have left"));
        drop(enter());
        assert_eq!(taken.get(), 2);
    }

    #[test]
    fn a_turn_that_many_have_entered_lets_nobody_in() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("making.lock");
        let making = Making::default();
        let enter = || making.enter(|_| Ok(Lock::take(&path, Locking::Required).unwrap())).unwrap();
        let mut inside: Vec<Place<'_>> = (0..ENTER).map(|_| enter()).collect();
        std::thread::scope(|scope| {
            let late = scope.spawn(|| drop(enter()));
            inside.pop();
            assert!(!late.is_finished(), "others are still inside");
            inside.clear();
            late.join().unwrap();
        });
    }
}
