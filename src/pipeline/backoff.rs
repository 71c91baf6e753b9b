//! How long to wait before trying again: doubling, with jitter, capped.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const CAP: Duration = Duration::from_secs(60);
const RETRY_AFTER_CAP: Duration = Duration::from_secs(300);

/// The one source of randomness; a seed makes it repeatable.
#[derive(Debug)]
pub struct Randomness(Mutex<fastrand::Rng>);

impl Randomness {
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    #[must_use]
    pub fn from_entropy() -> Self {
        Self(Mutex::new(fastrand::Rng::new()))
    }

    /// Evenly from 0 up to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).f64()
    }

    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }
}

/// Counts the attempts at one request.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The wait before the next attempt: what the target asked for (at most five minutes), else half to all of a
    /// doubling step, at most a minute.
    pub(super) fn next(&mut self, asked: Option<Duration>, randomness: &Randomness) -> Duration {
        let step = FIRST.saturating_mul(1 << self.attempts.min(16)).min(CAP);
        self.attempts = self.attempts.saturating_add(1);
        let jittered = step.mul_f64(0.5 + randomness.fraction() / 2.0);
        asked.map_or(jittered, |asked| asked.min(RETRY_AFTER_CAP).max(jittered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_keep_at_least_half_of_the_step() {
        let randomness = Randomness::seeded(1);
        let mut backoff = Backoff::default();
        for attempt in 0..30 {
            let step = FIRST.saturating_mul(1 << attempt.min(16)).min(CAP);
            let wait = backoff.next(None, &randomness);
            assert!(
                wait >= step / 2 && wait <= step,
                "attempt {attempt}: {wait:?} of {step:?}"
            );
        }
    }

    #[test]
    fn what_the_target_asks_for_is_honoured_up_to_five_minutes() {
        let randomness = Randomness::seeded(1);
        let mut backoff = Backoff::default();
        assert_eq!(
            backoff.next(Some(Duration::from_secs(7)), &randomness),
            Duration::from_secs(7)
        );
        assert_eq!(
            backoff.next(Some(Duration::from_secs(9999)), &randomness),
            RETRY_AFTER_CAP
        );
    }
}
