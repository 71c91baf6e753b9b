//! Awards, grants and codes: what the functions of 0006 and 0007 do.

use crm_event_processors::planted::Planted;
use crm_event_processors::rows::{Row, Table};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Database, EffectRow, text};

impl Database {
    pub(crate) fn apply_award(&mut self, data: &Value) -> Value {
        let (key, id) = (text(data, "effect_key"), text(data, "purchase_id"));
        let target: i64 = text(data, "target_points").parse().unwrap_or(0);
        let due: Option<Timestamp> = data
            .get("due_at")
            .and_then(Value::as_str)
            .and_then(|due| due.parse().ok());
        let rev = data.get("program_rev").and_then(Value::as_i64).unwrap_or(0);
        let Some(row_basis) = self.basis(Table::PurchaseLedger, &id) else {
            return json!({"outcome": "missing_row"});
        };
        let now = self.now_ms;
        let event_basis = data.get("basis").cloned().unwrap_or_default();
        let (merchant, user) = (text(&row_basis, "merchant_id"), text(&row_basis, "user_id"));
        let source = Some((Table::PurchaseLedger, id));
        let effect = self.effect(&key, source, &merchant, Some(&user));
        let outcome;
        if event_basis != row_basis && !Planted::NoBasisCheck.is_planted() {
            self.note_stale(&key, &row_basis);
            outcome = "stale";
        } else if effect.basis == row_basis && effect.rev > rev {
            outcome = "outdated";
            if effect.state == "dead" {
                effect.state = if effect.settled { "settled" } else { "pending" };
                effect.stale_at = None;
                effect.dead_basis = Value::Null;
                effect.updated = now;
            }
        } else {
            let is_known = matches!(effect.state, "pending" | "settled" | "review");
            let is_same = effect.basis == row_basis && effect.target == target && effect.due == due && is_known;
            if is_same {
                outcome = "unchanged";
            } else {
                outcome = "applied";
                effect.state = "pending";
                effect.settled = false;
                effect.attempts = 0;
                effect.next_attempt = None;
            }
            effect.merchant = merchant;
            effect.user = Some(user);
            effect.basis = if Planted::NoBasisCheck.is_planted() {
                event_basis
            } else {
                row_basis
            };
            effect.target = target;
            effect.due = due;
            effect.rev = rev;
            if let Some(policy) = data.get("refund_policy").and_then(Value::as_str) {
                effect.policy = Some(policy.to_owned());
            }
            effect.forget_misses();
            effect.updated = now;
        }
        let effect = self.effects.get(&key).cloned().unwrap_or_default();
        json!({"outcome": outcome, "target": effect.target, "booked": effect.booked, "due_ms": effect.due.map(Timestamp::as_millisecond)})
    }

    pub(crate) fn settle_award(&mut self, key: &str) -> Value {
        let now = self.now_ms;
        let answer = |outcome: &str, booked: i64| json!({"outcome": outcome, "booked_now": booked});
        let Some(effect) = self.effects.get(key).cloned().filter(|_| key.starts_with("award:")) else {
            return answer("unknown", 0);
        };
        let id = effect.source.clone().map(|(_, id)| id).unwrap_or_default();
        let row_basis = self.basis(Table::PurchaseLedger, &id);
        let user = row_basis
            .as_ref()
            .map(|basis| text(basis, "user_id"))
            .unwrap_or_default();
        let merchant = row_basis
            .as_ref()
            .map(|basis| text(basis, "merchant_id"))
            .unwrap_or_default();
        let is_unchecked = Planted::NoBasisCheck.is_planted();
        if !matches!(effect.state, "pending" | "review") {
            return answer("unchanged", 0);
        }
        let Some(row_basis) = row_basis else {
            return self.review(key);
        };
        if effect.basis != row_basis && !is_unchecked {
            self.note_stale(key, &row_basis);
            return answer("stale", 0);
        }
        if effect.due.is_some_and(|due| due.as_millisecond() > now) {
            return answer("not_due", 0);
        }
        if effect.booked != 0
            && (effect.booked_user.as_deref() != Some(&user) || effect.booked_merchant.as_deref() != Some(&merchant))
        {
            return self.review(key);
        }
        let difference = self.book(&effect, &merchant, &user, &id);
        if let Some(effect) = self.effects.get_mut(key) {
            effect.state = "settled";
            effect.settled = true;
            effect.stale_at = None;
            effect.updated = now;
            effect.booked += difference;
            effect.booked_user = (effect.booked != 0).then_some(user);
            effect.booked_merchant = (effect.booked != 0).then_some(merchant);
        }
        answer("settled", difference)
    }

    fn review(&mut self, key: &str) -> Value {
        let now = self.now_ms;
        if let Some(effect) = self.effects.get_mut(key).filter(|effect| effect.state != "review") {
            effect.state = "review";
            effect.updated = now;
        }
        json!({"outcome": "review", "booked_now": 0})
    }

