//! What people who look are told of single records: takes a record with its end, gives it to the telemetry, which keeps the last.
//!
//! The first of a batch that ended so, and every dead letter; of what is superseded none, but the newer state that covers it. It changes nothing about a record and waits for nobody.

use std::time::Duration;

use super::item::{Pending, Received};
use super::outcome::Outcome;
use super::shared::Shared;
use super::undertaker::{Body, Dead};
use crate::consumers::Consumer;
use crate::dead_letters::Queue;
use crate::telemetry::Decided;

impl Shared {
    /// A record, the first of its batch, ends so.
    pub(super) fn tell(&self, consumer: Consumer, received: &Received, outcome: Outcome, reason: Option<&'static str>) {
        let at_ms = self.ports.clock.now_ms();
        let telemetry = &self.ports.telemetry;
        if !telemetry.wants(consumer, outcome.label(), at_ms) {
            return;
        }
        let (place, offset) = received.record.place();
        telemetry.decided(Decided {
            at_ms,
            consumer: consumer.name(),
            place,
            offset,
            row: Some(named(received)),
            outcome: outcome.label(),
            reason,
        });
    }

    /// The same for what was to be delivered, for the reason that it was.
    pub(super) fn tell_of(&self, consumer: Consumer, pending: &Pending, outcome: Outcome) {
        let reason = pending.effect.reason.as_str();
        self.tell(consumer, &pending.item.received, outcome, Some(reason));
    }

    /// A letter is written.
    pub(super) fn tell_buried(&self, queue: Queue, dead: &Dead) {
        let at_ms = self.ports.clock.now_ms();
        let (record, row) = match &dead.body {
            Body::Undecoded(record) => (record, None),
            Body::Row(received) => (&received.record, Some(named(received))),
        };
        let (place, offset) = record.place();
        let (telemetry, cause) = (&self.ports.telemetry, &dead.cause);
        telemetry.decided(Decided {
            at_ms,
            consumer: queue.name(),
            place,
            offset,
            row,
            outcome: Outcome::DeadLettered(cause.reason).label(),
            reason: Some(cause.reason),
        });
        let detail = format!("{}: {}", cause.reason, cause.detail);
        telemetry.went_wrong(queue.name(), "record", &detail, at_ms, None);
    }

    /// A target, or the dead letters, could not do what a consumer wanted.
    pub(super) fn tell_wrong(&self, consumer: &'static str, target: &'static str, detail: &str) {
        let at_ms = self.ports.clock.now_ms();
        self.ports.telemetry.went_wrong(consumer, target, detail, at_ms, None);
    }

    /// The same, and it is asked again after so long.
    pub(super) fn tell_waiting(&self, consumer: &'static str, target: &'static str, detail: &str, wait: Duration) {
        let at_ms = self.ports.clock.now_ms();
        let telemetry = &self.ports.telemetry;
        telemetry.went_wrong(consumer, target, detail, at_ms, Some(wait));
    }
}

fn named(received: &Received) -> (&'static str, String) {
    let row = &received.change.row;
    (row.table().name(), row.id().as_str().to_owned())
}
