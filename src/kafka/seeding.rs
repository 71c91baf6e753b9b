//! Before joining: where a group starts that has committed nothing yet, and whether its consumers work elsewhere.
//!
//! A subset of the consumers runs in a group of its own, `<main>-<names>`, and goes on where the main group's metadata says
//! that its consumers are. A consumer has its progress in one group only: whoever finds it in another one is refused,
//! because its own is out of date by then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use super::client::{Connection, Logging};
use super::grants::Grant;
use super::lookup::{LookedUp, TIMEOUT, look_up, positions};
use super::preflight::{LOOK, PATIENCE, StartError};
use super::rebalance::Context;
use crate::consumers::Consumer;
use crate::progress::{ConsumerSet, Start};
use crate::record::TopicPartition;

/// Where a subset starts that the main group knows nothing of, or a shadow that has committed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    Begin,
    End,
    /// At the first record of this time or later.
    Time(Timestamp),
}

/// A consumer group: the main one of all consumers, or one of a subset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The name of the main group, `CONSUMER_GROUP_ID`.
    pub main: String,
    /// Whether this is a subset's group.
    pub is_subset: bool,
    /// The consumers that run here.
    pub consumers: ConsumerSet,
}

impl Group {
    /// As Kafka knows it: `<main>`, or `<main>-<names>` for a subset. A subset in the main group would commit past what the
    /// others have not read.
    #[must_use]
    pub fn name(&self) -> String {
        if self.is_subset {
            subset(&self.main, self.consumers)
        } else {
            self.main.clone()
        }
    }

    /// Groups of subsets in which one of our consumers may have worked.
    pub(super) fn rivals(&self) -> Vec<String> {
        let all = ConsumerSet::subsets().filter(|set| *set != Consumer::ALL.into_iter().collect());
        let overlaps = |set: &ConsumerSet| self.consumers.iter().any(|consumer| set.contains(consumer));
        let names = all.filter(overlaps).map(|set| subset(&self.main, set));
        names.filter(|name| *name != self.name()).collect()
    }
}

fn subset(main: &str, consumers: ConsumerSet) -> String {
    let names: Vec<&str> = consumers.iter().map(Consumer::name).collect();
    format!("{main}-{}", names.join("-"))
}

/// Starts of partitions that the group has not committed, other than at their log's begin.
pub(super) fn seeds(
    consumer: &BaseConsumer<Context>,
    connection: &Connection,
    group: &Group,
    start_at: Option<StartAt>,
) -> Result<BTreeMap<TopicPartition, Start>, StartError> {
    let context = consumer.context();
    let partitions = all_partitions(consumer).map_err(StartError::LookUp)?;
    refuse_rivals(connection, group, &partitions)?;
    if !group.is_subset {
        return match start_at {
            Some(at) => begun_at(consumer, &partitions, at, group.consumers).map_err(StartError::LookUp),
            None => Ok(BTreeMap::new()),
        };
    }
    let ours = look_up(consumer, &partitions, TIMEOUT).map_err(StartError::LookUp)?;
    let asking = client(connection, &group.main)?;
    if commitments(&asking, &partitions, PATIENCE)?.is_none() {
        return Err(StartError::Refused {
            cause: format!("group {} goes on where group {} is", group.name(), group.main),
            mend: Grant::mend(&[Grant::Join(group.main.clone())]),
        });
    }
    let main = look_up(&asking, &partitions, TIMEOUT).map_err(StartError::LookUp)?;
    let chosen = match start_at.map(Offset::from) {
        Some(at) => Some(positions(consumer, &partitions, at, TIMEOUT).map_err(StartError::LookUp)?),
        None => None,
    };
    let (mut seeds, mut unseeded) = (BTreeMap::new(), BTreeMap::<_, Vec<String>>::new());
    for (
        LookedUp {
            topic,
            partition,
            found,
        },
        main,
    ) in ours.into_iter().zip(main)
    {
        let Some(place) = context.place(&topic, partition).filter(|_| found.committed.is_none()) else {
            continue;
        };
        let readers = group.consumers.reading(&topic);
        let chosen = chosen
            .as_ref()
            .and_then(|chosen| chosen.find_partition(&topic, partition));
        match (Start::seeded(&main.found, readers), chosen) {
            (Ok(Some(seed)), _) => {
                tracing::info!(topic, partition, position = seed.position, "seeded from {}", group.main);
                seeds.insert(place, seed);
            }
            (Ok(None) | Err(_), Some(chosen)) => {
                // No record of that time or later: the end.
                let position = match chosen.offset() {
                    Offset::Offset(offset) => offset,
                    _ => found.end,
                };
                tracing::info!(topic, partition, position, "starting where --start-at says");
                seeds.insert(place, Start::at(position, readers));
            }
            (Ok(None), None) => unseeded.entry(topic).or_default().push(partition.to_string()),
            (Err(halt), None) => unseeded
                .entry(topic)
                .or_default()
                .push(format!("{partition} (where {halt})")),
        }
    }
    if unseeded.is_empty() {
        return Ok(seeds);
    }
    Err(StartError::Unseeded {
        group: group.name(),
        main: group.main.clone(),
        partitions: unseeded
            .into_iter()
            .map(|(topic, partitions)| format!("{topic}/{}", partitions.join(",")))
            .collect(),
    })
}

