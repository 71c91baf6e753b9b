//! What ended lately and what went wrong last: for people who look, not for counting.
//!
//! A sample, because a record must not pay for it: the pipeline offers the first of a batch that ended so, and of one consumer
//! and outcome sixteen are taken at once, then one a second. Dead letters are all taken, into a ring of their own, so that
//! no load drives them out. A row's id is told, and nothing else of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Telemetry;
use crate::consumers::Consumer;
use crate::inert;
use crate::pipeline::Outcome;
use crate::record::TopicPartition;

const ENDED: usize = 150;
const DEAD: usize = 50;
/// So many of one consumer and outcome at once ...
const BURST: i64 = 16;
/// ... and then one in so many milliseconds.
const EVERY_MS: i64 = 1000;
/// Of what comes from outside, so many characters are kept.
const LONGEST: usize = 300;

/// How one record ended for one consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub at_ms: i64,
    /// The consumer's name, or `decode` for what failed before the fan-out.
    pub consumer: &'static str,
    pub place: TopicPartition,
    pub offset: i64,
    /// `None` for what nobody could read.
    pub row: Option<(&'static str, String)>,
    pub outcome: &'static str,
    pub reason: Option<&'static str>,
}

/// The last thing that went wrong for a consumer; it may be over.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LastError {
    pub at_ms: i64,
    /// Who answered so: a target, `dead_letters`, or `record` for what made a record a dead letter.
    pub target: &'static str,
    pub detail: String,
    /// When it is asked again, if it is by itself.
    pub again_ms: Option<i64>,
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    /// For each consumer and outcome, when the next but [`BURST`] is welcome, in ms since the epoch.
    welcome: [[AtomicI64; Outcome::LABELS.len()]; Consumer::ALL.len()],
    rings: Mutex<Rings>,
    errors: Mutex<BTreeMap<&'static str, LastError>>,
}

#[derive(Debug, Default)]
struct Rings {
    ended: VecDeque<Decided>,
    dead: VecDeque<Decided>,
}

impl Recent {
    /// Two lanes at once may both be told yes: one more than promised, and no lock.
    fn wants(&self, consumer: Consumer, outcome: &str, now_ms: i64) -> bool {
        let label = Outcome::LABELS.iter().position(|label| *label == outcome);
        let row = self.welcome.get(consumer.index());
        let Some(welcome) = row.zip(label).and_then(|(row, label)| row.get(label)) else {
            return false;
        };
        let due = welcome.load(Ordering::Relaxed);
        // So far ahead only if the clock was set back.
        let due = if due > now_ms.saturating_add(60_000) {
            now_ms
        } else {
            due.max(now_ms)
        };
        let is_welcome = due.saturating_sub(now_ms) <= (BURST - 1) * EVERY_MS;
        if is_welcome {
            welcome.store(due.saturating_add(EVERY_MS), Ordering::Relaxed);
        }
        is_welcome
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn errors(&self) -> MutexGuard<'_, BTreeMap<&'static str, LastError>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, decided: Decided) {
        let mut rings = self.rings();
        let (ring, most) = if decided.outcome == "dead_lettered" {
            (&mut rings.dead, DEAD)
        } else {
            (&mut rings.ended, ENDED)
        };
        if ring.len() >= most {
            ring.pop_front();
        }
        ring.push_back(decided);
    }

    fn newest_first(&self) -> Vec<Decided> {
        let rings = self.rings();
        let (ended, dead) = (rings.ended.iter().rev(), rings.dead.iter().rev());
        let mut all: Vec<Decided> = ended.chain(dead).cloned().collect();
        drop(rings);
        all.sort_by_key(|decided| std::cmp::Reverse(decided.at_ms));
        all
    }
}

/// What outsiders wrote, fit to be shown, and not too long for it.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (number, character) in text.chars().enumerate() {
        if number == LONGEST {
            shown.push('…');
            break;
        }
        inert::push(&mut shown, character);
    }
    shown
}

impl Telemetry {
    /// Whether one more record of this consumer with this outcome shall be told; asked before anything is copied for it.
    #[must_use]
    pub fn wants(&self, consumer: Consumer, outcome: &str, now_ms: i64) -> bool {
        self.seen.recent.wants(consumer, outcome, now_ms)
    }

