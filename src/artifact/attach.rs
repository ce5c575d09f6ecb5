//! Files beside a run that go into a version of an artifact: which there are, and whether they changed.
//!
//! Looked for below the run's own directories. Hidden files, W&B's own directories, and directories of other runs below
//! are left alone, and no link is followed out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::artifact::{
    CollectError, Entry, Found, HashError, LocalFile, Manifest, Mark, check_name, collect_below, hash_files,
};
use crate::convert::artifact_rule::FileGlob;

/// What is to be attached to a run.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The rule that asked for it, as it was typed.
    pub rule: String,
    /// The type of the artifact.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The files that go in, by their paths below the directories.
    pub files: FileGlob,
    /// The directories of the run, and what the paths of their files begin with.
    pub roots: Vec<(String, PathBuf)>,
    /// The real directories with event files of this run: others with event files below are those of other runs. `None`
    /// where event files mean nothing.
    pub own: Option<BTreeSet<PathBuf>>,
}

/// What there was of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The rule that asked for it, as it was typed.
    pub rule: String,
    /// The type of the artifact.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How many files there were; 0 makes no version.
    pub files: u64,
    /// How many bytes these have.
    pub bytes: u64,
    /// Whether this is the version that was recorded, or sent, before.
    pub known: bool,
}

impl Attached {
    /// What was found of an attachment.
    pub fn new(attachment: &Attachment, found: &Found) -> Self {
        Self {
            rule: attachment.rule.clone(),
            kind: attachment.kind.clone(),
            name: attachment.name.clone(),
            files: found.files.len() as u64,
            bytes: found.size(),
            known: false,
        }
    }
}

impl Attachment {
    /// What tells it apart from others of the same run.
    pub fn key(&self) -> String {
        format!("{}:{}={}", self.kind, self.name, self.files.as_str())
    }

    /// Finds the files that are there now.
    pub fn find(&self) -> Result<Found, CollectError> {
        check_name(&self.name).map_err(CollectError::Unnamed)?;
        let mut found = Found::default();
        for (prefix, root) in &self.roots {
            let begin = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            let below = collect_below(root, &|name| !is_hidden(name) && self.files.takes(name), &|path, name| {
                !is_hidden(name) && self.files.may_take_below(name) && !self.is_of_others(path)
            })?;
            found.left_out.extend(below.left_out);
            for (name, path) in below.files {
                if let Some(first) = found.files.insert(begin(&name), path.clone()) {
                    return Err(CollectError::Twice { name: begin(&name), first, second: path });
                }
            }
        }
        Ok(found)
    }

    /// Whether a directory is W&B's, or that of another run.
    fn is_of_others(&self, directory: &Path) -> bool {
        if directory.file_name().is_some_and(|name| name == "wandb") {
            return true;
        }
        let (mut has_log, mut has_events) = (false, false);
        // One that cannot be read is told of when it is entered.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            has_log |= name.ends_with(b".wandb");
            has_events |= name.windows(8).any(|part| part == b"tfevents");
        }
        let is_own = |own: &BTreeSet<PathBuf>| fs::canonicalize(directory).is_ok_and(|real| own.contains(&real));
        has_log || has_events && self.own.as_ref().is_some_and(|own| !is_own(own))
    }
}

