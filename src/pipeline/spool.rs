//! How much log and media wait on disk for a server that has not acknowledged them, over all runs. Accounting only.
//!
//! A run that is read asks for room before it begins and after each commit, and is given a portion: until it asks again it
//! may write that much. Portions that were given count like bytes that were written, and some of the limit is set aside for
//! runs that must go on although there is no room. So the limit holds exactly, but for what a single event brings beyond a
//! portion: nothing is cut into pieces, and a file that is larger than the whole spool is let through.
//!
//! Nobody waits for ever. What was written is published, so it is on its way; a run of which nothing waits may always go
//! on, because other uploads may wait for its own to end; and what cannot be sent any more is told apart: bytes that stay
//! because of an error of their own run are no business of the others, and bytes that stay because the server is away end
//! all reading once they fill the spool.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::model::LogPosition;

/// Whoever waits looks at signals and limits this often.
const LOOK_UP: Duration = Duration::from_millis(100);

/// The unacknowledged bytes of all runs.
#[derive(Debug)]
pub struct Spool {
    /// How much a run may write between two questions.
    portion: u64,
    /// Up to here there is room for any run.
    high: u64,
    state: Mutex<State>,
    freed: Condvar,
    changed: Notify,
}

/// Whether a run may write a portion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It may.
    Go,
    /// Not now; uploads make room.
    Wait,
    /// Not in this process: what fills the spool cannot be sent.
    Never,
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All that was recorded is acknowledged.
    Delivered,
    /// It failed for a reason that concerns this run alone.
    FailedAlone,
    /// It failed for a reason that concerns others too: the server is away, or does not let us in.
    Failed,
}

#[derive(Debug, Default)]
struct State {
    runs: HashMap<u64, Held>,
    next: u64,
    /// Bytes and portions, over all runs.
    total: u64,
    /// Bytes of these that stay.
    stuck: u64,
    /// How many wait.
    waiting: usize,
}

/// What waits of one run.
#[derive(Debug, Default)]
struct Held {
    /// What each commit brought, by the position that it published.
    commits: VecDeque<(LogPosition, u64)>,
    /// The sum of these.
    bytes: u64,
    /// What it may write until it asks again.
    portion: u64,
    /// Files that the server did not take.
    kept: u64,
    /// How its upload ended.
    fate: Option<Fate>,
    /// Its reader and its upload.
    users: u8,
}

impl Held {
    fn counted(&self) -> u64 {
        if self.fate == Some(Fate::FailedAlone) { 0 } else { self.bytes + self.portion + self.kept }
    }

    fn stuck(&self) -> u64 {
        match self.fate {
            Some(Fate::Failed) => self.bytes + self.kept,
            Some(Fate::FailedAlone) => 0,
            Some(Fate::Delivered) | None => self.kept,
        }
    }
}

impl Spool {
    /// At most `limit` bytes; at most `writers` runs are read at once.
    pub fn new(limit: u64, writers: usize) -> Arc<Self> {
        let writers = writers.max(1) as u64;
        let portion = (limit / (4 * writers)).max(1);
        Arc::new(Self {
            portion,
            high: limit.saturating_sub(writers.saturating_mul(portion)).max(portion),
            state: Mutex::default(),
            freed: Condvar::new(),
            changed: Notify::new(),
        })
    }

    /// How much a run may write between two questions.
    pub fn portion(&self) -> u64 {
        self.portion
    }

    /// A run that is to be uploaded in this process.
    pub fn enter(self: &Arc<Self>) -> Meter {
        let mut state = self.state();
        let key = state.next;
        state.next += 1;
        state.runs.insert(key, Held { users: 1, ..Held::default() });
        drop(state);
        Meter { spool: self.clone(), key }
    }

    /// Whether somebody waits for room.
    pub fn is_awaited(&self) -> bool {
        self.state().waiting > 0
    }

    /// Whether anything is on its way that makes room when it arrives.
    pub fn drains(&self) -> bool {
        let state = self.state();
        state.total > state.stuck
    }

