//! The watchdog: ends the process when a loop no longer goes round, because on most platforms nobody else would.
//!
//! Takes the ages of the two loops, gives a [`Hang`] at most once. It has a thread of its own, so that a blocked runtime
//! cannot stop it, and it never looks at progress: a back-off, a pause, a hold, a halt and a standstill all tick.
//!
//! Two loops tick: the polling thread and the pipeline's. The committing thread does not: a commit may rightly block for a
//! session, and `crm_commit_age` shows it. Lanes do not: they wait for their targets as long as it takes.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::time::Instant;

use crate::kafka::MAX_POLL_INTERVAL;

/// How often the watchdog looks.
const EVERY: Duration = Duration::from_secs(5);

/// A loop that ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// The thread that polls Kafka and runs the client's callbacks.
    Polling,
    /// The task that moves data between the source and the lanes.
    Pipeline,
}

/// A loop that has not gone round for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hang {
    pub hanging: Loop,
    pub age: Duration,
}

/// How patient the watchdog is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often it looks.
    pub every: Duration,
    /// An age beyond this is a hang.
    pub limit: Duration,
}

impl Patience {
    /// By the limit the group has given our partitions to others, so that ending costs nothing more; and all that blocks the
    /// polling thread on purpose is over: a revocation and look-ups, which are short, and a commit, at most a session.
    #[must_use]
    pub fn of_session(timeout: Duration) -> Self {
        Self {
            every: EVERY,
            limit: MAX_POLL_INTERVAL + timeout,
        }
    }
}

impl fmt::Display for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Polling => "the polling thread",
            Self::Pipeline => "the pipeline",
        })
    }
}

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Watchdog {
    _running: Sender<()>,
}

impl Watchdog {
    /// Looks at the ages of the polling thread and the pipeline, in this order, until one of them hangs or it is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        patience: Patience,
        ages: impl Fn() -> (Duration, Duration) + Send + 'static,
        on_hang: impl FnOnce(Hang) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (running, stopped) = channel();
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        thread.spawn(move || {
            if let Some(hang) = watch(patience, &ages, &stopped) {
                on_hang(hang);
            }
        })?;
        Ok(Self { _running: running })
    }
}

fn watch(patience: Patience, ages: &impl Fn() -> (Duration, Duration), stopped: &Receiver<()>) -> Option<Hang> {
    let started = Instant::now();
    let mut judge = Judge::new(patience);
    loop {
        match stopped.recv_timeout(patience.every) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return None,
        }
        // The ages first: if the process is stopped between the two, the time shows the gap.
        let ages = ages();
        if let Some(hang) = judge.look(started.elapsed(), ages) {
            return Some(hang);
        }
    }
}

/// The judgement alone: times in, verdict out.
#[derive(Debug)]
struct Judge {
    patience: Patience,
    /// Ages count from here at the earliest.
    since: Duration,
    looked: Duration,
}

impl Judge {
    fn new(patience: Patience) -> Self {
        Self {
            patience,
            since: Duration::ZERO,
            looked: Duration::ZERO,
        }
    }

    /// `now` is since the watchdog began. A watchdog that was itself kept from looking (SIGSTOP, a suspended machine, no
    /// CPU) knows nothing about the others in that time, and begins anew.
    fn look(&mut self, now: Duration, (polling, pipeline): (Duration, Duration)) -> Option<Hang> {
        let slept = now.saturating_sub(self.looked);
        self.looked = now;
        if slept > self.patience.every * 3 {
            self.since = now;
        }
        let known = now.saturating_sub(self.since);
        [(Loop::Polling, polling), (Loop::Pipeline, pipeline)]
            .into_iter()
            .map(|(hanging, age)| Hang {
                hanging,
                age: age.min(known),
            })
            .find(|hang| hang.age > self.patience.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::http::STALE;

    const NOTHING: Duration = Duration::ZERO;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Looks on time until `end`; both loops went round last at these times.
    fn look_until(judge: &mut Judge, end: u64, polled: u64, ticked: u64) -> Option<Hang> {
        let mut now = judge.looked;
        while now < seconds(end) {
            now += seconds(5);
            let age = |since: u64| now.saturating_sub(seconds(since));
            if let Some(hang) = judge.look(now, (age(polled), age(ticked))) {
                return Some(hang);
            }
        }
        None
    }

    fn judge() -> Judge {
        Judge::new(Patience {
            every: seconds(5),
            limit: seconds(345),
        })
    }

    #[test]
    fn a_loop_hangs_when_it_has_not_gone_round_for_longer_than_the_limit() {
        let mut polls = judge();
        assert_eq!(look_until(&mut polls, 445, 100, 440), None);
        let hang = polls.look(seconds(450), (seconds(350), NOTHING));
        let expected = Hang {
            hanging: Loop::Polling,
            age: seconds(350),
        };
        assert_eq!(hang, Some(expected));
        let hang = look_until(&mut judge(), 1000, 1000, 0).expect("the pipeline never ticked");
        assert_eq!((hang.hanging, hang.age), (Loop::Pipeline, seconds(350)));
    }

    #[test]
    fn loops_that_go_round_never_hang_however_long_it_takes() {
        let mut judge = judge();
        for hour in 1..100 {
            let now = seconds(hour * 3600);
            assert_eq!(
                look_until(&mut judge, hour * 3600, hour * 3600, hour * 3600),
                None,
                "{now:?}"
            );
        }
    }

    #[test]
    fn a_process_that_was_stopped_begins_anew() {
        let mut judge = judge();
        assert_eq!(look_until(&mut judge, 100, 100, 100), None);
        // Stopped for an hour, and looked at before anybody could go round.
        let woken = seconds(3700);
        assert_eq!(judge.look(woken, (seconds(3600), seconds(3600))), None);
        assert_eq!(look_until(&mut judge, 4045, 100, 100), None);
        // What still does not go round after that hangs for its own reasons.
        let hang = look_until(&mut judge, 5000, 100, 100).expect("a hang");
        assert_eq!(hang.age, seconds(350));
    }

    #[test]
    fn a_time_before_the_watchdog_does_not_count() {
        assert_eq!(judge().look(seconds(5), (seconds(900), seconds(900))), None);
    }

    #[test]
    fn whoever_asks_for_livez_learns_of_a_hang_long_before_it_is_ended() {
        for session in [6, 45, 300] {
            assert!(Patience::of_session(seconds(session)).limit > STALE * 2);
        }
    }
}
