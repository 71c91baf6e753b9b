//! The log: takes records, gives how many of them the group has not committed. The broker may be away for a while.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crm_event_processors::clock::{Clock as _, SystemClock};
use crm_event_processors::config::topic;
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::rows::Table;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, error::KafkaResult};

use super::parts::{GROUP, PREFIX};
use crate::rig::{PATIENCE, folder};

const PARTITIONS: i32 = 6;
const LOOK: Duration = Duration::from_secs(3);

/// Writes, and looks where the group stands. Cheap to share.
pub(crate) struct Journal {
    producer: ThreadedProducer<Quiet>,
    group: BaseConsumer<Quiet>,
    failures: Arc<AtomicU64>,
    written: AtomicU64,
    committed: AtomicU64,
}

/// Tells only its log that a broker is away: that is the plan. Counts records that were not taken.
#[derive(Clone)]
struct Quiet(Arc<AtomicU64>, Arc<File>);

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.note(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(&error.to_string(), reason);
    }
}

impl Quiet {
    fn note(&self, what: &str, why: &str) {
        let now = SystemClock.now();
        // A log that cannot be written stops nothing.
        let _unwritten = writeln!(&*self.1, "{now} {what} {why}");
    }
}

impl ConsumerContext for Quiet {}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _record)) = report {
            self.note("not taken", &error.to_string());
            self.0.fetch_add(1, Ordering::Release);
        }
    }
}

impl Journal {
    /// Makes the topics.
    pub(crate) async fn new(bootstrap: &str) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let names: Vec<(String, i32)> = tables()
            .map(|name| (name, PARTITIONS))
            .chain(letters().map(|name| (name, 1)))
            .collect();
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1)))
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for created in admin.create_topics(&topics, &options).await? {
            created.map_err(|(topic, error)| anyhow::anyhow!("{topic}: {error}"))?;
        }
        std::fs::create_dir_all(folder())?;
        let log = File::create(folder().join("chaos-load.log"))?;
        let quiet = Quiet(Arc::default(), Arc::new(log));
        let failures = Arc::clone(&quiet.0);
        config.set("reconnect.backoff.max.ms", "1000");
        let mut writing = config.clone();
        writing
            .set("enable.idempotence", "true")
            .set("linger.ms", "10")
            // Longer than any broker is away.
            .set("delivery.timeout.ms", "300000")
            .set("queue.buffering.max.messages", "200000");
        let mut looking = config;
        looking.set("group.id", GROUP).set("enable.auto.commit", "false");
        Ok(Self {
            producer: writing.create_with_context(quiet.clone())?,
            group: looking.create_with_context(quiet)?,
            failures,
            written: AtomicU64::new(0),
            committed: AtomicU64::new(0),
        })
    }

    /// Records of one row are written in their order, to one partition.
    pub(crate) fn write(&self, table: &str, row: u64, key: &str, value: &str) -> anyhow::Result<()> {
        let topic = format!("{PREFIX}.public.{table}");
        let partition = i32::try_from(row % u64::from(PARTITIONS.unsigned_abs()))?;
        let mut record = BaseRecord::to(&topic).partition(partition).key(key).payload(value);
        while let Err((error, refused)) = self.producer.send(record) {
            ensure!(
                matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                "the broker does not take records: {error}"
            );
            record = refused;
            // A full queue while the broker is away. Whoever comes here has a thread of its own.
            self.producer.flush(LOOK).ok();
        }
        self.written.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Whether the broker tells of all topics: it learns of them a moment after they were made. Blocks.
    pub(crate) fn has_topics(&self) -> bool {
        let known = self.group.fetch_metadata(None, LOOK);
        known.is_ok_and(|known| {
            let is_led = |topic: &MetadataTopic| {
                let partitions = topic.partitions();
                topic.error().is_none()
                    && !partitions.is_empty()
                    && partitions.iter().all(|partition| partition.leader() >= 0)
            };
            let known: Vec<&str> = known
                .topics()
                .iter()
                .filter(|topic| is_led(topic))
                .map(MetadataTopic::name)
                .collect();
            tables().chain(letters()).all(|name| known.contains(&name.as_str()))
        })
    }

    /// Whether the group is steady with so many members. Blocks.
    pub(crate) fn is_joined(&self, members: usize) -> bool {
        let groups = self.group.fetch_group_list(Some(GROUP), LOOK);
        groups.is_ok_and(|groups| {
            let mut groups = groups.groups().iter();
            groups.any(|group| group.state() == "Stable" && group.members().len() == members)
        })
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Records that the group has not committed, as of the last look.
    pub(crate) fn behind(&self) -> u64 {
        self.written().saturating_sub(self.committed.load(Ordering::Acquire))
    }

    /// Looks where the group stands. A broker that is away tells nothing new. Blocks.
    pub(crate) fn look(&self) -> anyhow::Result<()> {
        let failures = self.failures.load(Ordering::Acquire);
        ensure!(failures == 0, "{failures} records were not taken");
        if let Ok(committed) = self.committed() {
            self.committed.fetch_max(committed, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The log has no gaps, so the sum of the positions is the number of records.
    fn committed(&self) -> KafkaResult<u64> {
        let mut list = TopicPartitionList::new();
        for name in tables() {
            for partition in 0..PARTITIONS {
                list.add_partition(&name, partition);
            }
        }
        let committed = self.group.committed_offsets(list, LOOK)?;
        let position = |offset| match offset {
            Offset::Offset(offset) => offset.unsigned_abs(),
            _ => 0,
        };
        Ok(committed
            .elements()
            .iter()
            .map(|element| position(element.offset()))
            .sum())
    }

    /// How many records the log really has; every one must be there once. Blocks.
    pub(crate) fn held(&self) -> anyhow::Result<u64> {
        self.producer.flush(PATIENCE)?;
        let mut held = 0;
        for name in tables() {
            for partition in 0..PARTITIONS {
                held += self.end(&name, partition)?;
            }
        }
        Ok(held)
    }

    /// Dead letters in all queues. Blocks.
    pub(crate) fn dead_letters(&self) -> anyhow::Result<u64> {
        letters().map(|name| self.end(&name, 0)).sum()
    }

    fn end(&self, name: &str, partition: i32) -> anyhow::Result<u64> {
        let ends = self.group.fetch_watermarks(name, partition, PATIENCE);
        let (_, end) = ends.with_context(|| format!("the end of {name}/{partition}"))?;
        Ok(end.unsigned_abs())
    }
}

fn tables() -> impl Iterator<Item = String> {
    Table::ALL.iter().map(|table| topic(PREFIX, *table))
}

fn letters() -> impl Iterator<Item = String> {
    Queue::ALL.iter().map(|queue| queue.topic(PREFIX))
}
