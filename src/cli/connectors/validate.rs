//! `connectors validate`: what is wrong with a configuration, by our rules and by the platform's.

use anyhow::Context as _;

use super::{Needs, Source, accept, has_errors, print_findings, print_unjudged, runtime, table};
use crate::cli::{Code, Format};
use crate::connectors::Validation;
use crate::connectors::rules::Finding;
use crate::inert::clean;

#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these comments are the help texts of a terminal")]
pub(in crate::cli) struct Options {
    /// Ask the platform as well, which also tries the database. Needs CONNECT_URL, or CONFLUENT_CLUSTER and its key.
    #[arg(long)]
    online: bool,
    /// The rule about this key may be broken; may be given several times.
    #[arg(long, value_name = "KEY")]
    accept: Vec<String>,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, serde::Serialize)]
struct Report {
    platform: &'static str,
    findings: Vec<Finding>,
    /// Placeholders that are not filled in.
    unfilled: Vec<String>,
    /// Keys whose values are not known here.
    unjudged: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<Validation>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let needs = Needs {
        platform: options.online,
        values: options.online,
    };
    let chosen = options.source.open(needs)?;
    let mut findings = chosen.findings();
    accept(&mut findings, &options.accept)?;
    // Asterisks would be taken for the secret.
    let is_masked = chosen.config.is_masked();
    let online = if options.online && !is_masked {
        Some(runtime()?.block_on(chosen.client()?.validate(&chosen.config))?)
    } else {
        None
    };
    let refused = has_errors(&findings) || online.as_ref().is_some_and(|online| !online.errors.is_empty());
    let report = Report {
        platform: chosen.platform.name(),
        findings,
        unfilled: chosen
            .config
            .placeholders()
            .into_iter()
            .map(ToOwned::to_owned)
            .collect(),
        unjudged: chosen.unjudged(),
        online,
    };
    match options.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report).context("the report")?),
        Format::Text => print(&report, is_masked && options.online),
    }
    Ok(if refused { Code::Findings } else { Code::Ok })
}

fn print(report: &Report, was_not_asked: bool) {
    print_findings(&report.findings);
    if !report.unfilled.is_empty() {
        println!("not filled in: {}", report.unfilled.join(", "));
    }
    print_unjudged(&report.unjudged);
    match report.findings.len() {
        0 => println!("no rule for {} is broken", report.platform),
        1 => println!("1 rule for {} is broken", report.platform),
        count => println!("{count} rules for {} are broken", report.platform),
    }
    if was_not_asked {
        println!(
            "{} was not asked: it would take the asterisks for the value",
            report.platform
        );
    }
    if let Some(online) = &report.online {
        print_validation(online, report.platform);
    }
}

pub(super) fn print_validation(online: &Validation, platform: &str) {
    if !online.errors.is_empty() {
        let mut table = table(["key", "the platform says"]);
        for error in &online.errors {
            table.add_row([clean(&error.key), clean(&error.message)]);
        }
        println!("{table}\n");
    }
    if !online.unknown.is_empty() {
        let unknown: Vec<String> = online.unknown.iter().map(|key| clean(key)).collect();
        println!(
            "unknown to the platform, which will ignore them: {}",
            unknown.join(", ")
        );
    }
    match online.errors.len() {
        0 => println!("{platform} finds nothing wrong"),
        1 => println!("{platform} finds 1 error"),
        count => println!("{platform} finds {count} errors"),
    }
}
