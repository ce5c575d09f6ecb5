//! What is said before anything is done is what is done: `inspect` and `--dry-run` against the imports that follow.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::assert_screen;
use crate::support::bridge::{Ended, Place, fixture_path};
use crate::support::events::Writer;
use crate::support::server::FakeServer;

/// All folders of fixtures.
fn folders() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(fixture_path(""))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        // These are logs, not event files.
        .filter(|name| name != "wandb_clients")
        .collect();
    names.sort();
    names
}

/// All files below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // `latest-run` leads to whichever run was made last, which is there already.
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// What must be equal beforehand and afterwards.
fn counts(object: &Value) -> Vec<(String, Value)> {
    let fields = [
        "run_id",
        "name",
        "group",
        "rows",
        "events",
        "kinds",
        "run_files",
        "run_file_bytes",
        "log_bytes",
        "skipped",
        "bytes",
        "exit_code",
    ];
    let mut counts: Vec<_> =
        fields.iter().filter_map(|field| Some(((*field).to_owned(), object.get(field)?.clone()))).collect();
    for (_, value) in counts.iter_mut().filter(|(field, _)| field == "skipped" && object["type"] == "summary") {
        // Which of several runs comes first is chance.
        for skipped in value.as_array_mut().unwrap() {
            skipped["first"] = Value::Null;
        }
    }
    counts
}

#[track_caller]
fn assert_same_counts(folder: &str, dry: &Ended, real: &Ended) {
    let of = |ended: &Ended| ended.json().iter().map(counts).collect::<Vec<_>>();
    let (mut dry_runs, mut real_runs) = (of(dry), of(real));
    // Runs end in any order; the summary is the last line of both.
    dry_runs.sort_by_key(|run| format!("{run:?}"));
    real_runs.sort_by_key(|run| format!("{run:?}"));
    for (dry, real) in dry_runs.iter().zip(&real_runs) {
        assert_eq!(dry, real, "{folder}");
    }
    assert_eq!(dry_runs.len(), real_runs.len(), "{folder}");
    assert_eq!(dry.code, real.code, "{folder}");
}

#[test]
fn a_dry_run_counts_what_the_import_does() {
    for folder in folders() {
        let place = Place::new();
        let logs = place.fixture(&folder, "logs");
        let dry = || place.import_offline(["logs"]).args(["--dry-run", "--json"]).run();
        let real = || place.import_offline(["logs"]).arg("--json").run();
        // At first only the beginning of each file is there.
        let event_files: Vec<(PathBuf, Vec<u8>)> = files_below(&logs)
            .into_iter()
            .filter(|path| path.to_string_lossy().contains("tfevents"))
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        for (path, bytes) in &event_files {
            fs::write(path, &bytes[..bytes.len() * 3 / 5]).unwrap();
        }
        let planned = dry();
        assert!(!place.path("out").exists(), "{folder}: something was written");
        assert_same_counts(&format!("the beginning of {folder}"), &planned, &real());
        for (path, bytes) in &event_files {
            fs::write(path, bytes).unwrap();
        }
        let before: Vec<(PathBuf, Vec<u8>)> =
            files_below(&place.path("out")).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        let planned = dry();
        let after: Vec<(PathBuf, Vec<u8>)> =
            files_below(&place.path("out")).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        assert!(before == after, "{folder}: something was changed");
        assert_same_counts(&format!("the rest of {folder}"), &planned, &real());
        assert_same_counts(&format!("{folder} once more"), &dry(), &real());
    }
}

#[test]
fn inspect_counts_what_the_import_does() {
    for folder in folders() {
        let place = Place::new();
        place.fixture(&folder, "logs");
        let inspected = place.call(["inspect", "logs", "--json", "--dir", "out"]).run();
        let imported = place.import_offline(["logs"]).arg("--json").run();
        let (seen, made) = (inspected.json_runs(), imported.json_runs());
        assert_eq!(seen.len(), made.len(), "{folder}");
        for (seen, made) in seen.iter().zip(&made) {
            for field in ["run_id", "name", "rows", "run_files", "run_file_bytes", "skipped"] {
                assert_eq!(seen[field], made[field], "{folder}: `{field}` of {}", made["name"]);
            }
            for (kind, count) in made["kinds"].as_object().unwrap() {
                for (fate, number) in count.as_object().unwrap() {
                    assert_eq!(seen["kinds"][kind][fate], *number, "{folder}: {fate} {kind} of {}", made["name"]);
                }
            }
            let log = place.call(["inspect", "--json"]).arg(made["dir"].as_str().unwrap()).run().json().remove(0);
            let mut keys: Vec<&str> =
                log["keys"].as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap()).collect();
            let tags = seen["tags"].as_array().unwrap();
            let axes: Vec<&str> = tags.iter().map(|tag| tag["axis"].as_str().unwrap()).collect();
            keys.retain(|key| !axes.contains(key));
            for key in keys {
                // The parts of a body have keys of their own, the body has another.
                let known = tags.iter().any(|tag| tag["key"] == key || tag["kind"] == "mesh");
                assert!(known, "{folder}: `{key}` is not in {tags:?}");
            }
            assert_eq!(log["rows"], made["rows"], "{folder}");
        }
        assert_eq!(inspected.code, imported.code, "{folder}");
        // What is recorded now is known by its id and place.
        for (again, made) in
            place.call(["inspect", "logs", "--json", "--dir", "out"]).run().json_runs().iter().zip(&made)
        {
            assert_eq!((&again["dir"], &again["rows_recorded"]), (&made["dir"], &made["rows"]), "{folder}");
        }
    }
}

