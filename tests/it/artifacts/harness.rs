//! `import --artifact` and `sync --artifact` on a bad day: killed at any request and at any operation on the disk, with any
//! answer wrong or lost, and in storms. The next call makes the runs and their artifacts what they are after a calm day, once.

use std::time::Duration;

use super::logs::held;
use super::write;
use crate::support::bridge::{Call, Ended, Place};
use crate::support::compare::same_run;
use crate::support::events::Writer;
use crate::support::official::copy_tree;
use crate::support::server::{FakeServer, Fault, Gate, Route, Storm};

const LIMIT: Duration = Duration::from_secs(60);

/// What attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Import,
    /// What was recorded before, without its artifacts.
    Sync,
}

const COMMANDS: [Command; 2] = [Command::Import, Command::Sync];

struct Story {
    command: Command,
    place: Place,
    server: FakeServer,
}

/// What stories begin with, and a server that has all of it.
struct Shelf {
    place: Place,
    calm: Story,
}

impl Story {
    fn call(&self) -> Call {
        let call = match self.command {
            Command::Import => self.place.import(&self.server, ["logs"]),
            Command::Sync => self.place.sync(&self.server),
        };
        call.args(["--retry-wait", "1ms", "--artifact", "model:{path}=ckpt/*.pt", "--artifact", "notes:notes=*.txt"])
    }

    fn ended(&self) -> Ended {
        let ended = self.call().run().ok();
        self.server.assert_content();
        ended
    }
}

impl Shelf {
    fn new(command: Command) -> Self {
        let place = Place::new();
        for run in ["a", "b"] {
            Writer::new(&place.path("logs").join(run)).scalars("loss", [(0, 1.0), (1, 0.5)]);
        }
        write(&place.path("logs/a"), "ckpt/1.pt", b"one");
        write(&place.path("logs/a"), "ckpt/2.pt", b"two");
        write(&place.path("logs/b"), "report.txt", b"fine");
        if command == Command::Sync {
            place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
        }
        let calm = story(command, &place);
        calm.ended();
        assert_eq!(held(&calm.server).keys().collect::<Vec<_>>(), ["a:v0", "notes:v0"]);
        Self { place, calm }
    }

    fn story(&self) -> Story {
        story(self.calm.command, &self.place)
    }

    fn requests(&self) -> usize {
        let all = self.calm.server.requests().len();
        assert!(all > 25, "{all}");
        all
    }

    /// After another call, the server has what the calm one has, and a third call says nothing.
    #[track_caller]
    fn assert_whole(&self, story: &Story, scene: &str) {
        let scene = format!("{:?}: {scene}", story.command);
        story.ended();
        let (runs, expected) = (story.server.runs(), self.calm.server.runs());
        assert_eq!(runs.len(), expected.len(), "{scene}");
        for (run, expected) in runs.iter().zip(&expected) {
            assert_eq!(same_run(run, expected), Ok(()), "{scene}");
            assert_eq!(run.history, expected.history, "{scene}");
        }
        assert_eq!(held(&story.server), held(&self.calm.server), "{scene}");
        let requests = story.server.requests().len();
        story.ended();
        assert_eq!(story.server.requests().len(), requests, "{scene}: nothing is left to say");
    }
}

fn story(command: Command, from: &Place) -> Story {
    let place = Place::new();
    for name in ["logs", "out"] {
        if from.path(name).exists() {
            copy_tree(&from.path(name), &place.path(name));
        }
    }
    Story { command, place, server: FakeServer::start() }
}

#[test]
fn killed_at_any_request_the_next_call_makes_it_whole() {
    for command in COMMANDS {
        let shelf = Shelf::new(command);
        for at in 0..shelf.requests() {
            let story = shelf.story();
            story.server.fault(Fault::stall(Route::Any, &Gate::default()).skip(at));
            let running = story.call().spawn();
            story.server.wait_until(LIMIT, |world| world.requests.len() > at);
            drop(running);
            story.server.behave();
            shelf.assert_whole(&story, &format!("killed at request {at}"));
        }
    }
}

#[test]
fn any_request_may_be_answered_wrongly_once() {
    let faults: [fn() -> Fault; 7] = [
        || Fault::status(Route::Any, 500),
        || Fault::reset(Route::Any),
        || Fault::html(Route::Any, 200),
        || Fault::status(Route::Any, 429).header("Retry-After", "0"),
        || Fault::cut(Route::Any),
        || Fault::html(Route::Any, 502),
        || Fault::reset(Route::Any).applied(),
    ];
    for (turn, command) in COMMANDS.into_iter().enumerate() {
        let shelf = Shelf::new(command);
        for at in 0..shelf.requests() {
            let story = shelf.story();
            let fault = faults[(at + turn * 3) % faults.len()]();
            let scene = format!("request {at} meets {fault:?}");
            story.server.fault(fault.skip(at));
            let ended = story.call().run();
            assert_eq!(ended.code, Some(0), "{command:?}: {scene}: {}", ended.stderr);
            shelf.assert_whole(&story, &scene);
        }
    }
}

#[test]
fn an_answer_that_is_lost_for_good_doubles_nothing() {
    for command in COMMANDS {
        let shelf = Shelf::new(command);
        for at in 0..shelf.requests() {
            let story = shelf.story();
            story.server.fault(Fault::reset(Route::Any).applied().skip(at));
            let ended = story.call().args(["--retries", "0"]).run();
            // What a store did not acknowledge is asked for once more by itself.
            assert!(matches!(ended.code, Some(0 | 3 | 5)), "{command:?}, request {at}: {}", ended.stderr);
            shelf.assert_whole(&story, &format!("no answer to request {at}"));
        }
    }
}

#[test]
fn after_a_storm_all_of_it_is_there_once() {
    for (turn, command) in COMMANDS.into_iter().enumerate() {
        let shelf = Shelf::new(command);
        for seed in 1..5_u64 {
            let story = shelf.story();
            story.server.storm(Storm::new(seed * 10 + turn as u64, 10 + seed * 10));
            for retries in ["0", "1", "3"] {
                let ended = story.call().args(["--retries", retries]).run();
                assert!(matches!(ended.code, Some(0 | 1 | 3 | 5)), "{command:?}, seed {seed}: {}", ended.stderr);
            }
            story.server.behave();
            shelf.assert_whole(&story, &format!("seed {seed}"));
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn killed_at_any_operation_on_the_disk_the_next_call_makes_it_whole() {
    use crate::support::faults::{Disk, Plan};
    for command in COMMANDS {
        let shelf = Shelf::new(command);
        let mut deaths = 0;
        for number in (1..).step_by(3) {
            let story = shelf.story();
            let plan = if number % 2 == 0 { Plan::Before(number) } else { Plan::Within(number) };
            let disk = Disk::new(&story.place.path("out"));
            if story.call().envs(disk.variables(plan)).run().code.is_some() {
                break;
            }
            deaths += 1;
            shelf.assert_whole(&story, &format!("{plan:?}:\n{}", disk.tell()));
        }
        assert!(deaths >= 10, "{command:?} died at {deaths} points only");
    }
}
