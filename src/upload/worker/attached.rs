//! What is attached to a run besides what its log records: files beside it become versions of artifacts when all of the log
//! was sent, and before the run ends.
//!
//! What was sent is known by what its files looked like, so that nothing is read or asked for while they do not change.

use tokio::task::spawn_blocking;
use tracing::info;

use crate::api::ApiError;
use crate::artifact::{Attached, Attachment, Found, Multipart};
use crate::model::{RunId, SkippedReason, Skips};
use crate::upload::artifacts::{Manner, PutError, PutRequest, put_artifact};
use crate::upload::job::UploadError;
use crate::upload::state::AttachedNote;
use crate::upload::worker::Worker;
use crate::upload::worker::artifacts::{AT_ONCE, concerns_more, stopping, told};

/// What is known of attachments.
#[derive(Debug, Default)]
pub(super) struct Attaching {
    /// What there was.
    pub(super) seen: Vec<Attached>,
    waiting: Vec<Waiting>,
    skips: Skips,
}

/// Files that are not what was sent last.
#[derive(Debug)]
struct Waiting {
    attachment: Attachment,
    found: Found,
    look: String,
}

impl Attaching {
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Counts what is not there.
    pub(super) fn skip(&self, skips: &mut Skips) {
        skips.merge(&self.skips);
    }

    fn fail(&mut self, name: &str, error: &dyn std::error::Error) {
        self.skips.add(SkippedReason::Artifact, 1, || format!("`{name}`: {}", told(error)));
    }
}

impl Worker<'_> {
    /// Looks what there is.
    pub(super) async fn find_attachments(&mut self) {
        if self.job.attach.is_empty() {
            return;
        }
        let (attachments, known) = (self.job.attach.clone(), self.state.sent.attached.clone());
        let look = move || {
            let mut attaching = Attaching::default();
            for attachment in attachments {
                match attachment.find() {
                    Ok(found) => attaching.add(attachment, found, &known),
                    Err(error) => attaching.fail(&attachment.name, &error),
                }
            }
            attaching
        };
        self.attaching = spawn_blocking(look).await.unwrap_or_default();
    }

    /// Sends what waits.
    pub(super) async fn attach(&mut self) -> Result<(), UploadError> {
        for Waiting { attachment, found, look } in std::mem::take(&mut self.attaching.waiting) {
            let read = spawn_blocking(move || found.manifest()).await.map_err(|_| ApiError::Cancelled)?;
            let manifest = match read {
                Ok(manifest) => manifest,
                Err(error) => {
                    self.attaching.fail(&attachment.name, &error);
                    continue;
                }
            };
            let (key, digest) = (attachment.key(), manifest.digest());
            let note = AttachedNote { digest: digest.clone(), look };
            if self.state.sent.attached.get(&key).is_none_or(|known| known.digest != digest) {
                let run = self.state.run.clone().unwrap_or_default();
                let request = PutRequest {
                    entity: Some(run.entity),
                    project: run.project,
                    run: RunId::new(run.run_id).ok(),
                    name: attachment.name.clone(),
                    kind: attachment.kind.clone(),
                    description: String::new(),
                    metadata: String::new(),
                    aliases: vec!["latest".to_owned()],
                    tags: Vec::new(),
                    ttl_seconds: 0,
                    manifest,
                };
                let manner = Manner { transfers: AT_ONCE, multipart: Multipart::default() };
                match put_artifact(&self.fleet.api, request, manner, self.fleet.cancel()).await {
                    Ok(put) => info!(artifact = %attachment.name, id = %put.uploaded.id, "attached"),
                    Err(PutError::Artifact(error)) if concerns_more(&error) => {
                        return Err(stopping(attachment.name, error));
                    }
                    Err(error) => {
                        self.attaching.fail(&attachment.name, &error);
                        continue;
                    }
                }
            }
            self.state.sent.attached.insert(key, note);
            self.touch();
        }
        Ok(())
    }
}

impl Attaching {
    fn add(&mut self, attachment: Attachment, found: Found, known: &std::collections::BTreeMap<String, AttachedNote>) {
        for out in &found.left_out {
            self.skips.add(SkippedReason::File, 1, || format!("`{}`: {}", out.path.display(), out.why.text()));
        }
        let mut attached = Attached::new(&attachment, &found);
        if !found.files.is_empty() {
            match found.look() {
                Ok(look) if known.get(&attachment.key()).is_some_and(|known| known.look == look) => {
                    attached.known = true;
                }
                Ok(look) => self.waiting.push(Waiting { attachment, found, look }),
                Err(error) => self.fail(&attachment.name, &error),
            }
        }
        self.seen.push(attached);
    }
}
