//! The books: what the generator says must come out, against what the receiver accepted.
//!
//! Takes labels as they are produced and accepted events as raw JSON; gives the balance. It knows the events only by the
//! small shapes below and imports nothing that decodes, routes or decides: a test reads its imports.
//!
//! The rules, for each consumer and change:
//! - an eligible change is *delivered* if an event of it was accepted; an award also counts as *superseded* if one of a
//!   later change of its purchase was, a tier change if an accepted evaluation lists it; otherwise it is *lost*;
//! - the last accepted state of a purchase is the one of its last eligible change, else the purchase is *stale*;
//! - two distinct ids for one change are *doubled*, the same id again is *resent*;
//! - what no label allows is *unexpected*.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::accepted::{Award as AcceptedAward, Mission, RowRef, Tier, hundredths, micros};
use super::label::{Award, Change, Counted, Label, Ledger};

/// A consumer, in the words of the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reader {
    Currency,
    Tier,
    Mission,
}

/// Where a record stands in Kafka: topic, partition, offset.
pub(super) type Place = (String, i32, i64);

#[derive(Debug)]
pub(super) struct Books {
    /// The ids of the merchants, in the order of their numbers.
    merchants: Vec<&'static str>,
    readers: Vec<Reader>,
    produced: u64,
    changes: Vec<Entry>,
    /// By ledger, by number.
    rows: [Vec<Row>; 3],
    poison: BTreeMap<Place, &'static str>,
    letters: BTreeMap<Place, String>,
    letters_written: u64,
    resent: [u64; 3],
    doubled: [u64; 3],
    unexpected: Unexpected,
    samples: Vec<Sample>,
}

/// A change in the books. Rows and changes are numbers: a million of them must fit.
#[derive(Debug)]
struct Entry {
    /// The change of the same row before it.
    previous: Option<u32>,
    lsn: u64,
    commit_ms: i64,
    award: Option<Award>,
    tier: Option<&'static str>,
    mission: Option<Counted>,
    /// Hash of the first accepted id, by consumer.
    ids: [Option<u64>; 3],
    /// An accepted evaluation lists it.
    listed: bool,
}

#[derive(Debug)]
struct Row {
    user: u32,
    merchant: u8,
    last: u32,
    /// The state accepted last.
    state: Option<Award>,
}

/// What no label allows: counted, and the first few told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Unexpected {
    pub(super) count: u64,
    pub(super) examples: Vec<String>,
}

/// One award as it was accepted, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) id: String,
    pub(super) merchant: String,
    pub(super) amount: String,
    pub(super) refunded: String,
    pub(super) points: String,
    pub(super) due_at: String,
}

/// The balance of one consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Account {
    pub(super) eligible: u64,
    pub(super) delivered: u64,
    pub(super) superseded: u64,
    pub(super) lost: u64,
    pub(super) resent: u64,
    pub(super) doubled: u64,
    /// Purchases whose last accepted state is not their final one.
    pub(super) stale: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Balance {
    pub(super) produced: u64,
    pub(super) accounts: Vec<(Reader, Account)>,
    /// Poison records produced.
    pub(super) poison: u64,
    /// Records that have a dead letter, each counted once.
    pub(super) dead_lettered: u64,
    /// Letters of a record that has one already: a crash between the letter and the commit repeats it.
    pub(super) repeated_letters: u64,
    /// Poison records without a dead letter: skipped in silence.
    pub(super) unburied: u64,
    pub(super) unexpected: Unexpected,
    pub(super) samples: Vec<Sample>,
}

const EXAMPLES: usize = 5;
const SAMPLES: usize = 6;

impl Books {
    pub(super) fn new(merchants: Vec<&'static str>, readers: Vec<Reader>) -> Self {
        Self {
            merchants,
            readers,
            produced: 0,
            changes: Vec::new(),
            rows: [Vec::new(), Vec::new(), Vec::new()],
            poison: BTreeMap::new(),
            letters: BTreeMap::new(),
            letters_written: 0,
            resent: [0; 3],
            doubled: [0; 3],
            unexpected: Unexpected::default(),
            samples: Vec::new(),
        }
    }

