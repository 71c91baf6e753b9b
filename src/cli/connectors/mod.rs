//! `connectors`: the connector that feeds the worker. `render`, `validate`, `diff`, `apply`, `status`.
//!
//! Takes a template or a file, fills it from the settings, and compares, sends or asks. What must hold, and how platforms are
//! asked, is `crate::connectors`; here it is printed. Secrets go to the platform and into a file that only its owner may read,
//! and nowhere else.

mod apply;
mod diff;
mod render;
mod status;
mod validate;

use std::path::PathBuf;

use clap::ValueEnum;
use comfy_table::{Table, presets};

use super::{Code, Usage};
use crate::config::{ConnectFlags, Connecting, Problems, missing_for};
use crate::connectors::rules::{self, Finding, Question, Severity};
use crate::connectors::{Client, Config, ConnectError, Diff, Part, Platform, Status};
use crate::inert::clean;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print the connector's configuration, filled from the settings, secrets masked; to a file, with them.
    Render(Box<render::Options>),
    /// Say what is wrong with it and why, by our rules and, with --online, by the platform's.
    Validate(Box<validate::Options>),
    /// Compare it with what is set on the platform.
    Diff(Box<diff::Options>),
    /// Make the connector or change it, and wait until it and its tasks run.
    Apply(Box<apply::Options>),
    /// Say whether the connector and its tasks run.
    Status(Box<status::Options>),
}

pub(super) fn run(command: &Command) -> anyhow::Result<Code> {
    match command {
        Command::Render(options) => render::run(options),
        Command::Validate(options) => validate::run(options),
        Command::Diff(options) => diff::run(options),
        Command::Apply(options) => apply::run(options),
        Command::Status(options) => status::run(options),
    }
}

/// Which configuration is meant.
#[derive(Debug, clap::Args)]
struct Source {
    /// Take this configuration instead of the template: flat, or {"name", "config"}; placeholders are filled as in the template.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Whose template. Default: that of the platform that the settings name.
    #[arg(long, value_enum, conflicts_with = "file")]
    platform: Option<Named>,
    #[command(flatten)]
    flags: ConnectFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Named {
    Confluent,
    Connect,
}

/// A configuration, and who is to be asked about it.
struct Chosen {
    platform: Platform,
    config: Config,
    topic_prefix: String,
    client: Option<Client>,
}

/// What a command cannot do without.
#[derive(Debug, Clone, Copy)]
struct Needs {
    platform: bool,
    values: bool,
}

impl Source {
    /// Reads and fills it. All problems come at once.
    fn open(&self, needs: Needs) -> anyhow::Result<Chosen> {
        let mut problems = Vec::new();
        let connecting = Connecting::from_flags(&self.flags, needs.platform, &mut problems);
        let (platform, mut config) = self.read(&connecting)?;
        if needs.platform && platform != connecting.platform {
            let (wanted, named) = (platform.name(), connecting.platform.name());
            problems.push(format!(
                "the configuration is {wanted}'s, and the settings name {named}: CONFLUENT_CLUSTER decides which"
            ));
        }
        connecting.fill(&mut config);
        if needs.values {
            problems.extend(missing_for(&config));
        }
        if !problems.is_empty() {
            return Err(Problems(problems).into());
        }
        Ok(Chosen {
            platform,
            config,
            topic_prefix: connecting.topic_prefix,
            client: connecting.access.map(Client::new).transpose()?,
        })
    }

    fn read(&self, connecting: &Connecting) -> Result<(Platform, Config), Usage> {
        let Some(file) = &self.file else {
            let platform = match self.platform {
                None => connecting.platform,
                Some(Named::Confluent) => Platform::ConfluentCloud,
                Some(Named::Connect) => Platform::KafkaConnect,
            };
            return Ok((platform, platform.template()));
        };
        let place = file.display();
        let text = std::fs::read_to_string(file).map_err(|error| Usage(format!("{place}: {error}")))?;
        let config = Config::parse(&text).map_err(|error| Usage(format!("{place}: {error}")))?;
        // One that says nothing is measured by the rules of the platform that the settings name.
        Ok((config.platform().unwrap_or(connecting.platform), config))
    }
}

impl Chosen {
    fn question(&self) -> Question<'_> {
        Question {
            config: &self.config,
            platform: self.platform,
            topic_prefix: &self.topic_prefix,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        rules::check(&self.question())
    }

