//! Artifacts: created, filled, committed, and deduplicated by digest as the real server does.
//!
//! Strict about the order in which a version is made, and about what it then holds: files before the manifest, the
//! manifest before the commit, every digest the one that was announced, and every file of a manifest somewhere here.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest as _, Md5};
use serde::Serialize;
use serde_json::{Value, json};

use super::graphql::Field;
use super::http::hex;
use super::schema::{Context, Input};
use super::state::{StoredFile, Target, ViolationKind, World};

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
    pub ttl_seconds: Option<i64>,
    pub aliases: Vec<String>,
    pub tags: Vec<String>,
    pub distributed_id: Option<String>,
    pub storage_region: Option<String>,
    /// Only a committed artifact has one.
    pub version: Option<usize>,
    /// `FULL`, `PATCH` or `INCREMENTAL`, once there is a manifest.
    pub manifest_type: Option<String>,
    /// The version that the manifest builds upon.
    pub base: Option<String>,
    /// The text of the manifest as uploaded.
    pub manifest: Option<String>,
    /// The files that were uploaded for this version, by path.
    pub files: BTreeMap<String, StoredFile>,
    /// Ids of the runs that use it.
    pub used_by: BTreeSet<String>,
    /// How often the same version was asked for again, and found.
    pub found_again: usize,
    /// Files that were asked for and got an address, by path, until they are there.
    #[serde(skip)]
    pub(super) wanted: BTreeMap<String, String>,
    /// Digests and sizes of the files that were really uploaded for it.
    #[serde(skip)]
    pub(super) stored_md5: BTreeMap<String, usize>,
    #[serde(skip)]
    pub(super) manifest_digest: Option<String>,
    /// How often it is shown as pending although it was committed.
    #[serde(skip)]
    pub(super) lag: usize,
}

/// A file that comes in parts.
#[derive(Debug, Clone)]
pub struct Multipart {
    artifact: String,
    name: String,
    md5: String,
    storage: String,
    announced: BTreeMap<i64, String>,
    parts: BTreeMap<i64, bytes::Bytes>,
}

const CREATE_INPUT: [&str; 20] = [
    "entityName",
    "projectName",
    "artifactTypeName",
    "artifactCollectionName",
    "artifactCollectionNames",
    "runName",
    "digest",
    "digestAlgorithm",
    "description",
    "metadata",
    "labels",
    "aliases",
    "tags",
    "ttlDurationSeconds",
    "historyStep",
    "enableDigestDeduplication",
    "distributedID",
    "clientID",
    "sequenceClientID",
    "storageRegion",
];

impl Artifact {
    fn same_sequence(&self, other: &Artifact) -> bool {
        (&self.entity, &self.project, &self.name) == (&other.entity, &other.project, &other.name)
    }

    fn state(&self) -> &'static str {
        if self.version.is_some() { "COMMITTED" } else { "PENDING" }
    }

    /// The entries of the manifest.
    pub fn entries(&self) -> BTreeMap<String, Value> {
        let manifest: Value = serde_json::from_str(self.manifest.as_deref().unwrap()).unwrap();
        manifest["contents"].as_object().unwrap().clone().into_iter().collect()
    }
}

impl World {
    pub fn artifact(&self, name: &str) -> Option<&Artifact> {
        self.artifacts.iter().rev().find(|artifact| artifact.name == name)
    }

    pub(super) fn artifact_mut(&mut self, id: &str) -> Option<&mut Artifact> {
        self.artifacts.iter_mut().find(|artifact| artifact.id == id)
    }

    /// The artifact with which these bytes came first, as far as an upload for `artifact` may know of it.
    fn birth(&self, artifact: &Artifact, md5: &str) -> Option<&Artifact> {
        let may_know =
            |there: &&Artifact| there.id == artifact.id || (there.entity == artifact.entity && there.version.is_some());
        self.artifacts.iter().filter(may_know).find(|there| there.stored_md5.contains_key(md5))
    }

    /// Lets aliases stand for a version, and for no other any more.
    fn alias(&mut self, id: &str, aliases: &[String]) {
        let Some(artifact) = self.artifacts.iter().find(|there| there.id == id).cloned() else { return };
        for there in self.artifacts.iter_mut().filter(|there| there.same_sequence(&artifact)) {
            there.aliases.retain(|alias| !aliases.contains(alias));
            if there.id == id {
                there.aliases.extend(aliases.iter().cloned());
            }
        }
    }

