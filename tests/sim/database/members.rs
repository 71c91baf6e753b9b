//! Tiers and missions: what the functions of 0008 and 0009 do.

use std::collections::{BTreeMap, BTreeSet};

use crm_event_processors::consumers::Effect;
use crm_event_processors::inngest::{EventData, MissionEvaluation, TierEvaluation};
use crm_event_processors::loyalty::Metric;
use crm_event_processors::postgres::Announcement;
use crm_event_processors::rows::{PurchaseStatus, Row};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{Database, basis_of};

impl Database {
    pub(crate) fn evaluate_tiers(&mut self, effects: &[&Effect]) -> Vec<Announcement> {
        let written_before = self.announcements.len();
        let mut keys = BTreeSet::new();
        let mut calls: Vec<_> = effects
            .iter()
            .filter_map(|effect| match &effect.event.data {
                EventData::TierEvaluationRequested(data) => Some(data),
                _ => None,
            })
            .collect();
        calls.sort_by_key(|call| call.as_of_ms);
        for call in calls {
            let key = call.effect_key.as_str().to_owned();
            self.evaluate(&key, call);
            keys.insert(key);
        }
        self.unannounced(&keys, written_before)
    }

    fn evaluate(&mut self, key: &str, call: &TierEvaluation) {
        let (merchant, user) = (call.merchant_id.as_str(), call.user_id.as_str());
        let total = self.tier_sum(call.metric, merchant, user);
        let best = call.rule.ladder.iter().filter(|step| step.threshold <= total);
        let best = best.max_by_key(|step| step.threshold).cloned();
        let rev = i64::from(call.program_rev);
        let now = self.now_ms;
        let mut tier = self.tiers.get(key).cloned().unwrap_or_default();
        let reached = best.as_ref().map(|step| step.threshold);
        if reached > tier.threshold {
            let step = best.unwrap_or_else(|| unreachable!("reached"));
            tier.number += 1;
            let data = json!({"effect_key": key, "merchant_id": merchant, "user_id": user, "tier": &*step.name,
                "previous_tier": tier.name, "value": total.to_string(), "program_rev": rev});
            tier.name = Some(step.name.to_string());
            tier.threshold = Some(step.threshold);
            tier.review = false;
            let id = format!("{key}:upgraded:{}", tier.number);
            self.announce(id, key, "loyalty/tier.upgraded", call.as_of_ms, &data);
        } else if reached < tier.threshold && call.triggers.iter().any(|trigger| trigger.lowers) && !tier.review {
            tier.number += 1;
            tier.review = true;
            let data = json!({"effect_key": key, "merchant_id": merchant, "user_id": user, "tier": tier.name,
                "value": total.to_string(), "program_rev": rev});
            let id = format!("{key}:review:{}", tier.number);
            self.announce(id, key, "loyalty/tier.review_requested", call.as_of_ms, &data);
        }
        if reached >= tier.threshold {
            tier.review = false;
        }
        let state = if tier.review { "review" } else { "settled" };
        self.tiers.insert(key.to_owned(), tier);
        let effect = self.effect(key, None, merchant, Some(user));
        effect.state = state;
        effect.settled = true;
        // A later version than the worker knows stays in force.
        effect.rev = effect.rev.max(rev);
        effect.forget_misses();
        effect.updated = now;
    }

    /// Over a lifetime.
    pub(crate) fn tier_sum(&self, metric: Metric, merchant: &str, user: &str) -> Decimal {
        let is_theirs = |row: &Row| {
            row.member()
                .is_some_and(|(m, u)| m.as_str() == merchant && u.as_str() == user)
        };
        let of_them = self
            .rows
            .values()
            .map(|stored| &stored.row)
            .filter(|row| is_theirs(row));
        of_them
            .filter_map(|row| match (row, metric) {
                (Row::Purchase(row), Metric::Spend) => {
                    let counts = matches!(
                        row.status,
                        PurchaseStatus::Completed | PurchaseStatus::PartiallyRefunded
                    );
                    counts.then(|| (row.final_amount - row.refunded_amount).max(Decimal::ZERO))
                }
                (Row::WalletEntry(row), Metric::Points) => {
                    use crm_event_processors::rows::WalletEntryKind as Kind;
                    matches!(row.kind, Kind::Earn | Kind::Clawback | Kind::Adjust).then(|| row.amount.into())
                }
                _ => None,
            })
            .sum()
    }

