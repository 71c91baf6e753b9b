//! Our clock beside those of others.

use crate::doctor::catalogue::CLOCK_SKEW;
use crate::doctor::finding::{Finding, Verdicts};

/// Somebody else's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    pub whose: &'static str,
    /// How far it is before ours.
    pub ahead_ms: i64,
    /// By how much that may be wrong.
    pub unsure_ms: i64,
}

/// Due times are compared with our clock, and nothing else would show that it is wrong.
const SKEW_MS: i64 = 5_000;
const MUCH_SKEW_MS: i64 = 60_000;

#[must_use]
pub fn judge(others: &[Other]) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let certain = |other: &Other| (other.ahead_ms.abs() - other.unsure_ms).max(0);
    let Some(worst) = others.iter().max_by_key(|other| certain(other)) else {
        verdicts.push(Finding::unknown(
            CLOCK_SKEW,
            "nobody told the time: neither the database nor Inngest answered",
        ));
        return verdicts;
    };
    let said = |other: &Other| {
        let way = if other.ahead_ms < 0 { "behind" } else { "ahead of" };
        format!("{} is {} ms {way} us", other.whose, other.ahead_ms.abs())
    };
    let all: Vec<String> = others.iter().map(said).collect();
    verdicts.push(if certain(worst) < SKEW_MS {
        Finding::ok(CLOCK_SKEW, all.join(", "))
    } else {
        let what = "this machine's clock and another one differ: what is due is found due too early or too late";
        Finding::graded(CLOCK_SKEW, certain(worst) >= MUCH_SKEW_MS, what)
            .saw(all.join(", "))
            .fix("Find out whose is wrong, and synchronise it: `timedatectl status`, `chronyc tracking`")
    });
    verdicts
}

#[cfg(test)]
mod tests {
    use super::super::tests::of;
    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn a_clock_that_is_surely_off_is_told_in_either_direction() {
        let other = |ahead_ms, unsure_ms| Other {
            whose: "PostgreSQL",
            ahead_ms,
            unsure_ms,
        };
        for (others, severity) in [
            (vec![], Severity::NotVerifiable),
            (vec![other(4_999, 0)], Severity::Ok),
            (vec![other(-5_500, 600)], Severity::Ok),
            (vec![other(0, 0), other(-5_000, 0)], Severity::Warning),
            (vec![other(61_000, 1_000)], Severity::Failed),
        ] {
            assert_eq!(of(&judge(&others), CLOCK_SKEW).severity, severity, "{others:?}");
        }
    }
}
