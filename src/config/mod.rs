//! Typed settings from environment and flags. All problems are reported at once; secrets never show.
//!
//! This is the only place that gives a setting its meaning and its default.

mod address;
mod checking;
mod connecting;
mod database;
mod deciding;
mod flags;
mod letters;
mod looking;
mod push;
mod reconciling;
mod secret;
mod serving;
mod way;

use std::net::SocketAddr;
use std::num::NonZeroU32;

use jiff::Timestamp;

use crate::consumers::Consumer;
use crate::debezium::DecimalMode;
use crate::kafka::{Connection, Group, StartAt};
use crate::postgres::DatabaseUrl;
use crate::progress::{ConsumerSet, Orders};
use crate::rows::Table;
use crate::telemetry::reach::Reach;
use crate::telemetry::{Push, TracePush, logging};

pub use crate::pipeline::OldRecords;
pub use checking::Checking;
pub use connecting::{ConnectFlags, Connecting, PlatformFlags, connector_variables, missing_for};
pub use deciding::Deciding;
pub use flags::{Flags, variables};
pub use letters::Letters;
pub use looking::{Looking, RunFlags, SLOWEST_LOOK, SourceFlags, Watched};
pub use reconciling::{Out, Reconciling};
pub use secret::Secret;
pub use way::{ShadowOut, Way};

/// The settings of `run`.
#[derive(Debug, Clone)]
pub struct Settings {
    pub kafka: Connection,
    pub session_timeout_ms: u32,
    pub topic_prefix: String,
    pub group: Group,
    /// What the operator said about gaps and about consumers that are gone.
    pub orders: Orders,
    /// Where a subset starts that the main group knows nothing of.
    pub start_at: Option<StartAt>,
    pub accept_dead_letters: bool,
    /// The consumers that run, each with its lanes.
    pub consumers: Vec<(Consumer, usize)>,
    pub decimals: DecimalMode,
    /// Unset only with a database, which has the programs. Given beside one, the file's programs are used.
    pub program_file: Option<String>,
    /// Rows created before this are none of our business. Unset only with a database, which keeps it.
    pub effective_from: Option<Timestamp>,
    pub database: Option<DatabaseUrl>,
    pub old_records: OldRecords,
    pub way: Way,
    pub http: Option<SocketAddr>,
    /// Unset, no console is served.
    pub console: Option<Reach>,
    /// Unset, metrics are only scraped.
    pub push: Option<Push>,
    /// Unset, nothing is traced.
    pub traces: Option<TracePush>,
    pub log_format: logging::Format,
    pub log_filter: String,
}

/// How to reach Inngest's event API.
#[derive(Debug, Clone)]
pub struct Inngest {
    pub base_url: String,
    pub event_key: Secret,
    pub environment: Option<String>,
    /// `None`: as fast as possible.
    pub requests_per_second: Option<NonZeroU32>,
}

/// Everything that is wrong with the settings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} with the settings:\n{}", if self.0.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", self.0.len()) },
        self.0.iter().map(|problem| format!("  - {problem}")).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<String>);

impl Settings {
    /// # Errors
    /// Every problem at once.
    pub fn from_flags(flags: &Flags) -> Result<Self, Problems> {
        let mut reader = Reader { problems: Vec::new() };
        let settings = reader.settings(flags);
        match settings {
            Some(settings) if reader.problems.is_empty() => Ok(settings),
            _ => Err(Problems(reader.problems)),
        }
    }

    /// The topics that are read, in the order of the tables.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        let consumers: Vec<Consumer> = self.consumers.iter().map(|(consumer, _lanes)| *consumer).collect();
        topics(&self.topic_prefix, &consumers)
    }
}

fn topics(prefix: &str, consumers: &[Consumer]) -> Vec<String> {
    let wanted = |table: &&Table| consumers.iter().any(|consumer| consumer.reads(**table));
    Table::ALL
        .iter()
        .filter(wanted)
        .map(|table| topic(prefix, *table))
        .collect()
}

