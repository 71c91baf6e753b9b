//! Every setting of every Kafka client, in one place.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::Secret;

/// A member that has not polled for so long loses its partitions.
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);

/// How to reach the brokers.
#[derive(Debug, Clone)]
pub struct Connection {
    pub bootstrap_servers: String,
    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub security_protocol: String,
    pub api_key: Option<Secret>,
    pub api_secret: Option<Secret>,
    /// A CA bundle of one's own; unset, the system's.
    pub ca_file: Option<String>,
}

impl Connection {
    /// What every client shares.
    #[must_use]
    pub(super) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("security.protocol", &self.security_protocol)
            .set("client.id", concat!("crm-event-processors/", env!("CARGO_PKG_VERSION")))
            // Load balancers drop idle connections.
            .set("socket.keepalive.enable", "true")
            .set_log_level(RDKafkaLogLevel::Info);
        if let (Some(key), Some(secret)) = (&self.api_key, &self.api_secret) {
            config
                .set("sasl.mechanisms", "PLAIN")
                .set("sasl.username", key.expose())
                .set("sasl.password", secret.expose());
        }
        if let Some(file) = &self.ca_file {
            config.set("ssl.ca.location", file);
        }
        config
    }
}

/// The consumer: explicit commits only, cooperative rebalances, an error instead of a silent jump.
#[must_use]
pub fn consumer_config(connection: &Connection, group: &str, session_timeout_ms: u32) -> ClientConfig {
    let mut config = connection.config();
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session_timeout_ms.to_string())
        .set("heartbeat.interval.ms", (session_timeout_ms / 15).to_string())
        .set("max.poll.interval.ms", MAX_POLL_INTERVAL.as_millis().to_string())
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "false")
        .set("statistics.interval.ms", "5000")
        // The prefetch is bounded, and the default back-off of a full prefetch (1 s) would rule the throughput.
        .set("queued.max.messages.kbytes", "2048")
        .set("queued.min.messages", "10000")
        .set("fetch.queue.backoff.ms", "5")
        // One answer may be as large as all partitions together, on top of the prefetch; the default is 50 MiB.
        .set("fetch.max.bytes", "1048576")
        .set("fetch.wait.max.ms", "100");
    config
}

/// The dead-letter producer: idempotent, all replicas, and without a limit of its own: how large a letter may be is for
/// the dead-letter topic's `max.message.bytes` to say, which an operator can raise.
#[must_use]
pub fn producer_config(connection: &Connection) -> ClientConfig {
    let mut config = connection.config();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("compression.type", "zstd")
        .set("message.max.bytes", "1000000000")
        .set("delivery.timeout.ms", "30000");
    config
}

/// For a look at whether topics may be read: told at once that there is nothing to read, and never a member of the group.
#[must_use]
pub(super) fn fetch_probe_config(connection: &Connection, group: &str) -> ClientConfig {
    let mut config = connection.config();
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10");
    config
}

/// For a part of a topic that is read once, by a client that joins no group: told where a log ends, and never taken for one
/// that hangs while what it read is being worked on.
#[must_use]
pub(super) fn bounded_config(connection: &Connection, group: &str) -> ClientConfig {
    let mut config = connection.config();
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("max.poll.interval.ms", "86400000")
        .set("queued.max.messages.kbytes", "4096")
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.max.bytes", "4194304")
        .set("fetch.wait.max.ms", "100");
    config
}

/// For a look at whether topics may be written: asks for a number of acknowledgements that no broker takes.
#[must_use]
pub(super) fn write_probe_config(connection: &Connection, patience: Duration) -> ClientConfig {
    let mut config = connection.config();
    config
        .set("acks", "2")
        .set("message.timeout.ms", patience.as_millis().max(1).to_string());
    config
}

/// Sends librdkafka's log lines to ours. They name brokers and errors, never payloads or secrets.
#[derive(Debug, Default, Clone, Copy)]
pub struct Logging;

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Told like an error, and none: the preflight waits for it.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(%error, reason, "kafka client");
        }
    }
}

pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_and_names_of_brokers_are_checked_and_no_setting_changes_that() {
        for protocol in ["SSL", "SASL_SSL"] {
            let connection = Connection {
                bootstrap_servers: "broker.example:9092".to_owned(),
                security_protocol: protocol.to_owned(),
                api_key: Some(Secret::new("key")),
                api_secret: Some(Secret::new("secret")),
                ca_file: None,
            };
            for config in [
                consumer_config(&connection, "group", 45_000),
                producer_config(&connection),
                fetch_probe_config(&connection, "group"),
                bounded_config(&connection, "group"),
                write_probe_config(&connection, Duration::from_secs(1)),
            ] {
                let all = config.create_native_config().expect("settings that the client knows");
                let is = |name: &str| all.get(name).expect(name);
                assert_eq!(is("security.protocol"), protocol.to_lowercase());
                assert_eq!(is("enable.ssl.certificate.verification"), "true");
                assert_eq!(is("ssl.endpoint.identification.algorithm"), "https");
            }
        }
    }
}
