//! The place of a worker in its log. The next batch is read while the last one is on its way.

use tokio::task::{JoinHandle, spawn_blocking};

use crate::api::ApiError;
use crate::upload::batch::Batch;
use crate::upload::cursor::Cursor;
use crate::upload::fold::Fold;
use crate::upload::job::{LogEnd, UploadError};
use crate::upload::worker::Worker;
use crate::wandb_format::LogError;

/// The place in the log: at hand, or with a thread that reads on.
pub(super) enum Reading {
    /// Nothing was read yet, or what read was lost.
    Not,
    At(Box<Cursor>),
    /// And up to where, as it was known then.
    Ahead(JoinHandle<(Box<Cursor>, Result<Batch, LogError>)>, LogEnd),
}

impl Worker<'_> {
    /// Goes on behind `fold`; rows from `resend_from` on are sent, those before it are there.
    pub(super) fn read_from(&mut self, fold: Fold, resend_from: u64) {
        let base = self.base();
        self.reading = Reading::At(Box::new(Cursor::new(self.job.log.clone(), fold, base, resend_from)));
    }

    /// Starts to read the next batch, unless that is being read already.
    pub(super) fn read_ahead(&mut self, end: LogEnd) {
        self.reading = match std::mem::replace(&mut self.reading, Reading::Not) {
            Reading::At(mut cursor) => {
                let read = move || {
                    let batch = cursor.next_batch(end);
                    (cursor, batch)
                };
                Reading::Ahead(spawn_blocking(read), end)
            }
            other => other,
        };
    }

    /// The next batch, and the end that was known when it was read.
    pub(super) async fn next_batch(&mut self, end: LogEnd) -> Result<(Batch, LogEnd), UploadError> {
        self.read_ahead(end);
        let Reading::Ahead(reading, known) = std::mem::replace(&mut self.reading, Reading::Not) else {
            return Err(ApiError::Cancelled.into());
        };
        let (cursor, batch) = reading.await.map_err(|error| self.log_error(std::io::Error::other(error).into()))?;
        self.reading = Reading::At(cursor);
        let batch = batch.map_err(|source| self.log_error(source))?;
        Ok((batch, known))
    }

    pub(super) fn log_error(&self, source: LogError) -> UploadError {
        UploadError::Log { log: self.job.log.clone(), source }
    }
}
