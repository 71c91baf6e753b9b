//! Requests a second of this process.
//!
//! Takes a rate, gives permission to send, after waiting if need be. It never drops and never counts answers.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

/// Lets requests through at a steady rate; all lanes share it.
pub(super) struct Governor(Option<Limiter>);

type Limiter = RateLimiter<NotKeyed, InMemoryState, SinceStart, NoOpMiddleware<Duration>>;

/// Tokio's clock, so that waiting and measuring agree, in paused time too.
#[derive(Debug, Clone)]
struct SinceStart(Instant);

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Governor {
    /// A fifth of a second's requests may go out at once, so that the lanes of a burst do not queue; more would let
    /// a window of some seconds exceed the rate.
    pub(super) fn new(rate_per_sec: Option<NonZeroU32>) -> Self {
        Self(rate_per_sec.map(|rate| {
            let burst = NonZeroU32::new(rate.get() / 5).unwrap_or(NonZeroU32::MIN);
            let quota = Quota::per_second(rate).allow_burst(burst);
            RateLimiter::direct_with_clock(quota, SinceStart(Instant::now()))
        }))
    }

    /// Returns when one more request may be sent.
    pub(super) async fn wait(&self) {
        let Some(limiter) = &self.0 else { return };
        while let Err(not_until) = limiter.check() {
            let wait = not_until.wait_time_from(limiter.clock().now());
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn time_for(requests: u32, rate: Option<NonZeroU32>) -> Duration {
        let governor = Governor::new(rate);
        let start = Instant::now();
        for _ in 0..requests {
            governor.wait().await;
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_beyond_the_rate_wait_and_none_is_dropped() {
        let took = time_for(153, NonZeroU32::new(15)).await;
        // Three at once, then fifteen a second; the timer rounds each wait up to a millisecond.
        assert!((10_000..10_200).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        assert_eq!(time_for(10_000, None).await, Duration::ZERO);
    }
}
