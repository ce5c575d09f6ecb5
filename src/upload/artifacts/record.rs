//! Versions as logs record them.
//!
//! A record names the files of a version where they lay when it was written, usually as copies of the official client's in
//! a folder of its own; a large manifest lies beside them in a file. Neither is changed or deleted here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use crate::api::{ManifestKind, NewArtifact};
use crate::artifact::{Entry, LocalFile, Manifest, Places};
use crate::model::{Json, Number};
use crate::proto::wandb_internal::{ArtifactManifest, ArtifactManifestEntry, ArtifactRecord};
use crate::upload::artifacts::ArtifactUpload;

/// How much text of a manifest's file is read.
const LONGEST_MANIFEST: u64 = 4 << 30;

/// A record of which no version can be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// It says nothing of what the version holds.
    #[error("it holds no manifest")]
    NoManifest,
    /// The file that lists its contents cannot be read.
    #[error("the list of its files, `{}`, cannot be read: {source}", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// What the system said, or what is wrong in the file.
        source: io::Error,
    },
    /// Its digests are not MD5.
    #[error("its digests are made by `{0}`, which this program does not know")]
    Algorithm(String),
}

/// The version that a record is about, for a run as the server names it.
///
/// Entity, project and run of the record are those of the time when it was written; they may be empty, or another run's
/// when the log is sent to another place. So the run's are taken.
pub(crate) fn from_record(
    record: ArtifactRecord,
    run: [String; 3],
    places: Arc<Places>,
) -> Result<ArtifactUpload, RecordError> {
    let known = ["", "MANIFEST_MD5"];
    if !known.contains(&record.digest_algorithm.as_str()) {
        return Err(RecordError::Algorithm(record.digest_algorithm));
    }
    let manifest = manifest(record.manifest.ok_or(RecordError::NoManifest)?, &places)?;
    let [entity, project, run_id] = run.clone();
    let kind = match (record.incremental_beta1, record.distributed_id.is_empty()) {
        (true, _) => ManifestKind::Incremental,
        (false, false) => ManifestKind::Patch,
        (false, true) => ManifestKind::Full,
    };
    let new = NewArtifact {
        entity,
        project,
        kind: record.r#type,
        name: record.name,
        run_id: (!record.user_created).then_some(run_id),
        digest: record.digest,
        description: record.description,
        metadata: record.metadata,
        aliases: record.aliases,
        tags: record.tags,
        ttl_seconds: record.ttl_duration_seconds,
        distributed_id: record.distributed_id,
        client_id: record.client_id,
        sequence_client_id: record.sequence_client_id,
        storage_region: manifest.storage_region.clone(),
    };
    Ok(ArtifactUpload {
        new,
        manifest,
        places,
        run,
        kind,
        base: Some(record.base_id).filter(|base| !base.is_empty()),
        finalize: record.finalize,
        use_after_commit: record.use_after_commit,
        second_client_id: None,
    })
}

fn manifest(record: ArtifactManifest, places: &Places) -> Result<Manifest, RecordError> {
    let region = record.storage_policy_config.iter().find(|item| item.key == "storageRegion");
    let region = region.and_then(|item| Json::parse(&item.value_json).ok()?.as_str().map(str::to_owned));
    let mut entries = BTreeMap::new();
    if !record.manifest_file_path.is_empty() {
        let path = PathBuf::from(record.manifest_file_path);
        let here = places.candidates(&path).find(|path| path.is_file());
        entries = read_list(here.as_deref().unwrap_or(&path)).map_err(|source| RecordError::List { path, source })?;
    }
    entries.extend(record.contents.into_iter().map(entry));
    Ok(Manifest { storage_region: region, entries })
}

fn entry(entry: ArtifactManifestEntry) -> (String, Entry) {
    let set = |text: String| Some(text).filter(|text| !text.is_empty());
    let extra = entry.extra.into_iter().filter_map(|item| Some((item.key, Json::parse(&item.value_json).ok()?)));
    let made = Entry {
        digest: entry.digest,
        size: u64::try_from(entry.size).unwrap_or_default(),
        reference: set(entry.r#ref),
        birth_artifact: set(entry.birth_artifact_id),
        extra: extra.collect(),
        local: set(entry.local_path).map(|path| LocalFile { path: PathBuf::from(path), mark: None }),
    };
    (entry.path, made)
}

/// The file of a large manifest: gzip, one JSON object a line.
fn read_list(path: &Path) -> io::Result<BTreeMap<String, Entry>> {
    let mut lines = BufReader::new(MultiGzDecoder::new(BufReader::new(File::open(path)?)).take(LONGEST_MANIFEST));
    let mut entries = BTreeMap::new();
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            break;
        }
        if !line.trim().is_empty() {
            let number = entries.len() + 1;
            let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("entry {number}: {why}"));
            let (path, entry) = listed(&line).map_err(wrong)?;
            entries.insert(path, entry);
        }
    }
    // What was cut off would be missing from the version.
    if lines.into_inner().limit() == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {LONGEST_MANIFEST} bytes")));
    }
    Ok(entries)
}

