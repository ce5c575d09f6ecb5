//! Files beside the event files, and the event files themselves: they arrive as files of the run, again when they
//! changed, and not when they did not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use wandb_bridge::proto::tensorboard::{Event, event};

use crate::import::named;
use crate::support::bridge::{Ended, Place};
use crate::support::events::Writer;
use crate::support::official::official_sync;
use crate::support::server::{FakeServer, RunSnapshot, RunStatus};

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// An experiment as Keras leaves it, with a profile and an embedding.
fn experiment(place: &Place) {
    let logs = place.path("logs/exp");
    Writer::new(&logs.join("train")).scalars("loss", (0..3).map(|step| (step, 1.0)));
    Writer::new(&logs.join("validation")).scalars("loss", (0..3).map(|step| (step, 2.0)));
    write(&logs.join("plugins/profile/2026_01_01/trainer-0.xplane.pb"), "xplane");
    write(&logs.join("train/projector_config.pbtxt"), "embeddings { metadata_path: \"words.tsv\" }");
    write(&logs.join("train/words.tsv"), "a\nb\n");
}

const SIDE_FILES: [(&str, &str); 3] = [
    ("tensorboard/profile/2026_01_01/trainer-0.xplane.pb", "xplane"),
    ("tensorboard/projector/train/projector_config.pbtxt", "embeddings { metadata_path: \"words.tsv\" }"),
    ("tensorboard/projector/train/words.tsv", "a\nb\n"),
];

/// The files that are not made of the log itself, with how often they came.
fn files(run: &RunSnapshot) -> Vec<(&str, usize)> {
    let own = ["config.yaml", "wandb-metadata.json", "wandb-summary.json"];
    let files = run.files.iter().filter(|(path, _)| !own.contains(&path.as_str()));
    files.map(|(path, file)| (path.as_str(), file.uploads)).collect()
}

#[track_caller]
fn check_content(run: &RunSnapshot, path: &str, content: &[u8]) {
    assert!(run.files.get(path).is_some_and(|file| file.bytes.as_deref() == Some(content)), "{path}");
}

fn kind(ended: &Ended, kind: &str) -> Value {
    ended.json_summary()["kinds"][kind].clone()
}

fn counts(read: u64) -> Value {
    serde_json::json!({"read": read, "sent": 0, "kept": read, "left_out": 0, "lost": 0})
}

#[test]
fn projectors_and_profiles_are_kept_and_kept_once() {
    let (server, place) = (FakeServer::start(), Place::new());
    experiment(&place);
    let dry = place.import_offline(["logs", "--dry-run", "--json"]).run().ok();
    assert_eq!((kind(&dry, "projector"), kind(&dry, "profile")), (counts(2), counts(1)));
    assert!(!place.path("out").exists());

    let first = place.import(&server, ["logs", "--json"]).run().ok();
    assert_eq!((kind(&first, "projector"), kind(&first, "profile")), (counts(2), counts(1)));
    let run = named(&server, "exp");
    assert_eq!(files(&run), SIDE_FILES.map(|(path, _)| (path, 1)));
    for (path, content) in SIDE_FILES {
        check_content(&run, path, content.as_bytes());
    }
    assert_eq!(run.exit_code, Some(0));

    // Nothing changed: nothing is copied, nothing is sent.
    let log = fs::read(place.log()).unwrap();
    let again = place.import(&server, ["logs", "--json"]).run().ok();
    assert_eq!(kind(&again, "projector"), Value::Null);
    assert_eq!(fs::read(place.log()).unwrap(), log);
    assert_eq!(files(&named(&server, "exp")), SIDE_FILES.map(|(path, _)| (path, 1)));

    write(&place.path("logs/exp/train/words.tsv"), "a\nb\nc\n");
    let changed = place.import(&server, ["logs", "--json"]).run().ok();
    assert_eq!((kind(&changed, "projector"), kind(&changed, "profile")), (counts(1), Value::Null));
    let run = named(&server, "exp");
    let uploads: Vec<usize> = files(&run).into_iter().map(|(_, uploads)| uploads).collect();
    assert_eq!(uploads, [1, 1, 2]);
    check_content(&run, SIDE_FILES[2].0, b"a\nb\nc\n");
    assert_eq!((run.exit_code, run.history.len()), (Some(0), 6));
    server.assert_content();
}