/// The topic of a table.
#[must_use]
pub fn topic(prefix: &str, table: Table) -> String {
    format!("{prefix}.public.{}", table.name())
}

struct Reader {
    problems: Vec<String>,
}

impl Reader {
    fn settings(&mut self, flags: &Flags) -> Option<Settings> {
        // Everything is read before anything is missed, so that all problems come at once.
        let kafka = self.kafka(flags);
        let way = self.way(flags);
        let consumers = self.consumers(flags);
        let session = self.number(
            flags.kafka_session_timeout_ms.as_deref(),
            "KAFKA_SESSION_TIMEOUT_MS",
            6000..=300_000,
        );
        let decimals = self.decimals(given(flags.decimal_mode.as_deref()));
        let ledger = self.ledger(flags);
        let main = given(flags.consumer_group_id.as_deref()).unwrap_or("crm-event-processors");
        let group = Group {
            // A shadow leaves the progress of those who work alone.
            main: format!("{main}{}", if flags.shadow { "-shadow" } else { "" }),
            is_subset: consumers.len() < Consumer::ALL.len(),
            consumers: consumers.iter().map(|(consumer, _)| *consumer).collect(),
        };
        let is_subset = group.is_subset;
        let orders = self.orders(flags, group.consumers);
        let start_at = self.parsed(
            flags.start_at.as_deref(),
            "--start-at",
            "begin, end, or a time like 2026-11-20T00:00:00Z",
        );
        self.demand(
            start_at.is_none() || group.is_subset || flags.shadow,
            "--start-at is for a subset of the consumers (CONSUMERS) and for --shadow: the main group starts at what is committed, else at the \
             log's begin",
        );
        let http = self.http(flags);
        let console = self.console(flags, http);
        let outward = self.outward(flags, &group.name());
        let log_format = match given(flags.log_format.as_deref()) {
            None | Some("json") => logging::Format::Json,
            Some("text") => logging::Format::Text,
            Some(other) => {
                self.problems
                    .push(format!("LOG_FORMAT is `{}`: json or text", shown(other)));
                logging::Format::Json
            }
        };
        Some(Settings {
            kafka: kafka?,
            session_timeout_ms: session.unwrap_or(45_000),
            topic_prefix: topic_prefix(flags),
            group,
            orders,
            // A shadow of a subset goes on where the shadow of all is, if there is one.
            start_at: start_at.or((flags.shadow && is_subset).then_some(StartAt::Begin)),
            accept_dead_letters: flags.accept_dead_letters,
            consumers,
            decimals,
            program_file: ledger.program_file,
            effective_from: ledger.effective_from,
            database: ledger.database,
            old_records: ledger.old_records,
            way: way?,
            http,
            console,
            push: outward.metrics,
            traces: outward.traces,
            log_format,
            log_filter: given(flags.rust_log.as_deref()).unwrap_or("info").to_owned(),
        })
    }

    fn kafka(&mut self, flags: &Flags) -> Option<Connection> {
        let servers = self.required(
            flags.kafka_bootstrap_servers.as_deref(),
            "KAFKA_BOOTSTRAP_SERVERS",
            "where the brokers are",
        );
        let key = given(flags.kafka_api_key.as_deref());
        let secret = given(flags.kafka_api_secret.as_deref());
        self.demand(
            key.is_some() == secret.is_some(),
            "KAFKA_API_KEY and KAFKA_API_SECRET go together: one is missing",
        );
        let default = if key.is_some() { "SASL_SSL" } else { "PLAINTEXT" };
        let protocol = given(flags.kafka_security_protocol.as_deref())
            .unwrap_or(default)
            .to_uppercase();
        let known = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"].contains(&protocol.as_str());
        self.demand(
            known,
            "KAFKA_SECURITY_PROTOCOL must be PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
        );
        let sasl = protocol.starts_with("SASL");
        self.demand(
            !known || sasl || key.is_none(),
            "KAFKA_API_KEY would not be used: KAFKA_SECURITY_PROTOCOL has no SASL",
        );
        self.demand(
            !known || !sasl || key.is_some(),
            "KAFKA_SECURITY_PROTOCOL has SASL, but KAFKA_API_KEY is missing",
        );
        let ca_file = given(flags.kafka_ca_file.as_deref());
        self.demand(
            !known || ca_file.is_none() || protocol.ends_with("SSL"),
            "KAFKA_CA_FILE would not be used: KAFKA_SECURITY_PROTOCOL has no TLS",
        );
        Some(Connection {
            bootstrap_servers: servers?.to_owned(),
            security_protocol: protocol,
            api_key: key.map(Secret::new),
            api_secret: secret.map(Secret::new),
            ca_file: ca_file.map(ToOwned::to_owned),
        })
    }

