//! The partitions that are ours: the progress of each, what to commit, what to pause.
//!
//! Takes what was received and what was finished, gives commits and pauses as data. It talks to nobody.

use std::collections::BTreeMap;

use super::item::Finished;
use super::shared::{Epoch, Ticket};
use super::source::{Assigned, Commit};
use crate::consumers::Consumer;
use crate::progress::{self, ConsumerSet};
use crate::record::TopicPartition;

/// How far the first unfinished record of a partition may lie behind the last received one before the partition is
/// paused, in records; it goes on at half of that. It bounds the skew between the consumers.
pub(super) const MAX_OUTSTANDING: usize = 10_000;

#[derive(Debug)]
struct Ours {
    epoch: Epoch,
    progress: progress::Partition,
    /// The last offset Kafka confirmed; `None` until there is one.
    committed: Option<i64>,
    paused: bool,
}

/// Ordered, so that every run takes the same way through them.
#[derive(Debug)]
pub(super) struct Partitions {
    readers: ConsumerSet,
    ours: BTreeMap<TopicPartition, Ours>,
    /// A commit is under way; the next waits for its answer.
    committing: bool,
}

/// One partition, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    pub place: TopicPartition,
    pub committed: Option<i64>,
    /// The next offset to receive.
    pub position: i64,
    pub outstanding: usize,
    pub paused: bool,
    pub watermarks: Vec<(Consumer, i64)>,
}

impl Partitions {
    pub(super) fn read_by(readers: ConsumerSet) -> Self {
        Self {
            readers,
            ours: BTreeMap::new(),
            committing: false,
        }
    }

    /// Begins a new epoch for each.
    pub(super) fn assign(&mut self, assigned: &[Assigned]) {
        for partition in assigned {
            let progress = progress::Partition::starting_at(partition.start, self.readers);
            let ours = Ours {
                epoch: Epoch::begin(),
                progress,
                committed: partition.committed,
                paused: false,
            };
            if let Some(before) = self.ours.insert(partition.place, ours) {
                before.epoch.end();
            }
        }
    }

    /// Registers a received record. `None` if the partition is not ours, or the offset was received before.
    pub(super) fn receive(&mut self, place: TopicPartition, offset: i64, pending: ConsumerSet) -> Option<Ticket> {
        let ours = self.ours.get_mut(&place)?;
        match ours.progress.receive(offset, pending) {
            Ok(seq) => Some(Ticket {
                place,
                seq,
                epoch: ours.epoch.clone(),
            }),
            Err(error) => {
                tracing::warn!(?place, %error, "record received twice in one assignment; it is in hand already");
                None
            }
        }
    }

    /// Registers an outcome. False if it came too late: the partition has another owner by now.
    pub(super) fn finish(&mut self, finished: &Finished) -> bool {
        let ticket = &finished.ticket;
        match self.ours.get_mut(&ticket.place) {
            Some(ours) if ours.epoch.is(&ticket.epoch) => {
                ours.progress.finish(ticket.seq, finished.consumers);
                true
            }
            _ => false,
        }
    }

    /// What has moved since the last confirmed commit, unless a commit is under way.
    pub(super) fn begin_commit(&mut self) -> Vec<Commit> {
        if self.committing {
            return Vec::new();
        }
        let commits = self.final_commits(None);
        self.committing = !commits.is_empty();
        commits
    }

    /// The same, whatever is under way: for the last commit before these partitions go (`None`: all of them).
    pub(super) fn final_commits(&self, leaving: Option<&[TopicPartition]>) -> Vec<Commit> {
        let leaves = |place: &TopicPartition| leaving.is_none_or(|leaving| leaving.contains(place));
        let moved = |ours: &Ours| ours.committed != Some(ours.progress.committable());
        let ours = self.ours.iter().filter(|(place, ours)| leaves(place) && moved(ours));
        ours.map(|(place, ours)| Commit {
            place: *place,
            offset: ours.progress.committable(),
        })
        .collect()
    }

    /// The answer to a commit.
    pub(super) fn committed(&mut self, offsets: &[Commit], confirmed: bool) {
        self.committing = false;
        for commit in offsets {
            if let Some(ours) = self.ours.get_mut(&commit.place)
                && confirmed
            {
                ours.committed = ours.committed.max(Some(commit.offset));
            }
        }
    }

    /// Ends the epochs of these partitions and forgets them.
    pub(super) fn revoke(&mut self, places: &[TopicPartition]) {
        for place in places {
            if let Some(ours) = self.ours.remove(place) {
                ours.epoch.end();
            }
        }
    }

    /// Received records of these partitions (`None`: all) that are not finished by everybody.
    pub(super) fn outstanding(&self, places: Option<&[TopicPartition]>) -> usize {
        let wanted = |place: &TopicPartition| places.is_none_or(|places| places.contains(place));
        self.ours
            .iter()
            .filter(|(place, _)| wanted(place))
            .map(|(_, ours)| ours.progress.outstanding())
            .sum()
    }

    /// Partitions to pause and to resume now.
    pub(super) fn flow(&mut self) -> (Vec<TopicPartition>, Vec<TopicPartition>) {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (place, ours) in &mut self.ours {
            let outstanding = ours.progress.outstanding();
            if !ours.paused && outstanding > MAX_OUTSTANDING {
                ours.paused = true;
                pause.push(*place);
            } else if ours.paused && outstanding <= MAX_OUTSTANDING / 2 {
                ours.paused = false;
                resume.push(*place);
            }
        }
        (pause, resume)
    }

    pub(super) fn status(&self) -> Vec<PartitionStatus> {
        let status = |(place, ours): (&TopicPartition, &Ours)| PartitionStatus {
            place: *place,
            committed: ours.committed,
            position: ours.progress.position(),
            outstanding: ours.progress.outstanding(),
            paused: ours.paused,
            watermarks: self
                .readers
                .iter()
                .map(|reader| (reader, ours.progress.watermark(reader)))
                .collect(),
        };
        self.ours.iter().map(status).collect()
    }
}