    /// A record ended so.
    pub fn decided(&self, mut decided: Decided) {
        decided.row = decided.row.map(|(table, id)| (table, shown(&id)));
        self.seen.recent.push(decided);
    }

    /// The last that were told, newest first: no dead letter of the last fifty is missing, of the others there are samples.
    #[must_use]
    pub fn recent(&self) -> Vec<Decided> {
        self.seen.recent.newest_first()
    }

    /// Something went wrong on behalf of a consumer, or of `decode`; `again` is when it is tried once more, if it is by itself.
    pub fn went_wrong(
        &self,
        consumer: &'static str,
        target: &'static str,
        detail: &str,
        at_ms: i64,
        again: Option<Duration>,
    ) {
        let in_ms = |wait: Duration| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let error = LastError {
            at_ms,
            target,
            detail: shown(detail),
            again_ms: again.map(|wait| at_ms.saturating_add(in_ms(wait))),
        };
        let _before = self.seen.recent.errors().insert(consumer, error);
    }

    #[must_use]
    pub fn last_error(&self, consumer: &str) -> Option<LastError> {
        self.seen.recent.errors().get(consumer).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(at_ms: i64, outcome: &'static str) -> Decided {
        Decided {
            at_ms,
            consumer: "tier",
            place: TopicPartition { topic: 0, partition: 0 },
            offset: at_ms,
            row: None,
            outcome,
            reason: None,
        }
    }

    #[test]
    fn sixteen_are_taken_at_once_then_one_a_second_and_each_outcome_by_itself() {
        let recent = Recent::default();
        let taken = |consumer, outcome, now_ms| (0..100).filter(|_| recent.wants(consumer, outcome, now_ms)).count();
        let now_ms = 1_795_176_000_000;
        assert_eq!(taken(Consumer::Tier, "delivered", now_ms), 16);
        assert_eq!(taken(Consumer::Tier, "delivered", now_ms + 999), 0);
        assert_eq!(taken(Consumer::Tier, "delivered", now_ms + 1000), 1);
        assert_eq!(taken(Consumer::Tier, "ignored", now_ms), 16);
        assert_eq!(taken(Consumer::Reward, "delivered", now_ms), 16);
        assert_eq!(taken(Consumer::Tier, "delivered", now_ms + 60_000), 16);
        assert_eq!(taken(Consumer::Tier, "nothing of ours", now_ms), 0);
        assert!(
            taken(Consumer::Tier, "delivered", now_ms - 3_600_000) > 0,
            "the clock was set back"
        );
    }

    #[test]
    fn no_load_drives_a_dead_letter_out() {
        let recent = Recent::default();
        recent.push(decided(1, "dead_lettered"));
        for at_ms in 2..2000 {
            recent.push(decided(at_ms, "delivered"));
        }
        let all = recent.newest_first();
        assert_eq!(all.len(), ENDED + 1);
        assert_eq!(all.first().map(|decided| decided.at_ms), Some(1999));
        assert_eq!(all.last().map(|decided| decided.outcome), Some("dead_lettered"));
        for at_ms in 2000..2100 {
            recent.push(decided(at_ms, "dead_lettered"));
        }
        assert_eq!(recent.newest_first().len(), ENDED + DEAD);
    }

    #[test]
    fn what_outsiders_wrote_is_inert_and_short() {
        let telemetry = Telemetry::new().expect("instruments");
        let row = Some(("codes", format!("a\u{1b}[2J\u{202e}{}", "b".repeat(1000))));
        telemetry.decided(Decided {
            row,
            ..decided(1, "delivered")
        });
        let kept = telemetry.recent().remove(0).row.expect("a row").1;
        assert!(kept.starts_with("a\\u001b[2J\\u202ebb"), "{kept}");
        assert!(kept.chars().count() < 330, "{kept}");
        let again = Some(Duration::from_millis(3));
        telemetry.went_wrong("tier", "inngest", "no\nlevel=ERROR", 7, again);
        let error = telemetry.last_error("tier").expect("an error");
        assert_eq!((error.detail.as_str(), error.again_ms), ("no\\nlevel=ERROR", Some(10)));
        assert_eq!(telemetry.last_error("reward"), None);
    }
}
