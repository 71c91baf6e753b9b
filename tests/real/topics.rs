//! Kafka as a witness: the records of the topics and the group's commits, read past the code under test.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use super::stack;

pub(super) const PURCHASES: &str = "crm.public.purchase_ledger";
pub(super) const WALLET: &str = "crm.public.wallet_ledger";
pub(super) const FORMS: &str = "crm.public.form_submissions";
/// All that a worker of all consumers reads.
pub(super) const LEDGERS: [&str; 6] = [
    PURCHASES,
    WALLET,
    FORMS,
    "crm.public.mission_claims",
    "crm.public.referral_ledger",
    "crm.public.codes",
];

const ANSWER: Duration = Duration::from_secs(60);

/// One row change in a topic.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) row: String,
    pub(super) op: String,
    pub(super) lsn: i64,
    pub(super) commit_ms: i64,
    pub(super) status: Option<String>,
}

fn client(group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", stack("KAFKA_BOOTSTRAP_SERVERS"))
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a client")
}

fn partitions(client: &BaseConsumer, topic: &str) -> Vec<(i32, i64)> {
    let metadata = client.fetch_metadata(Some(topic), ANSWER).expect("metadata");
    let topic_metadata = metadata.topics().first().expect("the topic");
    let end = |partition: i32| client.fetch_watermarks(topic, partition, ANSWER).expect("watermarks").1;
    topic_metadata
        .partitions()
        .iter()
        .map(|partition| (partition.id(), end(partition.id())))
        .collect()
}

/// How many records a topic was ever given.
pub(super) fn len(topic: &str) -> i64 {
    partitions(&client("witness"), topic).iter().map(|(_, end)| end).sum()
}

/// Asks until every topic has its leaders: brokers learn of new ones a moment after they are created.
pub(super) async fn wait_led(topics: &[String]) {
    let started = Instant::now();
    loop {
        let wanted = topics.to_vec();
        let all_led = tokio::task::spawn_blocking(move || {
            let metadata = client("witness").fetch_metadata(None, ANSWER).expect("metadata");
            let led = metadata.topics().iter().filter(|topic| {
                let partitions = topic.partitions();
                !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0)
            });
            let led: Vec<&str> = led.map(MetadataTopic::name).collect();
            wanted.iter().all(|topic| led.contains(&topic.as_str()))
        });
        if all_led.await.expect("asked") {
            return;
        }
        assert!(started.elapsed() < super::worker::PATIENCE, "not all led: {topics:?}");
    }
}

/// The changes of one merchant's rows, in log order per row.
pub(super) fn changes(topic: &str, merchant: &str) -> Vec<Change> {
    let client = client("witness");
    let ends = partitions(&client, topic);
    let mut assignment = TopicPartitionList::new();
    for (partition, _) in &ends {
        assignment
            .add_partition_offset(topic, *partition, Offset::Beginning)
            .expect("assignable");
    }
    client.assign(&assignment).expect("assigned");
    let mut open = ends.len();
    let mut changes = Vec::new();
    let started = Instant::now();
    while open > 0 {
        assert!(started.elapsed() < super::worker::PATIENCE, "the topic has no end");
        match client.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(_partition_end)) => open -= 1,
            Some(Ok(message)) => {
                let Some(value) = message
                    .payload()
                    .and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok())
                else {
                    continue;
                };
                if value["after"]["merchant_id"] == merchant {
                    changes.push(Change {
                        row: value["after"]["id"].as_str().expect("an id").to_owned(),
                        op: value["op"].as_str().expect("an op").to_owned(),
                        lsn: value["source"]["lsn"].as_i64().expect("an lsn"),
                        commit_ms: value["source"]["ts_ms"].as_i64().expect("a commit time"),
                        status: value["after"]["status"].as_str().map(str::to_owned),
                    });
                }
            }
        }
    }
    changes
}

/// Asks until the topic holds a change of this merchant.
pub(super) async fn wait_changes(topic: &'static str, merchant: &str) -> Vec<Change> {
    let started = Instant::now();
    loop {
        let merchant = merchant.to_owned();
        let found = tokio::task::spawn_blocking(move || changes(topic, &merchant)).await;
        let found = found.expect("asked");
        if !found.is_empty() {
            return found;
        }
        assert!(
            started.elapsed() < super::worker::PATIENCE,
            "{topic} holds nothing of ours"
        );
    }
}

/// What a group has committed, and where the topic ends, by partition.
fn committed(group: &str, topic: &str) -> BTreeMap<i32, (Option<i64>, i64)> {
    let client = client(group);
    let ends = partitions(&client, topic);
    let mut wanted = TopicPartitionList::new();
    for (partition, _) in &ends {
        wanted.add_partition(topic, *partition);
    }
    let offsets = client.committed_offsets(wanted, ANSWER).expect("committed offsets");
    let offset = |partition| match offsets.find_partition(topic, partition).expect("asked for").offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    ends.into_iter()
        .map(|(partition, end)| (partition, (offset(partition), end)))
        .collect()
}

/// Asks until the group has committed every partition's end: then nothing is left to do.
pub(super) async fn wait_all_committed(group: &str, topics: &[impl AsRef<str>]) {
    let started = Instant::now();
    for topic in topics {
        loop {
            let (group, asked) = (group.to_owned(), topic.as_ref().to_owned());
            let state = tokio::task::spawn_blocking(move || committed(&group, &asked))
                .await
                .expect("asked");
            if state.values().all(|(offset, end)| *offset == Some(*end)) {
                break;
            }
            assert!(
                started.elapsed() < super::worker::PATIENCE,
                "{} is not committed to its end: {state:?}",
                topic.as_ref()
            );
        }
    }
}
