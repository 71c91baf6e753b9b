//! When dead letters are no accident any more: something is wrong with *us*, and only an operator ends it.
//!
//! Takes how every record of a queue ended, says whether one more may be buried. A letter that was admitted and not
//! written, because its record went with its partition, is withdrawn: whoever reads that next counts it. Each queue is counted by itself: one a
//! consumer, and one for what failed before the fan-out, which halts everybody. The letter that would cross the line is
//! not written but held, so that nothing is committed past it and a restart reads it again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::consumers::Consumer;
use crate::dead_letters::Queue;

/// A letter that may be written. Holds which record of the window it is, if it counts.
#[derive(Debug)]
pub(super) struct Admitted(Option<u64>);

/// Among so many records ...
const WINDOW: u64 = 1000;
/// ... so many dead letters halt the queue: one in ten, or a run of a hundred. A few dozen bad rows of one import pass; a
/// wrong setting, which fails every record, costs 99 letters and not a ledger.
const MOST: usize = 100;

pub(super) struct Halts {
    /// An operator has seen the letters and wants them written.
    accept: bool,
    decode: Halt,
    consumers: [Halt; Consumer::ALL.len()],
}

#[derive(Default)]
struct Halt {
    /// Records that ended, letters included.
    ended: AtomicU64,
    /// The letters of the last [`WINDOW`] records: which record it was, and its reason.
    letters: Mutex<VecDeque<(u64, &'static str)>>,
    reason: OnceLock<String>,
}

impl Halts {
    pub(super) fn new(accept: bool) -> Self {
        Self {
            accept,
            decode: Halt::default(),
            consumers: Consumer::ALL.map(|_| Halt::default()),
        }
    }

    /// Records ended in another way than as a dead letter.
    pub(super) fn ended(&self, queue: Queue, records: usize) {
        if let Some(halt) = self.of(queue) {
            halt.ended.fetch_add(records as u64, Ordering::Relaxed);
        }
    }

    /// Whether this dead letter may be written. `None` for good once there were too many. What a policy of ours sets aside
    /// is no sign of a fault and does not count.
    pub(super) fn admit(&self, queue: Queue, reason: &'static str, policy: bool) -> Option<Admitted> {
        let halt = self.of(queue)?;
        if halt.reason.get().is_some() {
            return None;
        }
        if policy || self.accept {
            return Some(Admitted(None));
        }
        match halt.count(reason) {
            Ok(number) => Some(Admitted(Some(number))),
            Err(text) => {
                if halt.reason.set(text.clone()).is_ok() {
                    tracing::error!(queue = queue.name(), reason = text, "halted until an operator acts");
                }
                None
            }
        }
    }

    /// An admitted letter was not written, and will not be.
    pub(super) fn withdraw(&self, queue: Queue, Admitted(number): Admitted) {
        if let (Some(halt), Some(number)) = (self.of(queue), number) {
            halt.letters().retain(|(counted, _)| *counted != number);
        }
    }

    /// Why the consumer is halted, if it is: by its own letters, or by those that failed for everybody.
    pub(super) fn reason(&self, consumer: Consumer) -> Option<String> {
        let own = self.consumers.get(consumer.index()).and_then(|halt| halt.reason.get());
        own.or_else(|| self.decode.reason.get()).cloned()
    }

    /// Whether the consumer's lanes must stop. Letters of the decode queue do not stop them: they hold their partitions.
    pub(super) fn stops(&self, consumer: Consumer) -> bool {
        let halt = self.consumers.get(consumer.index());
        halt.is_some_and(|halt| halt.reason.get().is_some())
    }

    fn of(&self, queue: Queue) -> Option<&Halt> {
        match queue {
            Queue::Decode => Some(&self.decode),
            Queue::Consumer(consumer) => self.consumers.get(consumer.index()),
        }
    }
}

impl Halt {
    fn letters(&self) -> MutexGuard<'_, VecDeque<(u64, &'static str)>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a letter and says which record it is; or what is wrong, if it is one too many.
    fn count(&self, reason: &'static str) -> Result<u64, String> {
        let number = self.ended.fetch_add(1, Ordering::Relaxed);
        let mut letters = self.letters();
        while letters.front().is_some_and(|(before, _)| before + WINDOW <= number) {
            letters.pop_front();
        }
        letters.push_back((number, reason));
        if letters.len() < MOST {
            return Ok(number);
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, reason) in letters.iter() {
            *counts.entry(reason).or_default() += 1;
        }
        let (most, count) = counts
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .unwrap_or((reason, MOST));
        let advice = match most {
            "wrong_decimal_mode" => "DECIMAL_MODE and the connector's decimal.handling.mode differ",
            _ => "see the letters",
        };
        let (letters, records) = (letters.len(), WINDOW.min(number + 1));
        Err(format!(
            "{letters} dead letters among the last {records} records, {count} of them {most}: {advice}; mend the cause and \
             restart, or restart with --accept-dead-letters"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIER: Queue = Queue::Consumer(Consumer::Tier);

    fn admitted(halts: &Halts, letters: usize) -> usize {
        (0..letters).filter_map(|_| halts.admit(TIER, "bad", false)).count()
    }

    #[test]
    fn the_hundredth_letter_in_a_row_is_not_admitted_and_none_after_it() {
        let halts = Halts::new(false);
        assert_eq!(admitted(&halts, 150), 99);
        halts.ended(TIER, 100_000);
        assert_eq!(admitted(&halts, 1), 0, "only a restart ends it");
        assert!(halts.stops(Consumer::Tier) && !halts.stops(Consumer::Currency));
        assert!(halts.admit(TIER, "policy", true).is_none(), "halted is halted");
    }

    #[test]
    fn one_letter_in_ten_records_is_too_many_and_one_in_eleven_is_not() {
        for (others, expected) in [(9, 99), (10, 1000)] {
            let halts = Halts::new(false);
            let mut written = 0;
            for _ in 0..1000 {
                written += admitted(&halts, 1);
                halts.ended(TIER, others);
            }
            assert_eq!(written, expected, "{others} others to each letter");
        }
    }

    #[test]
    fn policy_letters_do_not_count_and_an_operator_may_accept_all() {
        let halts = Halts::new(false);
        assert!((0..1000).all(|_| halts.admit(TIER, "ledger_rewritten", true).is_some()));
        assert_eq!(admitted(&halts, 150), 99);
        assert_eq!(admitted(&Halts::new(true), 150), 150);
    }

    #[test]
    fn the_reason_names_the_commonest_one_and_the_setting_that_is_wrong() {
        let halts = Halts::new(false);
        for number in 0..100 {
            let reason = if number % 3 == 0 {
                "not_json"
            } else {
                "wrong_decimal_mode"
            };
            halts.admit(Queue::Decode, reason, false);
        }
        let reason = halts.reason(Consumer::Mission).expect("it halts everybody");
        assert!(reason.starts_with("100 dead letters among the last 100 records, 66 of them wrong_decimal_mode"));
        assert!(reason.contains("DECIMAL_MODE"), "{reason}");
        assert!(!halts.stops(Consumer::Mission), "its partitions hold");
    }
}
