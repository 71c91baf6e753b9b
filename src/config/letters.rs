//! The settings of the commands that only look at topics. Takes the same flags and gives them the same meaning as
//! [`Settings`], without asking for a store or a key.
//!
//! [`Settings`]: super::Settings

use super::{Flags, Problems, Reader, given, topic_prefix};
use crate::kafka::Asker;

/// What `dlq list`, `show` and `drop` work with.
#[derive(Debug, Clone)]
pub struct Letters {
    pub asker: Asker,
    pub topic_prefix: String,
}

impl Letters {
    /// # Errors
    /// Every problem at once.
    pub fn from_flags(flags: &Flags) -> Result<Self, Problems> {
        let mut reader = Reader { problems: Vec::new() };
        let kafka = reader.kafka(flags);
        match (kafka, reader.problems.is_empty()) {
            (Some(connection), true) => Ok(Self {
                asker: Asker {
                    connection,
                    group: given(flags.consumer_group_id.as_deref())
                        .unwrap_or("crm-event-processors")
                        .to_owned(),
                },
                topic_prefix: topic_prefix(flags),
            }),
            _ => Err(Problems(reader.problems)),
        }
    }
}
