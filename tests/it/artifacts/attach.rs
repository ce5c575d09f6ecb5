//! `--artifact`: files beside a run become versions of artifacts of that run, recorded or not, once.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::write;
use crate::import::{changes, named};
use crate::support::bridge::{Call, Place};
use crate::support::events::Writer;
use crate::support::official::{official_offline_run, official_sync};
use crate::support::server::{Artifact, FakeServer, Fault, Gate, Route};

/// Two runs: `a` with checkpoints, what is hidden, another run below it, and a link out; `b` with a report.
fn logs(place: &Place) {
    for run in ["a", "b", "a/ckpt/probe"] {
        Writer::new(&place.path("logs").join(run)).scalars("loss", [(0, 1.0), (1, 0.5)]);
    }
    let a = place.path("logs/a");
    write(&a, "ckpt/1.pt", b"one");
    write(&a, "ckpt/deep/2.pt", b"two");
    write(&a, "ckpt/.tmp.pt", b"hidden");
    write(&a, "ckpt/probe/3.pt", b"of the run below");
    write(&a, "wandb/4.pt", b"not ours to take");
    write(&place.path("logs/b"), "report.txt", b"fine");
}

const MODEL: &str = "model:{path}-model=ckpt/**/*.pt";

fn paths(artifact: &Artifact) -> Vec<String> {
    artifact.entries().into_keys().collect()
}

fn versions(server: &FakeServer) -> Vec<(String, Option<usize>)> {
    server.look(|world| world.artifacts.iter().map(|artifact| (artifact.name.clone(), artifact.version)).collect())
}

/// The artifact of run `a`, as it is to be.
#[track_caller]
fn check(server: &FakeServer) {
    server.assert_content();
    let artifact = server.artifact("a-model").unwrap();
    assert_eq!(paths(&artifact), ["ckpt/1.pt", "ckpt/deep/2.pt"]);
    assert_eq!((artifact.kind.as_str(), &artifact.aliases), ("model", &vec!["latest".to_owned()]));
    let run = server.runs().into_iter().find(|run| run.display_name == "a").unwrap();
    assert_eq!((artifact.run.as_deref(), artifact.project), (Some(run.id.as_str()), run.project));
    assert_eq!(artifact.version, Some(0));
}

#[test]
fn import_attaches_what_lies_in_the_directory_of_each_run() {
    let (place, server) = (Place::new(), FakeServer::start());
    logs(&place);
    let import = || place.import(&server, ["logs"]).args(["--artifact", MODEL]);
    let dry = import().args(["--dry-run"]).run().ok();
    assert!(dry.stdout.contains("  artifact `a-model` (model): 2 files, 6 B\n"), "{}", dry.stdout);
    let ended = import().arg("--json").run().ok();
    check(&server);
    assert_eq!(versions(&server).len(), 1);
    let expected = json!([{ "type": "model", "name": "a-model", "files": 2, "bytes": 6, "known": false }]);
    assert_eq!(ended.json_runs()[0]["attached"], expected);
    assert_eq!(ended.json_runs()[1]["attached"], Value::Null);
    assert!(ended.stderr.contains("finds no file of 2 of 3 runs"), "{}", ended.stderr);

    // Nothing new: nothing is sent.
    let before = changes(&server).len();
    let again = import().arg("--json").run().ok();
    assert_eq!(again.json_runs()[0]["attached"][0]["known"], true);
    assert_eq!(changes(&server).len(), before);
    // The same content, written anew: no version.
    write(&place.path("logs/a"), "ckpt/1.pt", b"one");
    import().run().ok();
    assert_eq!(versions(&server).len(), 1);
    // Another content: the next version, and the run is finished again.
    write(&place.path("logs/a"), "ckpt/1.pt", b"another");
    import().run().ok();
    let expected = [("a-model".to_owned(), Some(0)), ("a-model".to_owned(), Some(1))];
    assert_eq!(versions(&server), expected);
    assert_eq!(named(&server, "a").status, crate::support::server::RunStatus::Finished);
    server.assert_content();
}