/// Of a group that goes on nowhere else: where the operator says, as far as it has not committed.
fn begun_at(
    consumer: &BaseConsumer<Context>,
    partitions: &TopicPartitionList,
    at: StartAt,
    consumers: ConsumerSet,
) -> KafkaResult<BTreeMap<TopicPartition, Start>> {
    let chosen = positions(consumer, partitions, Offset::from(at), TIMEOUT)?;
    let ours = look_up(consumer, partitions, TIMEOUT)?;
    let mut starts = BTreeMap::new();
    for LookedUp {
        topic,
        partition,
        found,
    } in ours
    {
        let Some(place) = consumer
            .context()
            .place(&topic, partition)
            .filter(|_| found.committed.is_none())
        else {
            continue;
        };
        // No record of that time or later: the end.
        let position = match chosen.find_partition(&topic, partition).map(|chosen| chosen.offset()) {
            Some(Offset::Offset(offset)) => offset,
            _ => found.end,
        };
        tracing::info!(topic, partition, position, "starting where --start-at says");
        starts.insert(place, Start::at(position, consumers.reading(&topic)));
    }
    Ok(starts)
}

/// There are thirty groups with five consumers; a client each is a few threads and connections.
const ASKED_AT_ONCE: usize = 10;

/// Refuses to start when one of our consumers has its progress in the group of a subset.
fn refuse_rivals(connection: &Connection, group: &Group, partitions: &TopicPartitionList) -> Result<(), StartError> {
    // Each group needs a client of its own, and may have a broker of its own: several at once.
    for rivals in group.rivals().chunks(ASKED_AT_ONCE) {
        let committed: Vec<Result<bool, StartError>> = std::thread::scope(|scope| {
            let asking: Vec<_> = rivals
                .iter()
                .map(|rival| scope.spawn(|| has_committed(connection, rival, partitions)))
                .collect();
            let gone = |_panic| Err(StartError::LookUp(KafkaError::Canceled));
            asking
                .into_iter()
                .map(|asked| asked.join().unwrap_or_else(gone))
                .collect()
        });
        for (rival, committed) in rivals.iter().zip(committed) {
            if committed? {
                return Err(StartError::WorksElsewhere {
                    group: group.name(),
                    rival: rival.clone(),
                });
            }
        }
    }
    Ok(())
}

fn has_committed(connection: &Connection, group: &str, partitions: &TopicPartitionList) -> Result<bool, StartError> {
    // A group that this key may not see is none that it has used.
    let committed = commitments(&client(connection, group)?, partitions, PATIENCE)?;
    Ok(committed.is_some_and(|committed| is_any_committed(&committed)))
}

pub(super) fn is_any_committed(list: &TopicPartitionList) -> bool {
    let is_committed = |element: &TopicPartitionListElem<'_>| matches!(element.offset(), Offset::Offset(_));
    list.elements().iter().any(is_committed)
}

/// What a group has committed; `None` if the key may not see the group. The client tells that only as an event, while the
/// question itself goes on until its time is over: so it is asked with little time, again and again.
pub(super) fn commitments<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &TopicPartitionList,
    patience: Duration,
) -> Result<Option<TopicPartitionList>, StartError> {
    let started = Instant::now();
    let refused = |error: &KafkaError| error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed);
    loop {
        let error = match client.committed_offsets(partitions.clone(), LOOK) {
            Ok(committed) => return Ok(Some(committed)),
            Err(error) => error,
        };
        let mut told = std::iter::from_fn(|| client.poll(Duration::from_millis(5)));
        if refused(&error) || told.any(|told| told.is_err_and(|error| refused(&error))) {
            return Ok(None);
        }
        if started.elapsed() >= patience {
            return Err(StartError::LookUp(error));
        }
    }
}

/// A client that asks on behalf of a group and never joins it.
pub(super) fn client(connection: &Connection, group: &str) -> Result<BaseConsumer<Logging>, StartError> {
    let mut config = connection.config();
    config.set("group.id", group).set("enable.auto.commit", "false");
    config.create_with_context(Logging).map_err(StartError::Client)
}

fn all_partitions(consumer: &BaseConsumer<Context>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for topic in consumer.context().topics.iter() {
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            list.add_partition(topic, partition.id());
        }
    }
    Ok(list)
}

impl From<StartAt> for Offset {
    /// As a question for positions: a time is asked for by its milliseconds.
    fn from(at: StartAt) -> Self {
        match at {
            StartAt::Begin => Self::Beginning,
            StartAt::End => Self::End,
            StartAt::Time(time) => Self::Offset(time.as_millisecond()),
        }
    }
}

impl std::str::FromStr for StartAt {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "begin" => Ok(Self::Begin),
            "end" => Ok(Self::End),
            time => time.parse().map(Self::Time),
        }
    }
}
