//! The GraphQL operations that make a version of an artifact, as typed calls.
//!
//! Names of operations, fields and variables are the official client's. What is not set is not sent: older servers refuse
//! members that they do not know.

mod answers;
mod version;

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::artifacts::answers::{CreateData, FilesData, ManifestData, MappingData, VersionData};
pub use crate::api::artifacts::version::{
    ArtifactState, ArtifactVersion, CreatedArtifact, FilePlace, FileSpec, FileUpload, ManifestKind, ManifestPlace,
    NewArtifact, NewManifest, PartSpec, Upload,
};
use crate::api::client::ApiClient;
use crate::api::error::{ApiError, shown};
use crate::api::graphql::Operation;

const CREATE_ARTIFACT: Operation = Operation::new(
    "CreateArtifact",
    "mutation CreateArtifact($input: CreateArtifactInput!) { createArtifact(input: $input) { \
    artifact { id state artifactSequence { latestArtifact { id } } } } }",
);

const CREATE_ARTIFACT_MANIFEST: Operation = Operation::new(
    "CreateArtifactManifest",
    "mutation CreateArtifactManifest($artifactID: ID!, $baseArtifactID: ID, \
    $name: String!, $digest: String!, $entityName: String!, $projectName: String!, $runName: String!, \
    $manifestType: ArtifactManifestType!, $includeUpload: Boolean!) { createArtifactManifest(input: {artifactID: $artifactID, \
    baseArtifactID: $baseArtifactID, name: $name, digest: $digest, entityName: $entityName, projectName: $projectName, \
    runName: $runName, type: $manifestType}) { artifactManifest { id file { id uploadUrl @include(if: $includeUpload) \
    uploadHeaders @include(if: $includeUpload) } } } }",
);

const UPDATE_ARTIFACT_MANIFEST: Operation = Operation::new(
    "UpdateArtifactManifest",
    "mutation UpdateArtifactManifest($artifactManifestID: ID!, $digest: String, \
    $baseArtifactID: ID, $includeUpload: Boolean!) { updateArtifactManifest(input: {artifactManifestID: \
    $artifactManifestID, digest: $digest, baseArtifactID: $baseArtifactID}) { artifactManifest { id file { id \
    uploadUrl @include(if: $includeUpload) uploadHeaders @include(if: $includeUpload) } } } }",
);

const CREATE_ARTIFACT_FILES: Operation = Operation::new(
    "CreateArtifactFiles",
    "mutation CreateArtifactFiles($input: CreateArtifactFilesInput!) { \
    createArtifactFiles(input: $input) { files { edges { node { storagePath uploadUrl uploadHeaders uploadMultipartUrls { \
    uploadID uploadUrlParts { partNumber uploadUrl } } artifact { id } } } } } }",
);

const COMPLETE_MULTIPART: Operation = Operation::new(
    "CompleteMultipartUploadArtifact",
    "mutation CompleteMultipartUploadArtifact($completeMultipartAction: \
    CompleteMultipartAction!, $completedParts: [UploadPartsInput!]!, $artifactID: ID!, $storagePath: String!, \
    $uploadID: String!) { completeMultipartUploadArtifact(input: {completeMultipartAction: $completeMultipartAction, \
    completedParts: $completedParts, artifactID: $artifactID, storagePath: $storagePath, uploadID: $uploadID}) { digest } }",
);

const COMMIT_ARTIFACT: Operation = Operation::new(
    "CommitArtifact",
    "mutation CommitArtifact($artifactID: ID!) { commitArtifact(input: {artifactID: $artifactID}) { artifact { id digest } } }",
);

const USE_ARTIFACT: Operation = Operation::new(
    "UseArtifact",
    "mutation UseArtifact($input: UseArtifactInput!) { useArtifact(input: $input) { artifact { id } } }",
);

const CLIENT_ID_MAPPING: Operation = Operation::new(
    "ClientIDMapping",
    "query ClientIDMapping($clientID: ID!) { clientIDMapping(clientID: $clientID) { serverID } }",
);

