//! The settings of `connectors`: where a connector runs, which `check` and `run` ask as well, and what its template lacks.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use tokio_postgres::config::Host;

use super::address::is_private;
use super::{given, shown};
use crate::connectors::{Access, CONFLUENT_CLOUD, Config, Platform, SERVICE_ACCOUNT, database};

/// Where the connector runs, as given. `check` and `run` ask there, too.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::doc_markdown, reason = "these comments are the help texts of a terminal")]
pub struct PlatformFlags {
    /// The REST interface of Kafka Connect. With CONFLUENT_CLUSTER: default https://api.confluent.cloud.
    #[arg(
        long,
        env = "CONNECT_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Platform"
    )]
    pub connect_url: Option<String>,
    /// Key for it (basic authentication). Confluent Cloud: a Cloud API key, not one of a cluster.
    #[arg(
        long,
        env = "CONNECT_API_KEY",
        value_name = "KEY",
        hide_env_values = true,
        help_heading = "Platform"
    )]
    pub connect_api_key: Option<String>,
    /// Secret of that key.
    #[arg(
        long,
        env = "CONNECT_API_SECRET",
        value_name = "SECRET",
        hide_env_values = true,
        help_heading = "Platform"
    )]
    pub connect_api_secret: Option<String>,
    /// The environment (env-...) on Confluent Cloud.
    #[arg(long, env = "CONFLUENT_ENVIRONMENT", value_name = "ID", help_heading = "Platform")]
    pub confluent_environment: Option<String>,
    /// The Kafka cluster (lkc-...) on Confluent Cloud. Given, the connector is Confluent Cloud's; else Kafka Connect's.
    #[arg(long, env = "CONFLUENT_CLUSTER", value_name = "ID", help_heading = "Platform")]
    pub confluent_cluster: Option<String>,
}

/// As given.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::doc_markdown, reason = "these comments are the help texts of a terminal")]
pub struct ConnectFlags {
    #[command(flatten)]
    pub platform: PlatformFlags,
    /// The database as the connector comes in, never through a pooler: postgres://user:password@host:port/name, and
    /// ?sslmode=..., which becomes database.sslmode.
    #[arg(
        long,
        env = "CONNECTOR_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Template"
    )]
    pub connector_database_url: Option<String>,
    /// The account (sa-...) with which the managed connector writes to Kafka.
    #[arg(long, env = "KAFKA_SERVICE_ACCOUNT_ID", value_name = "ID", help_heading = "Template")]
    pub kafka_service_account_id: Option<String>,
    /// The worker's TOPIC_PREFIX, which the connector's topic.prefix must be. Default crm.
    #[arg(long, env = "TOPIC_PREFIX", value_name = "PREFIX", help_heading = "Template")]
    pub topic_prefix: Option<String>,
}

/// As understood. Holds a password.
pub struct Connecting {
    /// Where a connector is sent; told without an address, too.
    pub platform: Platform,
    pub access: Option<Access>,
    pub topic_prefix: String,
    values: BTreeMap<&'static str, String>,
    ssl_mode: Option<String>,
}

/// For how long a platform that rebalances, limits or restarts is waited for: somebody stands by.
const PATIENCE: Duration = Duration::from_secs(30);

impl PlatformFlags {
    /// Whether anything says where the connector runs.
    #[must_use]
    pub fn is_given(&self) -> bool {
        let all = [&self.connect_url, &self.confluent_environment, &self.confluent_cluster];
        all.iter().any(|value| given(value.as_deref()).is_some())
    }

    /// Whose it is; told without an address, too. Problems are added to the others.
    pub fn platform(&self, problems: &mut Vec<String>) -> Platform {
        let cluster = given(self.confluent_cluster.as_deref());
        let environment = given(self.confluent_environment.as_deref());
        if cluster.is_some() != environment.is_some() {
            problems.push("CONFLUENT_ENVIRONMENT and CONFLUENT_CLUSTER go together: one is missing".to_owned());
        }
        if cluster.or(environment).is_some() {
            Platform::ConfluentCloud
        } else {
            Platform::KafkaConnect
        }
    }

