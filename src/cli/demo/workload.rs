//! The seeded workload: one record after another, each with what must come out of it.
//!
//! Takes a seed, a length and the time of day at each step; gives records as a Debezium connector would write them. It
//! keeps the rows that may still change and the last few dozen records, never the whole. What must come out follows from
//! how a row was made and from [`merchants`], never from the product's rules.

use std::collections::VecDeque;

use super::envelope::{self, Sent};
use super::label::{Change, Counted, Label, Ledger, STORY, Target};
use super::merchants::{self, Merchant, Mission};
use super::tickets::Ticket;

/// One record and its label.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) ledger: Ledger,
    pub(super) key: String,
    /// `None` is a tombstone.
    pub(super) value: Option<String>,
    pub(super) label: Label,
}

#[derive(Debug)]
pub(super) struct Workload {
    pub(super) random: fastrand::Rng,
    merchants: Vec<Merchant>,
    /// Records given so far, and to give.
    given: u64,
    length: u64,
    /// Rows of each ledger so far.
    rows: [u32; 6],
    /// Purchases that may still change.
    open: Vec<Purchase>,
    /// Claims, referrals and codes that may still change.
    pub(super) tickets: Vec<Ticket>,
    /// The purchase whose story is told, once it is there.
    story: Option<Purchase>,
    lsn: u64,
    tx: u64,
    /// The last records, for the connector to repeat.
    recent: VecDeque<Sent>,
    repeating: VecDeque<Sent>,
    poisons: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Pending,
    Completed,
    PartiallyRefunded,
    Refunded,
    Cancelled,
}

/// A row of the purchase ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purchase {
    pub(super) row: u32,
    pub(super) user: u32,
    pub(super) merchant: u8,
    pub(super) cents: i64,
    pub(super) refunded_cents: i64,
    pub(super) status: Status,
    pub(super) earns: bool,
    pub(super) created_us: i64,
    pub(super) completed_us: Option<i64>,
    /// Stands in a column that nobody reads.
    pub(super) note: u16,
    commit_ms: i64,
}

/// What one image of a purchase is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Worth {
    award: Option<(i64, i64)>,
    spent: bool,
    mission: Option<Counted>,
}

const OPEN_PURCHASES: usize = 4096;
const RECENT: usize = 64;
pub(super) const MEMBERS: u32 = 5_000;
/// A connector restarts every so many records, on average.
const RESTART_EVERY: u64 = 1_500;
/// The middle of 2025, when one merchant had other rules.
const LONG_AGO_US: i64 = 1_750_000_000_000_000;

impl Workload {
    /// # Errors
    /// When a merchant's time zone is not in the bundled database.
    pub(super) fn new(seed: u64, length: u64) -> Result<Self, jiff::Error> {
        Ok(Self {
            random: fastrand::Rng::with_seed(seed),
            merchants: merchants::all()?,
            given: 0,
            length,
            rows: [STORY + 1, 0, 0, 0, 0, 0],
            open: Vec::new(),
            tickets: Vec::new(),
            story: None,
            lsn: 26_459_320,
            tx: 734,
            recent: VecDeque::with_capacity(RECENT),
            repeating: VecDeque::new(),
            poisons: 0,
        })
    }

    /// The next record; `None` after the last. `now_ms` becomes its commit time.
    pub(super) fn step(&mut self, now_ms: i64) -> Option<Step> {
        if self.given >= self.length {
            return None;
        }
        let at = self.given;
        self.given += 1;
        if let Some(purchase) = self.next_chapter(at, now_ms) {
            let before = self.story.replace(purchase);
            return Some(self.purchase_step(before, purchase));
        }
        // Everything before the middle is committed by then: these repetitions meet their originals in no batch, however
        // slow the machine is.
        if at == self.length / 2 {
            self.repeat(RECENT.min(usize::try_from(self.length / 10).unwrap_or(RECENT)));
        }
        if self.is_poison(at) {
            return Some(self.poison(now_ms));
        }
        if let Some(sent) = self.repeating.pop_front() {
            let value = envelope::write(&sent, now_ms, self.lsn + 1);
            return Some(Step {
                ledger: sent.ledger,
                key: sent.key,
                value: Some(value),
                label: Label::Repeat,
            });
        }
        // Often enough for short runs as well.
        let restarts = at == self.length / 3 || at == self.length * 3 / 4 || self.random.u64(0..RESTART_EVERY) == 0;
        if restarts {
            let count = self.random.usize(RECENT / 4..=RECENT);
            self.repeat(count);
        }
        Some(match self.random.u32(0..100) {
            0..3 => self.tombstone(),
            3..12 => self.wallet_entry(now_ms),
            12..19 => self.form(now_ms),
            19..37 => self.ticket(now_ms),
            37..68 if !self.open.is_empty() => self.changed_purchase(now_ms),
            _ => self.new_purchase(now_ms),
        })
    }

