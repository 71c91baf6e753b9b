//! How far a whole group has come: takes a time, gives a partition that is not past it.
//!
//! It asks on behalf of the group and never joins it, so it sees what other members have committed as well.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Connection, Logging};
use super::lookup::{TIMEOUT, look_up, positions};
use super::preflight::PATIENCE;
use crate::reconcile::Progress;

/// The topics of a group, all partitions of them, whoever reads them.
#[derive(Debug, Clone)]
pub struct Backlog {
    pub connection: Connection,
    /// As Kafka knows it.
    pub group: String,
    pub topics: Vec<String>,
}

impl Backlog {
    /// Blocks while the brokers answer.
    fn look(&self, time_ms: i64) -> Result<Option<String>, String> {
        let mut config = self.connection.config();
        config.set("group.id", &self.group).set("enable.auto.commit", "false");
        let client: BaseConsumer<Logging> = config.create_with_context(Logging).map_err(|error| error.to_string())?;
        let mut list = TopicPartitionList::new();
        for topic in &self.topics {
            let metadata = client
                .fetch_metadata(Some(topic), PATIENCE)
                .map_err(|error| error.to_string())?;
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                list.add_partition(topic, partition.id());
            }
        }
        if list.count() == 0 {
            return Ok(None);
        }
        let found = look_up(&client, &list, TIMEOUT).map_err(|error| error.to_string())?;
        let newer = positions(&client, &list, Offset::Offset(time_ms), TIMEOUT).map_err(|error| error.to_string())?;
        let behind = found.into_iter().find(|one| {
            let newer = newer.find_partition(&one.topic, one.partition);
            // Without a newer record everything is older.
            let needed = match newer.map(|newer| newer.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => one.found.end,
            };
            let committed = one
                .found
                .committed
                .as_ref()
                .map_or(one.found.begin, |committed| committed.offset);
            committed < needed
        });
        Ok(behind.map(|one| format!("{}/{}", one.topic, one.partition)))
    }
}

impl Progress for Backlog {
    fn behind(&self, time_ms: i64) -> BoxFuture<'_, Result<Option<String>, String>> {
        let backlog = self.clone();
        async move {
            let looked = tokio::task::spawn_blocking(move || backlog.look(time_ms)).await;
            looked.unwrap_or_else(|error| Err(error.to_string()))
        }
        .boxed()
    }
}
