//! What a lane has set aside, so that one poison record does not hold up the keys beside it: events that get an answer
//! nobody knows, records on their way to the dead letters, and whatever must not overtake them.
//!
//! Later changes of the same row or of the same fact wait here, in the order of receipt. What is set aside stays
//! unfinished, so the watermark of its partition waits for it. Bounded: a lane whose room is used up waits as a whole.
//! It sends nothing and writes nothing.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::backoff::{Backoff, Randomness};
use super::item::{Group, Item, Pending};
use super::shared::Ticket;
use crate::consumers::EffectKey;
use crate::progress::Seq;
use crate::record::TopicPartition;
use crate::rows::{RowId, Table};

/// The most one lane sets aside: records, and bytes of theirs. One batch may overshoot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// What all lanes together set aside is at most this part of the memory budget: three quarters stay in flow.
const PART: usize = 4;

/// An event that alone gets an answer nobody knows. It is sent again and again.
#[derive(Debug)]
pub(super) struct Puzzle {
    pub(super) group: Group,
    pub(super) attempts: u32,
}

/// Whom something here keeps waiting. An earlier change does not wait for the letter of a later one.
#[derive(Debug, Clone, Copy)]
enum Keeps {
    /// Who was received behind this, and who is of another partition: no order is known to it.
    Behind(TopicPartition, Seq),
    Everybody,
}

/// A record that the undertaker has.
#[derive(Debug)]
struct Letter {
    row: (Table, RowId),
    place: TopicPartition,
    seq: Seq,
    key: Option<EffectKey>,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Parked {
    limit: Limit,
    /// In turn: the next to try first.
    puzzles: VecDeque<Puzzle>,
    /// One for all puzzles of the lane, or a target that answers nothing known would be asked by each of them.
    backoff: Backoff,
    due: Option<Instant>,
    letters: BTreeMap<u64, Letter>,
    next_letter: u64,
    waiting: Vec<Pending>,
    /// Rows and facts of everything here.
    rows: BTreeMap<Table, BTreeMap<RowId, Keeps>>,
    keys: BTreeMap<EffectKey, Keeps>,
    /// Something left: those who wait may look whether it was for this.
    left: bool,
}

impl Limit {
    pub(super) fn of_each(lanes: usize, max_records: usize, max_bytes: usize) -> Self {
        let part = |max: usize| (max / PART / lanes.max(1)).max(1);
        Self {
            records: part(max_records),
            bytes: part(max_bytes),
        }
    }
}

impl Parked {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            limit,
            puzzles: VecDeque::new(),
            backoff: Backoff::default(),
            due: None,
            letters: BTreeMap::new(),
            next_letter: 0,
            waiting: Vec::new(),
            rows: BTreeMap::new(),
            keys: BTreeMap::new(),
            left: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.puzzles.is_empty() && self.letters.is_empty() && self.waiting.is_empty()
    }

    /// How many records the lane may take on, all of which may have to be set aside.
    pub(super) fn room(&self) -> usize {
        if self.is_empty() {
            return usize::MAX;
        }
        let members = self
            .puzzles
            .iter()
            .flat_map(|puzzle| puzzle.group.members())
            .chain(&self.waiting);
        let (mut records, mut bytes) = (self.letters.len(), 0_usize);
        for member in members {
            records += 1;
            bytes = bytes.saturating_add(member.item.received.record.bytes());
        }
        bytes = self
            .letters
            .values()
            .fold(bytes, |sum, letter| sum.saturating_add(letter.bytes));
        if bytes >= self.limit.bytes {
            return 0;
        }
        self.limit.records.saturating_sub(records)
    }

    /// Whether this must wait behind something here.
    pub(super) fn holds_back(&self, group: &Group) -> bool {
        !self.is_empty() && group.members().any(|member| self.is_behind(member))
    }

    /// Keeps what must wait, gives the rest.
    pub(super) fn keep_back(&mut self, pending: Vec<Pending>) -> Vec<Pending> {
        if self.is_empty() {
            return pending;
        }
        let mut free = Vec::with_capacity(pending.len());
        for pending in pending {
            if self.is_behind(&pending) {
                self.wait(pending);
            } else {
                free.push(pending);
            }
        }
        free
    }

    pub(super) fn wait(&mut self, pending: Pending) {
        self.mark(&pending);
        self.waiting.push(pending);
    }

    pub(super) fn wait_all(&mut self, members: impl IntoIterator<Item = Pending>) {
        for member in members {
            self.wait(member);
        }
    }

