//! Dead letters: records that cannot be processed, kept whole, with the reason.
//!
//! Takes a [`Letter`], gives back only when the dead-letter topic has confirmed it. Key, value and headers go untouched;
//! what we know about the failure is added as headers. [`filed`] reads back what lies there, and what became of it. It never
//! decides that a record is dead.

pub mod filed;
#[cfg(test)]
mod filed_tests;
#[cfg(feature = "io")]
mod kafka;
#[cfg(feature = "io")]
mod memory;

use crate::consumers::Consumer;
use crate::record::Record;

#[cfg(feature = "io")]
pub use {
    kafka::KafkaDeadLetters,
    memory::{MemoryDeadLetters, StoredLetter},
};

/// Which dead-letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// Failures before the fan-out: `<prefix>.dlq.decode`.
    Decode,
    /// Failures of one consumer: `<prefix>.dlq.<consumer>`.
    Consumer(Consumer),
}

/// One record that failed, and why.
#[derive(Debug, Clone)]
pub struct Letter<'a> {
    pub queue: Queue,
    pub record: &'a Record,
    /// Machine-readable, stable.
    pub reason: &'static str,
    /// For people. Holds no row values.
    pub detail: &'a str,
    /// Whether the reason is a policy of ours rather than a fault: such letters never count towards a halt.
    pub policy: bool,
}

/// The topic could not be written. The record is held.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It is written again, without limit.
    #[error("dead-letter topic {topic} not writable: {cause}")]
    Unavailable { topic: String, cause: String },
    /// Waiting does not help; an operator who raises the limit does. To write less than the whole record would lose it
    /// when its own topic forgets it.
    #[error(
        "the letter of {bytes} bytes is larger than dead-letter topic {topic} takes: raise its max.message.bytes, and the \
         brokers' message.max.bytes if that is lower"
    )]
    TooLarge { topic: String, bytes: usize },
    /// Nothing will be written until an operator has acted: the process ends and says so.
    #[error("dead-letter topic {topic} not writable: {cause}. {mend}")]
    Refused { topic: String, cause: String, mend: String },
}

/// Where dead letters go.
#[cfg(feature = "io")]
pub trait DeadLetters: Send + Sync {
    /// Writes one letter and waits for its delivery report.
    fn write<'a>(&'a self, letter: &'a Letter<'a>) -> futures::future::BoxFuture<'a, Result<(), WriteError>>;
}

impl Queue {
    pub const ALL: [Self; 6] = [
        Self::Decode,
        Self::Consumer(Consumer::Currency),
        Self::Consumer(Consumer::Tier),
        Self::Consumer(Consumer::Mission),
        Self::Consumer(Consumer::Reward),
        Self::Consumer(Consumer::Marketplace),
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Consumer(consumer) => consumer.name(),
        }
    }

    #[must_use]
    pub fn topic(self, prefix: &str) -> String {
        format!("{prefix}.dlq.{}", self.name())
    }
}

/// The provenance headers, in the order in which they are written behind the record's own.
#[must_use]
pub fn provenance(letter: &Letter<'_>, written_at_ms: i64) -> Vec<(&'static str, String)> {
    let (topic, partition, offset, timestamp) = letter.record.with(|record| {
        let timestamp = record.timestamp_ms.map_or_else(String::new, |ms| ms.to_string());
        (
            record.topic.to_owned(),
            record.partition.to_string(),
            record.offset.to_string(),
            timestamp,
        )
    });
    vec![
        ("crm.dlq.consumer", letter.queue.name().to_owned()),
        ("crm.dlq.reason", letter.reason.to_owned()),
        ("crm.dlq.detail", letter.detail.to_owned()),
        ("crm.dlq.policy", letter.policy.to_string()),
        ("crm.dlq.topic", topic),
        ("crm.dlq.partition", partition),
        ("crm.dlq.offset", offset),
        ("crm.dlq.timestamp_ms", timestamp),
        ("crm.dlq.written_at_ms", written_at_ms.to_string()),
        ("crm.dlq.version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
}
