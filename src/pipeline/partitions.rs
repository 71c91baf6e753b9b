//! The partitions that are ours: the progress of each, what to commit, what to pause.
//!
//! Takes what was received and what was finished, gives commits and pauses as data. It talks to nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::item::Finished;
use super::shared::{Epoch, Ticket};
use super::source::{Assigned, Commit};
use crate::consumers::Consumer;
use crate::planted::Planted;
use crate::progress::{self, Committed, ConsumerSet, frame};
use crate::record::TopicPartition;

/// A group's offsets expire after some days without a commit (`offsets.retention.minutes`, 7 days by default), so an idle
/// partition is committed anew once a day.
const RECOMMIT_AFTER: Duration = Duration::from_secs(24 * 3600);
/// How long an absent consumer may hold the committed offset before somebody is told, and told again.
const ABSENCE_ALARM: Duration = Duration::from_secs(600);

/// How far the first unfinished record of a partition may lie behind the last received one before the partition is
/// paused, in records; it goes on at half of that. It bounds the skew between the consumers.
pub(super) const MAX_OUTSTANDING: usize = 10_000;

#[derive(Debug)]
struct Ours {
    epoch: Epoch,
    progress: progress::Partition,
    /// What Kafka last confirmed; `None` until there is something.
    committed: Option<Committed>,
    /// When it did, or when the partition became ours.
    confirmed: Instant,
    /// Since when an absent consumer holds the committed offset; begins anew with each alarm.
    held_since: Option<Instant>,
    paused: bool,
}

/// Ordered, so that every run takes the same way through them.
#[derive(Debug)]
pub(super) struct Partitions {
    ours: BTreeMap<TopicPartition, Ours>,
    /// A commit is under way; the next waits for its answer.
    committing: bool,
}

/// One partition, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    pub place: TopicPartition,
    pub committed: Option<i64>,
    /// When a commit was last confirmed, or the partition became ours.
    pub confirmed: Instant,
    /// The next offset to receive.
    pub position: i64,
    pub outstanding: usize,
    pub paused: bool,
    pub watermarks: Vec<(Consumer, i64)>,
    /// Consumers that do not run here and hold the committed offset, each with the next offset it needs.
    pub absent: Vec<(Box<str>, i64)>,
}

/// An absent consumer has held the committed offset of a partition for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Absence {
    pub(super) place: TopicPartition,
    pub(super) held_by: Vec<(Box<str>, i64)>,
}

impl Partitions {
    pub(super) const fn none() -> Self {
        Self {
            ours: BTreeMap::new(),
            committing: false,
        }
    }

    /// Begins a new epoch for each.
    pub(super) fn assign(&mut self, assigned: Vec<Assigned>) {
        for Assigned { place, start } in assigned {
            let ours = Ours {
                epoch: Epoch::begin(),
                progress: progress::Partition::starting(&start),
                committed: start.committed,
                confirmed: Instant::now(),
                held_since: None,
                paused: false,
            };
            if let Some(before) = self.ours.insert(place, ours) {
                before.epoch.end();
            }
        }
    }

    /// Registers a received record, and says who has to finish it. `None` if the partition is not ours, or the offset was
    /// received before.
    pub(super) fn receive(
        &mut self,
        place: TopicPartition,
        offset: i64,
        pending: ConsumerSet,
    ) -> Option<(Ticket, ConsumerSet)> {
        let ours = self.ours.get_mut(&place)?;
        match ours.progress.receive(offset, pending) {
            Ok(received) => {
                let (seq, epoch) = (received.seq, ours.epoch.clone());
                let ticket = Ticket {
                    place,
                    seq,
                    epoch,
                    parts: None,
                };
                Some((ticket, received.pending))
            }
            Err(error) => {
                tracing::warn!(?place, %error, "record received twice in one assignment; it is in hand already");
                None
            }
        }
    }

    /// Registers an outcome, and says for which of the consumers that read the partition. `None` if it came too late: the
    /// partition has another owner by now; or too early: the record has other effects.
    pub(super) fn finish(&mut self, finished: &Finished) -> Option<ConsumerSet> {
        let ticket = &finished.ticket;
        if !ticket.is_last() {
            return None;
        }
        match self.ours.get_mut(&ticket.place) {
            Some(ours) if ours.epoch.is(&ticket.epoch) || Planted::LateCompletion.is_planted() => {
                ours.progress.finish(ticket.seq, finished.consumers);
                Some(
                    finished
                        .consumers
                        .minus(finished.consumers.minus(ours.progress.readers())),
                )
            }
            _ => None,
        }
    }

    /// What has moved since the last confirmed commit, or has not been committed for a day, unless a commit is under way.
    pub(super) fn begin_commit(&mut self) -> Vec<Commit> {
        if self.committing {
            return Vec::new();
        }
        let commits = self.commits(|ours| ours.confirmed.elapsed() >= RECOMMIT_AFTER);
        self.committing = !commits.is_empty();
        commits
    }

