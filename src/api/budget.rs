//! One budget of requests for all runs of the process: a steady rate that falls when the server asks for it.
//!
//! A small burst is allowed, so that a few runs can start at once. `429` halves the rate, `RateLimit-*` headers set it, and
//! every success lets it recover slowly towards the limit that the user gave, or to none. The arithmetic is pure and takes
//! the time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many requests may go out at once after a pause.
const BURST: f64 = 10.0;

/// The rate never falls below this, in requests a second.
const FLOOR: f64 = 0.1;

/// What "no limit" counts as, and is.
const CEILING: f64 = 65_536.0;

/// Refusals so soon after one that was heard concern what was on its way already, and lower the rate no further.
const ONE_REFUSAL: Duration = Duration::from_secs(1);

/// The budget, shared by every call of one client.
#[derive(Debug)]
pub(crate) struct Budget {
    rate: Mutex<Rate>,
}

impl Budget {
    /// A budget of `limit` requests a second; 0 is no limit.
    pub(crate) fn new(limit: f64) -> Self {
        let limit = if limit > 0.0 { limit.clamp(FLOOR, CEILING) } else { CEILING };
        Self { rate: Mutex::new(Rate::new(limit, Instant::now())) }
    }

    /// Waits until one more request may go out. Requests go in the order in which they asked.
    pub(crate) async fn take(&self) {
        let wait = self.with(|rate| rate.take(Instant::now()));
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Learns from an answer.
    pub(crate) fn learn(&self, status: u16, remaining: Option<f64>, reset: Option<f64>) {
        self.with(|rate| rate.learn(status, remaining, reset, Instant::now()));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Rate) -> T) -> T {
        act(&mut self.rate.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct Rate {
    limit: f64,
    current: f64,
    /// May be negative: so many requests are waiting already.
    tokens: f64,
    at: Instant,
    /// When a refusal last lowered the rate.
    refused: Option<Instant>,
}

impl Rate {
    fn new(limit: f64, now: Instant) -> Self {
        Self { limit, current: limit, tokens: BURST.min(limit.max(1.0)), at: now, refused: None }
    }

    fn take(&mut self, now: Instant) -> Duration {
        if self.current >= CEILING {
            self.at = now;
            return Duration::ZERO;
        }
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let burst = BURST.min(self.current.max(1.0));
        self.tokens = (self.tokens + passed * self.current).min(burst) - 1.0;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-self.tokens / self.current).unwrap_or(Duration::MAX)
    }

    fn learn(&mut self, status: u16, remaining: Option<f64>, reset: Option<f64>, now: Instant) {
        let is_news = self.refused.is_none_or(|at| now.saturating_duration_since(at) >= ONE_REFUSAL);
        if status == 429 && is_news {
            self.refused = Some(now);
            self.current = self.current.min(BURST) / 2.0;
        }
        match (remaining, reset) {
            (Some(remaining), Some(reset)) if reset > 1.0 && remaining >= 0.0 => {
                // Smoothed, so that one odd answer does not stop all runs.
                let allowed = (remaining / reset).clamp(FLOOR, self.limit);
                self.current += 0.2 * (allowed - self.current);
            }
            _ if (200..300).contains(&status) => self.current *= 1.05,
            _ => {}
        }
        self.current = self.current.clamp(FLOOR, self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_steady_rate() {
        let now = Instant::now();
        let mut rate = Rate::new(20.0, now);
        let waits: Vec<f64> = (0..14).map(|_| rate.take(now).as_secs_f64()).collect();
        assert!(waits.iter().take(10).all(|wait| *wait == 0.0), "{waits:?}");
        for (index, wait) in waits.iter().skip(10).enumerate() {
            assert!((wait - 0.05 * (index + 1) as f64).abs() < 1e-9, "{waits:?}");
        }
        assert_eq!(rate.take(now + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn the_rate_falls_and_recovers() {
        let mut now = Instant::now();
        let mut rate = Rate::new(CEILING, now);
        for _ in 0..100 {
            assert_eq!(rate.take(now), Duration::ZERO, "without a limit nobody waits");
        }
        for _ in 0..8 {
            rate.learn(429, None, None, now);
            assert_eq!(rate.current, 5.0, "what was on its way says the same");
        }
        for _ in 0..100 {
            now += ONE_REFUSAL;
            rate.learn(429, None, None, now);
        }
        assert_eq!(rate.current, FLOOR);
        for _ in 0..1000 {
            rate.learn(200, None, None, now);
        }
        assert_eq!(rate.current, CEILING);
        for _ in 0..100 {
            rate.learn(200, Some(10.0), Some(5.0), now);
        }
        assert!((rate.current - 2.0).abs() < 1e-3, "{}", rate.current);
        rate.current = CEILING;
        now += ONE_REFUSAL;
        rate.learn(429, Some(1000.0), Some(5.0), now);
        assert!(rate.current < 50.0, "{}: a refusal counts, whatever is said to remain", rate.current);
        rate.current = 2.0;
        rate.learn(200, Some(0.0), Some(1.0), now);
        assert!(rate.current > 2.0, "a reset within a second says nothing");
    }
}
