//! The dead-letter topics in Kafka.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::filed::Mark;
use super::{DeadLetters, Letter, Queue, WriteError, provenance};
use crate::clock::SharedClock;
use crate::kafka::{Connection, Grant, Logging, producer_config};

/// Writes to `<prefix>.dlq.<consumer>` with an idempotent producer, which the first letter makes: most workers write none, and it
/// would keep a connection to every broker, and a thread that turns for a hundredth of its time. It may die of an error
/// for good; the next letter gets a new one then, or none would be written until the process is restarted. A missing
/// grant ends the process.
pub struct KafkaDeadLetters {
    producer: Mutex<Option<FutureProducer<Logging>>>,
    connection: Connection,
    prefix: String,
    clock: SharedClock,
}

impl std::fmt::Debug for KafkaDeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaDeadLetters")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl KafkaDeadLetters {
    #[must_use]
    pub fn new(connection: &Connection, prefix: &str, clock: SharedClock) -> Self {
        Self {
            producer: Mutex::default(),
            connection: connection.clone(),
            prefix: prefix.to_owned(),
            clock,
        }
    }

    /// Writes down what became of a letter, beside it, and waits for the delivery report.
    ///
    /// # Errors
    /// When it is not known to be written. To write it again does no harm.
    pub async fn mark(&self, queue: Queue, partition: i32, mark: &Mark) -> Result<(), WriteError> {
        let topic = queue.topic(&self.prefix);
        let mut headers = OwnedHeaders::new();
        for (name, value) in &mark.headers() {
            headers = headers.insert(Header {
                key: name,
                value: Some(value),
            });
        }
        let record = FutureRecord::<(), ()>::to(&topic).partition(partition).headers(headers);
        let sent = self
            .producer()
            .and_then(|producer| producer.send_result(record).map_err(|(error, _record)| error));
        let reported = match sent {
            Ok(report) => match report.await {
                Ok(delivered) => delivered.map(drop).map_err(|(error, _message)| error),
                // The producer is gone.
                Err(_canceled) => Err(KafkaError::Canceled),
            },
            Err(error) => Err(error),
        };
        reported.map_err(|error| self.write_error(topic, 0, &error))
    }

    /// The present one, or a new one.
    fn producer(&self) -> Result<FutureProducer<Logging>, KafkaError> {
        let mut producer = self.lock();
        if let Some(producer) = &*producer {
            return Ok(producer.clone());
        }
        let new: FutureProducer<Logging> = producer_config(&self.connection).create_with_context(Logging)?;
        Ok(producer.insert(new).clone())
    }

    /// Drops a producer that is dead for good, and gives what it died of.
    fn drop_if_dead(&self) -> Option<RDKafkaErrorCode> {
        let mut producer = self.lock();
        let (code, reason) = producer.as_ref()?.client().fatal_error()?;
        tracing::warn!(%code, reason, "dead-letter producer dropped after a fatal error: the next letter gets a new one");
        *producer = None;
        Some(code)
    }

    fn lock(&self) -> MutexGuard<'_, Option<FutureProducer<Logging>>> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_error(&self, topic: String, bytes: usize, error: &KafkaError) -> WriteError {
        let (code, died_of) = (error.rdkafka_error_code(), self.drop_if_dead());
        let is = |wanted| [code, died_of].contains(&Some(wanted));
        let grant = if is(RDKafkaErrorCode::TopicAuthorizationFailed) {
            Grant::Write(topic.clone())
        } else if is(RDKafkaErrorCode::ClusterAuthorizationFailed) {
            Grant::WriteIdempotently
        } else if code == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            return WriteError::TooLarge { topic, bytes };
        } else {
            let cause = error.to_string();
            return WriteError::Unavailable { topic, cause };
        };
        let (cause, mend) = (error.to_string(), Grant::mend(&[grant]));
        WriteError::Refused { topic, cause, mend }
    }

    async fn send(&self, letter: &Letter<'_>, topic: &str) -> Result<(), KafkaError> {
        let producer = self.producer()?;
        let ours = provenance(letter, self.clock.now_ms());
        let sending = letter.record.with(|record| {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.0.len() + ours.len());
            for header in record.headers.0 {
                headers = headers.insert(Header {
                    key: header.name,
                    value: header.value,
                });
            }
            for (name, value) in &ours {
                headers = headers.insert(Header {
                    key: name,
                    value: Some(value),
                });
            }
            let message = FutureRecord {
                key: record.key,
                payload: record.value,
                ..FutureRecord::to(topic)
            };
            producer
                .send_result(message.headers(headers))
                .map_err(|(error, _message)| error)
        });
        match sending?.await {
            Ok(Ok(_delivery)) => Ok(()),
            Ok(Err((error, _message))) => Err(error),
            // The producer is gone.
            Err(_canceled) => Err(KafkaError::Canceled),
        }
    }
}

impl DeadLetters for KafkaDeadLetters {
    fn write<'a>(&'a self, letter: &'a Letter<'a>) -> BoxFuture<'a, Result<(), WriteError>> {
        async move {
            let topic = letter.queue.topic(&self.prefix);
            match self.send(letter, &topic).await {
                Ok(()) => Ok(()),
                Err(error) => Err(self.write_error(topic, letter.record.bytes(), &error)),
            }
        }
        .boxed()
    }
}
