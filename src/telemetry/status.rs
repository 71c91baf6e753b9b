//! A picture of the pipeline, published at every tick.

use crate::consumers::Consumer;
use crate::pipeline::PartitionStatus;
use crate::record::Topics;

/// How things stand.
#[derive(Debug, Clone)]
pub struct Status {
    /// When the pipeline last ticked, ms since the epoch.
    pub ticked_ms: i64,
    pub topics: Topics,
    pub partitions: Vec<PartitionStatus>,
    pub consumers: Vec<ConsumerStatus>,
    /// The group has given this member its share, which may be nothing.
    pub joined: bool,
    /// A shutdown has begun.
    pub draining: bool,
}

/// One logical consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerStatus {
    pub consumer: Consumer,
    pub lanes: usize,
    /// Why it waits for an operator, if it does.
    pub standing_still: Option<String>,
    /// Why it is halted until an operator acts, if it is: too many dead letters.
    pub halted: Option<String>,
}

/// A partition that waits for an operator. It is not among the pipeline's; its lag counts all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halted {
    pub committed: i64,
    /// From here to the end nothing is read: the committed offset, or the log's begin if it lies behind the end.
    pub unread_from: i64,
    /// Why, and what to do.
    pub reason: String,
}

/// What the client says of the group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Assignments and revocations since it began.
    pub rebalances: i64,
    /// The last reason it gave, in its own words. It gives one only for what it began itself: not when others come and go.
    pub reason: String,
}

impl Status {
    /// Before the first tick.
    #[must_use]
    pub fn starting() -> Self {
        let topics = Topics::from(Vec::new());
        Self {
            ticked_ms: 0,
            topics,
            partitions: Vec::new(),
            consumers: Vec::new(),
            joined: false,
            draining: false,
        }
    }

    /// A topic by its place in the subscription.
    #[must_use]
    pub fn topic(&self, place: u16) -> &str {
        self.topics.get(usize::from(place)).map_or("", AsRef::as_ref)
    }
}

/// How far the fastest consumer of a partition is ahead of the slowest, in offsets.
#[must_use]
pub(super) fn skew(partition: &PartitionStatus) -> i64 {
    let marks = || partition.watermarks.iter().map(|(_, mark)| *mark);
    marks()
        .max()
        .zip(marks().min())
        .map_or(0, |(fastest, slowest)| fastest.saturating_sub(slowest))
}

/// The consumers that hold the committed offset of a partition: those that do not run here and are behind, else those with
/// an unfinished record; nobody if all is finished.
pub(super) fn holders(partition: &PartitionStatus) -> Vec<&str> {
    if let Some(least) = partition.absent.iter().map(|(_, mark)| *mark).min() {
        let absent = partition.absent.iter().filter(|(_, mark)| *mark == least);
        return absent.map(|(name, _)| name.as_ref()).collect();
    }
    let slowest = partition.watermarks.iter().map(|(_, mark)| *mark).min();
    let holds = move |mark: i64| Some(mark) == slowest && mark < partition.position;
    partition
        .watermarks
        .iter()
        .filter(move |(_, mark)| holds(*mark))
        .map(|(consumer, _)| consumer.name())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TopicPartition;

    fn partition(position: i64, watermarks: [i64; 3]) -> PartitionStatus {
        PartitionStatus {
            place: TopicPartition { topic: 0, partition: 0 },
            committed: None,
            confirmed: tokio::time::Instant::now(),
            position,
            outstanding: 0,
            paused: false,
            watermarks: Consumer::ALL.into_iter().zip(watermarks).collect(),
            absent: Vec::new(),
        }
    }

    #[test]
    fn the_slowest_consumer_holds_and_the_skew_is_its_distance_to_the_fastest() {
        let partition = partition(100, [90, 40, 100]);
        assert_eq!(skew(&partition), 60);
        assert_eq!(holders(&partition), ["tier"]);
    }

    #[test]
    fn a_consumer_that_does_not_run_holds_what_the_others_have_finished() {
        let mut partition = partition(100, [90, 100, 100]);
        partition.absent.push(("reward".into(), 30));
        assert_eq!(holders(&partition), ["reward"]);
    }

    #[test]
    fn nobody_holds_what_everybody_has_finished() {
        let partition = partition(100, [100, 100, 100]);
        assert_eq!(skew(&partition), 0);
        assert_eq!(holders(&partition), [""; 0]);
    }
}
