//! The two templates, as they lie in `connectors/`: takes a platform, gives its template.

use super::config::Config;

/// Who runs the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    ConfluentCloud,
    KafkaConnect,
}

/// The placeholders of the database, which `CONNECTOR_DATABASE_URL` fills.
pub mod database {
    pub const HOSTNAME: &str = "DATABASE_HOSTNAME";
    pub const PORT: &str = "DATABASE_PORT";
    pub const NAME: &str = "DATABASE_NAME";
    pub const USER: &str = "DATABASE_USER";
    pub const PASSWORD: &str = "DATABASE_PASSWORD";
    pub const ALL: [&str; 5] = [HOSTNAME, PORT, NAME, USER, PASSWORD];
}

/// The placeholder of the account with which the managed connector writes to Kafka, and the variable that fills it.
pub const SERVICE_ACCOUNT: &str = "KAFKA_SERVICE_ACCOUNT_ID";

const CONFLUENT_CLOUD: &str = include_str!("../../connectors/confluent-cloud/crm-cdc-source.json");
const KAFKA_CONNECT: &str = include_str!("../../connectors/kafka-connect/crm-cdc-source.json");

impl Platform {
    pub const ALL: [Self; 2] = [Self::ConfluentCloud, Self::KafkaConnect];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConfluentCloud => "Confluent Cloud",
            Self::KafkaConnect => "Kafka Connect",
        }
    }

    /// The class of its Postgres connector, which is also the name of the plugin.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::ConfluentCloud => "PostgresCdcSourceV2",
            Self::KafkaConnect => "io.debezium.connector.postgresql.PostgresConnector",
        }
    }

    /// With its placeholders.
    #[must_use]
    pub fn template(self) -> Config {
        let text = match self {
            Self::ConfluentCloud => CONFLUENT_CLOUD,
            Self::KafkaConnect => KAFKA_CONNECT,
        };
        // Part of the binary; a test parses both.
        Config::parse(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Keys that only one of the two products has, names in its own way, or gives a value of its own that nobody can change.
    const OF_ONE: [&str; 14] = [
        "connector.class",
        "kafka.auth.mode",
        "kafka.service.account.id",
        "plugin.name",
        "provide.transaction.metadata",
        "after.state.only",
        "output.key.format",
        "output.data.format",
        "key.converter",
        "key.converter.schemas.enable",
        "value.converter",
        "header.converter.schemas.enable",
        "topic.creation.default.partitions",
        "topic.creation.default.replication.factor",
    ];

    #[test]
    fn both_templates_agree_on_every_key_that_is_not_of_one_product_alone() {
        let [cloud, connect] = Platform::ALL.map(|platform| {
            let template = platform.template();
            assert_eq!(template.platform(), Some(platform));
            let common = template.iter().filter(|(key, _)| !OF_ONE.contains(key));
            let common: BTreeMap<String, String> =
                common.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            common
        });
        assert_eq!(cloud, connect);
        assert!(cloud.len() >= 25, "{cloud:?}");
    }

    #[test]
    fn no_template_has_a_placeholder_that_nothing_fills_or_a_secret() {
        for platform in Platform::ALL {
            let template = platform.template();
            let known: BTreeSet<&str> = database::ALL.into_iter().chain([SERVICE_ACCOUNT]).collect();
            let unknown: Vec<_> = template.placeholders().difference(&known).copied().collect();
            assert!(unknown.is_empty(), "{unknown:?}");
            assert!(template.secrets().is_empty());
            assert_eq!(template.get("database.password"), Some("${DATABASE_PASSWORD}"));
        }
    }
}
