//! Logs that another client is still writing: `sync --live`, and `sync` called again and again.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use wandb_bridge::wandb_format::{LogWriter, is_synced};

use super::logs::{exit, printed, row, run_directory, run_record, write};
use crate::support::bridge::Place;
use crate::support::official::{copy_tree, end_at_exit, logs_below, official_offline_run};
use crate::support::server::{FakeServer, RunStatus};

const SOON: Duration = Duration::from_secs(60);

/// Appends to a log as it grows, cut anywhere, as the official core writes whole blocks.
fn grow(log: &Path, whole: &[u8], to: usize) {
    fs::write(log, &whole[..to]).unwrap();
}

#[test]
fn a_log_is_followed_to_its_exit_and_others_appear() {
    let (place, server) = (Place::new(), FakeServer::start());
    let folder = place.path("wandb");
    let log = run_directory(&folder, 0, "first");
    let mut writer = LogWriter::create(&log).unwrap();
    writer.append(run_record("p", "first")).unwrap();
    writer.append(row(0, 10)).unwrap();
    writer.flush().unwrap();
    let arguments = ["sync", "--live", "--poll", "100ms", "--until-idle", "4s"];
    let running = place.call(arguments).arg(&folder).server(&server).spawn();
    server.wait_until(SOON, |world| world.run("first").is_some_and(|run| run.history.len() == 1));
    assert_eq!(server.run("first").unwrap().status, RunStatus::Running);
    writer.append(row(1, 10)).unwrap();
    writer.append(printed("half a li")).unwrap();
    writer.flush().unwrap();
    server.wait_until(SOON, |world| world.run("first").is_some_and(|run| run.console.len() == 1));
    writer.append(printed("ne\n")).unwrap();
    writer.append(exit(0)).unwrap();
    writer.flush().unwrap();
    server.wait_until(SOON, |world| world.run("first").is_some_and(|run| run.complete));
    // Another run begins, and its writer says nothing more.
    write(&run_directory(&folder, 1, "second"), [run_record("p", "second"), row(0, 10)]);
    server.wait_until(SOON, |world| world.run("second").is_some_and(|run| run.history.len() == 1));
    running.wait().ok();
    server.assert_content();
    let run = server.run("first").unwrap();
    assert_eq!((run.history.len(), run.status, run.console.len()), (2, RunStatus::Finished, 1));
    assert!(run.console[0].ends_with(" half a line"), "{:?}", run.console);
    assert!(is_synced(&log));
    let second = run_directory(&folder, 1, "second");
    assert_eq!(server.run("second").unwrap().status, RunStatus::Running);
    assert!(!is_synced(&second));
}

#[test]
fn a_loop_is_as_good_as_following() {
    let (place, server) = (Place::new(), FakeServer::start());
    let recorded = place.path("recorded");
    fs::create_dir(&recorded).unwrap();
    let original = official_offline_run(&recorded);
    end_at_exit(&original);
    let whole = fs::read(&original).unwrap();
    let undisturbed = FakeServer::start();
    copy_tree(original.parent().unwrap(), &place.path("copy/offline-run-20260101_000000-offl1"));
    place.call(["sync"]).arg(place.path("copy")).server(&undisturbed).run().ok();

    let log = logs_below(&recorded).pop().unwrap();
    for part in 1..=10 {
        grow(&log, &whole, whole.len() * part / 10);
        let ended = place.call(["sync", "--json"]).arg(&log).server(&server).run().ok();
        let state = ended.json_runs()[0]["state"].clone();
        assert_eq!(state, if part < 10 { "running" } else { "synced" }, "{part}");
        assert_eq!(is_synced(&log), part == 10);
    }
    server.assert_content();
    let (run, expected) = (server.run("offl1").unwrap(), undisturbed.run("offl1").unwrap());
    assert_eq!((&run.history, &run.events, &run.console), (&expected.history, &expected.events, &expected.console));
    assert_eq!((run.status, run.resent_lines, run.rewritten_lines <= 2), (RunStatus::Finished, 0, true));
    assert_eq!(run.alerts.len(), 1);
}

#[test]
fn a_log_that_is_given_up_may_still_go_on() {
    let (place, server) = (Place::new(), FakeServer::start());
    let log = run_directory(&place.path("wandb"), 0, "died");
    write(&log, [run_record("p", "died"), row(0, 10)]);
    let sync = |place: &Place| place.call(["sync", "--json"]).arg(place.path("wandb")).server(&server).run().ok();
    let age = |age: u64| {
        let then = SystemTime::now() - Duration::from_secs(age);
        File::options().append(true).open(&log).unwrap().set_modified(then).unwrap();
    };
    age(3000);
    assert_eq!(sync(&place).json_runs()[0]["state"], "running");
    let requests = server.requests().len();
    sync(&place);
    assert_eq!(server.requests().len(), requests, "nothing is new");
    age(3700);
    sync(&place);
    let run = server.run("died").unwrap();
    assert_eq!((run.status, run.exit_code), (RunStatus::Failed, Some(1)));
    // It was only asleep.
    let mut bytes = fs::read(&log).unwrap();
    let mut other = place.path("other");
    other.push("log");
    fs::create_dir(place.path("other")).unwrap();
    write(&other, [run_record("p", "died"), row(0, 10), row(1, 10), exit(0)]);
    let grown = fs::read(&other).unwrap();
    assert!(grown.starts_with(&bytes));
    bytes = grown;
    fs::write(&log, bytes).unwrap();
    sync(&place);
    server.assert_content();
    let run = server.run("died").unwrap();
    assert_eq!((run.history.len(), run.status, run.exit_code), (2, RunStatus::Finished, Some(0)));
    assert!(is_synced(&log));
}