    /// The connector restarts and sends its last records again.
    fn repeat(&mut self, count: usize) {
        let known = self.recent.len().saturating_sub(count);
        self.repeating = self.recent.iter().skip(known).cloned().collect();
    }

    /// The next state of the purchase whose story is told: completed in the first half, refunded in two steps in the second.
    fn next_chapter(&self, at: u64, now_ms: i64) -> Option<Purchase> {
        let (refunded_cents, status) = if at == self.length / 10 {
            (0, Status::Completed)
        } else if at == self.length / 2 + 1 {
            (4_000, Status::PartiallyRefunded)
        } else if at == self.length * 9 / 10 {
            (10_000, Status::Refunded)
        } else {
            return None;
        };
        let first = Purchase {
            row: STORY,
            user: 42,
            merchant: merchants::PLAIN,
            cents: 10_000,
            refunded_cents: 0,
            status,
            earns: true,
            created_us: now_ms * 1000,
            completed_us: Some(now_ms * 1000),
            note: 0,
            commit_ms: 0,
        };
        let before = self.story.unwrap_or(first);
        Some(Purchase {
            refunded_cents,
            status,
            commit_ms: now_ms.max(before.commit_ms + 1),
            ..before
        })
    }

    /// Five of them spread over the run, and one among the very last records.
    fn is_poison(&self, at: u64) -> bool {
        let sixth = (self.length / 6).max(1);
        (at > 0 && at.is_multiple_of(sixth) && at / sixth <= 5) || at + 3 == self.length
    }

    fn new_purchase(&mut self, now_ms: i64) -> Step {
        let merchant = self.some_merchant();
        let created_us = (now_ms - self.random.i64(0..3_600_000)) * 1000 + self.random.i64(0..1000);
        let mut purchase = Purchase {
            row: self.number(Ledger::Purchases),
            user: self.random.u32(0..MEMBERS),
            merchant,
            cents: self.amount(),
            refunded_cents: 0,
            status: Status::Pending,
            earns: self.random.u32(0..20) > 0,
            created_us,
            completed_us: None,
            note: self.random.u16(..),
            commit_ms: now_ms,
        };
        match self.random.u32(0..20) {
            0..10 => {}
            // An old purchase that arrives late: the rules of its own time decide.
            10 if merchant == merchants::CHANGED_RULES => {
                purchase.created_us = LONG_AGO_US + self.random.i64(0..1_000_000_000);
                purchase.complete(purchase.created_us + 1_000_001);
            }
            10..19 => purchase.complete(now_ms * 1000 + self.random.i64(0..1000)),
            _ => purchase.status = Status::Cancelled,
        }
        self.purchase_step(None, purchase)
    }

    fn changed_purchase(&mut self, now_ms: i64) -> Step {
        let place = self.random.usize(0..self.open.len());
        let before = self.open.swap_remove(place);
        let mut after = before;
        after.commit_ms = now_ms.max(before.commit_ms + 1);
        match (before.status, self.random.u32(0..20)) {
            // A column that nobody reads.
            (_, 0..4) => after.note = after.note.wrapping_add(1),
            (Status::Pending, 4..17) => after.complete(after.commit_ms * 1000 + self.random.i64(0..1000)),
            (Status::Pending, _) => after.status = Status::Cancelled,
            (_, 4..12) => {
                let left = before.left_cents();
                after.refunded_cents += self.random.i64(1..left.max(2)).min(left);
                after.status = Status::PartiallyRefunded;
            }
            (_, _) => {
                after.refunded_cents = after.cents;
                after.status = Status::Refunded;
            }
        }
        self.purchase_step(Some(before), after)
    }

