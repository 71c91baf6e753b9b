//! What becomes of decisions: delivered, or written down by a shadow, which needs no target.

use std::path::PathBuf;

use super::{Flags, Out, Reader, given};
use crate::dedupe::RedisUrl;

/// What becomes of decisions.
#[derive(Debug, Clone)]
pub enum Way {
    Deliver {
        out: Box<Out>,
        /// Where the last good programs of the database are kept.
        cache_url: Box<RedisUrl>,
    },
    /// Written down, and that is all.
    Shadow(ShadowOut),
}

/// Where a shadow writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShadowOut {
    Stdout,
    File(PathBuf),
}

impl Reader {
    pub(super) fn way(&mut self, flags: &Flags) -> Option<Way> {
        let shadow_out = given(flags.shadow_out.as_deref());
        if flags.shadow {
            return Some(Way::Shadow(match shadow_out {
                None | Some("-") => ShadowOut::Stdout,
                Some(path) => ShadowOut::File(PathBuf::from(path)),
            }));
        }
        self.demand(shadow_out.is_none(), "--shadow-out is for --shadow");
        let out = self.out(flags);
        let cache_url = self.cache_url(flags, out.as_ref().map(|out| &out.redis_url));
        Some(Way::Deliver {
            out: Box::new(out?),
            cache_url: Box::new(cache_url?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problems, Settings};
    use crate::kafka::StartAt;

    #[test]
    fn a_shadow_needs_no_target_and_has_a_group_of_its_own() {
        let some = |text: &str| Some(text.to_owned());
        let flags = Flags {
            shadow: true,
            kafka_bootstrap_servers: some("localhost:9092"),
            program_file: some("programs.json"),
            ledger_effective_from: some("2026-11-01T00:00:00Z"),
            start_at: some("end"),
            shadow_out: some("decisions.jsonl"),
            ..Flags::default()
        };
        let settings = Settings::from_flags(&flags).expect("valid");
        assert!(matches!(&settings.way, Way::Shadow(ShadowOut::File(path)) if path.ends_with("decisions.jsonl")));
        assert_eq!(settings.group.name(), "crm-event-processors-shadow");
        assert_eq!(settings.start_at, Some(StartAt::End));
        let flags = Flags {
            consumers: some("tier"),
            start_at: None,
            shadow_out: None,
            ..flags
        };
        let settings = Settings::from_flags(&flags).expect("valid");
        assert!(matches!(settings.way, Way::Shadow(ShadowOut::Stdout)));
        assert_eq!(settings.group.name(), "crm-event-processors-shadow-tier");
        assert_eq!(settings.start_at, Some(StartAt::Begin));
        let flags = Flags {
            shadow: false,
            shadow_out: some("decisions.jsonl"),
            redis_url: some("redis://localhost"),
            inngest_dev: some("1"),
            consumers: None,
            ..flags
        };
        let Problems(problems) = Settings::from_flags(&flags).expect_err("no shadow");
        assert_eq!(problems, ["--shadow-out is for --shadow"]);
    }
}
