//! What all uploads of one process share: the client, the places for transfers, and the reasons to stop.
//!
//! A key that is not accepted stops every run at once; a project that may not be written to stops the runs that go there.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::api::{ApiClient, ApiError, Class};
use crate::upload::unsettled::Unsettled;

/// So many small requests a second are made by all runs that grow, unless the user set a limit. What is full is sent at once.
const SMALL_REQUESTS: f64 = 20.0;

/// No run sends small requests more often than this.
const SEND_INTERVAL: Duration = Duration::from_secs(1);

/// However low the limit of requests is, a run sends this often.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// How many runs may wait for their next try without a place, for each that may send.
const RESTING: usize = 4;

/// The uploads of one process.
#[derive(Debug)]
pub struct Fleet {
    pub(crate) api: Arc<ApiClient>,
    /// For runs that send: as many again for runs that grow as for others, which never stand in their way.
    pub(crate) places: Arc<Semaphore>,
    /// For runs that do not grow. Those wait before they read anything, so that memory does not grow with their number.
    pub(crate) bulk: Arc<Semaphore>,
    /// For runs that wait for a server that is not well, without a place.
    pub(crate) rests: Arc<Semaphore>,
    /// What is to last when the command ends.
    pub(crate) unsettled: Arc<Unsettled>,
    cancel: CancellationToken,
    active: AtomicUsize,
    reasons: Mutex<Reasons>,
    hurry: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Reasons {
    all: Option<ApiError>,
    projects: BTreeMap<(String, String), ApiError>,
}

impl Fleet {
    /// At most `transfers` runs that do not grow are sent at the same time, and as many that do. `cancel` ends all of them, even while they wait.
    pub fn new(api: Arc<ApiClient>, transfers: usize, cancel: &CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            api,
            places: places(2 * transfers),
            bulk: places(transfers),
            rests: places(RESTING * transfers),
            unsettled: Arc::default(),
            cancel: cancel.child_token(),
            active: AtomicUsize::new(0),
            reasons: Mutex::default(),
            hurry: watch::Sender::new(false),
        })
    }

    /// The client that all of them use.
    pub fn api(&self) -> &Arc<ApiClient> {
        &self.api
    }

    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Whether somebody waits until what is there was sent.
    pub fn hurry(&self, hurry: bool) {
        self.hurry.send_if_modified(|known| std::mem::replace(known, hurry) != hurry);
    }

    pub(crate) fn is_hurried(&self) -> bool {
        *self.hurry.borrow()
    }

    /// Waits until that changes.
    pub(crate) async fn hurry_changes(&self) {
        // It cannot fail, since we hold the sender ourselves.
        let _ = self.hurry.subscribe().changed().await;
    }

    /// A place in the queue of runs that do not grow: whoever asks first is read first, however soon its task runs.
    ///
    /// Only for who waits for nothing else before it takes the place.
    pub fn queue(&self) -> Queued {
        let mut permit: Pin<Box<Acquire>> = Box::pin(self.bulk.clone().acquire_owned());
        // The first poll puts it into the queue; the task that takes it over brings a waker of its own.
        match permit.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Queued(Box::pin(std::future::ready(permit))),
            Poll::Pending => Queued(permit),
        }
    }

    /// Waits until the disk holds what was noted of all runs that have ended. Returns, in words, what could not be done.
    pub async fn settle(&self) -> Vec<String> {
        if self.unsettled.is_empty() {
            return Vec::new();
        }
        let unsettled = self.unsettled.clone();
        spawn_blocking(move || unsettled.settle()).await.unwrap_or_else(|error| vec![error.to_string()])
    }

    /// Counts a run as active until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(self.clone())
    }

    /// The time between small requests of one run: all active runs together stay within the limit.
    pub(crate) fn send_interval(&self) -> Duration {
        let limit = self.api.requests_per_second().unwrap_or(SMALL_REQUESTS);
        if limit <= 0.0 {
            return SEND_INTERVAL;
        }
        let active = self.active.load(Ordering::Relaxed) as f64;
        SEND_INTERVAL.max(Duration::try_from_secs_f64(active / limit).unwrap_or(LONGEST_INTERVAL)).min(LONGEST_INTERVAL)
    }

    /// Notes what an error means for other runs.
    pub(crate) fn learn(&self, error: &ApiError, entity: &str, project: &str) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        match error.class() {
            Class::Auth => {
                reasons.all.get_or_insert_with(|| error.clone());
                self.cancel.cancel();
            }
            Class::Forbidden => {
                reasons.projects.entry((entity.to_owned(), project.to_owned())).or_insert_with(|| error.clone());
            }
            _ => {}
        }
    }

    /// Why runs of a project must not go on, if so.
    pub(crate) fn reason_to_stop(&self, entity: &str, project: &str) -> Option<ApiError> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let of_project = || reasons.projects.get(&(entity.to_owned(), project.to_owned()));
        reasons.all.as_ref().or_else(of_project).cloned()
    }
}

type Acquire = dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send;

/// See [`Fleet::queue`].
pub struct Queued(pub(crate) Pin<Box<Acquire>>);

impl Queued {
    /// Waits until the place is free, or nothing more is sent.
    pub async fn reached(mut self, fleet: &Fleet) -> Self {
        tokio::select! {
            biased;
            () = fleet.cancel().cancelled() => self,
            permit = self.0.as_mut() => Self(Box::pin(std::future::ready(permit))),
        }
    }
}

impl fmt::Debug for Queued {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Queued").finish_non_exhaustive()
    }
}

fn places(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)))
}

/// A run that is being uploaded.
#[derive(Debug)]
pub(crate) struct Active(Arc<Fleet>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