    fn purchase_step(&mut self, before: Option<Purchase>, after: Purchase) -> Step {
        let was = before.map(|before| self.worth(&before));
        let is = self.worth(&after);
        let counted = |worth: &Worth| worth.mission.is_some_and(|counted| counted.hundredths > 0);
        let target = match (is.award, was.and_then(|was| was.award)) {
            (Some((points, due_us)), _) => Some(Target {
                amount: points,
                due_us: Some(due_us),
            }),
            (None, Some(_)) => Some(Target {
                amount: 0,
                due_us: None,
            }),
            (None, None) => None,
        };
        let merchant = self.merchants.get(usize::from(after.merchant));
        let metric = merchant.and_then(|merchant| merchant.version_at(after.commit_ms * 1000)?.tier_metric);
        let spend_moved = is.spent || was.is_some_and(|was| was.spent);
        let counts = counted(&is) || was.is_some_and(|was| counted(&was));
        let before_image = before.map(|before| envelope::purchase(&before, self.merchant_id(before.merchant)));
        let after_image = envelope::purchase(&after, self.merchant_id(after.merchant));
        let sent = self.sent(
            Ledger::Purchases,
            after.row,
            (before_image, after_image),
            after.commit_ms,
        );
        let is_over = matches!(after.status, Status::Refunded | Status::Cancelled) || after.left_cents() <= 0;
        if !is_over && after.row != STORY {
            self.keep_open(after);
        }
        let change = Change {
            ledger: Ledger::Purchases,
            row: after.row,
            users: [Some(after.user), None],
            merchant: after.merchant,
            lsn: sent.lsn,
            commit_ms: after.commit_ms,
            target,
            tier: metric.filter(|metric| *metric == "spend" && spend_moved),
            mission: is.mission.filter(|_| counts),
        };
        self.give(sent, change)
    }

    fn wallet_entry(&mut self, now_ms: i64) -> Step {
        let row = self.number(Ledger::Wallet);
        let user = self.random.u32(0..MEMBERS);
        let merchant = self.some_merchant();
        // What is spent or expires was earned all the same: it moves no tier.
        let (kind, sign, was_earned) = [
            ("earn", 1, true),
            ("spend", -1, false),
            ("expire", -1, false),
            ("adjust", 1, true),
            ("clawback", -1, true),
        ][self.random.usize(0..5)];
        let amount = if self.random.u32(0..25) == 0 {
            0
        } else {
            sign * self.random.i64(1..5_000)
        };
        let image = envelope::wallet_entry(row, user, self.merchant_id(merchant), (amount, kind), now_ms);
        let sent = self.sent(Ledger::Wallet, row, (None, image), now_ms);
        let metric = self.merchants.get(usize::from(merchant));
        let metric = metric.and_then(|merchant| merchant.version_at(now_ms * 1000)?.tier_metric);
        let change = Change {
            ledger: Ledger::Wallet,
            row,
            users: [Some(user), None],
            merchant,
            lsn: sent.lsn,
            commit_ms: now_ms,
            target: None,
            tier: metric.filter(|metric| *metric == "points" && amount != 0 && was_earned),
            mission: None,
        };
        self.give(sent, change)
    }

    fn form(&mut self, now_ms: i64) -> Step {
        let row = self.number(Ledger::Forms);
        let user = self.random.u32(0..MEMBERS);
        let merchant = self.some_merchant();
        let form = self.random.usize(0..merchants::FORMS.len());
        let name = merchants::FORMS.get(form).copied().unwrap_or_default();
        let image = envelope::form(row, user, self.merchant_id(merchant), name, now_ms);
        let sent = self.sent(Ledger::Forms, row, (None, image), now_ms);
        let rules = self.merchants.get(usize::from(merchant));
        let mission = rules.and_then(|merchant| merchant.version_at(now_ms * 1000)?.form_mission);
        let change = Change {
            ledger: Ledger::Forms,
            row,
            users: [Some(user), None],
            merchant,
            lsn: sent.lsn,
            commit_ms: now_ms,
            target: None,
            tier: None,
            mission: mission.filter(|_| form == 0).map(|mission| Counted {
                mission,
                hundredths: 100,
            }),
        };
        self.give(sent, change)
    }

    fn tombstone(&mut self) -> Step {
        let row = self.random.u32(0..=self.rows[0]);
        let key = envelope::key(Ledger::Purchases, row);
        Step {
            ledger: Ledger::Purchases,
            key,
            value: None,
            label: Label::Nothing,
        }
    }

