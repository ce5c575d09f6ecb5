//! What was brought to a server passes, whoever brought it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{line, lines, missing, scalars, verify};
use crate::support::bridge::{Place, fixture_path};
use crate::support::official::{copy_tree, end_at_exit, logs_below, official_offline_run_with, official_sync};
use crate::support::python::script;
use crate::support::server::FakeServer;

fn directories(below: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

#[test]
fn every_fixture_passes_after_its_import() {
    let mut runs = 0;
    for directory in directories(&fixture_path("")) {
        if directory.ends_with("wandb_clients") {
            continue;
        }
        let (place, server) = (Place::new(), FakeServer::start());
        let imported = place.import(&server, [&directory]).run().code.unwrap();
        assert!([0, 3].contains(&imported), "{}", directory.display());
        let ended = verify(&place, &server, &[&directory]).run();
        for line in lines(&ended) {
            assert_eq!(missing(&line), [""; 0], "{line:#}");
            assert_eq!(line["state"], "complete", "{line:#}");
            let rows = &line["compared"]["rows"];
            assert_eq!((&rows["here"], &rows["here"]), (&rows["there"], &rows["exact"]), "{line:#}");
            runs += 1;
        }
        assert_eq!(lines(&ended).len(), server.runs().len(), "{}", directory.display());
        // What can be on no server is said again.
        ended.code(imported);
        server.assert_content();
    }
    assert!(runs > 70, "{runs} runs");
}

#[test]
fn logs_of_every_client_pass_after_their_sync() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.fixture("wandb_clients", "clients");
    let clients = directories(&logs);
    assert!(clients.len() >= 4);
    place.call(["sync"]).args(&clients).server(&server).run().ok();
    let ended = place.call(["verify", "--json"]).args(&clients).server(&server).run().ok();
    assert_eq!(lines(&ended).len(), clients.len());
    for line in lines(&ended) {
        assert_eq!((line["state"].as_str(), missing(&line)), (Some("complete"), vec![]), "{line:#}");
        assert_eq!(line["compared"]["rows"]["exact"], 7, "{line:#}");
        assert!(line["compared"]["files"]["exact"].as_u64().unwrap() >= 5, "{line:#}");
    }
    server.assert_content();
}

#[test]
fn what_the_official_client_uploads_passes() {
    let (place, server) = (Place::new(), FakeServer::start());
    // Staged files of artifacts must still be there.
    script("record_variants.py").arg(place.path("runs")).home(&place.path("home")).run().ok();
    let rich = place.path("rich");
    fs::create_dir(&rich).unwrap();
    official_offline_run_with(&rich, &["--table", "--artifact"]);
    for directory in ["runs", "rich"] {
        // What stands behind an exit is lost by the official client, and so is what it cannot keep together.
        let at = place.path(directory).join("wandb");
        logs_below(&at).iter().for_each(|log| end_at_exit(log));
        official_sync(&at, &server);
    }
    let ended =
        place.call(["verify", "--json"]).args([place.path("runs/wandb"), rich.join("wandb")]).server(&server).run();
    assert!(lines(&ended).len() > 10);
    for line in lines(&ended) {
        let expected: &[&str] = match line["run_id"].as_str().unwrap() {
            "summary_below_an_object" => &["summary mine.a.b: missing"],
            _ => &[],
        };
        assert_eq!(missing(&line), expected, "{line:#}");
    }
    ended.code(3);
}

#[test]
fn what_the_official_client_drops_is_missing() {
    let (place, server) = (Place::new(), FakeServer::start());
    place.fixture("wandb_clients/0.16.6", "wandb");
    official_sync(&place.path("wandb"), &server);
    let line = line(&place.call(["verify", "--json", "wandb"]).server(&server).run().code(3));
    let found = missing(&line);
    // All of it stands behind the exit.
    assert!(found.contains(&"summary best.loss: missing".to_owned()), "{found:#?}");
    let what = |it: &String| ["summary ", "events "].iter().any(|what| it.starts_with(what));
    assert!(found.iter().all(what), "{found:#?}");
}