    pub(crate) fn record_progress(&mut self, effects: &[&Effect]) -> Vec<Announcement> {
        let written_before = self.announcements.len();
        let mut calls: Vec<_> = effects
            .iter()
            .filter_map(|effect| match &effect.event.data {
                EventData::MissionEvaluationRequested(data) => Some(data),
                _ => None,
            })
            .collect();
        calls.sort_by_key(|call| (call.source.table.name(), call.source.row_id.clone(), call.program_rev));
        let (mut keys, mut accepted) = (BTreeSet::new(), Vec::new());
        let given = calls.iter().flat_map(|call| &call.missions);
        let given: Vec<String> = given.map(|share| share.effect_key.as_str().to_owned()).collect();
        for call in calls {
            let source = (call.source.table, call.source.row_id.as_str().to_owned());
            let is_known = self
                .shares
                .keys()
                .any(|(_, table, id)| (*table, id) == (source.0, &source.1));
            if call.missions.is_empty() && !is_known {
                continue;
            }
            let Some(row_basis) = self.basis(source.0, &source.1) else {
                continue;
            };
            let own = call.effect_key.as_str().to_owned();
            let is_current = basis_of(&call.row) == row_basis;
            accepted.push((call, is_current, row_basis));
            if !is_current {
                if self.effects.contains_key(&own) {
                    keys.insert(own);
                }
                continue;
            }
            let (merchant, user) = (call.merchant_id.as_str(), call.user_id.as_str());
            self.effect(&own, Some(source.clone()), merchant, Some(user));
            keys.insert(own);
            for share in call.missions.iter().filter(|share| !share.counted.is_zero()) {
                self.effect(share.effect_key.as_str(), None, merchant, Some(user));
                keys.insert(share.effect_key.as_str().to_owned());
            }
            let before = self
                .shares
                .keys()
                .filter(|(_, table, id)| (*table, id) == (source.0, &source.1));
            keys.extend(before.map(|(key, ..)| key.clone()));
            let sources = self
                .effects
                .iter()
                .filter(|(key, effect)| key.starts_with("mission_source:") && effect.source.as_ref() == Some(&source));
            keys.extend(sources.map(|(key, _)| key.clone()));
        }
        for (call, is_current, row_basis) in &accepted {
            if *is_current {
                self.replace_shares(call, row_basis);
            } else {
                self.note_stale(call.effect_key.as_str(), row_basis);
            }
        }
        let led = self.led(&accepted);
        for (key, (ts_ms, first)) in led.into_iter().filter(|(key, _)| keys.contains(key)) {
            self.add_up(&key, first.map(|(_, goal)| goal), ts_ms);
        }
        keys.extend(given);
        self.unannounced(&keys, written_before)
    }

    /// Missions where the rows count, or did: the newest of their times, and the target of the oldest rules.
    fn led(&self, accepted: &[(&MissionEvaluation, bool, Value)]) -> BTreeMap<String, (i64, Option<(u32, Decimal)>)> {
        let mut led: BTreeMap<String, (i64, Option<(u32, Decimal)>)> = BTreeMap::new();
        for (call, ..) in accepted.iter().filter(|(_, is_current, _)| *is_current) {
            let source = (call.source.table, call.source.row_id.as_str());
            let given = call.missions.iter().map(|share| share.effect_key.as_str().to_owned());
            let before = self
                .shares
                .keys()
                .filter(|(_, table, id)| (*table, id.as_str()) == source);
            for key in given.chain(before.map(|(key, ..)| key.clone())) {
                let one = led.entry(key).or_insert((i64::MIN, None));
                one.0 = one.0.max(call.as_of_ms);
            }
            for share in call.missions.iter().filter(|share| !share.counted.is_zero()) {
                if let Some((_, first)) = led.get_mut(share.effect_key.as_str())
                    && first.is_none_or(|(rev, _)| call.program_rev < rev)
                {
                    *first = Some((call.program_rev, share.target));
                }
            }
        }
        led
    }

    fn replace_shares(&mut self, call: &MissionEvaluation, row_basis: &Value) {
        let (key, now) = (call.effect_key.as_str(), self.now_ms);
        let source = (call.source.table, call.source.row_id.as_str().to_owned());
        let rev = i64::from(call.program_rev);
        let known = self.effects.get(key).cloned().unwrap_or_default();
        if known.basis == *row_basis && known.rev > rev {
            return;
        }
        for ((of, table, id), counted) in &mut self.shares {
            if *table == source.0
                && *id == source.1
                && !call.missions.iter().any(|share| share.effect_key.as_str() == of)
            {
                *counted = Decimal::ZERO;
            }
        }
        for share in &call.missions {
            if self.effects.contains_key(share.effect_key.as_str()) {
                let place = (share.effect_key.as_str().to_owned(), source.0, source.1.clone());
                self.shares.insert(place, share.counted);
            }
        }
        for (other, effect) in &mut self.effects {
            if other.starts_with("mission_source:") && effect.source.as_ref() == Some(&source) && other != key {
                effect.basis = Value::Null;
                effect.target = 0;
            }
        }
        if let Some(effect) = self.effects.get_mut(key) {
            effect.state = "settled";
            effect.settled = true;
            effect.basis = row_basis.clone();
            effect.rev = rev;
            let counting = call.missions.iter().filter(|share| !share.counted.is_zero());
            effect.target = i64::try_from(counting.count()).unwrap_or(0);
            effect.forget_misses();
            effect.updated = now;
        }
    }

    fn add_up(&mut self, key: &str, goal: Option<Decimal>, ts_ms: i64) {
        let now = self.now_ms;
        let shares = self.shares.iter().filter(|((of, ..), _)| of == key);
        let progress: Decimal = shares.map(|(_, counted)| *counted).sum();
        let Some(effect) = self.effects.get_mut(key) else {
            return;
        };
        let before = effect.progress.unwrap_or_default();
        let goal = effect.goal.or(goal);
        let completes = effect.booked == 0 && goal.is_some_and(|goal| progress >= goal);
        if effect.progress.is_some() && progress == before && !completes {
            return;
        }
        let announces = progress != before || completes;
        effect.number += usize::from(announces);
        effect.state = "settled";
        effect.settled = true;
        if completes {
            effect.target = 1;
            effect.booked = 1;
            effect.booked_user = effect.user.clone();
        }
        effect.progress = Some(progress);
        effect.goal = goal;
        effect.updated = now;
        let (number, is_complete) = (effect.number, effect.booked == 1);
        if announces {
            let data = json!({"effect_key": key, "progress": progress.to_string(), "completed": is_complete, "completed_now": completes});
            self.announce(
                format!("{key}:evaluated:{number}"),
                key,
                "loyalty/mission.evaluated",
                ts_ms,
                &data,
            );
        }
    }
}
