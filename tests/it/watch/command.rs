//! `watch -- CMD`: the command comes first, whatever becomes of its runs.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::harness::*;
use crate::support::server::{FakeServer, KEY, RunStatus};

/// A shell script beside which `logs` is watched.
fn beside(place: &Place, arguments: &str, script: &str) -> Bridge {
    place.bridge(&format!("watch logs --poll 50ms -p p {arguments}")).args(&["--", "sh", "-c", script])
}

/// Event files that a script can copy from: `part0`, `part1`, … with one step each, and what comes before them.
fn stage(place: &Place, parts: i64) -> String {
    let directory = place.path("staged");
    let mut writer = Writer::new(&directory);
    let name = writer.path.file_name().unwrap().to_str().unwrap().to_owned();
    fs::rename(&writer.path, directory.join("first")).unwrap();
    for part in 0..parts {
        fs::write(directory.join(format!("part{part}")), writer.event(part, "loss", part as f32)).unwrap();
    }
    name
}

#[test]
fn all_that_a_command_writes_is_delivered_and_its_end_is_the_run_s() {
    let (server, place) = (FakeServer::start(), Place::new());
    let name = stage(&place, 30);
    let script = format!(
        "mkdir -p logs/a; cd logs/a; cat ../../staged/first > {name}; \
         for n in $(seq 0 29); do cat ../../staged/part$n >> {name}; done; {}",
        "[ -z \"$FAIL\" ] || exit $FAIL"
    );
    beside(&place, "", &script).online(&server).run().assert_code(0).assert_says("1 complete");
    assert_finished(&server, "a", "loss", &steps(0..30));

    // The same again, in another directory, and it fails.
    let script = script.replace("logs/a", "logs/b").replace(&name, &name.replace("host.1.0", "host.2.0"));
    beside(&place, "", &script).online(&server).env("FAIL", "7").run().assert_code(7);
    let failed = the_run(&server, "b");
    assert_eq!((failed.status, failed.exit_code, points(&failed, "loss").len()), (RunStatus::Failed, Some(7), 30));
    // What had ended before is no business of the second command.
    assert_finished(&server, "a", "loss", &steps(0..30));
}

#[test]
fn a_command_has_our_standard_streams() {
    let place = Place::with_logs();
    let running = beside(&place, "--mode offline", "cat; echo oops >&2; exit 3").stdin().start();
    running.input("hello\n");
    let ended = running.end();
    ended.assert_code(3).assert_says("oops");
    assert_eq!(ended.out, "hello\n");
}

#[test]
fn a_run_that_the_command_did_not_write_to_does_not_end_with_it() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let other = Writer::at(&place.path("logs/other"), now() - 120.0, "host.9.0").steps("loss", 0..3).path.clone();
    let written = SystemTime::now() - Duration::from_secs(60);
    fs::File::options().write(true).open(other).unwrap().set_modified(written).unwrap();
    let name = stage(&place, 1);
    let script = format!("mkdir logs/own; cat staged/first staged/part0 > logs/own/{name}; exit 4");
    beside(&place, "", &script).online(&server).run().assert_code(4);
    assert_eq!(the_run(&server, "own").status, RunStatus::Failed);
    let other = the_run(&server, "other");
    assert_eq!((other.status, points(&other, "loss")), (RunStatus::Running, steps(0..3)));
}

#[test]
fn a_signal_of_death_is_an_exit_code() {
    let place = Place::with_logs();
    beside(&place, "--mode offline", "kill -9 $$").run().assert_code(137);
}

#[test]
fn a_termination_is_passed_on_and_the_run_stays_open() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.steps("loss", 0..2);
    let script = "trap 'echo term; exit 3' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.02; done";
    let running = beside(&place, "", script).online(&server).start();
    running.wait_for_output("ready");
    wait_for_points(&server, "a", "loss", 2);
    running.signal(rustix::process::Signal::USR1).wait_for_output("usr1");
    writer.steps("loss", 2..4);
    running.terminate();
    let ended = running.end();
    ended.assert_code(3);
    assert!(ended.out.ends_with("term\n"), "{}", ended.out);
    let run = the_run(&server, "a");
    assert_eq!((run.status, run.complete, points(&run, "loss")), (RunStatus::Preempted, false, steps(0..4)));

    // Started again, as a batch system does, it ends well.
    writer.steps("loss", 4..6);
    beside(&place, "", &format!("touch {}", writer.path.display())).online(&server).run().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..6));
}