#[test]
fn cleaned_runs_are_verified_by_what_is_kept_of_them() {
    let (place, server) = (Place::new(), FakeServer::start());
    place.fixture("every_kind/torch", "logs");
    let logs = place.path("logs");
    place.import(&server, [&logs]).arg("--clean").run().ok();
    assert_eq!(place.logs(), [""; 0].map(PathBuf::from));
    // By the event files, and by the run directory.
    for path in [&logs, &place.path("out/wandb")] {
        let line = line(&verify(&place, &server, &[path]).run().ok());
        let rows = &line["compared"]["rows"];
        assert_eq!((&rows["there"], &rows["exact"]), (&rows["here"], &0.into()), "{line:#}");
        assert!(
            rows["here"].as_u64().unwrap() > 5 && line["compared"]["summary_keys"].as_u64().unwrap() > 3,
            "{line:#}"
        );
        assert!(line["compared"]["files"]["here"].as_u64().unwrap() > 5, "{line:#}");
    }
    let run = server.runs().pop().unwrap();
    server.lose_history(&run.id, run.history.len() - 2);
    let line = line(&verify(&place, &server, &[&logs]).run().code(3));
    let (all, left) = (run.history.len(), run.history.len() - 2);
    let why = format!("rows 2 rows: {left} of {all} rows are there; these are among those that are only counted");
    assert_eq!(missing(&line), [why]);
}

#[test]
fn logs_of_others_pass_when_they_were_cleaned() {
    let (place, server) = (Place::new(), FakeServer::start());
    place.fixture("wandb_clients/0.19.11", "wandb");
    place.call(["sync", "--clean", "wandb"]).server(&server).run().ok();
    assert_eq!(logs_below(&place.path("wandb")), [""; 0].map(PathBuf::from));
    let line = line(&place.call(["verify", "--json", "wandb"]).server(&server).run().ok());
    assert_eq!((line["compared"]["rows"]["here"].as_u64(), line["state"].as_str()), (Some(7), Some("complete")));
}

#[test]
fn a_cleaned_run_that_grew_passes_too() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = crate::support::events::Writer::new(&place.path("logs/run"));
    writer.scalars("loss", (0..5).map(|step| (step, 1.0)));
    let logs = place.path("logs");
    place.import(&server, [&logs]).arg("--clean").run().ok();
    // The definition of its axis is not in the second log.
    writer.scalars("loss", (5..8).map(|step| (step, 2.0))).scalars("accuracy", [(8, 0.5)]);
    let grown = line(&verify(&place, &server, &[&logs]).run().code(3));
    assert!(missing(&grown)[0].ends_with(": 4 rows not recorded yet"), "{grown:#}");
    place.import(&server, [&logs]).run().ok();
    let rows = line(&verify(&place, &server, &[&logs]).run().ok())["compared"]["rows"].clone();
    assert_eq!((rows["here"].as_u64(), rows["exact"].as_u64()), (Some(9), Some(4)));
}

#[test]
fn runs_in_several_logs_pass_as_one() {
    let (place, server) = (Place::new(), FakeServer::start());
    for what in ["allow", "branches"] {
        script("record_segments.py").arg(place.path("runs")).arg(what).run().ok();
    }
    let wandb = place.path("runs/wandb");
    assert_eq!(logs_below(&wandb).len(), 6);
    place.call(["sync"]).arg(&wandb).server(&server).run().ok();
    let ended = place.call(["verify", "--json"]).arg(&wandb).server(&server).run().ok();
    assert_eq!(lines(&ended).len(), server.runs().len());
    for line in lines(&ended) {
        assert_eq!(missing(&line), [""; 0], "{line:#}");
        assert_eq!(line["compared"]["rows"]["here"], line["compared"]["rows"]["exact"], "{line:#}");
    }
    // Nothing is known of the upload on another machine, and the same is found.
    let copy = place.path("copy");
    copy_tree(&wandb, &copy);
    for log in logs_below(&copy) {
        fs::remove_dir_all(log.parent().unwrap().join(".wandb-bridge")).unwrap();
    }
    let ended = place.call(["verify", "--json"]).arg(&copy).server(&server).run().ok();
    assert_eq!(lines(&ended).len(), server.runs().len());
}

#[test]
fn a_large_run_is_compared_at_both_ends() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 8000);
    place.import(&server, [&logs]).run().ok();
    let line = line(&verify(&place, &server, &[&logs]).run().ok());
    let rows = &line["compared"]["rows"];
    assert_eq!((rows["here"].as_u64(), rows["exact"].as_u64()), (Some(8000), Some(6000)), "{line:#}");
}

