//! The official client, side by side: the same files give the same digests, and the same requests in the same order.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{check_whole, model, put, steps, write};
use crate::support::bridge::Place;
use crate::support::python::{inline, wandb};
use crate::support::server::{Artifact, FakeServer};

/// Digest and size of each entry, and its reference.
fn held(artifact: &Artifact) -> BTreeMap<String, (Value, Value, Value)> {
    let of = |entry: Value| (entry["digest"].clone(), entry["size"].clone(), entry["ref"].clone());
    artifact.entries().into_iter().map(|(path, entry)| (path, of(entry))).collect()
}

#[test]
fn the_official_client_puts_the_same() {
    let place = Place::new();
    let root = model(&place);
    let (theirs, ours) = (FakeServer::start(), FakeServer::start());
    let options = ["-t", "model", "-a", "best", "-d", "what it is"];
    wandb().args(["artifact", "put", "-n", "p/model"]).args(options).arg(&root).server(&theirs).run().ok();
    put(&place, &ours, &root).args(&options[2..]).run().ok();
    let (their, our) = (check_whole(&theirs), check_whole(&ours));
    assert_eq!(held(&their), held(&our));
    assert_eq!((&their.digest, &their.aliases), (&our.digest, &our.aliases));
    assert_eq!((&their.description, &their.kind, &their.metadata), (&our.description, &our.kind, &our.metadata));
    // Twins are one upload less, and one question more.
    let plain = |server: &FakeServer| {
        let mut steps = steps(&server.requests());
        steps.dedup();
        steps
    };
    let expected = [
        "CreateArtifact",
        "CreateArtifactManifest",
        "CreateArtifactFiles",
        "PUT",
        "CreateArtifactManifest",
        "PUT",
        "CommitArtifact",
        "ArtifactByID",
    ];
    assert_eq!(plain(&theirs), expected);
    let mut ours = plain(&ours);
    assert_eq!(ours.remove(4), "CreateArtifactFiles");
    assert_eq!(ours, expected);

    // Each finds what the other put.
    put(&place, &theirs, &root).run().ok();
    check_whole(&theirs);
    wandb().args(["artifact", "put", "-n", "p/model", "-t", "model"]).arg(&root).server(&theirs).run().ok();
    check_whole(&theirs);
}

#[test]
fn digests_are_those_of_the_official_library() {
    let place = Place::new();
    let root = model(&place);
    for number in 0..40_u32 {
        // Names that sort differently as bytes and as people read them.
        let name = format!(
            "many/{}{number}{}",
            ["a", "B", "é", "-", "~", "_"][number as usize % 6],
            "/x".repeat(number as usize % 3)
        );
        write(&root, &name, &number.to_le_bytes().repeat(number as usize));
    }
    let program = "
import json, sys, wandb
artifact = wandb.Artifact('model', type='model')
artifact.add_dir(sys.argv[1])
print(json.dumps({'digest': artifact.digest, 'manifest': artifact.manifest.to_manifest_json()}))";
    let theirs = inline(program).arg(&root).run().ok();
    let theirs: Value = serde_json::from_str(theirs.stdout.lines().last().unwrap()).unwrap();
    let (server, place) = (FakeServer::start(), place);
    let ours = put(&place, &server, &root).args(["--dry-run", "--json"]).run().ok();
    assert_eq!(ours.json()[0]["digest"], theirs["digest"]);
    put(&place, &server, &root).run().ok();
    server.assert_content();
    let contents = theirs["manifest"]["contents"].as_object().unwrap();
    let ours = server.artifact("model").unwrap().entries();
    assert_eq!(ours.len(), contents.len());
    for (path, entry) in contents {
        assert_eq!(ours[path]["digest"], entry["digest"], "{path}");
    }
}
