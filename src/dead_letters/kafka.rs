//! The dead-letter topics in Kafka.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::{DeadLetters, Letter, WriteError, provenance};
use crate::clock::SharedClock;
use crate::kafka::{Connection, producer_config};

/// Writes to `<prefix>.dlq.<consumer>` with an idempotent producer.
pub struct KafkaDeadLetters {
    producer: FutureProducer<crate::kafka::Logging>,
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
    /// # Errors
    /// When the client cannot be made from these settings.
    pub fn new(connection: &Connection, prefix: &str, clock: SharedClock) -> Result<Self, KafkaError> {
        let producer = producer_config(connection).create_with_context(crate::kafka::Logging)?;
        Ok(Self {
            producer,
            prefix: prefix.to_owned(),
            clock,
        })
    }

    async fn send(&self, letter: &Letter, topic: &str) -> Result<(), String> {
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
            self.producer
                .send_result(message.headers(headers))
                .map_err(|(error, _message)| error.to_string())
        });
        let delivered = sending.ok_or("the record is not in its batch")??.await;
        match delivered {
            Ok(Ok(_delivery)) => Ok(()),
            Ok(Err((error, _message))) => Err(error.to_string()),
            Err(_canceled) => Err("the producer is gone".to_owned()),
        }
    }
}

impl DeadLetters for KafkaDeadLetters {
    fn write<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), WriteError>> {
        async move {
            let topic = letter.queue.topic(&self.prefix);
            match self.send(letter, &topic).await {
                Ok(()) => Ok(()),
                Err(cause) => Err(WriteError { topic, cause }),
            }
        }
        .boxed()
    }
}
