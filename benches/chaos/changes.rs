//! The load as changes: takes a seed, gives batch after batch of changes, each with its record and with what it owes.
//!
//! Rows change again some batches later, so that many are on their way at once. It writes nothing anywhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::books::Debt;
use super::rows::{Claim, Image, Ledger, Place, Purchase, Referral, Status};

/// One change of one row.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// With `None` the row is new.
    pub(crate) before: Option<Image>,
    pub(crate) after: Image,
    pub(crate) lsn: u64,
}

/// Invents changes.
#[derive(Debug)]
pub(crate) struct Story {
    dice: fastrand::Rng,
    batch: u64,
    /// What changes again, by batch.
    later: BTreeMap<u64, Vec<Image>>,
    rows: [u32; Ledger::ALL.len()],
    lsn: u64,
}

/// The load's own changes are numbered from here.
const FIRST_LSN: u64 = 30_000_000;
/// A row that changes again does so within so many batches.
const SOON: u64 = 40;
/// So many members are active at a time; others take their place as purchases come in.
const ACTIVE: u32 = 400;
const PURCHASES_A_MEMBER: u32 = 8;
/// One row in so many comes without its old image, as from a table with the default replica identity.
const WITHOUT_IMAGE: u32 = 8;

impl Story {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dice: fastrand::Rng::with_seed(seed),
            batch: 0,
            later: BTreeMap::new(),
            rows: [0; Ledger::ALL.len()],
            lsn: FIRST_LSN,
        }
    }

    /// The next changes, each of another row. When the load ends, what was to change later stays as it is.
    pub(crate) fn batch(&mut self, size: usize, now_ms: i64) -> Vec<Change> {
        self.batch += 1;
        let mut changes = Vec::with_capacity(size);
        for before in self.later.remove(&self.batch).unwrap_or_default() {
            if let Some(after) = before.next(&mut self.dice, now_ms) {
                changes.push(self.change(Some(before), after));
            }
        }
        while changes.len() < size {
            let after = self.invent(now_ms);
            changes.push(self.change(None, after));
        }
        changes
    }

    fn change(&mut self, before: Option<Image>, after: Image) -> Change {
        self.lsn += 8;
        let again = self.batch + self.dice.u64(1..=SOON);
        self.later.entry(again).or_default().push(after.clone());
        Change {
            before,
            after,
            lsn: self.lsn,
        }
    }

    fn invent(&mut self, now_ms: i64) -> Image {
        let chance = self.dice.u32(..100);
        let (ledger, which) = match chance {
            0..40 => (Ledger::Purchases, 0),
            40..62 => (Ledger::Codes, 1),
            62..76 => (Ledger::Claims, 2),
            76..86 => (Ledger::Referrals, 3),
            86..97 => (Ledger::Forms, 4),
            _ => (Ledger::Wallet, 5),
        };
        let purchases = self.rows[0];
        let row = self.rows[which];
        self.rows[which] += 1;
        let merchant = match self.dice.u32(..10) {
            0..6 => 0,
            6..9 => 1,
            _ => 2,
        };
        let place = Place {
            row,
            merchant,
            user: purchases / PURCHASES_A_MEMBER + self.dice.u32(..ACTIVE),
            at_ms: now_ms,
        };
        match ledger {
            Ledger::Purchases => {
                let completed = self.dice.bool();
                Image::Purchase(Purchase {
                    place,
                    cents: self.dice.i64(1_000..30_000),
                    refunded: 0,
                    status: if completed { Status::Completed } else { Status::Pending },
                    earns: self.dice.u32(..20) > 0,
                    completed_ms: completed.then_some(now_ms),
                })
            }
            Ledger::Forms => Image::Form(place),
            Ledger::Claims => Image::Claim(place, Claim::Claimed),
            Ledger::Referrals => Image::Referral(
                place,
                if self.dice.bool() {
                    Referral::Pending
                } else {
                    Referral::Qualified
                },
            ),
            Ledger::Codes => Image::Code(place, self.dice.bool().then_some(now_ms)),
            Ledger::Wallet => Image::Entry(place, self.dice.i64(-60..40)),
        }
    }
}

impl Change {
    /// Whether the record has the old image.
    fn is_full(&self) -> bool {
        !self.after.place().row.is_multiple_of(WITHOUT_IMAGE)
    }

    /// What it owes for each of its row's facts.
    pub(crate) fn debt(&self) -> Option<Debt> {
        let (after, full) = (self.after.target(), self.is_full());
        match self.before.as_ref().map(Image::target) {
            None => (after > 0).then_some(Debt::Owed),
            Some(before) if full => (before > 0 || after > 0).then_some(Debt::Owed),
            Some(_) => Some(Debt::Perhaps),
        }
    }

    /// The ids of its events, without the version.
    pub(crate) fn facts(&self) -> impl Iterator<Item = String> {
        let (ledger, id) = (self.after.ledger(), self.after.id());
        let table = ledger.table();
        ledger.facts().iter().map(move |fact| format!("{fact}:{table}:{id}"))
    }

    /// Key and value as the connector writes them.
    pub(crate) fn record(&self, now_ms: i64) -> (String, String) {
        let before = self.before.as_ref().filter(|_| self.is_full()).map(Image::json);
        let op = if self.before.is_some() { 'u' } else { 'c' };
        record(
            self.after.ledger(),
            &self.after.id(),
            (before.as_deref(), &self.after.json()),
            op,
            (self.lsn, now_ms),
        )
    }
}

/// Key and value of any change.
pub(crate) fn record(
    ledger: Ledger,
    id: &str,
    (before, after): (Option<&str>, &str),
    op: char,
    (lsn, now_ms): (u64, i64),
) -> (String, String) {
    let (table, before) = (ledger.table(), before.unwrap_or("null"));
    let mut value = String::with_capacity(after.len() + before.len() + 512);
    // Writing to a String cannot fail.
    let _infallible = write!(
        value,
        "{{\"before\":{before},\"after\":{after},\"source\":{{\"version\":\"3.6.3.Final\",\"connector\":\"postgresql\",\
         \"name\":\"crm\",\"ts_ms\":{now_ms},\"snapshot\":\"false\",\"db\":\"crm\",\
         \"sequence\":\"[\\\"{lsn}\\\",\\\"{lsn}\\\"]\",\"schema\":\"public\",\"table\":\"{table}\",\"txId\":{lsn},\
         \"lsn\":{lsn},\"xmin\":null}},\"transaction\":null,\"op\":\"{op}\",\"ts_ms\":{now_ms}}}"
    );
    (format!("{{\"id\":\"{id}\"}}"), value)
}
