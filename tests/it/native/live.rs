//! Logs that another client is still writing: `sync --live`, and `sync` called again and again.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use wandb_bridge::model::Json;
use wandb_bridge::proto::wandb_internal::HeaderRecord;
use wandb_bridge::proto::wandb_internal::record::RecordType;
use wandb_bridge::wandb_format::{LogWriter, is_synced};

use super::logs::{exit, printed, row, run_directory, run_record, write};
use crate::support::bridge::Place;
use crate::support::compare::{Compared, same_run_but_for};
use crate::support::official::{copy_tree, end_at_exit, logs_below, official_offline_run};
use crate::support::python::inline;
use crate::support::server::{FakeServer, RunSnapshot, RunStatus};

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

/// Logs rows that are long enough for the core to write them at once, and goes on when a file says so.
///
/// Usage: DIR RESUME PARTS; the files `go-1`, `go-2`, … lie in DIR.
const WRITING: &str = r#"
import pathlib, sys, time, wandb
directory, resume, parts = pathlib.Path(sys.argv[1]), sys.argv[2], [int(part) for part in sys.argv[3].split(",")]
settings = wandb.Settings(console="wrap_raw")
run = wandb.init(mode="offline", project="p", id="growing", name="growing", dir=directory, resume=resume, settings=settings)
note = pathlib.Path(run.dir) / "note.txt"
note.write_text("a note")
run.save(str(note), base_path=run.dir, policy="end")
for part in parts:
    while not (directory / f"go-{part}").exists():
        time.sleep(0.02)
    for i in range(40):
        run.log({"x": part * 40 + i, "text": "x" * 3000})
        print(f"row {part} {i}")
run.finish()
"#;

/// The official client at work in another thread, in parts of 40 rows.
fn writing(directory: &Path, resume: &str, parts: &str) -> std::thread::JoinHandle<()> {
    fs::create_dir_all(directory).unwrap();
    let call = inline(WRITING).arg(directory).arg(resume).arg(parts);
    std::thread::spawn(move || drop(call.run().ok()))
}

fn go(directory: &Path, part: usize) {
    fs::write(directory.join(format!("go-{part}")), "").unwrap();
}

/// What a single sync makes of what was written.
fn at_once(place: &Place, folder: &Path) -> RunSnapshot {
    let (copy, server) = (place.path("copy"), FakeServer::start());
    copy_tree(folder, &copy);
    place.call(["sync", "--include-synced"]).arg(&copy).server(&server).run().ok();
    server.run("growing").unwrap()
}

#[track_caller]
fn check_growing(place: &Place, server: &FakeServer, folder: &Path, rows: i64) {
    server.assert_content();
    let (run, expected) = (server.run("growing").unwrap(), at_once(place, folder));
    assert_eq!(run.column("x"), (0..rows).map(Json::from).collect::<Vec<_>>());
    assert_eq!(same_run_but_for(&run, &expected, &Compared { console: true, ..Compared::default() }), Ok(()));
    assert_eq!((run.status, run.exit_code, run.resent_lines), (RunStatus::Finished, Some(0), 0));
    assert_eq!(run.files["note.txt"].text(), "a note");
}

#[test]
fn a_loop_beside_the_official_client_sends_each_row_once() {
    let (place, server) = (Place::new(), FakeServer::start());
    let directory = place.path("node");
    let writer = writing(&directory, "never", "0,1,2");
    let folder = directory.join("wandb");
    let sync = || place.call(["sync", "--json"]).arg(&folder).server(&server).run();
    for part in 0..3 {
        go(&directory, part);
        let rows = || server.run("growing").map_or(0, |run| run.history.len());
        // Until most of the part has come; before its directory is there, there is nothing to sync.
        let before = std::time::Instant::now();
        while rows() < part * 40 + 20 {
            assert!(before.elapsed() < SOON);
            if folder.exists() {
                let ended = sync();
                assert!(matches!(ended.code, Some(0 | 9)), "{}", ended.stderr);
            }
        }
    }
    writer.join().unwrap();
    // The loop may have seen its end already.
    sync().ok();
    assert!(is_synced(&logs_below(&folder)[0]));
    check_growing(&place, &server, &folder, 120);
    let requests = server.requests().len();
    sync().ok();
    assert_eq!(server.requests().len(), requests);
}

