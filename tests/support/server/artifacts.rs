//! Artifacts: created, filled, committed, and deduplicated by digest as the real server does.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::schema::{Context, Input};
use super::state::{StoredFile, Target, World};

/// One artifact version.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Artifact {
    pub id: String,
    pub entity: String,
    pub project: String,
    pub kind: String,
    pub name: String,
    pub run: Option<String>,
    pub digest: String,
    pub client_id: String,
    pub sequence_client_id: String,
    pub description: Option<String>,
    pub metadata: Option<String>,
    pub aliases: Vec<String>,
    pub tags: Vec<String>,
    /// Only a committed artifact has one.
    pub version: Option<usize>,
    /// The text of the manifest as uploaded.
    pub manifest: Option<String>,
    /// The files that were uploaded for this version, by path.
    pub files: BTreeMap<String, StoredFile>,
    /// Ids of the runs that use it.
    pub used_by: BTreeSet<String>,
    /// Digests of the files that were really uploaded for it.
    #[serde(skip)]
    pub(super) stored_md5: BTreeSet<String>,
}

impl Artifact {
    fn same_sequence(&self, other: &Artifact) -> bool {
        (&self.entity, &self.project, &self.name) == (&other.entity, &other.project, &other.name)
    }

    fn state(&self) -> &'static str {
        if self.version.is_some() { "COMMITTED" } else { "PENDING" }
    }
}

impl World {
    pub fn artifact(&self, name: &str) -> Option<&Artifact> {
        self.artifacts.iter().rev().find(|artifact| artifact.name == name)
    }

    pub(super) fn artifact_mut(&mut self, id: &str) -> Option<&mut Artifact> {
        self.artifacts.iter_mut().find(|artifact| artifact.id == id)
    }
}

