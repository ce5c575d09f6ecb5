//! The moving number between the two halves: how far a run's log counts.

use tokio::sync::watch;

use crate::model::LogPosition;
use crate::recorder::Recorder;
use crate::upload::{Close, LogEnd};

/// The moving number between the two halves: how far a run's log counts.
#[derive(Debug)]
pub struct Published(watch::Sender<LogEnd>);

impl Published {
    /// Begins at what was committed before.
    pub fn new(recorder: &Recorder) -> Self {
        let position = Some(recorder.checkpoint().position);
        Self(watch::channel(LogEnd { position, complete: false, close: Close::LeaveRunning }).0)
    }

    /// For who reads the log.
    pub fn subscribe(&self) -> watch::Receiver<LogEnd> {
        self.0.subscribe()
    }

    /// Everything before `position` is durable.
    pub fn up_to(&self, position: LogPosition) {
        self.0.send_modify(|end| end.position = Some(position));
    }

    /// Nothing more will come in this process.
    pub fn complete(&self) {
        self.0.send_modify(|end| end.complete = true);
    }
}