#[test]
fn a_rule_that_finds_nothing_and_a_link_that_leads_out_are_losses() {
    let (place, server) = (Place::new(), FakeServer::start());
    logs(&place);
    let rule = "model:x=nothing/*";
    let ended = place.import(&server, ["logs"]).args(["--artifact", rule]).run().code(3);
    let words = "× `--artifact` that finds no file of any run, first: `model:x=nothing/*`";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
    let found = place.sync(&server).args(["--include-synced", "--artifact", rule]).run().code(3);
    assert!(found.stderr.contains(words), "{}", found.stderr);
    place.sync(&server).args(["--include-synced", "--dry-run", "--artifact", rule]).run().code(3);

    write(&place.path("elsewhere"), "secret", b"secret");
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("logs/b/out")).unwrap();
    let rule = ["--artifact", "data:b={report.txt,out/*}"];
    let ended = place.import(&server, ["logs"]).args(rule).run().code(3);
    assert!(ended.stderr.contains("logs/b/out`: links that lead out of the directory"), "{}", ended.stderr);
    assert_eq!(paths(&server.artifact("b").unwrap()), ["report.txt"]);
    let synced = place.sync(&server).arg("--include-synced").args(rule).run().code(3);
    assert!(synced.stderr.contains("links that lead out of the directory"), "{}", synced.stderr);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let (place, server) = (Place::new(), FakeServer::start());
    logs(&place);
    let check = |command: &str, extra: &[&str], words: &str| {
        let ended = place.call([command, "logs", "-p", "p"]).args(extra).server(&server).run().code(2);
        assert!(ended.stderr.contains(words), "{extra:?}: {}", ended.stderr);
    };
    check("import", &["--artifact", "model"], "TYPE:NAME=GLOB");
    check("import", &["--artifact", "model:{what}=*"], "none of `{path}`");
    check("import", &["--artifact", "model:x=../*"], "leads out of it");
    check("import", &["--artifact", "job:x=*"], "`job` is W&B's own");
    check("sync", &["--artifact", "job:x=*"], "`job` is W&B's own");
    check("sync", &["--artifact", MODEL, "--live"], "cannot be used with");
    check("watch", &["--artifact", MODEL], "unexpected argument '--artifact'");
    assert_eq!(server.requests().len(), 0);
    // A template that says nothing of a run is about that run alone.
    let ended = place.import(&server, ["logs"]).args(["--artifact", "model:{3}=**/*.pt"]).run().code(3);
    assert!(ended.stderr.contains("the name of the artifact cannot be used"), "{}", ended.stderr);
    assert_eq!(paths(&server.artifact("probe").unwrap()), ["3.pt"]);
}

#[test]
fn recorded_offline_either_client_brings_it_later() {
    let place = Place::new();
    logs(&place);
    place.import_offline(["logs"]).args(["-p", "p", "--artifact", MODEL]).run().ok();
    let (ours, theirs) = (FakeServer::start(), FakeServer::start());
    place.sync(&ours).run().ok();
    check(&ours);
    official_sync(&place.path("out/wandb"), &theirs);
    check(&theirs);
    assert_eq!(ours.artifact("a-model").unwrap().digest, theirs.artifact("a-model").unwrap().digest);
    // Ours after theirs: it is there.
    place.sync(&theirs).arg("--include-synced").run().ok();
    check(&theirs);

    // Files that changed since are not what was recorded.
    let changed = Place::new();
    logs(&changed);
    changed.import_offline(["logs"]).args(["-p", "p", "--artifact", MODEL]).run().ok();
    write(&changed.path("logs/a"), "ckpt/1.pt", b"overwritten");
    let server = FakeServer::start();
    let ended = changed.sync(&server).run().code(3);
    assert!(ended.stderr.contains("is another one by now"), "{}", ended.stderr);
}

#[test]
fn joined_runs_keep_the_files_of_their_parts_apart() {
    let (place, server) = (Place::new(), FakeServer::start());
    for job in ["job1", "job2"] {
        Writer::new(&place.path("logs/exp").join(job)).scalars("loss", [(0, 1.0)]);
        write(&place.path("logs/exp").join(job), "last.pt", job.as_bytes());
    }
    let call = |extra: &[&str]| place.import(&server, ["logs"]).args(["--join", "{1}"]).args(extra).run().ok();
    call(&["--artifact", "model:{path}=*.pt"]);
    assert_eq!(paths(&server.artifact("exp").unwrap()), ["job1/last.pt", "job2/last.pt"]);
    place.sync(&server).args(["--include-synced", "--artifact", "model:{path}=*.pt"]).run().ok();
    assert_eq!(versions(&server), [("exp".to_owned(), Some(0))]);
}