    /// A record that can never be processed; a different kind each time, the last one not even JSON.
    fn poison(&mut self, now_ms: i64) -> Step {
        let kind = if self.given + 2 >= self.length {
            0
        } else {
            self.poisons % 5
        };
        self.poisons += 1;
        let (ledger, image, queue) = match kind {
            0 => (Ledger::Purchases, self.sound(now_ms), "decode"),
            1 => {
                let image = self.sound(now_ms).replace("\"completed\"", "\"compleated\"");
                (Ledger::Purchases, image, "decode")
            }
            2 => {
                let code = self.new_ticket(Ledger::Codes, now_ms);
                let image = envelope::ticket(&code, self.merchant_id(code.merchant));
                (
                    Ledger::Codes,
                    image.replace("\"status\":\"", "\"status\":\"half-"),
                    "decode",
                )
            }
            3 => {
                let image = self.sound(now_ms).replace("\"user_id\":", "\"usr_id\":");
                (Ledger::Purchases, image, "decode")
            }
            // Twice that many points do not fit into 64 bits.
            _ => {
                let image = self.sound(now_ms).replace("123.45", "9999999999999999999.00");
                (Ledger::Purchases, image, "currency")
            }
        };
        let row = self.rows[ledger as usize] - 1;
        let sent = self.sent(ledger, row, (None, image), now_ms);
        let mut value = envelope::write(&sent, now_ms, sent.lsn);
        if kind == 0 {
            value.truncate(value.len() / 2);
        }
        Step {
            ledger,
            key: sent.key,
            value: Some(value),
            label: Label::Poison(ledger, queue),
        }
    }

    /// A new purchase before something is done to it.
    fn sound(&mut self, now_ms: i64) -> String {
        let purchase = Purchase {
            row: self.number(Ledger::Purchases),
            user: self.random.u32(0..MEMBERS),
            merchant: merchants::DOUBLING,
            cents: 12_345,
            refunded_cents: 0,
            status: Status::Completed,
            earns: true,
            created_us: now_ms * 1000,
            completed_us: Some(now_ms * 1000),
            note: 0,
            commit_ms: now_ms,
        };
        envelope::purchase(&purchase, self.merchant_id(merchants::DOUBLING))
    }

    fn worth(&self, purchase: &Purchase) -> Worth {
        let left = if matches!(purchase.status, Status::Completed | Status::PartiallyRefunded) {
            purchase.left_cents()
        } else {
            0
        };
        let earned_us = purchase.completed_us.unwrap_or(purchase.created_us);
        let merchant = self.merchants.get(usize::from(purchase.merchant));
        let award = merchant
            .filter(|_| purchase.earns)
            .and_then(|merchant| merchant.award(left, earned_us));
        let mission = merchant.and_then(|merchant| merchant.version_at(earned_us)?.purchase_mission);
        let mission = mission.map(|mission| match mission {
            Mission::Total(mission) => Counted {
                mission,
                hundredths: left,
            },
            Mission::Count(mission) => Counted {
                mission,
                hundredths: 100 * i64::from(left > 0),
            },
        });
        Worth {
            award,
            spent: left > 0,
            mission,
        }
    }

    pub(super) fn give(&mut self, sent: Sent, change: Change) -> Step {
        let value = envelope::write(&sent, change.commit_ms + 2, sent.lsn.saturating_sub(184));
        let step = Step {
            ledger: sent.ledger,
            key: sent.key.clone(),
            value: Some(value),
            label: Label::Change(change),
        };
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(sent);
        step
    }

    pub(super) fn sent(&mut self, ledger: Ledger, row: u32, images: (Option<String>, String), commit_ms: i64) -> Sent {
        self.lsn += self.random.u64(56..512);
        self.tx += 1;
        let (before, after) = images;
        Sent {
            ledger,
            key: envelope::key(ledger, row),
            before,
            after,
            lsn: self.lsn,
            tx: self.tx,
            commit_ms,
        }
    }

    pub(super) const fn number(&mut self, ledger: Ledger) -> u32 {
        let next = &mut self.rows[ledger as usize];
        *next += 1;
        *next - 1
    }

    pub(super) fn some_merchant(&mut self) -> u8 {
        self.random.u8(0..self.merchants.len().try_into().unwrap_or(1))
    }

    /// Mostly a till's everyday amounts, sometimes less than anything earns.
    fn amount(&mut self) -> i64 {
        match self.random.u32(0..10) {
            0 => self.random.i64(1..600),
            1..8 => self.random.i64(600..20_000),
            _ => self.random.i64(20_000..900_000),
        }
    }

    fn keep_open(&mut self, purchase: Purchase) {
        if self.open.len() >= OPEN_PURCHASES {
            let place = self.random.usize(0..self.open.len());
            self.open.swap_remove(place);
        }
        self.open.push(purchase);
    }

    pub(super) fn merchant_id(&self, merchant: u8) -> &'static str {
        self.merchants
            .get(usize::from(merchant))
            .map_or("", |merchant| merchant.id)
    }
}

impl Purchase {
    fn complete(&mut self, at_us: i64) {
        self.status = Status::Completed;
        self.completed_us = Some(at_us);
    }

    const fn left_cents(&self) -> i64 {
        self.cents - self.refunded_cents
    }
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
