//! The GraphQL operations that make a version of an artifact, as typed calls.
//!
//! Names of operations, fields and variables are the official client's. What is not set is not sent: older servers refuse
//! members that they do not know.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::client::ApiClient;
use crate::api::error::{ApiError, shown};
use crate::api::retry::Call;

/// A version that is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewArtifact {
    /// The entity.
    pub entity: String,
    /// The project.
    pub project: String,
    /// The type.
    pub kind: String,
    /// The name, without a version.
    pub name: String,
    /// The run that made it; `None` when a person did.
    pub run_id: Option<String>,
    /// The digest of its manifest.
    pub digest: String,
    /// What people read about it; empty is none.
    pub description: String,
    /// JSON text; empty is none.
    pub metadata: String,
    /// Names that are to stand for this version.
    pub aliases: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// When the server may delete it, in seconds; 0 says nothing, less than that are the server's own words.
    pub ttl_seconds: i64,
    /// Set when several processes write parts of one version; empty otherwise.
    pub distributed_id: String,
    /// Known again by this.
    pub client_id: String,
    /// The versions of this name are known again by this.
    pub sequence_client_id: String,
    /// Where the bytes go, if not where the server keeps them by itself.
    pub storage_region: Option<String>,
}

/// What the server says to a [`NewArtifact`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedArtifact {
    /// Its id.
    pub id: String,
    /// How it stands.
    pub state: ArtifactState,
    /// The id of the newest version of that name, where there is one.
    pub latest: Option<String>,
}

/// How a version stands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ArtifactState {
    /// It is whole: nothing is to be sent.
    Committed,
    /// It waits for its files.
    Pending,
    /// It was deleted. Old servers say so of new ones too.
    Deleted,
    /// Something newer than this program.
    #[serde(untagged)]
    Other(String),
}

/// How much of a version a manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestKind {
    /// All of it.
    Full,
    /// One process's part of it.
    Patch,
    /// What is new against a base.
    Incremental,
}

/// A manifest that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewManifest<'a> {
    /// The artifact.
    pub artifact: &'a str,
    /// The version that it builds upon.
    pub base: Option<&'a str>,
    /// The entity of the run.
    pub entity: &'a str,
    /// The project of the run.
    pub project: &'a str,
    /// The run.
    pub run_id: &'a str,
    /// How much it is.
    pub kind: ManifestKind,
    /// The digest of its text; `None` as long as there is none, and then no address is asked for either.
    pub digest: Option<&'a str>,
}

/// A manifest that the server has a place for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestPlace {
    /// Its id.
    pub id: String,
    /// Where its text goes, where that was asked.
    pub upload: Option<Upload>,
}

/// Where bytes go, and what must come with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upload {
    /// A signed URL.
    pub url: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSpec {
    /// The artifact.
    #[serde(rename = "artifactID")]
    pub artifact: String,
    /// Its manifest.
    #[serde(rename = "artifactManifestID")]
    pub manifest: String,
    /// Its path in the artifact.
    pub name: String,
    /// The base64 of its MD5.
    pub md5: String,
    /// Its parts, when it is uploaded in parts.
    #[serde(rename = "uploadPartsInput", skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartSpec>,
}

/// A part of a file: with its digest before it is sent, with the store's own mark afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartSpec {
    /// From 1.
    #[serde(rename = "partNumber")]
    pub number: u64,
    /// The hex MD5, or the `ETag` as it came.
    #[serde(rename = "hexMD5")]
    pub mark: String,
}

/// What becomes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlace {
    /// The artifact with which these bytes came first: this one, or an earlier one.
    pub birth: String,
    /// Where they go.
    pub upload: FileUpload,
}

/// Where the bytes of a file go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileUpload {
    /// Nowhere: the server has them.
    Known,
    /// All to one place.
    Whole(Upload),
    /// In parts.
    Parts {
        /// Named when it is complete.
        upload_id: String,
        /// Named when it is complete.
        storage_path: String,
        /// What `Content-Type` each part carries; may be empty.
        content_type: String,
        /// A signed URL for each part, by its number.
        urls: Vec<(u64, String)>,
    },
}