#[test]
fn a_command_that_takes_its_time_to_end_may_be_signalled_again() {
    let place = Place::with_logs();
    let script = "trap 'echo int' INT; trap 'echo term; exit 0' TERM; echo ready; while :; do sleep 0.02; done";
    let running = beside(&place, "--mode offline", script).start();
    running.wait_for_output("ready");
    running.interrupt().wait_for_output("int\n");
    running.interrupt().wait_for_output("int\nint\n");
    running.terminate();
    running.end().assert_code(0);
}

#[test]
fn a_command_outlives_the_time_limit_and_is_still_signalled() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    Writer::new(&place.path("logs/a")).steps("loss", 0..2);
    let script = "trap 'exit 6' TERM; while :; do sleep 0.02; done";
    let running = beside(&place, "--max-duration 1s", script).online(&server).start();
    // The lock is free once the watch is over.
    server.wait_until(LIMIT, |world| named(world, "a").is_some_and(|run| points(run, "loss").len() == 2));
    let free = || {
        place.run_directories().iter().all(|directory| {
            let lock = fs::File::open(directory.join(".wandb-bridge/writer.lock")).unwrap();
            lock.try_lock().is_ok()
        })
    };
    let started = std::time::Instant::now();
    while !free() {
        assert!(started.elapsed() < LIMIT);
        std::thread::yield_now();
    }
    running.terminate();
    running.end().assert_code(6);
    assert_eq!(the_run(&server, "a").status, RunStatus::Running);
}

#[test]
fn without_a_key_the_command_runs_and_is_recorded() {
    let (server, place) = (FakeServer::start(), Place::new());
    let name = stage(&place, 3);
    let script = format!("mkdir -p logs/a; cat staged/first staged/part* > logs/a/{name}; exit $CODE");
    let ended = beside(&place, "", &script).env("CODE", "0").env("WANDB_BASE_URL", server.url()).run();
    ended.assert_code(3).assert_says("there is no API key, so runs are recorded offline");
    beside(&place, "", &script).env("CODE", "9").env("WANDB_BASE_URL", server.url()).run().assert_code(9);
    assert!(server.requests().is_empty());
    place.bridge("sync").online(&server).run().assert_code(0);
    assert_eq!(points(&the_run(&server, "a"), "loss"), steps(0..3));
}

#[test]
fn online_without_a_key_runs_the_command_alone() {
    let place = Place::with_logs();
    let ended = beside(&place, "--mode online", "echo ran").run();
    ended.assert_code(4).assert_says("warning: there is no W&B API key").assert_says("nothing is recorded");
    assert_eq!(ended.out, "ran\n");
    beside(&place, "--mode online", "exit 8").run().assert_code(8);
}

#[test]
fn with_a_wrong_key_the_command_runs_and_is_recorded() {
    let (server, place) = (FakeServer::start(), Place::new());
    let name = stage(&place, 3);
    let script = format!(
        "mkdir -p logs/a; cat staged/first staged/part0 > logs/a/{name}; echo begun; read line; \
         cat staged/part1 staged/part2 >> logs/a/{name}"
    );
    let wrong = "f".repeat(40);
    let running = beside(&place, "", &script).online(&server).env("WANDB_API_KEY", &wrong).stdin().start();
    // It is said at once, not when the command has ended after days.
    running.wait_for("warning: W&B did not accept the API key");
    running.input("go on\n");
    running.end().assert_code(4);
    place.bridge("sync").online(&server).run().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..3));
}

#[test]
fn without_a_network_the_command_runs_and_is_recorded() {
    let (server, place) = (FakeServer::start(), Place::new());
    let name = stage(&place, 3);
    let script = format!("mkdir -p logs/a; cat staged/first staged/part* > logs/a/{name}; exit $CODE");
    for code in ["6", "0"] {
        // Port 1 is nobody's.
        let nowhere =
            beside(&place, "--retries 0", &script).online(&server).env("WANDB_BASE_URL", "http://127.0.0.1:1");
        let ended = nowhere.env("CODE", code).run();
        ended.assert_code(if code == "0" { 5 } else { 6 }).assert_says("cannot upload");
    }
    place.bridge("sync").online(&server).run().assert_code(0);
    assert_eq!(points(&the_run(&server, "a"), "loss"), steps(0..3));
}

