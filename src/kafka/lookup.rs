//! Questions to the brokers about partitions: what a group has committed, where a log begins and ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::grants;
use crate::progress::{Committed, Found};

/// How long one question may take, where nobody stands by.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a look-up that fails is made again, and after which pause. Nothing is polled meanwhile: this and one more
/// look-up must end well within the poll interval.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);
const SHORTEST: Duration = Duration::from_millis(50);

/// One partition and what Kafka says about it.
#[derive(Debug)]
pub(super) struct LookedUp {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) found: Found,
}

/// Commitments of the consumer's group and the ends of the logs, three requests for all partitions together, in this time.
pub(super) fn look_up<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &TopicPartitionList,
    timeout: Duration,
) -> KafkaResult<Vec<LookedUp>> {
    // A member may be given nothing, and the client refuses to ask about nothing.
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    let until = Instant::now() + timeout;
    // Never nothing: a client asked to wait for nothing may not even send.
    let left = || until.saturating_duration_since(Instant::now()).max(SHORTEST);
    let commitments = consumer.committed_offsets(list.clone(), left())?;
    let begins = positions(consumer, list, Offset::Beginning, left())?;
    let ends = positions(consumer, list, Offset::End, left())?;
    let mut looked_up = Vec::new();
    for element in commitments.elements() {
        // An unreadable commitment is not a missing one: starting at the begin would be a rewind.
        element.error()?;
        let (topic, partition) = (element.topic().to_owned(), element.partition());
        let found = Found {
            committed: committed(&element),
            begin: position(&begins, &topic, partition)?,
            end: position(&ends, &topic, partition)?,
        };
        looked_up.push(LookedUp {
            topic,
            partition,
            found,
        });
    }
    Ok(looked_up)
}

/// The same, asked again when it fails in passing: brokers that start, or hand over, know no coordinator and no leader for
/// a while, and the client leaves some of that to us. A refusal is final.
pub(super) fn look_up_patiently<C: ConsumerContext>(
    runtime: &Handle,
    consumer: &BaseConsumer<C>,
    list: &TopicPartitionList,
) -> KafkaResult<Vec<LookedUp>> {
    // A key that is not believed comes as an event, to whoever polls.
    let refuses = grants::is_authorization;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look_up(consumer, list, TIMEOUT) {
            Err(error) if Instant::now() < deadline && !error.rdkafka_error_code().is_some_and(refuses) => {
                tracing::warn!(%error, "kafka does not say where to start; asking again");
                // Made inside: outside of a runtime there is no timer.
                runtime.block_on(async { tokio::time::sleep(PAUSE).await });
            }
            ended => return ended,
        }
    }
}

/// Where a log begins or ends, or where the records of a time begin: one request to each broker.
pub(super) fn positions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &TopicPartitionList,
    at: Offset,
    timeout: Duration,
) -> KafkaResult<TopicPartitionList> {
    let mut wanted = list.clone();
    wanted.set_all_offsets(at)?;
    consumer.offsets_for_times(wanted, timeout)
}

fn position(list: &TopicPartitionList, topic: &str, partition: i32) -> KafkaResult<i64> {
    let Some(element) = list.find_partition(topic, partition) else {
        return Ok(0);
    };
    element.error()?;
    Ok(element.offset().to_raw().unwrap_or(0))
}

fn committed(element: &TopicPartitionListElem<'_>) -> Option<Committed> {
    let Offset::Offset(offset) = element.offset() else {
        return None;
    };
    // The client library panics on metadata that is not UTF-8. Whatever it is, it is no frame.
    let metadata = catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned()));
    let metadata = metadata.unwrap_or_else(|_panic| "not UTF-8".to_owned());
    Some(Committed { offset, metadata })
}
