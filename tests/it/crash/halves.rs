//! A recorder and an uploader are two processes on one directory, and either is killed by chance.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::input::several;
use super::kills::{Death, lose_an_answer};
use super::verdict::{
    assert_acknowledged, assert_marked, assert_recorded, assert_server_has, assert_server_is_not_ahead,
};
use super::{Dice, kills};
use crate::support::bridge::{Call, Place, Running};
use crate::support::faults::{Chance, Disk};
use crate::support::server::FakeServer;

/// A process that is started again whenever it has died.
struct Half<'a> {
    call: Box<dyn Fn() -> Call + 'a>,
    disk: Disk,
    life: Option<Life>,
    deaths: u64,
}

struct Life {
    running: Running,
    death: Death,
    old: Instant,
    /// How many requests the server has seen when it dies.
    enough: usize,
    asked: bool,
}

impl Half<'_> {
    fn live(&mut self, server: &FakeServer, out: &Path, chance: &mut Chance) {
        let requests = server.look(|world| world.requests.len());
        let life = self.life.get_or_insert_with(|| {
            let death = Death::any(chance);
            let running = (self.call)().envs(self.disk.variables(death.plan())).spawn();
            let age = if let Death::Moment(moment) = death { moment } else { Duration::from_millis(500) };
            let enough = if let Death::Request(more) = death { requests + more } else { usize::MAX };
            Life { running, death, old: Instant::now() + age, enough, asked: false }
        });
        if let Death::Asked(signal) = life.death
            && !life.asked
            && chance.one_in(20)
        {
            life.running.signal(signal);
            life.asked = true;
        }
        let to_kill = !matches!(life.death, Death::Asked(_)) && (Instant::now() >= life.old || requests >= life.enough);
        if to_kill || !life.running.is_running() {
            let running = self.life.take().unwrap().running;
            let ended = if to_kill { running.kill() } else { running.wait() };
            assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
            self.deaths += u64::from(ended.code.is_none());
            // Either may be at work: what the server holds is asked first, and what counts only becomes more.
            assert_server_is_not_ahead(server, out);
        }
    }
}

#[test]
fn recorder_and_uploader_are_killed_by_chance() {
    let mut dice = Dice::new();
    let (place, server) = (Place::new(), FakeServer::start());
    let mut streams = several(&place.path("logs"));
    let record = || place.call(["watch", "logs", "--dir", "out", "--mode", "offline", "-p", "p", "--poll", "50ms"]);
    let upload = || place.sync(&server).args(["--live", "--poll", "50ms"]);
    let half =
        |call| Half { call, disk: Disk::new(&place.path("out")).slow(Duration::from_millis(3)), life: None, deaths: 0 };
    let (mut recorder, mut uploader) = (half(Box::new(record) as Box<dyn Fn() -> Call>), half(Box::new(upload)));
    let times = kills(50);
    let mut chance = dice.chance.part();
    while recorder.deaths < times || uploader.deaths < times {
        dice.scene(format!("after {} and {} deaths", recorder.deaths, uploader.deaths));
        if chance.one_in(40) {
            lose_an_answer(&server, &mut chance);
        }
        recorder.live(&server, &place.path("out"), &mut chance);
        uploader.live(&server, &place.path("out"), &mut chance);
        if chance.one_in(20) {
            let stream = chance.below(streams.len() as u64) as usize;
            streams[stream].grow(&mut chance);
        }
        server.assert_content();
        // Not to wait for anything: the moments of death are to be any.
        sleep(Duration::from_micros(chance.below(15_000)));
    }
    eprintln!("the recorder was killed {} times, the uploader {} times", recorder.deaths, uploader.deaths);
    (recorder.life, uploader.life) = (None, None);
    dice.scene("in the last, quiet round".to_owned());
    streams.iter_mut().for_each(|stream| stream.flush(0));
    server.behave();
    let follower = upload().args(["--until-idle", "2s"]).spawn();
    record().args(["--until-idle", "500ms"]).run().ok();
    follower.wait().ok();
    assert_recorded(&place.path("out"), &streams);
    assert_server_has(&server, &streams);
    assert_acknowledged(&place.path("out"));
    assert_marked(&place.path("out"));
}
