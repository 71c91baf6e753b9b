//! Windows against each other: what one net forgets the next must still know.

use crate::doctor::catalogue::{WINDOW_DEDUPE, WINDOW_EVENT_ID, WINDOW_SLOT};
use crate::doctor::finding::{Finding, Verdicts};
use crate::pipeline::OldRecords;

use super::slot::keep_wal;
use super::{bytes, span};

/// What is compared.
#[derive(Debug, Clone)]
pub struct Windows {
    /// `None`: nothing is claimed.
    pub dedupe_s: Option<u64>,
    pub session_s: u64,
    pub drain_s: u64,
    pub lease_s: u64,
    pub has_database: bool,
    pub old_records: OldRecords,
    /// How much a slot may hold back, and bytes of WAL a second; or why nobody knows.
    pub slot: Result<(Option<i64>, f64), String>,
}

/// An outage that begins on an evening is seen in the morning.
const NIGHT_S: f64 = 12.0 * 3600.0;

#[must_use]
pub fn judge(windows: &Windows) -> Verdicts {
    let mut verdicts = Verdicts::default();
    verdicts.push(dedupe(windows));
    verdicts.push(if windows.has_database {
        Finding::ok(
            WINDOW_EVENT_ID,
            "what is older than 20 h is compared with what was settled, before Inngest forgets its id after 24 h",
        )
    } else if windows.old_records == OldRecords::DeadLetter {
        Finding::ok(
            WINDOW_EVENT_ID,
            "what may be a repetition is set aside (OLD_RECORDS=deadletter)",
        )
    } else {
        Finding::warning(
            WINDOW_EVENT_ID,
            "Inngest forgets an id after 24 h, and nothing here remembers for longer",
        )
        .saw("DATABASE_URL is not set, and OLD_RECORDS is deliver")
        .fix("Set DATABASE_URL; or make every function compare with what it booked; or OLD_RECORDS=deadletter")
    });
    verdicts.push(slot(&windows.slot));
    verdicts
}

fn dedupe(windows: &Windows) -> Finding {
    let Windows {
        session_s,
        drain_s,
        lease_s,
        ..
    } = windows;
    let Some(window_s) = windows.dedupe_s else {
        return Finding::ok(WINDOW_DEDUPE, "a shadow claims nothing");
    };
    // A killed worker's partitions come back after a session, a stopped one's after its drain.
    let needed = session_s + drain_s + lease_s;
    if window_s >= needed {
        return Finding::ok(
            WINDOW_DEDUPE,
            format!("{window_s} s cover what a restart repeats within {needed} s"),
        );
    }
    let what =
        format!("what was delivered is forgotten after {window_s} s, and a restart repeats it up to {needed} s later");
    Finding::graded(WINDOW_DEDUPE, window_s <= *lease_s, what)
        .saw(format!(
            "a session of {session_s} s, a drain of {drain_s} s, a lease of {lease_s} s"
        ))
        .fix(format!("DEDUP_WINDOW_SECS={}", needed.max(300)))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "hours, said to people"
)]
fn slot(slot: &Result<(Option<i64>, f64), String>) -> Finding {
    match slot {
        Err(why) => Finding::unknown(WINDOW_SLOT, why),
        Ok((None, _)) => Finding::ok(WINDOW_SLOT, "a slot holds back WAL without limit"),
        Ok((Some(limit), rate)) => {
            let seconds = *limit as f64 / rate.max(1.0);
            let lasts = span(seconds as i64);
            if seconds >= NIGHT_S {
                return Finding::ok(
                    WINDOW_SLOT,
                    format!("a connector may be away for {lasts} at the usual load"),
                );
            }
            Finding::warning(
                WINDOW_SLOT,
                format!("a connector that is away for {lasts} loses its slot, at the usual load"),
            )
            .saw(format!(
                "{} may be held back, and {} are written in an hour",
                bytes(*limit),
                bytes((rate * 3600.0) as i64)
            ))
            .fix(keep_wal((rate * 2.0 * NIGHT_S) as i64))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{of, troubles};
    use super::*;
    use crate::doctor::finding::Severity;

    fn windows() -> Windows {
        Windows {
            dedupe_s: Some(300),
            session_s: 45,
            drain_s: 25,
            lease_s: 10,
            has_database: true,
            old_records: OldRecords::Deliver,
            slot: Ok((Some(4 << 30), 1000.0)),
        }
    }

    #[test]
    fn the_defaults_are_well() {
        let verdicts = judge(&windows());
        assert_eq!((troubles(&verdicts), verdicts.findings().len()), (vec![], 3));
        assert!(
            verdicts.findings().iter().all(|one| one.severity == Severity::Ok),
            "{verdicts:?}"
        );
    }

    #[test]
    fn a_window_that_ends_before_the_repeats_do_is_told() {
        for (dedupe_s, severity) in [
            (Some(80), Severity::Ok),
            (Some(79), Severity::Warning),
            (Some(10), Severity::Failed),
            (None, Severity::Ok),
        ] {
            let verdicts = judge(&Windows { dedupe_s, ..windows() });
            assert_eq!(of(&verdicts, WINDOW_DEDUPE).severity, severity, "{dedupe_s:?}");
        }
    }

    #[test]
    fn without_a_database_only_setting_aside_covers_what_inngest_forgets() {
        let without = |old_records| Windows {
            has_database: false,
            old_records,
            ..windows()
        };
        assert_eq!(
            troubles(&judge(&without(OldRecords::Deliver))),
            [("window.event-id", Severity::Warning)]
        );
        assert_eq!(troubles(&judge(&without(OldRecords::DeadLetter))), []);
    }

    #[test]
    fn a_slot_that_does_not_last_a_night_is_told_with_what_would() {
        let busy = Windows {
            slot: Ok((Some(1 << 30), 1_048_576.0)),
            ..windows()
        };
        let finding = of(&judge(&busy), WINDOW_SLOT);
        assert_eq!(finding.severity, Severity::Warning);
        assert!(finding.fix.is_some_and(|fix| fix.contains("'85GB'")));
        let blind = Windows {
            slot: Err("no database".to_owned()),
            ..windows()
        };
        assert_eq!(of(&judge(&blind), WINDOW_SLOT).severity, Severity::NotVerifiable);
    }
}
