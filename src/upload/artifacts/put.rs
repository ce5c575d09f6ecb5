//! A version that a person or a job puts there: found a run for it, sent, and waited for.
//!
//! Nothing is kept on this machine. All ids are made of what the version is, so a second call, after a crash or a failure
//! or for no reason at all, meets the run and the version of the first one and sends only what is missing.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::api::file_stream::Content;
use crate::api::{ApiClient, ApiError, ArtifactVersion, Bucket, Class, ManifestKind, NewArtifact, UpsertBucket};
use crate::artifact::{Manifest, stable_client_id, stable_run_id};
use crate::model::{Json, RunId};
use crate::upload::artifacts::{ArtifactError, ArtifactUpload, Manner, UploadedArtifact, settled, upload_artifact};
use crate::wandb_format::Telemetry;

/// The job type of runs that are made for one version, as the official client calls it.
const JOB_TYPE: &str = "cli_put";

/// A version that is to be put.
#[derive(Debug, Clone, PartialEq)]
pub struct PutRequest {
    /// The entity; none is the key's own.
    pub entity: Option<String>,
    /// The project.
    pub project: String,
    /// The run that it came from; `None` makes one of its own.
    pub run: Option<RunId>,
    /// The name of the artifact.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// What people read about it; empty is none.
    pub description: String,
    /// JSON text; empty is none.
    pub metadata: String,
    /// Names that are to stand for this version.
    pub aliases: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// When the server may delete it, in seconds; 0 says nothing.
    pub ttl_seconds: i64,
    /// What it holds.
    pub manifest: Manifest,
}

/// A version that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutArtifact {
    /// The entity as the server names it.
    pub entity: String,
    /// The project as the server names it.
    pub project: String,
    /// The run that it belongs to.
    pub run_id: String,
    /// What was sent.
    pub uploaded: UploadedArtifact,
    /// The version.
    pub version: ArtifactVersion,
}

/// Why a version could not be put.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The run that it is to belong to is not there: have another one named.
    #[error("there is no run `{0}`")]
    NoRun(String),
    /// Anything else.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

impl From<ApiError> for PutError {
    fn from(error: ApiError) -> Self {
        Self::Artifact(error.into())
    }
}

impl PutError {
    /// What it means for the caller; `None` where only what was typed is wrong.
    pub fn class(&self) -> Option<Class> {
        match self {
            Self::NoRun(_) => None,
            Self::Artifact(error) => Some(error.class()),
        }
    }
}

/// Puts a version, and returns when it is committed.
pub async fn put_artifact(
    api: &Arc<ApiClient>,
    request: PutRequest,
    manner: Manner,
    cancel: &CancellationToken,
) -> Result<PutArtifact, PutError> {
    let digest = request.manifest.digest();
    let run = match &request.run {
        Some(run) => find_run(api, &request, run, cancel).await?,
        None => own_run(api, &request, &digest, cancel).await?,
    };
    let upload = request.upload(digest, &run);
    let put = async {
        let uploaded = upload_artifact(api, upload, manner, cancel).await?;
        let version = settled(api, &uploaded.id, cancel).await?;
        Ok((uploaded, version))
    };
    let put: Result<_, ArtifactError> = put.await;
    if request.run.is_none() {
        let code = match &put {
            Ok(_) => Some(0),
            // The next call goes on with it.
            Err(error) if matches!(error.class(), Class::Temporary | Class::Cancelled | Class::Auth) => None,
            Err(_) => Some(1),
        };
        if let Some(code) = code {
            let content = Content { exit_code: Some(code), ..Content::default() };
            let ended = api.file_stream(&run, Bytes::from(content.body()), false, cancel).await;
            match ended {
                Err(error) if put.is_ok() => return Err(error.into()),
                Err(error) => debug!(%error, "the run was not ended"),
                Ok(_) => {}
            }
        }
    }
    let (uploaded, version) = put?;
    Ok(PutArtifact { entity: run.entity, project: run.project, run_id: run.run_id, uploaded, version })
}

impl PutRequest {
    fn upload(&self, digest: String, run: &Bucket) -> ArtifactUpload {
        let place = [run.entity.as_str(), run.project.as_str(), self.name.as_str()];
        let [entity, project, name] = place;
        let words = [entity, project, name, &self.kind, &digest];
        let new = NewArtifact {
            entity: run.entity.clone(),
            project: run.project.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            run_id: Some(run.run_id.clone()),
            description: self.description.clone(),
            metadata: self.metadata.clone(),
            aliases: self.aliases.clone(),
            tags: self.tags.clone(),
            ttl_seconds: self.ttl_seconds,
            distributed_id: String::new(),
            client_id: stable_client_id(&words),
            sequence_client_id: stable_client_id(&place),
            storage_region: self.manifest.storage_region.clone(),
            digest: digest.clone(),
        };
        ArtifactUpload {
            new,
            manifest: self.manifest.clone(),
            places: Arc::default(),
            run: [run.entity.clone(), run.project.clone(), run.run_id.clone()],
            kind: ManifestKind::Full,
            base: None,
            finalize: true,
            use_after_commit: false,
            second_client_id: Some(stable_client_id(&[&words.concat(), &now()])),
        }
    }
}

/// The run that was named. It may have ended, and is left as it is.
async fn find_run(
    api: &ApiClient,
    request: &PutRequest,
    run: &RunId,
    cancel: &CancellationToken,
) -> Result<Bucket, PutError> {
    let entity = match &request.entity {
        Some(entity) => entity.clone(),
        None => api.viewer(cancel).await?.entity,
    };
    let there = api.run_status(&entity, &request.project, run.as_str(), cancel).await?;
    let there = there.ok_or_else(|| PutError::NoRun(format!("{entity}/{}/{run}", request.project)))?;
    Ok(Bucket {
        storage_id: there.storage_id,
        run_id: run.to_string(),
        entity,
        project: request.project.clone(),
        ..Bucket::default()
    })
}

/// A run for this version alone, the same for each call.
async fn own_run(
    api: &ApiClient,
    request: &PutRequest,
    digest: &str,
    cancel: &CancellationToken,
) -> Result<Bucket, PutError> {
    let mut telemetry = Telemetry::default();
    telemetry.set_core_version(env!("CARGO_PKG_VERSION"));
    // Without `t` a run counts as never started.
    let config = Json::from([("_wandb", Json::from([("value", Json::from([("t", telemetry.to_json())]))]))]);
    let entity = request.entity.clone();
    let words = [entity.as_deref().unwrap_or_default(), &request.project, &request.kind, &request.name, digest];
    let mut run = UpsertBucket {
        name: Some(stable_run_id(&words)),
        project: Some(request.project.clone()),
        entity: entity.clone(),
        display_name: Some(format!("artifact put {}", request.name)),
        job_type: Some(JOB_TYPE.to_owned()),
        config: Some(config.to_string()),
        ..UpsertBucket::default()
    };
    match api.upsert_bucket(&run, cancel).await {
        // Somebody deleted it, and its id cannot be used again.
        Err(error) if error.class() == Class::RunGone => {
            run.name = Some(stable_run_id(&[&words.concat(), &now()]));
            Ok(api.upsert_bucket(&run, cancel).await?)
        }
        other => Ok(other?),
    }
}

/// A text that is never the same again.
fn now() -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{} {}", time.as_nanos(), std::process::id())
}
