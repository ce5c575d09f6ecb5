//! Keys, modes and servers that are not there, or not yet.

use std::io;
use std::net::{TcpListener, TcpStream};

use super::harness::*;
use crate::support::server::{FakeServer, Fault, Route};

#[test]
fn without_a_key_runs_are_recorded_and_it_is_said_first_and_last() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    Writer::new(&place.path("logs/a")).steps("loss", 0..3);
    let ended = place.bridge("watch logs -p p --poll 50ms --until-idle 300ms").run();
    ended.assert_code(3);
    let said = "warning: there is no API key, so runs are recorded offline";
    let lines: Vec<&str> = ended.err.lines().collect();
    assert!(lines.first().is_some_and(|line| line.starts_with(said)), "{}", ended.err);
    assert!(lines.last().is_some_and(|line| line.starts_with(said)), "{}", ended.err);

    place.bridge("sync").online(&server).run().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..3));
}

#[test]
fn offline_that_was_asked_for_is_no_failure() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let mut writer = Writer::new(&place.path("logs/a"));
    let offline = place.bridge("watch logs -p p --poll 50ms --mode offline").online(&server).start();
    writer.steps("loss", 0..3);
    offline.wait_for("found 1 run");
    offline.terminate().end().assert_code(0).assert_says("to upload: `wandb-bridge sync");
    assert!(server.requests().is_empty());

    // Recorded offline first and online later, it is one run with one log.
    let online = place.watch(&server, "");
    wait_for_points(&server, "a", "loss", 3);
    writer.steps("loss", 3..5);
    wait_for_points(&server, "a", "loss", 5);
    online.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..5));
    assert_eq!(place.run_directories().len(), 1);
    let synced = place.bridge("sync").online(&server).run();
    assert_eq!(the_run(&server, "a").history.len(), 5, "{}", synced.err);
}

#[test]
fn disabled_does_nothing() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    Writer::new(&place.path("logs/a")).steps("loss", 0..3);
    let before = place.tree();
    place.watch(&server, "--mode disabled").end().assert_code(0).assert_says("disabled");
    assert_eq!(place.tree(), before);
    assert!(server.requests().is_empty());
}

#[test]
fn a_key_that_is_refused_ends_it() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    Writer::new(&place.path("logs/a")).steps("loss", 0..3);
    Writer::new(&place.path("logs/b")).steps("loss", 0..3);
    let wrong = "f".repeat(40);
    let ended = place.bridge("watch logs -p p").online(&server).env("WANDB_API_KEY", &wrong).run();
    ended.assert_code(4).assert_says("error: W&B did not accept the API key").assert_never_says(&wrong);
    place.watch(&server, "--until-idle 300ms").end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..3));
    assert_finished(&server, "b", "loss", &steps(0..3));
}

#[test]
fn many_runs_need_a_project_that_was_chosen() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    for index in 0..21 {
        Writer::at(&place.path(&format!("logs/r{index:02}")), now(), &format!("host{index}")).steps("loss", 0..1);
    }
    let ended = place.bridge("watch logs").online(&server).run();
    ended.assert_code(2).assert_says("21 runs would go to the project `uncategorized`").assert_says("`-p NAME`");
    let ended = place.bridge("watch logs").args(&["--", "echo", "ran"]).online(&server).run();
    assert_eq!((ended.out.as_str(), ended.code), ("ran\n", Some(2)), "{}", ended.err);
    assert!(server.requests().is_empty() && place.run_directories().is_empty());

    place.watch(&server, "--tpslimit 0 --until-idle 300ms").end().assert_code(0);
    assert_eq!(server.runs().len(), 21);
    server.assert_content();
}

/// Forwards what comes to a listener to the server, as if that had been started just now.
fn forward(listener: TcpListener, server: &FakeServer) {
    let to = server.url().strip_prefix("http://").unwrap().to_owned();
    std::thread::spawn(move || {
        for from in listener.incoming() {
            let (Ok(from), Ok(to)) = (from, TcpStream::connect(&to)) else { return };
            for (mut from, mut to) in [(from.try_clone().unwrap(), to.try_clone().unwrap()), (to, from)] {
                std::thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
}

#[test]
fn a_server_that_comes_later_gets_everything() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.steps("loss", 0..3);
    let bridge = place.bridge("watch logs --poll 50ms -p p --retries 0").online(&server);
    let watching = bridge.env("WANDB_BASE_URL", &format!("http://{address}")).start();
    watching.wait_for("now, and will try again");
    writer.steps("loss", 3..5);
    forward(TcpListener::bind(address).unwrap(), &server);
    wait_for_points(&server, "a", "loss", 5);
    watching.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..5));
}

#[test]
fn a_server_that_falters_gets_everything_once() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    server.fault(Fault::reset(Route::FileStream).applied());
    server.fault(Fault::status(Route::FileStream, 503).header("Retry-After", "0.1"));
    server.fault(Fault::html(Route::graphql("UpsertBucket"), 502));
    let watching = place.watch(&server, "");
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.steps("loss", 0..3);
    wait_for_points(&server, "a", "loss", 3);
    writer.steps("loss", 3..5);
    watching.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..5));
}