    /// What has moved, whatever is under way: for the last commit before these partitions go (`None`: all of them).
    pub(super) fn final_commits(&self, leaving: Option<&[TopicPartition]>) -> Vec<Commit> {
        let mut commits = self.commits(|_| false);
        commits.retain(|commit| leaving.is_none_or(|leaving| leaving.contains(&commit.place)));
        commits
    }

    /// What differs from what is committed, and what is to be committed all the same.
    fn commits(&self, all_the_same: impl Fn(&Ours) -> bool) -> Vec<Commit> {
        let mut commits = Vec::new();
        for (place, ours) in &self.ours {
            let progress = Committed {
                offset: ours.progress.committable(),
                metadata: frame::write(&ours.progress.watermarks()),
            };
            if ours.committed.as_ref() != Some(&progress) || all_the_same(ours) {
                commits.push(Commit {
                    place: *place,
                    progress,
                });
            }
        }
        commits
    }

    /// The answer to a commit.
    pub(super) fn committed(&mut self, commits: Vec<Commit>, confirmed: bool) {
        self.committing = false;
        for commit in commits {
            if let Some(ours) = self.ours.get_mut(&commit.place)
                && confirmed
            {
                ours.committed = Some(commit.progress);
                ours.confirmed = Instant::now();
            }
        }
    }

    /// Partitions that an absent consumer has held for ten minutes, and for ten more since that was last said.
    pub(super) fn long_absences(&mut self) -> Vec<Absence> {
        let mut absences = Vec::new();
        for (place, ours) in &mut self.ours {
            let held_by = held_by(&ours.progress);
            if held_by.is_empty() {
                ours.held_since = None;
            } else if ours.held_since.get_or_insert_with(Instant::now).elapsed() >= ABSENCE_ALARM {
                ours.held_since = Some(Instant::now());
                absences.push(Absence { place: *place, held_by });
            }
        }
        absences
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

    /// Whether the consumer has finished everything received.
    pub(super) fn is_idle(&self, consumer: Consumer) -> bool {
        self.ours.values().all(|ours| {
            let progress = &ours.progress;
            !progress.readers().contains(consumer) || progress.watermark(consumer) >= progress.position()
        })
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
            committed: ours.committed.as_ref().map(|committed| committed.offset),
            confirmed: ours.confirmed,
            position: ours.progress.position(),
            outstanding: ours.progress.outstanding(),
            paused: ours.paused,
            watermarks: ours
                .progress
                .readers()
                .iter()
                .map(|reader| (reader, ours.progress.watermark(reader)))
                .collect(),
            absent: held_by(&ours.progress),
        };
        self.ours.iter().map(status).collect()
    }
}

fn held_by(progress: &progress::Partition) -> Vec<(Box<str>, i64)> {
    progress
        .held_by()
        .map(|(name, watermark)| (name.into(), watermark))
        .collect()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::progress::Start;

    const PLACE: TopicPartition = TopicPartition { topic: 0, partition: 0 };

    fn assigned(start: Start) -> Partitions {
        let mut partitions = Partitions::none();
        partitions.assign(vec![Assigned { place: PLACE, start }]);
        partitions
    }

    fn everyone() -> ConsumerSet {
        Consumer::ALL.into_iter().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_without_a_commitment_is_committed_at_once_and_an_idle_one_anew_once_a_day() {
        let mut partitions = assigned(Start::at(7, everyone()));
        let first = partitions.begin_commit();
        assert_eq!(first.first().map(|commit| commit.progress.offset), Some(7));
        assert_eq!(partitions.begin_commit(), [], "one is under way");
        partitions.committed(first.clone(), true);
        advance(RECOMMIT_AFTER - Duration::from_secs(1)).await;
        assert_eq!(partitions.begin_commit(), []);
        advance(Duration::from_secs(1)).await;
        assert_eq!(partitions.begin_commit(), first, "the same again");
        partitions.committed(first.clone(), false);
        assert_eq!(partitions.begin_commit(), first, "until it is confirmed");
        partitions.committed(first, true);
        assert_eq!(partitions.begin_commit(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_that_an_absent_consumer_holds_is_told_every_ten_minutes() {
        let mut start = Start::at(0, everyone());
        start.absent.insert("reward".into(), 1);
        let mut partitions = assigned(start);
        assert_eq!(partitions.long_absences(), []);
        advance(ABSENCE_ALARM * 2).await;
        assert_eq!(
            partitions.long_absences(),
            [],
            "it holds nothing yet: nobody here is further"
        );
        for offset in 0..2 {
            let received = partitions.receive(PLACE, offset, ConsumerSet::EMPTY);
            assert!(received.is_some());
        }
        assert_eq!(partitions.long_absences(), [], "it has only begun to hold");
        let absence = Absence {
            place: PLACE,
            held_by: vec![("reward".into(), 1)],
        };
        for _ in 0..2 {
            advance(ABSENCE_ALARM - Duration::from_secs(1)).await;
            assert_eq!(partitions.long_absences(), []);
            advance(Duration::from_secs(1)).await;
            assert_eq!(partitions.long_absences(), std::slice::from_ref(&absence));
        }
    }
}
