//! The server's answers to the operations on artifacts, as they come.

use serde::Deserialize;

use crate::api::artifacts::version::{ArtifactState, FilePlace, FileUpload, ManifestPlace, Upload};
use crate::api::storage::split_headers;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateData {
    pub(super) create_artifact: Option<CreatePayload>,
}

#[derive(Deserialize)]
pub(super) struct CreatePayload {
    pub(super) artifact: Option<CreatedNode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatedNode {
    pub(super) id: String,
    pub(super) state: ArtifactState,
    pub(super) artifact_sequence: Option<Sequence>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sequence {
    pub(super) latest_artifact: Option<Identified>,
}

#[derive(Deserialize)]
pub(super) struct Identified {
    pub(super) id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManifestData {
    pub(super) create_artifact_manifest: Option<ManifestPayload>,
    pub(super) update_artifact_manifest: Option<ManifestPayload>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManifestPayload {
    pub(super) artifact_manifest: ManifestNode,
}

#[derive(Deserialize)]
pub(super) struct ManifestNode {
    pub(super) id: String,
    pub(super) file: Option<ManifestFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManifestFile {
    pub(super) upload_url: Option<String>,
    pub(super) upload_headers: Option<Vec<String>>,
}

impl ManifestNode {
    pub(super) fn place(self) -> ManifestPlace {
        let upload = self.file.and_then(|file| Some((file.upload_url?, file.upload_headers)));
        let upload = upload.map(|(url, headers)| Upload { url, headers: split_headers(headers) });
        ManifestPlace { id: self.id, upload }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FilesData {
    pub(super) create_artifact_files: Option<FilesPayload>,
}

#[derive(Deserialize)]
pub(super) struct FilesPayload {
    pub(super) files: Files,
}

#[derive(Deserialize)]
pub(super) struct Files {
    pub(super) edges: Vec<FileEdge>,
}

#[derive(Deserialize)]
pub(super) struct FileEdge {
    pub(super) node: FileNode,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileNode {
    pub(super) storage_path: Option<String>,
    pub(super) upload_url: Option<String>,
    pub(super) upload_headers: Option<Vec<String>>,
    pub(super) upload_multipart_urls: Option<MultipartUrls>,
    pub(super) artifact: Identified,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MultipartUrls {
    #[serde(rename = "uploadID")]
    pub(super) upload_id: String,
    pub(super) upload_url_parts: Vec<PartUrl>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartUrl {
    pub(super) part_number: u64,
    pub(super) upload_url: String,
}

impl FileNode {
    pub(super) fn place(self) -> FilePlace {
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
pub(super) struct MappingData {
    #[serde(rename = "clientIDMapping")]
    pub(super) client_id_mapping: Option<Mapping>,
}

#[derive(Deserialize)]
pub(super) struct Mapping {
    #[serde(rename = "serverID")]
    pub(super) server_id: String,
}

#[derive(Deserialize)]
pub(super) struct VersionData {
    pub(super) artifact: Option<VersionNode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionNode {
    pub(super) state: ArtifactState,
    pub(super) digest: Option<String>,
    pub(super) version_index: Option<u64>,
    pub(super) aliases: Option<Vec<AliasNode>>,
}

#[derive(Deserialize)]
pub(super) struct AliasNode {
    pub(super) alias: String,
}
