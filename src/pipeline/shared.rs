//! What all lanes of one pipeline share: the ports, the fence, the standstill of each consumer.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::backoff::{Backoff, Randomness};
use super::halt::Halts;
use super::outcome::Disposition;
use super::rules::RuleBook;
use super::signal::Signal;
use super::standstill::{Standstills, Target};
use crate::clock::SharedClock;
use crate::consumers::{Consumer, Decision, Effect};
use crate::dead_letters::DeadLetters;
use crate::dedupe::Dedupe;
use crate::inngest::{Deliver, EventBatch};
use crate::postgres::{Ledger, LedgerError};
use crate::progress::Seq;
use crate::record::TopicPartition;
use crate::shadow::Decisions;
use crate::telemetry::Telemetry;

/// Everything outside, as the pipeline sees it. Tests and the demo put fakes here.
#[derive(Clone)]
pub struct Ports {
    pub dedupe: Arc<dyn Dedupe>,
    pub deliver: Arc<dyn Deliver>,
    /// What was settled, and who evaluates tiers and missions. Without it everything goes to Inngest, uncompared.
    pub ledger: Option<Arc<dyn Ledger>>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub clock: SharedClock,
    pub randomness: Arc<Randomness>,
    pub rules: RuleBook,
    /// What becomes of records that may be repetitions when no database can tell.
    pub old_records: OldRecords,
    pub telemetry: Arc<Telemetry>,
    /// In shadow: what is decided is written here, and nothing else is done about it.
    pub decisions: Option<Arc<dyn Decisions>>,
}

/// `OLD_RECORDS`: what becomes of a record of which nothing shows that it is new, without a database to compare it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OldRecords {
    /// Whoever settles must be idempotent.
    #[default]
    Deliver,
    /// With the policy reason `needs_effects_check`.
    DeadLetter,
}

/// Whether what is read was on this way before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Replay {
    #[default]
    No,
    /// It may have been: every record counts as old, whatever it says itself.
    Again,
    /// Sent once more on purpose, under ids with this mark, whatever was done before.
    Forced(String),
}

impl Replay {
    /// The decision as it counts for what is read so.
    pub(super) fn counts(&self, decision: Decision) -> Decision {
        match (self, decision) {
            (Self::Again, Decision::Deliver(effects)) => Decision::Deliver(effects.map(Effect::unproven)),
            (Self::Forced(mark), Decision::Deliver(effects)) => {
                Decision::Deliver(effects.map(|effect| effect.marked(mark)))
            }
            (_, decision) => decision,
        }
    }

    pub(super) const fn is_forced(&self) -> bool {
        matches!(self, Self::Forced(_))
    }
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
    /// How many of several effects of one record have not ended yet; the last one ends the record.
    pub(super) parts: Option<Arc<AtomicUsize>>,
}

impl Ticket {
    /// The same record, finished only when all of so many effects are.
    pub(super) fn of_parts(self, count: usize) -> Self {
        let parts = (count > 1).then(|| Arc::new(AtomicUsize::new(count)));
        Self { parts, ..self }
    }

    /// One effect has ended. False while there are others.
    pub(super) fn is_last(&self) -> bool {
        self.parts
            .as_ref()
            .is_none_or(|parts| parts.fetch_sub(1, Ordering::AcqRel) == 1)
    }
}

pub(super) struct Shared {
    pub(super) replay: Replay,
    pub(super) ports: Ports,
    /// Counts ended epochs; wakes whoever waits for a target, to see whether it still has to.
    pub(super) fence: Signal<u64>,
    /// Whether Inngest takes what comes: tells "down for everyone" from "refuses this one". What the last request showed
    /// that was no further attempt at an unknown answer; such an attempt shows only that it takes, if it does.
    accepting: [AtomicBool; Target::ALL.len()],
    pub(super) standstills: Standstills,
    pub(super) halts: Halts,
    /// Takes what only an operator can mend, and what no waiting for one is provided for: the process ends.
    pub(super) refused: mpsc::Sender<String>,
}

