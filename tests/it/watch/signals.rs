//! Signals: what becomes of runs that grow, and of what was not sent yet.

use super::harness::*;
use crate::support::server::{FakeServer, Fault, Gate, Route, RunStatus};

#[test]
fn an_interrupt_finishes_the_runs_with_all_that_is_there() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.bridge("watch logs --poll 1h -p p").online(&server).start();
    let mut a = Writer::new(&place.path("logs/a"));
    a.steps("loss", 0..5);
    wait_for_points(&server, "a", "loss", 4);
    a.steps("loss", 5..2000);
    Writer::new(&place.path("logs/b")).steps("loss", 0..10);
    let ended = watching.interrupt().end();
    ended.assert_code(0).assert_says("ending: what is left is sent").assert_says("2 complete");
    assert_finished(&server, "a", "loss", &steps(0..2000));
    assert_finished(&server, "b", "loss", &steps(0..10));
}

#[test]
fn a_terminated_run_stays_open_and_goes_on_in_the_next_process() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.watch(&server, "");
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.steps("loss", 0..5);
    wait_for_points(&server, "a", "loss", 5);
    let ended = watching.terminate().end();
    ended.assert_code(0).assert_says("1 still running");
    let run = the_run(&server, "a");
    assert_eq!((run.status, run.complete), (RunStatus::Preempted, false));

    writer.steps("loss", 5..8);
    let watching = place.watch(&server, "");
    wait_for_points(&server, "a", "loss", 8);
    assert_eq!(the_run(&server, "a").status, RunStatus::Running);
    watching.terminate().end().assert_code(0);
    assert_eq!(the_run(&server, "a").status, RunStatus::Preempted);

    // Nothing new at all, and then another command.
    let watching = place.watch(&server, "");
    watching.wait_for("found 1 run, growing").terminate();
    watching.end().assert_code(0);
    writer.steps("loss", 8..9);
    let imported = place.bridge("import logs -p p").online(&server).run();
    imported.assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..9));
    assert_eq!(the_run(&server, "a").id, run.id);
    assert_eq!(server.runs().len(), 1);
}

#[test]
fn a_run_that_has_ended_is_not_preempted_by_what_ends_the_next_process() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.steps("loss", 0..2);
    place.watch(&server, "--until-idle 300ms").end().assert_code(0);
    let before = the_run(&server, "a");
    let watching = place.watch(&server, "");
    watching.wait_for("found 1 run").terminate();
    watching.end().assert_code(0);
    let after = the_run(&server, "a");
    assert_eq!((after.status, after.stream_requests), (RunStatus::Finished, before.stream_requests));

    // It is picked up again when it grows.
    let watching = place.watch(&server, "");
    watching.wait_for("found 1 run");
    writer.wake().steps("loss", 2..3);
    wait_for_points(&server, "a", "loss", 3);
    assert_eq!(the_run(&server, "a").status, RunStatus::Running);
    watching.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..3));
}

/// Starts a watch whose first lines are stalled.
fn stalled(place: &Place, server: &FakeServer, arguments: &str) -> (Running, Gate) {
    let gate = Gate::default();
    server.fault(Fault::stall(Route::FileStream, &gate).always());
    let watching = place.watch(server, arguments);
    Writer::new(&place.path("logs/a")).steps("loss", 0..5);
    server.wait_until(LIMIT, |world| world.requests.iter().any(|request| request.run.is_some()));
    (watching, gate)
}

#[test]
fn a_second_signal_ends_at_once() {
    for (first, second, code) in [(true, true, 130), (true, false, 143), (false, false, 143)] {
        let (server, place) = (FakeServer::start(), Place::with_logs());
        let (watching, gate) = stalled(&place, &server, "--drain 1h");
        let signal = |interrupt: bool| if interrupt { watching.interrupt() } else { watching.terminate() };
        signal(first).wait_for("a second signal ends at once");
        signal(second);
        watching.end().assert_code(code).assert_says("to try again: `wandb-bridge sync");

        gate.open();
        server.behave();
        place.watch(&server, "--until-idle 300ms").end().assert_code(0);
        assert_finished(&server, "a", "loss", &steps(0..5));
    }
}