#[test]
fn a_log_that_has_only_begun_is_no_failure() {
    let (place, server) = (Place::new(), FakeServer::start());
    let log = run_directory(&place.path("wandb"), 0, "new");
    let sync = || place.call(["sync", "--json"]).server(&server).run();
    // Not even its first bytes; who writes it; a part of the run's record.
    fs::write(&log, "").unwrap();
    assert_eq!(sync().ok().json_runs()[0]["state"], "running");
    fs::remove_file(&log).unwrap();
    let mut writer = LogWriter::create(&log).unwrap();
    writer.append(RecordType::Header(HeaderRecord::default())).unwrap();
    writer.flush().unwrap();
    let begun = fs::read(&log).unwrap().len();
    assert_eq!(sync().ok().json_runs()[0]["state"], "running");
    writer.append(run_record("p", "new")).unwrap();
    writer.append(row(0, 10)).unwrap();
    writer.flush().unwrap();
    let whole = fs::read(&log).unwrap();
    grow(&log, &whole, begun + 10);
    assert_eq!(sync().ok().json_runs()[0]["state"], "running");
    assert_eq!(server.runs().len(), 0);
    // One that stays so is told when it is given up.
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    File::options().append(true).open(&log).unwrap().set_modified(old).unwrap();
    let ended = sync().code(1);
    assert!(ended.stderr.contains("holds no run record"), "{}", ended.stderr);
    grow(&log, &whole, whole.len());
    sync().ok();
    assert_eq!(server.run("new").unwrap().history.len(), 1);
}

#[test]
fn the_official_client_is_followed_through_all_logs_of_its_run() {
    let (place, server) = (Place::new(), FakeServer::start());
    let directory = place.path("node");
    let folder = directory.join("wandb");
    // Nothing is there yet, not even the folder.
    let call = place.call(["sync", "--live", "--poll", "100ms", "--until-idle", "8s"]).arg(&folder).server(&server);
    let following = call.spawn();
    let rows = |world: &crate::support::server::World| world.run("growing").map_or(0, |run| run.history.len());
    let first = writing(&directory, "allow", "0,1");
    for part in 0..2 {
        go(&directory, part);
        server.wait_until(SOON, |world| rows(world) >= part * 40 + 20);
        // After its last part it ends by itself.
        assert!(part > 0 || server.run("growing").unwrap().status == RunStatus::Running);
    }
    first.join().unwrap();
    server.wait_until(SOON, |world| world.run("growing").unwrap().complete);
    // It is resumed, in a directory of its own.
    let second = writing(&directory, "allow", "2");
    go(&directory, 2);
    second.join().unwrap();
    server.wait_until(SOON, |world| rows(world) == 120 && world.run("growing").unwrap().complete);
    following.wait().ok();
    assert!(logs_below(&folder).iter().all(|log| is_synced(log)));
    check_growing(&place, &server, &folder, 120);
}

#[test]
fn a_log_that_grows_no_more_is_closed_while_it_is_followed_and_may_go_on() {
    let (place, server) = (Place::new(), FakeServer::start());
    let log = run_directory(&place.path("wandb"), 0, "slow");
    let mut writer = LogWriter::create(&log).unwrap();
    writer.append(run_record("p", "slow")).unwrap();
    writer.append(row(0, 10)).unwrap();
    writer.flush().unwrap();
    let call = place.call(["sync", "--live", "--poll", "100ms", "--stale-after", "2s"]).server(&server);
    let following = call.spawn();
    server.wait_until(SOON, |world| world.run("slow").is_some_and(|run| run.complete));
    let run = server.run("slow").unwrap();
    assert_eq!((run.status, run.exit_code, run.history.len()), (RunStatus::Failed, Some(1), 1));
    assert!(!is_synced(&log));
    writer.append(row(1, 10)).unwrap();
    writer.append(exit(0)).unwrap();
    writer.flush().unwrap();
    server.wait_until(SOON, |world| world.run("slow").is_some_and(|run| run.complete && run.exit_code == Some(0)));
    following.signal(rustix::process::Signal::TERM);
    following.wait().ok();
    server.assert_content();
    assert_eq!(server.run("slow").unwrap().history.len(), 2);
    assert!(is_synced(&log));
}