impl Shared {
    pub(super) fn new(replay: Replay, ports: Ports, accept_dead_letters: bool, refused: mpsc::Sender<String>) -> Self {
        Self {
            replay,
            ports,
            fence: Signal::default(),
            accepting: Default::default(),
            standstills: Standstills::default(),
            halts: Halts::new(accept_dead_letters),
            refused,
        }
    }

    /// Waits, or returns early when an epoch ends.
    pub(super) async fn wait(&self, duration: Duration) {
        let mut fence = self.fence.watch();
        tokio::select! {
            biased;
            () = fence.changed() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }

    /// Waits until the record is not ours any more, however long it takes.
    pub(super) async fn until_ended(&self, epoch: &Epoch) {
        let mut fence = self.fence.watch();
        while epoch.is_live() {
            fence.changed().await;
        }
    }

    /// Waits for the database's answer, and counts it.
    pub(super) async fn call<T>(
        &self,
        consumer: Consumer,
        name: &'static str,
        call: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let started = tokio::time::Instant::now();
        let answer = call.await;
        let result = answer.as_ref().map_or_else(LedgerError::label, |_| "done");
        self.ports.telemetry.called(consumer, name, result, started.elapsed());
        if answer.is_ok() {
            self.standstills.end(consumer, Target::Database);
        }
        answer
    }

    /// Sends these events, which are permitted, and says what the answer means.
    pub(super) async fn send(&self, consumer: Consumer, events: &EventBatch, request: Range<usize>) -> Disposition {
        let started = tokio::time::Instant::now();
        let _in_flight = self.ports.telemetry.sending(consumer, request.len());
        let answer = self.ports.deliver.send(events, request).await;
        self.ports.telemetry.answered(consumer, &answer, started.elapsed());
        let disposition = Disposition::of_answer(answer);
        if disposition == Disposition::Proceed {
            self.standstills.end(consumer, Target::Inngest);
        }
        disposition
    }

    /// Waits as an answer that is not final demands: until it may be asked again, or until an operator has acted.
    pub(super) async fn wait_for(
        &self,
        consumer: Consumer,
        target: Target,
        disposition: Disposition,
        backoff: &mut Backoff,
    ) {
        let (detail, after) = match disposition {
            Disposition::Proceed => return,
            Disposition::StandStill { detail } => {
                self.tell_wrong(consumer.name(), target.name(), &detail);
                self.standstills.begin(consumer, target, &detail);
                return;
            }
            Disposition::Retry { detail, after } => (detail, after),
            Disposition::Hold { detail } | Disposition::Bisect { detail, .. } => (detail, None),
        };
        let wait = backoff.next(after, &self.ports.randomness);
        self.ports.telemetry.retried(consumer.name(), target.name());
        let (consumer, target) = (consumer.name(), target.name());
        self.tell_waiting(consumer, target, &detail, wait);
        tracing::warn!(consumer, target, detail, ?wait, "trying again");
        self.wait(wait).await;
    }

    /// Whether a target takes what comes, as far as the last request showed that was no further attempt at an unknown answer.
    /// Such an attempt says only that it takes, if it does: alone, and the last to come, it would be held for ever.
    pub(super) fn note(&self, target: Target, disposition: &Disposition, is_again: bool) {
        let Some(accepting) = self.accepting.get(target as usize) else {
            return;
        };
        match disposition {
            Disposition::Proceed => accepting.store(true, Ordering::Relaxed),
            // It answers, and judges events.
            Disposition::Bisect { .. } => {}
            Disposition::Retry { .. } | Disposition::StandStill { .. } | Disposition::Hold { .. } => {
                if !is_again {
                    accepting.store(false, Ordering::Relaxed);
                }
            }
        }
    }

    pub(super) fn is_accepting(&self, target: Target) -> bool {
        let accepting = self.accepting.get(target as usize);
        accepting.is_some_and(|accepting| accepting.load(Ordering::Relaxed))
    }

    /// Waits until this consumer may ask the target; see [`Standstills::await_turn`].
    pub(super) async fn await_turn(&self, consumer: Consumer, target: Target) {
        self.standstills
            .await_turn(consumer, target, &mut self.fence.watch())
            .await;
    }
}