#[test]
fn what_could_not_be_sent_in_time_is_sent_by_sync() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let (watching, gate) = stalled(&place, &server, "--drain 200ms");
    watching.interrupt().end().assert_code(5).assert_says("to try again: `wandb-bridge sync");
    gate.open();
    server.behave();
    place.bridge("sync").online(&server).run().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..5));
}

#[test]
fn what_could_not_be_sent_in_time_is_sent_by_the_next_watch() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let (watching, gate) = stalled(&place, &server, "--drain 200ms");
    watching.terminate().end().assert_code(5);
    gate.open();
    server.behave();
    place.watch(&server, "--until-idle 300ms").end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..5));
}

#[test]
fn a_time_limit_leaves_runs_open() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.steps("loss", 0..3);
    place.watch(&server, "--max-duration 1s").end().assert_code(10).assert_says("1 still running");
    let run = the_run(&server, "a");
    assert_eq!((run.status, points(&run, "loss")), (RunStatus::Running, steps(0..3)));
    writer.steps("loss", 3..5);
    place.watch(&server, "--until-idle 300ms").end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..5));
}

#[test]
fn a_time_limit_stops_reading_and_the_next_start_reads_on() {
    let place = Place::with_logs();
    Writer::new(&place.path("logs/a")).steps("loss", 0..250_000);
    let rows = |arguments: &str, code: i32| {
        let ended = place.bridge(&format!("watch logs --mode offline --json {arguments}")).run();
        ended.assert_code(code);
        let summary: serde_json::Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
        summary["rows"].as_u64().unwrap()
    };
    let first = rows("--max-duration 50ms --drain 0s", 10);
    assert!(first < 250_000, "it was not stopped");
    assert_eq!(rows("--until-idle 300ms", 0), 250_000 - first);
}

#[test]
fn the_next_watch_takes_over_when_the_old_one_is_gone() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let old = place.watch(&server, "");
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.steps("loss", 0..3);
    wait_for_points(&server, "a", "loss", 3);
    let new = place.watch(&server, "");
    new.wait_for("recorded by another process: held by process ");
    writer.steps("loss", 3..5);
    wait_for_points(&server, "a", "loss", 5);
    // The old one cannot get rid of its last words, and keeps the upload's lock for as long.
    let gate = Gate::default();
    server.fault(Fault::stall(Route::FileStream, &gate));
    old.terminate().wait_for("ending");
    writer.steps("loss", 5..7);
    new.wait_for("another process uploads this run");
    gate.open();
    old.end().assert_code(0);
    wait_for_points(&server, "a", "loss", 7);
    new.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..7));
}

#[test]
fn the_next_watch_goes_on_where_the_old_one_cleaned() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let old = place.watch(&server, "--clean");
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.steps("loss", 0..3);
    wait_for_points(&server, "a", "loss", 3);
    let new = place.watch(&server, "");
    new.wait_for("recorded by another process");
    old.interrupt().end().assert_code(0);
    writer.steps("loss", 3..5);
    wait_for_points(&server, "a", "loss", 5);
    new.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..5));
    assert_eq!(place.run_directories().len(), 1);
}

#[test]
fn a_run_that_stays_held_is_named_at_the_end() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let old = place.watch(&server, "");
    Writer::new(&place.path("logs/a")).steps("loss", 0..3);
    wait_for_points(&server, "a", "loss", 3);
    let new = place.watch(&server, "");
    new.wait_for("recorded by another process").interrupt();
    new.end().assert_code(11);
    // What is held has no place on the server in this process, and is not counted among those that have.
    Writer::new(&place.path("other/b")).steps("loss", 0..3);
    place.bridge("import other -p p --mode offline").run().assert_code(0);
    let synced = place.bridge("sync").online(&server).run();
    synced.assert_code(11).assert_says(&format!("on the server: 1 complete at {}/tester/p\n", server.url()));
    old.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..3));
}
