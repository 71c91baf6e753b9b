//! Kafka inside this process, for the demo and for tests: librdkafka's mock cluster.
//!
//! Takes topics, gives brokers that any client can reach, a [`Feed`] that fills them, and [`read_topic`]. The mock keeps
//! at most 5 MiB of a partition and trims the oldest in silence, which a reader would see as a loss: the feed therefore
//! knows what the group has committed and never runs further ahead than is safe. It never touches a consumer's position.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Connection, Logging};

/// How far a partition's log may run ahead of the group's position: half of what the mock keeps.
pub const SAFE_BYTES: usize = 2_500_000;

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// What a record takes in the log besides its key and value, generously.
const OVERHEAD_BYTES: usize = 64;

/// The cluster. It ends, and forgets everything, when this is dropped.
pub struct EmbeddedKafka {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    bootstrap_servers: String,
}

impl std::fmt::Debug for EmbeddedKafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let servers = &self.bootstrap_servers;
        f.debug_struct("EmbeddedKafka")
            .field("bootstrap_servers", servers)
            .finish_non_exhaustive()
    }
}

impl EmbeddedKafka {
    /// One broker with these topics and numbers of partitions.
    ///
    /// # Errors
    /// When the cluster cannot be made.
    pub fn start(topics: &[(String, i32)]) -> KafkaResult<Self> {
        let cluster = MockCluster::new(1)?;
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1)?;
        }
        let bootstrap_servers = cluster.bootstrap_servers();
        Ok(Self {
            _cluster: cluster,
            bootstrap_servers,
        })
    }

    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    #[must_use]
    pub fn connection(&self) -> Connection {
        Connection {
            bootstrap_servers: self.bootstrap_servers.clone(),
            security_protocol: "PLAINTEXT".to_owned(),
            api_key: None,
            api_secret: None,
            ca_file: None,
        }
    }
}

/// Fills topics, never too far ahead of the group. Blocks; for a thread of its own.
pub struct Feed {
    producer: ThreadedProducer<Reports>,
    failures: Arc<AtomicU64>,
    /// Never subscribes: it only asks for the group's positions.
    group: BaseConsumer<Logging>,
    topics: Vec<String>,
    /// By topic, by partition.
    logs: Vec<Vec<Log>>,
}

/// What the feed knows of one partition.
#[derive(Debug, Default)]
struct Log {
    produced: i64,
    committed: i64,
    /// Sizes of the records behind the committed position.
    ahead: VecDeque<usize>,
    ahead_bytes: usize,
}

/// Why the feed cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error("the embedded kafka does not answer: {0}")]
    Kafka(#[from] KafkaError),
    #[error("{0} records were not taken by the embedded kafka")]
    NotDelivered(u64),
    #[error("no such partition")]
    NoSuchPartition,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

impl Feed {
    /// The only producer of these topics: it counts offsets by itself.
    ///
    /// # Errors
    /// When a client cannot be made.
    pub fn new(connection: &Connection, group: &str, topics: &[(String, i32)]) -> Result<Self, FeedError> {
        let failures = Arc::new(AtomicU64::new(0));
        let mut config = connection.config();
        config
            // Keeps order and counts over retries.
            .set("enable.idempotence", "true")
            // The mock answers one message set a fetch: large ones, or it becomes the bottleneck.
            .set("linger.ms", "5")
            .set("batch.size", "1000000")
            .set("batch.num.messages", "2000")
            .set("queue.buffering.max.messages", "100000");
        let producer = config.create_with_context(Reports {
            failures: Arc::clone(&failures),
        })?;
        let group = connection
            .config()
            .set("group.id", group)
            .create_with_context(Logging)?;
        let log = |(_, partitions): &(String, i32)| (0..*partitions).map(|_| Log::default()).collect();
        let logs = topics.iter().map(log).collect();
        Ok(Self {
            producer,
            failures,
            group,
            topics: topics.iter().map(|(topic, _)| topic.clone()).collect(),
            logs,
        })
    }

    /// Whether one more record of this size is safe. Ask again after [`Feed::refresh`].
    #[must_use]
    pub fn has_room(&self, topic: usize, partition: i32, bytes: usize) -> bool {
        self.log(topic, partition)
            .is_some_and(|log| log.ahead_bytes + bytes + OVERHEAD_BYTES <= SAFE_BYTES)
    }

    /// The offset that the next record of this partition gets.
    #[must_use]
    pub fn next_offset(&self, topic: usize, partition: i32) -> Option<i64> {
        self.log(topic, partition).map(|log| log.produced)
    }

    /// Sends one record, without waiting for its report.
    ///
    /// # Errors
    /// When the client does not take it.
    pub fn send(&mut self, topic: usize, partition: i32, key: &[u8], value: Option<&[u8]>) -> Result<(), FeedError> {
        let name = self.topics.get(topic).ok_or(FeedError::NoSuchPartition)?;
        let mut record = BaseRecord::to(name).partition(partition).key(key);
        record.payload = value;
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    record = refused;
                    self.producer.flush(FLUSH_TIMEOUT)?;
                }
                Err((error, _record)) => return Err(error.into()),
            }
        }
        let bytes = key.len() + value.map_or(0, <[u8]>::len) + OVERHEAD_BYTES;
        let log = usize::try_from(partition)
            .ok()
            .and_then(|partition| self.logs.get_mut(topic)?.get_mut(partition));
        let log = log.ok_or(FeedError::NoSuchPartition)?;
        log.produced += 1;
        log.ahead.push_back(bytes);
        log.ahead_bytes += bytes;
        Ok(())
    }

    /// Looks where the group stands.
    ///
    /// # Errors
    /// When the cluster does not answer, or has not taken a record.
    pub fn refresh(&mut self) -> Result<(), FeedError> {
        let failures = self.failures.load(Ordering::Acquire);
        if failures > 0 {
            return Err(FeedError::NotDelivered(failures));
        }
        let mut list = TopicPartitionList::new();
        for (topic, logs) in self.topics.iter().zip(&self.logs) {
            for partition in (0..).take(logs.len()) {
                list.add_partition(topic, partition);
            }
        }
        let committed = self.group.committed_offsets(list, LOOKUP_TIMEOUT)?;
        for element in committed.elements() {
            let topic = self.topics.iter().position(|topic| topic == element.topic());
            let partition = usize::try_from(element.partition()).ok();
            let log = topic
                .zip(partition)
                .and_then(|(topic, partition)| self.logs.get_mut(topic)?.get_mut(partition));
            if let (Some(log), Offset::Offset(offset)) = (log, element.offset()) {
                log.advance(offset);
            }
        }
        Ok(())
    }

    /// Records sent so far.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.logs.iter().flatten().map(|log| log.produced.unsigned_abs()).sum()
    }

    /// Records behind the group's committed positions, as of the last refresh.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.logs.iter().flatten().map(|log| log.committed.unsigned_abs()).sum()
    }

    fn log(&self, topic: usize, partition: i32) -> Option<&Log> {
        self.logs.get(topic)?.get(usize::try_from(partition).ok()?)
    }
}

