//! Seams where a value could get lost or doubled, each found once and closed.

use wandb_bridge::proto::tensorboard::Event;
use wandb_bridge::state_file::lock::{Lock, Locking};

use crate::support::bridge::Place;
use crate::support::events::{Writer, scalar};
use crate::support::server::{FakeServer, Fault, Route};

#[test]
fn a_redirect_to_a_login_page_acknowledges_nothing() {
    let (place, server) = (Place::new(), FakeServer::start());
    Writer::new(&place.path("logs/a")).scalars("loss", [(0, 1.0), (1, 2.0)]);
    // What a POST comes back as after a 302 is a GET, and login pages answer it with 200.
    server.fault(Fault::status(Route::FileStream, 302).header("location", "/__state").always());
    let ended = place.import(&server, [place.path("logs")]).args(["--retries", "0"]).run();
    assert_ne!(ended.code, Some(0), "{}", ended.screen());
    server.behave();
    place.import(&server, [place.path("logs")]).run().ok();
    assert_eq!(server.runs()[0].history.len(), 2);
    server.assert_content();
}

#[test]
fn files_of_one_directory_that_are_named_one_by_one_all_count() {
    let (place, server) = (Place::new(), FakeServer::start());
    let names = ["events.out.tfevents.1784016000.a", "events.out.tfevents.1784016001.a"];
    for (index, name) in names.iter().enumerate() {
        let step = i64::try_from(index).unwrap();
        Writer::create(&place.path("logs/exp"), name).scalars("loss", [(step, 1.0)]);
    }
    let files = names.map(|name| place.path("logs/exp").join(name));
    place.import(&server, files).run().ok();
    assert_eq!(server.runs()[0].history.len(), 2);
    place.import(&server, [place.path("logs")]).run().ok();
    assert_eq!((server.runs().len(), server.runs()[0].history.len()), (1, 2));
}

#[test]
fn one_run_id_for_several_experiments_is_refused() {
    let (place, server) = (Place::new(), FakeServer::start());
    for (name, value) in [("a/s", 1.0), ("b/s", 2.0)] {
        Writer::new(&place.path("logs").join(name)).scalars("loss", [(0, value)]);
    }
    let ended = place.import(&server, [place.path("logs")]).args(["--run-id", "{dir}"]).run().code(2);
    assert!(ended.stderr.contains("--run-id"), "{}", ended.screen());
    // One of them was never looked for, so that nothing of it is missing says nothing.
    let verify = |id: &str| place.call(["verify", "logs", "--dir", "out", "-p", "p", "--run-id", id]).server(&server);
    assert!(verify("{dir}").run().code(2).stderr.contains("logs/b/s` gets no run id of its own"));
    assert!(server.runs().is_empty() && !place.path("out/wandb").exists());
    place.import(&server, [place.path("logs")]).args(["--run-id", "{1}-{dir}"]).run().ok();
    assert_eq!(server.runs().len(), 2);
}

#[test]
fn names_of_directories_name_projects_and_runs() {
    let (place, server) = (Place::new(), FakeServer::start());
    for name in ["two\nlines", " ", "plain", "50%"] {
        Writer::new(&place.path("logs").join(name)).scalars("loss", [(0, 1.0)]);
    }
    let import = |more: &[&str]| place.call(["import", "logs", "--dir", "out"]).args(more).server(&server).run().ok();
    // Where a template gives nothing, the run is called what it would be without it.
    let ended = import(&["-p", "{1}", "--run-name", "{2}", "--json"]);
    let mut runs: Vec<(String, String)> =
        server.runs().into_iter().map(|run| (run.project, run.display_name)).collect();
    runs.sort();
    let expected = [("50-", "50%"), ("plain", "plain"), ("two-lines", "two\nlines"), ("uncategorized", " ")];
    assert_eq!(runs, expected.map(|(project, name)| (project.to_owned(), name.to_owned())), "{}", ended.screen());
    for project in ["..", "a\tb"] {
        let ended = place.call(["import", "logs", "-p", project]).server(&server).run().code(2);
        assert!(ended.stderr.contains("the name of a project cannot"), "{}", ended.screen());
    }
}

