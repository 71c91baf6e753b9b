//! A part of a topic, read from one offset to another: outside of the group, nothing committed, nobody rebalanced.
//!
//! Takes what to read of which partitions, gives the records in their order and says when there are no more. It joins
//! nothing and writes nothing; a reader beside a running worker changes nothing for it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{self, Connection, bounded_config};
use super::consumer::headers_of;
use super::grants::Grant;
use super::lookup::{TIMEOUT, positions};
use super::preflight::{StartError, Tells, Told, Visibility, patiently, visibility};
use crate::record::{Header, Headers, RecordView, UNREADABLE_HEADERS};

/// Where to begin or to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// As far as the log goes now.
    Log,
    Offset(i64),
    /// At the first record of this time or later.
    TimeMs(i64),
}

/// Of one partition, from the first offset to before the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Span {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
}

/// Who asks on behalf of which group. The group is only named: the client wants a name, and a grant may ask for one.
#[derive(Debug, Clone)]
pub struct Asker {
    pub connection: Connection,
    pub group: String,
}

/// A client that reads what is given to it.
pub struct Reader {
    client: BaseConsumer<Hearing>,
    asker: Asker,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// One step of reading.
#[derive(Debug)]
pub enum Step<T> {
    Record(T),
    /// Nothing for now.
    Waiting,
    /// All of it was read.
    End,
}

/// A topic that is being read.
#[derive(Debug)]
pub struct Reading<'a> {
    reader: &'a Reader,
    topic: String,
    /// Where each partition ends that has not.
    open: BTreeMap<i32, i64>,
    /// For how long nothing came.
    waited: Duration,
}

/// Without a record or an end for so long, the brokers do not answer.
const PATIENCE: Duration = Duration::from_secs(60);

impl Reader {
    /// # Errors
    /// When the client cannot be made of these settings.
    pub fn new(asker: Asker) -> Result<Self, StartError> {
        let config = bounded_config(&asker.connection, &asker.group);
        let client = config.create_with_context(Hearing::default());
        Ok(Self {
            client: client.map_err(StartError::Client)?,
            asker,
        })
    }

    /// What lies between two edges, of every partition or of these. An edge that lies outside of the log is moved into it: it is
    /// for the caller to say so.
    ///
    /// # Errors
    /// No broker answers, the topic is missing, or the account may not see it.
    pub fn spans(&self, topic: &str, only: Option<i32>, from: Edge, to: Edge) -> Result<Vec<Span>, StartError> {
        let connection = &self.asker.connection;
        match visibility(&self.client, connection, topic, Instant::now())? {
            Visibility::Seen => {}
            Visibility::Missing => {
                let topics = vec![topic.to_owned()];
                return Err(StartError::MissingTopics { topics });
            }
            Visibility::Refused => return Err(refused(topic)),
        }
        let ask = || self.client.fetch_metadata(Some(topic), super::preflight::LOOK);
        let metadata = patiently(&self.client, connection, ask)?;
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            if only.is_none_or(|only| only == partition.id()) {
                list.add_partition(topic, partition.id());
            }
        }
        if list.count() == 0 {
            return Ok(Vec::new());
        }
        let at = |edge| positions(&self.client, &list, edge, TIMEOUT).map_err(StartError::LookUp);
        let (begins, ends) = (at(Offset::Beginning)?, at(Offset::End)?);
        let times = |edge| match edge {
            Edge::TimeMs(ms) => at(Offset::Offset(ms)).map(Some),
            Edge::Log | Edge::Offset(_) => Ok(None),
        };
        let (froms, tos) = (times(from)?, times(to)?);
        let mut spans = Vec::new();
        for element in list.elements() {
            let partition = element.partition();
            let raw = |found: &TopicPartitionList| {
                let offset = found.find_partition(topic, partition).map(|found| found.offset());
                offset.and_then(|offset| match offset {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                })
            };
            let begin = raw(&begins).unwrap_or(0);
            let end = raw(&ends).unwrap_or(begin);
            let edge = |edge, times: &Option<TopicPartitionList>, whole| match edge {
                Edge::Log => whole,
                Edge::Offset(offset) => offset,
                // Without a record of that time or later: behind the last.
                Edge::TimeMs(_) => times.as_ref().and_then(raw).unwrap_or(end),
            };
            let from = edge(from, &froms, begin).clamp(begin, end);
            let to = edge(to, &tos, end).clamp(from, end);
            spans.push(Span { partition, from, to });
        }
        spans.sort_by_key(|span| span.partition);
        Ok(spans)
    }

    /// Begins to read. A reader reads one topic at a time.
    ///
    /// # Errors
    /// When the client refuses the assignment.
    pub fn read(&self, topic: &str, spans: &[Span]) -> Result<Reading<'_>, StartError> {
        let mut list = TopicPartitionList::new();
        let mut open = BTreeMap::new();
        for span in spans.iter().filter(|span| span.from < span.to) {
            let added = list.add_partition_offset(topic, span.partition, Offset::Offset(span.from));
            added.map_err(StartError::LookUp)?;
            open.insert(span.partition, span.to);
        }
        self.client.assign(&list).map_err(StartError::LookUp)?;
        Ok(Reading {
            reader: self,
            topic: topic.to_owned(),
            open,
            waited: Duration::ZERO,
        })
    }
}