    fn unjudged(&self) -> Vec<String> {
        let keys = rules::unjudged(&self.question());
        keys.into_iter().map(ToOwned::to_owned).collect()
    }

    /// It was asked for: `Needs::platform`.
    fn client(&self) -> anyhow::Result<&Client> {
        self.client
            .as_ref()
            .ok_or_else(|| anyhow::anyhow!("no platform was asked for"))
    }
}

fn accept(findings: &mut [Finding], accepted: &[String]) -> Result<(), Usage> {
    known_rules(accepted)?;
    rules::accept(findings, accepted);
    Ok(())
}

/// Only a rule that there is may be broken.
pub(super) fn known_rules(keys: &[String]) -> Result<(), Usage> {
    match keys.iter().find(|key| !rules::is_known(key)) {
        None => Ok(()),
        Some(unknown) => Err(Usage(format!(
            "--accept {}: there is no rule about this key",
            clean(unknown)
        ))),
    }
}

fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    table
}

fn print_findings(findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    let mut table = table(["", "key", "is", "must be", "because"]);
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let found = finding.found.as_deref().map_or("(unset)".to_owned(), clean);
        table.add_row([severity, &clean(&finding.key), &found, &finding.wanted, finding.why]);
    }
    println!("{table}\n");
}

/// Silence would be taken for a judgement.
fn print_unjudged(keys: &[String]) {
    if !keys.is_empty() {
        let keys: Vec<String> = keys.iter().map(|key| clean(key)).collect();
        println!(
            "not judged, because their values are not known here: {}",
            keys.join(", ")
        );
    }
}

fn print_diff(diff: &Diff) {
    if !diff.differences.is_empty() {
        let mut table = table(["key", "is", "shall be", "because"]);
        for one in &diff.differences {
            let text = |value: &Option<String>| value.as_deref().map_or("(unset)".to_owned(), clean);
            let why = one.why.unwrap_or_default();
            table.add_row([&clean(&one.key), &text(&one.live), &text(&one.wanted), why]);
        }
        println!("{table}\n");
    }
    if !diff.masked.is_empty() {
        println!("masked there, so not compared: {}", diff.masked.join(", "));
    }
    if !diff.added.is_empty() {
        println!(
            "the platform's own, so not compared: {}",
            diff.added.iter().map(|key| clean(key)).collect::<Vec<_>>().join(", ")
        );
    }
}

fn print_status(status: &Status) {
    let mut table = table(["part", "state", "says"]);
    for part in status.parts() {
        let says = part.trace.as_deref().map(clean).unwrap_or_default();
        table.add_row([&part_name(part), &clean(&part.reported), &says]);
    }
    println!("{table}\n");
    for part in status.parts() {
        if let Some(cause) = part.cause {
            println!("{}: {}", part_name(part), cause.words());
        }
    }
}

fn part_name(part: &Part) -> String {
    part.id
        .as_deref()
        .map_or("connector".to_owned(), |id| format!("task {}", clean(id)))
}

/// What a platform's answer means for whoever started us.
pub(super) const fn code_of(error: &ConnectError) -> Code {
    match error {
        ConnectError::Address | ConnectError::Refused { .. } | ConnectError::NotFound { .. } => Code::Configuration,
        ConnectError::Unreachable { .. } | ConnectError::Busy { .. } => Code::Unavailable,
        ConnectError::Rejected { .. } => Code::Findings,
        ConnectError::Client(_) | ConnectError::NotUnderstood { .. } => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_accepts_is_a_warning_and_a_rule_that_does_not_exist_is_refused() {
        let mut config = Platform::KafkaConnect.template();
        config.set("slot.name", "other");
        config.set("snapshot.mode", "never");
        let chosen = Chosen {
            platform: Platform::KafkaConnect,
            config,
            topic_prefix: "crm".to_owned(),
            client: None,
        };
        let mut findings = chosen.findings();
        accept(&mut findings, &["slot.name".to_owned()]).expect("a rule");
        let told: Vec<_> = findings.iter().map(|one| (one.key.as_str(), one.severity)).collect();
        assert_eq!(
            told,
            [("snapshot.mode", Severity::Error), ("slot.name", Severity::Warning)]
        );
        assert!(has_errors(&findings));
        accept(&mut findings, &["snapshot.mode".to_owned()]).expect("a rule");
        assert!(!has_errors(&findings));
        assert!(accept(&mut findings, &["snapshot".to_owned()]).is_err());
    }
}