    /// Keeps a file of an artifact; the error is what a store says to other bytes than were announced.
    pub(super) fn store_artifact_file(
        &mut self,
        artifact: &str,
        name: String,
        md5: String,
        file: StoredFile,
        body: &[u8],
    ) -> Result<(), String> {
        check_md5(body, &md5)?;
        let held = self.artifact_mut(artifact).ok_or("no such artifact")?;
        held.wanted.remove(&name);
        held.stored_md5.insert(md5, body.len());
        let uploads = held.files.get(&name).map_or(0, |file| file.uploads) + 1;
        held.files.insert(name, StoredFile { uploads, ..file });
        Ok(())
    }

    pub(super) fn store_manifest(&mut self, artifact: &str, body: &[u8]) -> Result<(), String> {
        let held = self.artifact_mut(artifact).ok_or("no such artifact")?;
        check_md5(body, held.manifest_digest.as_deref().unwrap_or_default())?;
        let mut text = String::from_utf8_lossy(body).into_owned();
        if let (Some("PATCH"), Some(before)) = (held.manifest_type.as_deref(), &held.manifest) {
            text = patched(before, &text)?;
        }
        held.manifest = Some(text);
        Ok(())
    }

    pub(super) fn store_part(&mut self, upload: &str, number: i64, body: bytes::Bytes) -> Result<(), String> {
        let multipart = self.multiparts.get_mut(upload).ok_or("no such upload")?;
        let announced = multipart.announced.get(&number).ok_or("no such part")?;
        if *announced != hex(&Md5::digest(&body)) {
            return Err(format!("the MD5 of part {number} does not match"));
        }
        multipart.parts.insert(number, body);
        Ok(())
    }

    fn disorder(&mut self, artifact: &str, text: impl Into<String>) -> String {
        let text = text.into();
        self.complain(ViolationKind::Artifact, artifact, text.clone());
        text
    }
}

/// The manifest of one part of an artifact, with the entries of the parts before it.
fn patched(before: &str, part: &str) -> Result<String, String> {
    let read = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
    let (before, mut part) = (read(before)?, read(part)?);
    if let (Some(entries), Some(contents)) = (before["contents"].as_object(), part["contents"].as_object_mut()) {
        for (path, entry) in entries {
            contents.entry(path.clone()).or_insert_with(|| entry.clone());
        }
    }
    Ok(part.to_string())
}

fn check_md5(body: &[u8], md5: &str) -> Result<(), String> {
    let own = BASE64_STANDARD.encode(Md5::digest(body));
    if own == md5 { Ok(()) } else { Err(format!("the MD5 is {own}, announced was {md5}")) }
}