    fn inngest(&mut self, flags: &Flags) -> Option<Inngest> {
        let dev = given(flags.inngest_dev.as_deref()).filter(|dev| !matches!(*dev, "0" | "false"));
        let key = match (given(flags.inngest_event_key.as_deref()), dev) {
            (Some(key), _) => Some(key),
            // A dev server takes any key.
            (None, Some(_)) => Some("dev"),
            (None, None) => self.required(None, "INNGEST_EVENT_KEY", "the event key; or set INNGEST_DEV=1"),
        };
        let base_url = given(flags.inngest_base_url.as_deref()).unwrap_or(match dev {
            Some(url) if url.starts_with("http") => url,
            Some(_) => "http://localhost:8288",
            None => "https://inn.gs",
        });
        let name = match given(flags.inngest_base_url.as_deref()) {
            None if dev.is_some() => "INNGEST_DEV",
            _ => "INNGEST_BASE_URL",
        };
        if let Err(problem) = address::check(base_url, dev.is_some()) {
            self.problems.push(format!("{name} {problem}"));
        }
        let rate = self.number(
            flags.inngest_rate_per_sec.as_deref(),
            "INNGEST_RATE_PER_SEC",
            0..=10_000,
        );
        // No rate is documented for Cloud; 75 requests in 5 s was claimed once.
        let requests_per_second = NonZeroU32::new(rate.unwrap_or(if dev.is_some() { 0 } else { 15 }));
        let environment = given(flags.inngest_env.as_deref()).map(ToOwned::to_owned);
        let base_url = base_url.trim_end_matches('/').to_owned();
        Some(Inngest {
            base_url,
            event_key: Secret::new(key?),
            environment,
            requests_per_second,
        })
    }

