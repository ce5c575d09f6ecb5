//! Every operation on the disk, one after the other, is the point at which something happens to a small import or sync. Then
//! the same command is given again, and all must be there.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use super::Dice;
use super::input::{Stream, small};
use super::verdict::{
    assert_acknowledged, assert_marked, assert_recorded, assert_server_has, assert_server_is_not_ahead,
};
use crate::support::bridge::{Call, Ended, Place};
use crate::support::events::Writer;
use crate::support::faults::{Disk, Plan};
use crate::support::official::copy_tree;
use crate::support::server::FakeServer;

/// How often the power fails right after a command has ended.
const LOSSES_AT_END: u32 = 40;

/// What is put through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    ImportOffline,
    Import,
    Sync,
    /// What was imported, uploaded and marked before has grown. It is imported offline, and then synced.
    ImportGrown,
}

/// What all stories of a test share.
struct Shelf {
    place: Place,
    streams: Vec<Stream>,
    command: Command,
}

/// One command in a place of its own.
struct Story<'a> {
    shelf: &'a Shelf,
    place: Place,
    server: FakeServer,
}

impl Shelf {
    fn new(command: Command) -> Self {
        let place = Place::new();
        let streams = small(&place.path("logs"), &place.path("before"));
        if command == Command::Sync {
            place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
        }
        Self { place, streams, command }
    }

    fn story(&self) -> Story<'_> {
        let place = Place::new();
        if self.command == Command::Sync {
            copy_tree(&self.place.path("out"), &place.path("out"));
        }
        let server = FakeServer::start();
        copy_tree(&self.place.path("before"), &place.path("logs"));
        if self.command == Command::ImportGrown {
            let disk = Disk::new(&place.path("out"));
            place.import(&server, ["logs"]).envs(disk.variables(Plan::Trace)).run().ok();
            assert_marked(&place.path("out"));
        }
        copy_tree(&self.place.path("logs"), &place.path("logs"));
        Story { shelf: self, place, server }
    }

    /// How many operations the command has when nothing happens.
    fn operations(&self) -> u64 {
        let story = self.story();
        let disk = Disk::new(&story.out());
        let mut image = disk.image();
        story.call(&disk, Plan::Trace).ok();
        story.assert_whole();
        let operations = disk.apply(&mut image);
        image.assert_traced();
        assert!(operations > 20, "only {operations} operations were seen");
        operations as u64
    }
}

impl Story<'_> {
    fn out(&self) -> PathBuf {
        self.place.path("out")
    }

    fn command(&self) -> Call {
        match self.shelf.command {
            Command::ImportOffline | Command::ImportGrown => self.place.import_offline(["logs"]).args(["-p", "p"]),
            Command::Import => self.place.import(&self.server, ["logs"]),
            Command::Sync => self.place.sync(&self.server),
        }
    }

    fn call(&self, disk: &Disk, plan: Plan) -> Ended {
        let ended = self.command().envs(disk.variables(plan)).run();
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        self.server.assert_content();
        assert_server_is_not_ahead(&self.server, &self.out());
        ended
    }

    /// Marks are for people and for the official client; a full disk may keep one from being made.
    fn assert_whole(&self) {
        assert_recorded(&self.out(), &self.shelf.streams);
        if matches!(self.shelf.command, Command::Import | Command::Sync) {
            assert_server_has(&self.server, &self.shelf.streams);
            assert_acknowledged(&self.out());
        }
    }

    /// Gives the command again, with nothing in its way.
    fn end_well(&self) {
        self.call(&Disk::new(&self.out()), Plan::Trace).ok();
        self.assert_whole();
        self.sync_the_rest();
    }

    /// Whatever is not on the server yet goes there now.
    fn sync_the_rest(&self) {
        if self.shelf.command == Command::ImportGrown {
            let disk = Disk::new(&self.out());
            self.place.sync(&self.server).envs(disk.variables(Plan::Trace)).run().ok();
        }
        if self.shelf.command != Command::ImportOffline {
            assert_server_has(&self.server, &self.shelf.streams);
            assert_acknowledged(&self.out());
            assert_marked(&self.out());
        }
    }
}

