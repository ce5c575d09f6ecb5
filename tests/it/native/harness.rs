//! `sync` of other clients' logs on a bad day: killed at any request and at any operation on the disk, with answers lost, and
//! in storms. After another `sync` the server holds what it holds after one that nothing happened to.
//!
//! An alert has nothing by which a server could tell that it came before, so one whose answer was lost may come twice; all
//! else is there once.

use std::path::PathBuf;
use std::time::Duration;

use crate::artifacts::logs::held;
use crate::support::bridge::{Call, Place};
use crate::support::compare::{Compared, same_run_but_for};
use crate::support::events::Writer;
use crate::support::faults::{Disk, Plan};
use crate::support::official::{copy_tree, official_offline_run_with};
use crate::support::python::script;
use crate::support::server::{FakeServer, Fault, Gate, Route, Storm};

/// Much longer than anything takes.
const LIMIT: Duration = Duration::from_secs(60);

/// About how many places of each input are tried by a test.
const PLACES: usize = 10;

/// What is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// One run with something of everything: console, files, media, an alert, a table, an artifact; and notes that are
    /// attached.
    Rich,
    /// Logs of older clients: files of every policy, system metrics, records behind the exit.
    Clients,
    /// Three logs of one run.
    Resumed,
    /// A run of ours, with an artifact that an import recorded.
    Ours,
}

const INPUTS: [Input; 4] = [Input::Rich, Input::Clients, Input::Resumed, Input::Ours];

/// An input, and what a server holds of it when nothing happens.
struct Shelf {
    input: Input,
    place: Place,
    calm: FakeServer,
}

struct Story {
    input: Input,
    place: Place,
    server: FakeServer,
}

impl Shelf {
    fn new(input: Input) -> Self {
        let place = Place::new();
        let wandb = place.path("wandb");
        match input {
            Input::Rich => {
                let work = place.path("work");
                std::fs::create_dir(&work).unwrap();
                official_offline_run_with(&work, &["--table", "--artifact"]);
                copy_tree(&work.join("wandb"), &wandb);
            }
            Input::Clients => ["0.16.6", "0.19.11"].into_iter().for_each(|version| {
                place.fixture(&format!("wandb_clients/{version}"), &format!("wandb/{version}"));
            }),
            Input::Resumed => {
                std::fs::create_dir(place.path("recorded")).unwrap();
                script("record_segments.py").arg(place.path("recorded")).arg("allow").run().ok();
                copy_tree(&place.path("recorded/wandb"), &wandb);
            }
            Input::Ours => {
                Writer::new(&place.path("logs/a")).scalars("loss", (0..20).map(|step| (step, 0.5)));
                std::fs::write(place.path("logs/a/last.pt"), b"weights").unwrap();
                let import = place.call(["import", "logs", "--mode", "offline", "-p", "p"]);
                import.args(["--artifact", "model:{path}=*.pt"]).run().ok();
            }
        }
        let story = Story { input, place, server: FakeServer::start() };
        // Not where the copies come from: it leaves marks and state.
        let first = story.copy();
        first.sync().run().ok();
        first.server.assert_content();
        Self { input, place: story.place, calm: first.server }
    }

    fn story(&self) -> Story {
        let place = Place::new();
        copy_tree(&self.place.path("wandb"), &place.path("wandb"));
        Story { input: self.input, place, server: FakeServer::start() }
    }

    /// Some of so many, spread over all of them.
    fn some(all: usize) -> impl Iterator<Item = usize> {
        // A step that is no divisor of what repeats.
        (0..all).step_by((all / PLACES).max(1) | 1)
    }

    fn requests(&self) -> usize {
        self.calm.requests().len()
    }

    /// The server holds the same as the calm one; each alert at most `alerts` times too often.
    #[track_caller]
    fn assert_whole(&self, story: &Story, alerts: usize, scene: &str) {
        let (server, scene) = (&story.server, format!("{:?}: {scene}", self.input));
        server.assert_content();
        let ids = |server: &FakeServer| server.runs().into_iter().map(|run| run.id).collect::<Vec<_>>();
        assert_eq!(ids(server), ids(&self.calm), "{scene}");
        for expected in self.calm.runs() {
            let run = server.run(&expected.id).unwrap();
            let compared = Compared { console: true, alerts: false, ..Compared::default() };
            assert_eq!(same_run_but_for(&run, &expected, &compared), Ok(()), "{scene}");
            assert_eq!(run.history, expected.history, "{scene}");
            let count = run.alerts.len();
            assert!(
                (expected.alerts.len()..=expected.alerts.len() + alerts).contains(&count),
                "{scene}: {count} alerts"
            );
        }
        assert_eq!(held(server), held(&self.calm), "{scene}");
        // There is nothing left to do.
        let requests = server.requests().len();
        story.sync().run().ok();
        assert_eq!(server.requests().len(), requests, "{scene}");
    }
}

