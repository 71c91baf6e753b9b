//! Before joining: are the brokers there, and the topics? Errors name what to do.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::Connection;
use super::rebalance::Context;

pub(super) const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// What must be there.
#[derive(Debug)]
pub struct Preflight<'a> {
    pub connection: &'a Connection,
    pub topics: Vec<String>,
}

/// Why the source did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("kafka client cannot be made: {0}")]
    Client(#[source] KafkaError),
    #[error("no kafka broker of {servers} answers: {cause}. Check KAFKA_BOOTSTRAP_SERVERS and the network")]
    Unreachable { servers: String, cause: String },
    #[error("kafka refuses us: {cause}. {grant}")]
    Refused { cause: String, grant: String },
    #[error("{} missing in kafka: {}. Create what is missing (the connector writes to `<TOPIC_PREFIX>.public.<table>`, \
             this worker to `<TOPIC_PREFIX>.dlq.<consumer>`), or check TOPIC_PREFIX",
            if topics.len() == 1 { "topic" } else { "topics" }, topics.join(", "))]
    MissingTopics { topics: Vec<String> },
    #[error("kafka does not say how far the groups are: {0}. Start again")]
    LookUp(#[source] KafkaError),
    #[error("group {group} has committed nothing for {}, and group {main} does not say how far its consumers are there: give \
             --start-at begin, end, or a time like 2026-11-20T00:00:00Z", partitions.join(", "))]
    Unseeded {
        group: String,
        main: String,
        partitions: Vec<String>,
    },
    #[error(
        "group {group} cannot start: group {rival} runs one of its consumers, and is ahead of it. Run that group; or, to \
             move back, stop it, reset {group} to its offsets (kafka-consumer-groups --reset-offsets) and delete {rival}"
    )]
    WorksElsewhere { group: String, rival: String },
    #[error("the polling thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
}

pub(super) fn check(consumer: &BaseConsumer<Context>, wanted: &Preflight<'_>) -> Result<(), StartError> {
    let mut missing = Vec::new();
    for name in &wanted.topics {
        let metadata = consumer.fetch_metadata(Some(name), METADATA_TIMEOUT);
        let metadata = metadata.map_err(|error| {
            // Serve the error events, which say why no broker answered: the call itself only says that none did.
            let _served = consumer.poll(Duration::ZERO);
            let last = consumer.context().state().last_error.clone();
            let (code, cause) = last.unwrap_or_else(|| (error.rdkafka_error_code(), error.to_string()));
            unreachable(wanted.connection, code, cause)
        })?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        match topic.map(|topic| (topic.error().map(RDKafkaErrorCode::from), topic.partitions().len())) {
            Some((None, partitions)) if partitions > 0 => {}
            Some((Some(code @ RDKafkaErrorCode::TopicAuthorizationFailed), _)) => {
                let cause = format!("no access to topic {name}");
                return Err(StartError::Refused {
                    cause,
                    grant: grant_for(Some(code)),
                });
            }
            _ => missing.push(name.clone()),
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(StartError::MissingTopics { topics: missing })
    }
}

fn unreachable(connection: &Connection, code: Option<RDKafkaErrorCode>, cause: String) -> StartError {
    match code {
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => StartError::Refused {
            cause,
            grant: grant_for(code),
        },
        _ => StartError::Unreachable {
            servers: connection.bootstrap_servers.clone(),
            cause,
        },
    }
}

/// What to grant or to correct for an authorization error.
pub(super) fn grant_for(code: Option<RDKafkaErrorCode>) -> String {
    match code {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            "Grant READ and DESCRIBE on the topics `<TOPIC_PREFIX>.public.*` and WRITE and DESCRIBE on \
             `<TOPIC_PREFIX>.dlq.*` to this key's account"
        }
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => "Grant READ on the consumer group CONSUMER_GROUP_ID",
        Some(RDKafkaErrorCode::ClusterAuthorizationFailed) => "Grant DESCRIBE on the cluster",
        _ => "Check KAFKA_API_KEY, KAFKA_API_SECRET and KAFKA_SECURITY_PROTOCOL",
    }
    .to_owned()
}
