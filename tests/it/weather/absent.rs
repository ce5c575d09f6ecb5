//! A server that is not there: that is said within seconds, and no run waits for what another one has waited for.

use std::fs;

use crate::support::bridge::{Call, Place};
use crate::support::events::Writer;
use crate::support::server::{FakeServer, Fault, KEY, Route};

/// So many that not all of them are tried at once.
const RUNS: usize = 60;

/// As many runs, recorded offline.
fn many_runs(place: &Place) {
    for number in 0..RUNS {
        let file = format!("events.out.tfevents.1784016000.trainer-{number}.1.0");
        Writer::create(&place.path(&format!("logs/run{number:02}")), &file).scalars("loss", [(0, 0.5)]);
    }
}

/// Nobody listens there, and no other test will be given that port. The next try is far away.
fn to_nobody(call: Call) -> Call {
    call.env("WANDB_API_KEY", KEY).env("WANDB_BASE_URL", "http://127.0.0.1:1").args(["--retry-wait", "10s"])
}

/// Says it, once, although it is to be quiet.
#[track_caller]
fn assert_says_it(call: Call) {
    let running = to_nobody(call).arg("-q").spawn();
    running.says("; each request is tried again, up to 20 times (`--retries`)\n");
    let ended = running.kill();
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(matches!(lines[..], [line] if line.starts_with("warning: no answer from `http://127.0.0.1:1/graphql`: ")));
}

#[test]
fn it_is_said_at_once_and_once() {
    let place = Place::new();
    many_runs(&place);
    assert_says_it(place.call(["import", "logs", "--dir", "online", "-p", "p"]));
    place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
    assert_says_it(place.call(["sync", "--dir", "out"]));
    assert_says_it(place.call(["verify", "out"]));
    fs::write(place.path("model"), "weights").unwrap();
    assert_says_it(place.call(["artifact", "put", "model", "model", "-p", "p"]));
    place.fixture("every_kind/torch", "watched");
    assert_says_it(place.call(["watch", "watched", "--dir", "online", "-p", "p"]));
}

#[test]
fn its_return_is_said_too() {
    let (place, server) = (Place::new(), FakeServer::start());
    many_runs(&place);
    // Longer than what is no news, and not a moment more.
    server.fault(Fault::status(Route::AnyGraphql, 503).header("Retry-After", "4"));
    let ended = place.import(&server, ["logs/run00"]).run().ok();
    let said: Vec<&str> =
        ended.stderr.lines().filter(|line| line.contains("answers") || line.contains("503")).collect();
    let begins = "warning: 503 Service Unavailable from `";
    assert!(matches!(said[..], [one, two] if one.starts_with(begins) && two == "the server answers again"), "{said:?}");
}

#[test]
fn one_run_tries_for_all() {
    let (place, server) = (Place::new(), FakeServer::start());
    many_runs(&place);
    place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
    server.fault(Fault::reset(Route::Any).always());
    // For so long as `--retry-wait` times 60 nobody tries again.
    let impatient = |call: Call| call.args(["--retries", "2", "--retry-wait", "200ms"]);
    let ended = impatient(place.sync(&server)).args(["--verify", "--json"]).run().code(5);
    assert!(server.requests().len() < RUNS, "{}", server.requests().len());
    let failed = ended.json_runs().iter().filter(|run| run["state"] == "failed").count();
    assert_eq!(failed, RUNS);
    assert_eq!(ended.stderr.matches("cannot upload `").count(), 1, "{}", ended.stderr);
    server.behave();
    place.sync(&server).run().ok();
    assert_eq!(server.runs().len(), RUNS);
    server.assert_content();
}
