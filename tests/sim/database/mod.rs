//! The simulated Postgres: takes what the functions of `schemas/postgres` take, does what they do, in one thread.
//!
//! `tests/postgres/differential.rs` holds it to the real one. It knows tiers over a lifetime that rise at once; other windows
//! and upgrades at the start of a month are the real one's alone. It meets no faults: `ports` and `executor` do.

mod awards;
mod members;
mod notes;

use std::collections::{BTreeMap, BTreeSet};

use crm_event_processors::consumers::{Consumer, Effect, Fact, Proof};
use crm_event_processors::inngest::Basis;
use crm_event_processors::planted::Planted;
use crm_event_processors::postgres::{Announcement, LedgerRow, Standing};
use crm_event_processors::reconcile::state;
use crm_event_processors::rows::{Row, Table};
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Everything in the database.
#[derive(Default)]
pub(crate) struct Database {
    /// Now, ms: set by whoever calls.
    pub(crate) now_ms: i64,
    pub(crate) rows: BTreeMap<(Table, String), Stored>,
    pub(crate) effects: BTreeMap<String, EffectRow>,
    pub(crate) announcements: Vec<Noted>,
    pub(crate) shares: BTreeMap<(String, Table, String), Decimal>,
    pub(crate) tiers: BTreeMap<String, Tier>,
    leases: BTreeMap<String, (String, i64)>,
    bookmarks: BTreeMap<String, Option<String>>,
    /// What changed, for the connector: table, id, image before, image now.
    pub(crate) wal: Vec<Written>,
    entries: usize,
}

pub(crate) struct Stored {
    pub(crate) image: String,
    pub(crate) row: Row,
    /// Of every column that a decision reads; null for a wallet entry.
    pub(crate) basis: Value,
}

#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) table: Table,
    pub(crate) id: String,
    pub(crate) before: Option<String>,
    pub(crate) after: String,
    pub(crate) at_ms: i64,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct EffectRow {
    pub(crate) source: Option<(Table, String)>,
    pub(crate) merchant: String,
    pub(crate) user: Option<String>,
    pub(crate) state: &'static str,
    pub(crate) basis: Value,
    pub(crate) target: i64,
    pub(crate) due: Option<Timestamp>,
    pub(crate) rev: i64,
    pub(crate) policy: Option<String>,
    pub(crate) booked: i64,
    pub(crate) booked_user: Option<String>,
    pub(crate) booked_merchant: Option<String>,
    settled: bool,
    pub(crate) stale_at: Option<i64>,
    dead_basis: Value,
    /// Of a mission: what was announced.
    pub(crate) progress: Option<Decimal>,
    goal: Option<Decimal>,
    number: usize,
    referee: Option<String>,
    attempts: u32,
    next_attempt: Option<i64>,
    missed_since: Option<i64>,
    missed: Value,
    heals: i32,
    healed_at: Option<i64>,
    looked_at: Option<i64>,
    pub(crate) updated: i64,
}

pub(crate) struct Noted {
    pub(crate) announcement: Announcement,
    pub(crate) announced: bool,
    rejected: bool,
    created: i64,
}

#[derive(Clone, Default)]
pub(crate) struct Tier {
    pub(crate) name: Option<String>,
    pub(crate) threshold: Option<Decimal>,
    review: bool,
    number: usize,
}

