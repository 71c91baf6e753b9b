//! Before joining: do the brokers answer, do they believe our key, are the topics there, may we do what we shall?
//! Errors name the grant to add or the setting to mend. Nothing is written, and no group is joined.
//!
//! What a grant allows is asked only if there is an account that could lack one. Kafka would tell authorized operations
//! (KIP-430), but the client library has no call for that; so every right is tried in a way that changes nothing.

use std::time::{Duration, Instant};

use futures::future::join_all;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Connection, Logging, fetch_probe_config, write_probe_config};
use super::grants::{self, Grant};
use super::rebalance::Context;

/// How long the brokers are given for each answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How often the client's own events are looked at meanwhile: they say why there is no answer.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// A broker learns of a new topic a moment after it was created: so long it is looked for.
const SETTLING: Duration = Duration::from_secs(3);

/// What must be there.
#[derive(Debug)]
pub(super) struct Preflight<'a> {
    pub(super) connection: &'a Connection,
    pub(super) group: &'a str,
    /// Topics that are read.
    pub(super) sources: Vec<String>,
    /// Topics that are written.
    pub(super) dead_letters: Vec<String>,
}

/// Why the source did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("kafka client cannot be made: {}{}", .0, mend_settings(.0))]
    Client(KafkaError),
    #[error(
        "no kafka broker of {servers} answers: {cause}. Check KAFKA_BOOTSTRAP_SERVERS, the network, and whether that \
             port speaks {protocol} (KAFKA_SECURITY_PROTOCOL)"
    )]
    Unreachable {
        servers: String,
        protocol: String,
        cause: String,
    },
    /// Key, certificate or grants.
    #[error("{cause}. {mend}")]
    Refused { cause: String, mend: String },
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
    Thread(std::io::Error),
}

/// What the client has told of its own accord.
pub(super) type Told = (Option<RDKafkaErrorCode>, String);

/// A client's context that keeps what it was told last.
pub(super) trait Tells: ConsumerContext {
    fn take_told(&self) -> Option<Told>;
}

impl Tells for Context {
    fn take_told(&self) -> Option<Told> {
        self.state().last_error.take()
    }
}

/// What one look at a right found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    Granted,
    Refused,
    /// No answer that would tell; why.
    Unknown(String),
}

pub(super) fn check(consumer: &BaseConsumer<Context>, wanted: &Preflight<'_>) -> Result<(), StartError> {
    let settled = Instant::now() + SETTLING;
    let (mut missing, mut lacking) = (Vec::new(), Vec::new());
    let (mut sources, mut dead_letters) = (Vec::new(), Vec::new());
    let reads = wanted.sources.iter().map(|topic| (topic, true));
    let writes = wanted.dead_letters.iter().map(|topic| (topic, false));
    for (topic, is_source) in reads.chain(writes) {
        let grant = if is_source { Grant::Read } else { Grant::Write };
        match visibility(consumer, wanted.connection, topic, settled)? {
            Visibility::Seen if is_source => sources.push(topic.as_str()),
            Visibility::Seen => dead_letters.push(topic.as_str()),
            Visibility::Missing => missing.push(topic.clone()),
            Visibility::Refused => lacking.push(grant(topic.clone())),
        }
    }
    let hidden = !lacking.is_empty();
    if wanted.connection.api_key.is_some() {
        lacking.extend(rights(consumer, wanted, &sources, &dead_letters)?);
    }
    if !lacking.is_empty() {
        let mut mend = Grant::mend(&lacking);
        if hidden {
            // A broker does not tell the two apart, lest strangers learn which topics exist.
            mend.push_str(
                ". A topic that does not exist looks the same as one without a grant: check TOPIC_PREFIX too",
            );
        }
        let cause = "kafka refuses what this worker needs".to_owned();
        return Err(StartError::Refused { cause, mend });
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(StartError::MissingTopics { topics: missing })
    }
}

pub(super) enum Visibility {
    Seen,
    Missing,
    /// Not even DESCRIBE is granted.
    Refused,
}

pub(super) fn visibility<C: Tells>(
    consumer: &BaseConsumer<C>,
    connection: &Connection,
    name: &str,
    settled: Instant,
) -> Result<Visibility, StartError> {
    loop {
        let metadata = patiently(consumer, connection, || consumer.fetch_metadata(Some(name), LOOK))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        let found = topic.map(|topic| (topic.error().map(RDKafkaErrorCode::from), topic.partitions().len()));
        match found {
            Some((None, partitions)) if partitions > 0 => return Ok(Visibility::Seen),
            Some((Some(RDKafkaErrorCode::TopicAuthorizationFailed), _)) => return Ok(Visibility::Refused),
            _ if Instant::now() >= settled => return Ok(Visibility::Missing),
            // The client's own events are served meanwhile.
            _ => drop(consumer.poll(LOOK / 5)),
        }
    }
}

