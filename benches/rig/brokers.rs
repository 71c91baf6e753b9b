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
use super::records::{Log, Writer};

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
    let failed = Arc::new(AtomicU64::new(0));
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka.bootstrap_servers())
        .set("enable.idempotence", "true")
        // The mock answers one message set a fetch and partition: large ones, or it becomes the bottleneck.
        .set("linger.ms", "50")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "2000");
    let producer: ThreadedProducer<Reports> = config.create_with_context(Reports(Arc::clone(&failed)))?;
    let (topic, mut writer) = (log.purchases(), Writer::new(log.wrapped)?);
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
    let each = bytes / log.partitions.unsigned_abs() as usize;
    ensure!(each < SAFE_BYTES, "{topic}: {each} bytes a partition would be trimmed");
    Ok(())
}

/// Counts records that were not taken.
struct Reports(Arc<AtomicU64>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        if report.is_err() {
            self.0.fetch_add(1, Ordering::Release);
        }
    }
}