const ARTIFACT_BY_ID: Operation = Operation::new(
    "ArtifactByID",
    "query ArtifactByID($id: ID!) { artifact(id: $id) { id state digest versionIndex aliases { alias } } }",
);

impl ApiClient {
    /// Says that a version is to be made; or finds that it is there.
    pub async fn create_artifact(
        &self,
        artifact: &NewArtifact,
        cancel: &CancellationToken,
    ) -> Result<CreatedArtifact, ApiError> {
        let variables = json!({"input": artifact.input()});
        let answer = self.graphql::<CreateData>(&CREATE_ARTIFACT, Some(variables), cancel).await?;
        let created = answer.needed(|data| data.create_artifact?.artifact)?;
        Ok(CreatedArtifact {
            id: created.id,
            state: created.state,
            latest: created.artifact_sequence.and_then(|sequence| sequence.latest_artifact).map(|latest| latest.id),
        })
    }

    /// Makes a manifest, or makes it again with its digest.
    pub async fn create_artifact_manifest(
        &self,
        manifest: &NewManifest<'_>,
        cancel: &CancellationToken,
    ) -> Result<ManifestPlace, ApiError> {
        let (kind, file) = manifest.kind.words();
        let variables = json!({
            "artifactID": manifest.artifact, "baseArtifactID": manifest.base, "name": file,
            "digest": manifest.digest.unwrap_or_default(), "entityName": manifest.entity,
            "projectName": manifest.project, "runName": manifest.run_id, "manifestType": kind,
            "includeUpload": manifest.digest.is_some(),
        });
        let answer = self.graphql::<ManifestData>(&CREATE_ARTIFACT_MANIFEST, Some(variables), cancel).await?;
        Ok(answer.needed(|data| Some(data.create_artifact_manifest?.artifact_manifest))?.place())
    }

    /// Gives a manifest that is not the whole one its digest.
    pub async fn update_artifact_manifest(
        &self,
        manifest: &str,
        digest: &str,
        cancel: &CancellationToken,
    ) -> Result<ManifestPlace, ApiError> {
        let variables =
            json!({"artifactManifestID": manifest, "digest": digest, "baseArtifactID": null, "includeUpload": true});
        let answer = self.graphql::<ManifestData>(&UPDATE_ARTIFACT_MANIFEST, Some(variables), cancel).await?;
        Ok(answer.needed(|data| Some(data.update_artifact_manifest?.artifact_manifest))?.place())
    }

    /// Asks where files are to be uploaded. The answer has a place for each, in the same order.
    pub async fn create_artifact_files(
        &self,
        files: &[FileSpec],
        cancel: &CancellationToken,
    ) -> Result<Vec<FilePlace>, ApiError> {
        let variables = json!({"input": {"artifactFiles": files, "storageLayout": "V2"}});
        let answer = self.graphql::<FilesData>(&CREATE_ARTIFACT_FILES, Some(variables), cancel).await?;
        let made = answer.needed(|data| data.create_artifact_files)?;
        let places: Vec<FilePlace> = made.files.edges.into_iter().map(|edge| edge.node.place()).collect();
        if places.len() != files.len() {
            return Err(ApiError::Protocol {
                place: shown(self.base_url()),
                why: format!("it was asked for places for {} files and gave {}", files.len(), places.len()),
            });
        }
        Ok(places)
    }

    /// Says that all parts of a file were uploaded. `parts` carry the `ETag`s that came back.
    pub async fn complete_multipart(
        &self,
        birth: &str,
        storage_path: &str,
        upload_id: &str,
        parts: &[PartSpec],
        cancel: &CancellationToken,
    ) -> Result<(), ApiError> {
        let variables = json!({
            "completeMultipartAction": "Complete", "completedParts": parts, "artifactID": birth,
            "storagePath": storage_path, "uploadID": upload_id,
        });
        self.graphql::<Map<String, Value>>(&COMPLETE_MULTIPART, Some(variables), cancel).await?.needed(|_| Some(()))
    }

