//! Stage 7, progress: takes offsets as received and as finished, gives the position that may be committed. Pure.
//!
//! For every partition and assignment it keeps one entry a received record with the set of consumers that still have
//! to finish it. A consumer's *watermark* is the first received offset it has not finished; the committable position
//! is the least watermark. Positions come from the offsets received, never from arithmetic: Kafka's offsets have gaps
//! (transaction markers, compaction). A failure is simply "not finished": it holds, and no later success passes it.
//!
//! It never talks to Kafka and never forgets an unfinished record.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::consumers::Consumer;

/// A set of consumers, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConsumerSet(u8);

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

    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
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

/// The progress of one partition under one assignment.
#[derive(Debug)]
pub struct Partition {
    /// The consumers that read this partition's topic.
    readers: ConsumerSet,
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
    /// `start` is the next offset to read: the committed offset, or the log's begin.
    #[must_use]
    pub fn starting_at(start: i64, readers: ConsumerSet) -> Self {
        Self {
            readers,
            entries: VecDeque::new(),
            base: 0,
            fronts: [0; Consumer::ALL.len()],
            position: start,
        }
    }

    /// Registers a received record and who has to finish it. Consumers not in `pending` have finished it at once.
    ///
    /// # Errors
    /// When the offset lies below one received before.
    pub fn receive(&mut self, offset: i64, pending: ConsumerSet) -> Result<Seq, OutOfOrder> {
        if offset < self.position {
            return Err(OutOfOrder {
                offset,
                position: self.position,
            });
        }
        let seq = self.base.saturating_add(self.entries.len() as u64);
        self.entries.push_back(Entry { offset, pending });
        self.position = offset.saturating_add(1);
        self.advance();
        Ok(Seq(seq))
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
        self.entries.get(index).map_or(self.position, |entry| entry.offset)
    }

    /// The next offset to read that may be committed: the least watermark of the readers.
    #[must_use]
    pub fn committable(&self) -> i64 {
        self.entries.front().map_or(self.position, |entry| entry.offset)
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
