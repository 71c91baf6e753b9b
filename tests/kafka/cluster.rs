//! A mock cluster with our topics, a producer, and a witness who reads commits and dead letters past the code under test.

use std::time::{Duration, Instant};

use crm_event_processors::config::topic;
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::kafka::Connection;
use crm_event_processors::record::TopicPartition;
use crm_event_processors::rows::Table;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// How long a test waits for something that must happen before it fails.
pub(crate) use crate::PATIENCE;
pub(super) const GROUP: &str = "crm-event-processors";
/// What the workers of these tests read.
pub(super) const TOPICS: [&str; 3] = [
    "crm.public.purchase_ledger",
    "crm.public.wallet_ledger",
    "crm.public.form_submissions",
];
pub(crate) const WALLET: TopicPartition = TopicPartition { topic: 1, partition: 0 };
pub(crate) const FORMS: TopicPartition = TopicPartition { topic: 2, partition: 0 };

/// 2026-11-20T12:00:00Z; every row of these tests was committed a second before.
pub(super) const NOW_MS: i64 = 1_795_176_000_000;

const ANSWER: Duration = Duration::from_secs(60);

pub(crate) const fn purchases(partition: i32) -> TopicPartition {
    TopicPartition { topic: 0, partition }
}

/// A header as it was written or read.
pub(crate) type OwnHeader = (String, Option<Vec<u8>>);

/// A record as it was written or read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<OwnHeader>,
}

/// One broker, with topics of our own: the mock in this process, or the real one of the stack.
pub(crate) struct Cluster {
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
    servers: String,
    /// Of topics and group: tests share the real broker.
    prefix: String,
    producer: FutureProducer,
    witness: BaseConsumer,
}

impl Cluster {
    /// The mock: all topics of ours; so many partitions of purchases, and one of everything else.
    pub(crate) fn start(partitions: i32) -> Self {
        let mock = MockCluster::new(1).expect("a cluster");
        for (topic, partitions) in topics("crm", partitions) {
            mock.create_topic(&topic, partitions, 1).expect("created");
        }
        let servers = mock.bootstrap_servers();
        Self::with(Some(mock), servers, "crm")
    }

