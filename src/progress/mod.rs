//! Stage 7, progress: takes offsets as received and as finished, gives the position that may be committed. Pure.
//!
//! For every partition and assignment it keeps one entry a received record with the set of consumers that still have
//! to finish it. A consumer's *watermark* is the first received offset it has not finished; the committable position
//! is the least watermark. Positions come from the offsets received, never from arithmetic: Kafka's offsets have gaps
//! (transaction markers, compaction). A failure is simply "not finished": it holds, and no later success passes it.
//!
//! [`frame`] is how watermarks travel in the commit metadata, [`Start`] what a new owner makes of them.
//!
//! It never talks to Kafka and never forgets an unfinished record.

pub mod frame;
mod start;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::consumers::Consumer;
use crate::planted::Planted;
use crate::rows::Table;
use frame::Watermarks;

pub use start::{Committed, Found, Halt, Notice, Orders, Start};

/// A set of consumers, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ConsumerSet(u8);

impl std::fmt::Debug for ConsumerSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(Consumer::name)).finish()
    }
}

impl ConsumerSet {
    pub const EMPTY: Self = Self(0);

    #[must_use]
    pub const fn only(consumer: Consumer) -> Self {
        Self(1 << consumer.index())
    }

    #[must_use]
    pub const fn with(self, consumer: Consumer) -> Self {
        Self(self.0 | Self::only(consumer).0)
    }

    #[must_use]
    pub const fn contains(self, consumer: Consumer) -> bool {
        self.0 & Self::only(consumer).0 != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those of them that read this topic. A topic that is not called after a table may hold anything: all of them.
    #[must_use]
    pub fn reading(self, topic: &str) -> Self {
        match topic.rsplit('.').next().and_then(Table::from_name) {
            Some(table) => self.iter().filter(|consumer| consumer.reads(table)).collect(),
            None => self,
        }
    }

    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Every set there is but the empty one.
    pub fn subsets() -> impl Iterator<Item = Self> {
        (1..1 << Consumer::ALL.len()).map(Self)
    }

    pub fn iter(self) -> impl Iterator<Item = Consumer> {
        Consumer::ALL
            .into_iter()
            .filter(move |consumer| self.contains(*consumer))
    }
}

impl FromIterator<Consumer> for ConsumerSet {
    fn from_iter<I: IntoIterator<Item = Consumer>>(consumers: I) -> Self {
        consumers.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// Which received record of one assignment: its place in the order of receipt, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(u64);

/// A record came out of order, below what was received already: the source is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset} received after position {position}: offsets of a partition must rise")]
pub struct OutOfOrder {
    pub offset: i64,
    pub position: i64,
}

/// What became of a received record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub seq: Seq,
    /// Who has to finish it: without those that have, by the watermarks at the start.
    pub pending: ConsumerSet,
}

/// The progress of one partition under one assignment.
#[derive(Debug)]
pub struct Partition {
    /// The consumers whose watermarks are kept: those that read this partition's topic.
    readers: ConsumerSet,
    /// For each consumer, the watermark at the start: everything below is known to be done.
    floors: [i64; Consumer::ALL.len()],
    /// Watermarks of consumers that do not run here. They hold the committable position.
    absent: Watermarks,
    /// Received and not finished by all, plus finished ones behind an unfinished one; in order of receipt.
    entries: VecDeque<Entry>,
    /// The sequence number of the first entry.
    base: u64,
    /// For each consumer, the sequence number up to which everything is finished.
    fronts: [u64; Consumer::ALL.len()],
    /// The next offset to read: the start, then one above the last received.
    position: i64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    pending: ConsumerSet,
}

impl Partition {
    #[must_use]
    pub fn starting(start: &Start) -> Self {
        let mut floors = [0; Consumer::ALL.len()];
        for (consumer, watermark) in &start.watermarks {
            if let Some(floor) = floors.get_mut(consumer.index()) {
                *floor = *watermark;
            }
        }
        Self {
            readers: start.watermarks.keys().copied().collect(),
            floors,
            absent: start.absent.clone(),
            entries: VecDeque::new(),
            base: 0,
            fronts: [0; Consumer::ALL.len()],
            position: start.position,
        }
    }