    /// How it is reached.
    pub fn access(&self, platform: Platform, problems: &mut Vec<String>) -> Option<Access> {
        let before = problems.len();
        let key = given(self.connect_api_key.as_deref());
        let secret = given(self.connect_api_secret.as_deref());
        if key.is_some() != secret.is_some() {
            problems.push("CONNECT_API_KEY and CONNECT_API_SECRET go together: one is missing".to_owned());
        }
        let url = given(self.connect_url.as_deref());
        let base_url = match platform {
            Platform::KafkaConnect => {
                if url.is_none() {
                    problems.push(
                        "CONNECT_URL is missing: the REST interface of Kafka Connect; or CONFLUENT_ENVIRONMENT and CONFLUENT_CLUSTER"
                            .to_owned(),
                    );
                }
                url?.to_owned()
            }
            Platform::ConfluentCloud => {
                if key.is_none() && secret.is_none() {
                    problems.push(
                        "CONNECT_API_KEY is missing: a Cloud API key of Confluent Cloud, and CONNECT_API_SECRET"
                            .to_owned(),
                    );
                }
                let [environment, cluster] = [
                    ("CONFLUENT_ENVIRONMENT", &self.confluent_environment),
                    ("CONFLUENT_CLUSTER", &self.confluent_cluster),
                ]
                .map(|(name, id)| {
                    let id = given(id.as_deref()).unwrap_or_default();
                    if !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                        problems.push(format!("{name} is `{}`: letters, digits and `-`", shown(id)));
                    }
                    id
                });
                let origin = url.unwrap_or(CONFLUENT_CLOUD).trim_end_matches('/');
                format!("{origin}/connect/v1/environments/{environment}/clusters/{cluster}")
            }
        };
        // Every configuration that is sent has the database's password, and Kafka Connect shows it to whoever reads one.
        if is_open(platform, &base_url) {
            let secret = if key.is_some() {
                "CONNECT_API_SECRET and the database's password"
            } else {
                "the database's password"
            };
            let mend = match platform {
                Platform::KafkaConnect => "use https://",
                Platform::ConfluentCloud => "Confluent Cloud needs no CONNECT_URL",
            };
            problems.push(format!(
                "CONNECT_URL is http://, and {secret} would travel for everybody to read: {mend}"
            ));
        }
        (problems.len() == before).then(|| Access {
            platform,
            base_url,
            key: key.zip(secret).map(|(key, secret)| (key.to_owned(), secret.to_owned())),
            patience: PATIENCE,
        })
    }
}

impl Connecting {
    /// `asks`: somebody is going to be asked, so that an address is needed. Problems are added to the others.
    #[must_use]
    pub fn from_flags(flags: &ConnectFlags, asks: bool, problems: &mut Vec<String>) -> Self {
        let platform = flags.platform.platform(problems);
        let access = asks.then(|| flags.platform.access(platform, problems)).flatten();
        let mut values = BTreeMap::new();
        let mut ssl_mode = None;
        if let Some(url) = given(flags.connector_database_url.as_deref()) {
            match read_database(url) {
                Ok((read, mode)) => (values, ssl_mode) = (read, mode),
                Err(problem) => problems.push(format!("CONNECTOR_DATABASE_URL {problem}")),
            }
        }
        if let Some(account) = given(flags.kafka_service_account_id.as_deref()) {
            values.insert(SERVICE_ACCOUNT, account.to_owned());
        }
        Self {
            platform,
            access,
            topic_prefix: given(flags.topic_prefix.as_deref()).unwrap_or("crm").to_owned(),
            values,
            ssl_mode,
        }
    }

    /// Puts the values into a template.
    pub fn fill(&self, config: &mut Config) {
        if let Some(mode) = &self.ssl_mode {
            config.set("database.sslmode", mode);
        }
        config.fill(&self.values);
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting")
            .field("platform", &self.platform)
            .field("access", &self.access)
            .field("topic_prefix", &self.topic_prefix)
            .finish_non_exhaustive()
    }
}

/// What has to be given so that these placeholders are filled, all at once.
#[must_use]
pub fn missing_for(config: &Config) -> Vec<String> {
    let placeholders = config.placeholders();
    let of_database: Vec<&str> = database::ALL
        .into_iter()
        .filter(|name| placeholders.contains(name))
        .collect();
    let mut problems = Vec::new();
    if !of_database.is_empty() {
        problems.push(format!(
            "CONNECTOR_DATABASE_URL is missing: it fills {}",
            of_database.join(", ")
        ));
    }
    for name in placeholders.into_iter().filter(|name| !database::ALL.contains(name)) {
        problems.push(if name == SERVICE_ACCOUNT {
            format!("{SERVICE_ACCOUNT} is missing: the account with which the connector writes to Kafka")
        } else {
            format!(
                "nothing fills the placeholder {name}: known are {SERVICE_ACCOUNT}, {}",
                database::ALL.join(", ")
            )
        });
    }
    problems
}

