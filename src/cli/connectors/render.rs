//! `connectors render`: the configuration as it would be sent.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{Needs, Source};
use crate::cli::{Code, Usage};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Options {
    /// Write it to this file, which must not be there yet, with its secrets, for its owner alone. Default: standard output, secrets
    /// masked.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let needs = Needs {
        platform: false,
        values: true,
    };
    let chosen = options.source.open(needs)?;
    match &options.out {
        None => print!("{}", chosen.config.masked().to_file()),
        Some(out) => {
            write(out, &chosen.config.to_file())?;
            println!(
                "{} holds the configuration with its secrets, for its owner alone",
                out.display()
            );
        }
    }
    Ok(Code::Ok)
}

fn write(out: &Path, text: &str) -> anyhow::Result<()> {
    let place = out.display();
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
    let mut file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Usage(format!(
            "{place} is there already: remove it first, or name another one"
        )),
        _ => Usage(format!("{place}: {error}")),
    })?;
    file.write_all(text.as_bytes()).with_context(|| place.to_string())
}