    /// Registers a received record and who has to finish it. Consumers not in `pending` have finished it at once.
    ///
    /// # Errors
    /// When the offset lies below one received before.
    pub fn receive(&mut self, offset: i64, pending: ConsumerSet) -> Result<Received, OutOfOrder> {
        let is_first = self.base == 0 && self.entries.is_empty();
        if offset < self.position && is_first {
            // The log was cut short behind our back: what we know about it does not hold for what it holds now.
            self.floors = [0; Consumer::ALL.len()];
            for watermark in self.absent.values_mut() {
                *watermark = offset.min(*watermark);
            }
        } else if offset < self.position {
            return Err(OutOfOrder {
                offset,
                position: self.position,
            });
        }
        let pending = pending
            .iter()
            .filter(|consumer| self.floor(*consumer) <= offset)
            .collect();
        let seq = Seq(self.base.saturating_add(self.entries.len() as u64));
        self.entries.push_back(Entry { offset, pending });
        self.position = offset.saturating_add(1);
        self.advance();
        Ok(Received { seq, pending })
    }

    /// Marks a record finished for these consumers. Finishing twice is harmless.
    pub fn finish(&mut self, seq: Seq, consumers: ConsumerSet) {
        let Some(index) = seq
            .0
            .checked_sub(self.base)
            .and_then(|index| usize::try_from(index).ok())
        else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(index) {
            entry.pending = entry.pending.minus(consumers);
            if index == 0 || self.fronts.contains(&seq.0) {
                self.advance();
            }
        }
    }

    /// The next offset this consumer needs: everything received below it is finished.
    #[must_use]
    pub fn watermark(&self, consumer: Consumer) -> i64 {
        let front = self
            .fronts
            .get(consumer.index())
            .copied()
            .unwrap_or(self.base)
            .max(self.base);
        let index = usize::try_from(front.saturating_sub(self.base)).unwrap_or(usize::MAX);
        if Planted::WatermarkByArithmetic.is_planted() {
            let finished = self
                .entries
                .iter()
                .filter(|entry| !entry.pending.contains(consumer))
                .count();
            let finished = i64::try_from(finished).unwrap_or(i64::MAX);
            let first = self.entries.front().map_or(self.position, |entry| entry.offset);
            return first.saturating_add(finished).max(self.floor(consumer));
        }
        let reached = self.entries.get(index).map_or(self.position, |entry| entry.offset);
        reached.max(self.floor(consumer))
    }

    /// The next offset to read that may be committed: the least watermark, of absent consumers as well.
    #[must_use]
    pub fn committable(&self) -> i64 {
        let ours = self.done_here();
        self.absent
            .values()
            .copied()
            .min()
            .map_or(ours, |theirs| theirs.min(ours))
    }

    /// Absent consumers that hold the committable position back, and where.
    pub fn held_by(&self) -> impl Iterator<Item = (&str, i64)> {
        let ours = self.done_here();
        let behind = self.absent.iter().filter(move |(_, watermark)| **watermark < ours);
        behind.map(|(name, watermark)| (name.as_ref(), *watermark))
    }

    /// Every watermark there is, for the commit metadata.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        let ours = self
            .readers
            .iter()
            .map(|reader| (reader.name().into(), self.watermark(reader)));
        self.absent.clone().into_iter().chain(ours).collect()
    }

    /// The first offset that somebody here has not finished.
    fn done_here(&self) -> i64 {
        if Planted::CommitPastHold.is_planted() {
            return self.position;
        }
        self.entries.front().map_or(self.position, |entry| entry.offset)
    }

    fn floor(&self, consumer: Consumer) -> i64 {
        self.floors.get(consumer.index()).copied().unwrap_or(0)
    }

    /// The next offset to receive.
    #[must_use]
    pub const fn position(&self) -> i64 {
        self.position
    }

    /// How many received records the committable position waits for: unfinished ones and those finished behind them.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub const fn readers(&self) -> ConsumerSet {
        self.readers
    }

    /// Moves each consumer's front over what it has finished, then forgets what everybody has finished.
    fn advance(&mut self) {
        let end = self.base.saturating_add(self.entries.len() as u64);
        for consumer in self.readers.iter() {
            let Some(front) = self.fronts.get_mut(consumer.index()) else {
                continue;
            };
            *front = (*front).max(self.base);
            while *front < end {
                let index = usize::try_from(front.saturating_sub(self.base)).unwrap_or(usize::MAX);
                match self.entries.get(index) {
                    Some(entry) if !entry.pending.contains(consumer) => *front = front.saturating_add(1),
                    _ => break,
                }
            }
        }
        while self.entries.front().is_some_and(|entry| entry.pending.is_empty()) {
            self.entries.pop_front();
            self.base = self.base.saturating_add(1);
        }
    }
}
