//! The settings of `check`: those of `run`, each part for itself, so that what is wrong with one part keeps nobody from
//! looking at the others.

use super::{Flags, Inngest, Problems, Reader, Settings, given, topic_prefix};
use crate::consumers::Consumer;
use crate::dedupe::RedisUrl;
use crate::kafka::{Connection, Group};
use crate::pipeline::OldRecords;
use crate::postgres::DatabaseUrl;

/// What can be looked at.
#[derive(Debug, Clone)]
pub struct Checking {
    /// Everything that is wrong with the settings.
    pub problems: Vec<String>,
    pub kafka: Option<Connection>,
    pub group: Group,
    /// The topics that are read, and the prefix of the others.
    pub topics: Vec<String>,
    pub topic_prefix: String,
    pub session_s: u64,
    pub database: Option<DatabaseUrl>,
    pub effective_from: Option<jiff::Timestamp>,
    pub program_file: Option<String>,
    pub old_records: OldRecords,
    /// A shadow has neither of these two.
    pub is_shadow: bool,
    pub redis_url: Option<RedisUrl>,
    pub window_s: u64,
    pub inngest: Option<Inngest>,
    pub is_dev: bool,
}

impl Checking {
    #[must_use]
    pub fn from_flags(flags: &Flags) -> Self {
        let problems = match Settings::from_flags(flags) {
            Ok(_) => Vec::new(),
            Err(Problems(problems)) => problems,
        };
        let consumers: Vec<Consumer> = sound(|reader| {
            let lanes = reader.consumers(flags);
            Some(lanes.into_iter().map(|(consumer, _lanes)| consumer).collect())
        })
        .unwrap_or_else(|| Consumer::ALL.into());
        let main = given(flags.consumer_group_id.as_deref()).unwrap_or("crm-event-processors");
        let prefix = topic_prefix(flags);
        let number = |text: &Option<String>, usual: u64| {
            given(text.as_deref())
                .and_then(|text| text.parse().ok())
                .unwrap_or(usual)
        };
        Self {
            problems,
            kafka: sound(|reader| reader.kafka(flags)),
            group: Group {
                main: format!("{main}{}", if flags.shadow { "-shadow" } else { "" }),
                is_subset: consumers.len() < Consumer::ALL.len(),
                consumers: consumers.iter().copied().collect(),
            },
            topics: super::topics(&prefix, &consumers),
            topic_prefix: prefix,
            session_s: number(&flags.kafka_session_timeout_ms, 45_000) / 1000,
            database: sound(|reader| reader.ledger(flags).database),
            effective_from: sound(|reader| reader.effective_from(flags)),
            program_file: given(flags.program_file.as_deref()).map(ToOwned::to_owned),
            old_records: sound(|reader| Some(reader.ledger(flags).old_records)).unwrap_or_default(),
            is_shadow: flags.shadow,
            redis_url: sound(|reader| reader.redis_url(flags)),
            window_s: number(&flags.dedup_window_secs, 300),
            inngest: sound(|reader| reader.inngest(flags)),
            is_dev: given(flags.inngest_dev.as_deref()).is_some_and(|dev| !matches!(dev, "0" | "false")),
        }
    }
}

/// A part of the settings with which nothing is wrong.
fn sound<T>(read: impl FnOnce(&mut Reader) -> Option<T>) -> Option<T> {
    let mut reader = Reader { problems: Vec::new() };
    let part = read(&mut reader);
    part.filter(|_| reader.problems.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_one_part_keeps_nobody_from_looking_at_the_others() {
        let some = |text: &str| Some(text.to_owned());
        let flags = Flags {
            kafka_bootstrap_servers: some("localhost:9092"),
            kafka_api_key: some("sentinel"),
            database_url: some("postgres://crm:sentinel@db.example/crm"),
            redis_url: some("http://:sentinel@nowhere"),
            inngest_dev: some("1"),
            consumers: some("tier"),
            tier_concurrency: some("many"),
            ..Flags::default()
        };
        let checking = Checking::from_flags(&flags);
        assert_eq!(checking.problems.len(), 3, "{:?}", checking.problems);
        assert!(checking.kafka.is_none(), "a key without its secret");
        assert!(checking.database.is_some() && checking.inngest.is_some() && checking.is_dev);
        assert!(checking.redis_url.is_none());
        assert!(!format!("{checking:?}").contains("sentinel"));
        let flags = Flags {
            tier_concurrency: None,
            shadow: true,
            ..flags
        };
        let checking = Checking::from_flags(&flags);
        assert_eq!(checking.group.name(), "crm-event-processors-shadow-tier");
        assert_eq!(
            checking.topics,
            ["crm.public.purchase_ledger", "crm.public.wallet_ledger"]
        );
    }
}
