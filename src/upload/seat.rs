//! A run's place among those that send, given back while the run does nothing but wait for a server that is not well.
//!
//! A run that is tried again for minutes must not keep others from being sent. But it also holds a part of its log in
//! memory, so only so many may rest at a time; further ones keep their places.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::api::{ApiError, Patience};
use crate::upload::fleet::{Fleet, Queued};

/// Shorter waits are not worth the change.
const LONG_WAIT: Duration = Duration::from_secs(2);

/// The places of one run.
#[derive(Debug)]
pub(crate) struct Seat {
    fleet: Arc<Fleet>,
    /// Whether the run does not grow: of those, only some are read at a time.
    bulk: bool,
    /// Its place in their queue, until it is its turn.
    queued: Mutex<Option<Queued>>,
    held: Mutex<Held>,
    /// One call at a time takes the places back.
    taking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    bulk: Option<OwnedSemaphorePermit>,
    place: Option<OwnedSemaphorePermit>,
    rest: Option<OwnedSemaphorePermit>,
    /// Calls under way, and those of them that wait for their next try.
    calls: usize,
    resting: usize,
}

impl Seat {
    pub(crate) fn new(fleet: Arc<Fleet>, bulk: bool, queued: Option<Queued>) -> Self {
        let queued = Mutex::new(queued);
        Self { fleet, bulk, queued, held: Mutex::default(), taking: tokio::sync::Mutex::default() }
    }

    /// Waits until the run may be read.
    pub(crate) async fn enter(&self) -> Result<(), ApiError> {
        if self.bulk && self.held().bulk.is_none() {
            let queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner).take();
            let permit = match queued {
                Some(queued) => self.permit(queued.0).await?,
                None => self.permit(self.fleet.bulk.clone().acquire_owned()).await?,
            };
            self.held().bulk = Some(permit);
        }
        Ok(())
    }

    /// Waits until the run may send.
    pub(crate) async fn take(&self) -> Result<(), ApiError> {
        if self.held().place.is_none() {
            let permit = self.permit(self.fleet.places.clone().acquire_owned()).await?;
            self.held().place = Some(permit);
        }
        Ok(())
    }

    /// The run does not send for now.
    pub(crate) fn leave(&self) {
        self.held().place = None;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn permit(
        &self,
        permit: impl Future<Output = Result<OwnedSemaphorePermit, AcquireError>>,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        tokio::select! {
            biased;
            () = self.fleet.cancel().cancelled() => Err(ApiError::Cancelled),
            permit = permit => permit.map_err(|_| ApiError::Cancelled),
        }
    }
}

impl Patience for Seat {
    fn token(&self) -> &CancellationToken {
        self.fleet.cancel()
    }

    fn begins(&self) {
        self.held().calls += 1;
    }

    fn ends(&self) {
        let mut held = self.held();
        held.calls = held.calls.saturating_sub(1);
    }

    fn rests(&self, wait: Duration) {
        let mut held = self.held();
        held.resting += 1;
        // Files of a run are sent side by side: as long as one of them moves, the run is at work.
        if wait < LONG_WAIT || held.resting < held.calls || held.rest.is_some() {
            return;
        }
        if let Ok(rest) = self.fleet.rests.clone().try_acquire_owned() {
            (held.rest, held.place, held.bulk) = (Some(rest), None, None);
        }
    }

    async fn goes_on(&self) -> Result<(), ApiError> {
        let _one = self.taking.lock().await;
        let rested = {
            let mut held = self.held();
            held.resting = held.resting.saturating_sub(1);
            held.rest.is_some()
        };
        if rested {
            self.enter().await?;
            self.take().await?;
            self.held().rest = None;
        }
        Ok(())
    }
}