#[test]
fn directories_that_were_one_run_stay_one() {
    for chosen in [&[][..], &["--run-id", "r-{path}"]] {
        let (place, server) = (Place::new(), FakeServer::start());
        let import = || place.import(&server, [place.path("logs")]).args(chosen).run().ok();
        let mut train = Writer::create(&place.path("logs/train"), "events.out.tfevents.1784016000.a");
        train.scalars("loss", [(0, 1.0)]);
        Writer::create(&place.path("logs/validation"), "events.out.tfevents.1784016001.a").scalars("loss", [(0, 2.0)]);
        import();
        // Beside another experiment a fresh look would take them for two runs.
        Writer::create(&place.path("logs/ppo"), "events.out.tfevents.1784016002.a").scalars("loss", [(0, 3.0)]);
        Writer::create(&place.path("logs/validation"), "events.out.tfevents.1784016003.a").scalars("loss", [(1, 4.0)]);
        train.scalars("loss", [(1, 5.0)]);
        import();
        let runs = server.runs();
        assert_eq!(runs.len(), 2, "{chosen:?}");
        let both = runs.iter().find(|run| run.history.len() == 4).unwrap();
        assert_eq!((both.column("train/loss").len(), both.column("validation/loss").len()), (2, 2));
        server.assert_content();
    }
}

#[test]
fn an_event_that_makes_two_rows_survives_growth() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("logs/a"));
    // One event with the same tag twice, as TensorFlow 1 can write it.
    let twice = |step: i64| {
        let (mut event, other) = (scalar(step, "loss", 1.0), scalar(step, "loss", 2.0));
        merge(&mut event, other);
        event
    };
    for step in 0..3 {
        writer.append(&[twice(step)]);
        place.import(&server, [place.path("logs")]).run().ok();
    }
    assert_eq!(server.runs()[0].column("loss").len(), 6);
    server.assert_content();
}

/// Puts the values of another event behind those of this one.
fn merge(event: &mut Event, other: Event) {
    use wandb_bridge::proto::tensorboard::event::What;
    let (Some(What::Summary(summary)), Some(What::Summary(more))) = (&mut event.what, other.what) else {
        panic!("scalars")
    };
    summary.value.extend(more.value);
}

#[test]
fn a_log_that_was_never_committed_counts_for_nothing() {
    let (place, server) = (Place::new(), FakeServer::start());
    Writer::new(&place.path("logs/a")).scalars("loss", [(0, 1.0)]);
    place.import_offline([place.path("logs")]).args(["-p", "p"]).run().ok();
    // As a kill before the first commit leaves it.
    let state = place.log().parent().unwrap().join(".wandb-bridge/checkpoint.json");
    std::fs::remove_file(&state).unwrap();
    // Whoever records it may be about to commit.
    let recording = Lock::take(&state.with_file_name("writer.lock"), Locking::Required).unwrap();
    let ended = place.sync(&server).run().code(11);
    assert!(ended.stderr.contains("held by process ") && !ended.stderr.contains("cut short"), "{}", ended.stderr);
    drop(recording);
    let ended = place.sync(&server).run().code(1);
    assert!(ended.stderr.contains("cut short before anything of it counted"), "{}", ended.stderr);
    assert!(server.runs().is_empty());
    place.import(&server, [place.path("logs")]).run().ok();
    assert_eq!((server.runs().len(), server.runs()[0].history.len(), place.logs().len()), (1, 1, 1));
    server.assert_content();
}

#[test]
fn more_files_than_may_be_open_are_all_read() {
    let (place, server) = (Place::new(), FakeServer::start());
    for index in 0..60_i64 {
        let mut writer = Writer::create(&place.path("logs/a"), &format!("events.out.tfevents.17840160{index:02}.a"));
        writer.now += index as f64 * 10.0;
        writer.scalars("loss", [(index, 1.0)]);
    }
    let script = "ulimit -n 48; exec \"$@\"";
    let bridge = env!("CARGO_BIN_EXE_wandb-bridge");
    let status = std::process::Command::new("sh")
        .args(["-c", script, "sh", bridge, "import", "--mode", "offline", "-q", "-p", "p", "--dir"])
        .arg(place.path("out"))
        .arg(place.path("logs"))
        .env_remove("WANDB_MODE")
        .status()
        .unwrap();
    assert!(status.success());
    place.sync(&server).run().ok();
    assert_eq!(server.runs()[0].history.len(), 60);
}