impl Story {
    fn copy(&self) -> Self {
        let place = Place::new();
        copy_tree(&self.place.path("wandb"), &place.path("wandb"));
        Self { input: self.input, place, server: FakeServer::start() }
    }

    fn sync(&self) -> Call {
        let call = self.place.call(["sync", "--retry-wait", "1ms"]).server(&self.server).args(match self.input {
            // Each version lies in a folder of its own.
            Input::Clients => vec![self.wandb().join("0.16.6"), self.wandb().join("0.19.11")],
            _ => vec![self.wandb()],
        });
        if self.input == Input::Rich { call.args(["--artifact", "notes:{path}={notes,media/**}"]) } else { call }
    }

    fn wandb(&self) -> PathBuf {
        self.place.path("wandb")
    }
}

#[test]
fn killed_at_any_request_the_next_sync_ends_it() {
    for input in INPUTS {
        let shelf = Shelf::new(input);
        for at in Shelf::some(shelf.requests()) {
            let story = shelf.story();
            story.server.fault(Fault::stall(Route::Any, &Gate::default()).skip(at));
            let running = story.sync().spawn();
            story.server.wait_until(LIMIT, |world| world.requests.len() > at);
            drop(running);
            story.server.behave();
            story.sync().run().ok();
            shelf.assert_whole(&story, 1, &format!("killed at request {at}"));
        }
    }
}

#[test]
fn an_answer_that_is_lost_for_good_doubles_nothing() {
    for input in INPUTS {
        let shelf = Shelf::new(input);
        for at in Shelf::some(shelf.requests()) {
            let story = shelf.story();
            story.server.fault(Fault::reset(Route::Any).applied().skip(at));
            let ended = story.sync().args(["--retries", "0"]).run();
            assert!(matches!(ended.code, Some(0 | 1 | 3 | 5)), "{input:?}, request {at}: {}", ended.stderr);
            story.sync().run().ok();
            shelf.assert_whole(&story, 1, &format!("no answer to request {at}"));
        }
    }
}

#[test]
fn killed_at_any_operation_on_the_disk_the_next_sync_ends_it() {
    for input in INPUTS {
        let shelf = Shelf::new(input);
        let mut deaths = 0;
        for number in (1..).step_by(5) {
            let story = shelf.story();
            let plan = if number % 2 == 0 { Plan::Before(number) } else { Plan::Within(number) };
            let disk = Disk::new(&story.wandb());
            if story.sync().envs(disk.variables(plan)).run().code.is_some() {
                break;
            }
            deaths += 1;
            story.sync().run().ok();
            shelf.assert_whole(&story, 1, &format!("{plan:?}:\n{}", disk.tell()));
        }
        eprintln!("{input:?} died at {deaths} points");
        assert!(deaths >= 5, "{input:?} died at {deaths} points only");
    }
}

#[test]
fn after_a_storm_all_of_it_is_there_once() {
    for (number, input) in INPUTS.into_iter().enumerate() {
        let shelf = Shelf::new(input);
        for seed in 1..4_u64 {
            let story = shelf.story();
            story.server.storm(Storm::new(seed * 10 + number as u64, 15 + seed * 10));
            for retries in ["0", "3"] {
                let ended = story.sync().args(["--retries", retries]).run();
                assert!(matches!(ended.code, Some(0 | 1 | 3 | 5)), "{input:?}, seed {seed}: {}", ended.stderr);
            }
            story.server.behave();
            let ended = story.sync().run();
            // What a server answered to an alert that was no answer is for good.
            if ended.stderr.contains("alerts: not carried") {
                ended.code(3);
                continue;
            }
            ended.ok();
            shelf.assert_whole(&story, 20, &format!("seed {seed}"));
        }
    }
}
