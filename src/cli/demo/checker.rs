//! The books: what the generator says must come out, against what the receiver accepted.
//!
//! Takes labels as they are produced and accepted events as raw JSON; gives the balance. It knows the events only by the
//! small shapes in [`super::accepted`] and imports nothing that decodes, routes or decides: a test reads its imports.
//!
//! The rules, for each consumer and what a change must lead to (a referral leads to a grant on either side):
//! - it is *delivered* if its event was accepted; a target also counts as *superseded* if one of a later change of its row
//!   was, a tier change if an accepted evaluation lists it; otherwise it is *lost*;
//! - the last accepted state of a row is the one of its last eligible change, else the row is *stale*;
//! - two distinct ids for one of them are *doubled*, the same id again is *resent*;
//! - what no label allows is *unexpected*.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroU64;

use super::accepted::{Award as AcceptedAward, Fact, Grant, Mission, Redemption, RowRef, Tier, hundredths, micros};
use super::balance::{Account, Balance, Kind, Reader, Sample, Slot, Unexpected};
use super::label::{CODE, Change, Counted, Label, Ledger, STORY, Target, claimed_mission};
use super::settler::Award;

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
    rows: [Vec<Row>; 6],
    poison: BTreeMap<Place, &'static str>,
    letters: BTreeMap<Place, String>,
    letters_written: u64,
    resent: [u64; 5],
    doubled: [u64; 5],
    unexpected: Unexpected,
    kinds: BTreeMap<&'static str, Kind>,
    samples: Vec<Sample>,
    /// Every accepted award, in the order of acceptance.
    awards: Vec<Award>,
    /// The awards of the purchase whose story is told, by commit time.
    story: BTreeMap<i64, Sample>,
}

/// A change in the books. Rows and changes are numbers: a million of them must fit.
#[derive(Debug)]
struct Entry {
    /// The change of the same row before it.
    previous: Option<u32>,
    lsn: u64,
    commit_ms: i64,
    target: Option<Target>,
    tier: Option<&'static str>,
    mission: Option<Counted>,
    /// Hash of the first accepted id, by slot.
    ids: [Option<NonZeroU64>; 4],
    /// An accepted evaluation lists it.
    listed: bool,
}

#[derive(Debug, Clone)]
struct Row {
    users: [Option<u32>; 2],
    merchant: u8,
    /// The newest change.
    last: Option<u32>,
    /// The change whose target was accepted last, on either side.
    accepted: [Option<u32>; 2],
}

/// What an accepted event is of.
#[derive(Debug, Clone, Copy)]
struct Of(Ledger, u32, Slot);

/// A change of the purchase whose story is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chapter {
    pub(super) as_of_ms: i64,
    pub(super) target: i64,
    /// The award as it was accepted; `None` if the one of a later change covers it, or it was lost.
    pub(super) award: Option<Sample>,
}

const SAMPLES: usize = 6;

impl Books {
    pub(super) fn new(merchants: Vec<&'static str>, readers: Vec<Reader>) -> Self {
        Self {
            merchants,
            readers,
            produced: 0,
            changes: Vec::new(),
            rows: [const { Vec::new() }; 6],
            poison: BTreeMap::new(),
            letters: BTreeMap::new(),
            letters_written: 0,
            resent: [0; 5],
            doubled: [0; 5],
            unexpected: Unexpected::default(),
            kinds: BTreeMap::new(),
            samples: Vec::new(),
            awards: Vec::new(),
            story: BTreeMap::new(),
        }
    }