#[test]
fn our_logs_pass_after_the_official_sync() {
    let (place, server) = (Place::new(), FakeServer::start());
    place.fixture("every_kind/torch", "logs/kinds");
    let logs = scalars(&place, 30);
    place.import_offline([&logs]).args(["-p", "p"]).run().ok();
    official_sync(&place.path("out/wandb"), &server);
    // Nothing of ours knows of that upload.
    for path in [&logs, &place.path("out/wandb")] {
        let ended = verify(&place, &server, &[path]).run().ok();
        assert_eq!(lines(&ended).len(), 2);
        for line in lines(&ended) {
            assert_eq!((line["state"].as_str(), missing(&line)), (Some("complete"), vec![]), "{line:#}");
            assert_eq!(line["compared"]["rows"]["here"], line["compared"]["rows"]["exact"], "{line:#}");
        }
    }
}

#[test]
fn runs_that_went_elsewhere_are_looked_for_there() {
    for (what, rows) in [("new-id", 5), ("append", 8)] {
        let (place, server) = (Place::new(), FakeServer::start());
        let logs = scalars(&place, 5);
        place.import(&server, [&logs]).run().ok();
        let id = server.runs()[0].id.clone();
        server.edit(&id, |run| run.history = (0..3).map(|step| format!(r#"{{"_step":{step}}}"#)).collect());
        fs::remove_dir_all(place.path("out")).unwrap();
        place.import(&server, [&logs]).args(["--on-conflict", what]).run().ok();
        let line = line(&verify(&place, &server, &[&logs]).run().ok());
        assert_eq!(line["compared"]["rows"]["here"], rows, "{line:#}");
        assert_eq!(line["run_id"].as_str().unwrap() == id, what == "append");
    }
}

#[test]
fn a_run_that_goes_on_passes_as_far_as_it_goes() {
    let (place, server) = (Place::new(), FakeServer::start());
    place.fixture("wandb_clients/0.18.7", "wandb");
    let log = logs_below(&place.path("wandb")).pop().unwrap();
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..whole.len() * 2 / 3]).unwrap();
    place.call(["sync", "wandb"]).server(&server).run().ok();
    let running = line(&place.call(["verify", "--json", "wandb"]).server(&server).run().ok());
    assert_eq!(running["state"], "running");
    // What has come since is not there yet.
    fs::write(&log, whole).unwrap();
    let line = line(&place.call(["verify", "--json", "wandb"]).server(&server).run().code(3));
    let found = missing(&line);
    assert!(found.contains(&"end exit code 3: the run is running there".to_owned()), "{found:#?}");
    assert!(found.iter().any(|it| it.starts_with("rows ")), "{found:#?}");
}

#[test]
fn what_was_attached_is_looked_for() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 3);
    fs::write(place.path("logs/run/model.pt"), "weights").unwrap();
    place.fixture("wandb_clients/0.19.11", "clients");
    let files = logs_below(&place.path("clients"))[0].parent().unwrap().join("files");
    fs::write(files.join("model.pt"), "other weights").unwrap();
    let rule = ["--artifact", "model:weights-{dir}=*.pt"];
    place.import(&server, [&logs]).args(rule).run().ok();
    place.call(["sync", "clients", "-p", "p"]).args(rule).server(&server).run().ok();
    let check = |code: i32| {
        let ended = verify(&place, &server, &[&logs, &place.path("clients")]).run().code(code);
        let mut found: Vec<String> = lines(&ended).iter().flat_map(missing).collect();
        found.sort();
        found
    };
    assert_eq!(check(0), [""; 0]);
    server.edit_artifacts(|artifacts| artifacts.clear());
    let found = check(3);
    let starts = found.iter().filter(|it| it.starts_with("artifact weights-") && it.ends_with(": missing"));
    assert_eq!((starts.count(), found.len()), (2, 2), "{found:#?}");
}

#[test]
fn what_cannot_be_read_is_said() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 3);
    place.import(&server, [&logs]).run().ok();
    let log = place.log();
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..whole.len() - 1]).unwrap();
    for path in [&logs, &log] {
        let line = line(&verify(&place, &server, &[path]).run().code(3));
        assert_eq!(line["state"], "unknown", "{line:#}");
    }
    fs::write(&log, whole).unwrap();
    fs::write(log.parent().unwrap().join(".wandb-bridge/checkpoint.json"), "{").unwrap();
    for path in [&logs, &log] {
        let line = line(&verify(&place, &server, &[path]).run().code(3));
        assert_eq!(line["state"], "unknown", "{line:#}");
    }
    fs::remove_file(log.parent().unwrap().join(".wandb-bridge/checkpoint.json")).unwrap();
    let line = line(&verify(&place, &server, &[&log]).run().code(3));
    assert!(line["error"].as_str().unwrap().ends_with("it names no run"), "{line:#}");
}
