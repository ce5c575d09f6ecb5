//! How many requests are made: all runs have one budget, and it falls when the server says that it is too much.
//!
//! Each test knows how long its requests take at least, from before the program begins until it has ended: a busy machine
//! only makes that longer.

use std::time::{Duration, Instant};

use super::{assert_all_is_there, in_calm};
use crate::support::bridge::Place;
use crate::support::events::Writer;
use crate::support::server::{FakeServer, Fault, Route};

/// How many requests may go out at once after a pause.
const BURST: usize = 10;

/// Runs of two rows each.
fn runs(place: &Place, count: usize) {
    for run in 0..count {
        let file = format!("events.out.tfevents.1784016000.trainer-{run}.1.0");
        Writer::create(&place.path(&format!("logs/{run}")), &file).scalars("loss", [(0, 1.0), (1, 0.5)]);
    }
}

/// Imports so many runs, and tells how many requests that took of those that the budget is for, and how long.
fn import(server: &FakeServer, count: usize, limit: &str) -> (usize, Duration) {
    let place = Place::new();
    runs(&place, count);
    let calm = in_calm(&place.path("logs"));
    let begin = Instant::now();
    place.import(server, ["logs"]).args(["--tpslimit", limit, "--retry-wait", "1ms"]).run().ok();
    let took = begin.elapsed();
    assert_all_is_there(server, &calm, "a rate");
    (server.requests().iter().filter(|request| !request.path.starts_with("/storage/")).count(), took)
}

#[test]
fn all_runs_have_one_budget() {
    let server = FakeServer::start();
    let (requests, took) = import(&server, 12, "20");
    assert!(requests >= 36, "{requests}");
    let least = Duration::from_secs_f64((requests - BURST) as f64 / 20.0);
    assert!(took >= least, "{requests} requests in {took:?}");
}

#[test]
fn the_rate_falls_when_the_server_refuses() {
    let server = FakeServer::start();
    server.fault(Fault::status(Route::AnyGraphql, 429));
    let (requests, took) = import(&server, 8, "0");
    // 5 a second from there on, and 5 % more with each success; both rates have their burst.
    let waits = (1..requests - 2 * BURST).map(|success| 0.2 / 1.05_f64.powi(success as i32));
    let least = Duration::from_secs_f64(waits.sum());
    assert!(least > Duration::from_secs(1) && took >= least, "{requests} requests in {took:?}, not in {least:?}");
}

#[test]
fn the_rate_is_what_the_server_says() {
    let server = FakeServer::start();
    let told = Fault::none(Route::Any).header("RateLimit-Remaining", "20").header("RateLimit-Reset", "5");
    server.fault(told.always());
    let (requests, took) = import(&server, 8, "20");
    // At 20 a second it is done with in a third of the time that it takes at 4.
    let least = Duration::from_secs_f64((requests - 2 * BURST) as f64 / 8.0);
    assert!(took >= least, "{requests} requests in {took:?}, not in {least:?}");
}
