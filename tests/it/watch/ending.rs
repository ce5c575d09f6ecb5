//! When runs end: after a time without anything new, or because they had ended long before.

use std::fs::File;
use std::time::{Duration, SystemTime};

use super::harness::*;
use crate::support::server::{FakeServer, Fault, Gate, Route, RunStatus};

const TWO_HOURS: f64 = 7200.0;

#[test]
fn until_idle_counts_from_the_first_event() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let waiting = place.watch(&server, "--until-idle 300ms");
    // Another one is idle for long enough meanwhile, from its first event on.
    let other = Place::with_logs();
    Writer::new(&other.path("logs/b")).steps("loss", 0..3);
    other.watch(&server, "--until-idle 300ms").end().assert_code(0).assert_says("1 complete");
    assert_finished(&server, "b", "loss", &steps(0..3));

    Writer::new(&place.path("logs/a")).steps("loss", 0..3);
    waiting.end().assert_code(0).assert_says("1 complete");
    assert_finished(&server, "a", "loss", &steps(0..3));
}

#[test]
fn until_idle_ends_where_everything_was_recorded_before() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    Writer::new(&place.path("logs/a")).steps("loss", 0..3);
    let watching = place.watch(&server, "");
    wait_for_points(&server, "a", "loss", 3);
    watching.kill();
    place.watch(&server, "--until-idle 300ms").end().assert_code(0);
    place.watch(&server, "--until-idle 300ms").end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..3));
}

#[test]
fn runs_without_an_id_of_their_own_are_failures() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    for name in ["a", "b"] {
        Writer::new(&place.path("logs").join(name)).steps("loss", 0..3);
    }
    let ended = place.watch(&server, "--run-id mine --until-idle 300ms").end();
    ended.assert_code(2).assert_says("several experiments would have the run id `mine`").assert_says("1 complete");
    place.watch(&server, "--run-id a#{dir} --until-idle 300ms").end().assert_code(2).assert_says("cannot be a run id");
}

#[test]
fn what_was_lost_before_a_run_went_on_is_counted_once() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let mut old = Writer::at(&place.path("logs/old"), now() - TWO_HOURS, "host");
    let mut damaged = scalar_event(now() - TWO_HOURS, 3, "loss", 3.0);
    damaged[14] ^= 1;
    old.steps("loss", 0..3).raw(&damaged).steps("loss", 4..5);
    let watching = place.watch(&server, "");
    wait_for_status(&server, "old", RunStatus::Finished);
    old.raw(&scalar_event(now(), 5, "loss", 5.0));
    wait_for_points(&server, "old", "loss", 5);
    let ended = watching.interrupt().end();
    ended.assert_code(3).assert_says("1 × damaged record").assert_never_says("in an earlier pass");
}

#[test]
fn an_old_run_is_imported_and_finished() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    Writer::at(&place.path("logs/old"), now() - TWO_HOURS, "host").steps("loss", 0..3);
    let watching = place.watch(&server, "");
    wait_for_status(&server, "old", RunStatus::Finished);
    // One that is younger than what was asked for, beside it.
    Writer::at(&place.path("logs/young"), now() - TWO_HOURS / 4.0, "host").steps("loss", 0..3);
    wait_for_points(&server, "young", "loss", 3);
    assert_eq!(the_run(&server, "young").status, RunStatus::Running);
    assert_finished(&server, "old", "loss", &steps(0..3));
    watching.terminate().end().assert_code(0).assert_says("1 complete, 1 still running");

    // With another limit the same run is an old one.
    place.watch(&server, "--stale-after 10m --until-idle 300ms").end().assert_code(0);
    assert_finished(&server, "young", "loss", &steps(0..3));
}