/// A version as the server holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactVersion {
    /// How it stands.
    pub state: ArtifactState,
    /// The number behind the `v`, once it has one.
    pub number: Option<u64>,
    /// The digest of its manifest.
    pub digest: String,
    /// The names that stand for it.
    pub aliases: Vec<String>,
}

const CREATE_ARTIFACT: &str = "mutation CreateArtifact($input: CreateArtifactInput!) { createArtifact(input: $input) { \
    artifact { id state artifactSequence { latestArtifact { id } } } } }";

const CREATE_ARTIFACT_MANIFEST: &str = "mutation CreateArtifactManifest($artifactID: ID!, $baseArtifactID: ID, \
    $name: String!, $digest: String!, $entityName: String!, $projectName: String!, $runName: String!, \
    $manifestType: ArtifactManifestType!, $includeUpload: Boolean!) { createArtifactManifest(input: {artifactID: $artifactID, \
    baseArtifactID: $baseArtifactID, name: $name, digest: $digest, entityName: $entityName, projectName: $projectName, \
    runName: $runName, type: $manifestType}) { artifactManifest { id file { id uploadUrl @include(if: $includeUpload) \
    uploadHeaders @include(if: $includeUpload) } } } }";

const UPDATE_ARTIFACT_MANIFEST: &str = "mutation UpdateArtifactManifest($artifactManifestID: ID!, $digest: String, \
    $baseArtifactID: ID, $includeUpload: Boolean!) { updateArtifactManifest(input: {artifactManifestID: \
    $artifactManifestID, digest: $digest, baseArtifactID: $baseArtifactID}) { artifactManifest { id file { id \
    uploadUrl @include(if: $includeUpload) uploadHeaders @include(if: $includeUpload) } } } }";

const CREATE_ARTIFACT_FILES: &str = "mutation CreateArtifactFiles($input: CreateArtifactFilesInput!) { \
    createArtifactFiles(input: $input) { files { edges { node { storagePath uploadUrl uploadHeaders uploadMultipartUrls { \
    uploadID uploadUrlParts { partNumber uploadUrl } } artifact { id } } } } } }";

const COMPLETE_MULTIPART: &str = "mutation CompleteMultipartUploadArtifact($completeMultipartAction: \
    CompleteMultipartAction!, $completedParts: [UploadPartsInput!]!, $artifactID: ID!, $storagePath: String!, \
    $uploadID: String!) { completeMultipartUploadArtifact(input: {completeMultipartAction: $completeMultipartAction, \
    completedParts: $completedParts, artifactID: $artifactID, storagePath: $storagePath, uploadID: $uploadID}) { digest } }";

const COMMIT_ARTIFACT: &str = "mutation CommitArtifact($artifactID: ID!) { commitArtifact(input: {artifactID: $artifactID}) { artifact { id digest } } }";

const USE_ARTIFACT: &str =
    "mutation UseArtifact($input: UseArtifactInput!) { useArtifact(input: $input) { artifact { id } } }";

const CLIENT_ID_MAPPING: &str =
    "query ClientIDMapping($clientID: ID!) { clientIDMapping(clientID: $clientID) { serverID } }";

const ARTIFACT_BY_ID: &str =
    "query ArtifactByID($id: ID!) { artifact(id: $id) { id state digest versionIndex aliases { alias } } }";

impl ApiClient {
    /// Says that a version is to be made; or finds that it is there.
    pub async fn create_artifact(
        &self,
        artifact: &NewArtifact,
        cancel: &CancellationToken,
    ) -> Result<CreatedArtifact, ApiError> {
        const NAME: &str = "CreateArtifact";
        let variables = json!({"input": artifact.input()});
        let (data, errors) =
            self.graphql::<CreateData>(Call::Query, NAME, CREATE_ARTIFACT, Some(variables), cancel).await?;
        let created = data.and_then(|data| data.create_artifact).and_then(|payload| payload.artifact);
        let created = self.needed(created, errors, NAME)?;
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
        const NAME: &str = "CreateArtifactManifest";
        let (kind, file) = manifest.kind.words();
        let variables = json!({
            "artifactID": manifest.artifact, "baseArtifactID": manifest.base, "name": file,
            "digest": manifest.digest.unwrap_or_default(), "entityName": manifest.entity,
            "projectName": manifest.project, "runName": manifest.run_id, "manifestType": kind,
            "includeUpload": manifest.digest.is_some(),
        });
        let (data, errors) =
            self.graphql::<ManifestData>(Call::Query, NAME, CREATE_ARTIFACT_MANIFEST, Some(variables), cancel).await?;
        let made = data.and_then(|data| data.create_artifact_manifest).map(|payload| payload.artifact_manifest);
        Ok(self.needed(made, errors, NAME)?.place())
    }

