//! The W&B server: GraphQL operations, the file stream, signed uploads. Only HTTP lives here.
//!
//! One [`ApiClient`] serves all runs of the process and keeps one budget of requests for them. Every call retries what is
//! worth retrying and then returns an [`ApiError`], whose [`class`](ApiError::class) says what that means for the run. The
//! API key goes to the configured host and nowhere else: not to storage URLs, not along a redirect, not into an error.
//!
//! This room does not know what a log is, or in which order a run is uploaded: that is `upload`.

mod answer;
mod app_url;
mod artifacts;
mod body;
mod budget;
mod client;
mod credentials;
mod error;
pub(crate) mod file_stream;
mod graphql;
mod outage;
mod patience;
mod retry;
mod run_facts;
mod runs;
mod storage;
mod viewer;

pub use app_url::{app_url, artifact_url, project_url, run_url};
pub use artifacts::{
    ArtifactState, ArtifactVersion, CreatedArtifact, FilePlace, FileSpec, FileUpload, ManifestKind, ManifestPlace,
    NewArtifact, NewManifest, PartSpec, Upload,
};
pub use client::{ApiClient, ApiOptions, Proxies, Timeouts};
pub use credentials::{ApiKey, InvalidApiKey};
pub use error::{ApiError, Class};
pub use outage::{GivingUp, Outage};
pub use patience::Patience;
pub use retry::RetryPolicy;
pub use run_facts::{RunFacts, RunFile, RunName, RunSeen, StepRange, VersionFacts};
pub use runs::{Alert, Bucket, RunFiles, RunStatus, UpsertBucket};
pub use viewer::{Features, Viewer};
