//! How `run` and `check` look at the source: which connector, where it runs, and for `run` how often.

use std::fmt;
use std::time::Duration;

use clap::Args;

use super::{Flags, PlatformFlags, Problems, Reader, Settings, given, shown};
use crate::connectors::{Access, Platform, rules};

/// The settings of `run`, as given.
#[derive(Debug, Clone, Default, Args)]
pub struct RunFlags {
    #[command(flatten)]
    pub flags: Flags,
    /// Look at everything around the worker as `check` does, every so many seconds (at most 300), and show it as metrics; 0: never. Default 60.
    #[arg(long, env = "SOURCE_POLL_SECS", value_name = "SECONDS", help_heading = "Operations")]
    pub source_poll_secs: Option<String>,
    #[command(flatten)]
    pub source: SourceFlags,
}

/// Which connector feeds the worker, as given.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceFlags {
    /// The connector's name. Default crm-cdc-source.
    #[arg(long, env = "CONNECTOR_NAME", value_name = "NAME", help_heading = "Platform")]
    pub connector: Option<String>,
    /// The rules about these keys of the connector may be broken; separated by commas, or given several times.
    #[arg(
        long,
        env = "CONNECTOR_ACCEPT",
        value_name = "KEYS",
        value_delimiter = ',',
        help_heading = "Platform"
    )]
    pub accept: Vec<String>,
    #[command(flatten)]
    pub platform: PlatformFlags,
}

/// How `run` looks, as understood.
#[derive(Debug)]
pub struct Looking {
    /// `None`: never.
    pub every: Option<Duration>,
    pub source: Watched,
}

/// Which connector is looked at, and where.
pub struct Watched {
    pub connector: String,
    /// Keys whose rules may be broken.
    pub accepted: Vec<String>,
    /// Or why nobody knows.
    pub platform: Result<Access, String>,
}

const DEFAULT_POLL_SECS: u32 = 60;
const MOST_POLL_SECS: u32 = 300;
/// More seldom, and alerts that wait for minutes would be about what has passed.
pub const SLOWEST_LOOK: Duration = Duration::from_secs(1).saturating_mul(MOST_POLL_SECS);

impl RunFlags {
    /// # Errors
    /// Every problem at once.
    pub fn understood(&self) -> Result<(Settings, Looking), Problems> {
        let settings = Settings::from_flags(&self.flags);
        let mut problems = Vec::new();
        let every = self.every(&mut problems);
        let source = self.source.watched();
        if let (true, Err(problem)) = (self.source.platform.is_given(), &source.platform) {
            problems.push(problem.clone());
        }
        if let Some(key) = unknown_rule(&source.accepted) {
            problems.push(format!(
                "CONNECTOR_ACCEPT names `{}`: there is no rule about this key",
                shown(key)
            ));
        }
        match settings {
            Ok(settings) if problems.is_empty() => Ok((settings, Looking { every, source })),
            Ok(_) => Err(Problems(problems)),
            Err(Problems(others)) => Err(Problems(others.into_iter().chain(problems).collect())),
        }
    }

    fn every(&self, problems: &mut Vec<String>) -> Option<Duration> {
        let mut reader = Reader { problems: Vec::new() };
        let number = reader.number(self.source_poll_secs.as_deref(), "SOURCE_POLL_SECS", 0..=MOST_POLL_SECS);
        problems.append(&mut reader.problems);
        match number.unwrap_or(DEFAULT_POLL_SECS) {
            0 => None,
            seconds => Some(Duration::from_secs(u64::from(seconds))),
        }
    }
}

impl SourceFlags {
    #[must_use]
    pub fn watched(&self) -> Watched {
        let accepted = self.accept.iter().filter_map(|key| given(Some(key.as_str())));
        Watched {
            connector: given(self.connector.as_deref()).map_or_else(
                || Platform::KafkaConnect.template().name().to_owned(),
                ToOwned::to_owned,
            ),
            accepted: accepted.map(ToOwned::to_owned).collect(),
            platform: self.access(),
        }
    }

    fn access(&self) -> Result<Access, String> {
        if !self.platform.is_given() {
            return Err("neither CONNECT_URL nor CONFLUENT_CLUSTER says where the connector runs".to_owned());
        }
        let mut problems = Vec::new();
        let platform = self.platform.platform(&mut problems);
        let access = self.platform.access(platform, &mut problems);
        access
            .filter(|_| problems.is_empty())
            .ok_or_else(|| problems.join("; "))
    }
}

/// Only a rule that there is may be broken.
fn unknown_rule(keys: &[String]) -> Option<&str> {
    keys.iter().map(String::as_str).find(|key| !rules::is_known(key))
}

/// Without the address: somebody may have put a key into it.
impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("connector", &self.connector)
            .field("accepted", &self.accepted)
            .field("platform", &self.platform.as_ref().map(|access| access.platform))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn sound() -> RunFlags {
        RunFlags {
            flags: Flags {
                kafka_bootstrap_servers: some("localhost:9092"),
                program_file: some("programs.json"),
                redis_url: some("redis://localhost"),
                inngest_dev: some("1"),
                ledger_effective_from: some("2026-11-01T00:00:00Z"),
                ..Flags::default()
            },
            ..RunFlags::default()
        }
    }

    #[test]
    fn without_a_word_it_looks_once_a_minute_and_not_at_the_connector() {
        let (_, looking) = sound().understood().expect("valid");
        assert_eq!(looking.every, Some(Duration::from_secs(60)));
        assert_eq!(looking.source.connector, "crm-cdc-source");
        assert!(looking.source.platform.is_err());
        let never = RunFlags {
            source_poll_secs: some("0"),
            ..sound()
        };
        assert_eq!(never.understood().expect("valid").1.every, None);
    }

    #[test]
    fn what_is_wrong_with_the_source_is_told_beside_the_rest_and_without_secrets() {
        let source = SourceFlags {
            connector: some(" cdc "),
            accept: vec![String::new(), "slot.name".to_owned(), "slot".to_owned()],
            platform: PlatformFlags {
                connect_url: some("http://sentinel@connect.example"),
                connect_api_key: some("sentinel"),
                ..PlatformFlags::default()
            },
        };
        let flags = RunFlags {
            flags: Flags::default(),
            source_poll_secs: some("often"),
            source,
        };
        let told = flags.understood().expect_err("nothing is right").to_string();
        for part in [
            "KAFKA_BOOTSTRAP_SERVERS is missing",
            "SOURCE_POLL_SECS is `often`",
            "CONNECT_API_KEY and CONNECT_API_SECRET go together",
            "CONNECTOR_ACCEPT names `slot`",
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        let watched = flags.source.watched();
        assert_eq!((watched.connector.as_str(), watched.accepted.len()), ("cdc", 2));
        assert!(!format!("{told}{watched:?}").contains("sentinel"), "{told}{watched:?}");
    }
}