    fn book(&mut self, effect: &EffectRow, merchant: &str, user: &str, id: &str) -> i64 {
        let mut difference = effect.target - effect.booked;
        if difference < 0 {
            match effect.policy.as_deref().unwrap_or("only_pending") {
                "only_pending" => return 0,
                "within_balance" => difference = -(-difference).min(self.balance(merchant, user).max(0)),
                _ => {}
            }
        }
        if difference == 0 {
            return 0;
        }
        let kind = if difference > 0 { "earn" } else { "clawback" };
        self.enter(merchant, user, difference, kind, Some(id));
        difference
    }

    /// A wallet entry; the database numbers them.
    pub(crate) fn enter(&mut self, merchant: &str, user: &str, amount: i64, kind: &str, purchase: Option<&str>) {
        self.entries += 1;
        let at = Timestamp::from_millisecond(self.now_ms).unwrap_or_default();
        let entry = json!({"id": format!("w{:05}", self.entries), "user_id": user, "merchant_id": merchant, "amount": amount,
            "kind": kind, "source_type": purchase.map(|_| "purchase"), "source_id": purchase, "created_at": at.to_string()});
        self.write(Table::WalletLedger, entry.to_string());
    }

    pub(crate) fn balance(&self, merchant: &str, user: &str) -> i64 {
        self.wallet()
            .filter(|entry| entry.merchant_id.as_str() == merchant && entry.user_id.as_str() == user)
            .map(|entry| entry.amount)
            .sum()
    }

    pub(crate) fn wallet(&self) -> impl Iterator<Item = &crm_event_processors::rows::WalletEntry> {
        self.rows.values().filter_map(|stored| match &stored.row {
            Row::WalletEntry(entry) => Some(entry),
            _ => None,
        })
    }

    pub(crate) fn settle_grant(&mut self, data: &Value) -> Value {
        let (table, id) = if text(data, "source") == "referral" {
            (Table::ReferralLedger, text(data, "referral_id"))
        } else {
            (Table::MissionClaims, text(data, "claim_id"))
        };
        let basis = data.get("basis").cloned();
        self.settle_row(&text(data, "effect_key"), table, &id, basis)
    }

    pub(crate) fn settle_code(&mut self, data: &Value) -> Value {
        let (id, basis) = (text(data, "code_id"), data.get("basis").cloned());
        self.settle_row(&text(data, "effect_key"), Table::Codes, &id, basis)
    }

    pub(super) fn settle_row(&mut self, key: &str, table: Table, id: &str, event_basis: Option<Value>) -> Value {
        let answer = |outcome: &str| json!({"outcome": outcome});
        let Some(row_basis) = self.basis(table, id) else {
            return answer("missing_row");
        };
        let side = (table == Table::ReferralLedger).then(|| key.rsplit(':').next().unwrap_or_default());
        let member = row_basis
            .get(side.map_or("user_id", |side| {
                if side == "referrer" {
                    "referrer_user_id"
                } else {
                    "referee_user_id"
                }
            }))
            .and_then(Value::as_str)
            .map(str::to_owned);
        let (merchant, status) = (text(&row_basis, "merchant_id"), text(&row_basis, "status"));
        let is_self = side.is_some() && row_basis.get("referrer_user_id") == row_basis.get("referee_user_id");
        let mut wanted = i64::from(
            matches!(
                (table, status.as_str()),
                (Table::MissionClaims, "claimed") | (Table::ReferralLedger, "qualified") | (Table::Codes, "redeemed")
            ) && !is_self,
        );
        let source = Some((table, id.to_owned()));
        if event_basis.is_some_and(|basis| basis != row_basis) {
            let booked = self.effects.get(key).map_or(0, |effect| effect.booked);
            if wanted != booked && !(table == Table::Codes && wanted == 0) {
                self.effect(key, source, &merchant, member.as_deref());
                self.note_stale(key, &row_basis);
            }
            return answer("stale");
        }
        let now = self.now_ms;
        let referee = row_basis
            .get("referee_user_id")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let effect = self.effect(key, source, &merchant, member.as_deref()).clone();
        if table == Table::Codes && effect.booked == 1 {
            wanted = 1;
        }
        let another = |other: &EffectRow| {
            matches!(other.source, Some((Table::ReferralLedger, ref of)) if of != id)
                && other.booked != 0
                && other.merchant == merchant
                && other.referee == referee
        };
        let is_conflict = (effect.booked != 0 && effect.booked_user != member)
            || (side.is_some() && wanted == 1 && effect.booked == 0 && self.effects.values().any(another));
        let outcome = match () {
            () if is_conflict => "review",
            () if wanted == effect.booked => "unchanged",
            () if wanted == 0 => "revoked",
            () if table == Table::Codes => "fulfilled",
            () => "granted",
        };
        if let Some(effect) = self.effects.get_mut(key) {
            effect.state = if is_conflict { "review" } else { "settled" };
            effect.settled = !is_conflict;
            effect.merchant = merchant;
            effect.user.clone_from(&member);
            effect.basis = row_basis;
            effect.target = wanted;
            effect.referee = referee;
            if !is_conflict {
                effect.booked = wanted;
                effect.booked_user = member.filter(|_| wanted == 1);
            }
            effect.forget_misses();
            effect.updated = now;
        }
        answer(outcome)
    }
}