fn dies_at_every_operation(command: Command) {
    let (mut dice, shelf) = (Dice::new(), Shelf::new(command));
    let mut deaths = 0;
    for kind in [Plan::Before as fn(u64) -> Plan, Plan::Within] {
        for number in 1.. {
            let story = shelf.story();
            let disk = Disk::new(&story.out());
            dice.scene(format!("{command:?} dies: {:?}", kind(number)));
            if story.call(&disk, kind(number)).code.is_some() {
                break;
            }
            deaths += 1;
            dice.scene(format!("{command:?} has died after:\n{}", disk.tell()));
            story.end_well();
        }
    }
    eprintln!("{command:?} died at {deaths} points");
    assert!(deaths > 40, "only {deaths}");
}

fn loses_power_at_every_operation(command: Command) {
    let (mut dice, shelf) = (Dice::new(), Shelf::new(command));
    let mut losses = 0;
    for number in 1.. {
        let story = shelf.story();
        let disk = Disk::new(&story.out());
        let mut image = disk.image();
        let ended = story.call(&disk, Plan::Before(number));
        dice.scene(format!("{command:?} loses power after:\n{}", disk.tell()));
        disk.apply(&mut image);
        losses += 1;
        if ended.code.is_some() {
            // It has ended well, and said so: what it did lasts. The mark is only for people.
            ended.ok();
            for _ in 0..LOSSES_AT_END {
                image.lose_power(&mut dice.chance);
                story.assert_whole();
            }
            // Not after another import: what was recorded is found as it is.
            match command {
                Command::ImportGrown => story.sync_the_rest(),
                _ => story.end_well(),
            }
            break;
        }
        image.lose_power(&mut dice.chance);
        story.end_well();
    }
    eprintln!("{command:?} lost power at {losses} points");
    assert!(losses > 20, "only {losses}");
}

fn disk_fails_at_every_operation(command: Command) {
    let (mut dice, shelf) = (Dice::new(), Shelf::new(command));
    let operations = shelf.operations();
    for (kind, says) in
        [(Plan::Full as fn(u64) -> Plan, "No space left on device"), (Plan::Broken, "Input/output error")]
    {
        let mut failures = 0;
        for number in 1..=operations {
            let story = shelf.story();
            let disk = Disk::new(&story.out());
            let plan = kind(number);
            dice.scene(format!("{command:?} on a disk that is {plan:?}"));
            let ended = story.call(&disk, plan);
            dice.scene(format!("{command:?} on a disk that is {plan:?}, after:\n{}\n{}", disk.tell(), ended.stderr));
            if ended.code == Some(0) {
                // It did without, so everything is there.
                story.assert_whole();
            } else {
                failures += 1;
                let codes: &[i32] = if matches!(plan, Plan::Full(_)) { &[5] } else { &[1, 3] };
                assert!(codes.contains(&ended.code.unwrap()), "it ends with {:?}", ended.code);
                // A file that the program makes itself is named instead.
                let says_it = [says, "file that could not be uploaded"].iter().any(|text| ended.stderr.contains(text));
                assert!(says_it, "it does not say `{says}`");
            }
            story.end_well();
        }
        eprintln!("{command:?} ended early at {failures} of {operations} points: {says}");
        assert!(failures > 10, "only {failures}");
    }
}

#[test]
fn import_offline_dies_at_every_operation() {
    dies_at_every_operation(Command::ImportOffline);
}

#[test]
fn import_dies_at_every_operation() {
    dies_at_every_operation(Command::Import);
}

#[test]
fn sync_dies_at_every_operation() {
    dies_at_every_operation(Command::Sync);
}

#[test]
fn import_offline_loses_power_at_every_operation() {
    loses_power_at_every_operation(Command::ImportOffline);
}

#[test]
fn import_loses_power_at_every_operation() {
    loses_power_at_every_operation(Command::Import);
}

#[test]
fn sync_loses_power_at_every_operation() {
    loses_power_at_every_operation(Command::Sync);
}

#[test]
fn the_disk_fails_at_every_operation_of_import_offline() {
    disk_fails_at_every_operation(Command::ImportOffline);
}

#[test]
fn the_disk_fails_at_every_operation_of_import() {
    disk_fails_at_every_operation(Command::Import);
}

#[test]
fn the_disk_fails_at_every_operation_of_sync() {
    disk_fails_at_every_operation(Command::Sync);
}

#[test]
fn import_of_more_dies_at_every_operation() {
    dies_at_every_operation(Command::ImportGrown);
}

#[test]
fn import_of_more_loses_power_at_every_operation() {
    loses_power_at_every_operation(Command::ImportGrown);
}