    /// Waits until there may be more room than before. May say so without reason.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, key: u64, change: impl FnOnce(&mut Held)) {
        let mut state = self.state();
        let Some(held) = state.runs.get_mut(&key) else { return };
        let (counted, stuck) = (held.counted(), held.stuck());
        change(held);
        let (now, stuck_now, unused) = (held.counted(), held.stuck(), held.users == 0);
        state.total = state.total - counted + now;
        state.stuck = state.stuck - stuck + stuck_now;
        if unused && now == 0 {
            state.runs.remove(&key);
        }
        drop(state);
        self.freed.notify_all();
        self.changed.notify_waiters();
    }

    fn room(&self, key: u64, begins: bool) -> Room {
        let (total, stuck, bytes, kept, fate) = {
            let state = self.state();
            let Some(held) = state.runs.get(&key) else { return Room::Go };
            (state.total - held.portion, state.stuck, held.bytes, held.kept, held.fate)
        };
        let is_full = |bytes: u64| bytes.saturating_add(self.portion) > self.high;
        let room = match fate {
            // Nobody else waits for it, and it waits for nobody.
            Some(Fate::FailedAlone) if is_full(bytes + kept) => Room::Never,
            Some(Fate::FailedAlone) => Room::Go,
            _ if is_full(stuck) => Room::Never,
            _ if !is_full(total) => Room::Go,
            None if !begins && bytes == 0 => Room::Go,
            _ => Room::Wait,
        };
        if room == Room::Go {
            self.change(key, |held| held.portion = self.portion);
        }
        room
    }
}

/// What one run has in the spool: for its reader, which asks and writes, and for its upload.
#[derive(Debug)]
pub struct Meter {
    spool: Arc<Spool>,
    key: u64,
}

impl Meter {
    /// Whether the run may write a portion now. One that `begins` has nothing that others could wait for.
    pub fn room(&self, begins: bool) -> Room {
        self.spool.room(self.key, begins)
    }

    /// Waits until the run may write a portion, never may, or is `given_up`.
    pub fn wait(&self, begins: bool, given_up: impl Fn() -> bool) -> Room {
        let mut room = self.room(begins);
        if room != Room::Wait {
            return room;
        }
        self.spool.state().waiting += 1;
        while room == Room::Wait && !given_up() {
            // What happens between the question and this is noticed a moment later.
            drop(self.spool.freed.wait_timeout(self.spool.state(), LOOK_UP));
            room = self.room(begins);
        }
        self.spool.state().waiting -= 1;
        room
    }

    /// So much of the run was there before, up to a position that is published already.
    pub fn found(&self, position: LogPosition, bytes: u64) {
        self.spool.change(self.key, |held| {
            held.bytes += bytes;
            held.commits.push_back((position, bytes));
        });
    }

    /// Lets a moment pass, or less when there is more room than before.
    pub fn pause(&self) {
        self.spool.state().waiting += 1;
        drop(self.spool.freed.wait_timeout(self.spool.state(), LOOK_UP));
        self.spool.state().waiting -= 1;
    }

    /// Whether anything is on its way that makes room when it arrives.
    pub fn others_drain(&self) -> bool {
        self.spool.drains()
    }

    /// So much was written, and is published up to a position.
    pub fn committed(&self, position: LogPosition, bytes: u64) {
        self.spool.change(self.key, |held| {
            held.portion = 0;
            held.bytes += bytes;
            if bytes > 0 {
                held.commits.push_back((position, bytes));
            }
        });
    }

    /// The reader writes nothing until it asks again.
    pub fn rests(&self) {
        self.spool.change(self.key, |held| held.portion = 0);
    }

    /// The server has all that lies before a position.
    pub fn acknowledged(&self, position: LogPosition) {
        self.spool.change(self.key, |held| {
            while let Some((published, bytes)) = held.commits.front().copied().filter(|(at, _)| *at <= position) {
                debug_assert!(published <= position, "positions rise");
                held.bytes = held.bytes.saturating_sub(bytes);
                held.commits.pop_front();
            }
        });
    }

    /// The server did not take files of so many bytes. They stay until the upload ends.
    pub fn kept(&self, bytes: u64) {
        self.spool.change(self.key, |held| held.kept += bytes);
    }

    /// The upload has ended.
    pub fn ended(&self, fate: Fate) {
        self.spool.change(self.key, |held| {
            held.fate = Some(fate);
            if fate == Fate::Delivered {
                held.commits.clear();
                (held.bytes, held.kept) = (0, 0);
            }
        });
    }

    /// How its upload ended, if it did.
    pub fn fate(&self) -> Option<Fate> {
        self.spool.state().runs.get(&self.key).and_then(|held| held.fate)
    }
}

