//! Records on their way through one consumer: what a lane takes, what it has to deliver, what it reports. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::outcome::Outcome;
use super::shared::Ticket;
use crate::consumers::{Effect, EffectKey};
use crate::progress::ConsumerSet;
use crate::record::Record;
use crate::rows::{ChangeVersion, RowChange, RowId, Table};

/// A record that is a row change, as all its consumers share it. Its bytes stay until nobody can have to dead-letter it.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) change: RowChange,
    pub(super) record: Record,
    pub(super) at: Instant,
}

/// A record, as a lane takes it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) received: Arc<Received>,
    pub(super) ticket: Ticket,
}

/// A record that must be delivered.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) item: Item,
    pub(super) effect: Effect,
}

/// Changes of one fact, oldest first. The last is delivered and covers the others.
#[derive(Debug)]
pub(super) struct Group(pub(super) Vec<Pending>);

impl Group {
    /// Adds a change at its place. What came last is the newest, but for two cases, both of a connector that repeats
    /// itself when the claims of what was delivered have lapsed. An older state of a row is no news behind a newer one.
    /// And where a fact has several rows, a change that was committed before the newest so far must not lend it its id,
    /// which Inngest may know already.
    fn add(&mut self, pending: Pending) {
        let is_old = self.0.iter().any(|member| is_older_state(&pending, member));
        let newest = self.0.last();
        let rides_along = newest.is_some_and(|newest| {
            newest.row() != pending.row() && newest.change().commit_ms > pending.change().commit_ms
        });
        match (is_old, rides_along) {
            (true, _) => self.0.insert(0, pending),
            (false, true) => self.0.insert(self.0.len().saturating_sub(1), pending),
            (false, false) => self.0.push(pending),
        }
    }

    /// What is delivered: the newest effect, with what the older ones were for. `None` for a group without members.
    pub(super) fn effect(&self) -> Option<Cow<'_, Effect>> {
        let (newest, older) = self.0.split_last()?;
        if older.is_empty() {
            return Some(Cow::Borrowed(&newest.effect));
        }
        let mut effect = newest.effect.clone();
        for member in older.iter().rev() {
            effect.absorb(&member.effect);
        }
        Some(Cow::Owned(effect))
    }

    /// Whether any of its records is still ours.
    pub(super) fn is_live(&self) -> bool {
        self.0.iter().any(|member| member.item.ticket.epoch.is_live())
    }
}

impl Pending {
    pub(super) fn change(&self) -> &RowChange {
        &self.item.received.change
    }

    pub(super) fn row(&self) -> (Table, &RowId) {
        (self.change().row.table(), self.change().row.id())
    }
}

/// Whether `pending` is an older state of the row of `member`. Log sequence numbers of one row rise; snapshot rows have
/// none that could be compared.
pub(super) fn is_older_state(pending: &Pending, member: &Pending) -> bool {
    let (old, new) = (pending.change(), member.change());
    match (old.version, new.version) {
        (ChangeVersion::Lsn(older), ChangeVersion::Lsn(newer)) => {
            older < newer && old.commit_ms <= new.commit_ms && pending.row() == member.row()
        }
        _ => false,
    }
}

/// A record that has its outcome.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) ticket: Ticket,
    pub(super) consumers: ConsumerSet,
    pub(super) outcome: Outcome,
}

/// A connector that repeats itself may do so within one batch. The store cannot tell: both claims are ours. Left in, a
/// repetition would pass for the newest state of its row, and the truly newest, confirmed along with it, would be found
/// done when it is repeated in turn.
pub(super) fn set_repeats_aside(pending: Vec<Pending>) -> (Vec<Pending>, Vec<Pending>) {
    let mut seen = BTreeSet::new();
    let (mut first, mut repeats) = (Vec::with_capacity(pending.len()), Vec::new());
    for pending in pending {
        if seen.insert(pending.effect.claim.clone()) {
            first.push(pending);
        } else {
            repeats.push(pending);
        }
    }
    (first, repeats)
}

/// What waits for newer rules must not be overtaken by another state of its row, which was decided without them.
pub(super) fn wait_together(pending: &mut Vec<Pending>, unknown: &mut Vec<Item>) {
    if unknown.is_empty() {
        return;
    }
    let row = |change: &RowChange| (change.row.table(), change.row.id().clone());
    let rows: BTreeSet<(Table, RowId)> = unknown.iter().map(|item| row(&item.received.change)).collect();
    let mut waiting: Vec<Item> = pending
        .extract_if(.., |pending| rows.contains(&row(pending.change())))
        // Several effects of one record are decided again as one.
        .map(|Pending { item, .. }| Item {
            ticket: item.ticket.of_parts(1),
            ..item
        })
        .collect();
    waiting.dedup_by_key(|item| (item.ticket.place, item.ticket.seq));
    unknown.append(&mut waiting);
    unknown.sort_by_key(|item| (item.ticket.place, item.ticket.seq));
}

/// What is delivered together, wave after wave. Where only the newest change of a fact matters, its changes are one group.
/// Where every change matters, each stands alone, and two of one fact are in different waves: a later one never
/// overtakes an earlier one that is held.
pub(super) fn waves(pending: Vec<Pending>) -> Vec<Vec<Group>> {
    let mut waves: Vec<Vec<Group>> = Vec::new();
    // Of a fact whose newest change matters, its place in the first wave; of another, how many changes came before.
    let mut known: BTreeMap<EffectKey, usize> = BTreeMap::new();
    for pending in pending {
        let key = pending.effect.key.clone();
        if !pending.effect.state_like {
            let earlier = known.entry(key).or_default();
            wave(&mut waves, *earlier).push(Group(vec![pending]));
            *earlier += 1;
            continue;
        }
        let first = wave(&mut waves, 0);
        match known.get(&key).and_then(|place| first.get_mut(*place)) {
            Some(group) => group.add(pending),
            None => {
                known.insert(key, first.len());
                first.push(Group(vec![pending]));
            }
        }
    }
    waves
}

fn wave(waves: &mut Vec<Vec<Group>>, number: usize) -> &mut Vec<Group> {
    if waves.len() <= number {
        waves.resize_with(number + 1, Vec::new);
    }
    &mut waves[number]
}
