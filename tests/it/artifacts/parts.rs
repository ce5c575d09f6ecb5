//! Large files, in parts; and that the tests' server takes nothing in the wrong order.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use url::Url;
use wandb_bridge::api::{
    ApiClient, ApiError, ApiKey, ApiOptions, FileSpec, ManifestKind, NewArtifact, NewManifest, RetryPolicy,
    UpsertBucket,
};
use wandb_bridge::artifact::{Entry, LocalFile, Manifest, Multipart, hash_file, stable_client_id};
use wandb_bridge::upload::{ArtifactError, ArtifactUpload, Manner, UploadedArtifact, upload_artifact};

use crate::support::server::{FakeServer, Fault, Route, ViolationKind};

const SMALL: Multipart = Multipart { from: 1000, part: 300, most_parts: 100, largest: 1 << 20 };

fn client(server: &FakeServer) -> Arc<ApiClient> {
    let mut options = ApiOptions::new(Url::parse(server.url()).unwrap(), ApiKey::new(server.key()).unwrap());
    options.requests_per_second = Some(0.0);
    options.retry = RetryPolicy { retries: 3, wait_min: std::time::Duration::from_millis(1), ..options.retry };
    Arc::new(ApiClient::new(options).unwrap())
}

fn new(digest: String) -> NewArtifact {
    NewArtifact {
        entity: "tester".to_owned(),
        project: "p".to_owned(),
        kind: "model".to_owned(),
        name: "model".to_owned(),
        run_id: Some("r".to_owned()),
        client_id: stable_client_id(&[&digest]),
        sequence_client_id: stable_client_id(&["model"]),
        digest,
        ..NewArtifact::default()
    }
}

async fn upload(api: &Arc<ApiClient>, files: &[(&str, &Path)]) -> Result<UploadedArtifact, ArtifactError> {
    let cancel = CancellationToken::new();
    let run = UpsertBucket { name: Some("r".into()), project: Some("p".into()), ..UpsertBucket::default() };
    api.upsert_bucket(&run, &cancel).await?;
    let entries = files.iter().map(|(name, path)| {
        let hashed = hash_file(path).unwrap();
        let local = Some(LocalFile { path: path.to_path_buf(), mark: Some(hashed.mark) });
        ((*name).to_owned(), Entry { digest: hashed.digest, size: hashed.mark.size, local, ..Entry::default() })
    });
    let manifest = Manifest { entries: entries.collect(), ..Manifest::default() };
    let artifact = ArtifactUpload {
        new: new(manifest.digest()),
        manifest,
        places: Arc::default(),
        run: ["tester", "p", "r"].map(str::to_owned),
        kind: ManifestKind::Full,
        base: None,
        finalize: true,
        use_after_commit: true,
        second_client_id: None,
    };
    upload_artifact(api, artifact, Manner { transfers: 4, multipart: SMALL }, &cancel).await
}

#[tokio::test]
async fn a_large_file_goes_in_parts_whatever_happens_to_one_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let (large, small) = (directory.path().join("large"), directory.path().join("small"));
    let content: Vec<u8> = (0..2500_u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(&large, &content).unwrap();
    std::fs::write(&small, [1; 999]).unwrap();
    for fault in [
        None,
        Some(Fault::status(Route::StorageOf("/4".to_owned()), 503)),
        Some(Fault::reset(Route::StorageOf("/9".to_owned())).applied()),
        Some(Fault::status(Route::graphql("CompleteMultipartUploadArtifact"), 500)),
    ] {
        let server = FakeServer::start();
        server.fault(Fault::status(Route::StorageOf("/1".to_owned()), 502));
        fault.into_iter().for_each(|fault| server.fault(fault));
        let done = upload(&client(&server), &[("dir/large", &large), ("small", &small)]).await.unwrap();
        assert_eq!((done.files, done.bytes, done.was_there), (2, 3499, false));
        server.assert_content();
        let artifact = server.artifact("model").unwrap();
        assert_eq!(artifact.version, Some(0));
        assert_eq!(artifact.files["dir/large"].bytes.as_deref(), Some(&content[..]));
        assert!(artifact.used_by.contains("r"));
        let parts = server.requests().iter().filter(|request| request.path.contains("/dir/large/")).count();
        assert!(parts >= 10, "9 parts, the first of them twice: {parts}");
        assert_eq!(server.operations("CompleteMultipartUploadArtifact").last().unwrap().status, Some(200));
    }
}

#[tokio::test]
async fn a_file_above_every_limit_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("huge");
    std::fs::write(&path, vec![0; (1 << 20) + 1]).unwrap();
    let server = FakeServer::start();
    let error = upload(&client(&server), &[("huge", &path)]).await.unwrap_err();
    assert!(matches!(error, ArtifactError::File(_)) && error.to_string().contains("huge"), "{error}");
    assert_eq!(server.artifact("model").unwrap().version, None);
}

/// What a server must not take is not taken, or nothing that these tests say of order is worth anything.
#[tokio::test]
async fn the_tests_server_refuses_a_wrong_order() {
    let server = FakeServer::start();
    let (api, cancel) = (client(&server), CancellationToken::new());
    let refused = |result: Result<(), ApiError>, words: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let nobody = api.create_artifact(&new("0".repeat(32)), &cancel).await;
    refused(nobody.map(drop), "which is not there");
    let run = UpsertBucket { name: Some("r".into()), project: Some("p".into()), ..UpsertBucket::default() };
    api.upsert_bucket(&run, &cancel).await.unwrap();
    let id = api.create_artifact(&new("0".repeat(32)), &cancel).await.unwrap().id;
    let manifest_id = format!("manifest-of-{id}");
    let (artifact, manifest, name) = (id.clone(), manifest_id.clone(), "a".to_owned());
    let file = [FileSpec { artifact, manifest, name, md5: "ndTkYSaMgDT1yFZOFVxnpg==".to_owned(), parts: Vec::new() }];
    refused(api.commit_artifact(&id, &cancel).await, "no manifest yet");
    refused(api.create_artifact_files(&file, &cancel).await.map(drop), "files before their manifest was made");
    let kind = ManifestKind::Full;
    let mut manifest =
        NewManifest { artifact: &id, base: None, entity: "tester", project: "p", run_id: "r", kind, digest: Some("x") };
    refused(api.create_artifact_manifest(&manifest, &cancel).await.map(drop), "finished that was never begun");
    manifest.digest = None;
    api.create_artifact_manifest(&manifest, &cancel).await.unwrap();
    api.create_artifact_files(&file, &cancel).await.unwrap();
    manifest.digest = Some("x");
    refused(api.create_artifact_manifest(&manifest, &cancel).await.map(drop), "before `a` was uploaded");
    refused(api.update_artifact_manifest(&manifest_id, "x", &cancel).await.map(drop), "before `a` was uploaded");
    refused(api.use_artifact(&id, ["tester", "p", "r"], None, &cancel).await, "before it was committed");
    let kinds: Vec<ViolationKind> = server.violations().iter().map(|violation| violation.kind).collect();
    assert!(kinds.iter().all(|kind| matches!(kind, ViolationKind::Artifact | ViolationKind::UnknownRun)), "{kinds:?}");
    assert_eq!(kinds.len(), 7);
}
