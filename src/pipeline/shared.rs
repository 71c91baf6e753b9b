//! What all lanes of one pipeline share: the ports, the fence, the standstill of each consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::backoff::Randomness;
use super::halt::Halts;
use super::standstill::{Standstills, Target};
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
    /// Whether Inngest takes what comes: tells "down for everyone" from "refuses this one". What the last request showed
    /// that was no further attempt at an unknown answer; such an attempt shows only that it takes, if it does.
    pub(super) accepting: AtomicBool,
    pub(super) standstills: Standstills,
    pub(super) halts: Halts,
    /// Takes what only an operator can mend, and what no waiting for one is provided for: the process ends.
    pub(super) refused: mpsc::Sender<String>,
}

impl Shared {
    pub(super) fn new(ports: Ports, accept_dead_letters: bool, refused: mpsc::Sender<String>) -> Self {
        Self {
            ports,
            fence: watch::Sender::new(0),
            accepting: AtomicBool::new(false),
            standstills: Standstills::default(),
            halts: Halts::new(accept_dead_letters),
            refused,
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

    /// Waits until the record is not ours any more, however long it takes.
    pub(super) async fn until_ended(&self, epoch: &Epoch) {
        let mut fence = self.fence.subscribe();
        while epoch.is_live() && fence.changed().await.is_ok() {}
    }

    /// Waits until this consumer may ask the target; see [`Standstills::await_turn`].
    pub(super) async fn await_turn(&self, consumer: Consumer, target: Target) {
        self.standstills
            .await_turn(consumer, target, &mut self.fence.subscribe())
            .await;
    }
}
