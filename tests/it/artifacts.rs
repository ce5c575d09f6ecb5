//! `artifact put`, and artifacts of logs: what the server holds at the end is what was meant, once.

mod attach;
mod harness;
pub(crate) mod logs;
mod official;
mod parts;
mod put;
mod staging;
mod weather;

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::bridge::{Call, Place};
use crate::support::server::{Artifact, FakeServer, RequestRecord};

/// A directory with something of everything: twins, an empty file, names that need care, depth.
fn model(place: &Place) -> PathBuf {
    let root = place.path("model");
    write(&root, "weights.bin", &vec![7; 70_000]);
    write(&root, "twin.bin", &vec![7; 70_000]);
    write(&root, "empty", b"");
    write(&root, "config/deep/er.json", b"{}");
    write(&root, "ü 🦀 \"quoted\" #1?.txt", b"odd name");
    write(&root, ".hidden", b"seen");
    root
}

fn write(root: &Path, name: &str, content: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// `artifact put model PATH -t model -p p`
fn put(place: &Place, server: &FakeServer, path: &Path) -> Call {
    place.call(["artifact", "put", "model"]).arg(path).args(["-t", "model", "-p", "p"]).server(server)
}

/// The one version of `model`, whole, with all of the directory in it.
#[track_caller]
fn check_whole(server: &FakeServer) -> Artifact {
    server.assert_content();
    let versions = server.look(|world| world.artifacts.clone());
    assert_eq!(versions.len(), 1, "{versions:#?}");
    let artifact = versions.into_iter().next().unwrap();
    assert_eq!(artifact.version, Some(0));
    let names: Vec<String> = artifact.entries().into_keys().collect();
    assert_eq!(
        names,
        [".hidden", "config/deep/er.json", "empty", "twin.bin", "weights.bin", "ü 🦀 \"quoted\" #1?.txt"]
    );
    artifact
}

/// What concerns artifacts among the requests, in order: operations, and `PUT` for bytes.
fn steps(requests: &[RequestRecord]) -> Vec<String> {
    let step = |request: &RequestRecord| match &request.operation {
        Some(operation) if operation.contains("Artifact") && operation != "ArtifactType" => Some(operation.clone()),
        Some(_) => None,
        None => request.path.starts_with("/storage/artifacts/").then(|| "PUT".to_owned()),
    };
    requests.iter().filter_map(step).collect()
}