impl Clone for Meter {
    fn clone(&self) -> Self {
        self.spool.change(self.key, |held| held.users += 1);
        Self { spool: self.spool.clone(), key: self.key }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.spool.change(self.key, |held| {
            held.users -= 1;
            if held.users == 0 {
                held.portion = 0;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With two writers: portions of 100, room up to 600.
    fn spool() -> Arc<Spool> {
        let spool = Spool::new(800, 2);
        assert_eq!((spool.portion, spool.high), (100, 600));
        spool
    }

    fn full(spool: &Arc<Spool>, bytes: u64) -> Meter {
        let meter = spool.enter();
        meter.found(LogPosition(9), bytes);
        meter
    }

    fn total(spool: &Spool) -> u64 {
        spool.state().total
    }

    #[test]
    fn what_is_acknowledged_makes_room() {
        let spool = spool();
        let run = spool.enter();
        for position in 1..=6 {
            assert_eq!(run.room(position == 1), Room::Go);
            assert_eq!(total(&spool), 100 * position, "a portion counts like bytes");
            run.committed(LogPosition(position), 100);
        }
        assert_eq!(run.room(false), Room::Wait);
        // The server has less than the first commit, then the first three.
        run.acknowledged(LogPosition(0));
        assert_eq!((run.room(false), total(&spool)), (Room::Wait, 600));
        run.acknowledged(LogPosition(3));
        assert_eq!((run.room(false), total(&spool)), (Room::Go, 400));
        run.ended(Fate::Delivered);
        run.rests();
        assert_eq!(total(&spool), 0);
    }

    #[test]
    fn a_run_of_which_nothing_waits_may_go_on_and_a_new_one_may_not() {
        let spool = spool();
        let (large, small) = (full(&spool, 5_000), spool.enter());
        assert_eq!(small.room(true), Room::Wait);
        assert_eq!(small.room(false), Room::Go);
        small.committed(LogPosition(1), 1);
        assert_eq!(small.room(false), Room::Wait);
        assert_eq!(large.room(false), Room::Wait);
        large.acknowledged(LogPosition(9));
        assert_eq!((large.room(false), small.room(false)), (Room::Go, Room::Go));
    }

    #[test]
    fn what_one_run_cannot_send_does_not_stop_the_others() {
        let spool = spool();
        let (bad, good) = (full(&spool, 550), spool.enter());
        assert_eq!(good.room(true), Room::Wait);
        bad.ended(Fate::FailedAlone);
        assert_eq!((good.room(true), bad.room(false)), (Room::Go, Room::Never));
    }

    #[test]
    fn a_spool_full_of_what_cannot_be_sent_ends_all_reading() {
        let spool = spool();
        let (bad, good) = (full(&spool, 550), spool.enter());
        bad.ended(Fate::Failed);
        assert_eq!((good.room(true), good.room(false), bad.room(false)), (Room::Never, Room::Never, Room::Never));
        let spool = self::spool();
        let run = spool.enter();
        run.kept(550);
        assert_eq!(run.room(false), Room::Never, "files that were refused fill it too");
    }

    #[test]
    fn runs_that_are_done_are_forgotten() {
        let spool = spool();
        let run = spool.enter();
        let upload = run.clone();
        assert_eq!(run.room(true), Room::Go);
        run.committed(LogPosition(5), 50);
        drop(run);
        assert_eq!(spool.state().runs.len(), 1);
        upload.ended(Fate::Delivered);
        drop(upload);
        assert_eq!(total(&spool), 0);
        assert_eq!(spool.state().runs.len(), 0);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(200))]
        /// Readers that write no more than their portions stay below the limit, whatever the order of things is.
        #[test]
        fn the_limit_holds(steps in proptest::collection::vec((0..2_usize, 0..3_u8, 0..=100_u64), 1..200)) {
            let spool = spool();
            let mut position = 0;
            let mut runs = [(spool.enter(), true, false), (spool.enter(), true, false)];
            for (index, what, bytes) in steps {
                let (run, begins, may_write) = &mut runs[index];
                match what {
                    0 => {
                        *may_write = run.room(*begins) == Room::Go;
                        *begins &= !*may_write;
                    }
                    1 if *may_write => {
                        position += 1;
                        run.committed(LogPosition(position), bytes);
                        *may_write = false;
                    }
                    1 => {}
                    _ => run.acknowledged(LogPosition(position - bytes.min(position))),
                }
                proptest::prop_assert!(total(&spool) <= 800, "{}", total(&spool));
            }
        }
    }
}