    /// The same on a real broker.
    pub(crate) async fn real(servers: &str, prefix: &str, partitions: i32) -> Self {
        let admin: AdminClient<_> = client(servers, &[]).create().expect("an admin client");
        let topics = topics(prefix, partitions);
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|(topic, partitions)| NewTopic::new(topic, *partitions, TopicReplication::Fixed(1)))
            .collect();
        let created = admin
            .create_topics(&new, &AdminOptions::new())
            .await
            .expect("an answer");
        for topic in created {
            topic.expect("created");
        }
        let cluster = Self::with(None, servers.to_owned(), prefix);
        // A broker learns of a new topic a moment after it was made.
        let begun = Instant::now();
        for (topic, _) in &topics {
            while !cluster.is_led(topic) {
                assert!(begun.elapsed() < PATIENCE, "nobody leads {topic}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        cluster
    }

    fn is_led(&self, topic: &str) -> bool {
        let metadata = self.witness.fetch_metadata(Some(topic), ANSWER).expect("an answer");
        metadata.topics().iter().any(|topic| {
            let partitions = topic.partitions();
            topic.error().is_none()
                && !partitions.is_empty()
                && partitions.iter().all(|partition| partition.leader() >= 0)
        })
    }

    fn with(mock: Option<MockCluster<'static, DefaultProducerContext>>, servers: String, prefix: &str) -> Self {
        let producer = client(&servers, &[("linger.ms", "1"), ("message.max.bytes", "2000000")]);
        let group = group_of(prefix);
        let witness = client(&servers, &[("group.id", &group), ("enable.auto.commit", "false")]);
        Self {
            producer: producer.create().expect("a producer"),
            witness: witness.create().expect("a consumer"),
            mock,
            servers,
            prefix: prefix.to_owned(),
        }
    }

    /// The mock's levers.
    pub(crate) fn mock(&self) -> &MockCluster<'static, DefaultProducerContext> {
        self.mock.as_ref().expect("not the real broker")
    }

    pub(crate) fn connection(&self) -> Connection {
        connection_to(&self.servers)
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn group(&self) -> String {
        group_of(&self.prefix)
    }

    pub(crate) fn topic(&self, place: TopicPartition) -> String {
        let (_prefix, rest) = TOPICS[usize::from(place.topic)].split_once('.').expect("a prefix");
        format!("{}.{rest}", self.prefix)
    }

    /// A producer for a task of its own.
    pub(crate) fn producer(&self) -> FutureProducer {
        self.producer.clone()
    }

    /// Gives the record's offset.
    pub(crate) async fn produce(&self, place: TopicPartition, record: &Raw) -> i64 {
        produce(&self.producer, &self.topic(place), place.partition, record).await
    }

    pub(crate) async fn purchase(&self, partition: i32, id: &str, lsn: u32) -> i64 {
        self.produce(purchases(partition), &purchase(id, lsn)).await
    }

    /// What the group has committed.
    pub(crate) fn committed(&self, place: TopicPartition) -> Option<i64> {
        committed(&self.witness, &self.topic(place), place.partition).map(|(offset, _)| offset)
    }

    /// The metadata of the group's commitment.
    pub(crate) fn metadata(&self, place: TopicPartition) -> Option<String> {
        committed(&self.witness, &self.topic(place), place.partition).map(|(_, metadata)| metadata)
    }

    /// What another group has committed.
    pub(crate) fn committed_by(&self, group: &str, place: TopicPartition) -> Option<i64> {
        let witness: BaseConsumer = client(&self.servers, &[("group.id", group)])
            .create()
            .expect("a consumer");
        committed(&witness, &self.topic(place), place.partition).map(|(offset, _)| offset)
    }

    /// Begin and end of a log.
    pub(crate) fn log(&self, place: TopicPartition) -> (i64, i64) {
        self.witness
            .fetch_watermarks(&self.topic(place), place.partition, ANSWER)
            .expect("an answer")
    }

    /// Commits for the group, as long as it has no members.
    pub(super) fn commit(&self, place: TopicPartition, offset: i64, metadata: &str) {
        let mut list = TopicPartitionList::new();
        let topic = self.topic(place);
        list.add_partition_offset(&topic, place.partition, Offset::Offset(offset))
            .expect("an offset");
        list.find_partition(&topic, place.partition)
            .expect("just added")
            .set_metadata(metadata);
        self.witness.commit(&list, CommitMode::Sync).expect("committed");
    }

    /// Asks until the group has committed exactly this: brokers push no commits.
    pub(crate) async fn wait_committed(&self, place: TopicPartition, offset: i64) {
        let mut last = None;
        let asking = async {
            loop {
                last = self.committed(place);
                if last == Some(offset) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, asking).await;
        assert!(waited.is_ok(), "{place:?}: {last:?} committed, not {offset}");
    }

    /// Waits until everything in these partitions is committed.
    pub(crate) async fn wait_all_committed(&self, places: &[TopicPartition]) {
        for place in places {
            self.wait_committed(*place, self.log(*place).1).await;
        }
    }

    /// The first records of a topic with one partition, waited for.
    pub(super) fn read(&self, topic: &str, count: usize) -> Vec<Raw> {
        let mut reader = ClientConfig::new();
        reader.set("bootstrap.servers", &self.servers).set("group.id", "reader");
        let reader: BaseConsumer = reader.create().expect("a consumer");
        let mut begin = TopicPartitionList::new();
        begin
            .add_partition_offset(topic, 0, Offset::Beginning)
            .expect("an offset");
        reader.assign(&begin).expect("assigned");
        let mut records = Vec::new();
        while records.len() < count {
            let message = reader.poll(PATIENCE).expect("another record");
            records.push(raw(&message.expect("readable")));
        }
        records
    }

    /// How many records a topic with one partition holds.
    pub(crate) fn len(&self, topic: &str) -> i64 {
        let (begin, end) = self.witness.fetch_watermarks(topic, 0, ANSWER).expect("an answer");
        end - begin
    }
}

/// Topics and their numbers of partitions: of all tables, because the real binary reads them all.
fn topics(prefix: &str, purchases: i32) -> Vec<(String, i32)> {
    let rows = Table::ALL.map(|table| topic(prefix, table)).into_iter();
    let dead_letters = Queue::ALL.map(|queue| queue.topic(prefix));
    let names = rows.chain(dead_letters).enumerate();
    names
        .map(|(at, name)| (name, if at == 0 { purchases } else { 1 }))
        .collect()
}

fn group_of(prefix: &str) -> String {
    if prefix == "crm" {
        GROUP.to_owned()
    } else {
        format!("{GROUP}-{prefix}")
    }
}

fn client(servers: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

fn committed(witness: &BaseConsumer, topic: &str, partition: i32) -> Option<(i64, String)> {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(topic, partition);
    let begun = Instant::now();
    let offsets = loop {
        match witness.committed_offsets(wanted.clone(), ANSWER) {
            Ok(offsets) => break offsets,
            // A trouble of the mock that was meant for the worker may meet the witness.
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    let element = offsets.find_partition(topic, partition).expect("asked for");
    match element.offset() {
        Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
        _ => None,
    }
}

pub(super) fn connection_to(servers: &str) -> Connection {
    Connection {
        bootstrap_servers: servers.to_owned(),
        security_protocol: "PLAINTEXT".to_owned(),
        api_key: None,
        api_secret: None,
        ca_file: None,
    }
}

pub(crate) async fn produce(producer: &FutureProducer, topic: &str, partition: i32, record: &Raw) -> i64 {
    let mut headers = OwnedHeaders::new();
    for (key, value) in &record.headers {
        let value = value.as_ref();
        headers = headers.insert(Header { key, value });
    }
    let message = FutureRecord {
        partition: Some(partition),
        key: record.key.as_ref(),
        payload: record.value.as_ref(),
        headers: Some(headers),
        ..FutureRecord::to(topic)
    };
    let delivered = producer.send(message, PATIENCE).await;
    delivered.map_err(|(error, _message)| error).expect("delivered").offset
}

fn raw(message: &BorrowedMessage<'_>) -> Raw {
    let header = |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
    Raw {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: message
            .headers()
            .map(|headers| headers.iter().map(header).collect())
            .unwrap_or_default(),
    }
}

/// A completed purchase, as Debezium writes it: one award.
pub(crate) fn purchase(id: &str, lsn: u32) -> Raw {
    let ms = NOW_MS - 1000;
    let value = format!(
        r#"{{"before":null,"after":{{"id":"{id}","user_id":"u-{id}","merchant_id":"m-any","final_amount":"100.00",
        "refunded_amount":"0.00","status":"completed","earn_currency":true,
        "created_at":"2026-11-20T11:00:00.000000Z","completed_at":null}},
        "source":{{"ts_ms":{ms},"table":"purchase_ledger","txId":1,"lsn":{lsn}}},"op":"c","ts_ms":{ms}}}"#
    );
    Raw {
        key: Some(format!(r#"{{"id":"{id}"}}"#).into_bytes()),
        value: Some(value.into_bytes()),
        headers: Vec::new(),
    }
}

/// The id of the award event of one change of one purchase.
pub(super) fn award_id(purchase: &str, lsn: u32) -> String {
    format!("currency:award:purchase_ledger:{purchase}:{lsn}")
}
