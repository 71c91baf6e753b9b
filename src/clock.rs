//! The wall clock behind a port. Waiting is `tokio::time` (paused in tests); reading the time of day is this.

use std::sync::Arc;

use jiff::Timestamp;

/// Reads the time of day.
pub trait Clock: Send + Sync + std::fmt::Debug {
    fn now(&self) -> Timestamp;

    /// Milliseconds since the epoch.
    fn now_ms(&self) -> i64 {
        self.now().as_millisecond()
    }
}

/// A shared clock, as the composition root hands it out.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// A clock that runs with `tokio::time` from a given instant: paused when the runtime's time is paused.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    started: tokio::time::Instant,
    epoch: Timestamp,
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

impl TokioClock {
    #[must_use]
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self {
            started: tokio::time::Instant::now(),
            epoch,
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.epoch.checked_add(self.started.elapsed()).unwrap_or(Timestamp::MAX)
    }
}
