//! `connectors status`: whether the connector and its tasks run.

use anyhow::Context as _;

use super::{Needs, Source, print_status, runtime};
use crate::cli::{Code, Format};
use crate::connectors::{Health, Status};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Options {
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, serde::Serialize)]
struct Report<'a> {
    connector: &'a str,
    /// Unset: there is none.
    health: Option<Health>,
    status: Option<&'a Status>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    // Only its name is needed; a template need not be filled.
    let needs = Needs {
        platform: true,
        values: false,
    };
    let chosen = options.source.open(needs)?;
    let (client, name) = (chosen.client()?, chosen.config.name());
    let status = runtime()?.block_on(client.status(name, &chosen.config.secrets()))?;
    let health = status.as_ref().map(Status::health);
    match (options.format, &status, health) {
        (Format::Json, status, health) => {
            let report = Report {
                connector: name,
                health,
                status: status.as_ref(),
            };
            println!("{}", serde_json::to_string_pretty(&report).context("the status")?);
        }
        (Format::Text, Some(status), Some(health)) => {
            print_status(status);
            println!("{name} is {}, says {}", health.word(), chosen.platform.name());
        }
        (Format::Text, _, _) => println!("there is no connector {name} on {}", chosen.platform.name()),
    }
    Ok(if health == Some(Health::Running) {
        Code::Ok
    } else {
        Code::Findings
    })
}
