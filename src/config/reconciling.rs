//! The settings of the commands that ask the database. Takes the same flags and gives them the same meaning as
//! [`Settings`], without asking for a broker.
//!
//! [`Settings`]: super::Settings

use std::time::Duration;

use super::{Flags, Inngest, Problems, Reader, given};
use crate::consumers::Consumer;
use crate::dedupe::RedisUrl;
use crate::postgres::DatabaseUrl;

/// What `reconcile` and `explain` of an id work with.
#[derive(Debug, Clone)]
pub struct Reconciling {
    pub database: DatabaseUrl,
    pub consumers: Vec<Consumer>,
    pub program_file: Option<String>,
    /// Where what is missing is sent; only if it is to be.
    pub out: Option<Out>,
}

/// The way out.
#[derive(Debug, Clone)]
pub struct Out {
    pub redis_url: RedisUrl,
    pub dedup_window: Duration,
    pub inngest: Inngest,
}

impl Reconciling {
    /// # Errors
    /// Every problem at once.
    pub fn from_flags(flags: &Flags, sends: bool) -> Result<Self, Problems> {
        let mut reader = Reader { problems: Vec::new() };
        let url = reader.required(
            flags.database_url.as_deref(),
            "DATABASE_URL",
            "where the ledgers and their effects are",
        );
        let database = url.and_then(|url| {
            let parsed = DatabaseUrl::parse(url);
            parsed.map_err(|problem| reader.problems.push(problem)).ok()
        });
        let consumers = reader
            .consumers(flags)
            .into_iter()
            .map(|(consumer, _lanes)| consumer)
            .collect();
        let out = if sends { reader.out(flags) } else { None };
        match (database, reader.problems.is_empty()) {
            (Some(database), true) => Ok(Self {
                database,
                consumers,
                program_file: given(flags.program_file.as_deref()).map(ToOwned::to_owned),
                out,
            }),
            _ => Err(Problems(reader.problems)),
        }
    }
}

impl Reader {
    pub(super) fn out(&mut self, flags: &Flags) -> Option<Out> {
        let inngest = self.inngest(flags);
        let window = self.number(flags.dedup_window_secs.as_deref(), "DEDUP_WINDOW_SECS", 1..=86_400);
        let redis_url = self.redis_url(flags);
        Some(Out {
            redis_url: redis_url?,
            dedup_window: Duration::from_secs(u64::from(window.unwrap_or(300))),
            inngest: inngest?,
        })
    }

    pub(super) fn redis_url(&mut self, flags: &Flags) -> Option<RedisUrl> {
        let url = self.required(flags.redis_url.as_deref(), "REDIS_URL", "the dedupe store")?;
        let parsed = RedisUrl::parse(url);
        parsed.map_err(|error| self.problems.push(error.to_string())).ok()
    }
}
