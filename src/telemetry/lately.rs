//! The last minute: how many records ended how, and how long events took until they were accepted.
//!
//! Totals are counted as for a scrape; every ten seconds a tick keeps a copy of them, and the last minute is what came on top of
//! the oldest copy. So whoever looks once sees a rate, without a database of metrics.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::consumers::Consumer;
use crate::pipeline::Outcome;

/// Seconds: from a loopback answer to a night of back-off.
pub(super) const SECONDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0,
];

const STEP: Duration = Duration::from_secs(10);
const COPIES: usize = 6;

const CONSUMERS: usize = Consumer::ALL.len();
const OUTCOMES: usize = Outcome::LABELS.len();
const BUCKETS: usize = SECONDS.len() + 1;

/// Totals of everything that is shown by the minute.
#[derive(Debug, Default)]
pub(super) struct Lately {
    pub(super) outcomes: [[AtomicU64; OUTCOMES]; CONSUMERS],
    latencies: [[AtomicU64; BUCKETS]; CONSUMERS],
    /// Records received, each once.
    pub(super) received: AtomicU64,
    /// Dead letters written; by the minute nobody asks for them.
    pub(super) letters: AtomicU64,
    copies: Mutex<VecDeque<Copied>>,
}

#[derive(Debug, Clone, Copy)]
struct Copied {
    at: Instant,
    outcomes: [[u64; OUTCOMES]; CONSUMERS],
    latencies: [[u64; BUCKETS]; CONSUMERS],
    received: u64,
}

/// How long events took, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    pub events: u64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

fn copy<const N: usize>(counts: &[[AtomicU64; N]; CONSUMERS]) -> [[u64; N]; CONSUMERS] {
    std::array::from_fn(|row| {
        let row = counts.get(row);
        std::array::from_fn(|at| {
            let count = row.and_then(|row| row.get(at));
            count.map_or(0, |count| count.load(Ordering::Relaxed))
        })
    })
}

/// What came on top, in one row.
fn grown<const N: usize>(now: &[[u64; N]; CONSUMERS], then: &[[u64; N]; CONSUMERS], consumer: Consumer) -> [u64; N] {
    let rows = now.get(consumer.index()).zip(then.get(consumer.index()));
    std::array::from_fn(|at| {
        let counts = rows.and_then(|(now, then)| now.get(at).zip(then.get(at)));
        counts.map_or(0, |(now, then)| now.saturating_sub(*then))
    })
}

impl Lately {
    fn now(&self) -> Copied {
        Copied {
            at: Instant::now(),
            outcomes: copy(&self.outcomes),
            latencies: copy(&self.latencies),
            received: self.received.load(Ordering::Relaxed),
        }
    }

    fn copies(&self) -> MutexGuard<'_, VecDeque<Copied>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a copy if the last one is old enough. Called with every tick.
    pub(super) fn tick(&self) {
        let mut copies = self.copies();
        if copies.back().is_some_and(|last| last.at.elapsed() < STEP) {
            return;
        }
        if copies.len() >= COPIES {
            copies.pop_front();
        }
        copies.push_back(self.now());
    }

    pub(super) fn took(&self, consumer: Consumer, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = SECONDS.partition_point(|bound| *bound < seconds);
        let row = self.latencies.get(consumer.index());
        if let Some(count) = row.and_then(|row| row.get(bucket)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records a second that ended so, in the order of [`Outcome::LABELS`]. Zeros before the first tick.
    pub(super) fn rates(&self, consumer: Consumer) -> [f64; OUTCOMES] {
        let Some(then) = self.copies().front().copied() else {
            return [0.0; OUTCOMES];
        };
        grown(&copy(&self.outcomes), &then.outcomes, consumer).map(|count| then.rate(count))
    }

    /// Records received a second, each counted once however many consumers read it.
    pub(super) fn received_a_second(&self) -> f64 {
        let Some(then) = self.copies().front().copied() else {
            return 0.0;
        };
        then.rate(self.received.load(Ordering::Relaxed).saturating_sub(then.received))
    }

    /// `None` if nothing was accepted.
    pub(super) fn latency(&self, consumer: Consumer) -> Option<Latency> {
        let then = self.copies().front().copied()?;
        let counts = grown(&copy(&self.latencies), &then.latencies, consumer);
        let events = counts.iter().sum();
        Some(Latency {
            events,
            p50: quantile(&counts, 0.50)?,
            p95: quantile(&counts, 0.95)?,
            p99: quantile(&counts, 0.99)?,
        })
    }
}

impl Copied {
    /// What so many since then are a second.
    fn rate(&self, count: u64) -> f64 {
        let seconds = self.at.elapsed().as_secs_f64().max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let count = count as f64;
        count / seconds
    }
}

/// As Prometheus does it: within a bucket the times are taken for evenly spread; what is beyond the last bound counts as it.
fn quantile(counts: &[u64; BUCKETS], share: f64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    let number = |count: u64| count as f64;
    let rank = number(counts.iter().sum()) * share;
    let (mut before, mut lower) = (0.0, 0.0);
    for (count, upper) in counts.iter().zip(SECONDS) {
        let count = number(*count);
        if count > 0.0 && before + count >= rank {
            return Some(lower + (upper - lower) * (rank - before) / count);
        }
        (before, lower) = (before + count, upper);
    }
    (counts.iter().any(|count| *count > 0)).then_some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIER: Consumer = Consumer::Tier;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_that_of_the_last_minute_and_forgets_what_was_before() {
        let lately = Lately::default();
        assert_eq!(lately.rates(TIER), [0.0; OUTCOMES]);
        lately.tick();
        for _ in 0..60 {
            tokio::time::advance(Duration::from_secs(1)).await;
            lately.outcomes[TIER.index()][0].fetch_add(5, Ordering::Relaxed);
            lately.received.fetch_add(2, Ordering::Relaxed);
            lately.tick();
        }
        let received = lately.received_a_second();
        assert!((received - 2.0).abs() < 0.1, "{received}");
        let [delivered, superseded, ..] = lately.rates(TIER);
        assert!((delivered - 5.0).abs() < 0.2, "{delivered}");
        assert_eq!(superseded, 0.0);
        for _ in 0..70 {
            tokio::time::advance(Duration::from_secs(1)).await;
            lately.tick();
        }
        assert_eq!(lately.rates(TIER), [0.0; OUTCOMES]);
        assert_eq!(lately.received_a_second(), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn percentiles_lie_within_their_buckets_and_are_none_when_nothing_was_accepted() {
        let lately = Lately::default();
        lately.tick();
        assert_eq!(lately.latency(TIER), None);
        for (took_ms, events) in [(2, 90), (200, 8), (7_200_000, 2)] {
            for _ in 0..events {
                lately.took(TIER, Duration::from_millis(took_ms));
            }
        }
        let latency = lately.latency(TIER).expect("events");
        assert_eq!(latency.events, 100);
        assert!((0.001..=0.0025).contains(&latency.p50), "{latency:?}");
        assert!((0.1..=0.25).contains(&latency.p95), "{latency:?}");
        assert_eq!(latency.p99, 3600.0, "beyond the last bound");
        assert_eq!(lately.latency(Consumer::Reward), None);
    }
}
