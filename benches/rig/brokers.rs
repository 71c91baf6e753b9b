//! The embedded brokers, filled with logs that lie there whole before anybody reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use crm_event_processors::kafka::embedded::EmbeddedKafka;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::PATIENCE;
use super::records::{Log, Shape, Writer};

/// The mock trims a partition at 5 MiB, in silence: no log may come near.
const SAFE_BYTES: usize = 4_800_000;
/// What a record takes besides its key and value, generously.
const OVERHEAD_BYTES: usize = 24;

/// Starts brokers with these logs.
pub(crate) fn start(logs: &[Log]) -> anyhow::Result<EmbeddedKafka> {
    let topics: Vec<_> = logs.iter().flat_map(Log::topics).collect();
    Ok(EmbeddedKafka::start(&topics)?)
}

/// Writes a whole log.
pub(crate) fn fill(kafka: &EmbeddedKafka, log: &Log) -> anyhow::Result<()> {
    fill_shaped(kafka, log, Shape::default())
}

pub(crate) fn fill_shaped(kafka: &EmbeddedKafka, log: &Log, shape: Shape) -> anyhow::Result<()> {
    let bytes = write_all(kafka.bootstrap_servers(), log, shape)?;
    let each = bytes / log.partitions.unsigned_abs() as usize;
    ensure!(
        each < SAFE_BYTES,
        "{}: {each} bytes a partition would be trimmed",
        log.purchases()
    );
    Ok(())
}

/// Writes a whole log to whatever brokers these are; gives how many bytes it has.
pub(crate) fn write_all(bootstrap: &str, log: &Log, shape: Shape) -> anyhow::Result<usize> {
    // The mock answers one message set a fetch and partition: large ones, or it becomes the bottleneck.
    let (producer, failed) = producer(bootstrap, "50")?;
    let (topic, mut writer) = (log.purchases(), Writer::shaped(log.wrapped, shape)?);
    let mut bytes = 0;
    // Partition after partition: so its message sets are large.
    let partitions = u32::try_from(log.partitions)?;
    for row in (0..partitions).flat_map(|partition| (partition..log.records).step_by(partitions as usize)) {
        let (key, value) = writer.write(row)?;
        bytes += key.len() + value.len() + OVERHEAD_BYTES;
        let mut record = BaseRecord::to(&topic)
            .partition(log.partition_of(row))
            .key(key)
            .payload(value);
        while let Err((error, refused)) = producer.send(record) {
            ensure!(
                matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                "the brokers do not take records: {error}"
            );
            record = refused;
            producer.flush(PATIENCE)?;
        }
    }
    producer.flush(PATIENCE)?;
    ensure!(failed.load(Ordering::Acquire) == 0, "records were not taken");
    Ok(bytes)
}

/// A producer, and how many of its records were not taken.
pub(crate) fn producer(
    bootstrap: &str,
    linger_ms: &str,
) -> anyhow::Result<(ThreadedProducer<Reports>, Arc<AtomicU64>)> {
    let failed = Arc::new(AtomicU64::new(0));
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", linger_ms)
        .set("batch.size", "1000000")
        .set("batch.num.messages", "2000");
    Ok((config.create_with_context(Reports(Arc::clone(&failed)))?, failed))
}

/// Counts records that were not taken.
pub(crate) struct Reports(Arc<AtomicU64>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        if report.is_err() {
            self.0.fetch_add(1, Ordering::Release);
        }
    }
}
