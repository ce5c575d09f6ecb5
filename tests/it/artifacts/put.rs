//! `artifact put` in fair weather: what goes up, what does not, and how it is told.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::{check_whole, model, put, steps, write};
use crate::support::bridge::Place;
use crate::support::official::official_online_run;
use crate::support::server::{FakeServer, Fault, Gate, Route, RunStatus};

#[test]
fn a_directory_becomes_a_version_and_again_nothing() {
    let (place, server) = (Place::new(), FakeServer::start());
    let root = model(&place);
    let first = put(&place, &server, &root)
        .args(["-a", "latest", "-a", "best", "-d", "what it is", "--tag", "two words", "--ttl", "2d"])
        .args(["--metadata", "lr=0.1", "--metadata", "data.name=x"])
        .run()
        .ok();
    assert_eq!(first.stdout, format!("model:v0\n{}/tester/p/artifacts/model/model/v0\n", server.url()));
    let artifact = check_whole(&server);
    assert_eq!((artifact.kind.as_str(), artifact.description.as_deref()), ("model", Some("what it is")));
    assert_eq!(artifact.metadata.as_deref(), Some(r#"{"data":{"name":"x"},"lr":0.1}"#));
    assert_eq!((artifact.ttl_seconds, artifact.tags.as_slice()), (Some(172_800), ["two words".to_owned()].as_slice()));
    assert_eq!(artifact.aliases, ["best", "latest"]);
    assert_eq!(artifact.files["config/deep/er.json"].text(), "{}");
    // The twins are one content, sent once.
    let twins = ["twin.bin", "weights.bin"].map(|name| artifact.files.get(name).map_or(0, |file| file.uploads));
    assert_eq!(twins.iter().sum::<usize>(), 1);
    assert!(!artifact.manifest.as_deref().unwrap().contains("local_path"));
    let run = server.run(artifact.run.as_deref().unwrap()).unwrap();
    assert_eq!((run.status, run.job_type.as_deref()), (RunStatus::Finished, Some("cli_put")));

    let before = server.requests().len();
    let again = put(&place, &server, &root).arg("--json").run().ok();
    let report = &again.json()[0];
    assert_eq!(
        (&report["was_there"], &report["version"], &report["files_sent"]),
        (&json!(true), &json!("v0"), &json!(0))
    );
    assert_eq!(report["path"], json!("tester/p/model:v0"));
    assert_eq!(steps(&server.requests()[before..]), ["CreateArtifact", "ArtifactByID"]);
    check_whole(&server);
    assert_eq!(server.runs().len(), 1, "the second call found the run of the first");

    // A change is a new version, for which only that is sent.
    write(&root, "config/deep/er.json", b"{\"a\":1}");
    let changed = put(&place, &server, &root).arg("--json").run().ok();
    let report = &changed.json()[0];
    assert_eq!((&report["version"], &report["files"], &report["files_sent"]), (&json!("v1"), &json!(6), &json!(1)));
    server.assert_content();
    assert_eq!(server.artifact("model").unwrap().aliases, ["latest"]);
    assert_eq!(server.look(|world| world.artifacts[0].aliases.clone()), ["best"]);
}

#[test]
fn a_version_belongs_to_the_run_that_was_named_and_leaves_it_as_it_is() {
    let (place, server) = (Place::new(), FakeServer::start());
    official_online_run(&place.path("home"), &server, &["--rows", "1", "--project", "p"]);
    let before = server.run("onl1").unwrap();
    write(&place.path("."), "report.html", b"<b>good</b>");
    let named = ["artifact", "put", "report", "report.html", "-p", "p", "--run", "onl1"];
    place.call(named).server(&server).run().ok();
    server.assert_content();
    assert_eq!(server.artifact("report").unwrap().run.as_deref(), Some("onl1"));
    let run = server.run("onl1").unwrap();
    assert_eq!((run.status, run.upserts, run.stream_requests), (before.status, before.upserts, before.stream_requests));
    assert_eq!(server.runs().len(), 1);

    let other = ["artifact", "put", "report", "report.html", "-p", "p", "--run", "nobody"];
    let refused = place.call(other).server(&server).run().code(2);
    assert!(refused.stderr.contains("there is no run `tester/p/nobody`"), "{}", refused.stderr);
}

#[test]
fn it_returns_when_the_version_is_committed() {
    let (place, server) = (Place::new(), FakeServer::builder());
    let server = crate::support::server::Options { commit_lag: 2, ..server }.start();
    let root = model(&place);
    put(&place, &server, &root).run().ok();
    check_whole(&server);
    assert_eq!(server.operations("ArtifactByID").len(), 3);
}

#[test]
fn links_out_of_the_directory_are_counted_and_said() {
    let (place, server) = (Place::new(), FakeServer::start());
    let root = model(&place);
    write(&place.path("."), "secret", b"secret");
    symlink("../secret", root.join("link-a")).unwrap();
    symlink("../../../secret", root.join("config/deep/link-b")).unwrap();
    let partial = put(&place, &server, &root).arg("--json").run().code(3);
    assert!(partial.stderr.contains("links that lead out of the directory, 2 in all"), "{}", partial.stderr);
    let report = &partial.json()[0];
    assert_eq!(report["left_out"].as_array().unwrap().len(), 2);
    assert_eq!(report["exit_code"], json!(3));
    check_whole(&server);
    assert!(!server.dump().contains("secret"));
    // Whoever knows of them says so.
    put(&place, &server, &root).args(["--exclude", "*link-?"]).run().ok();
    check_whole(&server);
}

#[test]
fn a_file_that_changes_meanwhile_is_named_and_nothing_is_committed() {
    let (place, server) = (Place::new(), FakeServer::start());
    let root = model(&place);
    let gate = Gate::default();
    server.fault(Fault::stall(Route::graphql("CreateArtifactManifest"), &gate));
    let running = put(&place, &server, &root).spawn();
    server.wait_until(std::time::Duration::from_secs(30), |world| {
        world.requests.iter().any(|request| request.operation.as_deref() == Some("CreateArtifactManifest"))
    });
    fs::write(root.join("weights.bin"), "other").unwrap();
    fs::write(root.join("twin.bin"), "other").unwrap();
    gate.open();
    let failed = running.wait().code(1);
    assert!(failed.stderr.contains("` changed while it was read"), "{}", failed.stderr);
    assert!(failed.stderr.contains("weights.bin") || failed.stderr.contains("twin.bin"), "{}", failed.stderr);
    let artifact = server.artifact("model").unwrap();
    assert_eq!((artifact.version, artifact.manifest), (None, None));
    assert_eq!(server.run(artifact.run.as_deref().unwrap()).unwrap().status, RunStatus::Failed);
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_sent() {
    let (place, server) = (Place::new(), FakeServer::start());
    let root = model(&place);
    fs::create_dir(place.path("nothing")).unwrap();
    write(&place.path("other"), "empty", b"not the same");
    let check = |arguments: &[&str], code: i32, words: &str| {
        let ended = place.call(["artifact", "put"]).args(arguments).args(["-p", "p"]).server(&server).run().code(code);
        assert!(ended.stderr.contains(words), "{arguments:?}: {}", ended.stderr);
    };
    check(&["a:v1", "model"], 2, "the name cannot be used");
    check(&["a/b", "model"], 2, "choose entity and project with `-e` and `-p`");
    check(&["a", "model", "-t", "job"], 2, "`--type` cannot be used: `job` is W&B's own");
    check(&["a", "model", "-a", "v3"], 2, "`--alias` cannot be used");
    check(&["a", "model", "--tag", "a.b"], 2, "`--tag` cannot be used");
    check(&["a", "model", "--metadata", "lr"], 2, "KEY=VALUE");
    check(&["a", "model", "--metadata", "lr=.nan"], 2, "`--metadata` cannot be used");
    check(&["a", "model", "--run", "a/b"], 2, "cannot be a run id");
    check(&["a", "model", "--mode", "offline"], 2, "keeps nothing for later");
    check(&["a", "missing"], 2, "cannot look at `missing`");
    check(&["a", "model", "other"], 2, "would be `empty` in the artifact");
    check(&["a", "nothing"], 9, "there are no files");
    check(&["a", "model", "--exclude", "*"], 9, "there are no files");
    check(&["a", "model", "--mode", "disabled"], 0, "W&B is disabled");
    check(&["a", "model", "--dry-run"], 0, "6 files would be put");
    let no_key = place.call(["artifact", "put", "a", "model"]).env("WANDB_BASE_URL", server.url()).run().code(4);
    assert!(no_key.stderr.contains("there is no W&B API key"), "{}", no_key.stderr);
    assert_eq!(server.requests().len(), 0);
    // The type of a name is for ever.
    put(&place, &server, &root).run().ok();
    let other_type = place.call(["artifact", "put", "model", "other", "-p", "p"]).server(&server).run().code(1);
    assert!(other_type.stderr.contains("has the type `model`"), "{}", other_type.stderr);
}

#[test]
fn every_flag_has_its_variable() {
    let (place, server) = (Place::new(), FakeServer::start());
    model(&place);
    place
        .call(["artifact", "put", "model", "model"])
        .server(&server)
        .env("WANDB_BRIDGE_TYPE", "weights")
        .env("WANDB_BRIDGE_DESCRIPTION", "from a variable")
        .env("WANDB_PROJECT", "other")
        .env("WANDB_MODE", "offline")
        .run()
        .ok();
    let artifact = server.artifact("model").unwrap();
    assert_eq!((artifact.kind.as_str(), artifact.project.as_str()), ("weights", "other"));
    assert_eq!(artifact.description.as_deref(), Some("from a variable"));
}