/// Asks again until the brokers answer, at most [`PATIENCE`]. A key that is not believed and a certificate that is not
/// trusted end it at once.
pub(super) fn patiently<C: Tells, T>(
    consumer: &BaseConsumer<C>,
    connection: &Connection,
    ask: impl Fn() -> KafkaResult<T>,
) -> Result<T, StartError> {
    let started = Instant::now();
    let mut all_told = Vec::new();
    loop {
        let error = match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        all_told.extend(told(consumer));
        if let Some(refused) = all_told.iter().find_map(|told| distrust(connection, told)) {
            return Err(refused);
        }
        if started.elapsed() >= PATIENCE {
            // The call itself only says that nobody answered, and "all brokers are down" is no reason either.
            let reason = all_told
                .into_iter()
                .rfind(|(code, _)| *code != Some(RDKafkaErrorCode::AllBrokersDown));
            return Err(StartError::Unreachable {
                servers: connection.bootstrap_servers.clone(),
                protocol: connection.security_protocol.clone(),
                cause: reason.map_or_else(|| error.to_string(), |(_, reason)| reason),
            });
        }
    }
}

/// Serves the client's events; each error among them leaves its reason with the context.
pub(super) fn told<C: Tells>(consumer: &BaseConsumer<C>) -> Vec<Told> {
    let mut told = Vec::new();
    // Without time to wait, a poll that meets a log line ends there.
    while consumer.poll(Duration::from_millis(5)).is_some() {
        told.extend(consumer.context().take_told());
    }
    told
}

/// Who does not believe whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Distrust {
    /// The brokers our key.
    Key(String),
    /// We their certificate.
    Certificate(String),
}

impl Distrust {
    pub(super) fn of((code, reason): &Told) -> Option<Self> {
        if code.is_some_and(|code| grants::is_authentication(code, reason)) {
            return Some(Self::Key(reason.clone()));
        }
        // Told with one of two codes, neither of which means this alone.
        let certificate = reason.contains("certificate verify failed");
        certificate.then(|| Self::Certificate(reason.clone()))
    }

    pub(super) fn mend(&self, connection: &Connection) -> String {
        match (self, &connection.ca_file) {
            (Self::Key(_), _) => grants::MEND_KEY.to_owned(),
            (Self::Certificate(_), None) => {
                "Set KAFKA_CA_FILE to a file (PEM) with the authority that signed it: while it is unset the system's \
                 authorities count, and it is of none of them"
                    .to_owned()
            }
            (Self::Certificate(_), Some(file)) => format!(
                "Check that KAFKA_CA_FILE ({file}) holds the authority that signed it, and that KAFKA_BOOTSTRAP_SERVERS \
                 names the brokers as their certificate does"
            ),
        }
    }
}

fn distrust(connection: &Connection, told: &Told) -> Option<StartError> {
    let distrust = Distrust::of(told)?;
    let mend = distrust.mend(connection);
    let cause = match distrust {
        Distrust::Key(reason) => format!("kafka does not accept KAFKA_API_KEY: {reason}"),
        Distrust::Certificate(reason) => format!("the brokers' certificate is not trusted: {reason}"),
    };
    Some(StartError::Refused { cause, mend })
}

/// What the account lacks, of all that the worker will do.
fn rights(
    consumer: &BaseConsumer<Context>,
    wanted: &Preflight<'_>,
    sources: &[&str],
    dead_letters: &[&str],
) -> Result<Vec<Grant>, StartError> {
    let mut found = Vec::new();
    if let Some(topic) = wanted.sources.first() {
        let group = wanted.group.to_owned();
        found.push((Grant::Join(group), may_see_group(consumer, topic)));
    }
    found.extend(may_read(wanted.connection, wanted.group, sources)?);
    let runtime = &consumer.context().runtime;
    found.extend(may_write(runtime, wanted.connection, dead_letters, PATIENCE)?);
    let mut lacking = Vec::new();
    for (grant, right) in found {
        match right {
            Right::Granted => {}
            Right::Refused => lacking.push(grant),
            Right::Unknown(cause) => tracing::warn!(%grant, cause, "not known whether this is granted; going on"),
        }
    }
    Ok(lacking)
}

