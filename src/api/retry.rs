//! Which answers are worth another try, and when. Pure: no clock, no network.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};

/// How long an `UpsertBucket` is tried again on 409.
const CONFLICT_LIMIT: Duration = Duration::from_secs(120);

/// The longest wait that a server's `Retry-After` can ask for.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(3600);

/// How often and how patiently a call is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many tries may follow the first one.
    pub retries: u32,
    /// The wait before the second try; it doubles from there, with jitter.
    pub wait_min: Duration,
    /// No wait of our own is longer, but for the jitter.
    pub wait_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { retries: 20, wait_min: Duration::from_secs(1), wait_max: Duration::from_secs(60) }
    }
}

impl RetryPolicy {
    /// The waits, one for each further try.
    pub(crate) fn waits(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::new()
            .with_factor(2.0)
            .with_jitter()
            .with_min_delay(self.wait_min)
            .with_max_delay(self.wait_max)
            .with_max_times(self.retries.try_into().unwrap_or(usize::MAX))
            .build()
    }
}

/// The kinds of call, which differ in what is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// A GraphQL operation other than the next.
    Query,
    /// `UpsertBucket`.
    Upsert,
    /// Lines of a run.
    FileStream,
    /// A file to a signed URL.
    Transfer,
}

/// What came back from one try.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer<'a> {
    /// A status, and the text that came with it.
    Status { status: u16, retry_after: Option<&'a str>, body: &'a [u8] },
    /// Nothing that could be read: refused, reset, timed out, name not found.
    Nothing,
    /// What will be no different next time: an untrusted certificate, a URL that is none.
    Hopeless,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It worked.
    Done,
    /// Try again, after this wait if the server asked for one, else after the next wait of the policy.
    Again(Option<Duration>),
    /// Do not try again.
    Fatal,
}

/// Judges one answer. `since_first` is the time since the first try, `now` is for `Retry-After` as a date.
pub(crate) fn judge(call: Call, answer: Answer<'_>, since_first: Duration, now: SystemTime) -> Verdict {
    let (status, retry_after, body) = match answer {
        Answer::Nothing => return Verdict::Again(None),
        Answer::Hopeless => return Verdict::Fatal,
        Answer::Status { status, retry_after, body } => (status, retry_after, body),
    };
    let again = match status {
        200..=299 => return Verdict::Done,
        // A redirect that was not followed leads to another host, or nowhere.
        300..=399 | 400 | 401 | 403 | 404 | 410 | 413 | 422 | 501 => false,
        409 => call == Call::Upsert && since_first < CONFLICT_LIMIT && !says_deleted(body),
        429 => true,
        400..=499 => call != Call::Transfer,
        _ => true,
    };
    if again { Verdict::Again(retry_after.and_then(|text| wait_asked_for(text, now))) } else { Verdict::Fatal }
}

/// A run whose id was used and deleted cannot be made again, however often one asks.
fn says_deleted(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).to_ascii_lowercase().contains("deleted")
}

/// `Retry-After`: seconds, fractions allowed, or a date. Who asks for no wait at all gets ours, which grows.
fn wait_asked_for(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST_ASKED_WAIT)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(call: Call, status: u16, expected: Verdict) {
        let answer = Answer::Status { status, retry_after: None, body: b"" };
        let verdict = judge(call, answer, Duration::ZERO, SystemTime::UNIX_EPOCH);
        assert_eq!(verdict, expected, "{call:?} {status}");
    }

    #[test]
    fn the_table_of_statuses() {
        for call in [Call::Query, Call::Upsert, Call::FileStream, Call::Transfer] {
            for status in [200, 201, 204] {
                check(call, status, Verdict::Done);
            }
            for status in [302, 400, 401, 403, 404, 410, 413, 422, 501] {
                check(call, status, Verdict::Fatal);
            }
            for status in [429, 500, 502, 503, 504, 599] {
                check(call, status, Verdict::Again(None));
            }
            for status in [402, 405, 406, 408, 412, 415, 423] {
                check(call, status, if call == Call::Transfer { Verdict::Fatal } else { Verdict::Again(None) });
            }
            check(call, 409, if call == Call::Upsert { Verdict::Again(None) } else { Verdict::Fatal });
            let judge = |answer| judge(call, answer, Duration::ZERO, SystemTime::UNIX_EPOCH);
            assert_eq!(judge(Answer::Nothing), Verdict::Again(None));
            assert_eq!(judge(Answer::Hopeless), Verdict::Fatal);
        }
    }

    #[test]
    fn a_conflict_is_retried_for_two_minutes_unless_the_run_was_deleted() {
        let judge = |body: &'static str, seconds| {
            let answer = Answer::Status { status: 409, retry_after: None, body: body.as_bytes() };
            judge(Call::Upsert, answer, Duration::from_secs(seconds), SystemTime::UNIX_EPOCH)
        };
        assert_eq!(judge("busy", 119), Verdict::Again(None));
        assert_eq!(judge("busy", 120), Verdict::Fatal);
        assert_eq!(judge("run x was previously created and deleted", 0), Verdict::Fatal);
    }

    #[test]
    fn retry_after_is_obeyed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 7);
        let judge = |text: &'static str| {
            judge(Call::Query, Answer::Status { status: 503, retry_after: Some(text), body: b"" }, Duration::ZERO, now)
        };
        assert_eq!(judge("3"), Verdict::Again(Some(Duration::from_secs(3))));
        assert_eq!(judge("0.5"), Verdict::Again(Some(Duration::from_millis(500))));
        assert_eq!(judge("Sun, 06 Nov 1994 08:49:37 GMT"), Verdict::Again(Some(Duration::from_secs(7))));
        // No wait at all, 20 times in a row, helps nobody.
        assert_eq!(judge("Sun, 06 Nov 1994 08:49:00 GMT"), Verdict::Again(None));
        assert_eq!(judge("0"), Verdict::Again(None));
        assert_eq!(judge("soon"), Verdict::Again(None));
        assert_eq!(judge("-1"), Verdict::Again(None));
        assert_eq!(judge("1e30"), Verdict::Again(None));
        assert_eq!(judge("86400"), Verdict::Again(Some(LONGEST_ASKED_WAIT)));
    }

    #[test]
    fn waits_double_and_are_counted() {
        let policy = RetryPolicy { retries: 8, wait_min: Duration::from_secs(1), wait_max: Duration::from_secs(8) };
        let waits: Vec<_> = policy.waits().collect();
        assert_eq!(waits.len(), 8);
        for (index, wait) in waits.iter().enumerate() {
            let plain = Duration::from_secs(1 << index.min(3));
            assert!(*wait >= plain && *wait <= plain * 2, "{index}: {wait:?}");
        }
        assert_eq!(RetryPolicy { retries: 0, ..policy }.waits().count(), 0);
    }
}
