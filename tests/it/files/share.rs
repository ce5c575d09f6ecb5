//! Event files on a network share: nobody tells of changes, sizes are old, and reading fails now and then.

use std::time::Duration;

use rustix::process::Signal;

use crate::import::named;
use crate::support::bridge::{Call, Place, Running};
use crate::support::events::Writer;
use crate::support::faults::Share;
use crate::support::server::{FakeServer, RunStatus};

/// The magic number of NFS.
const NFS: &str = "remote=0x6969";
/// "Input/output error", and "Stale file handle".
const ERRORS: [&str; 2] = ["error=5", "error=116"];
/// What is waited for comes in a second or two; a busy machine may need longer.
const LIMIT: Duration = Duration::from_secs(60);

fn watch(place: &Place, server: &FakeServer, share: &Share) -> Call {
    place.call(["watch", "logs", "--dir", "out", "-p", "p", "-vv"]).server(server).envs(share.variables())
}

/// Looks all the time, and takes no file for one that has ended.
fn watch_often(place: &Place, server: &FakeServer, share: &Share) -> Running {
    watch(place, server, share).args(["--poll", "50ms", "--stale-after", "3650d"]).spawn()
}

fn interrupt(running: Running) {
    running.signal(Signal::INT);
    running.wait().ok();
}

/// A place whose `logs` are on a share.
fn shared() -> (Place, FakeServer, Share) {
    let (place, server) = (Place::new(), FakeServer::start());
    let share = Share::new(&place.path("logs"));
    (place, server, share)
}

/// Values that are their steps.
fn points(from: i64, to: i64) -> impl Iterator<Item = (i64, f32)> {
    (from..to).map(|step| (step, step as f32))
}

/// Ten values of a run `a`, and where the file ended when there were three.
fn ten_points(place: &Place) -> (Writer, u64) {
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.scalars("loss", points(0, 3));
    let three = writer.path().metadata().unwrap().len();
    writer.scalars("loss", points(3, 10));
    (writer, three)
}

#[track_caller]
fn wait_for_rows(server: &FakeServer, name: &str, rows: usize) {
    server.wait_until(LIMIT, |world| {
        world.runs.values().any(|run| run.display_name == name && run.history.len() >= rows)
    });
}

/// Another run arrives: so everything was looked at since.
fn look_once_more(place: &Place, server: &FakeServer, name: &str) {
    let file = format!("events.out.tfevents.1784016000.{name}.1.0");
    Writer::create(&place.path(&format!("logs/{name}")), &file).scalars("loss", points(0, 1));
    wait_for_rows(server, name, 1);
}

/// The run has these values, each once and in their order.
#[track_caller]
fn assert_values(server: &FakeServer, name: &str, count: i64) {
    let values: Vec<String> = named(server, name).column("loss").iter().map(ToString::to_string).collect();
    assert_eq!(values, (0..count).map(|value| value.to_string()).collect::<Vec<_>>());
    server.assert_content();
}

#[test]
fn where_nobody_tells_of_changes_nobody_is_asked_to() {
    for (says, polls, is_told) in [(NFS, "poll=10", false), ("", "poll=1", true)] {
        let (place, server, share) = shared();
        share.says(says);
        Writer::new(&place.path("logs/a")).scalars("loss", points(0, 3));
        let ended = watch(&place, &server, &share).args(["--until-idle", "300ms"]).run().ok();
        assert!(ended.stderr.lines().any(|line| line.contains("watching") && line.contains(polls)), "{}", ended.stderr);
        let watched = share.watched();
        assert_eq!(watched.iter().any(|path| path.contains("/logs")), is_told, "{watched:?}");
        assert_values(&server, "a", 3);
    }
}

#[test]
fn growth_that_nobody_tells_of_arrives() {
    let (place, server, share) = shared();
    share.says(NFS);
    let mut writer = Writer::new(&place.path("logs/a"));
    let running = watch_often(&place, &server, &share);
    for (from, count) in [(0, 1), (1, 5), (5, 20)] {
        writer.scalars("loss", points(from, count));
        wait_for_rows(&server, "a", count as usize);
    }
    Writer::new(&place.path("logs/later/b")).scalars("loss", points(0, 2));
    wait_for_rows(&server, "later/b", 2);
    interrupt(running);
    assert_eq!(share.watched(), [""; 0]);
    assert_values(&server, "a", 20);
    assert_values(&server, "later/b", 2);
}

#[test]
fn sizes_that_are_old_hide_nothing_for_good() {
    let (place, server, share) = shared();
    let (mut writer, three) = ten_points(&place);
    // The size is one in the middle of a record; later it is one from before what was read.
    share.says(&format!("{NFS} size={}", three + 7));
    let running = watch_often(&place, &server, &share);
    wait_for_rows(&server, "a", 3);
    look_once_more(&place, &server, "b");
    assert_values(&server, "a", 3);
    share.says(NFS);
    wait_for_rows(&server, "a", 10);
    share.says(&format!("{NFS} size={three}"));
    look_once_more(&place, &server, "c");
    writer.scalars("loss", points(10, 12));
    look_once_more(&place, &server, "d");
    share.says(NFS);
    wait_for_rows(&server, "a", 12);
    interrupt(running);
    assert_values(&server, "a", 12);
}

#[test]
fn what_cannot_be_read_for_a_while_is_read_later() {
    for error in ERRORS {
        let (place, server, share) = shared();
        let (_, three) = ten_points(&place);
        share.says(&format!("{NFS} {error} fail={}", three + 7));
        let running = watch_often(&place, &server, &share);
        wait_for_rows(&server, "a", 3);
        look_once_more(&place, &server, "b");
        share.says(NFS);
        wait_for_rows(&server, "a", 10);
        running.signal(Signal::INT);
        running.wait().ok();
        assert_values(&server, "a", 10);
    }
}

#[test]
fn what_cannot_be_read_is_said_and_read_by_the_next_import() {
    for error in ERRORS {
        let (place, server, share) = shared();
        let (_, three) = ten_points(&place);
        share.says(&format!("{error} fail={}", three + 7));
        let import = || place.import(&server, ["logs"]).arg("--json").envs(share.variables());
        let ended = import().run().code(3);
        let run = &ended.json_runs()[0];
        assert_eq!((&run["rows"], &run["skipped"][0]["loss"]), (&3.into(), &true.into()), "{run}");
        assert_eq!(run["skipped"][0]["reason"], "file that cannot be read", "{run}");
        assert_values(&server, "a", 3);
        share.says("");
        import().run().ok();
        assert_values(&server, "a", 10);
        assert_eq!(named(&server, "a").status, RunStatus::Finished);
    }
}