#[test]
fn new_only_leaves_out_what_had_ended() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let old = Writer::at(&place.path("logs/old"), now() - TWO_HOURS, "host").steps("loss", 0..3).path.clone();
    let written = SystemTime::now() - Duration::from_secs_f64(TWO_HOURS);
    File::options().write(true).open(old).unwrap().set_modified(written).unwrap();
    // Copied just now.
    let mut copied = Writer::at(&place.path("logs/copied"), now() - TWO_HOURS, "host2");
    copied.steps("loss", 0..3);
    Writer::new(&place.path("logs/new")).steps("loss", 0..3);
    let watching = place.watch(&server, "--new-only");
    watching.wait_for("found 1 run, growing; 2 that ended before are left out");
    wait_for_points(&server, "new", "loss", 3);
    assert_eq!(server.runs().len(), 1);
    assert_eq!(place.run_directories().len(), 1);
    // It lives after all.
    copied.wake().steps("loss", 3..4);
    wait_for_points(&server, "copied", "loss", 4);
    watching.interrupt().end().assert_code(0);
    assert_finished(&server, "new", "loss", &steps(0..3));
    assert_finished(&server, "copied", "loss", &steps(0..4));
    assert_eq!(server.runs().len(), 2);
}

#[test]
fn an_old_run_that_grows_again_is_opened_again() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let mut writer = Writer::at(&place.path("logs/old"), now() - TWO_HOURS, "host");
    writer.steps("loss", 0..3);
    let watching = place.watch(&server, "");
    wait_for_status(&server, "old", RunStatus::Finished);
    writer.wake().steps("loss", 3..5);
    wait_for_points(&server, "old", "loss", 5);
    let run = the_run(&server, "old");
    assert_eq!((run.status, run.upserts > 1), (RunStatus::Running, true));
    writer.steps("loss", 5..6);
    wait_for_points(&server, "old", "loss", 6);
    let ended = watching.interrupt().end();
    ended.assert_code(0).assert_says("watched 1 run, 6 rows").assert_says("on the server: 1 complete");
    assert_finished(&server, "old", "loss", &steps(0..6));
}

#[test]
fn a_run_that_grows_while_its_end_is_sent_waits_for_that() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let mut writer = Writer::at(&place.path("logs/old"), now() - TWO_HOURS, "host");
    writer.steps("loss", 0..3);
    let gate = Gate::default();
    server.fault(Fault::stall(Route::FileStream, &gate));
    let watching = place.watch(&server, "");
    server.wait_until(LIMIT, |world| world.requests.iter().any(|request| request.run.is_some()));
    writer.wake().steps("loss", 3..50);
    // What another run delivers meanwhile shows that the growth was seen.
    Writer::new(&place.path("logs/new")).steps("loss", 0..1);
    wait_for_points(&server, "new", "loss", 1);
    gate.open();
    wait_for_points(&server, "old", "loss", 50);
    watching.interrupt().end().assert_code(0);
    assert_finished(&server, "old", "loss", &steps(0..50));
}

#[test]
fn the_end_waits_for_a_run_that_grew_while_its_end_was_sent() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let mut writer = Writer::at(&place.path("logs/old"), now() - TWO_HOURS, "host");
    writer.steps("loss", 0..3);
    let gate = Gate::default();
    server.fault(Fault::stall(Route::FileStream, &gate));
    let watching = place.watch(&server, "");
    server.wait_until(LIMIT, |world| world.requests.iter().any(|request| request.run.is_some()));
    writer.wake().steps("loss", 3..50);
    watching.interrupt().wait_for("ending");
    gate.open();
    watching.end().assert_code(0);
    assert_finished(&server, "old", "loss", &steps(0..50));
}

/// Takes as long as the time between two heartbeats.
#[test]
fn a_heartbeat_is_for_runs_that_run() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    Writer::at(&place.path("logs/old"), now() - TWO_HOURS, "host").steps("loss", 0..3);
    Writer::new(&place.path("logs/ended")).steps("loss", 0..3);
    place.watch(&server, "--until-idle 300ms").end().assert_code(0);
    Writer::at(&place.path("logs/late/old"), now() - TWO_HOURS, "host2").steps("loss", 0..3);
    Writer::new(&place.path("logs/new")).steps("loss", 0..3);
    let watching = place.watch(&server, "");
    server.wait_until(LIMIT, |world| named(world, "new").is_some_and(|run| run.heartbeats > 0));
    for name in ["old", "ended", "late/old"] {
        assert_eq!(the_run(&server, name).heartbeats, 0, "{name}");
        assert_finished(&server, name, "loss", &steps(0..3));
    }
    assert_eq!(the_run(&server, "new").status, RunStatus::Running);
    watching.interrupt().end().assert_code(0);
    assert_finished(&server, "new", "loss", &steps(0..3));
}