    /// Something here has met its end, or a letter was added beside those who must wait for it: see who is free now.
    pub(super) fn released(&mut self) -> Vec<Pending> {
        if !std::mem::take(&mut self.left) {
            return Vec::new();
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|pending| (pending.item.ticket.place, pending.item.ticket.seq));
        self.rows.clear();
        self.keys.clear();
        let puzzles = std::mem::take(&mut self.puzzles);
        for member in puzzles.iter().flat_map(|puzzle| puzzle.group.members()) {
            self.mark(member);
        }
        self.puzzles = puzzles;
        let letters = std::mem::take(&mut self.letters);
        for letter in letters.values() {
            self.mark_letter(letter);
        }
        self.letters = letters;
        self.keep_back(waiting)
    }

    /// Whether [`Parked::released`] has something to look at.
    pub(super) const fn has_left(&self) -> bool {
        self.left
    }

    /// Drops what is not ours any more. Letters are the undertaker's to drop: he tells.
    pub(super) fn forget_gone(&mut self) {
        let before = (self.puzzles.len(), self.waiting.len());
        self.puzzles.retain(|puzzle| puzzle.group.is_live());
        self.waiting.retain(|pending| pending.item.ticket.epoch.is_live());
        self.left |= before != (self.puzzles.len(), self.waiting.len());
    }

    /// A record goes to the undertaker; what comes behind it waits until he tells that it is out of the way.
    pub(super) fn expect_letter(&mut self, item: &Item, key: Option<EffectKey>) -> u64 {
        let row = &item.received.change.row;
        let letter = Letter {
            row: (row.table(), row.id().clone()),
            place: item.ticket.place,
            seq: item.ticket.seq,
            key,
            bytes: item.received.record.bytes(),
        };
        self.mark_letter(&letter);
        let number = self.next_letter;
        self.next_letter += 1;
        self.letters.insert(number, letter);
        number
    }

    pub(super) fn buried(&mut self, letter: u64) {
        self.left |= self.letters.remove(&letter).is_some();
    }

    pub(super) fn add_puzzle(&mut self, puzzle: Puzzle, randomness: &Randomness) {
        for member in puzzle.group.members() {
            self.mark(member);
        }
        self.puzzles.push_back(puzzle);
        if self.due.is_none() {
            self.postpone(randomness);
        }
    }

    /// When puzzles are tried again.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn puzzles(&self) -> usize {
        self.puzzles.len()
    }

    /// The next puzzle to try. Its row and its fact wait until it is put back or [`Parked::solved`].
    pub(super) fn take_puzzle(&mut self) -> Option<Puzzle> {
        self.puzzles.pop_front()
    }

    pub(super) fn put_back(&mut self, puzzle: Puzzle) {
        self.puzzles.push_back(puzzle);
    }

    /// A puzzle has met its end, whichever.
    pub(super) const fn solved(&mut self) {
        self.left = true;
    }

    /// After a round of tries. Whatever it was may be over for the others as well, if one got through: they need not wait.
    pub(super) fn tried(&mut self, got_through: bool, randomness: &Randomness) {
        if self.puzzles.is_empty() || got_through {
            self.backoff = Backoff::default();
        }
        self.due = None;
        if !self.puzzles.is_empty() {
            self.postpone(randomness);
        }
    }

    fn postpone(&mut self, randomness: &Randomness) {
        self.due = Some(Instant::now() + self.backoff.next(None, randomness));
    }

    fn is_behind(&self, pending: &Pending) -> bool {
        let (table, row) = pending.row();
        let by_row = self.rows.get(&table).and_then(|rows| rows.get(row));
        let by_key = self.keys.get(&pending.effect.key);
        by_row
            .into_iter()
            .chain(by_key)
            .any(|keeps| keeps.waiting(&pending.item.ticket))
    }

    fn mark(&mut self, pending: &Pending) {
        let (table, row) = pending.row();
        let keeps = Keeps::Behind(pending.item.ticket.place, pending.item.ticket.seq);
        note(self.rows.entry(table).or_default(), row, keeps);
        note(&mut self.keys, &pending.effect.key, keeps);
    }

    fn mark_letter(&mut self, letter: &Letter) {
        let (table, row) = &letter.row;
        let keeps = Keeps::Behind(letter.place, letter.seq);
        note(self.rows.entry(*table).or_default(), row, keeps);
        if let Some(key) = &letter.key {
            // The newest state of the fact was rejected: those before it wait for its letter.
            note(&mut self.keys, key, Keeps::Everybody);
        }
    }
}

impl Keeps {
    fn waiting(self, ticket: &Ticket) -> bool {
        match self {
            Self::Behind(place, seq) => place != ticket.place || seq < ticket.seq,
            Self::Everybody => true,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Behind(place, seq), Self::Behind(other, other_seq)) if place == other => {
                Self::Behind(place, seq.min(other_seq))
            }
            _ => Self::Everybody,
        }
    }
}

fn note<K: Ord + Clone>(kept: &mut BTreeMap<K, Keeps>, key: &K, keeps: Keeps) {
    match kept.get_mut(key) {
        Some(known) => *known = known.and(keeps),
        None => {
            kept.insert(key.clone(), keeps);
        }
    }
}