impl Context<'_> {
    fn artifact_of(&mut self, input: &Input) -> Result<&mut Artifact, String> {
        let id = input.text("artifactID").ok_or("`artifactID` is missing")?;
        self.world.artifact_mut(&id).ok_or_else(|| format!("artifact {id} not found"))
    }

    pub(super) fn create_artifact(&mut self, input: &Input) -> Result<Value, String> {
        let required = |name: &str| input.text(name).ok_or_else(|| format!("`{name}` is missing"));
        let aliases = input.0.get("aliases").and_then(Value::as_array).cloned().unwrap_or_default();
        let tags = input.0.get("tags").and_then(Value::as_array).cloned().unwrap_or_default();
        let named = |items: &[Value], name: &str| {
            items.iter().filter_map(|item| item.get(name)?.as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        let fresh = Artifact {
            id: encode(&format!("Artifact:{}", self.world.artifacts.len() + 1)),
            entity: required("entityName")?,
            project: required("projectName")?,
            kind: required("artifactTypeName")?,
            name: required("artifactCollectionName")?,
            run: input.text("runName"),
            digest: required("digest")?,
            client_id: required("clientID")?,
            sequence_client_id: required("sequenceClientID")?,
            description: input.text("description"),
            metadata: input.text("metadata"),
            aliases: named(&aliases, "alias"),
            tags: named(&tags, "tagName"),
            ..Artifact::default()
        };
        let latest = self.world.artifacts.iter().filter(|there| there.same_sequence(&fresh) && there.version.is_some());
        let latest = latest.max_by_key(|there| there.version).map(|there| json!({"id": there.id}));
        // The same client id is the same request, sent again; the same digest is the same content.
        let there = self.world.artifacts.iter_mut().find(|there| {
            there.same_sequence(&fresh)
                && (there.client_id == fresh.client_id || (there.digest == fresh.digest && there.version.is_some()))
        });
        let (id, state) = match there {
            Some(there) => {
                there.aliases.extend(fresh.aliases);
                (there.id.clone(), there.state())
            }
            None => {
                let id = fresh.id.clone();
                self.world.artifacts.push(fresh);
                (id, "PENDING")
            }
        };
        Ok(json!({"artifact": {"id": id, "state": state, "artifactSequence": {"latestArtifact": latest}}}))
    }

    pub(super) fn create_artifact_manifest(&mut self, input: &Input) -> Result<Value, String> {
        let id = self.artifact_of(input)?.id.clone();
        self.manifest_answer(&id)
    }

    pub(super) fn update_artifact_manifest(&mut self, input: &Input) -> Result<Value, String> {
        let manifest = input.text("artifactManifestID").ok_or("`artifactManifestID` is missing")?;
        let id = manifest.strip_prefix("manifest-of-").ok_or("no such manifest")?.to_owned();
        self.manifest_answer(&id)
    }

    fn manifest_answer(&mut self, id: &str) -> Result<Value, String> {
        let target = Target::Manifest { artifact: id.to_owned() };
        let url = self.grant(&format!("artifacts/{id}/wandb_manifest.json"), target, Vec::new());
        let file = json!({"id": format!("file-of-{id}"), "uploadUrl": url, "uploadHeaders": []});
        Ok(json!({"artifactManifest": {"id": format!("manifest-of-{id}"), "file": file}}))
    }

    pub(super) fn create_artifact_files(&mut self, input: &Input) -> Result<Value, String> {
        let specs =
            input.0.get("artifactFiles").and_then(Value::as_array).cloned().ok_or("`artifactFiles` is missing")?;
        let mut edges = Vec::new();
        for spec in specs {
            let spec = Input(spec.as_object().cloned().unwrap_or_default());
            let artifact = self.artifact_of(&spec)?.id.clone();
            let name = spec.text("name").ok_or("`name` is missing")?;
            let md5 = spec.text("md5").ok_or("`md5` is missing")?;
            let birth =
                self.world.artifacts.iter().find(|there| there.stored_md5.contains(&md5)).map(|there| there.id.clone());
            let storage = format!("artifacts/{artifact}/{name}");
            let mut node = json!({
                "id": format!("file:{storage}"), "name": name, "displayName": name, "storagePath": storage,
                "uploadUrl": null, "uploadHeaders": [], "uploadMultipartUrls": null,
                "artifact": {"id": birth.as_ref().unwrap_or(&artifact)},
            });
            let parts = spec.0.get("uploadPartsInput").and_then(Value::as_array).cloned();
            let headers = vec![format!("Content-MD5:{md5}")];
            if birth.is_none() {
                node["uploadHeaders"] = json!(headers);
                match parts {
                    None => {
                        let target = Target::ArtifactFile { artifact, name, md5 };
                        node["uploadUrl"] = json!(self.grant(&storage, target, headers));
                    }
                    Some(parts) => node["uploadMultipartUrls"] = self.multipart(&storage, &parts),
                }
            }
            edges.push(json!({"node": node}));
        }
        Ok(json!({"files": {"edges": edges}}))
    }

    fn multipart(&mut self, storage: &str, parts: &[Value]) -> Value {
        let mut urls = Vec::new();
        for part in parts {
            let number = part.get("partNumber").and_then(Value::as_i64).unwrap_or_default();
            let target = Target::Part { upload: storage.to_owned(), number };
            let url = self.grant(&format!("{storage}/{number}"), target, Vec::new());
            urls.push(json!({"partNumber": number, "uploadUrl": url}));
        }
        json!({"uploadID": storage, "uploadUrlParts": urls})
    }

    pub(super) fn complete_multipart(&mut self, input: &Input) -> Result<Value, String> {
        let upload = input.text("uploadID").ok_or("`uploadID` is missing")?;
        let parts = self.world.parts.remove(&upload).ok_or("no such upload")?;
        let size = parts.values().map(bytes::Bytes::len).sum();
        let name = upload.rsplit('/').next().unwrap_or_default().to_owned();
        self.artifact_of(input)?.files.insert(name, StoredFile { size, uploads: 1, ..StoredFile::default() });
        Ok(json!({"digest": upload}))
    }

    pub(super) fn commit_artifact(&mut self, input: &Input) -> Result<Value, String> {
        let artifact = self.artifact_of(input)?.clone();
        if artifact.manifest.is_none() {
            return Err("the artifact has no manifest yet".to_owned());
        }
        let same = self.world.artifacts.iter().filter(|there| there.same_sequence(&artifact));
        let version = same.filter_map(|there| there.version).max().map_or(0, |version| version + 1);
        let held = self.artifact_of(input)?;
        held.version = held.version.or(Some(version));
        Ok(json!({"artifact": {"id": held.id, "digest": held.digest}}))
    }

    pub(super) fn use_artifact(&mut self, input: &Input) -> Result<Value, String> {
        let run = input.text("runName").ok_or("`runName` is missing")?;
        let artifact = self.artifact_of(input)?;
        artifact.used_by.insert(run);
        Ok(json!({"artifact": {"id": artifact.id}}))
    }

    pub(super) fn client_id_mapping(&self, field: &super::graphql::Field) -> Value {
        let wanted = field.text("clientID").unwrap_or_default();
        let found = self.world.artifacts.iter().find(|artifact| artifact.client_id == wanted);
        found.map_or(Value::Null, |artifact| json!({"serverID": artifact.id}))
    }
}

fn encode(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(text)
}