#[test]
fn estimates_are_near_what_it_takes() {
    for folder in ["showcase", "torch", "keras", "every_kind"] {
        let (place, server) = (Place::new(), FakeServer::start());
        place.fixture(folder, "logs");
        let summary = place.call(["inspect", "logs", "--json"]).run().json_summary();
        let imported = place.import(&server, ["logs"]).arg("--json").run().json_summary();
        let runs = server.runs();
        let lines: usize = runs.iter().flat_map(|run| &run.history).map(String::len).sum();
        let files: u64 =
            server.requests().iter().filter(|request| request.method == "PUT").map(|r| r.bytes as u64).sum();
        let disk: u64 = files_below(&place.path("out"))
            .iter()
            .filter(|path| !path.to_string_lossy().contains(".wandb-bridge"))
            .map(|path| path.metadata().unwrap().len())
            .sum();
        for (what, is) in [
            ("log_bytes", imported["log_bytes"].as_u64().unwrap()),
            ("disk_bytes", disk),
            ("upload_bytes", lines as u64 + files),
            ("requests", server.requests().len() as u64),
        ] {
            let estimate = summary["estimate"][what].as_u64().unwrap();
            let near = estimate * 10 >= is * 7 && estimate * 10 <= is * 13;
            assert!(near, "{folder}: {what} was estimated as {estimate}, and is {is}");
        }
    }
}

#[test]
fn damage_is_said_again_as_long_as_it_is_there() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.fixture("damaged/torn_middle", "logs");
    let first = place.import(&server, ["logs"]).arg("--json").run().code(3);
    let again = place.import(&server, ["logs"]).arg("--json").run().code(3);
    let skipped = |ended: &Ended| ended.json_runs()[0]["skipped"].clone();
    assert_eq!(skipped(&first), skipped(&again));
    assert_eq!(again.json_summary()["rows"], 0);
    let again = place.import(&server, ["logs"]).run().code(3);
    assert!(again.stderr.contains("1 × damaged record in an earlier pass"), "{}", again.stderr);
    // A file that grows behind its damage is no more damaged than before.
    let file = files_below(&logs).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend_from_slice(&[7; 40]);
    fs::write(&file, bytes).unwrap();
    assert_eq!(skipped(&place.import(&server, ["logs"]).arg("--json").run().code(3)), skipped(&first));
}

#[cfg(unix)]
#[test]
fn nothing_that_can_be_read_is_a_failure() {
    let place = Place::new();
    fs::create_dir(place.path("logs")).unwrap();
    // A link that leads nowhere can be read by nobody, not even by root.
    std::os::unix::fs::symlink("gone", place.path("logs/events.out.tfevents.1784016000.trainer-0.4242.0")).unwrap();
    place.import_offline(["logs"]).run().code(1);
    place.call(["inspect", "logs"]).run().code(1);
}

#[test]
fn plans_for_people() {
    let (place, server) = (Place::new(), FakeServer::start());
    place.fixture("every_kind/torch", "logs");
    assert_screen!("inspect_every_kind", place.call(["inspect", "logs"]).run());
    assert_screen!("import_dry_run", place.import_offline(["logs"]).args(["-p", "p", "--dry-run"]).run());
    let place = Place::new();
    let mut writer = Writer::new(&place.path("logs/exp"));
    writer.scalars("loss", (0..5).map(|step| (step, 0.5)));
    place.import(&server, ["logs"]).run().ok();
    writer.scalars("loss", (5..7).map(|step| (step, f32::NAN)));
    assert_screen!("import_dry_run_of_what_grew", place.import_offline(["logs"]).arg("--dry-run").run());
    assert_screen!(
        "watch_dry_run",
        place.call(["watch", "logs", "--dir", "out", "--dry-run", "--until-idle", "1ms"]).run()
    );
    place.import_offline(["logs"]).run().ok();
    assert_screen!("sync_dry_run_of_what_grew", place.sync(&server).arg("--dry-run").run());
    let lines = place.sync(&server).args(["--dry-run", "--json"]).run().ok().json();
    assert_eq!((&lines[0]["rows"], &lines[0]["rows_acknowledged"]), (&Value::from(2), &Value::from(5)));
    assert_eq!(lines[1]["type"], "summary");
    assert_screen!("inspect_log_of_ours", place.call(["inspect", "out"]).run());
}