impl Found {
    /// A text that is another one as soon as any of the files is.
    pub fn look(&self) -> io::Result<String> {
        let mut hash = Sha256::new();
        for (name, path) in &self.files {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            Mark::of(path)?.feed(&mut hash);
        }
        Ok(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Reads all files: what a version with them holds.
    pub fn manifest(&self) -> Result<Manifest, HashError> {
        let paths: Vec<PathBuf> = self.files.values().cloned().collect();
        let hashed = hash_files(&paths)?;
        let entry = |((name, path), hashed): ((&String, &PathBuf), crate::artifact::Hashed)| {
            let entry = Entry {
                digest: hashed.digest,
                size: hashed.mark.size,
                local: Some(LocalFile { path: path.clone(), mark: Some(hashed.mark) }),
                ..Entry::default()
            };
            (name.clone(), entry)
        };
        let entries: BTreeMap<String, Entry> = self.files.iter().zip(hashed).map(entry).collect();
        Ok(Manifest { entries, ..Manifest::default() })
    }

    /// The size of all files together, as they are now.
    pub fn size(&self) -> u64 {
        let size = |path: &PathBuf| fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
        self.files.values().map(size).sum()
    }
}

fn is_hidden(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|own| own.starts_with('.'))
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::symlink;

    use super::*;
    use crate::artifact::WhyLeftOut;

    fn attachment(root: &Path, glob: &str, own: &[&str]) -> Attachment {
        Attachment {
            rule: format!("model:m={glob}"),
            kind: "model".to_owned(),
            name: "m".to_owned(),
            files: glob.parse().unwrap(),
            roots: vec![(String::new(), root.to_owned())],
            own: Some(own.iter().map(|path| fs::canonicalize(root.join(path)).unwrap()).collect()),
        }
    }

    fn names(found: &Found) -> Vec<&str> {
        found.files.keys().map(String::as_str).collect()
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        root
    }

    #[test]
    fn only_what_is_the_runs_own_goes_in() {
        let root = tree(&[
            "events.tfevents.1",
            "a.pt",
            "train/events.tfevents.1",
            "train/b.pt",
            "other/events.tfevents.2",
            "other/ckpt/c.pt",
            ".hidden/d.pt",
            ".e.pt",
            "wandb/f.pt",
            "offline-run-1-x/run-x.wandb",
            "offline-run-1-x/files/g.pt",
            "ckpt/h.pt",
        ]);
        let found = attachment(root.path(), "**/*.pt", &[".", "train"]).find().unwrap();
        assert_eq!(names(&found), ["a.pt", "ckpt/h.pt", "train/b.pt"]);
        let mut anything = attachment(root.path(), "**/c.pt", &[]);
        anything.own = None;
        assert_eq!(names(&anything.find().unwrap()), ["other/ckpt/c.pt"]);
        let mut two = attachment(&root.path().join("train"), "*.pt", &[]);
        two.roots = ["train", "ckpt"].map(|name| (name.to_owned(), root.path().join(name))).to_vec();
        assert_eq!(names(&two.find().unwrap()), ["ckpt/h.pt", "train/b.pt"]);
    }

    #[test]
    fn links_out_are_told_where_something_may_be_behind_them() {
        let (root, outside) = (tree(&["real/a.pt"]), tree(&["b.pt"]));
        symlink(outside.path(), root.path().join("ckpt")).unwrap();
        symlink(outside.path().join("b.pt"), root.path().join("b.pt")).unwrap();
        symlink("real", root.path().join("inside")).unwrap();
        let left_out = |glob: &str| {
            let found = attachment(root.path(), glob, &[]).find().unwrap();
            let short = |path: &Path| path.strip_prefix(root.path()).unwrap().display().to_string();
            found.left_out.iter().map(|out| (short(&out.path), out.why)).collect::<Vec<_>>()
        };
        assert_eq!(left_out("ckpt/*.pt"), [("ckpt".to_owned(), WhyLeftOut::LeadsOut)]);
        assert_eq!(left_out("real/*.pt"), []);
        assert_eq!(left_out("*.pt"), [("b.pt".to_owned(), WhyLeftOut::LeadsOut)]);
        let inside = attachment(root.path(), "inside", &[]).find().unwrap();
        assert_eq!(names(&inside), ["inside/a.pt"]);
    }

    #[test]
    fn a_look_is_another_one_when_a_file_is() {
        let root = tree(&["a.pt"]);
        let look = || attachment(root.path(), "**", &[]).find().unwrap().look().unwrap();
        let first = look();
        assert_eq!(first, look());
        fs::write(root.path().join("a.pt"), "longer than before").unwrap();
        let second = look();
        assert_ne!(first, second);
        fs::rename(root.path().join("a.pt"), root.path().join("b.pt")).unwrap();
        assert_ne!(second, look());
    }
}
