//! In shadow: takes what a lane has decided, gives it to [`Decisions`] as lines, and ends the record there.
//!
//! Every record is written down by itself, in whatever batch it comes, so that a repeated record gives the same line.
//! Nothing is claimed before and nothing confirmed behind it. Outside of a shadow all of this does nothing.
//!
//! [`Decisions`]: crate::shadow::Decisions

use super::backoff::Backoff;
use super::item::{Item, Pending, Received};
use super::lane::Lane;
use super::outcome::Outcome;
use super::shared::Shared;
use super::undertaker::{Body, Dead};
use crate::consumers::{Consumer, Effect};
use crate::dead_letters::Queue;
use crate::shadow::{Line, Said, WriteError};

/// Why nothing is said of an older state in hand: the newest is settled.
pub(super) const SUPERSEDED: &str = "superseded";

/// What is to be written down before records are finished; `None` outside of a shadow.
pub(super) struct Notes(Option<Vec<u8>>);

impl Notes {
    /// `effect`: what was decided before it turned out to be done.
    pub(super) fn ignored(&mut self, consumer: Consumer, item: &Item, reason: &str, effect: Option<&Effect>) {
        self.note(consumer, &item.received, Said::Ignore, reason, effect);
    }

    fn delivered(&mut self, consumer: Consumer, pending: &Pending) {
        let (received, effect) = (&pending.item.received, &pending.effect);
        self.note(consumer, received, Said::Deliver, effect.reason.as_str(), Some(effect));
    }

    /// What became of a record on its way to the dead letters.
    pub(super) fn buried(&mut self, queue: Queue, dead: &Dead, said: Said, reason: &str) {
        let Some(lines) = &mut self.0 else { return };
        let name = queue.name();
        match &dead.body {
            Body::Undecoded(record) => {
                record.with(|record| Line::of(name, &record, said, reason).write(lines));
            }
            Body::Row(received) => received.record.with(|record| {
                let line = Line::of(name, &record, said, reason);
                line.with_change(&received.change).write(lines);
            }),
        }
    }

    fn note(&mut self, consumer: Consumer, received: &Received, said: Said, reason: &str, effect: Option<&Effect>) {
        let Some(lines) = &mut self.0 else { return };
        received.record.with(|record| {
            let line = Line::of(consumer.name(), &record, said, reason).with_change(&received.change);
            match effect {
                Some(effect) => line.with_effect(effect).write(lines),
                None => line.write(lines),
            }
        });
    }
}

impl Shared {
    pub(super) const fn is_shadow(&self) -> bool {
        self.ports.decisions.is_some()
    }

    pub(super) fn notes(&self) -> Notes {
        Notes(self.is_shadow().then(Vec::new))
    }

    /// Returns when they are durable, however long it takes. A record whose partition went meanwhile is written once more by
    /// its next owner.
    pub(super) async fn write_down(&self, notes: Notes) {
        let (Some(lines), Some(decisions)) = (notes.0, &self.ports.decisions) else {
            return;
        };
        if lines.is_empty() {
            return;
        }
        let mut backoff = Backoff::default();
        while let Err(error) = decisions.write(&lines).await {
            if let WriteError::Gone(_) = error {
                // The pipeline ends of it. Until it does, the records are held.
                let _told_already = self.refused.try_send(error.to_string());
            }
            let wait = backoff.next(None, &self.ports.randomness);
            tracing::error!(%error, ?wait, "records held until their decisions are written");
            self.wait(wait).await;
        }
    }
}

impl Lane {
    /// What would be delivered.
    pub(super) async fn write_down(&self, pending: Vec<Pending>) {
        let mut notes = self.shared.notes();
        if let Some(first) = pending.first() {
            self.shared.tell_of(self.consumer, first, Outcome::Shadowed);
        }
        for pending in &pending {
            notes.delivered(self.consumer, pending);
        }
        self.shared.write_down(notes).await;
        let done = pending.into_iter();
        let done = done.map(|pending| self.finish(pending.item.ticket, Outcome::Shadowed));
        self.report(done.collect()).await;
    }
}
