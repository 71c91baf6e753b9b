//! What is set there against what should be: takes two configurations, gives the keys that differ.
//!
//! A secret that the platform masks cannot be compared, and what the platform adds by itself is nobody's difference; both are
//! named, so that nobody takes silence for a comparison.

use std::collections::BTreeSet;

use super::config::{Config, is_mask, shown};
use super::rules;
use super::template::Platform;

#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Diff {
    pub differences: Vec<Difference>,
    /// Masked there: whether these are the same, only the platform knows.
    pub masked: Vec<String>,
    /// The platform's own.
    pub added: Vec<String>,
}

/// Secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    pub key: String,
    pub live: Option<String>,
    pub wanted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
}

/// What Confluent Cloud puts into every configuration that is read.
const ADDED: [&str; 9] = [
    "cloud.environment",
    "cloud.provider",
    "connector.crn",
    "kafka.dedicated",
    "kafka.endpoint",
    "kafka.max.partition.validation.disable",
    "kafka.region",
    "schema.registry.url",
    "valid.kafka.api.key",
];
const ADDED_PREFIX: &str = "config.internal.";

impl Diff {
    #[must_use]
    pub fn between(live: &Config, wanted: &Config, platform: Platform) -> Self {
        let mut diff = Self::default();
        let keys: BTreeSet<&str> = live.iter().chain(wanted.iter()).map(|(key, _)| key).collect();
        for key in keys {
            let (is, shall) = (live.get(key), wanted.get(key));
            if is == shall {
                continue;
            }
            if shall.is_none() && is_added(key, platform) {
                diff.added.push(key.to_owned());
            } else if shall.is_some() && is.is_some_and(is_mask) {
                diff.masked.push(key.to_owned());
            } else {
                diff.differences.push(Difference {
                    key: key.to_owned(),
                    live: is.map(|value| shown(key, value).to_owned()),
                    wanted: shall.map(|value| shown(key, value).to_owned()),
                    why: rules::why(key, platform),
                });
            }
        }
        diff
    }

    #[must_use]
    pub fn is_same(&self) -> bool {
        self.differences.is_empty()
    }
}

fn is_added(key: &str, platform: Platform) -> bool {
    platform == Platform::ConfluentCloud && (ADDED.contains(&key) || key.starts_with(ADDED_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text).expect("a configuration")
    }

    #[test]
    fn what_differs_is_told_with_its_reason_and_what_cannot_be_compared_is_named() {
        let live = config(
            r#"{"name": "c", "snapshot.mode": "never", "database.password": "****************", "kafka.endpoint": "x",
                "config.internal.y": "1", "transforms": "unwrap"}"#,
        );
        let wanted = config(
            r#"{"name": "c", "snapshot.mode": "when_needed", "database.password": "sentinel-1", "slot.name": "crm_cdc_slot"}"#,
        );
        let diff = Diff::between(&live, &wanted, Platform::ConfluentCloud);
        let told: Vec<_> = diff
            .differences
            .iter()
            .map(|one| {
                (
                    one.key.as_str(),
                    one.live.as_deref(),
                    one.wanted.as_deref(),
                    one.why.is_some(),
                )
            })
            .collect();
        let expected = [
            ("slot.name", None, Some("crm_cdc_slot"), true),
            ("snapshot.mode", Some("never"), Some("when_needed"), true),
            ("transforms", Some("unwrap"), None, true),
        ];
        assert_eq!(told, expected);
        assert_eq!(diff.masked, ["database.password"]);
        assert_eq!(diff.added, ["config.internal.y", "kafka.endpoint"]);
        // Kafka Connect adds nothing: somebody did.
        let diff = Diff::between(&live, &wanted, Platform::KafkaConnect);
        assert_eq!((diff.differences.len(), diff.added.len()), (5, 0));
    }

    #[test]
    fn a_secret_that_can_be_compared_is_and_is_not_shown() {
        let live = config(r#"{"database.password": "sentinel-1"}"#);
        let wanted = config(r#"{"database.password": "sentinel-2"}"#);
        assert!(Diff::between(&live, &live, Platform::KafkaConnect).is_same());
        let diff = Diff::between(&live, &wanted, Platform::KafkaConnect);
        assert_eq!(diff.differences.len(), 1);
        assert!(!format!("{diff:?}").contains("sentinel"));
    }
}
