//! The files of a version: asked for in batches, sent where the server wants them, each content once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::api::{ApiClient, ApiError, Class, FileSpec, FileUpload, PartSpec};
use crate::artifact::{Entry, HashError, LocalFile, Manifest, Mark, Multipart, Part, Places, hash_parts};
use crate::upload::artifacts::lacking::{Lacking, LackingFile, find};
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
///
/// Where files lack that the server does not have either, nothing more is sent: all of them are named.
pub(super) async fn upload(
    api: &Arc<ApiClient>,
    manifest: &mut Manifest,
    ids: [&str; 2],
    (manner, places): (Manner, &Arc<Places>),
    cancel: &CancellationToken,
) -> Result<Sent, ArtifactError> {
    let mut sent = Sent::default();
    let mut lacking = Vec::new();
    let mut digests = BTreeSet::new();
    let local = manifest.entries.iter().filter(|(_, entry)| entry.local.is_some());
    // A content that comes twice is asked for again only when the server has seen it.
    let (first, again): (Vec<_>, Vec<_>) = local.partition(|(_, entry)| digests.insert(entry.digest.clone()));
    let names = |list: Vec<(&String, _)>| list.into_iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    for mut waiting in [names(first), names(again)] {
        while !waiting.is_empty() {
            let mut failed = Vec::new();
            for some in waiting.chunks(FILES_PER_REQUEST) {
                let ready = prepare(manifest, some, manner.multipart, places.clone()).await?;
                let wanted = ask(api, manifest, ready, ids, &mut lacking, cancel).await?;
                if lacking.is_empty() {
                    send(api, wanted, manner, &mut sent, &mut failed, cancel).await?;
                }
            }
            if !lacking.is_empty() {
                lacking.sort_by(|one: &LackingFile, other| one.name.cmp(&other.name));
                let places = places.all().map(Path::to_owned).collect();
                return Err(ArtifactError::Lacking(Lacking { files: lacking, places }));
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
    file: Result<(PathBuf, Mark), LackingFile>,
    digest: String,
    parts: Vec<Part>,
}

/// A file that the server wants.
struct Wanted {
    name: String,
    path: PathBuf,
    mark: Mark,
    parts: Vec<Part>,
    birth: String,
    upload: FileUpload,
}

/// Asks for files, and returns those that the server wants. Those that it wants and that are not here lack.
async fn ask(
    api: &ApiClient,
    manifest: &mut Manifest,
    ready: Vec<Ready>,
    [artifact, manifest_id]: [&str; 2],
    lacking: &mut Vec<LackingFile>,
    cancel: &CancellationToken,
) -> Result<Vec<Wanted>, ArtifactError> {
    let specs: Vec<FileSpec> = ready.iter().map(|file| file.spec(artifact, manifest_id)).collect();
    let places = api.create_artifact_files(&specs, cancel).await?;
    let mut wanted = Vec::new();
    for (Ready { name, file, parts, .. }, place) in ready.into_iter().zip(places) {
        if let Some(entry) = manifest.entries.get_mut(&name) {
            entry.birth_artifact = Some(place.birth.clone());
        }
        if place.upload == FileUpload::Known {
            debug!(file = %name, "the server has it");
            continue;
        }
        match file {
            Ok((path, mark)) => {
                wanted.push(Wanted { name, path, mark, parts, birth: place.birth, upload: place.upload });
            }
            Err(file) => {
                info!(file = %name, path = %file.path.display(), why = %file.why, "not here as recorded");
                lacking.push(file);
            }
        }
    }
    Ok(wanted)
}

async fn send(
    api: &Arc<ApiClient>,
    wanted: Vec<Wanted>,
    manner: Manner,
    sent: &mut Sent,
    failed: &mut Vec<(String, ApiError)>,
    cancel: &CancellationToken,
) -> Result<(), ArtifactError> {
    let permits = Arc::new(Semaphore::new(manner.transfers.clamp(1, 256)));
    let mut going = JoinSet::new();
    for Wanted { name, path, mark, parts, birth, upload } in wanted {
        let (api, permits, cancel) = (api.clone(), permits.clone(), cancel.clone());
        going.spawn(async move {
            let sending = Sending { api, permits, path, mark, cancel };
            (name, mark.size, sending.send(birth, upload, parts).await)
        });
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

/// Looks at files, and looks for those that others recorded.
async fn prepare(
    manifest: &Manifest,
    names: &[String],
    how: Multipart,
    places: Arc<Places>,
) -> Result<Vec<Ready>, ArtifactError> {
    let entries = names.iter().filter_map(|name| Some((name.clone(), manifest.entries.get(name)?.clone())));
    let files: Vec<(String, Entry)> = entries.collect();
    let look = move || {
        use rayon::prelude::*;
        files.into_par_iter().filter_map(|(name, entry)| Ready::look(name, entry, &how, &places).transpose()).collect()
    };
    spawn_blocking(look).await.unwrap_or(Err(ArtifactError::Api(ApiError::Cancelled)))
}

impl Ready {
    fn look(name: String, entry: Entry, how: &Multipart, places: &Places) -> Result<Option<Self>, ArtifactError> {
        let Entry { digest, size, local: Some(LocalFile { path, mark }), .. } = entry else { return Ok(None) };
        let file = match mark {
            Some(mark) => Ok((path, mark)),
            None => {
                find(&path, (&digest, size), places).map_err(|why| LackingFile { name: name.clone(), path, size, why })
            }
        };
        let parts = match &file {
            Ok((path, mark)) => hash_parts(path, *mark, how)?,
            Err(_) => Vec::new(),
        };
        Ok(Some(Self { name, file, digest, parts }))
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
