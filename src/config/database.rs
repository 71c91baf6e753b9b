//! The settings around the database: where it is, and what must be said without it.

use jiff::Timestamp;

use super::{Flags, Reader, given, shown};
use crate::dedupe::RedisUrl;
use crate::postgres::DatabaseUrl;

/// What becomes of records that may be a repetition, where no database can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OldRecords {
    /// Whoever settles must be idempotent.
    #[default]
    Deliver,
    /// With the policy reason `needs_effects_check`.
    DeadLetter,
}

/// What follows from `DATABASE_URL`, or must be given without it.
pub(super) struct Ledger {
    pub(super) database: Option<DatabaseUrl>,
    pub(super) program_file: Option<String>,
    pub(super) effective_from: Option<Timestamp>,
    pub(super) old_records: OldRecords,
}

impl Reader {
    pub(super) fn ledger(&mut self, flags: &Flags) -> Ledger {
        let url = given(flags.database_url.as_deref());
        let database = url.and_then(|url| {
            let parsed = DatabaseUrl::parse(url);
            parsed.map_err(|problem| self.problems.push(problem)).ok()
        });
        let (program_file, effective_from) = (flags.program_file.as_deref(), flags.ledger_effective_from.as_deref());
        if url.is_none() {
            self.required(
                program_file,
                "PROGRAM_FILE",
                "the loyalty programs; or set DATABASE_URL, which has them",
            );
            self.required(
                effective_from,
                "LEDGER_EFFECTIVE_FROM",
                "rows created before this instant are ignored (1970-01-01T00:00:00Z: none)",
            );
        }
        let old_records = match given(flags.old_records.as_deref()) {
            None | Some("deliver") => OldRecords::Deliver,
            Some("deadletter") => OldRecords::DeadLetter,
            Some(other) => {
                let problem = format!("OLD_RECORDS is `{}`: deliver or deadletter", shown(other));
                self.problems.push(problem);
                OldRecords::Deliver
            }
        };
        self.demand(
            url.is_none() || given(flags.old_records.as_deref()).is_none(),
            "OLD_RECORDS is for a worker without DATABASE_URL: with it every such record is compared with what was settled",
        );
        Ledger {
            database,
            program_file: given(program_file).map(ToOwned::to_owned),
            effective_from: self.effective_from(flags),
            old_records,
        }
    }

    /// Where the last good programs are kept: by default beside the claims.
    pub(super) fn cache_url(&mut self, flags: &Flags, dedupe: Option<&RedisUrl>) -> Option<RedisUrl> {
        match given(flags.crm_cache_redis_url.as_deref()) {
            Some(url) => RedisUrl::parse_variable("CRM_CACHE_REDIS_URL", url)
                .map_err(|error| self.problems.push(error.to_string()))
                .ok(),
            None => dedupe.cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problems, Settings};

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    /// Without a word about programs, cut-off or database.
    fn bare() -> Flags {
        Flags {
            kafka_bootstrap_servers: some("localhost:9092"),
            redis_url: some("redis://localhost"),
            inngest_event_key: some("key"),
            ..Flags::default()
        }
    }

    fn problems(flags: &Flags) -> Vec<String> {
        let Problems(problems) = Settings::from_flags(flags).expect_err("a problem");
        problems
    }

    #[test]
    fn with_a_database_neither_programs_nor_a_cut_off_must_be_given() {
        let missing = problems(&bare());
        assert_eq!(missing.len(), 2, "{missing:?}");
        let flags = Flags {
            database_url: some("postgres://crm:sentinel-secret@db.example/crm"),
            ..bare()
        };
        let settings = Settings::from_flags(&flags).expect("valid");
        assert!(settings.database.is_some());
        assert_eq!(
            (settings.program_file.as_deref(), settings.effective_from),
            (None, None)
        );
        assert!(!format!("{settings:?}").contains("sentinel-secret"));
    }

    #[test]
    fn what_is_given_beside_a_database_is_kept() {
        let flags = Flags {
            database_url: some("postgres://crm@db.example/crm"),
            program_file: some("programs.json"),
            ledger_effective_from: some("2026-11-01T00:00:00Z"),
            crm_cache_redis_url: some("redis://cache.example/1"),
            ..bare()
        };
        let settings = Settings::from_flags(&flags).expect("valid");
        assert_eq!(settings.program_file.as_deref(), Some("programs.json"));
        assert!(settings.effective_from.is_some());
        let wrong = Flags {
            ledger_effective_from: some("yesterday"),
            crm_cache_redis_url: some("http://cache.example"),
            database_url: some("mysql://crm:sentinel-secret@db.example/crm"),
            ..flags
        };
        let wrong = problems(&wrong);
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        for name in ["LEDGER_EFFECTIVE_FROM", "CRM_CACHE_REDIS_URL", "DATABASE_URL"] {
            assert!(wrong.iter().any(|problem| problem.contains(name)), "{wrong:?}");
        }
        assert!(!wrong.concat().contains("sentinel-secret"));
    }

    #[test]
    fn old_records_go_to_the_dead_letters_only_where_no_database_can_tell() {
        let flags = Flags {
            program_file: some("programs.json"),
            ledger_effective_from: some("2026-11-01T00:00:00Z"),
            ..bare()
        };
        let settings = Settings::from_flags(&flags).expect("valid");
        assert_eq!(settings.old_records, OldRecords::Deliver);
        let flags = Flags {
            old_records: some("deadletter"),
            ..flags
        };
        let settings = Settings::from_flags(&flags).expect("valid");
        assert_eq!(settings.old_records, OldRecords::DeadLetter);
        let both = Flags {
            database_url: some("postgres://crm@db.example/crm"),
            ..flags.clone()
        };
        assert_eq!(problems(&both).len(), 1);
        let unknown = Flags {
            old_records: some("ignore"),
            ..flags
        };
        assert_eq!(problems(&unknown).len(), 1);
    }
}