    /// Must be told before the record is: its event may be accepted at once.
    pub(super) fn produced(&mut self, label: &Label, place: &Place) {
        self.produced += 1;
        match label {
            Label::Nothing | Label::Repeat => {}
            Label::Poison(queue) => {
                if self.readers.iter().any(|reader| reader.name() == *queue) || *queue == "decode" {
                    self.poison.insert(place.clone(), queue);
                }
            }
            Label::Change(change) => self.changed(change),
        }
    }

    fn changed(&mut self, change: &Change) {
        let number = u32::try_from(self.changes.len()).unwrap_or(u32::MAX);
        let rows = &mut self.rows[change.ledger as usize];
        let at = change.row as usize;
        if rows.len() <= at {
            // Numbers of poisoned rows are never filled.
            rows.resize_with(at + 1, || Row {
                user: u32::MAX,
                merchant: u8::MAX,
                last: u32::MAX,
                state: None,
            });
        }
        let row = &mut rows[at];
        let previous = (row.last != u32::MAX).then_some(row.last);
        *row = Row {
            user: change.user,
            merchant: change.merchant,
            last: number,
            state: row.state,
        };
        self.changes.push(Entry {
            previous,
            lsn: change.lsn,
            commit_ms: change.commit_ms,
            award: change.award,
            tier: change.tier,
            mission: change.mission,
            ids: [None; 3],
            listed: false,
        });
    }

    /// One accepted event.
    pub(super) fn accepted(&mut self, id: &str, name: &str, data: &str) {
        let taken = match name {
            "loyalty/award.scheduled" | "loyalty/award.cancelled" => self.award(id, data),
            "loyalty/tier.evaluation_requested" => self.tier(id, data),
            "loyalty/mission.evaluation_requested" => self.mission(id, data),
            _ => Err("nobody promised this event"),
        };
        if let Err(why) = taken {
            self.unexpected(format!("{id}: {why}"));
        }
    }