impl Context<'_> {
    fn artifact_of(&mut self, input: &Input) -> Result<&mut Artifact, String> {
        let id = input.text("artifactID").ok_or("`artifactID` is missing")?;
        self.world.artifact_mut(&id).ok_or_else(|| format!("artifact {id} not found"))
    }

    /// The artifact, which must not be whole yet.
    fn pending(&mut self, input: &Input, what: &str) -> Result<Artifact, String> {
        let artifact = self.artifact_of(input)?.clone();
        if artifact.version.is_some() {
            return Err(self.world.disorder(&artifact.name, format!("{what} of an artifact that is committed")));
        }
        Ok(artifact)
    }

    fn run_must_be_there(&mut self, entity: &str, project: &str, run: &str) -> Result<(), String> {
        let key = (entity.to_owned(), project.to_owned(), run.to_owned());
        if self.world.run_at(&key).is_some() {
            return Ok(());
        }
        let text = format!("an artifact of {entity}/{project}/{run}, which is not there");
        self.world.complain(ViolationKind::UnknownRun, run, text.clone());
        Err(text)
    }

    pub(super) fn create_artifact(&mut self, input: &Input) -> Result<Value, String> {
        if let Some(unknown) = input.0.iter().find(|(name, value)| {
            !value.is_null() && !CREATE_INPUT.contains(&name.as_str()) && name.as_str() != "clientMutationId"
        }) {
            return Err(format!("field `{}` is not defined by type CreateArtifactInput", unknown.0));
        }
        let required =
            |name: &str| input.text(name).filter(|text| !text.is_empty()).ok_or(format!("`{name}` is missing"));
        let list = |name: &str| input.0.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let named = |items: &[Value], name: &str| {
            items.iter().filter_map(|item| item.get(name)?.as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        // The official client names no entity when it syncs what was logged offline.
        let (entity, project) = self.place(input.text("entityName"), input.text("projectName"));
        let fresh = Artifact {
            id: encode(&format!("Artifact:{}", self.world.artifacts.len() + 1)),
            entity,
            project,
            kind: required("artifactTypeName")?,
            name: required("artifactCollectionName")?,
            run: input.text("runName"),
            digest: required("digest")?,
            client_id: required("clientID")?,
            sequence_client_id: required("sequenceClientID")?,
            description: input.text("description"),
            metadata: input.text("metadata"),
            ttl_seconds: input.0.get("ttlDurationSeconds").and_then(Value::as_i64),
            aliases: named(&list("aliases"), "alias"),
            tags: named(&list("tags"), "tagName"),
            distributed_id: input.text("distributedID"),
            storage_region: input.text("storageRegion"),
            lag: self.options.commit_lag,
            ..Artifact::default()
        };
        if fresh.client_id.len() != 128 || fresh.sequence_client_id.len() != 128 {
            return Err(self.world.disorder(&fresh.name, "client ids have 128 characters"));
        }
        if let Some(text) = &fresh.metadata
            && !serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object())
        {
            return Err(self.world.disorder(&fresh.name, format!("metadata is no JSON object: {text}")));
        }
        if let Some(run) = fresh.run.clone() {
            self.run_must_be_there(&fresh.entity, &fresh.project, &run)?;
        }
        let other_type =
            self.world.artifacts.iter().find(|there| there.same_sequence(&fresh) && there.kind != fresh.kind);
        if let Some(other) = other_type {
            return Err(format!("artifact `{}` has the type `{}`", fresh.name, other.kind));
        }
        let latest = self.world.artifacts.iter().filter(|there| there.same_sequence(&fresh) && there.version.is_some());
        let latest = latest.max_by_key(|there| there.version).map(|there| json!({"id": there.id}));
        let deduplicate = input.0.get("enableDigestDeduplication") == Some(&json!(true));
        // The same client id is the same request, sent again; the same digest is the same content.
        let there = self.world.artifacts.iter_mut().find(|there| {
            let same_content = deduplicate && there.digest == fresh.digest && there.version.is_some();
            let same_part = fresh.distributed_id.is_some() && there.distributed_id == fresh.distributed_id;
            there.same_sequence(&fresh) && (there.client_id == fresh.client_id || same_content || same_part)
        });
        let (id, state) = match there {
            Some(there) => {
                there.found_again += 1;
                let (id, state) = (there.id.clone(), there.state());
                if state == "COMMITTED" {
                    self.world.alias(&id, &fresh.aliases);
                }
                (id, state)
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
        let artifact = self.pending(input, "a manifest")?;
        let (entity, project) = self.place(input.text("entityName"), input.text("projectName"));
        self.run_must_be_there(&entity, &project, &input.text("runName").ok_or("`runName` is missing")?)?;
        let digest = input.text("digest").filter(|digest| !digest.is_empty());
        if digest.is_some() {
            self.files_first(&artifact)?;
        }
        let base = input.text("baseArtifactID");
        if let Some(base) = &base
            && self.world.artifacts.iter().all(|there| there.id != *base)
        {
            return Err(format!("base artifact {base} not found"));
        }
        let held = self.artifact_of(input)?;
        held.manifest_type = input.text("type");
        held.manifest_digest = digest;
        held.base = base;
        self.manifest_answer(&artifact.id)
    }

    pub(super) fn update_artifact_manifest(&mut self, input: &Input) -> Result<Value, String> {
        let manifest = input.text("artifactManifestID").ok_or("`artifactManifestID` is missing")?;
        let id = manifest.strip_prefix("manifest-of-").ok_or("no such manifest")?.to_owned();
        let artifact = self.world.artifact_mut(&id).ok_or("no such manifest")?.clone();
        self.files_first(&artifact)?;
        if artifact.manifest_type.as_deref().is_none_or(|kind| kind == "FULL") {
            return Err(self.world.disorder(&artifact.name, "an update of a manifest that is the whole one"));
        }
        if let Some(held) = self.world.artifact_mut(&id) {
            held.manifest_digest = input.text("digest");
        }
        self.manifest_answer(&id)
    }

    /// The manifest is finished last.
    fn files_first(&mut self, artifact: &Artifact) -> Result<(), String> {
        if artifact.manifest_type.is_none() {
            return Err(self.world.disorder(&artifact.name, "a manifest was finished that was never begun"));
        }
        match artifact.wanted.keys().next() {
            // It may be on its way with another part.
            Some(_) if artifact.manifest_type.as_deref() == Some("PATCH") => Ok(()),
            Some(file) => Err(self.world.disorder(&artifact.name, format!("a manifest before `{file}` was uploaded"))),
            None => Ok(()),
        }
    }

    fn manifest_answer(&mut self, id: &str) -> Result<Value, String> {
        let digest = self.world.artifact_mut(id).and_then(|artifact| artifact.manifest_digest.clone());
        let headers: Vec<String> = digest.iter().map(|digest| format!("Content-MD5:{digest}")).collect();
        let target = Target::Manifest { artifact: id.to_owned() };
        let url = self.grant(&format!("artifacts/{id}/wandb_manifest.json"), target, headers.clone());
        let file = json!({"id": format!("file-of-{id}"), "uploadUrl": url, "uploadHeaders": headers});
        Ok(json!({"artifactManifest": {"id": format!("manifest-of-{id}"), "file": file}}))
    }

    pub(super) fn create_artifact_files(&mut self, input: &Input) -> Result<Value, String> {
        let specs =
            input.0.get("artifactFiles").and_then(Value::as_array).cloned().ok_or("`artifactFiles` is missing")?;
        if input.text("storageLayout").as_deref() != Some("V2") {
            return Err("`storageLayout` must be V2".to_owned());
        }
        let mut edges = Vec::new();
        for spec in specs {
            let spec = Input(spec.as_object().cloned().unwrap_or_default());
            let artifact = self.pending(&spec, "files")?;
            let manifest = spec.text("artifactManifestID");
            if artifact.manifest_type.is_none() || manifest != Some(format!("manifest-of-{}", artifact.id)) {
                return Err(self.world.disorder(&artifact.name, "files before their manifest was made"));
            }
            let name = spec.text("name").ok_or("`name` is missing")?;
            let md5 = spec.text("md5").ok_or("`md5` is missing")?;
            if BASE64_STANDARD.decode(&md5).ok().is_none_or(|md5| md5.len() != 16) {
                return Err(self.world.disorder(&artifact.name, format!("`{md5}` is no MD5 in base64")));
            }
            let birth = self.world.birth(&artifact, &md5).map(|birth| birth.id.clone());
            let storage = format!("artifacts/{}/{name}", artifact.id);
            let mut node = json!({
                "id": format!("file:{storage}"), "name": name, "displayName": name, "storagePath": storage,
                "uploadUrl": null, "uploadHeaders": [], "uploadMultipartUrls": null,
                "artifact": {"id": birth.as_ref().unwrap_or(&artifact.id)},
            });
            let parts = spec.0.get("uploadPartsInput").and_then(Value::as_array).cloned();
            let headers = vec![format!("Content-MD5:{md5}")];
            // Somebody else may have brought what was wanted before.
            if birth.is_some()
                && let Some(held) = self.world.artifact_mut(&artifact.id)
            {
                held.wanted.remove(&name);
            }
            if birth.is_none() {
                node["uploadHeaders"] = json!(headers);
                if let Some(held) = self.world.artifact_mut(&artifact.id) {
                    held.wanted.insert(name.clone(), md5.clone());
                }
                match parts {
                    None => {
                        let target = Target::ArtifactFile { artifact: artifact.id, name, md5 };
                        node["uploadUrl"] = json!(self.grant(&storage, target, headers));
                    }
                    Some(parts) => {
                        let upload = Multipart {
                            artifact: artifact.id,
                            name,
                            md5,
                            storage,
                            announced: BTreeMap::new(),
                            parts: BTreeMap::new(),
                        };
                        node["uploadHeaders"] = json!(["Content-Type:application/x-part"]);
                        node["uploadMultipartUrls"] = self.multipart(upload, &parts)?;
                    }
                }
            }
            edges.push(json!({"node": node}));
        }
        Ok(json!({"files": {"edges": edges}}))
    }

    fn multipart(&mut self, mut upload: Multipart, parts: &[Value]) -> Result<Value, String> {
        let id = format!("upload-{}", self.world.multiparts.len() + 1);
        let mut urls = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let number = part.get("partNumber").and_then(Value::as_i64).unwrap_or_default();
            let md5 = part.get("hexMD5").and_then(Value::as_str).unwrap_or_default().to_owned();
            let bytes: Option<Vec<u8>> = (0..md5.len() / 2)
                .map(|at| md5.get(2 * at..2 * at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()))
                .collect();
            let bytes = bytes.filter(|bytes| bytes.len() == 16 && number == index as i64 + 1);
            let Some(bytes) = bytes else {
                return Err(self.world.disorder(&upload.name, format!("part {number} with the MD5 `{md5}`")));
            };
            let headers = vec![
                format!("Content-MD5:{}", BASE64_STANDARD.encode(bytes)),
                "Content-Type:application/x-part".to_owned(),
            ];
            let target = Target::Part { upload: id.clone(), number };
            let url = self.grant(&format!("{}/{number}", upload.storage), target, headers);
            urls.push(json!({"partNumber": number, "uploadUrl": url}));
            upload.announced.insert(number, md5);
        }
        self.world.multiparts.insert(id.clone(), upload);
        Ok(json!({"uploadID": id, "uploadUrlParts": urls}))
    }

    pub(super) fn complete_multipart(&mut self, input: &Input) -> Result<Value, String> {
        let id = input.text("uploadID").ok_or("`uploadID` is missing")?;
        let upload = self.world.multiparts.get(&id).cloned().ok_or("no such upload")?;
        let named = (input.text("artifactID"), input.text("storagePath"));
        if named != (Some(upload.artifact.clone()), Some(upload.storage.clone())) {
            return Err(self.world.disorder(&upload.name, format!("an upload was completed as {named:?}")));
        }
        let told = input.0.get("completedParts").and_then(Value::as_array).cloned().unwrap_or_default();
        let told: BTreeMap<i64, String> = told
            .iter()
            .filter_map(|part| Some((part.get("partNumber")?.as_i64()?, part.get("hexMD5")?.as_str()?.to_owned())))
            .collect();
        let marks = upload.parts.iter().map(|(number, body)| (*number, etag(body))).collect();
        if told != marks || upload.parts.len() != upload.announced.len() {
            let text =
                format!("completed with {} of {} parts, or with other marks", told.len(), upload.announced.len());
            return Err(self.world.disorder(&upload.name, text));
        }
        let body: Vec<u8> = upload.parts.values().flatten().copied().collect();
        let file = StoredFile { size: body.len(), sha256: sha256(&body), uploads: 1, bytes: Some(body.clone().into()) };
        self.world.store_artifact_file(&upload.artifact, upload.name, upload.md5.clone(), file, &body)?;
        Ok(json!({"digest": upload.md5}))
    }

    pub(super) fn commit_artifact(&mut self, input: &Input) -> Result<Value, String> {
        let artifact = self.artifact_of(input)?.clone();
        if artifact.version.is_none() {
            if let Err(why) = self.is_whole(&artifact) {
                return Err(self.world.disorder(&artifact.name, why));
            }
            let same = self.world.artifacts.iter().filter(|there| there.same_sequence(&artifact));
            let version = same.filter_map(|there| there.version).max().map_or(0, |version| version + 1);
            self.artifact_of(input)?.version = Some(version);
            let aliases: BTreeSet<String> = artifact.aliases.iter().cloned().chain(["latest".to_owned()]).collect();
            self.world.alias(&artifact.id, &aliases.into_iter().collect::<Vec<_>>());
        }
        Ok(json!({"artifact": {"id": artifact.id, "digest": artifact.digest}}))
    }

    /// Whether the manifest is the one that was announced, and all that it speaks of is here.
    fn is_whole(&self, artifact: &Artifact) -> Result<(), String> {
        let text = artifact.manifest.as_deref().ok_or("the artifact has no manifest yet")?;
        let manifest: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let head =
            (&manifest["version"], &manifest["storagePolicy"], &manifest["storagePolicyConfig"]["storageLayout"]);
        if head != (&json!(1), &json!("wandb-storage-policy-v1"), &json!("V2")) {
            return Err(format!("not a manifest of version 1: {head:?}"));
        }
        let contents: BTreeMap<String, Value> =
            manifest["contents"].as_object().ok_or("no contents")?.clone().into_iter().collect();
        let mut hash = Md5::new();
        hash.update("wandb-artifact-manifest-v1\n");
        for (path, entry) in &contents {
            let digest = entry["digest"].as_str().ok_or(format!("`{path}` has no digest"))?;
            hash.update(format!("{path}:{digest}\n"));
            if let Some(reference) = entry["ref"].as_str() {
                if reference.starts_with("wandb-client-artifact:") {
                    return Err(format!("`{path}` refers to something by its client's id"));
                }
                continue;
            }
            let birth = entry["birthArtifactID"].as_str().ok_or(format!("`{path}` has no birth artifact"))?;
            let birth = self.world.artifacts.iter().find(|there| there.id == birth);
            let stored = birth.and_then(|birth| birth.stored_md5.get(digest));
            if stored.copied() != entry["size"].as_u64().and_then(|size| usize::try_from(size).ok()) {
                return Err(format!("`{path}` is {} bytes in the manifest, and {stored:?} here", entry["size"]));
            }
        }
        if artifact.manifest_type.as_deref() == Some("FULL") && hex(&hash.finalize()) != artifact.digest {
            return Err("the digest of the artifact is not that of its manifest".to_owned());
        }
        Ok(())
    }

    pub(super) fn use_artifact(&mut self, input: &Input) -> Result<Value, String> {
        let (entity, project) = self.place(input.text("entityName"), input.text("projectName"));
        let run = input.text("runName").ok_or("`runName` is missing")?;
        self.run_must_be_there(&entity, &project, &run)?;
        let artifact = self.artifact_of(input)?.clone();
        if artifact.version.is_none() {
            return Err(self.world.disorder(&artifact.name, "used before it was committed"));
        }
        self.artifact_of(input)?.used_by.insert(run);
        Ok(json!({"artifact": {"id": artifact.id}}))
    }

    pub(super) fn client_id_mapping(&self, field: &Field) -> Value {
        let wanted = field.text("clientID").unwrap_or_default();
        let found = self.world.artifacts.iter().find(|artifact| artifact.client_id == wanted);
        found.map_or(Value::Null, |artifact| json!({"serverID": artifact.id}))
    }

    /// A version by its id, with what the official client asks of it.
    pub(super) fn artifact_by_id(&mut self, field: &Field) -> Value {
        let Some(artifact) = field.text("id").and_then(|id| self.world.artifact_mut(&id)) else { return Value::Null };
        let lags = artifact.version.is_some() && artifact.lag > 0;
        artifact.lag = artifact.lag.saturating_sub(usize::from(lags));
        let artifact = artifact.clone();
        let entity = json!({"name": artifact.entity});
        let project = json!({"id": "UHJvamVjdDox", "internalId": "1", "name": artifact.project, "entity": entity});
        let sequence = json!({"__typename": "ArtifactSequence", "name": artifact.name, "project": project});
        let aliases = artifact.aliases.iter().map(
            |alias| json!({"__typename": "ArtifactAlias", "id": alias, "alias": alias, "artifactCollection": sequence}),
        );
        let tags = artifact.tags.iter().map(|tag| json!({"__typename": "Tag", "id": tag, "name": tag}));
        json!({
            "__typename": "Artifact", "id": artifact.id, "artifactSequence": sequence,
            "versionIndex": artifact.version, "artifactType": {"name": artifact.kind},
            "description": artifact.description, "metadata": artifact.metadata,
            "ttlDurationSeconds": artifact.ttl_seconds.unwrap_or(-2), "ttlIsInherited": false,
            "tags": tags.collect::<Vec<_>>(), "historyStep": null,
            "state": if lags { "PENDING" } else { artifact.state() },
            "size": artifact.files.values().map(|file| file.size).sum::<usize>(), "digest": artifact.digest,
            "digestAlgorithm": "MANIFEST_MD5", "commitHash": null, "fileCount": artifact.files.len(),
            "createdAt": "2026-01-01T00:00:00", "updatedAt": null, "aliases": aliases.collect::<Vec<_>>(),
        })
    }
}

/// The store's mark of what it was sent.
pub(super) fn etag(body: &[u8]) -> String {
    format!("\"{}\"", sha256(body))
}

fn sha256(body: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(body))
}

fn encode(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}
