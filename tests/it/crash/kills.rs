//! `watch` and `import` are killed by chance while writers append, answers are lost, and the power fails now and then.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::input::{Stream, several};
use super::verdict::{
    assert_acknowledged, assert_marked, assert_recorded, assert_server_has, assert_server_is_not_ahead,
};
use super::{Dice, kills};
use crate::support::bridge::{Call, Place, Running};
use crate::support::faults::{Chance, Disk, Plan};
use crate::support::server::{FakeServer, Fault, Route};

/// How a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// By what it does to the disk.
    Disk(Plan),
    /// When the server has seen so many more requests.
    Request(usize),
    /// After so long.
    Moment(Duration),
    /// It is asked to end, and does.
    Asked(Signal),
}

impl Death {
    pub(super) fn any(chance: &mut Chance) -> Self {
        let few_or_many = |chance: &mut Chance, few, many| if chance.one_in(3) { many } else { few };
        match chance.below(20) {
            0..8 => {
                let operations = few_or_many(chance, 30, 250);
                let number = 1 + chance.below(operations);
                Self::Disk(if chance.one_in(2) { Plan::Before(number) } else { Plan::Within(number) })
            }
            8..13 => Self::Request(1 + chance.below(25) as usize),
            13..18 => Self::Moment(Duration::from_micros(chance.below(400_000))),
            18 => Self::Asked(Signal::INT),
            _ => Self::Asked(Signal::TERM),
        }
    }

    pub(super) fn plan(self) -> Plan {
        match self {
            Self::Disk(plan) => plan,
            _ => Plan::Trace,
        }
    }
}

/// How long a disk takes to make something last: often nothing, or as long as a busy one does.
pub(super) fn any_slowness(chance: &mut Chance) -> Duration {
    Duration::from_millis(if chance.one_in(2) { 0 } else { chance.below(20) })
}

/// Whatever may go wrong with an answer, to any kind of request: at most one at a time, or nothing would ever arrive.
pub(super) fn lose_an_answer(server: &FakeServer, chance: &mut Chance) {
    let route = match chance.below(4) {
        0 => Route::AnyGraphql,
        1 => Route::Storage,
        _ => Route::FileStream,
    };
    let fault = if chance.one_in(3) { Fault::status(route, 502) } else { Fault::reset(route) };
    let fault = if chance.one_in(4) { fault } else { fault.applied() };
    server.behave();
    server.fault(fault.skip(chance.below(6) as usize));
}

/// Lets a process run until it dies, while writers write. True when it was killed.
pub(super) fn live_and_die(
    mut running: Running,
    death: Death,
    server: &FakeServer,
    streams: &mut [Stream],
    chance: &mut Chance,
) -> bool {
    // What dies of something that never comes dies of old age.
    let old = Instant::now() + if let Death::Moment(moment) = death { moment } else { Duration::from_millis(700) };
    let requests = || server.look(|world| world.requests.len());
    let enough = if let Death::Request(more) = death { requests() + more } else { usize::MAX };
    let mut asked = false;
    while running.is_running() {
        if !asked && chance.one_in(5) {
            let stream = chance.below(streams.len() as u64) as usize;
            streams[stream].grow(chance);
        }
        match death {
            Death::Asked(signal) if !asked && chance.one_in(20) => {
                running.signal(signal);
                asked = true;
            }
            Death::Asked(_) => {}
            _ if Instant::now() >= old || requests() >= enough => return running.kill().code.is_none(),
            _ => {}
        }
        // Not to wait for anything: the moment of death is to be any.
        sleep(Duration::from_micros(chance.below(15_000)));
    }
    let ended = running.wait();
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    ended.code.is_none()
}

/// Kills a command again and again; `last` then has to end well.
fn killed_again_and_again(times: u64, command: impl Fn(&Place) -> Call, last: impl Fn(&Place) -> Call) {
    let mut dice = Dice::new();
    let (place, server) = (Place::new(), FakeServer::start());
    let mut streams = several(&place.path("logs"));
    let (mut deaths, mut losses, mut round) = (0, 0, 0);
    while deaths < times {
        round += 1;
        let mut chance = dice.chance.part();
        let death = Death::any(&mut chance);
        if chance.one_in(3) {
            lose_an_answer(&server, &mut chance);
        }
        let disk = Disk::new(&place.path("out")).slow(any_slowness(&mut chance));
        let mut image = disk.image();
        let power = chance.one_in(4);
        dice.scene(format!("in round {round}, after {deaths} deaths: {death:?}, the power failed: {power}"));
        let running = command(&place).server(&server).envs(disk.variables(death.plan())).spawn();
        let killed = live_and_die(running, death, &server, &mut streams, &mut chance);
        deaths += u64::from(killed);
        if killed && power {
            losses += 1;
            disk.apply(&mut image);
            image.lose_power(&mut chance);
        }
        server.assert_content();
        assert_server_is_not_ahead(&server, &place.path("out"));
    }
    eprintln!("killed {deaths} times in {round} rounds, {losses} times by a loss of power");
    dice.scene("in the last, quiet round".to_owned());
    streams.iter_mut().for_each(|stream| stream.flush(0));
    server.behave();
    last(&place).server(&server).run().ok();
    assert_recorded(&place.path("out"), &streams);
    assert_server_has(&server, &streams);
    assert_acknowledged(&place.path("out"));
    assert_marked(&place.path("out"));
}

const WATCH: [&str; 8] = ["watch", "logs", "--dir", "out", "-p", "p", "--poll", "50ms"];

#[test]
fn watch_is_killed_by_chance() {
    let last = |place: &Place| place.call(WATCH).args(["--until-idle", "500ms"]);
    killed_again_and_again(kills(90), |place| place.call(WATCH), last);
}

#[test]
fn import_is_killed_by_chance() {
    let import = |place: &Place| place.call(["import", "logs", "--dir", "out", "-p", "p"]);
    killed_again_and_again(kills(110), import, import);
}
