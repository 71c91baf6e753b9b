//! What all lanes of one pipeline share: the ports, the fence, the standstill of each consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::backoff::Randomness;
use crate::clock::SharedClock;
use crate::consumers::{Consumer, Rules};
use crate::dead_letters::DeadLetters;
use crate::dedupe::Dedupe;
use crate::inngest::Deliver;
use crate::progress::Seq;
use crate::record::TopicPartition;
use crate::telemetry::Telemetry;

/// Everything outside, as the pipeline sees it. Tests and the demo put fakes here.
#[derive(Clone)]
pub struct Ports {
    pub dedupe: Arc<dyn Dedupe>,
    pub deliver: Arc<dyn Deliver>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub clock: SharedClock,
    pub randomness: Arc<Randomness>,
    pub rules: Arc<Rules>,
    pub telemetry: Arc<Telemetry>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// One assignment of one partition. It ends when the partition is taken away; nothing of an ended epoch is claimed,
/// sent or counted any more.
#[derive(Debug, Clone)]
pub(super) struct Epoch(Arc<AtomicBool>);

impl Epoch {
    pub(super) fn begin() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(super) fn end(&self) {
        self.0.store(false, Ordering::Release);
    }

    pub(super) fn is_live(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Which received record, under which assignment.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    pub(super) place: TopicPartition,
    pub(super) seq: Seq,
    pub(super) epoch: Epoch,
}

pub(super) struct Shared {
    pub(super) ports: Ports,
    /// Counts ended epochs; wakes whoever waits for a target, to see whether it still has to.
    pub(super) fence: watch::Sender<u64>,
    /// Requests the target accepted: tells "down for everyone" from "refuses this one".
    pub(super) accepted: AtomicU64,
    standstills: [Standstill; Consumer::ALL.len()],
}

/// A consumer that waits for an operator. One lane probes, once a minute.
struct Standstill {
    reason: watch::Sender<Option<String>>,
    probe: tokio::sync::Mutex<()>,
}

const PROBE_INTERVAL: Duration = Duration::from_secs(60);

impl Shared {
    pub(super) fn new(ports: Ports) -> Self {
        let standstill = || Standstill {
            reason: watch::Sender::new(None),
            probe: tokio::sync::Mutex::new(()),
        };
        let standstills = Consumer::ALL.map(|_| standstill());
        Self {
            ports,
            fence: watch::Sender::new(0),
            accepted: AtomicU64::new(0),
            standstills,
        }
    }

    /// Waits, or returns early when an epoch ends.
    pub(super) async fn wait(&self, duration: Duration) {
        let mut fence = self.fence.subscribe();
        tokio::select! {
            biased;
            _ = fence.changed() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }

    /// Why the consumer stands still, if it does.
    pub(super) fn standing_still(&self, consumer: Consumer) -> Option<String> {
        self.standstill(consumer)?.reason.borrow().clone()
    }

    /// The target refuses us: stand still until it is this lane's turn to probe, or another lane's probe got through.
    pub(super) async fn stand_still(&self, consumer: Consumer, detail: &str) {
        let Some(standstill) = self.standstill(consumer) else {
            return;
        };
        let newly = standstill.reason.send_replace(Some(detail.to_owned())).is_none();
        if newly {
            tracing::error!(
                consumer = consumer.name(),
                detail,
                "consumer stands still until an operator acts"
            );
        }
        self.await_probe(consumer).await;
    }

    /// Returns at once unless the consumer stands still; then when this lane may probe, or nobody needs to.
    pub(super) async fn await_probe(&self, consumer: Consumer) {
        let Some(standstill) = self.standstill(consumer) else {
            return;
        };
        if standstill.reason.borrow().is_none() {
            return;
        }
        let mut fence = self.fence.subscribe();
        let mut reason = standstill.reason.subscribe();
        tokio::select! {
            biased;
            _ = fence.changed() => {}
            _ = reason.wait_for(Option::is_none) => {}
            () = async {
                let _turn = standstill.probe.lock().await;
                tokio::time::sleep(PROBE_INTERVAL).await;
            } => {}
        }
    }

    /// The target took something of this consumer: whatever stood still may go on.
    pub(super) fn got_through(&self, consumer: Consumer) {
        let Some(standstill) = self.standstill(consumer) else {
            return;
        };
        if standstill.reason.borrow().is_some() {
            standstill.reason.send_replace(None);
            tracing::info!(
                consumer = consumer.name(),
                "consumer goes on: the target accepts us again"
            );
        }
    }

    fn standstill(&self, consumer: Consumer) -> Option<&Standstill> {
        self.standstills.get(consumer.index())
    }
}
