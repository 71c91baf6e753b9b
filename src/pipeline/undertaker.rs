//! Buries what cannot be processed: one undertaker a dead-letter queue. Takes dead records, reports each finished when its
//! delivery report is in hand, and tells the lane that keeps a row waiting for it. Of a row that may be none of ours it asks the database first.
//!
//! Several at once: a letter that cannot be written holds its own record, not the letters behind it, however many such
//! there are. A record whose partition goes is dropped, wherever it waits. It never decides that a record is dead, and never
//! buries more than [`super::halt`] admits.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument as _;

use super::backoff::Backoff;
use super::item::{Finished, Received};
use super::outcome::{Disposition, Outcome};
use super::shared::{Shared, Ticket};
use super::standstill::Target;
use crate::consumers::{Consumer, EffectKey, Reason, Refusal};
use crate::dead_letters::{Letter, Queue, WriteError};
use crate::postgres::LedgerError;
use crate::progress::ConsumerSet;
use crate::record::Record;
use crate::shadow::Said;

/// How many letters are written at once.
const AT_ONCE: usize = 64;

/// A record on its way to the dead letters.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) body: Body,
    pub(super) ticket: Ticket,
    pub(super) cause: Cause,
    pub(super) tell: Option<Tell>,
    /// What its log lines belong to.
    pub(super) logged: tracing::Span,
}

/// Why a record is dead.
#[derive(Debug, Clone)]
pub(super) struct Cause {
    pub(super) reason: &'static str,
    pub(super) detail: String,
    /// A policy of ours sets it aside.
    pub(super) policy: bool,
    /// It is dead only if the database knows this key; else its row is none of ours.
    pub(super) if_known: Option<EffectKey>,
}

#[derive(Debug)]
pub(super) enum Body {
    Undecoded(Record),
    Row(Arc<Received>),
}

/// Whom to tell that a letter is out of the way: written, or not ours any more.
#[derive(Debug)]
pub(super) struct Tell {
    pub(super) lane: mpsc::UnboundedSender<u64>,
    pub(super) letter: u64,
}

pub(super) struct Undertaker {
    pub(super) queue: Queue,
    /// For whom its records are finished.
    pub(super) consumers: ConsumerSet,
    pub(super) finished: mpsc::Sender<Vec<Finished>>,
    pub(super) shared: Arc<Shared>,
}

impl Cause {
    pub(super) const fn new(reason: &'static str, detail: String) -> Self {
        Self {
            reason,
            detail,
            policy: false,
            if_known: None,
        }
    }
}

impl From<Refusal> for Cause {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.reason(), refusal.to_string())
    }
}

