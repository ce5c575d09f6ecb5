//! Artifacts of logs: `sync` brings what the official client brings, once, and says what is not there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::bridge::{Call, Place};
use crate::support::compare::{Compared, same_run_but_for};
use crate::support::official::{copy_tree, end_at_exit, logs_below};
use crate::support::python::{script, wandb};
use crate::support::server::{Artifact, FakeServer, Fault, Gate, Route};

/// Records the run, and returns its directory. Staged files lie below `home/`.
pub(super) fn record(place: &Place) -> PathBuf {
    record_with(place, &[])
}

fn record_with(place: &Place, options: &[&str]) -> PathBuf {
    let (work, home) = (place.path("work"), place.path("staging"));
    fs::create_dir(&work).unwrap();
    script("record_artifacts.py").args(["--many", "12"]).args(options).directory(&work).home(&home).run().ok();
    logs_below(&work).pop().unwrap().parent().unwrap().to_owned()
}

/// `sync` of a copy, from where the run was recorded.
pub(super) fn sync(place: &Place, server: &FakeServer, run: &Path) -> Call {
    place.call(["sync"]).arg(run).server(server).directory(&place.path("work"))
}

/// All that is held of each version, by name and number, but for the server's own ids.
pub(crate) fn held(server: &FakeServer) -> BTreeMap<String, String> {
    let ids: BTreeMap<String, String> = server.look(|world| {
        let name = |artifact: &Artifact| format!("{}:v{}", artifact.name, artifact.version.unwrap());
        world.artifacts.iter().map(|artifact| (hex(&artifact.id), name(artifact))).collect()
    });
    let describe = |artifact: &Artifact| {
        let entry = |(path, entry): (String, Value)| {
            let mut reference = entry["ref"].to_string();
            // Longer ids first: one may be the beginning of another.
            ids.iter().rev().for_each(|(id, name)| reference = reference.replace(id, name));
            format!("{path} {} {} {reference} {}", entry["digest"], entry["size"], entry["extra"])
        };
        let entries: Vec<String> = artifact.entries().into_iter().map(entry).collect();
        let mut aliases = artifact.aliases.clone();
        aliases.sort();
        let metadata: Value =
            artifact.metadata.as_deref().map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
        let words = (&artifact.kind, &artifact.digest, aliases, &artifact.tags, &artifact.description, metadata);
        format!("{words:?} {:?} {:?} {entries:#?}", artifact.ttl_seconds, artifact.run)
    };
    server.look(|world| {
        let name = |artifact: &Artifact| format!("{}:v{}", artifact.name, artifact.version.unwrap());
        world.artifacts.iter().map(|artifact| (name(artifact), describe(artifact))).collect()
    })
}

