//! Where a partition goes on: from what is committed and what the log holds to positions, or to a halt. Pure.
//!
//! Watermarks only skip work known to be done. They count only if nothing about them is doubtful; else every consumer
//! starts at the committed offset. A consumer in the frame that does not run here is *absent*: its watermark is carried
//! forward and holds the committed offset, so that it finds everything when it comes back.

use std::collections::BTreeMap;

use super::ConsumerSet;
use super::frame::{self, Reading, Watermarks};
use crate::consumers::Consumer;

/// What Kafka says about a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The committed offset and its metadata.
    pub committed: Option<Committed>,
    /// The first offset of the log, and the one behind its last.
    pub begin: i64,
    pub end: i64,
}

/// What a group has committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    pub metadata: String,
}

/// What the operator said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Orders {
    /// Where the committed offset lies outside the log, go on at its begin (`--accept-gap`).
    pub accept_gap: bool,
    /// Absent consumers whose watermark is not carried forward any more (`--drop-consumer`).
    pub dropped: Vec<String>,
}

/// Where a partition goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The first offset to fetch: the least watermark of the consumers that run.
    pub position: i64,
    /// Of every consumer that runs and reads the partition, the next offset it needs.
    pub watermarks: BTreeMap<Consumer, i64>,
    /// Of consumers that do not run here, the next offset they need.
    pub absent: Watermarks,
    /// What stands in Kafka now; `None` if there is nothing.
    pub committed: Option<Committed>,
}

/// Why a partition is not consumed until an operator acts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    #[error(
        "the committed offset {committed} lies outside the log ({begin} to {end}): records are missing. Reconcile that \
         time, then start with --accept-gap to go on at the log's begin"
    )]
    OutsideTheLog { committed: i64, begin: i64, end: i64 },
    #[error(
        "its progress was written by a later version of this worker (frame {version}), which this one cannot read: \
         run that version"
    )]
    NewerFrame { version: u32 },
}

/// What somebody should know about a start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    #[error("commit metadata ignored, it is {0}: every consumer starts at the committed offset")]
    Ignored(&'static str),
    #[error("consumer {} is new here: it starts at the committed offset", .0.name())]
    New(Consumer),
    #[error("consumer {name} does not run here: its watermark {watermark} is kept, and holds the committed offset")]
    Absent { name: Box<str>, watermark: i64 },
    #[error("consumer {name} dropped: what it has not read from offset {watermark} on is given up")]
    Dropped { name: Box<str>, watermark: i64 },
    #[error("gap accepted: the committed offset {committed} lies outside the log, going on at its begin {begin}")]
    GapAccepted { committed: i64, begin: i64 },
}

impl Start {
    /// All consumers at the same place.
    #[must_use]
    pub fn at(position: i64, readers: ConsumerSet) -> Self {
        Self {
            position,
            watermarks: readers.iter().map(|reader| (reader, position)).collect(),
            absent: Watermarks::new(),
            committed: None,
        }
    }

    /// Where a partition goes on that is read by these consumers, and what is worth saying about it.
    ///
    /// # Errors
    /// When an operator has to decide: see [`Halt`].
    pub fn decide(found: &Found, readers: ConsumerSet, orders: &Orders) -> Result<(Self, Vec<Notice>), Halt> {
        let Found { committed, begin, end } = found;
        let Some(committed) = committed else {
            return Ok((Self::at(*begin, readers), Vec::new()));
        };
        let reading = frame::read(&committed.metadata);
        if let Reading::Newer { version } = reading {
            return Err(Halt::NewerFrame { version });
        }
        let mut notices = Vec::new();
        let gap = !(*begin..=*end).contains(&committed.offset);
        if gap && !orders.accept_gap {
            return Err(Halt::OutsideTheLog {
                committed: committed.offset,
                begin: *begin,
                end: *end,
            });
        }
        if gap {
            notices.push(Notice::GapAccepted {
                committed: committed.offset,
                begin: *begin,
            });
        }
        // Nobody can go on before the log begins.
        let least = if gap { *begin } else { committed.offset };
        let (mut known, doubt) = believe(reading, committed.offset, *end);
        notices.extend(doubt.map(Notice::Ignored));
        for watermark in known.iter_mut().flat_map(Watermarks::values_mut) {
            *watermark = if doubt.is_some() { least } else { least.max(*watermark) };
        }
        let mut watermarks = BTreeMap::new();
        for reader in readers.iter() {
            let mark = known.as_mut().map(|known| known.remove(reader.name()));
            if mark == Some(None) {
                notices.push(Notice::New(reader));
            }
            watermarks.insert(reader, mark.flatten().unwrap_or(least));
        }
        let mut absent = known.unwrap_or_default();
        absent.retain(|name, watermark| {
            let (name, watermark) = (name.clone(), *watermark);
            let kept = !orders.dropped.iter().any(|dropped| **dropped == *name);
            notices.push(if kept {
                Notice::Absent { name, watermark }
            } else {
                Notice::Dropped { name, watermark }
            });
            kept
        });
        let start = Self {
            position: watermarks.values().copied().min().unwrap_or(least),
            watermarks,
            absent,
            committed: Some(committed.clone()),
        };
        Ok((start, notices))
    }

    /// Where the consumers of a subset go on by what the main group has written: `None` unless its frame is sound and
    /// names all of them. The others are the main group's business.
    ///
    /// # Errors
    /// When the main group itself would halt there.
    pub fn seeded(main: &Found, readers: ConsumerSet) -> Result<Option<Self>, Halt> {
        let (start, notices) = Self::decide(main, readers, &Orders::default())?;
        let doubtful = |notice: &Notice| matches!(notice, Notice::Ignored(_) | Notice::New(_));
        if start.committed.is_none() || notices.iter().any(doubtful) {
            return Ok(None);
        }
        Ok(Some(Self {
            absent: Watermarks::new(),
            committed: None,
            ..start
        }))
    }
}

/// What a frame says, and the doubt about it. Where its checksum is right and its numbers do not fit what it was committed
/// with or what the log holds, its names still count: forgetting an absent consumer would commit past it.
fn believe(reading: Reading, committed: i64, end: i64) -> (Option<Watermarks>, Option<&'static str>) {
    match reading {
        Reading::Absent => (None, Some("absent")),
        Reading::Damaged | Reading::Newer { .. } => (None, Some("damaged")),
        Reading::Frame(marks) => {
            let doubt = if marks.values().any(|mark| *mark > end) {
                Some("beyond the end of the log")
            } else if marks.values().any(|mark| *mark < committed) {
                Some("below the committed offset")
            } else {
                None
            };
            (Some(marks), doubt)
        }
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
