//! Many logs of other clients that are sent whole, and wait for the disk together: the power fails at moments that chance
//! chooses. A mark is believed without a look at the server, so none may outlive what was noted of its log.

use std::fs;

use wandb_bridge::wandb_format::is_synced;

use super::Dice;
use super::input::{Stream, many};
use super::verdict::{assert_marked, assert_server_has, upload_states};
use crate::support::bridge::{Call, Place};
use crate::support::faults::{Disk, Image, Plan};
use crate::support::official::{copy_tree, logs_below};
use crate::support::server::FakeServer;

/// Points at which something happens, of some thousand.
const POINTS: u64 = 16;

struct Logs {
    place: Place,
    streams: Vec<Stream>,
}

impl Logs {
    fn new(dice: &mut Dice) -> Self {
        let place = Place::new();
        let streams = many(&place.path("logs"), &mut dice.chance);
        place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
        // What other clients record has none of our state beside it.
        for log in logs_below(&place.path("out")) {
            fs::remove_dir_all(log.parent().unwrap().join(".wandb-bridge")).unwrap();
        }
        Self { place, streams }
    }

    fn story(&self) -> Story<'_> {
        let place = Place::new();
        copy_tree(&self.place.path("out"), &place.path("out"));
        let disk = Disk::new(&place.path("out"));
        let image = disk.image();
        Story { logs: self, place, server: FakeServer::start(), disk, image }
    }
}

/// The logs in a place of their own, synced once.
struct Story<'a> {
    logs: &'a Logs,
    place: Place,
    server: FakeServer,
    disk: Disk,
    image: Image,
}

impl Story<'_> {
    fn sync(&self) -> Call {
        self.place.sync(&self.server)
    }

    fn assert_noted_where_marked(&self) {
        for log in logs_below(&self.place.path("out")).into_iter().filter(|log| is_synced(log)) {
            let states = upload_states(log.parent().unwrap());
            assert_eq!(states.len(), 1, "{} is marked, and this is what is noted of it: {states:?}", log.display());
            assert_eq!(states[0]["state"]["sent"]["finished"], 0, "{}", log.display());
        }
    }

    fn assert_whole(&self) {
        assert_server_has(&self.server, &self.logs.streams);
        assert_marked(&self.place.path("out"));
        self.assert_noted_where_marked();
    }
}

#[test]
fn logs_that_wait_for_the_disk_together_survive_a_loss_of_power() {
    let mut dice = Dice::new();
    let logs = Logs::new(&mut dice);
    let mut story = logs.story();
    story.sync().envs(story.disk.variables(Plan::Trace)).run().ok();
    assert!(story.disk.tell().contains("SyncAll"), "nothing waits for all of them: {}", story.disk.tell());
    let operations = story.disk.apply(&mut story.image) as u64;
    story.image.assert_traced();
    story.assert_whole();

    let marks = 2 * logs.streams.len() as u64;
    let anywhere = (0..POINTS).map(|_| operations);
    // The last operations are marks, where a state that does not last would be missed most.
    for (number, below) in anywhere.chain([marks; POINTS as usize / 2]).enumerate() {
        let at = operations - dice.chance.below(below);
        let mut story = logs.story();
        story.sync().envs(story.disk.variables(Plan::Before(at))).run();
        dice.scene(format!("number {number}: power is lost after:\n{}", story.disk.tell()));
        story.disk.apply(&mut story.image);
        story.image.lose_power(&mut dice.chance);
        story.assert_noted_where_marked();
        story.sync().run().ok();
        story.assert_whole();
    }
}

#[test]
fn what_was_sent_is_noted_for_good_when_the_command_has_ended() {
    let mut dice = Dice::new();
    let logs = Logs::new(&mut dice);
    let mut story = logs.story();
    story.sync().envs(story.disk.variables(Plan::Trace)).run().ok();
    dice.scene(story.disk.tell());
    story.disk.apply(&mut story.image);
    let requests = story.server.requests().len();
    for _ in 0..POINTS {
        story.image.lose_power(&mut dice.chance);
        story.assert_noted_where_marked();
        for log in logs_below(&story.place.path("out")) {
            assert_eq!(upload_states(log.parent().unwrap()).len(), 1, "what is noted of {}", log.display());
        }
    }
    // Marks may be lost with the power; what is noted says as much.
    story.sync().run().ok();
    story.assert_whole();
    assert_eq!(story.server.requests().len(), requests, "there was nothing left to send");
}
