//! Uploads of files to signed URLs.
//!
//! The URL is the permission: no key goes with it, and no error shows its query. A file is streamed from disk, so its size
//! does not matter to memory.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::api::client::{ApiClient, Outgoing, header};
use crate::api::error::ApiError;
use crate::api::retry::Call;

/// A transfer that is slower than this, in bytes a second, is given up and tried again.
const SLOWEST: u64 = 64 << 10;

/// How much of a file is read at once.
const PIECE: usize = 256 << 10;

impl ApiClient {
    /// Uploads a file as it is now. Returns its size.
    pub(crate) async fn put_file(
        &self,
        url: &str,
        headers: &[(String, String)],
        path: &Path,
        cancel: &CancellationToken,
    ) -> Result<u64, ApiError> {
        let url = self.storage_url(url)?;
        let failed =
            |error: std::io::Error| ApiError::File { path: path.display().to_string(), why: error.to_string() };
        let metadata = tokio::fs::metadata(path).await.map_err(failed)?;
        if !metadata.is_file() {
            return Err(ApiError::File { path: path.display().to_string(), why: "not a file".to_owned() });
        }
        let size = metadata.len();
        let mut all: HeaderMap = headers.iter().filter_map(|(name, value)| header(name, value)).collect();
        all.insert(CONTENT_LENGTH, HeaderValue::from(size));
        let timeout = Some(self.options().timeouts.transfer + Duration::from_secs(size / SLOWEST));
        let out = Outgoing { call: Call::Transfer, method: Method::PUT, url, headers: all, timeout, to_api: false };
        let body = || async {
            if size == 0 {
                return Ok(reqwest::Body::from(""));
            }
            let file = tokio::fs::File::open(path).await.map_err(failed)?;
            // A file that grows meanwhile is sent as long as it was announced.
            Ok(reqwest::Body::wrap_stream(ReaderStream::with_capacity(file.take(size), PIECE)))
        };
        self.send(out, body, cancel).await?;
        Ok(size)
    }

    /// Uploads bytes that are at hand.
    pub(crate) async fn put_bytes(
        &self,
        url: &str,
        headers: &[(String, String)],
        bytes: bytes::Bytes,
        cancel: &CancellationToken,
    ) -> Result<(), ApiError> {
        let url = self.storage_url(url)?;
        let size = bytes.len() as u64;
        let mut all: HeaderMap = headers.iter().filter_map(|(name, value)| header(name, value)).collect();
        all.insert(CONTENT_LENGTH, HeaderValue::from(size));
        let timeout = Some(self.options().timeouts.transfer + Duration::from_secs(size / SLOWEST));
        let out = Outgoing { call: Call::Transfer, method: Method::PUT, url, headers: all, timeout, to_api: false };
        self.send(out, || std::future::ready(Ok(bytes.clone().into())), cancel).await.map(drop)
    }

    /// Uploads a part of a file. Returns the store's mark of it.
    pub(crate) async fn put_part(
        &self,
        url: &str,
        headers: &[(String, String)],
        path: &Path,
        (offset, size): (u64, u64),
        cancel: &CancellationToken,
    ) -> Result<String, ApiError> {
        let url = self.storage_url(url)?;
        let place = crate::api::error::shown(&url);
        let failed =
            |error: std::io::Error| ApiError::File { path: path.display().to_string(), why: error.to_string() };
        let mut all: HeaderMap = headers.iter().filter_map(|(name, value)| header(name, value)).collect();
        all.insert(CONTENT_LENGTH, HeaderValue::from(size));
        let timeout = Some(self.options().timeouts.transfer + Duration::from_secs(size / SLOWEST));
        let out = Outgoing { call: Call::Transfer, method: Method::PUT, url, headers: all, timeout, to_api: false };
        let body = || async {
            let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
            file.seek(std::io::SeekFrom::Start(offset)).await.map_err(failed)?;
            Ok(reqwest::Body::wrap_stream(ReaderStream::with_capacity(file.take(size), PIECE)))
        };
        let got = self.send_for_answer(out, body, cancel).await?;
        got.etag
            .ok_or_else(|| ApiError::Protocol { place, why: "it took a part of a file and gave no `ETag`".to_owned() })
    }

    /// Servers may answer with a path on their own host.
    fn storage_url(&self, url: &str) -> Result<Url, ApiError> {
        let parsed = self.base_url().join(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        parsed.ok_or_else(|| ApiError::Protocol {
            place: crate::api::error::shown(self.base_url()),
            why: "it named an upload URL that is none".to_owned(),
        })
    }
}
