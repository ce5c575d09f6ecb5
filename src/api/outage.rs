//! Whether the API answers at all, as the calls of all runs find out together.
//!
//! Each call tries again for itself. Only all of them together know since when nothing came of any try, whether that was
//! told, and whether somebody tried to the end in vain: then the others need not spend the same time one after the other.
//! The course of an outage is pure and takes the time.

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::error::ApiError;

/// A person hears of an outage that lasts so long, or will before the next try. A lost answer now and then is no news.
const WORTH_TELLING: Duration = Duration::from_secs(4);

/// One that begins so soon after the last that was told is not told again: a server that answers now and then.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Whether a call that got no answer tries on although another one tried to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GivingUp {
    /// It does: the command goes on until the server is back.
    #[default]
    Alone,
    /// It does not: whoever called the command waits for its end.
    Together,
}

/// What a person should hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outage {
    /// Nothing came of any try for a while. It is tried on.
    Begins {
        /// What came of the last one.
        error: ApiError,
        /// How many times a request is tried again.
        retries: u32,
    },
    /// The server answers again.
    Ends,
}

type Listener = Box<dyn Fn(&Outage) + Send + Sync>;

/// The weather at the API's host. Shared by every call of one client.
#[derive(Default)]
pub(crate) struct Weather {
    course: Mutex<Course>,
    given_up: watch::Sender<Option<GivenUp>>,
    listener: OnceLock<Listener>,
}

#[derive(Debug, Clone)]
struct GivenUp {
    error: ApiError,
    /// When it was last tried.
    tried: Instant,
}

impl Weather {
    /// Who tells a person. The first one that asks.
    pub(crate) fn listen(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    /// Somebody is there, whatever was said.
    pub(crate) fn reached(&self) {
        self.given_up.send_if_modified(|given_up| given_up.take().is_some());
    }

    /// Something came of a try.
    pub(crate) fn answered(&self) {
        self.reached();
        if self.course().ends(Instant::now()) {
            self.tell(&Outage::Ends);
        }
    }

    /// A try that began then came to nothing, and the next one follows after `wait`.
    pub(crate) fn failed(&self, began: Instant, wait: Duration, error: &ApiError, retries: u32) {
        if self.course().fails(began, Instant::now(), wait) {
            self.tell(&Outage::Begins { error: error.clone(), retries });
        }
    }

    /// A call whose first try began then has no try left.
    pub(crate) fn gave_up(&self, began: Instant, error: &ApiError) {
        if !self.course().answered_since(began) {
            self.given_up.send_replace(Some(GivenUp { error: error.clone(), tried: Instant::now() }));
        }
    }

    /// Why a call need not begin: it was tried in vain only now.
    pub(crate) fn in_vain(&self, lately: Duration) -> Option<ApiError> {
        let given_up = self.given_up.borrow();
        given_up.as_ref().filter(|given_up| given_up.tried.elapsed() < lately).map(|given_up| given_up.error.clone())
    }

    /// Whether a call had no try left, and nobody was reached since.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.borrow().is_some()
    }

    /// Waits until a call has no try left.
    pub(crate) async fn given_up(&self) {
        // It cannot fail, since we hold the sender ourselves.
        let _ = self.given_up.subscribe().wait_for(Option::is_some).await;
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, outage: &Outage) {
        if let Some(listener) = self.listener.get() {
            listener(outage);
        }
    }
}

impl fmt::Debug for Weather {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Weather").field("course", &self.course).finish_non_exhaustive()
    }
}

/// The course of outages.
#[derive(Debug, Default)]
struct Course {
    /// When the first try began of those since which nothing came of any.
    since: Option<Instant>,
    /// Whether this outage was told.
    told: bool,
    /// When one was last told.
    told_at: Option<Instant>,
    /// When something came of a try last.
    answered: Option<Instant>,
}

impl Course {
    /// Returns whether it is to be told.
    fn fails(&mut self, began: Instant, now: Instant, wait: Duration) -> bool {
        let since = *self.since.get_or_insert(began);
        let lately = self.told_at.is_some_and(|at| now.saturating_duration_since(at) < TELL_AGAIN_AFTER);
        if self.told || lately || now.saturating_duration_since(since) + wait < WORTH_TELLING {
            return false;
        }
        (self.told, self.told_at) = (true, Some(now));
        true
    }

    /// Returns whether that is to be told.
    fn ends(&mut self, now: Instant) -> bool {
        (self.since, self.answered) = (None, Some(now));
        std::mem::take(&mut self.told)
    }

    /// Whether something came of a try since then.
    fn answered_since(&self, then: Instant) -> bool {
        self.answered.is_some_and(|answered| answered >= then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_outage_is_told_once_and_so_is_its_end() {
        let begin = Instant::now();
        let mut course = Course::default();
        assert!(!course.fails(begin, begin, seconds(1)), "that happens");
        assert!(!course.ends(begin), "nobody heard of it");
        assert!(!course.fails(begin, begin, seconds(1)) && !course.fails(begin, begin + seconds(1), seconds(2)));
        assert!(course.fails(begin + seconds(2), begin + seconds(2), seconds(3)), "it is counted from the first try");
        assert!(!course.fails(begin, begin + seconds(90), seconds(60)));
        assert!(course.ends(begin) && !course.ends(begin));
        let again = begin + seconds(100);
        assert!(course.fails(again, again, seconds(60)), "a long wait is told at once");
    }

    #[test]
    fn a_server_that_answers_now_and_then_is_told_of_once_a_minute() {
        let begin = Instant::now();
        let mut course = Course::default();
        let mut told = 0;
        for second in 0..120 {
            told += u32::from(course.fails(begin + seconds(second), begin + seconds(second), seconds(5)));
            course.ends(begin);
        }
        assert_eq!(told, 2);
    }

    #[tokio::test]
    async fn who_gives_up_speaks_for_others_only_if_nothing_was_heard_meanwhile() {
        let error = || ApiError::NoAnswer { place: "here".into(), why: "refused".into() };
        let weather = Weather::default();
        let began = Instant::now();
        weather.failed(began, seconds(1), &error(), 1);
        weather.answered();
        weather.gave_up(began, &error());
        assert_eq!(weather.in_vain(seconds(60)), None, "somebody got an answer in that time");

        weather.gave_up(Instant::now() + seconds(1), &error());
        weather.given_up().await;
        assert_eq!(weather.in_vain(seconds(60)), Some(error()));
        assert!(weather.is_given_up());
        assert_eq!(weather.in_vain(Duration::ZERO), None, "after a while it is seen whether the server is back");
        weather.answered();
        assert_eq!(weather.in_vain(seconds(60)), None);
    }
}
