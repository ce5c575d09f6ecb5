//! Many small runs that are made durable together: chance chooses when the process dies, the power fails, or the disk does.

use super::Dice;
use super::input::{Stream, many};
use super::verdict::assert_recorded;
use crate::support::bridge::{Call, Ended, Place};
use crate::support::faults::{Disk, Plan};

/// Points at which something happens, of some hundred.
const POINTS: u64 = 24;

struct Many {
    place: Place,
    streams: Vec<Stream>,
}

impl Many {
    fn new(dice: &mut Dice) -> Self {
        let place = Place::new();
        let streams = many(&place.path("logs"), &mut dice.chance);
        Self { place, streams }
    }

    /// A disk with nothing on it yet.
    fn disk(&self) -> Disk {
        let _ = std::fs::remove_dir_all(self.place.path("out"));
        Disk::new(&self.place.path("out"))
    }

    fn import(&self) -> Call {
        self.place.import_offline(["logs"]).args(["-p", "p"])
    }

    /// The same command again, with nothing in its way.
    fn end_well(&self) -> Ended {
        let ended = self.place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
        assert_recorded(&self.place.path("out"), &self.streams);
        ended
    }

    /// How many operations there are, and that few of them are for one run alone.
    fn operations(&self) -> u64 {
        let disk = self.disk();
        let mut image = disk.image();
        self.import().envs(disk.variables(Plan::Trace)).run().ok();
        let told = disk.tell();
        let operations = disk.apply(&mut image) as u64;
        image.assert_traced();
        assert_recorded(&self.place.path("out"), &self.streams);
        assert!(told.contains("SyncAll"), "{told}");
        operations
    }
}

#[test]
fn runs_that_are_committed_together_survive_a_loss_of_power() {
    let mut dice = Dice::new();
    let many = Many::new(&mut dice);
    let operations = many.operations();
    for _ in 0..POINTS {
        let number = 1 + dice.chance.below(operations);
        let disk = many.disk();
        let mut image = disk.image();
        many.import().envs(disk.variables(Plan::Before(number))).run();
        dice.scene(format!("power is lost after:\n{}", disk.tell()));
        disk.apply(&mut image);
        image.lose_power(&mut dice.chance);
        many.end_well();
    }
}

#[test]
fn what_was_committed_together_lasts_when_it_is_said() {
    let mut dice = Dice::new();
    let many = Many::new(&mut dice);
    let disk = many.disk();
    let mut image = disk.image();
    many.import().envs(disk.variables(Plan::Trace)).run().ok();
    dice.scene(disk.tell());
    disk.apply(&mut image);
    for _ in 0..POINTS {
        image.lose_power(&mut dice.chance);
        assert_recorded(&many.place.path("out"), &many.streams);
    }
}

#[test]
fn runs_that_are_committed_together_survive_a_death_and_a_disk_that_fails() {
    let mut dice = Dice::new();
    let many = Many::new(&mut dice);
    let operations = many.operations();
    for kind in [Plan::Within as fn(u64) -> Plan, Plan::Full, Plan::Broken] {
        for _ in 0..POINTS / 3 {
            let plan = kind(1 + dice.chance.below(operations));
            let disk = many.disk();
            let ended = many.import().envs(disk.variables(plan)).run();
            dice.scene(format!("{plan:?} after:\n{}\n{}", disk.tell(), ended.stderr));
            assert!(!ended.stderr.contains("panicked"));
            many.end_well();
        }
    }
}
