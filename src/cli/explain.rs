//! placeholder
use super::Code;
#[derive(Debug, clap::Args)]
pub(super) struct Options {}
pub(super) fn run(_options: &Options) -> anyhow::Result<Code> {
    Ok(Code::Internal)
}