impl Reading<'_> {
    /// Waits at most so long for the next record, and calls `use_it` with it.
    ///
    /// # Errors
    /// When the account may not read the topic, when its key is not believed, or when the log lost what was to be read.
    pub fn next<T>(&mut self, wait: Duration, use_it: impl FnOnce(RecordView<'_>) -> T) -> Result<Step<T>, StartError> {
        let client = &self.reader.client;
        if self.open.is_empty() {
            return Ok(Step::End);
        }
        let polled = client.poll(wait);
        self.waited = match polled {
            None | Some(Err(_)) => self.waited + wait,
            Some(Ok(_)) => Duration::ZERO,
        };
        if self.waited > PATIENCE {
            let Connection {
                bootstrap_servers,
                security_protocol,
                ..
            } = &self.reader.asker.connection;
            return Err(StartError::Unreachable {
                servers: bootstrap_servers.clone(),
                protocol: security_protocol.clone(),
                cause: format!("nothing came of topic {} for a minute", self.topic),
            });
        }
        match polled {
            None => Ok(Step::Waiting),
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                let Some(to) = self.open.get(&partition).copied() else {
                    return Ok(Step::Waiting);
                };
                if offset + 1 >= to {
                    self.open.remove(&partition);
                }
                if offset >= to {
                    return Ok(Step::Waiting);
                }
                Ok(Step::Record(with_view(&message, use_it)))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                // What was left up to the end are markers of transactions, or what compaction took away.
                self.open.remove(&partition);
                Ok(Step::Waiting)
            }
            Some(Err(error)) => self.failed(error).map(|()| Step::Waiting),
        }
    }

    fn failed(&self, error: KafkaError) -> Result<(), StartError> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(refused(&self.topic)),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Err(StartError::LookUp(error))
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => Err(StartError::LookUp(error)),
            // Brokers away, a group that may not be seen: the client goes on by itself.
            _ => {
                tracing::debug!(%error, "kafka reader: going on");
                Ok(())
            }
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.reader.client.unassign() {
            tracing::debug!(%error, "kafka reader: not unassigned");
        }
    }
}

fn refused(topic: &str) -> StartError {
    StartError::Refused {
        cause: format!("kafka refuses to show topic {topic}"),
        mend: Grant::mend(&[Grant::Read(topic.to_owned())]),
    }
}

fn with_view<T>(message: &BorrowedMessage<'_>, use_it: impl FnOnce(RecordView<'_>) -> T) -> T {
    // The client library panics on a header name that is not UTF-8.
    let headers = catch_unwind(AssertUnwindSafe(|| headers_of(message))).unwrap_or_else(|_panic| {
        vec![Header {
            name: UNREADABLE_HEADERS,
            value: None,
        }]
    });
    use_it(RecordView {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
        headers: Headers(&headers),
    })
}

/// Keeps what the client told last: why there is no answer.
#[derive(Debug, Default)]
pub(super) struct Hearing(Mutex<Option<Told>>);

impl Tells for Hearing {
    fn take_told(&self) -> Option<Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Hearing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            let told = (error.rdkafka_error_code(), reason.to_owned());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        }
    }
}

impl ConsumerContext for Hearing {}