#[test]
fn beside_a_held_run_the_command_runs() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let holder = place.watch(&server, "");
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.steps("loss", 0..2);
    wait_for_points(&server, "a", "loss", 2);
    let ended = beside(&place, "", "echo ran").online(&server).run();
    ended.assert_code(11).assert_says("warning: ").assert_says("recorded by another process");
    assert_eq!(ended.out, "ran\n");
    beside(&place, "", "exit 5").online(&server).run().assert_code(5);
    holder.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..2));
}

#[test]
fn with_damaged_settings_the_command_runs() {
    let place = Place::with_logs();
    for (name, value) in [("WANDB_MODE", "sideways"), ("WANDB_BRIDGE_DRAIN", "banana"), ("WANDB_BASE_URL", "not a url")]
    {
        let ended = beside(&place, "", "echo ran").env("WANDB_API_KEY", KEY).env(name, value).run();
        ended.assert_code(2).assert_says("warning: ").assert_says("nothing is recorded");
        assert_eq!(ended.out, "ran\n", "{name}");
        beside(&place, "", "exit 5").env("WANDB_API_KEY", KEY).env(name, value).run().assert_code(5);
    }
    assert!(place.run_directories().is_empty());

    // A folder that cannot be made.
    fs::write(place.path("wandb"), "in the way").unwrap();
    Writer::new(&place.path("logs/a")).steps("loss", 0..2);
    let ended = beside(&place, "--mode offline", "echo ran").run();
    assert_eq!((ended.out.as_str(), ended.code), ("ran\n", Some(1)), "{}", ended.err);
    ended.assert_says("warning: ");
}

#[test]
fn with_a_wrong_command_line_the_command_does_not_run() {
    let place = Place::with_logs();
    for wrong in ["--pol 3", "--until-idle soon", "--axis epoch", "--run-id {9}{", "--run-name {nonsense}"] {
        let ended = beside(&place, wrong, "echo ran").env("WANDB_MODE", "offline").run();
        assert_eq!((ended.out.as_str(), ended.code), ("", Some(2)), "{wrong}: {}", ended.err);
    }
}

#[test]
fn a_command_that_does_not_exist_is_an_error_of_the_command_line() {
    let place = Place::with_logs();
    for mode in ["offline", "online", "disabled"] {
        let ended = place.bridge(&format!("watch logs --mode {mode} -- ./not-there --flag")).run();
        ended.assert_code(2).assert_says("cannot run `./not-there`");
    }
    assert!(place.run_directories().is_empty());
}

#[test]
fn other_ranks_and_disabled_only_run_the_command() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    Writer::new(&place.path("logs/a")).steps("loss", 0..2);
    let before = place.tree();
    let check = |bridge: Bridge| {
        let ended = bridge.online(&server).run();
        assert_eq!((ended.out.as_str(), ended.code), ("ran\n", Some(4)), "{}", ended.err);
        assert_eq!(place.tree(), before);
    };
    for variable in ["RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"] {
        check(beside(&place, "", "echo ran; exit 4").env(variable, "1"));
    }
    check(beside(&place, "--mode disabled", "echo ran; exit 4"));
    check(beside(&place, "", "echo ran; exit 4").env("WANDB_MODE", "disabled"));
    assert!(server.requests().is_empty());

    beside(&place, "", "echo ran; exit 4").env("RANK", "0").online(&server).run().assert_code(4);
    assert!(Path::new(&place.path("wandb")).exists());
    assert_eq!(server.runs().len(), 1);
}

#[test]
fn the_working_directory_is_watched_when_no_path_is_named() {
    let (server, place) = (FakeServer::start(), Place::new());
    let name = stage(&place, 3);
    let script = format!("mkdir -p out/tb; cat staged/first staged/part* > out/tb/{name}");
    let ended = place.bridge("watch -p p").args(&["--", "sh", "-c", &script]).online(&server).run();
    ended.assert_code(0);
    assert_finished(&server, "out/tb", "loss", &steps(0..3));
    assert_eq!(server.runs().len(), 1);
}
