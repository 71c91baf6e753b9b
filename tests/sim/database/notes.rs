//! What the sweeper and the reconciler ask: what the functions of 0010, 0011 and 0014 do.

use std::collections::BTreeMap;

use crm_event_processors::consumers::Effect;
use crm_event_processors::postgres::{Announcement, Heal, LedgerRow, Suspect};
use crm_event_processors::reconcile::state;
use crm_event_processors::rows::Table;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Database, EffectRow, Stored, basis_of_fact};

const QUARTER_MS: i64 = 15 * 60 * 1000;
const HOUR_MS: i64 = 3_600_000;

impl Database {
    pub(crate) fn due_effects(&mut self) -> Vec<String> {
        let now = self.now_ms;
        let mut chosen = Vec::new();
        for (key, effect) in &mut self.effects {
            let due = effect.due.map_or(effect.updated, Timestamp::as_millisecond);
            let is_due = effect.state == "pending"
                && due <= now - QUARTER_MS
                && effect.next_attempt.is_none_or(|next| next <= now);
            if is_due {
                let wait = (QUARTER_MS << effect.attempts.min(10)).min(6 * HOUR_MS);
                effect.attempts += 1;
                effect.next_attempt = Some(now + wait);
                chosen.push(key.clone());
            }
        }
        chosen
    }

    /// When the next unsettled effect will be overdue.
    pub(crate) fn next_sweep_ms(&self) -> Option<i64> {
        let pending = self.effects.values().filter(|effect| effect.state == "pending");
        let due = pending.map(|effect| effect.due.map_or(effect.updated, Timestamp::as_millisecond) + QUARTER_MS);
        due.filter(|due| *due > self.now_ms).min()
    }

    pub(crate) fn settle(&mut self, key: &str) -> Value {
        let Some(effect) = self.effects.get(key) else {
            return json!({"outcome": "unknown"});
        };
        match (key.split(':').next(), effect.source.clone()) {
            (Some("award"), _) => self.settle_award(key),
            (Some("grant" | "referral" | "code"), Some((table, id)))
                if matches!(effect.state, "pending" | "review") =>
            {
                self.settle_row(key, table, &id, None)
            }
            _ => json!({"outcome": "unchanged"}),
        }
    }

    pub(crate) fn take_lease(&mut self, name: &str, owner: &str, seconds: i32) -> bool {
        let now = self.now_ms;
        let is_ours = self
            .leases
            .get(name)
            .is_none_or(|(of, until)| of == owner || *until <= now);
        if is_ours {
            let until = now + i64::from(seconds) * 1000;
            self.leases.insert(name.to_owned(), (owner.to_owned(), until));
        }
        is_ours
    }

    pub(crate) fn drop_lease(&mut self, name: &str, owner: &str) {
        if self.leases.get(name).is_some_and(|(of, _)| of == owner) {
            self.leases.remove(name);
        }
    }

    pub(crate) fn page(&self, table: Table, after: Option<&str>, since_ms: Option<i64>, max: i32) -> Vec<LedgerRow> {
        let rows = self.rows.iter().filter(|((of, id), stored)| {
            *of == table
                && after.is_none_or(|after| id.as_str() > after)
                && since_ms.is_none_or(|since| state::newest_ms(&stored.row).is_some_and(|newest| newest >= since))
        });
        rows.take(usize::try_from(max).unwrap_or(0))
            .map(|((_, id), stored)| self.ledger_row(id, stored))
            .collect()
    }

    fn ledger_row(&self, id: &str, stored: &Stored) -> LedgerRow {
        LedgerRow {
            id: id.to_owned(),
            image: stored.image.clone(),
            read_at_ms: self.now_ms,
        }
    }

    pub(crate) fn rows_of(&self, table: Table, ids: &[&str]) -> Vec<LedgerRow> {
        let row = |id: &&str| Some(self.ledger_row(id, self.rows.get(&(table, (*id).to_owned()))?));
        ids.iter().filter_map(row).collect()
    }

    pub(crate) fn suspects(&mut self) -> Vec<Suspect> {
        let now = self.now_ms;
        let mut chosen = Vec::new();
        for (key, effect) in &mut self.effects {
            let Some((table, id)) = effect.source.clone() else {
                continue;
            };
            let due = effect.due.map_or(effect.updated, Timestamp::as_millisecond);
            let is_overdue = effect.state == "pending" && due <= now - QUARTER_MS;
            let is_stale = effect.stale_at.is_some_and(|at| at > now - 7 * 24 * HOUR_MS);
            if effect.missed_since.is_some() || is_stale || is_overdue {
                effect.looked_at = Some(now);
                chosen.push(Suspect {
                    effect_key: key.clone(),
                    table,
                    row_id: id,
                    why: String::new(),
                });
            }
        }
        chosen
    }