    fn consumers(&mut self, flags: &Flags) -> Vec<(Consumer, usize)> {
        let mut wanted = Vec::new();
        match given(flags.consumers.as_deref()) {
            None => wanted.extend(Consumer::ALL),
            Some(names) => {
                for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    match Consumer::ALL.into_iter().find(|consumer| consumer.name() == name) {
                        Some(consumer) if !wanted.contains(&consumer) => wanted.push(consumer),
                        Some(_) => {}
                        None => {
                            let known = Consumer::ALL.map(Consumer::name).join(", ");
                            self.problems
                                .push(format!("CONSUMERS names `{}`: known are {known}", shown(name)));
                        }
                    }
                }
                self.demand(!wanted.is_empty(), "CONSUMERS is empty");
            }
        }
        // Every number is checked, whether its consumer runs or not.
        let lanes = Consumer::ALL.map(|consumer| {
            let (text, name) = match consumer {
                Consumer::Currency => (&flags.currency_concurrency, "CURRENCY_CONCURRENCY"),
                Consumer::Tier => (&flags.tier_concurrency, "TIER_CONCURRENCY"),
                Consumer::Mission => (&flags.mission_concurrency, "MISSION_CONCURRENCY"),
                Consumer::Reward => (&flags.reward_concurrency, "REWARD_CONCURRENCY"),
                Consumer::Marketplace => (&flags.marketplace_concurrency, "MARKETPLACE_CONCURRENCY"),
            };
            let lanes = self
                .number(text.as_deref(), name, 1..=256)
                .and_then(|lanes| usize::try_from(lanes).ok());
            (consumer, lanes.unwrap_or_else(|| consumer.default_lanes()))
        });
        lanes
            .into_iter()
            .filter(|(consumer, _)| wanted.contains(consumer))
            .collect()
    }

    fn orders(&mut self, flags: &Flags, running: ConsumerSet) -> Orders {
        for name in running.iter().map(Consumer::name) {
            self.demand(
                flags.drop_consumer.iter().all(|dropped| dropped != name),
                &format!("--drop-consumer {name}: {name} runs here"),
            );
        }
        Orders {
            accept_gap: flags.accept_gap,
            dropped: flags.drop_consumer.clone(),
        }
    }

    fn decimals(&mut self, mode: Option<&str>) -> DecimalMode {
        let precise = |mode: &str| mode.strip_prefix("precise:")?.parse().ok().filter(|scale| *scale <= 28);
        match mode {
            None | Some("string") => DecimalMode::Text,
            Some(mode) => precise(mode).map_or_else(
                || {
                    self.problems.push(format!(
                        "DECIMAL_MODE is `{}`: string, or precise:<scale 0 to 28>",
                        shown(mode)
                    ));
                    DecimalMode::Text
                },
                |scale| DecimalMode::Precise { scale },
            ),
        }
    }

    fn effective_from(&mut self, flags: &Flags) -> Option<Timestamp> {
        let text = flags.ledger_effective_from.as_deref();
        self.parsed(text, "LEDGER_EFFECTIVE_FROM", "a time like 2026-11-20T00:00:00Z")
    }

    fn required<'a>(&mut self, value: Option<&'a str>, name: &str, what: &str) -> Option<&'a str> {
        let value = given(value);
        if value.is_none() {
            self.problems.push(format!("{name} is missing: {what}"));
        }
        value
    }

    fn number(&mut self, value: Option<&str>, name: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let text = given(value)?;
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            self.problems
                .push(format!("{name} is `{}`: a number from {least} to {most}", shown(text)));
        }
        number
    }

    fn parsed<T: std::str::FromStr>(&mut self, value: Option<&str>, name: &str, what: &str) -> Option<T> {
        let text = given(value)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.problems.push(format!("{name} is `{}`: {what}", shown(text)));
        }
        parsed
    }

    fn demand(&mut self, holds: bool, problem: &str) -> bool {
        if !holds {
            self.problems.push(problem.to_owned());
        }
        holds
    }
}

fn topic_prefix(flags: &Flags) -> String {
    given(flags.topic_prefix.as_deref()).unwrap_or("crm").to_owned()
}

