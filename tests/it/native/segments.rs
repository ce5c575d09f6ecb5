//! Runs that were resumed, forked or wound back: several logs make one run, in the order of their start, by either client
//! and by both in turn.

use std::path::PathBuf;

use wandb_bridge::model::Json;

use crate::support::bridge::{Ended, Place};
use crate::support::compare::{Compared, same_run_but_for};
use crate::support::official::{copy_tree, end_at_exit, logs_below, official_sync};
use crate::support::python::script;
use crate::support::server::{FakeServer, Fault, Route, RunSnapshot, RunStatus};

/// Records what `record_segments.py` makes, and returns the logs in the order of their start.
fn record(place: &Place, what: &str) -> Vec<PathBuf> {
    let directory = place.path("recorded");
    std::fs::create_dir(&directory).unwrap();
    script("record_segments.py").arg(&directory).arg(what).run().ok();
    let logs = logs_below(&directory);
    assert_eq!(logs.len(), 3);
    logs.iter().for_each(|log| end_at_exit(log));
    logs
}

fn sync<'a>(place: &Place, logs: impl IntoIterator<Item = &'a PathBuf>, server: &FakeServer) -> Ended {
    place.call(["sync", "--include-synced", "--retries", "0"]).args(logs).server(server).run()
}

/// What three logs of one run come to.
#[track_caller]
fn check(run: &RunSnapshot) {
    assert_eq!(run.column("_step"), [0, 1, 2, 3, 4, 20, 21, 22, 25].map(Json::from));
    assert_eq!(run.column("x"), [0, 1, 2, 3, 4, 5, 6, 7, 8].map(Json::from));
    assert_eq!((run.status, run.exit_code), (RunStatus::Finished, Some(0)));
    let config = run.config_value();
    assert_eq!(config.get("both").unwrap().to_string(), r#"{"b":2}"#);
    assert_eq!((config.get("first"), config.get("third")), (Some(&Json::from(1)), Some(&Json::from(3))));
    let summary = run.summary_value();
    assert_eq!((summary.get("_step"), summary.get("mine")), (Some(&Json::from(25)), Some(&Json::from(1))));
    let texts: Vec<&str> = run.console.iter().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    assert_eq!(texts, ["3 rows", "3 rows", "3 rows"]);
    // The file holds what all logs printed, not only what the last one did.
    assert_eq!(run.files["output.log"].text(), "3 rows\n3 rows\n3 rows\n");
}

#[test]
fn resumed_logs_make_the_same_run_by_either_client() {
    let (place, ours, theirs) = (Place::new(), FakeServer::start(), FakeServer::start());
    let logs = record(&place, "allow");
    copy_tree(&place.path("recorded"), &place.path("copy"));
    official_sync(&place.path("copy/wandb"), &theirs);
    // In whatever order they are named.
    sync(&place, logs.iter().rev(), &ours).ok();
    ours.assert_content();
    let (run, mut other) = (ours.run("again").unwrap(), theirs.run("again").unwrap());
    check(&run);
    // The official client forgets what only an earlier log says of the summary.
    let summary = other.summary.unwrap();
    assert!(!summary.contains("mine"));
    other.summary = Some(summary.replacen('{', r#"{"mine":1,"#, 1));
    assert_eq!(other.files["output.log"].text(), "3 rows\n");
    let ignored_files = ["wandb-summary.json".to_owned(), "output.log".to_owned()].into();
    let compared = Compared { console: true, ignored_files, ..Compared::default() };
    assert_eq!(same_run_but_for(&run, &other, &compared), Ok(()));
    for log in &logs {
        let state = |place: &std::path::Path| {
            let text = std::fs::read_to_string(place.with_extension("wandb.syncstate")).unwrap();
            Json::parse(&text).unwrap().get("starting_step").cloned()
        };
        let copy = place.path("copy").join(log.strip_prefix(place.path("recorded")).unwrap());
        assert_eq!(state(log), state(&copy));
    }

    // Nothing is new, so nothing is sent.
    let requests = ours.requests().len();
    sync(&place, &logs, &ours).ok();
    assert_eq!(ours.requests().len(), requests);
}

#[test]
fn logs_that_do_not_say_so_continue_too() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = record(&place, "none");
    sync(&place, &logs, &server).ok();
    server.assert_content();
    check(&server.run("again").unwrap());
}

#[test]
fn logs_are_sent_one_by_one_as_they_come() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = record(&place, "none");
    for log in &logs {
        sync(&place, [log], &server).ok();
    }
    server.assert_content();
    check(&server.run("again").unwrap());

    // When it is forgotten what was sent, what lies beside the log tells enough.
    std::fs::remove_dir_all(logs[2].parent().unwrap().join(".wandb-bridge")).unwrap();
    sync(&place, [&logs[2]], &server).ok();
    server.assert_content();
    let run = server.run("again").unwrap();
    assert_eq!((run.history.len(), run.alerts.len()), (9, 0));
    // An earlier log cannot be told from one that somebody else wrote to.
    std::fs::remove_dir_all(logs[0].parent().unwrap().join(".wandb-bridge")).unwrap();
    let ended = sync(&place, [&logs[0]], &server).code(1);
    assert!(ended.stderr.contains("something else wrote"), "{}", ended.stderr);
    assert_eq!(server.run("again").unwrap().history.len(), 9);
}

#[test]
fn both_clients_in_turn() {
    for ours_first in [true, false] {
        let (place, server) = (Place::new(), FakeServer::start());
        let logs = record(&place, "allow");
        for (index, log) in logs.iter().enumerate() {
            if (index % 2 == 0) == ours_first {
                place.call(["sync"]).arg(log).server(&server).run().ok();
            } else {
                official_sync(log, &server);
            }
        }
        server.assert_content();
        let run = server.run("again").unwrap();
        assert_eq!(run.column("_step"), [0, 1, 2, 3, 4, 20, 21, 22, 25].map(Json::from));
        assert_eq!(run.column("x"), [0, 1, 2, 3, 4, 5, 6, 7, 8].map(Json::from));
        // Each leaves alone what the other has marked.
        let ended = place.call(["sync"]).arg(place.path("recorded/wandb")).server(&server).run().ok();
        assert!(ended.stderr.contains("left out: 3 runs (synced already"), "{}", ended.stderr);
    }
}

#[test]
fn a_log_that_fails_keeps_those_behind_it_back() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = record(&place, "allow");
    server.fault(Fault::status(Route::FileStream, 500).always());
    let ended = sync(&place, &logs, &server);
    let ended = ended.code(5);
    assert_eq!(ended.stderr.matches("comes before it").count(), 2, "{}", ended.stderr);
    server.behave();
    sync(&place, &logs, &server).ok();
    server.assert_content();
    check(&server.run("again").unwrap());
}

