//! Buries what cannot be processed: one undertaker a dead-letter queue. Takes dead records, reports each finished when its
//! delivery report is in hand, and tells the lane that keeps a row waiting for it.
//!
//! Several at once: a letter that cannot be written holds its own record, not the letters behind it, however many such
//! there are. A record whose partition goes is dropped, wherever it waits. It never decides that a record is dead, and never
//! buries more than [`super::halt`] admits.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc};

use super::backoff::Backoff;
use super::item::{Finished, Received};
use super::outcome::{Disposition, Outcome};
use super::shared::{Shared, Ticket};
use super::standstill::Target;
use crate::dead_letters::{Letter, Queue, WriteError};
use crate::progress::ConsumerSet;
use crate::record::Record;

/// How many letters are written at once.
const AT_ONCE: usize = 64;

/// A record on its way to the dead letters.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) body: Body,
    pub(super) ticket: Ticket,
    pub(super) reason: &'static str,
    pub(super) detail: String,
    pub(super) policy: bool,
    pub(super) tell: Option<Tell>,
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
                Some(next) = dead.recv() => burials.push(self.bury(next, &turns)),
                else => return,
            }
        }
    }

    async fn bury(&self, dead: Dead, turns: &Semaphore) {
        if self.is_written(&dead, turns).await {
            let outcome = if self.shared.is_shadow() {
                Outcome::Shadowed
            } else {
                Outcome::DeadLettered(dead.reason)
            };
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

    /// False if the record stopped being ours before its letter was written.
    async fn is_written(&self, dead: &Dead, turns: &Semaphore) -> bool {
        let epoch = &dead.ticket.epoch;
        if !epoch.is_live() {
            return false;
        }
        if self.shared.is_shadow() {
            let mut notes = self.shared.notes();
            notes.dead(self.queue, dead);
            self.shared.write_down(notes).await;
            return true;
        }
        let Some(admitted) = self.shared.halts.admit(self.queue, dead.reason, dead.policy) else {
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
        let mut backoff = Backoff::default();
        while dead.ticket.epoch.is_live() {
            self.shared.await_turn(consumer, Target::Database).await;
            let noted = ledger.bury(consumer, &received.change.row, dead.reason);
            match self.shared.call(consumer, "mark_dead", noted).await {
                Ok(()) => return true,
                Err(error) => match Disposition::of_ledger(&error) {
                    // The letter tells what is wrong with it; the reconciler will find the row once more.
                    Disposition::Proceed | Disposition::Bisect { .. } | Disposition::Hold { .. } => {
                        tracing::error!(%error, consumer = consumer.name(), "dead letter not noted in the database");
                        return true;
                    }
                    wait @ (Disposition::Retry { .. } | Disposition::StandStill { .. }) => {
                        self.shared
                            .wait_for(consumer, Target::Database, wait, &mut backoff)
                            .await;
                    }
                },
            }
        }
        false
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
            reason: dead.reason,
            detail: &dead.detail,
            policy: dead.policy,
        };
        let (queue, reason, detail) = (self.queue.name(), dead.reason, dead.detail.as_str());
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
            record.with(|record| {
                let (topic, partition, offset) = (record.topic, record.partition, record.offset);
                tracing::error!(%error, topic, partition, offset, ?wait, "record held until its dead letter is written");
            });
            self.shared.wait(wait).await;
        }
        false
    }
}
