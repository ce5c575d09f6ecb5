//! What a request carries, made anew for each try.

use std::io::{self, SeekFrom};
use std::path::Path;

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::api::error::ApiError;

/// How much of a file is read at once.
const PIECE: usize = 256 << 10;

/// What a request carries.
pub(crate) enum Body<'a> {
    /// Bytes that are at hand.
    Bytes(Bytes),
    /// So much of a file. One that grows meanwhile is sent as long as it was announced.
    File { path: &'a Path, offset: u64, size: u64 },
}

impl Body<'_> {
    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }

    /// For one try.
    pub(super) async fn begin(&self) -> Result<reqwest::Body, ApiError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone().into()),
            Self::File { path, offset, size } => {
                let file = open_at(path, *offset).await.map_err(|error| file_error(path, &error))?;
                Ok(reqwest::Body::wrap_stream(ReaderStream::with_capacity(file.take(*size), PIECE)))
            }
        }
    }
}

async fn open_at(path: &Path, offset: u64) -> io::Result<File> {
    let mut file = File::open(path).await?;
    if offset > 0 {
        file.seek(SeekFrom::Start(offset)).await?;
    }
    Ok(file)
}

/// A file could not be read.
pub(super) fn file_error(path: &Path, error: &io::Error) -> ApiError {
    ApiError::File { path: path.display().to_string(), why: error.to_string() }
}
