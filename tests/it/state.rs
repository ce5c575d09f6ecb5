//! What is kept on disk between two starts: where it lies, who may write it, and what happens when it is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use wandb_bridge::state_file::lock::{Lock, Locking};

use crate::support::bridge::{Place, Running, id_of};
use crate::support::events::Writer;
use crate::support::server::FakeServer;

/// Directories of event files, a run each.
fn write_logs(place: &Place, runs: usize, rows: i64) {
    for run in 0..runs {
        let name = format!("events.out.tfevents.17840{run:05}.host");
        let mut writer = Writer::create(&place.path(&format!("logs/run{run:03}")), &name);
        writer.scalars("loss", (0..rows).map(|step| (step, step as f32 + run as f32)));
    }
}

/// Every file below a directory, by its path below it, as text that can be compared. Whoever looks at a run locks it, and
/// `latest-run` leads to what is there already.
fn files_below(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_symlink() || path.extension().is_some_and(|extension| extension == "lock") {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else {
                let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                files.insert(path.strip_prefix(root).unwrap().to_owned(), content);
            }
        }
    }
    files
}

fn state_of(log: &Path) -> PathBuf {
    log.parent().unwrap().join(".wandb-bridge")
}

#[test]
fn two_processes_that_begin_the_same_runs_make_each_once() {
    let place = Place::new();
    write_logs(&place, 24, 50);
    let server = FakeServer::start();
    for round in 0..3 {
        let out = format!("out{round}");
        let start = || place.call(["import", "logs", "--mode", "offline", "-p", "p", "--json", "--dir", &out]).spawn();
        let ended: Vec<_> = [start(), start(), start()].into_iter().map(Running::wait).collect();
        for ended in &ended {
            assert!(matches!(ended.code, Some(0 | 11)), "{}", ended.screen());
        }
        let directories: Vec<PathBuf> = fs::read_dir(place.path(&out).join("wandb"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("offline-run-"))
            .collect();
        assert_eq!(directories.len(), 24, "round {round}: one directory a run");
        place.call(["import", "logs", "--mode", "offline", "-p", "p", "--dir", &out]).run().ok();
        place.call(["sync", "--dir", &out, "--include-synced"]).server(&server).run().ok();
        for run in server.runs() {
            assert_eq!(run.history.len(), 50, "each row once");
        }
        assert_eq!(server.runs().len(), 24);
    }
    server.assert_content();
}

#[test]
fn a_chosen_id_is_one_run_whatever_the_generation() {
    let place = Place::new();
    write_logs(&place, 1, 3);
    let import = |arguments: &[&str]| place.import_offline(["logs"]).args(["-p", "p"]).args(arguments);
    import(&["--run-id", "mine"]).run().ok();
    let before = files_below(&place.path("out"));
    let ended = import(&["--run-id", "mine", "--generation", "1"]).run().code(2);
    assert!(ended.stderr.contains("`mine` is there already, as generation 0"), "{}", ended.stderr);
    assert!(ended.stderr.contains("choose another id"), "{}", ended.stderr);
    assert_eq!(before, files_below(&place.path("out")), "nothing was touched");
    import(&["--run-id", "mine2", "--generation", "1"]).run().ok();
    let ended = import(&["--run-id", "mine2"]).run().code(2);
    assert!(ended.stderr.contains("use `--generation 1`"), "{}", ended.stderr);
    assert_eq!(place.logs().len(), 2);
}

#[test]
fn state_can_lie_elsewhere() {
    let (place, server) = (Place::new(), FakeServer::start());
    write_logs(&place, 2, 20);
    let logs = files_below(&place.path("logs"));
    let with_state = ["--state-dir", "state"];
    place.import_offline(["logs"]).args(["-p", "p"]).args(with_state).run().ok();
    place.sync(&server).args(with_state).run().ok();
    assert_eq!(server.runs().iter().map(|run| run.history.len()).collect::<Vec<_>>(), [20, 20]);
    // Only the official client's layout is beside the logs.
    let strange = |path: &PathBuf| path.to_string_lossy().contains(".wandb-bridge");
    let recorded = files_below(&place.path("out"));
    assert!(!recorded.keys().any(strange), "{:?}", recorded.keys());
    for log in place.logs() {
        let name = log.parent().unwrap().file_name().unwrap();
        assert!(place.path("state").join(name).join("checkpoint.json").is_file());
    }

    // Nothing is new, for anybody.
    let requests = server.requests().len();
    place.sync(&server).args(with_state).arg("--include-synced").run().ok();
    assert_eq!(server.requests().len(), requests, "the acknowledged position is known");
    place.import(&server, ["logs"]).args(with_state).run().ok();
    assert_eq!(recorded, files_below(&place.path("out")));

    // It goes on, by the variable as by the flag.
    Writer::create(&place.path("logs/run000"), "events.out.tfevents.1784900000.host").scalars("loss", [(20, 1.0)]);
    place.import(&server, ["logs"]).env("WANDB_BRIDGE_STATE_DIR", "state").run().ok();
    assert_eq!(server.runs().iter().map(|run| run.history.len()).sum::<usize>(), 41);
    assert_eq!(place.logs().len(), 2);
    let lines = place.call(["inspect", "out/wandb", "--json"]).args(with_state).run().ok().json();
    let logs_seen: Vec<_> = lines.iter().filter(|line| line.get("counts_to").is_some()).collect();
    assert_eq!(logs_seen.len(), 2);
    assert!(logs_seen.iter().all(|log| log["ours"] == true && !log["uploads"].as_array().unwrap().is_empty()));
    // Nothing was written where the event files are.
    let mut now = files_below(&place.path("logs"));
    now.retain(|path, _| !path.to_string_lossy().contains("1784900000"));
    assert_eq!(logs, now);
    server.assert_content();
}

#[test]
fn a_run_that_was_begun_with_its_state_beside_it_goes_on_so() {
    let (place, server) = (Place::new(), FakeServer::start());
    write_logs(&place, 1, 5);
    place.import(&server, ["logs"]).run().ok();
    Writer::create(&place.path("logs/run000"), "events.out.tfevents.1784900000.host").scalars("loss", [(5, 1.0)]);
    place.import(&server, ["logs"]).args(["--state-dir", "state"]).run().ok();
    assert_eq!((place.logs().len(), server.runs()[0].history.len()), (1, 6));
    server.assert_content();
}

/// Directories in which nothing can be written, unless the tests run as a user who may do everything: so it is also
/// looked at that nothing was.
#[cfg(unix)]
#[test]
fn event_files_may_lie_where_nothing_can_be_written() {
    use std::os::unix::fs::PermissionsExt as _;
    let (place, server) = (Place::new(), FakeServer::start());
    write_logs(&place, 2, 5);
    let before = files_below(&place.path("logs"));
    let directories = [place.path("logs/run000"), place.path("logs/run001"), place.path("logs")];
    let allow = |mode: u32| {
        for directory in &directories {
            fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    allow(0o555);
    let ended = place.import(&server, ["logs"]).run();
    let watched = place
        .call(["watch", "logs", "--dir", "out", "-p", "p", "--until-idle", "100ms", "--poll", "20ms"])
        .server(&server)
        .run();
    allow(0o755);
    ended.ok();
    watched.ok();
    assert_eq!(before, files_below(&place.path("logs")));
    assert_eq!(server.runs().len(), 2);
}

/// Replaces the state of the only run by something, imports again, and tells what the server holds then.
#[test]
fn a_damaged_checkpoint_costs_no_row_and_doubles_none() {
    for name in ["empty", "cut", "zeros", "other", "no state"] {
        let (place, server) = (Place::new(), FakeServer::start());
        write_logs(&place, 2, 40);
        place.import(&server, ["logs"]).run().ok();
        let log = place.logs().remove(0);
        let checkpoint = state_of(&log).join("checkpoint.json");
        let whole = fs::read(&checkpoint).unwrap();
        let damaged = match name {
            "empty" => Vec::new(),
            "cut" => whole[..whole.len() / 2].to_vec(),
            "zeros" => vec![0; whole.len()],
            "other" => b"[1, 2".to_vec(),
            _ => b"{\"version\":1}".to_vec(),
        };
        fs::write(&checkpoint, damaged).unwrap();
        // Who only reads it cannot know how far the log counts.
        let ended = place.sync(&server).arg("--include-synced").run();
        assert!(matches!(ended.code, Some(1 | 3)), "{name}: {}", ended.screen());
        assert!(ended.stderr.contains("is damaged") && ended.stderr.contains("import the event files again"), "{name}");
        place.call(["inspect", "out/wandb"]).run();
        // Whoever has the event files makes it anew.
        for run in 0..2 {
            let name = format!("events.out.tfevents.179000000{run}.host");
            let mut writer = Writer::create(&place.path(&format!("logs/run00{run}")), &name);
            writer.now += 10_000.0;
            writer.scalars("loss", [(40, 1.0)]);
        }
        let ended = place.import(&server, ["logs"]).run().ok();
        assert!(ended.stderr.contains("was set aside as `run-"), "{name}: {}", ended.screen());
        assert_eq!(server.runs().iter().map(|run| run.history.len()).collect::<Vec<_>>(), [41, 41], "{name}");
        assert_eq!(place.logs().len(), 2, "{name}");
        server.assert_content();
        let requests = server.operations("UpsertBucket").len();
        place.import(&server, ["logs"]).run().ok();
        assert_eq!(server.operations("UpsertBucket").len(), requests, "{name}: nothing is new");
    }
}

#[test]
fn the_state_of_a_newer_program_is_left_alone_and_other_runs_go_on() {
    let (place, server) = (Place::new(), FakeServer::start());
    write_logs(&place, 3, 5);
    place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
    let log = place.logs().remove(1);
    let checkpoint = state_of(&log).join("checkpoint.json");
    fs::write(&checkpoint, r#"{"version":7,"state":{"anything":[]}}"#).unwrap();
    let before = files_below(log.parent().unwrap());
    for (ended, code) in [(place.sync(&server).run(), 3), (place.import(&server, ["logs"]).run(), 3)] {
        assert!(ended.stderr.contains("version 7"), "{}", ended.screen());
        assert!(ended.stderr.contains("use the version that wrote it"), "{}", ended.screen());
        assert_eq!(ended.code, Some(code), "{}", ended.screen());
    }
    assert_eq!(before, files_below(log.parent().unwrap()));
    assert_eq!(server.runs().len(), 2);
}

#[test]
fn damaged_upload_state_sends_nothing_twice() {
    for text in ["", "{", "\0\0\0\0", "{\"version\":1,\"state\":{}}"] {
        let (place, server) = (Place::new(), FakeServer::start());
        write_logs(&place, 1, 30);
        place.import(&server, ["logs"]).run().ok();
        let state = state_of(&place.log());
        for entry in fs::read_dir(&state).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") && path != state.join("checkpoint.json") {
                fs::write(&path, text).unwrap();
            }
            // What a crash in the middle of a replacement leaves.
            fs::write(path.with_extension("json.tmp"), "{\"version\":1,").unwrap();
        }
        place.sync(&server).arg("--include-synced").run().ok();
        assert_eq!(server.runs()[0].history.len(), 30);
        place.import(&server, ["logs"]).run().ok();
        let there: BTreeSet<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(there.contains("checkpoint.json".as_ref() as &std::ffi::OsStr), "{there:?}");
        assert_eq!(server.runs()[0].history.len(), 30);
        server.assert_content();
    }
}

#[test]
fn what_another_process_cleans_right_now_is_held() {
    let (place, server) = (Place::new(), FakeServer::start());
    write_logs(&place, 1, 5);
    place.import(&server, ["logs"]).run().ok();
    let state = state_of(&place.log());
    // As it stands between the note that says so and the end of the log.
    let id = id_of(&place.log());
    let note = json!({"logs": 1, "under_way": true, "rows": 5, "entity": "", "project": "p", "run_id": id});
    fs::write(state.join("cleaned.json"), json!({"version": 1, "state": note}).to_string()).unwrap();
    let cleaning = Lock::take(&state.join("writer.lock"), Locking::Required).unwrap();
    let ended = place.sync(&server).arg("--include-synced").run().code(11);
    assert!(ended.stderr.contains("held by process "), "{}", ended.stderr);
    drop(cleaning);
    place.sync(&server).arg("--include-synced").run().ok();
    assert!(place.logs().is_empty());
}

#[test]
fn what_was_acknowledged_of_a_log_is_not_believed_of_another_one() {
    let (place, server) = (Place::new(), FakeServer::start());
    let names = ["a", "b"].map(|name| format!("events.out.tfevents.1784016000.{name}"));
    // The same steps in two files, so that the order of the rows depends on when they are read.
    Writer::create(&place.path("logs/run"), &names[0]).scalars("loss", (0..400).map(|step| (step, 1.0)));
    place.import(&server, ["logs"]).run().ok();
    Writer::create(&place.path("logs/run"), &names[1]).scalars("loss", (0..400).map(|step| (step, 2.0)));
    place.import(&server, ["logs"]).run().ok();
    let rows = server.runs()[0].history.clone();
    assert_eq!(rows.len(), 800);

    // Somebody makes the log anew, and keeps the state of the upload: one pass merges the files in another order.
    let log = place.log();
    let kept: Vec<_> = files_below(&state_of(&log))
        .into_iter()
        .filter(|(path, _)| path.to_string_lossy().starts_with("upload-"))
        .collect();
    fs::remove_file(state_of(&log).join("checkpoint.json")).unwrap();
    place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
    for (path, content) in kept {
        fs::write(state_of(&log).join(path), content).unwrap();
    }
    Writer::create(&place.path("logs/run"), &names[0].replace("6000", "7000")).scalars("loss", [(400, 3.0)]);
    place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
    let ended = place.sync(&server).run();
    // Whatever is decided, no row of the server is written over, and none goes there at a wrong place.
    let now = server.runs()[0].history.clone();
    assert_eq!(now[..800], rows[..], "{}", ended.screen());
    assert!(
        now.len() == 800 && ended.code == Some(1) || now.len() == 801 && ended.code == Some(0),
        "{}",
        ended.screen()
    );
    server.assert_content();
}
