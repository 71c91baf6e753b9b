//! Records on their way through one consumer: what a lane takes, what it has to deliver, what it reports. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;

// A batch has a few hundred keys: nobody can make enough of them collide to be worth a slower hash.
use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};
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

/// Changes of one fact. The newest is delivered and covers the others.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) newest: Pending,
    /// Oldest first. Mostly none, which costs nothing.
    pub(super) older: Vec<Pending>,
    /// Of all streamed changes here.
    highest_lsn: i64,
}

impl Group {
    /// Adds a change at its place. What came last is the newest, but for two cases, both of a connector that repeats
    /// itself when the claims of what was delivered have lapsed. An older state of a row is no news behind a newer one.
    /// And where a fact has several rows, a change that was committed before the newest so far must not lend it its id,
    /// which Inngest may know already.
    fn add(&mut self, pending: Pending) {
        // Mostly none is newer: a busy member's hundreds are not gone through for each.
        let lsn = lsn(&pending);
        let is_old = lsn < self.highest_lsn && self.members().any(|member| is_older_state(&pending, member));
        self.highest_lsn = self.highest_lsn.max(lsn);
        let newest = &self.newest;
        let rides_along = newest.row() != pending.row() && newest.change().commit_ms > pending.change().commit_ms;
        match (is_old, rides_along) {
            (true, _) => self.older.insert(0, pending),
            (false, true) => self.older.push(pending),
            (false, false) => self.older.push(std::mem::replace(&mut self.newest, pending)),
        }
    }

    /// Oldest first.
    pub(super) fn members(&self) -> impl Iterator<Item = &Pending> {
        self.older.iter().chain(std::iter::once(&self.newest))
    }

    /// How many records.
    pub(super) fn len(&self) -> usize {
        self.older.len() + 1
    }

    /// What is delivered: the newest effect, with what the older ones were for.
    pub(super) fn effect(&self) -> Cow<'_, Effect> {
        if self.older.is_empty() {
            return Cow::Borrowed(&self.newest.effect);
        }
        let mut effect = self.newest.effect.clone();
        effect.absorb(self.older.iter().map(|member| &member.effect));
        Cow::Owned(effect)
    }

    /// Whether any of its records is still ours.
    pub(super) fn is_live(&self) -> bool {
        self.members().any(|member| member.item.ticket.epoch.is_live())
    }
}

impl From<Pending> for Group {
    fn from(newest: Pending) -> Self {
        Self {
            highest_lsn: lsn(&newest),
            newest,
            older: Vec::new(),
        }
    }
}

/// Oldest first.
impl IntoIterator for Group {
    type Item = Pending;
    type IntoIter = std::iter::Chain<std::vec::IntoIter<Pending>, std::iter::Once<Pending>>;

    fn into_iter(self) -> Self::IntoIter {
        self.older.into_iter().chain(std::iter::once(self.newest))
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

/// Below all others for what was not streamed.
fn lsn(pending: &Pending) -> i64 {
    match pending.change().version {
        ChangeVersion::Lsn(lsn) => lsn,
        ChangeVersion::Snapshot(_) | ChangeVersion::SnapshotLsn(_) | ChangeVersion::State(_) => i64::MIN,
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
    let mut seen = HashSet::with_capacity(pending.len());
    if pending.iter().all(|pending| seen.insert(&pending.effect.claim)) {
        drop(seen);
        return (pending, Vec::new());
    }
    let mut seen = HashSet::with_capacity(pending.len());
    let (first, repeats) = pending
        .into_iter()
        .partition(|pending| seen.insert(pending.effect.claim.clone()));
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
    let all = pending.len();
    let mut known: HashMap<EffectKey, usize> = HashMap::with_capacity(all);
    for pending in pending {
        let entry = known.entry(pending.effect.key.clone());
        if !pending.effect.state_like {
            let earlier = entry.or_default();
            wave(&mut waves, *earlier, all).push(pending.into());
            *earlier += 1;
            continue;
        }
        let first = wave(&mut waves, 0, all);
        match entry {
            Entry::Occupied(place) => match first.get_mut(*place.get()) {
                Some(group) => group.add(pending),
                None => first.push(pending.into()),
            },
            Entry::Vacant(free) => {
                free.insert(first.len());
                first.push(pending.into());
            }
        }
    }
    waves
}

/// The first one has room for `all`.
fn wave(waves: &mut Vec<Vec<Group>>, number: usize, all: usize) -> &mut Vec<Group> {
    if waves.len() <= number {
        let room = if number == 0 { all } else { 0 };
        waves.resize_with(number + 1, || Vec::with_capacity(room));
    }
    &mut waves[number]
}