    /// Gives a manifest that is not the whole one its digest.
    pub async fn update_artifact_manifest(
        &self,
        manifest: &str,
        digest: &str,
        cancel: &CancellationToken,
    ) -> Result<ManifestPlace, ApiError> {
        const NAME: &str = "UpdateArtifactManifest";
        let variables =
            json!({"artifactManifestID": manifest, "digest": digest, "baseArtifactID": null, "includeUpload": true});
        let (data, errors) =
            self.graphql::<ManifestData>(Call::Query, NAME, UPDATE_ARTIFACT_MANIFEST, Some(variables), cancel).await?;
        let made = data.and_then(|data| data.update_artifact_manifest).map(|payload| payload.artifact_manifest);
        Ok(self.needed(made, errors, NAME)?.place())
    }

    /// Asks where files are to be uploaded. The answer has a place for each, in the same order.
    pub async fn create_artifact_files(
        &self,
        files: &[FileSpec],
        cancel: &CancellationToken,
    ) -> Result<Vec<FilePlace>, ApiError> {
        const NAME: &str = "CreateArtifactFiles";
        let variables = json!({"input": {"artifactFiles": files, "storageLayout": "V2"}});
        let (data, errors) =
            self.graphql::<FilesData>(Call::Query, NAME, CREATE_ARTIFACT_FILES, Some(variables), cancel).await?;
        let made = self.needed(data.and_then(|data| data.create_artifact_files), errors, NAME)?;
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
        const NAME: &str = "CompleteMultipartUploadArtifact";
        let variables = json!({
            "completeMultipartAction": "Complete", "completedParts": parts, "artifactID": birth,
            "storagePath": storage_path, "uploadID": upload_id,
        });
        let (data, errors) =
            self.graphql::<Map<String, Value>>(Call::Query, NAME, COMPLETE_MULTIPART, Some(variables), cancel).await?;
        self.needed(data, errors, NAME).map(drop)
    }

    /// Makes a version whole: from now on it has a number.
    pub async fn commit_artifact(&self, artifact: &str, cancel: &CancellationToken) -> Result<(), ApiError> {
        const NAME: &str = "CommitArtifact";
        let variables = json!({"artifactID": artifact});
        let (data, errors) =
            self.graphql::<Map<String, Value>>(Call::Query, NAME, COMMIT_ARTIFACT, Some(variables), cancel).await?;
        self.needed(data, errors, NAME).map(drop)
    }

    /// Says that a run uses a version.
    pub async fn use_artifact(
        &self,
        artifact: &str,
        run: [&str; 3],
        artifact_place: Option<[&str; 2]>,
        cancel: &CancellationToken,
    ) -> Result<(), ApiError> {
        const NAME: &str = "UseArtifact";
        let [entity, project, run] = run;
        let mut input = json!({"artifactID": artifact, "entityName": entity, "projectName": project, "runName": run});
        if let Some([entity, project]) = artifact_place {
            input["artifactEntityName"] = json!(entity);
            input["artifactProjectName"] = json!(project);
        }
        let variables = json!({"input": input});
        let (data, errors) =
            self.graphql::<Map<String, Value>>(Call::Query, NAME, USE_ARTIFACT, Some(variables), cancel).await?;
        self.needed(data, errors, NAME).map(drop)
    }

    /// The server's id of what a client knows by its own; `None` when the server does not know it.
    pub async fn client_id_mapping(
        &self,
        client_id: &str,
        cancel: &CancellationToken,
    ) -> Result<Option<String>, ApiError> {
        const NAME: &str = "ClientIDMapping";
        let variables = json!({"clientID": client_id});
        let (data, errors) =
            self.graphql::<MappingData>(Call::Query, NAME, CLIENT_ID_MAPPING, Some(variables), cancel).await?;
        Ok(self.needed(data, errors, NAME)?.client_id_mapping.map(|mapping| mapping.server_id))
    }

