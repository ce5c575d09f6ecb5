//! Uploads of files to signed URLs.
//!
//! The URL is the permission: no key goes with it, and no error shows its query. A file is streamed from disk, so its size
//! does not matter to memory.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use url::Url;

use crate::api::answer::Got;
use crate::api::body::{Body, file_error};
use crate::api::client::{ApiClient, Outgoing, header};
use crate::api::error::{ApiError, shown};
use crate::api::patience::Patience;
use crate::api::retry::Call;

/// A transfer that is slower than this, in bytes a second, is given up and tried again.
const SLOWEST: u64 = 64 << 10;

/// Smaller files are read whole: most are, and each step of reading costs a change of threads.
const SMALL: u64 = 64 << 10;

/// What is known of a file before it is sent.
enum Look {
    Size(u64),
    Content(bytes::Bytes),
}

fn size_or_content(path: &Path) -> std::io::Result<Look> {
    let metadata = path.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("not a file"));
    }
    if metadata.len() > SMALL {
        return Ok(Look::Size(metadata.len()));
    }
    let mut content = Vec::with_capacity(metadata.len() as usize);
    File::open(path)?.take(metadata.len()).read_to_end(&mut content)?;
    Ok(Look::Content(content.into()))
}

/// `Name:value`, split at the first colon.
pub(super) fn split_headers(headers: Option<Vec<String>>) -> Vec<(String, String)> {
    let split =
        |header: String| header.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    headers.unwrap_or_default().into_iter().filter_map(split).collect()
}

impl ApiClient {
    /// Uploads a file as it is now. Returns its size.
    pub(crate) async fn put_file(
        &self,
        url: &str,
        headers: &[(String, String)],
        path: &Path,
        patience: &impl Patience,
    ) -> Result<u64, ApiError> {
        let looked_at = path.to_owned();
        let look = tokio::task::spawn_blocking(move || size_or_content(&looked_at)).await;
        let looked = look.map_err(std::io::Error::other).and_then(|looked| looked);
        let body = match looked.map_err(|error| file_error(path, &error))? {
            Look::Content(bytes) => Body::Bytes(bytes),
            Look::Size(size) => Body::File { path, offset: 0, size },
        };
        let size = body.size();
        self.put(url, headers, body, patience).await.map(|_| size)
    }

    /// Uploads bytes that are at hand.
    pub(crate) async fn put_bytes(
        &self,
        url: &str,
        headers: &[(String, String)],
        bytes: bytes::Bytes,
        patience: &impl Patience,
    ) -> Result<(), ApiError> {
        self.put(url, headers, Body::Bytes(bytes), patience).await.map(drop)
    }

    /// Uploads a part of a file. Returns the store's mark of it.
    pub(crate) async fn put_part(
        &self,
        url: &str,
        headers: &[(String, String)],
        path: &Path,
        (offset, size): (u64, u64),
        patience: &impl Patience,
    ) -> Result<String, ApiError> {
        let got = self.put(url, headers, Body::File { path, offset, size }, patience).await?;
        let place = shown(&self.storage_url(url)?);
        let why = || "it took a part of a file and gave no `ETag`".to_owned();
        got.etag.ok_or_else(|| ApiError::Protocol { place, why: why() })
    }

    async fn put(
        &self,
        url: &str,
        headers: &[(String, String)],
        body: Body<'_>,
        patience: &impl Patience,
    ) -> Result<Got, ApiError> {
        let url = self.storage_url(url)?;
        let mut all: HeaderMap = headers.iter().filter_map(|(name, value)| header(name, value)).collect();
        let size = body.size();
        all.insert(CONTENT_LENGTH, HeaderValue::from(size));
        let timeout = Some(self.options().timeouts.transfer + Duration::from_secs(size / SLOWEST));
        let out =
            Outgoing { call: Call::Transfer, method: Method::PUT, url, headers: all, body, timeout, to_api: false };
        self.send_for_answer(out, patience).await
    }

    /// Servers may answer with a path on their own host.
    fn storage_url(&self, url: &str) -> Result<Url, ApiError> {
        let parsed = self.base_url().join(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        parsed.ok_or_else(|| ApiError::Protocol {
            place: shown(self.base_url()),
            why: "it named an upload URL that is none".to_owned(),
        })
    }
}
