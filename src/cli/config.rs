//! `config`: the settings as they are understood, secrets redacted.

use super::Code;
use crate::config::RunFlags;

pub(super) fn run(flags: &RunFlags) -> anyhow::Result<Code> {
    let (settings, looking) = flags.understood()?;
    println!("{settings:#?}\n{looking:#?}");
    Ok(Code::Ok)
}