fn text(data: &Value, field: &str) -> String {
    data.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn basis_of(row: &Row) -> Value {
    Basis::of(row).map_or(Value::Null, |basis| serde_json::to_value(basis).unwrap_or_default())
}

pub(crate) fn basis_of_fact(fact: &Fact<'_>) -> Value {
    fact.basis
        .map_or(Value::Null, |basis| serde_json::to_value(basis).unwrap_or_default())
}

impl EffectRow {
    /// As the test that compares with the real database reads a row.
    pub(crate) fn described(&self, key: &str) -> Value {
        json!({"effect_key": key, "state": self.state, "target": self.target, "booked": self.booked,
            "booked_user_id": self.booked_user, "program_rev": self.rev, "heals": self.heals,
            "has_basis": !self.basis.is_null(), "is_stale": self.stale_at.is_some(),
            "is_settled": self.settled, "is_dead": !self.dead_basis.is_null(), "is_missed": self.missed_since.is_some(),
            "progress": self.progress.filter(|_| key.starts_with("mission:")).map(|progress| progress.normalize().to_string())})
    }

    fn forget_misses(&mut self) {
        self.stale_at = None;
        self.dead_basis = Value::Null;
        self.missed_since = None;
        self.missed = Value::Null;
        self.heals = 0;
        self.healed_at = None;
    }
}

impl Database {
    /// The application writes a row.
    pub(crate) fn write(&mut self, table: Table, image: String) {
        let row = LedgerRow {
            id: String::new(),
            image,
            read_at_ms: self.now_ms,
        };
        let change = state::read(table, &row).unwrap_or_else(|error| panic!("{error}: {}", row.image));
        let id = change.row.id().as_str().to_owned();
        let stored = Stored {
            basis: basis_of(&change.row),
            row: change.row,
            image: row.image.clone(),
        };
        let before = self.rows.insert((table, id.clone()), stored);
        self.wal.push(Written {
            table,
            id,
            before: before.map(|before| before.image),
            after: row.image,
            at_ms: self.now_ms,
        });
    }

    fn basis(&self, table: Table, id: &str) -> Option<Value> {
        self.rows
            .get(&(table, id.to_owned()))
            .map(|stored| stored.basis.clone())
    }

    /// Makes sure that there is one.
    fn effect(
        &mut self,
        key: &str,
        source: Option<(Table, String)>,
        merchant: &str,
        user: Option<&str>,
    ) -> &mut EffectRow {
        let now = self.now_ms;
        self.effects.entry(key.to_owned()).or_insert_with(|| EffectRow {
            source,
            merchant: merchant.to_owned(),
            user: user.map(str::to_owned),
            state: "missing",
            updated: now,
            ..EffectRow::default()
        })
    }

    fn note_stale(&mut self, key: &str, row_basis: &Value) {
        let now = self.now_ms;
        if let Some(effect) = self.effects.get_mut(key)
            && effect.basis != *row_basis
        {
            effect.stale_at = Some(now);
            effect.updated = now;
        }
    }
    /// How these decisions stand.
    pub(crate) fn compare(&self, effects: &[&Effect]) -> Vec<Standing> {
        effects.iter().map(|effect| self.standing(effect)).collect()
    }

    fn standing(&self, decided: &Effect) -> Standing {
        let fact = decided.fact();
        let key = match &decided.proof {
            Proof::IfKnown(key) => key,
            Proof::Change | Proof::Nothing => &decided.key,
        };
        let Some(effect) = self.effects.get(key.as_str()) else {
            return Standing::Absent;
        };
        if Planted::EqualByExistence.is_planted() {
            return Standing::Equal;
        }
        let rev = i64::from(fact.program_rev);
        let is_source = key.as_str().starts_with("mission_source:");
        let due = fact.due_at.map(|due| due.timestamp());
        let is_equal = effect.state != "dead"
            && !effect.basis.is_null()
            && effect.basis == basis_of_fact(&fact)
            && (effect.rev > rev
                || is_source && effect.rev == rev
                || !is_source && effect.target == fact.target && (effect.state == "settled" || effect.due == due));
        match effect {
            _ if is_equal => Standing::Equal,
            effect if effect.target == 0 && effect.booked == 0 => Standing::Zero,
            _ => Standing::Differs,
        }
    }

    pub(crate) fn mark_dead(&mut self, keys: &[(String, Option<String>)], row: &Row, merchant: &str) {
        let (table, id) = (row.table(), row.id().as_str());
        let basis = basis_of(row);
        if self.basis(table, id).as_ref() != Some(&basis) {
            return;
        }
        let now = self.now_ms;
        for (key, user) in keys {
            let effect = self.effect(key, Some((table, id.to_owned())), merchant, user.as_deref());
            if effect.basis != basis {
                effect.forget_misses();
                effect.state = "dead";
                effect.dead_basis = basis.clone();
                effect.updated = now;
            }
        }
    }

    pub(crate) fn lift_dead(&mut self, keys: &[(String, Option<String>)], row: &Row) {
        let (now, basis) = (self.now_ms, basis_of(row));
        for (key, _) in keys {
            let effect = self.effects.get_mut(key);
            if let Some(effect) = effect.filter(|effect| effect.state == "dead" && effect.dead_basis == basis) {
                effect.state = match (effect.basis.is_null(), effect.settled) {
                    (true, _) => "missing",
                    (false, true) => "settled",
                    (false, false) => "pending",
                };
                effect.dead_basis = Value::Null;
                effect.updated = now;
            }
        }
    }

    fn announce(&mut self, id: String, key: &str, name: &str, ts_ms: i64, data: &Value) {
        let data = RawValue::from_string(data.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned());
        let announcement = Announcement {
            id: id.into(),
            effect_key: key.into(),
            name: name.into(),
            ts_ms,
            data,
        };
        self.announcements.push(Noted {
            announcement,
            announced: false,
            rejected: false,
            created: self.now_ms,
        });
    }

    fn unannounced(&self, keys: &BTreeSet<String>, written_before: usize) -> Vec<Announcement> {
        let from = if Planted::OwnAnnouncementsOnly.is_planted() {
            written_before
        } else {
            0
        };
        let waiting = self.announcements.iter().skip(from);
        let waiting = waiting.filter(|noted| !noted.announced && !noted.rejected);
        waiting
            .filter(|noted| keys.contains(&*noted.announcement.effect_key))
            .map(|noted| noted.announcement.clone())
            .collect()
    }

    pub(crate) fn announced(&mut self, ids: &[&str]) {
        for noted in &mut self.announcements {
            noted.announced |= ids.contains(&&*noted.announcement.id);
        }
    }

    pub(crate) fn reject(&mut self, id: &str) {
        for noted in &mut self.announcements {
            noted.rejected |= &*noted.announcement.id == id && !noted.announced;
        }
    }
}

/// Effect keys, each with its member.
type Keys = Vec<(String, Option<String>)>;

/// The effects of this consumer that rest on this row alone, and their merchant.
pub(crate) fn burials(consumer: Consumer, row: &Row) -> Option<(Keys, String)> {
    use crm_event_processors::consumers::EffectKey;
    use crm_event_processors::inngest::Side;
    let one = |key: EffectKey, user: Option<&str>| (key.as_str().to_owned(), user.map(str::to_owned));
    match (consumer, row) {
        (Consumer::Currency, Row::Purchase(own)) => {
            let keys = vec![one(EffectKey::award(&own.id), Some(own.user_id.as_str()))];
            Some((keys, own.merchant_id.to_string()))
        }
        (Consumer::Mission, Row::Purchase(_) | Row::FormSubmission(_)) => {
            let (merchant, user) = row.member()?;
            let key = EffectKey::mission_source(merchant, user, row.table(), row.id());
            Some((vec![one(key, Some(user.as_str()))], merchant.to_string()))
        }
        (Consumer::Reward, Row::MissionClaim(own)) => {
            let keys = vec![one(EffectKey::grant(&own.id), Some(own.user_id.as_str()))];
            Some((keys, own.merchant_id.to_string()))
        }
        (Consumer::Reward, Row::Referral(own)) => {
            let keys = vec![
                one(
                    EffectKey::referral(&own.id, Side::Referrer),
                    Some(own.referrer_user_id.as_str()),
                ),
                one(
                    EffectKey::referral(&own.id, Side::Referee),
                    Some(own.referee_user_id.as_str()),
                ),
            ];
            Some((keys, own.merchant_id.to_string()))
        }
        (Consumer::Marketplace, Row::Code(own)) => {
            let user = own.user_id.as_ref().map(|user| user.as_str());
            Some((vec![one(EffectKey::code(&own.id), user)], own.merchant_id.to_string()))
        }
        _ => None,
    }
}