fn listed(line: &str) -> Result<(String, Entry), String> {
    let json = Json::parse(line.trim_end()).map_err(|error| error.to_string())?;
    let text = |key: &str| json.get(key).and_then(Json::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let size = match json.get("size") {
        Some(Json::Number(Number::I64(size))) => u64::try_from(*size).unwrap_or_default(),
        Some(Json::Number(Number::U64(size))) => *size,
        _ => 0,
    };
    let entry = Entry {
        digest: text("digest").ok_or("it has no digest")?,
        size,
        reference: text("ref"),
        birth_artifact: text("birthArtifactID"),
        extra: json.get("extra").and_then(Json::as_object).cloned().unwrap_or_default(),
        local: text("local_path").map(|path| LocalFile { path: PathBuf::from(path), mark: None }),
    };
    Ok((text("path").ok_or("it has no path")?, entry))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::Write as _;

    use super::*;
    use crate::proto::wandb_internal::{ExtraItem, StoragePolicyConfigItem};

    fn run() -> [String; 3] {
        ["e", "p", "r"].map(str::to_owned)
    }

    fn record() -> ArtifactRecord {
        let contents = vec![
            ArtifactManifestEntry {
                path: "a".to_owned(),
                digest: "1".to_owned(),
                size: 3,
                local_path: "/staging/a".to_owned(),
                ..ArtifactManifestEntry::default()
            },
            ArtifactManifestEntry {
                path: "r".to_owned(),
                digest: "etag".to_owned(),
                r#ref: "s3://b/k".to_owned(),
                extra: vec![ExtraItem { key: "etag".to_owned(), value_json: r#""etag""#.to_owned() }],
                ..ArtifactManifestEntry::default()
            },
        ];
        ArtifactRecord {
            project: "old".to_owned(),
            name: "data".to_owned(),
            r#type: "dataset".to_owned(),
            manifest: Some(ArtifactManifest {
                storage_policy_config: vec![StoragePolicyConfigItem {
                    key: "storageRegion".to_owned(),
                    value_json: r#""there""#.to_owned(),
                }],
                contents,
                ..ArtifactManifest::default()
            }),
            finalize: true,
            ..ArtifactRecord::default()
        }
    }

    #[test]
    fn a_record_becomes_a_version_of_the_run_that_it_is_sent_to() {
        let upload = from_record(record(), run(), Arc::default()).unwrap();
        assert_eq!((upload.new.entity.as_str(), upload.new.project.as_str()), ("e", "p"));
        assert_eq!(upload.new.run_id.as_deref(), Some("r"));
        assert_eq!((upload.kind, upload.finalize, upload.base), (ManifestKind::Full, true, None));
        assert_eq!(upload.new.storage_region.as_deref(), Some("there"));
        let entries = &upload.manifest.entries;
        assert_eq!(entries["a"].local.as_ref().unwrap().path, Path::new("/staging/a"));
        assert_eq!(entries["r"].reference.as_deref(), Some("s3://b/k"));
        assert_eq!(entries["r"].extra["etag"], Json::from("etag"));
        let patch = ArtifactRecord { distributed_id: "d".to_owned(), user_created: true, ..record() };
        let upload = from_record(patch.clone(), run(), Arc::default()).unwrap();
        assert_eq!((upload.kind, upload.new.run_id), (ManifestKind::Patch, None));
        let upload = from_record(ArtifactRecord { incremental_beta1: true, ..patch }, run(), Arc::default()).unwrap();
        assert_eq!(upload.kind, ManifestKind::Incremental);
        let other = ArtifactRecord { digest_algorithm: "MANIFEST_XXH128".to_owned(), ..record() };
        assert!(matches!(from_record(other, run(), Arc::default()), Err(RecordError::Algorithm(_))));
        let none = ArtifactRecord { manifest: None, ..record() };
        assert!(matches!(from_record(none, run(), Arc::default()), Err(RecordError::NoManifest)));
    }

    #[test]
    fn a_large_manifest_lies_in_a_file_and_stays_there() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("list.gz");
        let write = |text: &str| {
            let mut packed = flate2::write::GzEncoder::new(File::create(&path).unwrap(), Default::default());
            packed.write_all(text.as_bytes()).unwrap();
            packed.finish().unwrap();
        };
        write(concat!(
            r#"{"path":"a","digest":"1","size":3,"local_path":"/x/a","extra":{}}"#,
            "\n",
            r#"{"path":"b","digest":"2","ref":"s3://b/k","size":5}"#,
            "\n"
        ));
        let mut with_file = record();
        let manifest = with_file.manifest.as_mut().unwrap();
        manifest.contents.truncate(0);
        manifest.manifest_file_path = path.display().to_string();
        let entries = from_record(with_file.clone(), run(), Arc::default()).unwrap().manifest.entries;
        assert_eq!(entries.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((entries["a"].size, entries["b"].reference.as_deref()), (3, Some("s3://b/k")));
        assert!(path.exists());
        for bad in ["{", "[]", r#"{"path":"a"}"#, r#"{"digest":"a"}"#] {
            write(bad);
            assert!(
                matches!(from_record(with_file.clone(), run(), Arc::default()), Err(RecordError::List { .. })),
                "{bad}"
            );
        }
        std::fs::write(&path, "not gzip").unwrap();
        assert!(matches!(from_record(with_file.clone(), run(), Arc::default()), Err(RecordError::List { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(from_record(with_file, run(), Arc::default()), Err(RecordError::List { .. })));
    }
}