    pub(crate) fn plan_heals(&mut self, effects: &[&Effect]) -> Vec<Heal> {
        const WAITS_MS: [i64; 4] = [QUARTER_MS, HOUR_MS, 6 * HOUR_MS, 24 * HOUR_MS];
        let now = self.now_ms;
        let mut heals = Vec::new();
        for decided in effects {
            let fact = decided.fact();
            let source = (fact.source_table, fact.source_id.as_str().to_owned());
            let user = fact.user_id.map(|user| user.as_str().to_owned());
            let basis = basis_of_fact(&fact);
            let missing = json!({"target": fact.target, "basis": basis});
            let key = fact.effect_key.as_str();
            let effect = self.effect(key, Some(source), fact.merchant_id.as_str(), user.as_deref());
            let missed_ms = effect.missed_since.unwrap_or(now);
            let made = usize::try_from(effect.heals).unwrap_or(0);
            let has_waited = effect.healed_at.is_none_or(|at| at <= now - QUARTER_MS);
            let number = match (effect.missed_since, WAITS_MS.get(made)) {
                _ if effect.state == "dead" && effect.dead_basis == basis => 0,
                (Some(since), Some(wait)) if effect.missed == missing => {
                    if since + wait <= now && has_waited {
                        effect.heals += 1;
                        effect.healed_at = Some(now);
                        effect.heals
                    } else {
                        0
                    }
                }
                (Some(_), None) if effect.missed == missing => -i32::from(has_waited),
                _ => {
                    if effect.state == "open" {
                        effect.state = "missing";
                    }
                    effect.missed_since = Some(now);
                    effect.missed = missing;
                    effect.heals = 0;
                    effect.healed_at = None;
                    effect.updated = now;
                    0
                }
            };
            heals.push(Heal { number, missed_ms });
        }
        heals
    }

    pub(crate) fn still_dead(&self, effects: &[&Effect]) -> Vec<bool> {
        let is_dead = |decided: &&Effect| {
            let fact = decided.fact();
            let effect = self.effects.get(fact.effect_key.as_str());
            effect.is_some_and(|effect| effect.state == "dead" && effect.dead_basis == basis_of_fact(&fact))
        };
        effects.iter().map(is_dead).collect()
    }

    pub(crate) fn not_healed(&mut self, keys: &[&str]) {
        for key in keys {
            if let Some(effect) = self.effects.get_mut(*key).filter(|effect| effect.heals > 0) {
                effect.heals -= 1;
                effect.healed_at = None;
            }
        }
    }

    pub(crate) fn found_settled(&mut self, keys: &[&str], as_of_ms: i64) {
        let now = self.now_ms;
        for key in keys {
            let Some(effect) = self.effects.get_mut(*key) else {
                continue;
            };
            if effect
                .missed_since
                .max(effect.stale_at)
                .is_some_and(|at| at <= as_of_ms)
            {
                if effect.state == "missing" {
                    effect.state = "open";
                }
                let dead_basis = std::mem::take(&mut effect.dead_basis);
                effect.forget_misses();
                effect.dead_basis = dead_basis;
                effect.updated = now;
            }
        }
    }

    pub(crate) fn unsent(&self, older_than_s: i32) -> Vec<Announcement> {
        let before = self.now_ms - i64::from(older_than_s) * 1000;
        let waiting = self.announcements.iter();
        let waiting = waiting.filter(|noted| !noted.announced && !noted.rejected && noted.created <= before);
        waiting.map(|noted| noted.announcement.clone()).collect()
    }

    pub(crate) fn bookmark(&self, name: &str) -> Option<String> {
        self.bookmarks.get(name).cloned().flatten()
    }

    pub(crate) fn turn_page(&mut self, name: &str, after: Option<&str>) {
        self.bookmarks.insert(name.to_owned(), after.map(str::to_owned));
    }

    pub(crate) fn overdue(&self) -> i64 {
        let before = self.now_ms - QUARTER_MS;
        let is_overdue = |effect: &&EffectRow| {
            effect.state == "pending" && effect.due.map_or(effect.updated, Timestamp::as_millisecond) <= before
        };
        i64::try_from(self.effects.values().filter(is_overdue).count()).unwrap_or(0)
    }

    pub(crate) fn evaluated_at(&self, keys: &[&str]) -> BTreeMap<String, i64> {
        let known = |key: &&str| Some(((*key).to_owned(), self.effects.get(*key)?.updated));
        keys.iter().filter_map(known).collect()
    }
}
