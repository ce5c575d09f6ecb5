//! The files of a version: asked for in batches, sent where the server wants them, each content once.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::api::{ApiClient, ApiError, Class, FileSpec, FileUpload, PartSpec};
use crate::artifact::{HashError, LocalFile, Manifest, Mark, Multipart, Part, hash_file, hash_parts};
use crate::upload::artifacts::{ArtifactError, Manner};

/// How many files are asked for at once: so many that the asking does not count, so few that the addresses, which do not
/// live long, are used in time.
const FILES_PER_REQUEST: usize = 100;

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sent {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Uploads the files of a manifest, and notes in it where their bytes are. `ids` are the artifact's and the manifest's.
pub(super) async fn upload(
    api: &Arc<ApiClient>,
    manifest: &mut Manifest,
    ids: [&str; 2],
    manner: Manner,
    cancel: &CancellationToken,
) -> Result<Sent, ArtifactError> {
    let mut sent = Sent::default();
    let mut digests = BTreeSet::new();
    let local = manifest.entries.iter().filter(|(_, entry)| entry.local.is_some());
    // A content that comes twice is asked for again only when the server has seen it.
    let (first, again): (Vec<_>, Vec<_>) = local.partition(|(_, entry)| digests.insert(entry.digest.clone()));
    let names = |list: Vec<(&String, _)>| list.into_iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    for mut waiting in [names(first), names(again)] {
        while !waiting.is_empty() {
            let mut failed = Vec::new();
            for some in waiting.chunks(FILES_PER_REQUEST) {
                batch(api, manifest, some, ids, manner, &mut sent, &mut failed, cancel).await?;
            }
            // Addresses may have become too old while they waited. As long as most files get through, it goes on.
            if failed.len() > waiting.len() / 2 {
                let (file, source) = failed.swap_remove(0);
                return Err(ArtifactError::Transfer { file, source });
            }
            waiting = failed.into_iter().map(|(file, _)| file).collect();
        }
    }
    Ok(sent)
}

/// A file that is to be sent, should the server want it.
struct Ready {
    name: String,
    /// `None` when there is no such file any more.
    file: Option<(PathBuf, Mark)>,
    expected: PathBuf,
    digest: String,
    parts: Vec<Part>,
}

#[expect(clippy::too_many_arguments, reason = "one stage of `upload`, which holds all of these")]
async fn batch(
    api: &Arc<ApiClient>,
    manifest: &mut Manifest,
    names: &[String],
    [artifact, manifest_id]: [&str; 2],
    manner: Manner,
    sent: &mut Sent,
    failed: &mut Vec<(String, ApiError)>,
    cancel: &CancellationToken,
) -> Result<(), ArtifactError> {
    let ready = prepare(manifest, names, manner.multipart).await?;
    let specs: Vec<FileSpec> = ready.iter().map(|file| file.spec(artifact, manifest_id)).collect();
    let places = api.create_artifact_files(&specs, cancel).await?;
    let permits = Arc::new(Semaphore::new(manner.transfers.clamp(1, 256)));
    let mut going = JoinSet::new();
    let mut missing: Vec<PathBuf> = Vec::new();
    for (file, place) in ready.into_iter().zip(places) {
        if let Some(entry) = manifest.entries.get_mut(&file.name) {
            entry.birth_artifact = Some(place.birth.clone());
        }
        if place.upload == FileUpload::Known {
            debug!(file = %file.name, "the server has it");
            continue;
        }
        let Some((path, mark)) = file.file else {
            missing.push(file.expected);
            continue;
        };
        let (api, permits, cancel) = (api.clone(), permits.clone(), cancel.clone());
        going.spawn(async move {
            let sending = Sending { api, permits, path, mark, cancel };
            (file.name, mark.size, sending.send(place.birth, place.upload, file.parts).await)
        });
    }
    if let Some(first) = missing.first() {
        return Err(ArtifactError::Missing { count: missing.len() as u64, first: first.clone() });
    }
    while let Some(done) = going.join_next().await {
        match done {
            Ok((name, size, Ok(()))) => {
                debug!(file = %name, size, "uploaded");
                sent.files += 1;
                sent.bytes += size;
            }
            Ok((name, _, Err(ArtifactError::Api(source)))) if source.class() != Class::Cancelled => {
                warn!(file = %name, error = %source, "not uploaded");
                failed.push((name, source));
            }
            Ok((_, _, Err(error))) => return Err(error),
            Err(error) => {
                warn!(%error, "an upload ended early");
                return Err(ApiError::Cancelled.into());
            }
        }
    }
    Ok(())
}

/// Looks at files, and hashes what was not hashed before: a log may be older than the files that it names, or speak of
/// files that were never its own.
async fn prepare(manifest: &Manifest, names: &[String], how: Multipart) -> Result<Vec<Ready>, ArtifactError> {
    let files: Vec<(String, String, LocalFile)> = names
        .iter()
        .filter_map(|name| {
            let entry = manifest.entries.get(name)?;
            Some((name.clone(), entry.digest.clone(), entry.local.clone()?))
        })
        .collect();
    let look = move || {
        use rayon::prelude::*;
        files.into_par_iter().map(|(name, digest, local)| Ready::look(name, digest, local, &how)).collect()
    };
    spawn_blocking(look).await.unwrap_or(Err(ArtifactError::Api(ApiError::Cancelled)))
}

impl Ready {
    fn look(name: String, digest: String, local: LocalFile, how: &Multipart) -> Result<Self, ArtifactError> {
        let LocalFile { path, mark } = local;
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let mark = match mark {
            Some(mark) => mark,
            None => match hash_file(&path) {
                Ok(hashed) if hashed.digest == digest => hashed.mark,
                Ok(_) => return Err(ArtifactError::Differs(path)),
                Err(HashError::Read { source, .. }) if is_gone(&source) => {
                    return Ok(Self { name, file: None, expected: path, digest, parts: Vec::new() });
                }
                Err(error) => return Err(error.into()),
            },
        };
        let parts = hash_parts(&path, mark, how)?;
        Ok(Self { name, expected: path.clone(), file: Some((path, mark)), digest, parts })
    }

    fn spec(&self, artifact: &str, manifest: &str) -> FileSpec {
        let hex = |md5: &[u8; 16]| md5.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        FileSpec {
            artifact: artifact.to_owned(),
            manifest: manifest.to_owned(),
            name: self.name.clone(),
            md5: self.digest.clone(),
            parts: self.parts.iter().map(|part| PartSpec { number: part.number, mark: hex(&part.md5) }).collect(),
        }
    }
}

/// One file on its way.
struct Sending {
    api: Arc<ApiClient>,
    permits: Arc<Semaphore>,
    path: PathBuf,
    mark: Mark,
    cancel: CancellationToken,
}

impl Sending {
    async fn send(self, birth: String, upload: FileUpload, parts: Vec<Part>) -> Result<(), ArtifactError> {
        self.check()?;
        let result = match upload {
            FileUpload::Known => Ok(()),
            FileUpload::Whole(place) => {
                let _permit = self.permits.acquire().await;
                self.api.put_file(&place.url, &place.headers, &self.path, &self.cancel).await.map(drop)
            }
            FileUpload::Parts { upload_id, storage_path, content_type, urls } => {
                match self.send_parts(&content_type, urls, parts).await {
                    Ok(marks) => {
                        self.api.complete_multipart(&birth, &storage_path, &upload_id, &marks, &self.cancel).await
                    }
                    Err(error) => Err(error),
                }
            }
        };
        // A store that got something else than was announced says so in its own words; this is what it means.
        self.check()?;
        Ok(result?)
    }

    /// The file is what it was when it was hashed.
    fn check(&self) -> Result<(), ArtifactError> {
        match Mark::of(&self.path) {
            Ok(now) if now == self.mark => Ok(()),
            Ok(_) => Err(HashError::Changed(self.path.clone()).into()),
            Err(source) => Err(HashError::Read { path: self.path.clone(), source }.into()),
        }
    }

    async fn send_parts(
        &self,
        content_type: &str,
        urls: Vec<(u64, String)>,
        parts: Vec<Part>,
    ) -> Result<Vec<PartSpec>, ApiError> {
        let unasked = |number: u64| ApiError::Protocol {
            place: self.api.base_url().host_str().unwrap_or_default().to_owned(),
            why: format!("it gave no address for part {number} of {}", parts.len()),
        };
        let mut going = JoinSet::new();
        for part in &parts {
            let url = urls.iter().find(|(number, _)| *number == part.number).map(|(_, url)| url.clone());
            let url = url.ok_or_else(|| unasked(part.number))?;
            let headers = vec![
                ("Content-MD5".to_owned(), BASE64_STANDARD.encode(part.md5)),
                ("Content-Type".to_owned(), content_type.to_owned()),
            ];
            let (api, permits, path, cancel) =
                (self.api.clone(), self.permits.clone(), self.path.clone(), self.cancel.clone());
            let (number, range) = (part.number, (part.offset, part.size));
            going.spawn(async move {
                let _permit = permits.acquire().await;
                put(&api, &url, &headers, &path, range, &cancel).await.map(|mark| PartSpec { number, mark })
            });
        }
        let mut marks = Vec::new();
        while let Some(done) = going.join_next().await {
            marks.push(done.map_err(|_| ApiError::Cancelled)??);
        }
        marks.sort_by_key(|mark| mark.number);
        Ok(marks)
    }
}

async fn put(
    api: &ApiClient,
    url: &str,
    headers: &[(String, String)],
    path: &Path,
    range: (u64, u64),
    cancel: &CancellationToken,
) -> Result<String, ApiError> {
    api.put_part(url, headers, path, range, cancel).await
}
