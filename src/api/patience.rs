//! Who waits for a call: whoever made it can end it, and hears when it does nothing but wait.
//!
//! A plain [`CancellationToken`] is enough for most. A caller that keeps others waiting while it waits itself, because it
//! holds a place that they need, gives the place back in [`Patience::rests`].

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::error::ApiError;

/// The caller of a call that may take many tries.
pub trait Patience: Sync {
    /// Ends the call when it is cancelled.
    fn token(&self) -> &CancellationToken;

    /// A call begins.
    fn begins(&self) {}

    /// It has ended, one way or the other.
    fn ends(&self) {}

    /// It is going to do nothing for this long before the next try.
    fn rests(&self, wait: Duration) {
        let _ = wait;
    }

    /// That time is over. The next try follows when this is ready.
    fn goes_on(&self) -> impl Future<Output = Result<(), ApiError>> + Send {
        async { Ok(()) }
    }
}

impl Patience for CancellationToken {
    fn token(&self) -> &CancellationToken {
        self
    }
}

/// A call that has begun and not ended.
pub(crate) struct Begun<'a, P: Patience>(&'a P);

impl<'a, P: Patience> Begun<'a, P> {
    pub(crate) fn new(patience: &'a P) -> Self {
        patience.begins();
        Self(patience)
    }
}

impl<P: Patience> Drop for Begun<'_, P> {
    fn drop(&mut self) {
        self.0.ends();
    }
}
