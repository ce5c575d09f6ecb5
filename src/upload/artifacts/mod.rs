//! Versions of artifacts: the sequence of requests that makes one, the same as the official client's.
//!
//! ```text
//! CreateArtifact ─► there already: done
//!   └► CreateArtifactManifest (without digest) ─► CreateArtifactFiles, PUT …, in batches ─► ClientIDMapping for references
//!        └► CreateArtifactManifest (or UpdateArtifactManifest) with its digest ─► PUT ─► CommitArtifact ─► UseArtifact
//! ```
//!
//! Nothing is remembered here: a sequence that was cut short begins anew, and the server says which files it has. Only
//! files whose content is the one that the manifest speaks of are sent, and only when the server asks for them.

mod files;
mod lacking;
mod put;
mod record;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::api::{
    ApiClient, ApiError, ArtifactState, ArtifactVersion, Class, ManifestKind, NewArtifact, NewManifest, Upload,
};
use crate::artifact::{HashError, Manifest, Multipart, Places, md5_base64};

pub(crate) use lacking::may_be_here;
pub use lacking::{Lacking, LackingFile, WhyLacking};
pub use put::{PutArtifact, PutError, PutRequest, put_artifact};
pub(crate) use record::{RecordError, from_record};

/// The server's feature of knowing artifacts of other projects.
const FOREIGN_ARTIFACTS: &str = "USE_ARTIFACT_WITH_ENTITY_AND_PROJECT_INFORMATION";

/// How a reference to an artifact begins that was not on the server yet.
const CLIENT_REFERENCE: &str = "wandb-client-artifact://";

/// How long one waits for a version that was committed to be there.
const SETTLE: Duration = Duration::from_secs(120);

/// A version that is to be on the server.
#[derive(Debug, Clone, PartialEq)]
pub struct ArtifactUpload {
    /// What describes it. Its digest is the manifest's.
    pub new: NewArtifact,
    /// What it holds.
    pub manifest: Manifest,
    /// Where files may be that were recorded by others, besides where they were.
    pub places: Arc<Places>,
    /// Entity, project and id of the run that it belongs to.
    pub run: [String; 3],
    /// How much of a version the manifest is.
    pub kind: ManifestKind,
    /// The version that it builds upon, if not the newest one.
    pub base: Option<String>,
    /// Whether it is whole after this.
    pub finalize: bool,
    /// Whether the run uses it, too.
    pub use_after_commit: bool,
    /// Another client id, for a version that was deleted and is made again.
    pub second_client_id: Option<String>,
}

/// What became of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedArtifact {
    /// The server's id of it.
    pub id: String,
    /// Whether the server had all of it.
    pub was_there: bool,
    /// How many files were sent.
    pub files: u64,
    /// How many bytes these have.
    pub bytes: u64,
}

/// Why a version is not on the server.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The server or the network. Its class says whether trying again helps.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A file did not get to its place: try again.
    #[error("`{file}` was not uploaded")]
    Transfer {
        /// Its path in the artifact.
        file: String,
        /// Why not.
        source: ApiError,
    },
    /// A file cannot be read, or changes.
    #[error(transparent)]
    File(#[from] HashError),
    /// Files that the server does not have, and neither has this machine.
    #[error("{0}")]
    Lacking(Lacking),
    /// A reference to an artifact that the server does not know.
    #[error("the server does not know the artifact that `{0}` refers to")]
    Reference(String),
    /// The server answered what this program cannot act on.
    #[error("the server says that the artifact is {0}")]
    State(String),
}

impl ArtifactError {
    /// What it means for the caller.
    pub fn class(&self) -> Class {
        match self {
            Self::Api(error) => error.class(),
            // A store's 403 is about one address, not about the key.
            Self::Transfer { source, .. } => match source.class() {
                class @ (Class::Temporary | Class::Cancelled) => class,
                _ => Class::Rejected,
            },
            _ => Class::Rejected,
        }
    }
}

/// How artifacts are sent.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// How many files or parts are on their way at once.
    pub transfers: usize,
    /// When and how a file is sent in parts.
    pub multipart: Multipart,
}

