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
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use url::Url;

use crate::api::client::{ApiClient, Outgoing, header};
use crate::api::error::ApiError;
use crate::api::patience::Patience;
use crate::api::retry::Call;

/// A transfer that is slower than this, in bytes a second, is given up and tried again.
const SLOWEST: u64 = 64 << 10;

/// How much of a file is read at once.
const PIECE: usize = 256 << 10;

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

impl ApiClient {
    /// Uploads a file as it is now. Returns its size.
    pub(crate) async fn put_file(
        &self,
        url: &str,
        headers: &[(String, String)],
        path: &Path,
        patience: &impl Patience,
    ) -> Result<u64, ApiError> {
        let failed =
            |error: std::io::Error| ApiError::File { path: path.display().to_string(), why: error.to_string() };
        let looked_at = path.to_owned();
        let look = tokio::task::spawn_blocking(move || size_or_content(&looked_at)).await;
        let size = match look.map_err(std::io::Error::other).and_then(|looked| looked).map_err(failed)? {
            Look::Content(bytes) => {
                let size = bytes.len() as u64;
                return self.put_bytes(url, headers, bytes, patience).await.map(|()| size);
            }
            Look::Size(size) => size,
        };
        let url = self.storage_url(url)?;
        let mut all: HeaderMap = headers.iter().filter_map(|(name, value)| header(name, value)).collect();
        all.insert(CONTENT_LENGTH, HeaderValue::from(size));
        let timeout = Some(self.options().timeouts.transfer + Duration::from_secs(size / SLOWEST));
        let out = Outgoing { call: Call::Transfer, method: Method::PUT, url, headers: all, timeout, to_api: false };
        let body = || async {
            let file = tokio::fs::File::open(path).await.map_err(failed)?;
            // A file that grows meanwhile is sent as long as it was announced.
            Ok(reqwest::Body::wrap_stream(ReaderStream::with_capacity(file.take(size), PIECE)))
        };
        self.send(out, body, patience).await?;
        Ok(size)
    }

    /// Uploads bytes that are at hand.
    pub(crate) async fn put_bytes(
        &self,
        url: &str,
        headers: &[(String, String)],
        bytes: bytes::Bytes,
        patience: &impl Patience,
    ) -> Result<(), ApiError> {
        let url = self.storage_url(url)?;
        let size = bytes.len() as u64;
        let mut all: HeaderMap = headers.iter().filter_map(|(name, value)| header(name, value)).collect();
        all.insert(CONTENT_LENGTH, HeaderValue::from(size));
        let timeout = Some(self.options().timeouts.transfer + Duration::from_secs(size / SLOWEST));
        let out = Outgoing { call: Call::Transfer, method: Method::PUT, url, headers: all, timeout, to_api: false };
        self.send(out, || std::future::ready(Ok(bytes.clone().into())), patience).await.map(drop)
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
        let got = self.send_for_answer(out, body, patience).await?;
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
