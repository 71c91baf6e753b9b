//! The books of events: takes what each change owes and what was accepted, gives what is lost, doubled and resent.
//!
//! It knows ids and times only. What a change owes is told before its record is written.

use std::collections::HashMap;
use std::time::Duration;

/// What one change owes for one business fact of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Debt {
    /// An event of its own, unless a later change of the row has one: the newest state supersedes.
    Owed,
    /// Perhaps one: the change does not prove that anything is new, so the worker asks what was settled. Whether it was right
    /// the ledger tells.
    Perhaps,
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    /// By all of an id but its version: the changes of that fact, in their order.
    facts: HashMap<String, Vec<Entry>>,
    /// By id, what the database announced: tiers and missions.
    announced: HashMap<String, u32>,
    tally: Tally,
    /// Accepted events by tenths of a second since the begin.
    activity: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    lsn: u64,
    debt: Debt,
    accepted: u32,
}

/// What was counted while events came.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Tally {
    /// Accepted events, repeats included.
    pub(crate) accepted: u64,
    /// The same id again.
    pub(crate) resent: u64,
    /// A second id of one change, or an id that no change has.
    pub(crate) doubled: u64,
    /// Sent once more on purpose by the reconciler, and marked so.
    pub(crate) healed: u64,
    /// A few of the ids that are doubled or lost, to begin a search with.
    pub(crate) examples: Vec<String>,
}

/// How the books stand at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Balance {
    #[serde(flatten)]
    pub(crate) tally: Tally,
    /// Changes that owe an event, and announcements.
    pub(crate) owed: u64,
    pub(crate) lost: u64,
    /// Owed, and covered by the event of a later change.
    pub(crate) superseded: u64,
}

/// Fine enough for a recovery of less than a second.
pub(crate) const STEP: Duration = Duration::from_millis(100);
const EXAMPLES: usize = 10;

impl Books {
    /// A change, told before its record is written. `fact` is the id of its event without the version.
    pub(crate) fn owe(&mut self, fact: String, lsn: u64, debt: Debt) {
        let entry = Entry { lsn, debt, accepted: 0 };
        self.facts.entry(fact).or_default().push(entry);
    }

    /// An accepted event, so long after the begin.
    pub(crate) fn accept(&mut self, id: &str, since: Duration) {
        let step = usize::try_from(since.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX - 1);
        if self.activity.len() <= step {
            self.activity.resize(step + 1, 0);
        }
        if let Some(count) = self.activity.get_mut(step) {
            *count += 1;
        }
        self.tally.accepted += 1;
        if id.starts_with("tier:") || id.starts_with("mission:") {
            let times = self.announced.entry(id.to_owned()).or_default();
            *times += 1;
            self.tally.resent += u64::from(*times > 1);
            return;
        }
        if let Some((_, mark)) = id.rsplit_once('#')
            && mark
                .strip_prefix('h')
                .is_some_and(|number| number.parse::<u8>().is_ok())
        {
            self.tally.healed += 1;
            return;
        }
        let entry = id.rsplit_once(':').and_then(|(fact, version)| {
            let version: u64 = version.parse().ok()?;
            let entries = self.facts.get_mut(fact)?;
            entries.iter_mut().find(|entry| entry.lsn == version)
        });
        match entry {
            Some(entry) => {
                entry.accepted += 1;
                self.tally.resent += u64::from(entry.accepted > 1);
            }
            None => self.double(id),
        }
    }

    /// The books against what the database says that it announced, whoever sent it.
    pub(crate) fn balance<'a>(mut self, announcements: impl Iterator<Item = &'a str>) -> (Balance, Activity) {
        let (mut owed, mut lost, mut superseded) = (0, 0, 0);
        let mut missing = Vec::new();
        for (fact, entries) in &self.facts {
            // From the newest to the oldest: what covers the rest is known when the rest is looked at.
            let mut covered = false;
            for entry in entries.iter().rev() {
                let accepted = entry.accepted > 0;
                if entry.debt == Debt::Owed {
                    owed += 1;
                    if !accepted && covered {
                        superseded += 1;
                    } else if !accepted {
                        lost += 1;
                        missing.push(format!("lost: {fact}:{}", entry.lsn));
                    }
                }
                covered |= accepted || entry.debt == Debt::Perhaps;
            }
        }
        for id in announcements {
            owed += 1;
            if self.announced.remove(id).is_none() {
                lost += 1;
                missing.push(format!("lost: {id}"));
            }
        }
        // What is left was announced by nobody.
        for id in std::mem::take(&mut self.announced).into_keys() {
            self.double(&id);
        }
        missing.sort_unstable();
        self.tally.examples.extend(missing.into_iter().take(EXAMPLES));
        let balance = Balance {
            tally: self.tally,
            owed,
            lost,
            superseded,
        };
        (balance, Activity(self.activity))
    }

    pub(crate) const fn tally(&self) -> &Tally {
        &self.tally
    }

    fn double(&mut self, id: &str) {
        self.tally.doubled += 1;
        if self.tally.examples.len() < EXAMPLES {
            self.tally.examples.push(format!("doubled: {id}"));
        }
    }
}

/// When events were accepted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activity(pub(crate) Vec<u32>);

impl Activity {
    /// The longest time without an accepted event between two instants.
    pub(crate) fn silence(&self, from: Duration, until: Duration) -> Duration {
        let (from, until) = (steps(from), steps(until));
        let (mut longest, mut quiet) = (0, 0);
        for step in from..until {
            let busy = self.0.get(step).is_some_and(|count| *count > 0);
            quiet = if busy { 0 } else { quiet + 1 };
            longest = longest.max(quiet);
        }
        STEP * longest
    }

    /// From this instant to the first event after it; `None` if none came any more.
    pub(crate) fn next_after(&self, instant: Duration) -> Option<Duration> {
        let from = steps(instant) + 1;
        let place = self.0.iter().skip(from).position(|count| *count > 0)?;
        let place = u32::try_from(from + place).unwrap_or(u32::MAX);
        Some((STEP * place).saturating_sub(instant))
    }
}

fn steps(instant: Duration) -> usize {
    usize::try_from(instant.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX)
}