/// The variables of `connectors` that `run` does not have.
#[must_use]
pub fn connector_variables() -> Vec<String> {
    let command = ConnectFlags::augment_args(clap::Command::new("connectors"));
    let names = command
        .get_arguments()
        .filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()));
    let of_run = super::variables();
    names.filter(|name| !of_run.contains(name)).collect()
}

/// Whether it crosses a network that is not ours without TLS. Confluent Cloud is in nobody's network: only a double of it is on
/// this machine, and a Kafka Connect next door must not get the key of the cloud.
fn is_open(platform: Platform, url: &str) -> bool {
    let url = reqwest::Url::parse(url).ok().filter(|url| url.scheme() == "http");
    let is_ours = |host: &str| match platform {
        Platform::KafkaConnect => is_private(host),
        Platform::ConfluentCloud => is_loopback(host),
    };
    url.is_some_and(|url| !url.host_str().is_some_and(is_ours))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

type Values = BTreeMap<&'static str, String>;

/// The placeholders of the database, and `sslmode`. Never with a part of the address in a message.
fn read_database(url: &str) -> Result<(Values, Option<String>), String> {
    const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err("is not a postgres:// address".to_owned());
    }
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let mut mode = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", given)) if MODES.contains(&given) => mode = Some(given.to_owned()),
            _ => {
                return Err(format!(
                    "has a parameter that the connector does not get: only sslmode does, as {}",
                    MODES.join(", ")
                ));
            }
        }
    }
    let config: tokio_postgres::Config = address.parse().map_err(|_quotes_it| {
        "is not understood: special characters of user and password are percent-encoded".to_owned()
    })?;
    let [Host::Tcp(host)] = config.get_hosts() else {
        return Err("must name one host".to_owned());
    };
    let password = config
        .get_password()
        .and_then(|password| std::str::from_utf8(password).ok());
    let (Some(user), Some(password), Some(name)) = (config.get_user(), password, config.get_dbname()) else {
        return Err("must have a user, a password and the name of a database".to_owned());
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let values = [
        (database::HOSTNAME, host.clone()),
        (database::PORT, port.to_string()),
        (database::NAME, name.to_owned()),
        (database::USER, user.to_owned()),
        (database::PASSWORD, password.to_owned()),
    ];
    Ok((values.into_iter().collect(), mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn read(flags: &ConnectFlags, asks: bool) -> (Connecting, Vec<String>) {
        let mut problems = Vec::new();
        let connecting = Connecting::from_flags(flags, asks, &mut problems);
        (connecting, problems)
    }

    fn cloud() -> ConnectFlags {
        ConnectFlags {
            platform: PlatformFlags {
                confluent_environment: some("env-a1"),
                confluent_cluster: some("lkc-b2"),
                connect_api_key: some("key"),
                connect_api_secret: some("sentinel-1"),
                ..PlatformFlags::default()
            },
            ..ConnectFlags::default()
        }
    }

    fn at(platform: PlatformFlags) -> ConnectFlags {
        ConnectFlags {
            platform,
            ..ConnectFlags::default()
        }
    }

    #[test]
    fn one_address_fills_the_whole_template() {
        let flags = ConnectFlags {
            connector_database_url: some("postgres://crm_cdc:p%40ss%22w@db.example:6432/crm?sslmode=verify-full"),
            kafka_service_account_id: some("sa-1"),
            ..cloud()
        };
        let (connecting, problems) = read(&flags, false);
        assert!(problems.is_empty(), "{problems:?}");
        assert!(!format!("{connecting:?}").contains("p@ss"));
        let mut config = connecting.platform.template();
        assert_eq!(missing_for(&config).len(), 2);
        connecting.fill(&mut config);
        assert_eq!(missing_for(&config), [""; 0]);
        let values = ["hostname", "port", "dbname", "user", "password", "sslmode"]
            .map(|key| config.get(&format!("database.{key}")).unwrap_or_default().to_owned());
        assert_eq!(
            values,
            ["db.example", "6432", "crm", "crm_cdc", "p@ss\"w", "verify-full"]
        );
        assert_eq!(config.get("kafka.service.account.id"), Some("sa-1"));
    }

    #[test]
    fn a_cluster_means_confluent_cloud_and_no_cluster_kafka_connect() {
        let (connecting, problems) = read(&cloud(), true);
        assert!(problems.is_empty(), "{problems:?}");
        let access = connecting.access.expect("an address");
        assert_eq!(access.platform, Platform::ConfluentCloud);
        assert_eq!(
            access.base_url,
            "https://api.confluent.cloud/connect/v1/environments/env-a1/clusters/lkc-b2"
        );
        assert!(!format!("{access:?}").contains("sentinel"));
        let flags = at(PlatformFlags {
            connect_url: some("http://connect:8083"),
            ..PlatformFlags::default()
        });
        let (connecting, problems) = read(&flags, true);
        assert!(problems.is_empty(), "{problems:?}");
        let access = connecting.access.expect("an address");
        assert_eq!(
            (access.platform, access.base_url.as_str()),
            (Platform::KafkaConnect, "http://connect:8083")
        );
    }

    #[test]
    fn what_is_missing_or_cannot_be_meant_is_told_at_once_and_without_secrets() {
        let table: [(ConnectFlags, &[&str]); 6] = [
            (ConnectFlags::default(), &["CONNECT_URL is missing"]),
            (
                at(PlatformFlags {
                    confluent_cluster: some("lkc/../x"),
                    ..PlatformFlags::default()
                }),
                &[
                    "go together",
                    "CONNECT_API_KEY is missing",
                    "CONFLUENT_CLUSTER is `lkc/../x`",
                ],
            ),
            (
                at(PlatformFlags {
                    connect_url: some("http://api.example"),
                    connect_api_secret: None,
                    ..cloud().platform
                }),
                &["CONNECT_API_KEY and CONNECT_API_SECRET", "http://"],
            ),
            (
                at(PlatformFlags {
                    connect_url: some("http://connect.example"),
                    connect_api_key: some("key"),
                    connect_api_secret: some("sentinel-1"),
                    ..PlatformFlags::default()
                }),
                &["http://"],
            ),
            (
                ConnectFlags {
                    connector_database_url: some("postgres://u:sentinel-1@h/d?sslrootcert=x"),
                    ..cloud()
                },
                &["only sslmode"],
            ),
            (
                ConnectFlags {
                    connector_database_url: some("postgres://sentinel-1@h/d"),
                    ..cloud()
                },
                &["a password"],
            ),
        ];
        for (flags, parts) in table {
            let (connecting, problems) = read(&flags, true);
            assert_eq!(problems.len(), parts.len(), "{problems:?}");
            for part in parts {
                assert!(
                    problems.iter().any(|problem| problem.contains(part)),
                    "{part}: {problems:?}"
                );
            }
            assert!(
                !format!("{problems:?} {connecting:?}").contains("sentinel"),
                "{problems:?}"
            );
        }
        // Nobody is asked.
        assert!(read(&ConnectFlags::default(), false).1.is_empty());
    }

    #[test]
    fn nothing_secret_crosses_a_network_that_is_not_ours_without_tls() {
        let key = || cloud().platform;
        let none = PlatformFlags::default;
        let both = "CONNECT_API_SECRET and the database's password";
        let table = [
            (none(), "http://connect.example:8083", Some("the database's password")),
            (none(), "http://203.0.113.7:8083", Some("the database's password")),
            (none(), "http://connect:8083", None),
            (none(), "http://10.0.0.1:8083", None),
            (none(), "https://connect.example", None),
            // CONNECT_URL is left over from a Kafka Connect of one's own.
            (key(), "http://connect:8083", Some(both)),
            (key(), "http://10.0.0.1:8083", Some(both)),
            (key(), "http://127.0.0.1:8083", None),
            (key(), "http://[::1]:8083", None),
            (key(), "http://localhost:8083", None),
        ];
        for (platform, url, wanted) in table {
            let flags = at(PlatformFlags {
                connect_url: some(url),
                ..platform
            });
            let (_, problems) = read(&flags, true);
            assert_eq!(problems.len(), usize::from(wanted.is_some()), "{url}: {problems:?}");
            let told = problems.concat();
            assert!(
                wanted.is_none_or(|secret| told.contains(&format!("http://, and {secret} would"))),
                "{told}"
            );
        }
    }

    #[test]
    fn a_placeholder_that_nothing_fills_is_named() {
        let config = Config::parse(r#"{"a": "${DATABASE_USER}", "b": "${OTHER}"}"#).expect("a configuration");
        let problems = missing_for(&config);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.concat().contains("the placeholder OTHER"), "{problems:?}");
    }
}