#[cfg(unix)]
#[test]
fn what_a_configuration_names_elsewhere_is_said_to_be_missing() {
    let place = Place::new();
    Writer::new(&place.path("logs/exp")).scalars("loss", [(0, 1.0)]);
    write(&place.path("secret.tsv"), "secret");
    write(&place.path("logs/exp/projector_config.pbtxt"), "embeddings { tensor_path: \"../../secret.tsv\" }");
    let ended = place.import_offline(["logs", "--json"]).run().code(3);
    assert_eq!(kind(&ended, "projector"), counts(1));
    let skipped = &ended.json_summary()["skipped"][0];
    assert_eq!((&skipped["count"], &skipped["loss"]), (&1.into(), &true.into()), "{skipped}");
    let files = place.log().parent().unwrap().join("files");
    assert_eq!(fs::read_dir(files.join("tensorboard/projector")).unwrap().count(), 1);
}

#[test]
fn kinds_choose_among_side_files_too() {
    let place = Place::new();
    experiment(&place);
    let left = |read: u64| serde_json::json!({"read": read, "sent": 0, "kept": 0, "left_out": read, "lost": 0});
    let import = |arguments: &[&str]| {
        let call = place.import_offline(["logs", "--json"]).args(["--generation", arguments[0]]);
        call.args(&arguments[1..]).run().ok()
    };
    let some = import(&["0", "--kinds", "scalars,profile"]);
    assert_eq!((kind(&some, "projector"), kind(&some, "profile")), (left(2), counts(1)));
    let again = import(&["0", "--kinds", "scalars,profile"]);
    assert_eq!((kind(&again, "projector"), kind(&again, "profile")), (Value::Null, Value::Null));
    // Asked for by name they make a run alone; where events are left out for another reason, they do not.
    let alone = import(&["1", "--kinds", "profile"]);
    assert_eq!((kind(&alone, "profile"), alone.json_runs()[0]["state"].clone()), (counts(1), "offline".into()));
    let none = import(&["2", "--since", "2040-01-01"]);
    assert_eq!((kind(&none, "profile"), none.json_runs()[0]["state"].clone()), (Value::Null, "skipped".into()));
}

/// Values that are files alone, behind the last row: the run ends all the same, and its end stays the last record.
#[test]
fn files_behind_the_last_row_do_not_undo_the_end() {
    let (server, place) = (FakeServer::start(), Place::new());
    let mut writer = Writer::new(&place.path("logs/exp"));
    let graph = |text: &'static str| Event { what: Some(event::What::GraphDef(text.into())), ..Event::default() };
    writer.scalars("loss", [(0, 1.0)]).append(&[graph("one")]);
    place.import(&server, ["logs"]).run().ok();
    assert_eq!(named(&server, "exp").exit_code, Some(0));
    writer.append(&[graph("two")]);
    place.import(&server, ["logs"]).run().ok();
    let run = named(&server, "exp");
    assert_eq!((run.exit_code, files(&run).len(), run.history.len()), (Some(0), 2, 1));
    assert!(files(&run).iter().all(|(path, uploads)| path.starts_with("tensorboard/graphs/") && *uploads == 1));
    server.assert_content();
}

#[test]
fn event_files_are_files_of_the_run_when_that_was_asked_for() {
    const TRAIN: &str = "train/events.out.tfevents.1784016000.trainer-0.4242.0";
    const VALIDATION: &str = "validation/events.out.tfevents.1784016000.trainer-0.4242.0";
    let (server, place) = (FakeServer::start(), Place::new());
    let mut train = Writer::new(&place.path("logs/exp/train"));
    train.scalars("loss", [(0, 1.0)]);
    Writer::new(&place.path("logs/exp/validation")).scalars("loss", [(0, 2.0)]);
    place.import(&server, ["logs"]).run().ok();
    assert_eq!(files(&named(&server, "exp")), []);

    place.import(&server, ["logs"]).env("WANDB_BRIDGE_SAVE_EVENTS", "1").run().ok();
    assert_eq!(files(&named(&server, "exp")), [(TRAIN, 1), (VALIDATION, 1)]);
    place.import(&server, ["logs", "--save-events"]).run().ok();
    assert_eq!(files(&named(&server, "exp")), [(TRAIN, 1), (VALIDATION, 1)]);

    // What grew is sent again, also when nobody asks anew.
    train.scalars("loss", [(1, 1.0)]);
    place.import(&server, ["logs"]).run().ok();
    let run = named(&server, "exp");
    assert_eq!(files(&run), [(TRAIN, 2), (VALIDATION, 1)]);
    check_content(&run, TRAIN, &fs::read(train.path()).unwrap());
    assert_eq!((run.exit_code, run.history.len()), (Some(0), 3));
    #[cfg(unix)]
    assert!(place.log().with_file_name("files").join(TRAIN).is_symlink(), "the disk holds them once");
    server.assert_content();
}

