//! `config`: the settings as they are understood, secrets redacted.

use super::Code;
use crate::config::{Flags, Settings};

pub(super) fn run(flags: &Flags) -> anyhow::Result<Code> {
    let settings = Settings::from_flags(flags)?;
    println!("{settings:#?}");
    Ok(Code::Ok)
}