    fn award(&mut self, id: &str, data: &str) -> Result<(), &'static str> {
        let event: AcceptedAward<'_> = parse(data)?;
        self.reads(Reader::Currency)?;
        let row = Ledger::Purchases.row_of(&event.purchase_id).ok_or("unknown purchase")?;
        self.belongs(Ledger::Purchases, row, &event.merchant_id, &event.user_id)?;
        let change = self.find(Ledger::Purchases, row, |entry| entry.commit_ms == event.as_of_ms)?;
        let points = event
            .target_points
            .parse()
            .map_err(|_no_number| "points are no number")?;
        let due_us = event
            .due_at
            .as_deref()
            .map(|due_at| micros(due_at).ok_or("due time is no time"))
            .transpose()?;
        let state = Award { points, due_us };
        match self.entry(change)?.award {
            None => return Err("no award may come of this change"),
            Some(expected) if expected != state => return Err("wrong target or due time"),
            Some(_) => {}
        }
        if let Some(row) = self.rows[Ledger::Purchases as usize].get_mut(row as usize) {
            row.state = Some(state);
        }
        self.settle(Reader::Currency, change, id);
        let new_merchant = !self.samples.iter().any(|sample| sample.merchant == event.merchant_id);
        if points > 0 && new_merchant && self.samples.len() < SAMPLES {
            self.samples.push(Sample {
                id: id.to_owned(),
                merchant: event.merchant_id.into_owned(),
                amount: event.basis.final_amount.into_owned(),
                refunded: event.basis.refunded_amount.into_owned(),
                points: event.target_points.into_owned(),
                due_at: event.due_at.unwrap_or_default().into_owned(),
            });
        }
        Ok(())
    }

    fn tier(&mut self, id: &str, data: &str) -> Result<(), &'static str> {
        let event: Tier<'_> = parse(data)?;
        self.reads(Reader::Tier)?;
        let mut own = None;
        for trigger in &event.triggers {
            let (ledger, row, change) = self.of_trigger(trigger)?;
            self.belongs(ledger, row, &event.merchant_id, &event.user_id)?;
            match self.entry(change)?.tier {
                None => return Err("no evaluation may come of this change"),
                Some(metric) if metric != event.metric => return Err("wrong metric"),
                Some(_) => {}
            }
            if let Some(entry) = self.changes.get_mut(change as usize) {
                entry.listed = true;
            }
            own = Some(change);
        }
        // An evaluation is of its newest trigger, which stands last; the others only ride along.
        self.settle(Reader::Tier, own.ok_or("an evaluation without a trigger")?, id);
        Ok(())
    }

    fn mission(&mut self, id: &str, data: &str) -> Result<(), &'static str> {
        let event: Mission<'_> = parse(data)?;
        self.reads(Reader::Mission)?;
        let (ledger, row, change) = self.of_trigger(&event.source)?;
        self.belongs(ledger, row, &event.merchant_id, &event.user_id)?;
        let expected = self.entry(change)?.mission.ok_or("no mission may count this change")?;
        let [share] = event.missions.as_slice() else {
            return Err("not the one mission");
        };
        if share.mission_id != expected.mission {
            return Err("wrong mission");
        }
        if hundredths(&share.counted) != Some(expected.hundredths) {
            return Err("counted wrongly");
        }
        self.settle(Reader::Mission, change, id);
        Ok(())
    }

    /// One dead letter, by the place of the record it is of.
    pub(super) fn dead_letter(&mut self, queue: &str, place: Place) {
        self.letters_written += 1;
        self.letters.insert(place, queue.to_owned());
    }

    pub(super) fn balance(&self) -> Balance {
        let accounts = self
            .readers
            .iter()
            .map(|reader| (*reader, self.account(*reader)))
            .collect();
        let mut unexpected = self.unexpected.clone();
        for (place, queue) in &self.letters {
            if self.poison.get(place).is_none_or(|expected| expected != queue) {
                unexpected.note(format!(
                    "{place:?}: nothing was wrong with this record, yet it is in {queue}"
                ));
            }
        }
        let buried: BTreeSet<&Place> = self.letters.keys().collect();
        let unburied = self.poison.keys().filter(|place| !buried.contains(place)).count();
        Balance {
            produced: self.produced,
            accounts,
            poison: self.poison.len() as u64,
            dead_lettered: buried.len() as u64,
            repeated_letters: self.letters_written.saturating_sub(buried.len() as u64),
            unburied: unburied as u64,
            unexpected,
            samples: self.samples.clone(),
        }
    }

    fn account(&self, reader: Reader) -> Account {
        let mut account = Account {
            resent: self.resent[reader as usize],
            doubled: self.doubled[reader as usize],
            ..Account::default()
        };
        for row in self.rows.iter().flatten() {
            // From the newest change back: what a later one covers is superseded.
            let mut newest = None;
            let mut covered = false;
            let mut number = (row.last != u32::MAX).then_some(row.last);
            while let Some(entry) = number.and_then(|number| self.changes.get(number as usize)) {
                number = entry.previous;
                if !reader.is_owed(entry) {
                    continue;
                }
                newest = newest.or(entry.award);
                let own = entry.ids[reader as usize].is_some();
                covered |= own && reader == Reader::Currency;
                account.eligible += 1;
                if own {
                    account.delivered += 1;
                } else if covered || (reader == Reader::Tier && entry.listed) {
                    account.superseded += 1;
                } else {
                    account.lost += 1;
                }
            }
            if reader == Reader::Currency && row.state.is_some() && row.state != newest {
                account.stale += 1;
            }
        }
        account
    }

    fn settle(&mut self, reader: Reader, change: u32, id: &str) {
        let Some(entry) = self.changes.get_mut(change as usize) else {
            return;
        };
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let (hash, at) = (hasher.finish(), reader as usize);
        match entry.ids[at] {
            None => entry.ids[at] = Some(hash),
            Some(first) if first == hash => self.resent[at] += 1,
            Some(_) => self.doubled[at] += 1,
        }
    }

    fn of_trigger(&self, row_ref: &RowRef<'_>) -> Result<(Ledger, u32, u32), &'static str> {
        let ledger = Ledger::ALL
            .into_iter()
            .find(|ledger| ledger.table() == row_ref.table)
            .ok_or("unknown table")?;
        let row = ledger.row_of(&row_ref.row_id).ok_or("unknown row")?;
        let lsn = row_ref
            .version
            .parse::<u64>()
            .map_err(|_no_number| "the version is no position")?;
        Ok((ledger, row, self.find(ledger, row, |entry| entry.lsn == lsn)?))
    }

    fn find(&self, ledger: Ledger, row: u32, wanted: impl Fn(&Entry) -> bool) -> Result<u32, &'static str> {
        let row = self.rows[ledger as usize].get(row as usize).ok_or("unknown row")?;
        let mut number = row.last;
        loop {
            let entry = self.entry(number)?;
            if wanted(entry) {
                return Ok(number);
            }
            number = entry.previous.ok_or("unknown change of the row")?;
        }
    }

    fn entry(&self, number: u32) -> Result<&Entry, &'static str> {
        self.changes.get(number as usize).ok_or("unknown row")
    }

    fn belongs(&self, ledger: Ledger, row: u32, merchant: &str, user: &str) -> Result<(), &'static str> {
        let row = self.rows[ledger as usize].get(row as usize).ok_or("unknown row")?;
        let same_user = user.strip_prefix("u-").and_then(|user| user.parse().ok()) == Some(row.user);
        let same_merchant = self.merchants.get(usize::from(row.merchant)) == Some(&merchant);
        if same_user && same_merchant {
            Ok(())
        } else {
            Err("wrong member")
        }
    }

    fn reads(&self, reader: Reader) -> Result<(), &'static str> {
        if self.readers.contains(&reader) {
            Ok(())
        } else {
            Err("of a consumer that does not run")
        }
    }

    fn unexpected(&mut self, what: String) {
        self.unexpected.note(what);
    }
}