/// The command writes more after the first look; what it leaves is there when it has ended.
#[cfg(unix)]
#[test]
fn a_watch_brings_what_was_there_last() {
    let (server, place) = (FakeServer::start(), Place::new());
    let mut writer = Writer::new(&place.path("whole"));
    writer.scalars("loss", [(0, 1.0)]);
    let first = fs::read(writer.path()).unwrap();
    writer.scalars("loss", (1..100).map(|step| (step, 0.5)));
    let whole = fs::read(writer.path()).unwrap();
    fs::write(place.path("more"), &whole[first.len()..]).unwrap();
    let name = writer.path().file_name().unwrap().to_str().unwrap();
    let log = place.path("logs/exp").join(name);
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    fs::write(&log, &first).unwrap();
    write(&place.path("logs/exp/projector_config.pbtxt"), "");
    let command = format!(
        "while [ ! -e out/wandb/latest-run/files/{name} ]; do /bin/sleep 0.02; done
         /bin/cat more >> logs/exp/{name}; printf x > logs/exp/projector_config.pbtxt"
    );
    let watch = place.call(["watch", "logs", "--dir", "out", "-p", "p", "--poll", "50ms", "--stale-after", "10000h"]);
    watch.server(&server).args(["--save-events", "--", "/bin/sh", "-c", &command]).run().ok();
    let run = named(&server, "exp");
    check_content(&run, name, &whole);
    check_content(&run, "tensorboard/projector/projector_config.pbtxt", b"x");
    assert!(run.files[name].uploads <= 2, "{:?}", files(&run));
    assert_eq!(run.history.len(), 100);
    server.assert_content();
}

/// Takes as long as the time between two uploads of a file that grows.
#[test]
fn event_files_are_sent_again_while_they_grow() {
    const LIMIT: Duration = Duration::from_secs(120);
    let (server, place) = (FakeServer::start(), Place::new());
    let mut writer = Writer::new(&place.path("logs/exp"));
    writer.scalars("loss", [(0, 1.0)]);
    let name = writer.path().file_name().unwrap().to_str().unwrap().to_owned();
    let watch = place.call(["watch", "logs", "--dir", "out", "-p", "p", "--poll", "50ms", "--stale-after", "10000h"]);
    let mut watch = watch.server(&server).arg("--save-events").spawn();
    let holds = |whole: Vec<u8>| {
        server.wait_until(LIMIT, |world| {
            let mut files = world.runs.values().filter_map(|run| run.files.get(&name));
            files.any(|file| file.bytes.as_deref() == Some(whole.as_slice()))
        });
    };
    holds(fs::read(writer.path()).unwrap());
    writer.scalars("loss", (1..4).map(|step| (step, 1.0)));
    holds(fs::read(writer.path()).unwrap());
    let run = named(&server, "exp");
    assert_eq!((run.status, run.history.len(), run.files[&name].uploads), (RunStatus::Running, 4, 2));
    assert!(watch.is_running());
}

#[test]
fn the_official_client_takes_these_files_too() {
    let (server, place) = (FakeServer::start(), Place::new());
    experiment(&place);
    place.import_offline(["logs", "--save-events"]).run().ok();
    official_sync(&place.log(), &server);
    let run = named(&server, "exp");
    for (path, content) in SIDE_FILES {
        check_content(&run, path, content.as_bytes());
    }
    assert_eq!(run.files.keys().filter(|path| path.contains("tfevents")).count(), 2);
}