/// An empty variable is an unset one.
fn given(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

/// A value in a message: short, and without control characters.
fn shown(value: &str) -> String {
    value.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Flags {
        let some = |text: &str| Some(text.to_owned());
        Flags {
            kafka_bootstrap_servers: some("localhost:9092"),
            program_file: some("programs.json"),
            redis_url: some("redis://localhost"),
            inngest_event_key: some("key"),
            ledger_effective_from: some("2026-11-01T00:00:00Z"),
            ..Flags::default()
        }
    }

    fn inngest(settings: &Settings) -> &Inngest {
        match &settings.way {
            Way::Deliver { out, .. } => &out.inngest,
            Way::Shadow(_) => panic!("no shadow"),
        }
    }

    #[test]
    fn the_least_settings_run_all_consumers_with_their_default_lanes() {
        let settings = Settings::from_flags(&minimal()).expect("valid");
        let lanes = [
            (Consumer::Currency, 5),
            (Consumer::Tier, 3),
            (Consumer::Mission, 3),
            (Consumer::Reward, 2),
            (Consumer::Marketplace, 2),
        ];
        assert_eq!(settings.consumers, lanes);
        assert_eq!(settings.kafka.security_protocol, "PLAINTEXT");
        let inngest = inngest(&settings);
        assert_eq!(inngest.base_url, "https://inn.gs");
        assert_eq!(inngest.requests_per_second, NonZeroU32::new(15));
        assert_eq!(
            settings.topics(),
            [
                "crm.public.purchase_ledger",
                "crm.public.wallet_ledger",
                "crm.public.form_submissions",
                "crm.public.mission_claims",
                "crm.public.referral_ledger",
                "crm.public.codes",
            ]
        );
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let some = |text: &str| Some(text.to_owned());
        let flags = Flags {
            consumers: some("currency,gold"),
            tier_concurrency: some("0"),
            decimal_mode: some("double"),
            kafka_api_key: some("key"),
            ..Flags::default()
        };
        let Problems(problems) = Settings::from_flags(&flags).expect_err("nothing is right");
        for part in [
            "KAFKA_BOOTSTRAP_SERVERS is missing",
            "KAFKA_API_KEY and KAFKA_API_SECRET go together",
            "REDIS_URL is missing",
            "PROGRAM_FILE is missing",
            "INNGEST_EVENT_KEY is missing",
            "CONSUMERS names `gold`: known are currency, tier, mission",
            "TIER_CONCURRENCY is `0`",
            "DECIMAL_MODE is `double`",
            "LEDGER_EFFECTIVE_FROM is missing",
        ] {
            assert!(
                problems.iter().any(|problem| problem.contains(part)),
                "{part} is not in {problems:?}"
            );
        }
    }

    #[test]
    fn an_api_key_means_sasl_ssl_and_a_dev_server_means_no_key_and_no_limit() {
        let some = |text: &str| Some(text.to_owned());
        let flags = Flags {
            kafka_api_key: some("key"),
            kafka_api_secret: some("secret"),
            inngest_event_key: None,
            inngest_dev: some("1"),
            ..minimal()
        };
        let settings = Settings::from_flags(&flags).expect("valid");
        assert_eq!(settings.kafka.security_protocol, "SASL_SSL");
        let inngest = inngest(&settings);
        assert_eq!(inngest.base_url, "http://localhost:8288");
        assert_eq!(inngest.requests_per_second, None);
    }

    #[test]
    fn a_key_that_would_not_be_used_is_refused() {
        let some = |text: &str| Some(text.to_owned());
        let flags = Flags {
            kafka_api_key: some("key"),
            kafka_api_secret: some("secret"),
            kafka_security_protocol: some("PLAINTEXT"),
            ..minimal()
        };
        assert!(Settings::from_flags(&flags).is_err());
    }

    #[test]
    fn a_subset_of_the_consumers_runs_in_a_group_of_its_own() {
        let some = |text: &str| Some(text.to_owned());
        let settings = Settings::from_flags(&minimal()).expect("valid");
        assert_eq!(settings.group.name(), "crm-event-processors");
        let flags = Flags {
            consumers: some("tier, currency"),
            consumer_group_id: some("eu"),
            ..minimal()
        };
        let settings = Settings::from_flags(&flags).expect("valid");
        assert_eq!(settings.group.name(), "eu-currency-tier");
        assert_eq!(
            settings.topics(),
            ["crm.public.purchase_ledger", "crm.public.wallet_ledger"]
        );
    }

    #[test]
    fn only_a_subset_may_choose_where_it_starts_and_only_the_absent_can_be_dropped() {
        let some = |text: &str| Some(text.to_owned());
        let flags = Flags {
            start_at: some("end"),
            drop_consumer: vec!["tier".to_owned()],
            ..minimal()
        };
        let Problems(problems) = Settings::from_flags(&flags).expect_err("everybody runs");
        assert_eq!(problems.len(), 2, "{problems:?}");
        let flags = Flags {
            consumers: some("mission"),
            ..flags
        };
        let settings = Settings::from_flags(&flags).expect("valid");
        assert_eq!(settings.start_at, Some(StartAt::End));
        assert_eq!(settings.orders.dropped, ["tier"]);
        let flags = Flags {
            start_at: some("yesterday"),
            ..flags
        };
        assert!(Settings::from_flags(&flags).is_err());
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let mut flags = minimal();
        flags.inngest_event_key = Some("sentinel-secret".to_owned());
        flags.redis_url = Some("redis://:sentinel-secret@localhost".to_owned());
        let settings = Settings::from_flags(&flags).expect("valid");
        assert!(!format!("{settings:?}").contains("sentinel-secret"));
    }
}