    /// Looks at a version.
    pub async fn artifact_version(&self, id: &str, cancel: &CancellationToken) -> Result<ArtifactVersion, ApiError> {
        const NAME: &str = "ArtifactByID";
        let variables = json!({"id": id});
        let (data, errors) =
            self.graphql::<VersionData>(Call::Query, NAME, ARTIFACT_BY_ID, Some(variables), cancel).await?;
        let there = self.needed(data.and_then(|data| data.artifact), errors, NAME)?;
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

/// `Name:value`, split at the first colon.
fn split_headers(headers: Option<Vec<String>>) -> Vec<(String, String)> {
    let split =
        |header: String| header.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    headers.unwrap_or_default().into_iter().filter_map(split).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateData {
    create_artifact: Option<CreatePayload>,
}

#[derive(Deserialize)]
struct CreatePayload {
    artifact: Option<CreatedNode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreatedNode {
    id: String,
    state: ArtifactState,
    artifact_sequence: Option<Sequence>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sequence {
    latest_artifact: Option<Identified>,
}

#[derive(Deserialize)]
struct Identified {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestData {
    create_artifact_manifest: Option<ManifestPayload>,
    update_artifact_manifest: Option<ManifestPayload>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestPayload {
    artifact_manifest: ManifestNode,
}

#[derive(Deserialize)]
struct ManifestNode {
    id: String,
    file: Option<ManifestFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestFile {
    upload_url: Option<String>,
    upload_headers: Option<Vec<String>>,
}

impl ManifestNode {
    fn place(self) -> ManifestPlace {
        let upload = self.file.and_then(|file| Some((file.upload_url?, file.upload_headers)));
        let upload = upload.map(|(url, headers)| Upload { url, headers: split_headers(headers) });
        ManifestPlace { id: self.id, upload }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FilesData {
    create_artifact_files: Option<FilesPayload>,
}

#[derive(Deserialize)]
struct FilesPayload {
    files: Files,
}

#[derive(Deserialize)]
struct Files {
    edges: Vec<FileEdge>,
}

#[derive(Deserialize)]
struct FileEdge {
    node: FileNode,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileNode {
    storage_path: Option<String>,
    upload_url: Option<String>,
    upload_headers: Option<Vec<String>>,
    upload_multipart_urls: Option<MultipartUrls>,
    artifact: Identified,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MultipartUrls {
    #[serde(rename = "uploadID")]
    upload_id: String,
    upload_url_parts: Vec<PartUrl>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartUrl {
    part_number: u64,
    upload_url: String,
}

impl FileNode {
    fn place(self) -> FilePlace {
        let headers = split_headers(self.upload_headers);
        let upload = match (self.upload_multipart_urls, self.upload_url) {
            (Some(parts), _) => {
                let content_type = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
                FileUpload::Parts {
                    upload_id: parts.upload_id,
                    storage_path: self.storage_path.unwrap_or_default(),
                    content_type: content_type.map(|(_, value)| value.clone()).unwrap_or_default(),
                    urls: parts.upload_url_parts.into_iter().map(|part| (part.part_number, part.upload_url)).collect(),
                }
            }
            (None, Some(url)) => FileUpload::Whole(Upload { url, headers }),
            (None, None) => FileUpload::Known,
        };
        FilePlace { birth: self.artifact.id, upload }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MappingData {
    #[serde(rename = "clientIDMapping")]
    client_id_mapping: Option<Mapping>,
}

#[derive(Deserialize)]
struct Mapping {
    #[serde(rename = "serverID")]
    server_id: String,
}

#[derive(Deserialize)]
struct VersionData {
    artifact: Option<VersionNode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionNode {
    state: ArtifactState,
    digest: Option<String>,
    version_index: Option<u64>,
    aliases: Option<Vec<AliasNode>>,
}

#[derive(Deserialize)]
struct AliasNode {
    alias: String,
}
