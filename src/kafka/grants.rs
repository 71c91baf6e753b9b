//! What the account behind the API key must be granted, in words that an operator can paste. Pure.

use std::fmt;

use rdkafka::error::RDKafkaErrorCode;

/// A grant that the account lacks. READ and WRITE bring DESCRIBE with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// READ on a topic.
    Read(String),
    /// WRITE on a topic.
    Write(String),
    /// READ on the consumer group.
    Join(String),
    /// `DESCRIBE_CONFIGS` on a topic: `check` alone asks for settings of topics.
    Describe(String),
    /// What an idempotent producer needs where WRITE on its topic does not bring it: brokers before Kafka 3.0.
    WriteIdempotently,
}

impl Grant {
    /// What an operator has to do.
    #[must_use]
    pub fn mend(lacking: &[Self]) -> String {
        let names: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        let commands: Vec<String> = lacking.iter().map(|grant| format!("`{}`", grant.command())).collect();
        let (names, commands) = (names.join(", "), commands.join(", "));
        format!("Grant {names} to the account of KAFKA_API_KEY, on Confluent Cloud with {commands}")
    }

    /// The command line that grants it on Confluent Cloud. <https://docs.confluent.io/confluent-cli>
    #[must_use]
    pub fn command(&self) -> String {
        let rest = match self {
            Self::Read(topic) => format!("--operations read --topic {topic}"),
            Self::Write(topic) => format!("--operations write --topic {topic}"),
            Self::Describe(topic) => format!("--operations describe-configs --topic {topic}"),
            Self::Join(group) => format!("--operations read --consumer-group {group}"),
            Self::WriteIdempotently => "--operations idempotent-write --cluster-scope".to_owned(),
        };
        format!("confluent kafka acl create --allow --service-account <account> {rest}")
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(topic) => write!(f, "READ on topic {topic}"),
            Self::Write(topic) => write!(f, "WRITE on topic {topic}"),
            Self::Describe(topic) => write!(f, "DESCRIBE_CONFIGS on topic {topic}"),
            Self::Join(group) => write!(f, "READ on consumer group {group}"),
            Self::WriteIdempotently => f.write_str("IDEMPOTENT_WRITE on the cluster"),
        }
    }
}

/// Whether the broker refuses an account that it knows.
pub(super) fn is_authorization(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

/// Whether the broker does not believe that we are who we say. A connection that breaks during the handshake is told with
/// the same code (librdkafka 2.12, `rd_kafka_broker_handle_SaslHandshake`), with a cause of the client's own behind it: that
/// passes.
pub(super) fn is_authentication(code: RDKafkaErrorCode, reason: &str) -> bool {
    match code {
        RDKafkaErrorCode::SaslAuthenticationFailed => true,
        RDKafkaErrorCode::Authentication => !reason.contains("handshake failed: Local:"),
        _ => false,
    }
}

/// What to do about a key that is not believed.
pub(super) const MEND_KEY: &str =
    "Check KAFKA_API_KEY and KAFKA_API_SECRET: both of one key, of this cluster, not deleted";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_during_the_handshake_is_no_refusal() {
        let code = RDKafkaErrorCode::Authentication;
        let broken =
            "SASL PLAIN mechanism handshake failed: Local: Broker transport failure: broker's supported mechanisms: ";
        assert!(!is_authentication(code, broken));
        assert!(is_authentication(
            code,
            "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism"
        ));
        assert!(is_authentication(
            code,
            "SASL authentication error: Authentication failed"
        ));
        assert!(is_authentication(RDKafkaErrorCode::SaslAuthenticationFailed, broken));
        assert!(!is_authentication(
            RDKafkaErrorCode::BrokerTransportFailure,
            "Local: Broker transport failure"
        ));
    }
}
