//! The books at the end: takes the database and the true rules, gives every fact that is not as its row is now.

use std::collections::BTreeMap;

use crm_event_processors::consumers::{self, Consumer, Decision, EffectKey, Rules};
use crm_event_processors::debezium::Op;
use crm_event_processors::inngest::EventData;
use crm_event_processors::loyalty::{Lookup, Metric};
use crm_event_processors::rows::{ChangeVersion, ClaimStatus, CodeStatus, ReferralStatus, Row, RowChange};
use rust_decimal::Decimal;

use super::database::Database;
use super::executor::is_wrong_for_ever;

pub(super) fn differences(database: &Database, rules: &Rules) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut missions: BTreeMap<String, (Decimal, Decimal)> = BTreeMap::new();
    let mut wallet: BTreeMap<String, i64> = BTreeMap::new();
    for entry in database.wallet() {
        if let Some(purchase) = &entry.source_id {
            *wallet.entry(purchase.to_string()).or_default() += entry.amount;
        }
    }
    let booked = |key: &EffectKey| database.effects.get(key.as_str()).map_or(0, |effect| effect.booked);
    let mut expect = |key: &EffectKey, target: i64| {
        if booked(key) != target {
            wrong.push(format!(
                "{key} should be {target}: {:?}",
                database.effects.get(key.as_str())
            ));
        }
    };
    for stored in database.rows.values() {
        let change = RowChange {
            op: Op::Read,
            version: ChangeVersion::Snapshot(database.now_ms),
            commit_ms: database.now_ms,
            row: stored.row.clone(),
            before: None,
        };
        count_missions(&change, rules, &mut missions);
        match &stored.row {
            // Rejected for ever, and in the letters.
            Row::Purchase(row) if is_wrong_for_ever(row.id.as_str()) => {}
            Row::Purchase(row) => {
                let target = match consumers::decide(Consumer::Currency, &change, rules, jiff::Timestamp::UNIX_EPOCH) {
                    Decision::Ignore(_) => 0,
                    Decision::Deliver(effects) => effects.iter().map(|effect| effect.fact().target).sum(),
                    Decision::Refuse(_) | Decision::RefuseIfKnown(..) => continue,
                };
                expect(&EffectKey::award(&row.id), target);
            }
            Row::MissionClaim(row) => expect(
                &EffectKey::grant(&row.id),
                i64::from(row.status == ClaimStatus::Claimed),
            ),
            Row::Referral(row) => {
                use crm_event_processors::inngest::Side;
                for side in [Side::Referrer, Side::Referee] {
                    let target = i64::from(row.status == ReferralStatus::Qualified);
                    expect(&EffectKey::referral(&row.id, side), target);
                }
            }
            Row::Code(row) => expect(&EffectKey::code(&row.id), i64::from(row.status == CodeStatus::Redeemed)),
            Row::WalletEntry(_) | Row::FormSubmission(_) => {}
        }
    }
    for (purchase, points) in wallet {
        let key = format!("award:{purchase}");
        let booked = database.effects.get(&key).map_or(0, |effect| effect.booked);
        if booked != points {
            wrong.push(format!("{key} has {booked} booked and {points} in the wallet"));
        }
    }
    wrong.extend(
        missions
            .into_iter()
            .filter_map(|(key, (sum, target))| mission(database, &key, sum, target)),
    );
    wrong.extend(tiers(database, rules));
    wrong.extend(
        database
            .announcements
            .iter()
            .filter(|noted| !noted.announced)
            .map(|noted| format!("{} was never announced", noted.announcement.id)),
    );
    wrong
}

/// What this row counts for each mission, and how much completes it.
fn count_missions(change: &RowChange, rules: &Rules, missions: &mut BTreeMap<String, (Decimal, Decimal)>) {
    if let Decision::Deliver(effects) = consumers::decide(Consumer::Mission, change, rules, jiff::Timestamp::UNIX_EPOCH)
    {
        for effect in effects {
            if let EventData::MissionEvaluationRequested(data) = &effect.event.data {
                for share in &data.missions {
                    let sum = missions.entry(share.effect_key.as_str().to_owned()).or_default();
                    sum.0 += share.counted;
                    sum.1 = share.target;
                }
            }
        }
    }
}

fn mission(database: &Database, key: &str, sum: Decimal, target: Decimal) -> Option<String> {
    let effect = database.effects.get(key);
    let progress = effect.and_then(|effect| effect.progress).unwrap_or_default();
    if progress != sum {
        return Some(format!("{key} has {progress} instead of {sum}"));
    }
    let of_it = database
        .announcements
        .iter()
        .filter(|noted| &*noted.announcement.effect_key == key);
    let completions = of_it
        .filter(|noted| noted.announcement.data.get().contains(r#""completed_now":true"#))
        .count();
    let is_once = if sum >= target {
        completions == 1
    } else {
        completions <= 1
    };
    (!is_once).then(|| format!("{key} with {sum} of {target} was completed {completions} times"))
}

/// Nobody has less than the sum says; what is above it was reached before a refund.
fn tiers(database: &Database, rules: &Rules) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut members = BTreeMap::new();
    for stored in database.rows.values() {
        if let (Row::Purchase(_) | Row::WalletEntry(_), Some((merchant, user))) = (&stored.row, stored.row.member()) {
            members.insert(EffectKey::tier(merchant, user), (merchant, user));
        }
    }
    for (key, (merchant, user)) in members {
        let now = jiff::Timestamp::from_millisecond(database.now_ms).unwrap_or_default();
        let Lookup::Found(version, _) = rules.programs.version_at(merchant, now) else {
            continue;
        };
        let Some(rule) = &version.tiers else { continue };
        let metric: Metric = rule.metric;
        let sum = database.tier_sum(metric, merchant.as_str(), user.as_str());
        let reached = rule
            .ladder
            .iter()
            .map(|step| step.threshold)
            .filter(|threshold| *threshold <= sum)
            .max();
        let has = database.tiers.get(key.as_str()).and_then(|tier| tier.threshold);
        if has < reached {
            wrong.push(format!("{key} has {has:?} and a sum of {sum}"));
        }
    }
    wrong
}