/// Brings a version to the server.
pub async fn upload_artifact(
    api: &Arc<ApiClient>,
    artifact: ArtifactUpload,
    manner: Manner,
    cancel: &CancellationToken,
) -> Result<UploadedArtifact, ArtifactError> {
    let ArtifactUpload { mut new, mut manifest, places, run, kind, base, finalize, use_after_commit, second_client_id } =
        artifact;
    let mut created = api.create_artifact(&new, cancel).await?;
    if let (ArtifactState::Deleted, Some(other)) = (&created.state, second_client_id) {
        new.client_id = other;
        created = api.create_artifact(&new, cancel).await?;
    }
    let id = created.id;
    let uses = async || match use_after_commit {
        true => use_artifact(api, &id, &new, &run, cancel).await,
        false => Ok(()),
    };
    match created.state {
        ArtifactState::Committed => {
            uses().await?;
            debug!(artifact = %new.name, %id, "the server has it");
            return Ok(UploadedArtifact { id, was_there: true, files: 0, bytes: 0 });
        }
        ArtifactState::Pending | ArtifactState::Deleted => {}
        ArtifactState::Other(state) => return Err(ArtifactError::State(state)),
    }
    let base = base.or(created.latest);
    let [entity, project, run_id] = &run;
    let mut description =
        NewManifest { artifact: &id, base: base.as_deref(), entity, project, run_id, kind, digest: None };
    let place = api.create_artifact_manifest(&description, cancel).await?;
    let sent = files::upload(api, &mut manifest, [&id, &place.id], (manner, &places), cancel).await?;
    resolve_references(api, &mut manifest, cancel).await?;

    let text = bytes::Bytes::from(manifest.to_json());
    let digest = md5_base64(&text);
    let place = match kind {
        ManifestKind::Full => {
            description.digest = Some(&digest);
            api.create_artifact_manifest(&description, cancel).await?
        }
        ManifestKind::Patch | ManifestKind::Incremental => {
            api.update_artifact_manifest(&place.id, &digest, cancel).await?
        }
    };
    let Upload { url, headers } = place.upload.ok_or_else(|| ArtifactError::State("without a place".to_owned()))?;
    let failed = |source: ApiError| match source {
        ApiError::Cancelled => ArtifactError::Api(ApiError::Cancelled),
        source => ArtifactError::Transfer { file: "wandb_manifest.json".to_owned(), source },
    };
    api.put_bytes(&url, &headers, text, cancel).await.map_err(failed)?;
    if finalize {
        api.commit_artifact(&id, cancel).await?;
        uses().await?;
    }
    info!(artifact = %new.name, %id, files = sent.files, bytes = sent.bytes, "artifact uploaded");
    Ok(UploadedArtifact { id, was_there: false, files: sent.files, bytes: sent.bytes })
}

/// Waits until a version that was committed is there, and looks at it.
pub async fn settled(api: &ApiClient, id: &str, cancel: &CancellationToken) -> Result<ArtifactVersion, ArtifactError> {
    let began = tokio::time::Instant::now();
    let mut wait = Duration::from_millis(200);
    loop {
        let version = api.artifact_version(id, cancel).await?;
        if version.state == ArtifactState::Committed {
            return Ok(version);
        }
        if began.elapsed() > SETTLE {
            return Err(ArtifactError::State(format!("{:?} and not committed yet", version.state)));
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(ApiError::Cancelled.into()),
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(10)),
        }
    }
}

async fn use_artifact(
    api: &ApiClient,
    id: &str,
    new: &NewArtifact,
    [entity, project, run_id]: &[String; 3],
    cancel: &CancellationToken,
) -> Result<(), ArtifactError> {
    let foreign = api.features(cancel).await?.has(FOREIGN_ARTIFACTS);
    let place = foreign.then_some([new.entity.as_str(), new.project.as_str()]);
    Ok(api.use_artifact(id, [entity, project, run_id], place, cancel).await?)
}

/// References to artifacts by their client's own ids become references by the server's.
async fn resolve_references(
    api: &ApiClient,
    manifest: &mut Manifest,
    cancel: &CancellationToken,
) -> Result<(), ArtifactError> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for entry in manifest.entries.values_mut() {
        let Some(rest) = entry.reference.as_deref().and_then(|text| text.strip_prefix(CLIENT_REFERENCE)) else {
            continue;
        };
        let (client_id, path) = rest.split_once('/').unwrap_or((rest, ""));
        let unknown = || ArtifactError::Reference(format!("{CLIENT_REFERENCE}{rest}"));
        let hex = match known.get(client_id) {
            Some(hex) => hex.clone(),
            None => {
                let server_id = api.client_id_mapping(client_id, cancel).await?.ok_or_else(unknown)?;
                let bytes = BASE64_STANDARD.decode(&server_id).map_err(|_| unknown())?;
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                known.insert(client_id.to_owned(), hex.clone());
                hex
            }
        };
        entry.reference = Some(format!("wandb-artifact://{hex}/{path}"));
    }
    Ok(())
}