impl Log {
    fn advance(&mut self, committed: i64) {
        while self.committed < committed.min(self.produced) {
            self.committed += 1;
            self.ahead_bytes -= self.ahead.pop_front().unwrap_or(0).min(self.ahead_bytes);
        }
    }
}

/// Counts records that the cluster did not take.
struct Reports {
    failures: Arc<AtomicU64>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::client::log(level, facility, message);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        if report.is_err() {
            self.failures.fetch_add(1, Ordering::Release);
        }
    }
}

impl ConsumerContext for Logging {}

/// Reads everything a topic of one partition holds at this moment; gives how many records it was ever given. Blocks.
///
/// # Errors
/// When the cluster does not answer.
pub fn read_topic(
    connection: &Connection,
    topic: &str,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> KafkaResult<i64> {
    let mut config: ClientConfig = connection.config();
    config
        .set("group.id", "embedded-reader")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest");
    let reader: BaseConsumer<Logging> = config.create_with_context(Logging)?;
    let (begin, end) = reader.fetch_watermarks(topic, 0, LOOKUP_TIMEOUT)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(begin))?;
    reader.assign(&list)?;
    let mut position = begin;
    while position < end {
        match reader.poll(LOOKUP_TIMEOUT) {
            Some(Ok(message)) => {
                position = message.offset() + 1;
                each(&message);
            }
            Some(Err(error)) => return Err(error),
            None => return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)),
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_has_room_again_for_exactly_what_was_committed() {
        let mut log = Log {
            produced: 3,
            ahead: [10, 20, 30].into(),
            ahead_bytes: 60,
            ..Log::default()
        };
        log.advance(2);
        assert_eq!((log.committed, log.ahead_bytes, log.ahead.len()), (2, 30, 1));
        log.advance(1);
        assert_eq!(log.committed, 2, "a position never goes back");
        log.advance(9);
        assert_eq!((log.committed, log.ahead_bytes), (3, 0), "nor beyond what was sent");
    }

    #[test]
    fn what_a_feed_sends_is_there_to_be_read() {
        let topics = [("crm.dlq.decode".to_owned(), 1)];
        let kafka = EmbeddedKafka::start(&topics).expect("a cluster");
        let mut feed = Feed::new(&kafka.connection(), "group", &topics).expect("clients");
        for value in [Some(b"one".as_slice()), None] {
            assert!(feed.has_room(0, 0, 100));
            feed.send(0, 0, b"key", value).expect("taken");
        }
        feed.producer.flush(FLUSH_TIMEOUT).expect("delivered");
        feed.refresh().expect("an answer");
        assert_eq!(
            (feed.produced(), feed.committed(), feed.next_offset(0, 0)),
            (2, 0, Some(2))
        );
        assert!(!feed.has_room(0, 0, SAFE_BYTES));
        assert!(!feed.has_room(0, 1, 1), "no such partition");
        let mut seen = Vec::new();
        let end = read_topic(&kafka.connection(), "crm.dlq.decode", |message| {
            seen.push(rdkafka::Message::payload(message).map(<[u8]>::to_vec));
        });
        assert_eq!((end, seen), (Ok(2), vec![Some(b"one".to_vec()), None]));
    }
}