/// `sync` with an artifact of each run.
fn sync(place: &Place, server: &FakeServer, path: &Path) -> Call {
    place.call(["sync"]).arg(path).args(["--artifact", "notes:{path}={notes,media/**/*.html}"]).server(server)
}

#[test]
fn sync_attaches_files_of_other_clients_runs_and_of_the_experiments_of_ours() {
    let (place, server) = (Place::new(), FakeServer::start());
    logs(&place);
    place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
    let call = || place.sync(&server).args(["--artifact", MODEL]);
    let dry = call().arg("--dry-run").run().ok();
    assert!(dry.stdout.contains("  artifact `a-model` (model): 2 files, 6 B\n"), "{}", dry.stdout);
    let ended = call().arg("--json").run().ok();
    check(&server);
    assert_eq!(ended.json_runs()[0]["attached"][0]["name"], "a-model");
    let before = changes(&server).len();
    call().arg("--include-synced").run().ok();
    assert_eq!(changes(&server).len(), before);
    let dry = call().args(["--dry-run", "--include-synced"]).run().ok();
    assert!(dry.stdout.contains("6 B; known already"), "{}", dry.stdout);
    // All of it is there: a rule that is for runs which are left out is for something.
    for rule in [MODEL, "notes:b=report.txt"] {
        let again = |extra: &[&str]| place.sync(&server).args(["--artifact", rule]).args(extra).run();
        again(&[]).ok();
        again(&["--dry-run"]).ok();
    }
    place.sync(&server).args(["--artifact", "model:x=nothing/*"]).run().code(3);
    // What was attached so is known to the server when an import records it.
    place.import(&server, ["logs"]).args(["--artifact", MODEL]).run().ok();
    assert_eq!(versions(&server).len(), 1);

    let foreign = place.path("foreign");
    fs::create_dir(&foreign).unwrap();
    let log = official_offline_run(&foreign);
    let server = FakeServer::start();
    sync(&place, &server, &log).run().ok();
    server.assert_content();
    let artifact = server.artifact("First try").unwrap();
    assert_eq!(artifact.run.as_deref(), Some("offl1"));
    let names = paths(&artifact);
    assert!(names.len() == 2 && names[0].starts_with("media/html/page_"), "{names:?}");
    assert_eq!(names[1], "notes/a note.txt");
}

#[test]
fn killed_at_any_request_the_next_sync_attaches_it_once() {
    let place = Place::new();
    logs(&place);
    fs::remove_dir_all(place.path("logs/b")).unwrap();
    fs::remove_dir_all(place.path("logs/a/ckpt/probe")).unwrap();
    let recorded = |out: &str| {
        let _ = fs::remove_dir_all(place.path("out"));
        place.import_offline(["logs/a"]).args(["-p", "p"]).run().ok();
        fs::rename(place.path("out"), place.path(out)).unwrap();
        place.path(out)
    };
    let call = |server: &FakeServer, out: &Path| {
        place.call(["sync", "--dir"]).arg(out).args(["--artifact", "model:a-model=ckpt/**/*.pt"]).server(server)
    };
    let whole = FakeServer::start();
    call(&whole, &recorded("whole")).run().ok();
    check(&whole);
    let all = whole.requests().len();
    assert!(all > 12, "{all}");
    for at in 0..all {
        let (server, out) = (FakeServer::start(), recorded(&format!("out-{at}")));
        server.fault(Fault::stall(Route::Any, &Gate::default()).skip(at));
        let running = call(&server, &out).spawn();
        server.wait_until(std::time::Duration::from_secs(60), |world| world.requests.len() > at);
        drop(running);
        server.behave();
        call(&server, &out).run().ok();
        check(&server);
        let run = |server: &FakeServer| {
            let run = named(server, "a");
            (run.history, run.status)
        };
        assert_eq!(run(&server), run(&whole), "killed at request {at}");
    }
}
