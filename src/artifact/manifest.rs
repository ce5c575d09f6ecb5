//! What a version holds: path → digest, size, and where the bytes are. Pure.
//!
//! # Manifest v1
//!
//! - The digest of a file is the base64 of its MD5; that of a reference is whatever its store calls the content.
//! - The digest of the manifest is the lowercase hex MD5 of `wandb-artifact-manifest-v1\n` and then, in the byte order of
//!   the paths, `PATH:DIGEST\n`. Sizes, references and extras do not count.
//! - As JSON: `version`, `storagePolicy`, `storagePolicyConfig`, `contents`. Where a file lay on this machine is not part
//!   of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use md5::{Digest as _, Md5};

use crate::artifact::Mark;
use crate::model::{Json, Number};

/// The one storage policy that there is.
pub const STORAGE_POLICY: &str = "wandb-storage-policy-v1";

const HEADER: &[u8] = b"wandb-artifact-manifest-v1\n";

/// What a version holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Manifest {
    /// Where the bytes are kept, if not where the server keeps them by itself.
    pub storage_region: Option<String>,
    /// By path, with `/` between its parts.
    pub entries: BTreeMap<String, Entry>,
}

/// One file, or a reference to one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Entry {
    /// See above.
    pub digest: String,
    /// In bytes; 0 where a reference does not know it.
    pub size: u64,
    /// The address of content that is kept elsewhere.
    pub reference: Option<String>,
    /// The artifact with which the bytes came to the server first.
    pub birth_artifact: Option<String>,
    /// What else is known of a reference, such as its version.
    pub extra: BTreeMap<String, Json>,
    /// The file that is to be uploaded; `None` for references, and for what is there already.
    pub local: Option<LocalFile>,
}

/// A file on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it was when it was hashed; `None` where somebody else did that.
    pub mark: Option<Mark>,
}

impl Manifest {
    /// The digest of the version.
    pub fn digest(&self) -> String {
        let mut hash = Md5::new();
        hash.update(HEADER);
        for (path, entry) in &self.entries {
            for part in [path, ":", &entry.digest, "\n"] {
                hash.update(part.as_bytes());
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The size of all files together.
    pub fn size(&self) -> u64 {
        self.entries.values().fold(0, |sum, entry| sum.saturating_add(entry.size))
    }

    /// The text that is uploaded.
    pub fn to_json(&self) -> Vec<u8> {
        let mut config = Json::from([("storageLayout", Json::from("V2"))]);
        if let Some(region) = &self.storage_region {
            config.set_path(&["storageRegion"], Json::from(region.as_str()));
        }
        let contents = self.entries.iter().map(|(path, entry)| (path.clone(), entry.to_json())).collect();
        let json = Json::from([
            ("version", Json::from(1)),
            ("storagePolicy", Json::from(STORAGE_POLICY)),
            ("storagePolicyConfig", config),
            ("contents", Json::Object(contents)),
        ]);
        let mut text = Vec::new();
        json.write(&mut text);
        text
    }
}

impl Entry {
    fn to_json(&self) -> Json {
        let mut entry =
            Json::from([("digest", Json::from(self.digest.as_str())), ("size", Json::from(Number::U64(self.size)))]);
        for (key, value) in [("ref", &self.reference), ("birthArtifactID", &self.birth_artifact)] {
            if let Some(value) = value {
                entry.set_path(&[key], Json::from(value.as_str()));
            }
        }
        if !self.extra.is_empty() {
            entry.set_path(&["extra"], Json::Object(self.extra.clone()));
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(entries: &[(&str, &str)]) -> Manifest {
        let entry = |digest: &str| Entry { digest: digest.to_owned(), size: 1, ..Entry::default() };
        let entries = entries.iter().map(|(path, digest)| ((*path).to_owned(), entry(digest))).collect();
        Manifest { entries, ..Manifest::default() }
    }

    #[test]
    fn digests_are_those_of_the_official_client() {
        // The official client's own, for one file `saved.txt` with the content `x`, and for nothing.
        assert_eq!(manifest(&[("saved.txt", "ndTkYSaMgDT1yFZOFVxnpg==")]).digest(), "cba1a673a4f157d9023afb18fdd77c78");
        assert_eq!(manifest(&[]).digest(), "64e7c61456b10382e2f3b571ac24b659");
    }

    #[test]
    fn only_paths_and_digests_count() {
        let plain = manifest(&[("a", "1"), ("b", "2")]);
        let mut other = plain.clone();
        other.storage_region = Some("somewhere".to_owned());
        for entry in other.entries.values_mut() {
            entry.size = 7;
            entry.reference = Some("s3://x/y".to_owned());
        }
        assert_eq!(plain.digest(), other.digest());
        assert_ne!(plain.digest(), manifest(&[("a", "2"), ("b", "1")]).digest());
    }

    #[test]
    fn the_text_holds_what_others_read_and_no_place_on_this_machine() {
        let mut manifest = manifest(&[("dir/a \"b\"", "1")]);
        let entry = manifest.entries.values_mut().next().expect("an entry");
        entry.birth_artifact = Some("QQ==".to_owned());
        entry.local = Some(LocalFile { path: PathBuf::from("/home/somebody/a"), mark: None });
        manifest.entries.insert(
            "ref".to_owned(),
            Entry {
                digest: "etag".to_owned(),
                reference: Some("s3://b/k".to_owned()),
                extra: BTreeMap::from([("etag".to_owned(), Json::from("etag"))]),
                ..Entry::default()
            },
        );
        let text = String::from_utf8(manifest.to_json()).expect("text");
        let expected = r#"{"contents":{"dir/a \"b\"":{"birthArtifactID":"QQ==","digest":"1","size":1},"ref":{"digest":"etag","extra":{"etag":"etag"},"ref":"s3://b/k","size":0}},"storagePolicy":"wandb-storage-policy-v1","storagePolicyConfig":{"storageLayout":"V2"},"version":1}"#;
        assert_eq!(text, expected);
    }

    proptest::proptest! {
        #[test]
        fn every_text_is_json_and_the_order_of_adding_does_not_count(
            entries in proptest::collection::vec((".{1,12}", ".{0,12}"), 0..12)
        ) {
            let add = |list: &mut dyn Iterator<Item = &(String, String)>| {
                let mut manifest = Manifest::default();
                for (path, digest) in list {
                    manifest.entries.entry(path.clone()).or_insert_with(|| Entry { digest: digest.clone(), ..Entry::default() });
                }
                manifest
            };
            let unique: BTreeMap<_, _> = entries.iter().cloned().collect();
            let unique: Vec<_> = unique.into_iter().collect();
            let (forth, back) = (add(&mut unique.iter()), add(&mut unique.iter().rev()));
            proptest::prop_assert_eq!(forth.digest(), back.digest());
            let text = String::from_utf8(forth.to_json()).unwrap_or_default();
            let parsed = Json::parse(&text).map_err(|error| proptest::test_runner::TestCaseError::fail(error.to_string()))?;
            let held = parsed.get("contents").and_then(Json::as_object).map(BTreeMap::len);
            proptest::prop_assert_eq!(held, Some(unique.len()));
        }
    }
}