impl Unexpected {
    fn note(&mut self, what: String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(what);
        }
    }
}

impl Reader {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Currency => "currency",
            Self::Tier => "tier",
            Self::Mission => "mission",
        }
    }

    const fn is_owed(self, entry: &Entry) -> bool {
        match self {
            Self::Currency => entry.award.is_some(),
            Self::Tier => entry.tier.is_some(),
            Self::Mission => entry.mission.is_some(),
        }
    }
}

impl Balance {
    pub(super) fn sum(&self, of: impl Fn(&Account) -> u64) -> u64 {
        self.accounts.iter().map(|(_, account)| of(account)).sum()
    }

    /// Eligible changes of which nothing came, and poison that was skipped in silence.
    pub(super) fn lost(&self) -> u64 {
        self.sum(|account| account.lost) + self.unburied
    }

    pub(super) fn doubled(&self) -> u64 {
        self.sum(|account| account.doubled)
    }

    pub(super) fn balances(&self) -> bool {
        let stale = self.sum(|account| account.stale);
        let even = |account: &Account| account.eligible == account.delivered + account.superseded + account.lost;
        self.lost() + self.doubled() + stale + self.unexpected.count == 0
            && self.accounts.iter().all(|(_, account)| even(account))
            && self.dead_lettered == self.poison
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(data: &'a str) -> Result<T, &'static str> {
    serde_json::from_str(data).map_err(|_unreadable| "not of the promised shape")
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
