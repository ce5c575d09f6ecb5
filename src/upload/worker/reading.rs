//! The place of a worker in its log. The next batch is read while the last one is on its way.

use std::path::PathBuf;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::api::ApiError;
use crate::upload::batch::Batch;
use crate::upload::cursor::Cursor;
use crate::upload::fold::Fold;
use crate::upload::job::{LogEnd, UploadError};
use crate::upload::state::Base;
use crate::upload::worker::Worker;
use crate::wandb_format::LogError;

/// The place in the log: at hand, or with a thread that reads on.
pub(super) enum Reading {
    /// Nothing was read yet, or what read was lost.
    Not,
    At(Box<Cursor>),
    /// And up to where, as it was known then.
    Ahead(JoinHandle<Read>, LogEnd),
    /// The next batch was read already.
    Done(Box<Read>, LogEnd),
}

type Read = (Box<Cursor>, Result<Batch, LogError>);

impl Reading {
    /// Reads the first batch of a log of which nothing is known. Blocking.
    pub(super) fn first(log: PathBuf, end: LogEnd) -> Self {
        let mut cursor = Box::new(Cursor::new(log, Fold::default(), Base::default(), 0));
        let batch = cursor.next_batch(end);
        Self::Done(Box::new((cursor, batch)), end)
    }
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
        let ((cursor, batch), known) = match std::mem::replace(&mut self.reading, Reading::Not) {
            Reading::Done(read, known) => (*read, known),
            Reading::Ahead(reading, known) => {
                let read = reading.await.map_err(|error| self.log_error(std::io::Error::other(error).into()))?;
                (read, known)
            }
            Reading::Not | Reading::At(_) => return Err(ApiError::Cancelled.into()),
        };
        self.reading = Reading::At(cursor);
        let batch = batch.map_err(|source| self.log_error(source))?;
        Ok((batch, known))
    }

    pub(super) fn log_error(&self, source: LogError) -> UploadError {
        UploadError::Log { log: self.job.log.clone(), source }
    }
}
