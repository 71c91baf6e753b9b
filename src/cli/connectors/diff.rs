//! `connectors diff`: what is set on the platform against what should be.

use anyhow::Context as _;

use super::{Needs, Source, print_diff, runtime};
use crate::cli::{Code, Format};
use crate::connectors::Diff;

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
    /// Without it there is nothing to compare with.
    exists: bool,
    #[serde(flatten)]
    diff: Diff,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let needs = Needs {
        platform: true,
        values: true,
    };
    let chosen = options.source.open(needs)?;
    let (client, name) = (chosen.client()?, chosen.config.name());
    let live = runtime()?.block_on(client.config(name))?;
    let report = Report {
        connector: name,
        exists: live.is_some(),
        diff: Diff::between(&live.unwrap_or_default(), &chosen.config, chosen.platform),
    };
    let is_same = report.exists && report.diff.is_same();
    match options.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report).context("the difference")?),
        Format::Text if !report.exists => println!("there is no connector {name} on {}", chosen.platform.name()),
        Format::Text => {
            print_diff(&report.diff);
            match report.diff.differences.len() {
                0 => println!("{name} is set as it should be"),
                1 => println!("1 key of {name} differs"),
                count => println!("{count} keys of {name} differ"),
            }
        }
    }
    Ok(if is_same { Code::Ok } else { Code::Findings })
}