/// Puts a run of somebody else under the id of the logs.
fn dispute(server: &FakeServer, place: &Place, logs: &[PathBuf]) -> Vec<String> {
    let theirs = place.path("theirs/offline-run-20260101_000000-again");
    copy_tree(logs[0].parent().unwrap(), &theirs);
    place.call(["sync"]).arg(theirs.join(logs[0].file_name().unwrap())).server(server).run();
    server.append_history("again", r#"{"_step":1000,"x":-1}"#);
    server.run("again").unwrap().history
}

#[test]
fn all_logs_go_to_the_other_id_that_the_first_one_went_to() {
    for (at_once, state_is_kept) in [(true, true), (false, true), (false, false)] {
        let (place, server) = (Place::new(), FakeServer::start());
        let logs = record(&place, "none");
        let theirs = dispute(&server, &place, &logs);
        let call = |logs: &[PathBuf]| {
            let call = place.call(["sync", "--include-synced", "--on-conflict", "new-id"]).args(logs).server(&server);
            call.run().ok()
        };
        if at_once {
            call(&logs);
        } else {
            logs.iter().for_each(|log| drop(call(std::slice::from_ref(log))));
        }
        if !state_is_kept {
            // Who lost the state of the last log still knows where those before it went.
            std::fs::remove_dir_all(logs[2].parent().unwrap().join(".wandb-bridge")).unwrap();
        }
        call(&logs);
        let run = server.run("again-2").unwrap();
        if state_is_kept {
            check(&run);
        }
        assert_eq!(run.column("x"), [0, 1, 2, 3, 4, 5, 6, 7, 8].map(Json::from));
        assert_eq!(server.run("again").unwrap().history, theirs);
        assert_eq!(server.runs().len(), 2);
        server.assert_content();
    }
}

#[test]
fn all_logs_of_a_run_that_is_skipped_are_skipped() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = record(&place, "none");
    let theirs = dispute(&server, &place, &logs);
    let call = || place.call(["sync", "--on-conflict", "skip", "--json"]).args(&logs).server(&server).run().ok();
    for _ in 0..2 {
        let states: Vec<_> = call().json_runs().iter().map(|run| run["state"].clone()).collect();
        assert_eq!(states, ["skipped", "skipped", "skipped"]);
        assert_eq!(server.run("again").unwrap().history, theirs);
    }
    assert_eq!(server.runs().len(), 1);
}

#[test]
fn what_is_attached_to_an_earlier_log_leaves_the_run_as_it_is() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = record(&place, "allow");
    sync(&place, &logs, &server).ok();
    let before = server.run("again").unwrap();
    for (number, log) in logs.iter().enumerate() {
        std::fs::write(log.parent().unwrap().join("files/model.pt"), format!("{number}")).unwrap();
    }
    let call = || place.call(["sync", "--include-synced", "--artifact", "model:m=*.pt"]).args(&logs).server(&server);
    call().run().ok();
    server.assert_content();
    let run = server.run("again").unwrap();
    check(&run);
    assert_eq!((run.config, run.summary, run.files.len()), (before.config, before.summary, before.files.len()));
    assert_eq!(server.look(|world| world.artifacts.len()), 3);
    let requests = server.requests().len();
    call().run().ok();
    assert_eq!(server.requests().len(), requests);
}

#[test]
fn forks_and_rewinds_are_the_same_by_either_client() {
    let (place, ours, theirs) = (Place::new(), FakeServer::start(), FakeServer::start());
    let logs = record(&place, "branches");
    copy_tree(&place.path("recorded"), &place.path("copy"));
    official_sync(&place.path("copy/wandb"), &theirs);
    sync(&place, &logs, &ours).ok();
    ours.assert_content();
    let compared = Compared { console: true, ..Compared::default() };
    for id in ["base", "child"] {
        let (run, other) = (ours.run(id).unwrap(), theirs.run(id).unwrap());
        assert_eq!(same_run_but_for(&run, &other, &compared), Ok(()), "{id}");
    }
    assert_eq!(ours.run("base").unwrap().column("x"), [0, 1, 2, 3, 20, 21].map(Json::from));
    // It is wound back once.
    let requests = ours.requests().len();
    sync(&place, &logs, &ours).ok();
    assert_eq!(ours.requests().len(), requests);
    assert_eq!(ours.operations("RewindRun").len(), 1);
}
