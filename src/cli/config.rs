//! `config`: the settings as they are understood, secrets redacted.

use super::Code;
use crate::config::{Looking, RunFlags, Settings};

pub(super) fn run(flags: &RunFlags) -> anyhow::Result<Code> {
    let (settings, looking) = flags.understood()?;
    println!("{}", understood(&settings, &looking));
    Ok(Code::Ok)
}

/// As the console shows them, too.
pub(super) fn understood(settings: &Settings, looking: &Looking) -> String {
    format!("{settings:#?}\n{looking:#?}")
}