    /// Makes a version whole: from now on it has a number.
    pub async fn commit_artifact(&self, artifact: &str, cancel: &CancellationToken) -> Result<(), ApiError> {
        let variables = json!({"artifactID": artifact});
        self.graphql::<Map<String, Value>>(&COMMIT_ARTIFACT, Some(variables), cancel).await?.needed(|_| Some(()))
    }

    /// Says that a run uses a version.
    pub async fn use_artifact(
        &self,
        artifact: &str,
        run: [&str; 3],
        artifact_place: Option<[&str; 2]>,
        cancel: &CancellationToken,
    ) -> Result<(), ApiError> {
        let [entity, project, run] = run;
        let mut input = json!({"artifactID": artifact, "entityName": entity, "projectName": project, "runName": run});
        if let Some([entity, project]) = artifact_place {
            input["artifactEntityName"] = json!(entity);
            input["artifactProjectName"] = json!(project);
        }
        let variables = json!({"input": input});
        self.graphql::<Map<String, Value>>(&USE_ARTIFACT, Some(variables), cancel).await?.needed(|_| Some(()))
    }

    /// The server's id of what a client knows by its own; `None` when the server does not know it.
    pub async fn client_id_mapping(
        &self,
        client_id: &str,
        cancel: &CancellationToken,
    ) -> Result<Option<String>, ApiError> {
        let variables = json!({"clientID": client_id});
        let answer = self.graphql::<MappingData>(&CLIENT_ID_MAPPING, Some(variables), cancel).await?;
        Ok(answer.needed(|data| Some(data.client_id_mapping))?.map(|mapping| mapping.server_id))
    }

    /// Looks at a version.
    pub async fn artifact_version(&self, id: &str, cancel: &CancellationToken) -> Result<ArtifactVersion, ApiError> {
        let variables = json!({"id": id});
        let answer = self.graphql::<VersionData>(&ARTIFACT_BY_ID, Some(variables), cancel).await?;
        let there = answer.needed(|data| data.artifact)?;
        Ok(ArtifactVersion {
            state: there.state,
            number: there.version_index,
            digest: there.digest.unwrap_or_default(),
            aliases: there.aliases.unwrap_or_default().into_iter().map(|alias| alias.alias).collect(),
        })
    }
}

impl NewArtifact {
    fn input(&self) -> Value {
        let mut input = json!({
            "entityName": self.entity, "projectName": self.project, "artifactTypeName": self.kind,
            "artifactCollectionName": self.name, "digest": self.digest, "digestAlgorithm": "MANIFEST_MD5",
            "enableDigestDeduplication": true, "clientID": self.client_id,
            "sequenceClientID": self.sequence_client_id,
        });
        let set = |text: &str| (!text.is_empty()).then(|| json!(text));
        let alias = |alias: &String| json!({"artifactCollectionName": self.name, "alias": alias});
        let tag = |tag: &String| json!({"tagName": tag});
        let aliases: Vec<Value> = self.aliases.iter().map(alias).collect();
        let tags: Vec<Value> = self.tags.iter().map(tag).collect();
        for (name, value) in [
            ("runName", self.run_id.as_deref().and_then(set)),
            ("description", set(&self.description)),
            ("metadata", set(&self.metadata)),
            ("aliases", (!aliases.is_empty()).then(|| json!(aliases))),
            ("tags", (!tags.is_empty()).then(|| json!(tags))),
            ("ttlDurationSeconds", (self.ttl_seconds != 0).then(|| json!(self.ttl_seconds))),
            ("distributedID", set(&self.distributed_id)),
            ("storageRegion", self.storage_region.as_deref().and_then(set)),
        ] {
            if let Some(value) = value {
                input[name] = value;
            }
        }
        input
    }
}

impl ManifestKind {
    /// The server's word for it, and the name of its file.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Full => ("FULL", "wandb_manifest.json"),
            Self::Patch => ("PATCH", "wandb_manifest.patch.json"),
            Self::Incremental => ("INCREMENTAL", "wandb_manifest.incremental.json"),
        }
    }
}