#[test]
fn the_disk_fails_at_every_operation_of_import_of_more() {
    disk_fails_at_every_operation(Command::ImportGrown);
}

/// A run with so few files that nothing syncs the whole file system.
#[test]
fn what_was_recorded_lasts_with_all_directories_above() {
    let mut dice = Dice::new();
    let shelf = Shelf::new(Command::ImportOffline);
    let story = shelf.story();
    let streams: Vec<Stream> = shelf.streams.iter().filter(|stream| stream.run == "a").cloned().collect();
    let disk = Disk::new(&story.place.path("deep"));
    let mut image = disk.image();
    let import = story.place.call(["import", "logs/a", "--dir", "deep/down", "--mode", "offline", "-p", "p"]);
    import.envs(disk.variables(Plan::Trace)).run().ok();
    dice.scene(disk.tell());
    disk.apply(&mut image);
    for _ in 0..LOSSES_AT_END {
        image.lose_power(&mut dice.chance);
        assert_recorded(&story.place.path("deep/down"), &streams);
    }
}

/// The disk is slow, so whoever sends too early has the time for it.
#[test]
fn nothing_is_sent_before_it_lasts() {
    let (mut dice, shelf) = (Dice::new(), Shelf::new(Command::Import));
    for number in 1.. {
        let story = shelf.story();
        let disk = Disk::new(&story.out()).slow(Duration::from_millis(60));
        let import = story.place.import(&story.server, ["logs/a"]);
        let ended = import.envs(disk.variables(Plan::Before(number))).run();
        dice.scene(format!("a slow import dies after:\n{}", disk.tell()));
        story.server.assert_content();
        assert_server_is_not_ahead(&story.server, &story.out());
        if ended.code.is_some() {
            ended.ok();
            break;
        }
    }
}

/// Before the first commit nothing says which id the run has: files that come meanwhile may give it another one.
#[test]
fn what_never_counted_does_not_stay() {
    let mut left = 0;
    for operation in 1.. {
        let (place, server) = (Place::new(), FakeServer::start());
        let begin = |number: u32| {
            let name = format!("events.out.tfevents.178401600{number}.trainer.{number}.0");
            Writer::create(&place.path("logs/a"), &name).scalars("loss", [(i64::from(number), 1.0)]);
        };
        begin(1);
        let disk = Disk::new(&place.path("out"));
        let import = || place.import_offline(["logs"]).args(["-p", "p"]);
        let died = import().envs(disk.variables(Plan::Before(operation))).run();
        if died.code.is_some() || place.path("out").join("wandb").read_dir().is_ok_and(has_checkpoint) {
            break;
        }
        left += place.logs().len();
        begin(0);
        // One that nobody has written to for long, and one that another client is about to write to.
        for name in ["offline-run-20260101_000000-old", "offline-run-20260101_000000-young"] {
            fs::create_dir_all(place.path("out/wandb").join(name).join("files")).unwrap();
        }
        let old = fs::File::open(place.path("out/wandb/offline-run-20260101_000000-old")).unwrap();
        old.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        import().run().ok();
        assert_eq!(place.logs().len(), 1, "operation {operation}");
        place.sync(&server).run().ok();
        let mut names: Vec<String> = place.path("out/wandb").read_dir().unwrap().map(name_of).collect();
        names.retain(|name| name.starts_with("offline-run-"));
        assert!(names.iter().any(|name| name.ends_with("-young")) && !names.iter().any(|name| name.ends_with("-old")));
        let ours = place.log();
        let beside: Vec<String> = ours.parent().unwrap().read_dir().unwrap().map(name_of).collect();
        assert!(!beside.iter().any(|name| name.contains("aside")), "operation {operation}: {beside:?}");
        // Empty ones are young now.
        names.retain(|name| {
            place.path("out/wandb").join(name).read_dir().unwrap().any(|entry| name_of(entry) != "files")
        });
        assert!(names.len() <= 2, "operation {operation}: {names:?}");
    }
    assert!(left > 2, "it never died while there was a log that did not count");
}

fn name_of(entry: io::Result<fs::DirEntry>) -> String {
    entry.unwrap().file_name().to_string_lossy().into_owned()
}

/// Whether a run of a `wandb/` directory counts.
fn has_checkpoint(mut runs: fs::ReadDir) -> bool {
    runs.any(|run| run.unwrap().path().join(".wandb-bridge/checkpoint.json").exists())
}