    /// Must be told before the record is: its event may be accepted at once.
    pub(super) fn produced(&mut self, label: &Label, place: &Place) {
        self.produced += 1;
        match label {
            Label::Nothing | Label::Repeat => {}
            Label::Poison(ledger, queue) => {
                // What nobody reads is not even decoded.
                let buries = |reader: &Reader| {
                    !reader.slots(*ledger).is_empty() && (*queue == "decode" || reader.name() == *queue)
                };
                if self.readers.iter().any(buries) {
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
            let unknown = Row {
                users: [None; 2],
                merchant: u8::MAX,
                last: None,
                accepted: [None; 2],
            };
            rows.resize(at + 1, unknown);
        }
        let row = &mut rows[at];
        let previous = row.last.replace(number);
        (row.users, row.merchant) = (change.users, change.merchant);
        self.changes.push(Entry {
            previous,
            lsn: change.lsn,
            commit_ms: change.commit_ms,
            target: change.target,
            tier: change.tier,
            mission: change.mission,
            ids: [None; 4],
            listed: false,
        });
    }

    /// One accepted event.
    pub(super) fn accepted(&mut self, id: &str, name: &str, data: &str) {
        let taken = match name {
            "loyalty/award.scheduled" => self.award("loyalty/award.scheduled", id, data),
            "loyalty/award.cancelled" => self.award("loyalty/award.cancelled", id, data),
            "loyalty/tier.evaluation_requested" => self.tier(id, data),
            "loyalty/mission.evaluation_requested" => self.mission(id, data),
            "loyalty/reward.granted" => self.reward("loyalty/reward.granted", 1, id, data),
            "loyalty/reward.revoked" => self.reward("loyalty/reward.revoked", 0, id, data),
            "loyalty/code.redeemed" => self.redeemed(id, data),
            _ => Err("nobody promised this event"),
        };
        let counted = taken.and_then(|name| self.count(name, data));
        if let Err(why) = counted {
            self.unexpected.note(format!("{id}: {why}"));
        }
    }

    fn count(&mut self, name: &'static str, data: &str) -> Result<(), &'static str> {
        if let Some(kind) = self.kinds.get_mut(name) {
            kind.count += 1;
            return Ok(());
        }
        let example = parse::<Fact<'_>>(data)?.effect_key.into_owned();
        self.kinds.insert(name, Kind { count: 1, example });
        Ok(())
    }

    fn award(&mut self, name: &'static str, id: &str, data: &str) -> Result<&'static str, &'static str> {
        let event: AcceptedAward<'_> = parse(data)?;
        self.reads(Reader::Currency)?;
        let row = Ledger::Purchases.row_of(&event.purchase_id).ok_or("unknown purchase")?;
        let of = Of(Ledger::Purchases, row, Slot::Target);
        self.belongs(of, &event.basis.merchant_id, Some(&event.basis.user_id))?;
        let amount = event
            .target_points
            .parse()
            .map_err(|_no_number| "points are no number")?;
        let due_us = event
            .due_at
            .as_deref()
            .map(|due_at| micros(due_at).ok_or("due time is no time"))
            .transpose()?;
        self.awards.push(Award {
            purchase: row,
            as_of_ms: event.as_of_ms,
            target: amount,
        });
        let target = Target { amount, due_us };
        self.converge(of, event.as_of_ms, target, id)?;
        let is_new = amount > 0
            && !self
                .samples
                .iter()
                .any(|sample| sample.merchant == event.basis.merchant_id);
        if row == STORY || (is_new && self.samples.len() < SAMPLES) {
            let text = |text: Cow<'_, str>| text.into_owned();
            let sample = Sample {
                id: id.to_owned(),
                merchant: text(event.basis.merchant_id),
                status: text(event.basis.status),
                amount: text(event.basis.final_amount),
                refunded: text(event.basis.refunded_amount),
                points: text(event.target_points),
                due_at: event.due_at.map(text).unwrap_or_default(),
            };
            if row == STORY {
                self.story.insert(event.as_of_ms, sample);
            } else {
                self.samples.push(sample);
            }
        }
        Ok(name)
    }

    fn reward(&mut self, name: &'static str, amount: i64, id: &str, data: &str) -> Result<&'static str, &'static str> {
        let event: Grant<'_> = parse(data)?;
        self.reads(Reader::Reward)?;
        let (ledger, slot, row_id) = match (event.source.as_ref(), event.side.as_deref()) {
            ("mission_claim", None) => (Ledger::Claims, Slot::Target, event.claim_id),
            ("referral", Some("referrer")) => (Ledger::Referrals, Slot::Target, event.referral_id),
            ("referral", Some("referee")) => (Ledger::Referrals, Slot::Referee, event.referral_id),
            _ => return Err("unknown source"),
        };
        let row = row_id
            .and_then(|row_id| ledger.row_of(&row_id))
            .ok_or("unknown claim or referral")?;
        if ledger == Ledger::Claims && event.mission_id.as_deref() != Some(claimed_mission(row)) {
            return Err("wrong mission");
        }
        let of = Of(ledger, row, slot);
        self.belongs(of, &event.merchant_id, Some(&event.user_id))?;
        let target = Target { amount, due_us: None };
        self.converge(of, event.as_of_ms, target, id)?;
        Ok(name)
    }

    fn redeemed(&mut self, id: &str, data: &str) -> Result<&'static str, &'static str> {
        if data.contains(CODE) {
            return Err("the code itself went out");
        }
        let event: Redemption<'_> = parse(data)?;
        self.reads(Reader::Marketplace)?;
        let row = Ledger::Codes.row_of(&event.code_id).ok_or("unknown code")?;
        let of = Of(Ledger::Codes, row, Slot::Target);
        self.belongs(of, &event.merchant_id, event.user_id.as_deref())?;
        let target = Target {
            amount: 1,
            due_us: None,
        };
        self.converge(of, event.as_of_ms, target, id)?;
        Ok("loyalty/code.redeemed")
    }

    /// An accepted target of the change with that commit time.
    fn converge(&mut self, of: Of, as_of_ms: i64, target: Target, id: &str) -> Result<(), &'static str> {
        let Of(ledger, row, slot) = of;
        let change = self.find(ledger, row, |entry| entry.commit_ms == as_of_ms)?;
        match self.entry(change)?.target {
            None => return Err("nothing may come of this change"),
            Some(expected) if expected != target => return Err("wrong target or due time"),
            Some(_) => {}
        }
        if let Some(row) = self.rows[ledger as usize].get_mut(row as usize) {
            row.accepted[side_of(slot)] = Some(change);
        }
        self.settle(ledger, slot, change, id);
        Ok(())
    }

    fn tier(&mut self, id: &str, data: &str) -> Result<&'static str, &'static str> {
        let event: Tier<'_> = parse(data)?;
        self.reads(Reader::Tier)?;
        let mut own = None;
        for trigger in &event.triggers {
            let (ledger, row, change) = self.of_trigger(trigger)?;
            self.belongs(Of(ledger, row, Slot::Tier), &event.merchant_id, Some(&event.user_id))?;
            match self.entry(change)?.tier {
                None => return Err("no evaluation may come of this change"),
                Some(metric) if metric != event.metric => return Err("wrong metric"),
                Some(_) => {}
            }
            if let Some(entry) = self.changes.get_mut(change as usize) {
                entry.listed = true;
            }
            own = Some((ledger, change));
        }
        // An evaluation is of its newest trigger, which stands last; the others only ride along.
        let (ledger, change) = own.ok_or("an evaluation without a trigger")?;
        self.settle(ledger, Slot::Tier, change, id);
        Ok("loyalty/tier.evaluation_requested")
    }

    fn mission(&mut self, id: &str, data: &str) -> Result<&'static str, &'static str> {
        let event: Mission<'_> = parse(data)?;
        self.reads(Reader::Mission)?;
        let (ledger, row, change) = self.of_trigger(&event.source)?;
        self.belongs(Of(ledger, row, Slot::Mission), &event.merchant_id, Some(&event.user_id))?;
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
        self.settle(ledger, Slot::Mission, change, id);
        Ok("loyalty/mission.evaluation_requested")
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
            kinds: self.kinds.iter().map(|(name, kind)| (*name, kind.clone())).collect(),
            samples: self.samples.clone(),
        }
    }

    /// Every accepted award, in the order of acceptance.
    pub(super) fn awards(&self) -> &[Award] {
        &self.awards
    }

    /// What every purchase must end at, by number.
    pub(super) fn final_targets(&self) -> Vec<i64> {
        let purchases = self.rows[Ledger::Purchases as usize].iter();
        let newest = |row| self.history(row).find_map(|(_, entry)| entry.target);
        purchases
            .map(|row| newest(row).map_or(0, |target| target.amount))
            .collect()
    }

    /// What became of the purchase whose story is told.
    pub(super) fn story(&self) -> Vec<Chapter> {
        let Some(row) = self.rows[Ledger::Purchases as usize].get(STORY as usize) else {
            return Vec::new();
        };
        let chapter = |(_, entry): (u32, &Entry)| {
            Some(Chapter {
                as_of_ms: entry.commit_ms,
                target: entry.target?.amount,
                award: self.story.get(&entry.commit_ms).cloned(),
            })
        };
        let mut chapters: Vec<Chapter> = self.history(row).filter_map(chapter).collect();
        chapters.reverse();
        chapters
    }

    fn account(&self, reader: Reader) -> Account {
        let mut account = Account {
            resent: self.resent[reader as usize],
            doubled: self.doubled[reader as usize],
            ..Account::default()
        };
        for (ledger, rows) in Ledger::ALL.into_iter().zip(&self.rows) {
            for slot in reader.slots(ledger) {
                for row in rows {
                    self.account_row(&mut account, row, *slot);
                }
            }
        }
        account
    }

    fn account_row(&self, account: &mut Account, row: &Row, slot: Slot) {
        let converges = matches!(slot, Slot::Target | Slot::Referee);
        // From the newest change back: what a later one covers is superseded.
        let mut newest = None;
        let mut covered = false;
        for (_, entry) in self.history(row).filter(|(_, entry)| entry.owes(slot)) {
            newest = newest.or(entry.target);
            let own = entry.ids[slot as usize].is_some();
            covered |= own && converges;
            account.eligible += 1;
            if own {
                account.delivered += 1;
            } else if covered || (slot == Slot::Tier && entry.listed) {
                account.superseded += 1;
            } else {
                account.lost += 1;
            }
        }
        let accepted = row.accepted[side_of(slot)].and_then(|change| self.changes.get(change as usize)?.target);
        account.stale += u64::from(converges && accepted.is_some() && accepted != newest);
    }

    /// The changes of a row, from the newest back.
    fn history(&self, row: &Row) -> impl Iterator<Item = (u32, &Entry)> {
        let known = |number: u32| Some((number, self.changes.get(number as usize)?));
        std::iter::successors(row.last.and_then(known), move |(_, entry)| {
            entry.previous.and_then(known)
        })
    }

    fn settle(&mut self, ledger: Ledger, slot: Slot, change: u32, id: &str) {
        let reads = |reader: &Reader| reader.slots(ledger).contains(&slot);
        let (Some(reader), Some(entry)) = (
            Reader::ALL.into_iter().find(reads),
            self.changes.get_mut(change as usize),
        ) else {
            return;
        };
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let hash = NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN);
        match entry.ids[slot as usize] {
            None => entry.ids[slot as usize] = Some(hash),
            Some(first) if first == hash => self.resent[reader as usize] += 1,
            Some(_) => self.doubled[reader as usize] += 1,
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
        let found = self.history(row).find(|(_, entry)| wanted(entry));
        found.map(|(number, _)| number).ok_or("unknown change of the row")
    }

    fn entry(&self, number: u32) -> Result<&Entry, &'static str> {
        self.changes.get(number as usize).ok_or("unknown row")
    }

    fn belongs(&self, of: Of, merchant: &str, user: Option<&str>) -> Result<(), &'static str> {
        let Of(ledger, row, slot) = of;
        let row = self.rows[ledger as usize].get(row as usize).ok_or("unknown row")?;
        let same_user = match (user, row.users[side_of(slot)]) {
            (Some(user), Some(known)) => user.strip_prefix("u-").and_then(|user| user.parse().ok()) == Some(known),
            (user, known) => user.is_none() && known.is_none(),
        };
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
}

impl Entry {
    const fn owes(&self, slot: Slot) -> bool {
        match slot {
            Slot::Target | Slot::Referee => self.target.is_some(),
            Slot::Tier => self.tier.is_some(),
            Slot::Mission => self.mission.is_some(),
        }
    }
}

/// The place of a slot's user among the users of a row.
const fn side_of(slot: Slot) -> usize {
    match slot {
        Slot::Target | Slot::Tier | Slot::Mission => 0,
        Slot::Referee => 1,
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(data: &'a str) -> Result<T, &'static str> {
    serde_json::from_str(data).map_err(|_unreadable| "not of the promised shape")
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
