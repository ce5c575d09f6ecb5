//! `kill -9` at any moment: the next start goes on, and nothing is lost or doubled.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::harness::*;
use crate::support::server::{FakeServer, Fault, Route};

/// Small numbers that look random. The seed is printed, so that what failed can be made to fail again.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(clock | 1);
        eprintln!("SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A writer that may be interrupted within a record.
struct Stream {
    writer: Writer,
    next: i64,
    rest: Vec<u8>,
}

impl Stream {
    fn grow(&mut self, chance: &mut Chance) {
        for _ in 0..chance.below(40) {
            let (step, row) = (self.next, self.next as f32);
            let (loss, accuracy) = (self.writer.event(step, "loss", row), self.writer.event(step, "accuracy", row));
            self.rest.extend(loss);
            self.rest.extend(accuracy);
            self.next += 1;
        }
        let count = self.rest.len().saturating_sub(chance.below(60) as usize);
        let now: Vec<u8> = self.rest.drain(..count).collect();
        self.writer.raw(&now);
    }

    fn end(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        self.writer.raw(&rest);
    }
}

#[test]
fn nothing_is_lost_or_doubled_when_it_is_killed() {
    let mut chance = Chance::new();
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let stream = |name: &str| Stream {
        writer: Writer::at(&place.path(&format!("logs/{name}")), now(), &format!("host.{name}")),
        next: 0,
        rest: Vec::new(),
    };
    let mut streams = [stream("a"), stream("b")];
    for _ in 0..8 {
        if chance.below(3) == 0 {
            // An answer is lost, and the line is sent again.
            server.fault(Fault::reset(Route::FileStream).applied().skip(chance.below(3) as usize));
        }
        let watching = place.watch(&server, "");
        for _ in 0..4 {
            streams.iter_mut().for_each(|stream| stream.grow(&mut chance));
            // Not to wait for anything: the moment of death is to be any.
            std::thread::sleep(Duration::from_millis(chance.below(250)));
        }
        watching.kill();
        server.assert_content();
    }
    streams.iter_mut().for_each(Stream::end);
    place.watch(&server, "--until-idle 500ms").end().assert_code(0);
    for (name, stream) in ["a", "b"].iter().zip(&streams) {
        assert_finished(&server, name, "loss", &steps(0..stream.next));
        assert_finished(&server, name, "accuracy", &steps(0..stream.next));
    }
    assert_eq!(server.runs().len(), 2);
    assert_eq!(place.run_directories().len(), 2);
}