/// Asks for a committed offset. That takes DESCRIBE on the group only; a group that may be seen and not joined shows
/// when we join (`Poller::failed`), for whatever READ alone allows would change the group.
fn may_see_group(consumer: &BaseConsumer<Context>, topic: &str) -> Right {
    let started = Instant::now();
    let refused = Some(RDKafkaErrorCode::GroupAuthorizationFailed);
    let mut partition = TopicPartitionList::new();
    partition.add_partition(topic, 0);
    loop {
        let error = match consumer.committed_offsets(partition.clone(), LOOK) {
            Ok(_offsets) => return Right::Granted,
            Err(error) => error,
        };
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
            // The topic is another question.
            return Right::Granted;
        }
        // Already the look-up of the coordinator is refused, and that is told as an event.
        if error.rdkafka_error_code() == refused || told(consumer).iter().any(|(code, _)| *code == refused) {
            return Right::Refused;
        }
        if started.elapsed() >= PATIENCE {
            return Right::Unknown(error.to_string());
        }
    }
}

/// Fetches at the end of each topic with a client of its own: metadata and offsets come with DESCRIBE alone.
fn may_read(connection: &Connection, group: &str, topics: &[&str]) -> Result<Vec<(Grant, Right)>, StartError> {
    let config = fetch_probe_config(connection, group);
    let consumer = BaseConsumer::from_config_and_context(&config, Logging).map_err(StartError::Client)?;
    let rights = topics.iter().map(|topic| {
        let right = fetch_end(&consumer, topic, PATIENCE).unwrap_or_else(|error| Right::Unknown(error.to_string()));
        (Grant::Read((*topic).to_owned()), right)
    });
    Ok(rights.collect())
}

/// Whether the end of a topic may be fetched, by a client for nothing else.
pub(super) fn fetch_end(consumer: &BaseConsumer<Logging>, topic: &str, patience: Duration) -> KafkaResult<Right> {
    let started = Instant::now();
    let mut end = TopicPartitionList::new();
    // Not `Offset::End`: the client would look for it only half a second later, when it knows the leader.
    let (_begin, last) = consumer.fetch_watermarks(topic, 0, patience)?;
    end.add_partition_offset(topic, 0, Offset::Offset(last))?;
    consumer.assign(&end)?;
    while started.elapsed() < patience {
        match consumer.poll(LOOK.min(patience.saturating_sub(started.elapsed()))) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(Right::Granted),
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return Ok(Right::Refused);
            }
            // The group is another question, and a broker that is away may come back.
            Some(Err(_)) | None => {}
        }
    }
    Ok(Right::Unknown("no answer to a fetch".to_owned()))
}

/// Sends a record that no broker keeps: with two acknowledgements, which Kafka has not taken since 0.9. A broker looks at
/// the grant first, then refuses the number, and appends nothing (`ReplicaManager.appendRecords`; Redpanda refuses the
/// number first, so there a missing grant shows with the first letter).
pub(super) fn may_write(
    runtime: &tokio::runtime::Handle,
    connection: &Connection,
    topics: &[&str],
    patience: Duration,
) -> Result<Vec<(Grant, Right)>, StartError> {
    let config = write_probe_config(connection, patience);
    let producer: FutureProducer<Logging> = config.create_with_context(Logging).map_err(StartError::Client)?;
    let probes = topics.iter().map(|topic| {
        let sent = producer.send_result(FutureRecord::<(), ()>::to(topic));
        async {
            match sent {
                Err((error, _record)) => Err(error),
                Ok(report) => match report.await {
                    Ok(Ok(_delivery)) => Ok(()),
                    Ok(Err((error, _record))) => Err(error),
                    Err(_canceled) => Err(KafkaError::Canceled),
                },
            }
        }
    });
    let answers = runtime.block_on(join_all(probes));
    let rights = topics.iter().zip(answers).map(|(topic, answer)| {
        let right = match answer {
            Ok(()) => Right::Unknown("the broker took a probe that it should have refused".to_owned()),
            Err(error) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::InvalidRequiredAcks) => Right::Granted,
                Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Right::Refused,
                _ => Right::Unknown(error.to_string()),
            },
        };
        (Grant::Write((*topic).to_owned()), right)
    });
    Ok(rights.collect())
}

fn mend_settings(error: &KafkaError) -> &'static str {
    if error.to_string().contains("ssl.ca.location") {
        ". Check KAFKA_CA_FILE: a file that this process may read, with certificates in PEM"
    } else {
        ""
    }
}