fn hex(id: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.decode(id).unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_official_client_brings_the_same() {
    let place = Place::new();
    let run = record_with(&place, &["--more"]);
    let (ours, theirs) = (FakeServer::start(), FakeServer::start());
    let copy = place.path("work/wandb/offline-run-20260101_000000-copy");
    end_at_exit(&logs_below(&run)[0]);
    copy_tree(&run, &copy);
    // Ours first: the official client deletes the list of a large manifest when it has read it.
    sync(&place, &ours, &copy).run();
    ours.assert_content();
    // One of the artifacts names its file relative to where it was recorded.
    let log = logs_below(&run).pop().unwrap();
    wandb().args(["sync", "--yes"]).arg(log).directory(&place.path("work")).server(&theirs).run().ok();
    theirs.assert_content();
    assert_eq!(held(&ours), held(&theirs));
    let names: Vec<String> = held(&ours).into_keys().collect();
    let expected = "data:v0 data:v1 immutable:v0 kept:v0 linked:v0 many:v0 run-art1-changing:v0 run-art1-changing:v1 \
        run-art1-changing:v2 run-art1-curve_table:v0 run-art1-final:v0 run-art1-incr-growing:v0 run-art1-incr-growing:v1 \
        run-art1-incr-growing:v2 run-art1-pictures:v0 run-art1-table:v0 shared:v0 source-interop-None:v0 tables:v0 weights:v0";
    assert_eq!(names.join(" "), expected);
    let shared: Vec<String> = ours.artifact("shared").unwrap().entries().into_keys().collect();
    assert_eq!(shared, ["one.txt", "two.txt"]);
    assert_eq!(ours.artifact("kept").unwrap().ttl_seconds, Some(3 * 24 * 3600));
    let (run, other) = (ours.run("art1").unwrap(), theirs.run("art1").unwrap());
    assert_eq!(same_run_but_for(&run, &other, &Compared { console: true, ..Compared::default() }), Ok(()));

    // A second pass asks for none of them.
    let before = ours.operations("CreateArtifact").len();
    sync(&place, &ours, &copy).arg("--include-synced").run();
    assert_eq!(ours.operations("CreateArtifact").len(), before);
}

#[test]
fn they_are_counted_before_and_after() {
    let place = Place::new();
    let (run, server) = (record(&place), FakeServer::start());
    let planned = |there: u64| {
        let lines = sync(&place, &server, &run).args(["--include-synced", "--dry-run", "--json"]).run().json();
        let (plan, summary) = (&lines[0], &lines[1]);
        let all = plan["artifacts"].as_u64().unwrap() + there;
        assert_eq!(plan["artifacts_acknowledged"], there);
        assert_eq!((&summary["artifacts"], &summary["artifacts_acknowledged"]), (&(all - there).into(), &there.into()));
        let log = place.call(["inspect", "--json"]).arg(&run).run().json().remove(0);
        assert_eq!((&log["artifacts"], &log["records"]["artifact"]), (&all.into(), &all.into()));
        assert_eq!(log["uploads"][0]["artifacts"].as_u64().unwrap_or_default(), there);
        all
    };
    let all = planned(0);
    let sent = sync(&place, &server, &run).arg("--json").run().json();
    assert_eq!((&sent[0]["artifacts"], &sent[1]["artifacts"]), (&all.into(), &all.into()));
    assert_eq!(planned(all), all);
    let screen = sync(&place, &server, &run).args(["--dry-run", "-p", "other", "--include-synced"]).run();
    assert!(screen.stdout.contains(&format!("; {all} artifacts to send")), "{}", screen.stdout);
    let screen = place.call(["inspect"]).arg(&run).run();
    assert!(screen.stdout.contains(&format!("  {all} artifacts recorded\n")), "{}", screen.stdout);
    let again = sync(&place, &server, &run).args(["--include-synced", "--json"]).run().json();
    assert_eq!(again[0]["artifacts"], 0);
}

#[test]
fn missing_files_are_named_and_brought_when_they_are_here_again() {
    let place = Place::new();
    let (run, server) = (record(&place), FakeServer::start());
    let staging = place.path("staging/.local/share/wandb/artifacts/staging");
    fs::rename(&staging, place.path("away")).unwrap();
    let partial = sync(&place, &server, &run).run().code(3);
    assert!(partial.stderr.contains("× artifact that could not be uploaded, first: `data`"), "{}", partial.stderr);
    assert!(partial.stderr.contains("not here as recorded"), "{}", partial.stderr);
    fs::rename(place.path("away"), &staging).unwrap();
    sync(&place, &server, &run).args(["--include-synced"]).run();
    server.assert_content();
    let whole = server.look(|world| world.artifacts.iter().filter(|artifact| artifact.version.is_some()).count());
    assert!(whole >= 5, "{whole}");
}

#[test]
fn what_the_server_refused_is_tried_again_by_the_next_sync() {
    let place = Place::new();
    let (run, server) = (record(&place), FakeServer::start());
    let html = Fault::html(Route::graphql("CreateArtifactManifest"), 200);
    for fault in [Fault::graphql_error("CommitArtifact", "no more room"), html] {
        server.fault(fault.always());
        let refused = sync(&place, &server, &run).args(["--retries", "0"]).run().code(3);
        assert!(refused.stderr.contains("× artifact that could not be uploaded, first: `data`"), "{}", refused.stderr);
        server.behave();
    }
    sync(&place, &server, &run).run().ok();
    server.assert_content();
    // What was begun in vain for content that came with another version is left to the server.
    let whole = server.look(|world| world.artifacts.iter().filter(|artifact| artifact.version.is_some()).count());
    assert_eq!(whole, 7);
}

#[test]
fn killed_at_any_request_the_next_sync_makes_them_whole() {
    let place = Place::new();
    let run = record(&place);
    let whole = FakeServer::start();
    let copy = |name: String| {
        let copy = place.path("work/wandb").join(name);
        copy_tree(&run, &copy);
        copy
    };
    sync(&place, &whole, &copy("offline-run-20260101_000000-whole".to_owned())).run();
    let (expected, all) = (held(&whole), whole.requests().len());
    // Every fifth: five is no divisor of the steps of an artifact, so all kinds of requests come up.
    for at in (0..all).step_by(5) {
        let (server, copy) = (FakeServer::start(), copy(format!("offline-run-20260101_000000-{at}")));
        server.fault(Fault::stall(Route::Any, &Gate::default()).skip(at));
        let running = sync(&place, &server, &copy).spawn();
        server.wait_until(std::time::Duration::from_secs(60), |world| world.requests.len() > at);
        drop(running);
        server.behave();
        sync(&place, &server, &copy).run();
        server.assert_content();
        assert_eq!(held(&server), expected, "killed at request {at}");
    }
}
