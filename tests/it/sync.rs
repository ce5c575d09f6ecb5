//! `sync`: what it takes, what it leaves, and where it sends it.

use std::time::Duration;

use crate::import::{named, names};
use crate::support::bridge::{Place, fixture_path};
use crate::support::compare::{Compared, same_run, same_run_but_for};
use crate::support::events::Writer;
use crate::support::official::{copy_tree, official_sync};
use crate::support::server::{FakeServer, Fault, Route, RunSnapshot, RunStatus};

/// Much longer than anything takes.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn any_path_that_leads_to_a_log_will_do() {
    let place = Place::new();
    place.import_offline([fixture_path("torch/precise")]).args(["-p", "p"]).run().ok();
    let log = place.log();
    let directory = log.parent().unwrap();
    for path in [place.path("out/wandb"), place.path("out"), directory.to_owned(), log.clone()] {
        let server = FakeServer::start();
        place.call(["sync", "--include-synced"]).arg(&path).server(&server).run().ok();
        assert_eq!(names(&server), ["precise"], "{}", path.display());
        assert_eq!(named(&server, "precise").project, "p");
        server.assert_content();
    }
    let server = FakeServer::start();
    place.call(["sync", "--include-synced"]).directory(&place.path("out")).server(&server).run().ok();
    assert_eq!(names(&server), ["precise"]);
}

#[test]
fn what_is_typed_replaces_what_the_log_says_and_variables_do_not() {
    let (place, server) = (Place::new(), FakeServer::start());
    place.import_offline([fixture_path("torch/precise")]).args(["-p", "recorded", "--group", "g"]).run().ok();
    let ended =
        place.sync(&server).env("WANDB_PROJECT", "variable").env("WANDB_MODE", "offline").arg("--json").run().ok();
    assert_eq!(ended.json_runs()[0]["group"], "g");
    assert_eq!(server.runs()[0].project, "recorded");
    place.sync(&server).args(["-p", "typed", "-e", "team", "--include-synced"]).run().ok();
    let typed = server.runs().into_iter().find(|run| run.project == "typed").unwrap();
    assert_eq!(typed.entity, "team");
    let first = server.run_in("recorded", &typed.id).unwrap();
    assert_eq!(same_run(&first, &typed), Ok(()));
    server.assert_content();
}

#[test]
fn the_official_client_and_we_send_the_same() {
    let (place, ours, theirs) = (Place::new(), FakeServer::start(), FakeServer::start());
    // Not `precise`: the official client makes 0 of -0.
    let folders = ["showcase", "torch/add_scalars", "torch/ppo", "torch/restarted"].map(fixture_path);
    place.import_offline(folders).args(["-p", "p"]).run().ok();
    copy_tree(&place.path("out"), &place.path("copy"));
    official_sync(&place.path("copy/wandb"), &theirs);
    place.sync(&ours).run().ok();
    assert_eq!(names(&ours).len(), 8);
    assert_eq!(names(&ours), names(&theirs));
    for run in ours.runs() {
        let compared = Compared { files: false, ..Compared::default() };
        let other = theirs.run(&run.id).unwrap();
        assert_eq!(same_run_but_for(&run, &other, &compared), Ok(()), "{}", run.display_name);
    }
    ours.assert_content();
    theirs.assert_content();
}

#[test]
fn an_upload_that_was_cut_short_goes_on() {
    let (place, server) = (Place::new(), FakeServer::start());
    place.import_offline([fixture_path("torch/ppo")]).args(["-p", "p"]).run().ok();
    server.fault(Fault::status(Route::FileStream, 500).always());
    let ended = place.sync(&server).args(["--retries", "0", "--json"]).run().code(5);
    assert!(ended.json_runs().iter().all(|run| run["state"] == "failed"));
    server.behave();
    place.sync(&server).run().ok();
    for run in server.runs() {
        assert_eq!((run.history.len(), run.status, run.resent_lines), (40, RunStatus::Finished, 0));
    }
    server.assert_content();
}

#[test]
fn a_lost_answer_doubles_nothing() {
    let (place, server) = (Place::new(), FakeServer::start());
    place.import_offline([fixture_path("torch/precise")]).args(["-p", "p"]).run().ok();
    // The server has taken the lines, but nobody heard of it before the program ended.
    server.fault(Fault::reset(Route::FileStream).applied());
    place.sync(&server).args(["--retries", "0"]).run().code(5);
    let there = server.runs()[0].history.len();
    assert!(there > 0);
    place.sync(&server).run().ok();
    let run = named(&server, "precise");
    assert_eq!((run.history.len(), run.status), (there, RunStatus::Finished));
    server.assert_content();
}

#[test]
fn a_conflict_is_said_and_nothing_is_overwritten() {
    let (place, server) = (Place::new(), FakeServer::start());
    place.import_offline([fixture_path("torch/precise")]).args(["-p", "p"]).run().ok();
    place.sync(&server).run().ok();
    let run = named(&server, "precise");
    // The state is lost, and somebody else wrote to the run.
    let state = place.log().parent().unwrap().join(".wandb-bridge");
    for entry in std::fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("upload-") {
            std::fs::remove_file(path).unwrap();
        }
    }
    // Without the other writer it is found out that all is there.
    place.sync(&server).arg("--include-synced").run().ok();
    assert_eq!(named(&server, "precise").history, run.history);
    server.append_history(&run.id, r#"{"_step":1000,"x":1}"#);
    for entry in std::fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("upload-") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let ended = place.sync(&server).arg("--include-synced").run().code(1);
    assert!(ended.stderr.contains("something else wrote"), "{}", ended.stderr);
    assert_eq!(named(&server, "precise").history.len(), run.history.len() + 1);
    server.assert_content();
}

#[test]
fn logs_are_followed_while_another_process_records_them() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.scalars("loss", (0..10).map(|step| (step, 0.5)));
    let follower = place.sync(&server).args(["--live", "--poll", "50ms", "--until-idle", "3s"]).spawn();
    // A run that ends and goes on, twice.
    for rows in [10, 15, 20] {
        place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
        let all = |run: &RunSnapshot| run.history.len() == rows && run.status == RunStatus::Finished;
        server.wait_until(LIMIT, |world| world.runs.values().any(all));
        writer.scalars("loss", (rows as i64..rows as i64 + 5).map(|step| (step, 0.5)));
    }
    // A run that appears.
    let name = "events.out.tfevents.1784016001.trainer-0.4242.1";
    Writer::create(&place.path("more/b"), name).scalars("loss", [(0, 1.0)]);
    place.import_offline(["more"]).args(["-p", "p"]).run().ok();
    let ended = follower.wait().ok();
    eprintln!("{}", ended.stderr);
    assert_eq!(names(&server), ["a", "b"]);
    server.assert_content();
}
