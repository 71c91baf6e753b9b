//! The receiver of a case, and when its first and its last event arrived; they are answered a latency later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver as Notices, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use crm_event_processors::clock::SystemClock;
use crm_event_processors::inngest::receiver::{AcceptedEvent, Receiver, ReceiverSettings, Sink, Stats};

use super::PATIENCE;
use super::process::Process;

/// Takes the events of one case.
pub(crate) struct Receiving {
    receiver: Receiver,
    notices: Notices<Instant>,
    expected: u64,
}

/// Tells the time of the first event and of the last one expected.
#[derive(Debug)]
struct Tally {
    expected: u64,
    accepted: AtomicU64,
    notices: Sender<Instant>,
}

impl Sink for Tally {
    fn accepted(&self, _event: AcceptedEvent<'_>) {
        let before = self.accepted.fetch_add(1, Ordering::AcqRel);
        if before == 0 || before + 1 == self.expected {
            // Nobody listens any more: the case is over.
            let _gone = self.notices.send(Instant::now());
        }
    }
}

impl Receiving {
    pub(crate) async fn start(latency: Duration, expected: u64) -> anyhow::Result<Self> {
        ensure!(expected > 1, "the first event must not be the last one");
        let (sender, notices) = channel();
        let tally = Tally {
            expected,
            accepted: AtomicU64::new(0),
            notices: sender,
        };
        let settings = ReceiverSettings {
            latency,
            ..ReceiverSettings::default()
        };
        let receiver = Receiver::start(settings, Arc::new(tally), Arc::new(SystemClock)).await?;
        Ok(Self {
            receiver,
            notices,
            expected,
        })
    }

    pub(crate) fn url(&self) -> String {
        self.receiver.base_url()
    }

    /// Waits for the next notice; ends early if the worker does.
    pub(crate) fn notice(&self, worker: &Process) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            match self.notices.recv_timeout(Duration::from_millis(500)) {
                Ok(at) => return Ok(at),
                Err(RecvTimeoutError::Timeout) => {
                    worker.line_within(Duration::ZERO)?;
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the receiver is gone"),
            }
        }
        let Stats { accepted, .. } = self.receiver.stats();
        bail!("only {accepted} of {} events after {PATIENCE:?}", self.expected)
    }

    /// Every event once, and nothing else; gives how many requests it took.
    pub(crate) async fn end(self) -> anyhow::Result<u64> {
        let Stats {
            requests,
            accepted,
            resent,
            ..
        } = self.receiver.stats();
        self.receiver.stop().await;
        let expected = self.expected;
        ensure!(
            accepted == expected && resent == 0,
            "{expected} events expected, {accepted} accepted, {resent} of them again"
        );
        Ok(requests)
    }
}
