//! What is asked and told about a version of an artifact.

use serde::{Deserialize, Serialize};

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
