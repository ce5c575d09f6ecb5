//! `artifact put` in bad weather: killed at every request, and with every request answered wrongly once.

use std::time::Duration;

use super::{check_whole, model, put};
use crate::support::bridge::Place;
use crate::support::server::{FakeServer, Fault, Gate, Route};

const LIMIT: Duration = Duration::from_secs(60);

/// How many requests an undisturbed call makes.
fn requests_of_one_call() -> usize {
    let (place, server) = (Place::new(), FakeServer::start());
    let root = model(&place);
    put(&place, &server, &root).run().ok();
    check_whole(&server);
    server.requests().len()
}

#[test]
fn killed_at_any_request_the_next_call_makes_it_whole() {
    let all = requests_of_one_call();
    assert!(all > 12, "{all}");
    for at in 0..all {
        let (place, server) = (Place::new(), FakeServer::start());
        let root = model(&place);
        server.fault(Fault::stall(Route::Any, &Gate::default()).skip(at));
        let running = put(&place, &server, &root).spawn();
        server.wait_until(LIMIT, |world| world.requests.len() > at);
        // Dropping it kills it.
        drop(running);
        server.behave();
        let sent_before: usize = server.look(|world| world.artifacts.iter().map(|artifact| artifact.files.len()).sum());
        let again = put(&place, &server, &root).arg("--json").run().ok();
        let artifact = check_whole(&server);
        assert!(artifact.files.values().all(|file| file.uploads == 1), "killed at request {at}: {:?}", artifact.files);
        let sent = again.json()[0]["files_sent"].as_u64().unwrap() as usize;
        // A file that was on its way may have arrived after all.
        assert!(sent + sent_before <= artifact.files.len(), "killed at request {at}: {sent_before} + {sent}");
    }
}

#[test]
fn carried_out_but_never_answered_the_next_call_makes_it_whole() {
    for at in 0..requests_of_one_call() {
        let (place, server) = (Place::new(), FakeServer::start());
        let root = model(&place);
        server.fault(Fault::reset(Route::Any).applied().skip(at));
        let first = put(&place, &server, &root).args(["--retries", "0"]).run();
        // What a store did not take is asked for once more by itself.
        assert!(matches!(first.code, Some(0 | 5)), "request {at}: {first:?}");
        put(&place, &server, &root).run().ok();
        check_whole(&server);
        assert_eq!(server.runs().len(), 1, "request {at}");
    }
}

#[test]
fn any_request_may_be_answered_wrongly_once() {
    let all = requests_of_one_call();
    let faults: [&dyn Fn() -> Fault; 4] =
        [&|| Fault::status(Route::Any, 503), &|| Fault::html(Route::Any, 502), &|| Fault::reset(Route::Any), &|| {
            Fault::reset(Route::Any).applied()
        }];
    for at in 0..all {
        let (place, server) = (Place::new(), FakeServer::start());
        let root = model(&place);
        server.fault(faults[at % faults.len()]().skip(at));
        put(&place, &server, &root).run().ok();
        check_whole(&server);
    }
}

#[test]
fn what_is_wrong_for_good_is_said_in_the_exit_code() {
    let place = Place::new();
    let root = model(&place);
    let check = |fault: Fault, code: i32, words: &str| {
        let server = FakeServer::start();
        server.fault(fault.always());
        let ended = put(&place, &server, &root).args(["--retries", "0"]).run().code(code);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        assert!(server.artifact("model").is_none_or(|artifact| artifact.version.is_none()));
    };
    check(Fault::status(Route::Any, 401), 4, "W&B did not accept the API key");
    check(Fault::status(Route::AnyGraphql, 503), 5, "only what is missing is sent by: wandb-bridge artifact put");
    check(Fault::status(Route::Storage, 503), 5, "503");
    check(Fault::status(Route::Storage, 403), 1, "was not uploaded");
    check(Fault::graphql_error("CreateArtifact", "no more room"), 1, "no more room");
    check(Fault::graphql_error("CommitArtifact", "not today"), 1, "not today");
}

#[test]
fn addresses_that_became_too_old_are_asked_for_again() {
    let (place, server) = (Place::new(), FakeServer::start());
    let root = model(&place);
    server.fault(Fault::status(Route::Storage, 403).times(2));
    put(&place, &server, &root).run().ok();
    check_whole(&server);
    assert!(server.operations("CreateArtifactFiles").len() > 2);
}

#[test]
fn a_signal_stops_it_and_the_next_call_goes_on() {
    let (place, server) = (Place::new(), FakeServer::start());
    let root = model(&place);
    server.fault(Fault::stall(Route::Storage, &Gate::default()));
    let running = put(&place, &server, &root).spawn();
    server.wait_until(LIMIT, |world| world.requests.iter().any(|request| request.path.starts_with("/storage/")));
    let id = rustix::process::Pid::from_raw(i32::try_from(running.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let stopped = running.wait().code(143);
    assert!(stopped.stderr.contains("is not whole on the server yet"), "{}", stopped.stderr);
    server.behave();
    put(&place, &server, &root).run().ok();
    check_whole(&server);
}
