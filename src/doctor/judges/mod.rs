//! What was seen, judged: takes facts, gives findings. Pure: a table holds each finding to the facts that lead to it.
//!
//! A judge says something about every id of its area; about what it could not see it says so. It never takes silence for
//! health, and it prints no secret: facts hold none.

pub mod clock;
pub mod connector;
pub mod group;
pub mod inngest;
pub mod kafka;
pub mod names;
pub mod postgres;
pub mod redis;
pub mod slot;
pub mod windows;

/// Bytes, as people say them.
fn bytes(count: i64) -> String {
    const UNITS: [(i64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| count.abs() >= *unit) {
        Some((unit, name)) => {
            let tenths = count / (unit / 10).max(1);
            format!("{}.{} {name}", tenths / 10, (tenths % 10).abs())
        }
        None => format!("{count} bytes"),
    }
}

/// A time that passed or is left, as people say it.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Changes a setting of the database server. Not in one string: `alter system` goes into no transaction, and a string of two
/// statements is one. Supabase lets nobody alter the system, and has a command for it.
fn set_server(setting: &str, value: &str) -> String {
    format!(
        "alter system set {setting} = '{value}';\nselect pg_reload_conf();\non Supabase: supabase --experimental --project-ref <ref> \
         postgres-config update --config {setting}={value}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::catalogue::Id;
    use crate::doctor::finding::{Finding, Severity, Verdicts};

    /// What is said of an id, which must be said once.
    pub(super) fn of(verdicts: &Verdicts, id: Id) -> Finding {
        let mut found = verdicts.findings().iter().filter(|finding| finding.id == id);
        let first = found.next().unwrap_or_else(|| panic!("nothing is said of {id:?}"));
        assert_eq!(found.next(), None, "{id:?} is said twice");
        first.clone()
    }

    /// The ids that failed or warn.
    pub(super) fn troubles(verdicts: &Verdicts) -> Vec<(&'static str, Severity)> {
        let bad = |finding: &&Finding| matches!(finding.severity, Severity::Failed | Severity::Warning);
        let troubles = verdicts.findings().iter().filter(bad);
        troubles.map(|finding| (finding.id.name(), finding.severity)).collect()
    }

    #[test]
    fn sizes_and_times_are_said_as_people_say_them() {
        assert_eq!(bytes(12), "12 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(4 << 30), "4.0 GiB");
        assert_eq!(
            (span(5), span(300), span(7200)),
            ("5 s".into(), "5 min".into(), "2 h".into())
        );
        assert_eq!(span(604_800), "7 days");
    }
}
