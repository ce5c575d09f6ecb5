//! Artifacts that are made of files beside the event files: recorded when the run ends, each content once.
//!
//! The files stay where they are. The log says what they were, and the upload sends only what still is that.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::artifact::{Attached, Attachment, Found, HashError, stable_client_id};
use crate::checkpoint::{ArtifactMark, Target};
use crate::model::{ArtifactFile, ArtifactInfo, RunUpdate, SkippedReason, Skips};
use crate::recorder::{Pass, RecordError, Recorder};

impl Recorder {
    /// Says what is to be attached when the run ends.
    pub fn attach(&mut self, attachments: Vec<Attachment>) {
        self.attachments = attachments;
    }

    /// What there was of what is to be attached, as of the pass that ended the run.
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    pub(super) fn record_attachments(&mut self, pass: &mut Pass) -> Result<(), RecordError> {
        self.attached.clear();
        for attachment in std::mem::take(&mut self.attachments) {
            match attachment.find() {
                Ok(found) => self.record_attachment(&attachment, &found, &mut pass.skips)?,
                Err(error) => skip(&mut pass.skips, &attachment, &error),
            }
            self.attachments.push(attachment);
        }
        Ok(())
    }

    fn record_attachment(
        &mut self,
        attachment: &Attachment,
        found: &Found,
        skips: &mut Skips,
    ) -> Result<(), RecordError> {
        for out in &found.left_out {
            skips.add(SkippedReason::File, 1, || format!("`{}`: {}", out.path.display(), out.why.text()));
        }
        let mut attached = Attached::new(attachment, found);
        if !found.files.is_empty() {
            match self.record_version(attachment, found) {
                Ok(known) => attached.known = known,
                Err(Failed::Files(error)) => {
                    skip(skips, attachment, &error);
                    return Ok(());
                }
                Err(Failed::Record(error)) => return Err(error),
            }
        }
        self.attached.push(attached);
        Ok(())
    }

    /// Records the version that files make, unless that is the one that was recorded last; tells whether it is.
    fn record_version(&mut self, attachment: &Attachment, found: &Found) -> Result<bool, Failed> {
        let key = attachment.key();
        let first = found.files.values().next().cloned().unwrap_or_default();
        let look = found.look().map_err(|source| HashError::Read { path: first, source })?;
        let known = self.checkpoint.artifacts.get(&key);
        if known.is_some_and(|known| known.look == look) {
            return Ok(true);
        }
        if self.dry_run {
            return Ok(false);
        }
        let manifest = found.manifest()?;
        let digest = manifest.digest();
        let is_known = known.is_some_and(|known| known.digest == digest);
        if !is_known {
            let Target { entity, project } = self.checkpoint.target();
            let run_id = self.checkpoint.run_id.clone();
            let place = [entity.as_str(), &project, run_id.as_str(), &attachment.kind, &attachment.name];
            let local = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            let file = |(path, entry): (String, crate::artifact::Entry)| ArtifactFile {
                local: entry.local.map(|file| local(&file.path)).unwrap_or_default(),
                path,
                digest: entry.digest,
                size: entry.size,
            };
            let update = RunUpdate::Artifact(Box::new(ArtifactInfo {
                client_id: stable_client_id(&[&place.concat(), &digest]),
                sequence_client_id: stable_client_id(&place),
                run_id: run_id.clone(),
                entity: entity.clone(),
                project: project.clone(),
                kind: attachment.kind.clone(),
                name: attachment.name.clone(),
                digest: digest.clone(),
                files: manifest.entries.into_iter().map(file).collect(),
            }));
            self.reopen()?;
            self.write(&update)?;
        }
        self.dirty = true;
        self.checkpoint.artifacts.insert(key, ArtifactMark { digest, look });
        Ok(is_known)
    }

    /// Remembers where the experiment lies, for those who have nothing but the run directory.
    pub(super) fn remember_place(&mut self, roots: &[(String, PathBuf)]) {
        let Ok(from) = fs::canonicalize(&self.directory) else { return };
        let way = |(prefix, root): &(String, PathBuf)| {
            let way = way(&from, &fs::canonicalize(root).ok()?);
            // State is text.
            way.to_str().is_some().then(|| (prefix.clone(), way))
        };
        let Some(experiments) = roots.iter().map(way).collect::<Option<Vec<_>>>() else { return };
        if experiments != self.checkpoint.experiments {
            self.also_in = self.place_left(&experiments);
            self.checkpoint.experiments = experiments;
            self.dirty = true;
        }
    }
}

impl Recorder {
    /// Where the experiment was found before, if it is there still: what lies elsewhere now did not move, it is a copy.
    fn place_left(&self, now: &[(String, PathBuf)]) -> Option<PathBuf> {
        let ([(_, before)], [(_, now)]) = (self.checkpoint.experiments.as_slice(), now) else { return None };
        let before = fs::canonicalize(self.directory.join(before)).ok()?;
        // A run that was found at the folder that holds it, or below the one that it was found at, is at its own place.
        let now = fs::canonicalize(self.directory.join(now)).ok()?;
        let is_elsewhere = !before.starts_with(&now) && !now.starts_with(&before);
        let is_there = self.checkpoint.sources.iter().any(|source| before.join(&source.label).is_file());
        (is_elsewhere && is_there).then_some(before)
    }

    /// Another directory that holds the same experiment: this one is a copy of it, or the other way round.
    pub fn also_in(&self) -> Option<&Path> {
        self.also_in.as_deref()
    }
}

/// Why a version was not recorded.
enum Failed {
    /// It cannot be made of its files: that is about this version alone.
    Files(HashError),
    /// The log cannot be written.
    Record(RecordError),
}

impl From<HashError> for Failed {
    fn from(error: HashError) -> Self {
        Self::Files(error)
    }
}

impl From<RecordError> for Failed {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

fn skip(skips: &mut Skips, attachment: &Attachment, error: &dyn std::error::Error) {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    skips.add(SkippedReason::Artifact, 1, || format!("`{}`: {error}{cause}", attachment.name));
}

/// The way from one real directory to another.
fn way(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    up.chain(to.components().skip(common)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_lead_from_one_directory_to_another() {
        for (from, to, expected) in [
            ("/a/wandb/run", "/a/logs/x", "../../logs/x"),
            ("/a/b", "/a/b/c", "c"),
            ("/a/b", "/a", ".."),
            ("/a", "/a", ""),
        ] {
            assert_eq!(way(Path::new(from), Path::new(to)), Path::new(expected));
        }
    }
}
