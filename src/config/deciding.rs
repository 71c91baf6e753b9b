//! The settings that decisions alone need. Takes the same flags and gives them the same meaning as [`Settings`], without
//! asking for a broker, a store or a key.
//!
//! [`Settings`]: super::Settings

use jiff::Timestamp;

use super::{Flags, Problems, Reader, given, topic_prefix};
use crate::consumers::Consumer;
use crate::debezium::DecimalMode;

/// What `explain` decides with.
#[derive(Debug, Clone)]
pub struct Deciding {
    pub topic_prefix: String,
    pub consumers: Vec<Consumer>,
    pub decimals: DecimalMode,
    pub program_file: Option<String>,
    pub effective_from: Option<Timestamp>,
}

impl Deciding {
    /// # Errors
    /// Every problem at once.
    pub fn from_flags(flags: &Flags) -> Result<Self, Problems> {
        let mut reader = Reader { problems: Vec::new() };
        let deciding = Self {
            topic_prefix: topic_prefix(flags),
            consumers: reader
                .consumers(flags)
                .into_iter()
                .map(|(consumer, _lanes)| consumer)
                .collect(),
            decimals: reader.decimals(given(flags.decimal_mode.as_deref())),
            program_file: given(flags.program_file.as_deref()).map(ToOwned::to_owned),
            effective_from: reader.effective_from(flags),
        };
        if reader.problems.is_empty() {
            Ok(deciding)
        } else {
            Err(Problems(reader.problems))
        }
    }
}