impl Undertaker {
    pub(super) async fn run(self, mut dead: mpsc::Receiver<Dead>) {
        // Everything is taken off the queue at once, as much as the memory budget allows: what waits there could not be
        // dropped when its partition goes.
        let turns = Semaphore::new(AT_ONCE);
        let mut burials = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = burials.next(), if !burials.is_empty() => {}
                Some(next) = dead.recv() => {
                    let logged = next.logged.clone();
                    burials.push(self.bury(next, &turns).instrument(logged));
                }
                else => return,
            }
        }
    }

    async fn bury(&self, dead: Dead, turns: &Semaphore) {
        if let Some(outcome) = self.outcome(&dead, turns).await {
            let done = Finished {
                ticket: dead.ticket,
                consumers: self.consumers,
                outcome,
            };
            // The pipeline is gone only when the process is going: nothing is committed then.
            let _gone = self.finished.send(vec![done]).await;
        }
        if let Some(Tell { lane, letter }) = dead.tell {
            // Gone with the pipeline, as well.
            let _gone = lane.send(letter);
        }
    }

    /// `None` if the record stopped being ours before.
    async fn outcome(&self, dead: &Dead, turns: &Semaphore) -> Option<Outcome> {
        if !dead.ticket.epoch.is_live() {
            return None;
        }
        let mut notes = self.shared.notes();
        if !self.is_known(dead).await? {
            notes.buried(self.queue, dead, Said::Ignore, Reason::BeforeCutOff.as_str());
            self.shared.write_down(notes).await;
            self.shared.halts.ended(self.queue, 1);
            return Some(Outcome::Ignored(Reason::BeforeCutOff));
        }
        if self.shared.is_shadow() {
            notes.buried(self.queue, dead, Said::Dead, dead.cause.reason);
            self.shared.write_down(notes).await;
            return Some(Outcome::Shadowed);
        }
        let is_written = self.is_written(dead, turns).await;
        is_written.then_some(Outcome::DeadLettered(dead.cause.reason))
    }

    /// Whether its row is one of ours. A database that cannot tell, because of this very record, keeps it from nobody.
    async fn is_known(&self, dead: &Dead) -> Option<bool> {
        let (Some(ledger), Queue::Consumer(consumer), Some(key)) =
            (&self.shared.ports.ledger, self.queue, &dead.cause.if_known)
        else {
            return Some(true);
        };
        let known = self
            .insist(&dead.ticket, consumer, "knows", || ledger.knows(key))
            .await?;
        Some(known.unwrap_or(true))
    }

    /// False if the record stopped being ours before its letter was written.
    async fn is_written(&self, dead: &Dead, turns: &Semaphore) -> bool {
        let (epoch, cause) = (&dead.ticket.epoch, &dead.cause);
        let Some(admitted) = self.shared.halts.admit(self.queue, cause.reason, cause.policy) else {
            self.shared.until_ended(epoch).await;
            return false;
        };
        let is_written = self.write(dead, turns).await;
        if !is_written {
            self.shared.halts.withdraw(self.queue, admitted);
        }
        is_written && self.is_noted(dead).await
    }

    /// Tells the database, so that nobody takes the row for one that was missed. False if the record stopped being ours.
    async fn is_noted(&self, dead: &Dead) -> bool {
        let (Some(ledger), Queue::Consumer(consumer), Body::Row(received)) =
            (&self.shared.ports.ledger, self.queue, &dead.body)
        else {
            return true;
        };
        let note = || ledger.bury(consumer, &received.change.row, dead.cause.reason);
        match self.insist(&dead.ticket, consumer, "mark_dead", note).await {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                // The letter tells what is wrong with it; the reconciler will find the row once more.
                tracing::error!(%error, consumer = consumer.name(), "dead letter not noted in the database");
                true
            }
        }
    }

    /// What the database says about this record, however long it is away. `None` if the record stopped being ours.
    async fn insist<'a, T>(
        &self,
        ticket: &Ticket,
        consumer: Consumer,
        name: &'static str,
        call: impl Fn() -> BoxFuture<'a, Result<T, LedgerError>>,
    ) -> Option<Result<T, LedgerError>> {
        let mut backoff = Backoff::default();
        while ticket.epoch.is_live() {
            self.shared.await_turn(consumer, Target::Database).await;
            let error = match self.shared.call(consumer, name, call()).await {
                Ok(done) => return Some(Ok(done)),
                Err(error) => error,
            };
            match Disposition::of_ledger(&error) {
                Disposition::Proceed | Disposition::Bisect { .. } | Disposition::Hold { .. } => {
                    return Some(Err(error));
                }
                wait @ (Disposition::Retry { .. } | Disposition::StandStill { .. }) => {
                    self.shared
                        .wait_for(consumer, Target::Database, wait, &mut backoff)
                        .await;
                }
            }
        }
        None
    }

    /// Writes a letter and waits for its delivery report, however long it takes. False if the record stopped being ours.
    async fn write(&self, dead: &Dead, turns: &Semaphore) -> bool {
        let epoch = &dead.ticket.epoch;
        let record = match &dead.body {
            Body::Undecoded(record) => record,
            Body::Row(received) => &received.record,
        };
        let letter = Letter {
            queue: self.queue,
            record,
            reason: dead.cause.reason,
            detail: &dead.cause.detail,
            policy: dead.cause.policy,
        };
        let (queue, reason, detail) = (self.queue.name(), dead.cause.reason, dead.cause.detail.as_str());
        let mut backoff = Backoff::default();
        while epoch.is_live() {
            let turn = tokio::select! {
                biased;
                () = self.shared.until_ended(epoch) => return false,
                turn = turns.acquire() => turn,
            };
            let written = self.shared.ports.dead_letters.write(&letter).await;
            // Whoever waits before he tries again is in nobody's way.
            drop(turn);
            let Err(error) = written else {
                self.shared.ports.telemetry.dead_lettered(queue, reason);
                self.shared.tell_buried(self.queue, dead);
                record.with(|record| {
                    let (topic, partition, offset) = (record.topic, record.partition, record.offset);
                    tracing::warn!(queue, reason, topic, partition, offset, detail, "record dead-lettered");
                });
                return true;
            };
            if let WriteError::Refused { .. } = error {
                // The pipeline ends of it. Until it does, this record is held like any other.
                let _told_already = self.shared.refused.try_send(error.to_string());
            }
            let wait = backoff.next(None, &self.shared.ports.randomness);
            self.shared.ports.telemetry.retried(queue, "dead_letters");
            self.shared
                .tell_waiting(queue, "dead_letters", &error.to_string(), wait);
            record.with(|record| {
                let (topic, partition, offset) = (record.topic, record.partition, record.offset);
                tracing::error!(%error, topic, partition, offset, ?wait, "record held until its dead letter is written");
            });
            self.shared.wait(wait).await;
        }
        false
    }
}
