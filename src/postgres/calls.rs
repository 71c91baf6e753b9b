//! The arguments of the functions, as the JSON they take. Pure.
//!
//! Takes effects, or a row, gives one JSON array a call, its elements in the order given. It never decides what is called.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

use crate::consumers::{Consumer, Effect, EffectKey, Fact, Proof};
use crate::inngest::{Basis, EventData, MissionEvaluation, RowRef, Side, TierEvaluation, Trigger};
use crate::loyalty::{DueAt, Metric, TierRule, Timing, Window};
use crate::rows::{MerchantId, Row, RowId, Table, UserId};

/// For `compare_effects`: of a row that is older than the cut-off, under the key by which it may be known.
pub(super) fn compared(effects: &[&Effect]) -> String {
    json(effects.iter().map(|effect| match &effect.proof {
        Proof::IfKnown(effect_key) => Fact {
            effect_key,
            ..effect.fact()
        },
        Proof::Change | Proof::Nothing => effect.fact(),
    }))
}

/// For `mark_dead`: every effect of this consumer that rests on this row alone. `None` if there is none, as of a tier.
pub(super) fn buried(consumer: Consumer, row: &Row, reason: &str) -> Option<String> {
    let burial = |effect_key, merchant_id, user_id| Burial {
        effect_key,
        source_table: row.table(),
        source_id: row.id(),
        merchant_id,
        user_id,
        basis: Basis::of(row),
        reason,
    };
    let burials = match (consumer, row) {
        (Consumer::Currency, Row::Purchase(own)) => {
            vec![burial(EffectKey::award(&own.id), &own.merchant_id, Some(&own.user_id))]
        }
        (Consumer::Mission, Row::Purchase(_) | Row::FormSubmission(_)) => {
            let (merchant, user) = row.member()?;
            let key = EffectKey::mission_source(merchant, user, row.table(), row.id());
            vec![burial(key, merchant, Some(user))]
        }
        (Consumer::Reward, Row::MissionClaim(own)) => {
            vec![burial(EffectKey::grant(&own.id), &own.merchant_id, Some(&own.user_id))]
        }
        (Consumer::Reward, Row::Referral(own)) => {
            let sides = [
                (Side::Referrer, &own.referrer_user_id),
                (Side::Referee, &own.referee_user_id),
            ];
            let side = |(side, user)| burial(EffectKey::referral(&own.id, side), &own.merchant_id, Some(user));
            sides.map(side).into()
        }
        (Consumer::Marketplace, Row::Code(own)) => {
            vec![burial(EffectKey::code(&own.id), &own.merchant_id, own.user_id.as_ref())]
        }
        (Consumer::Currency | Consumer::Tier | Consumer::Mission | Consumer::Reward | Consumer::Marketplace, _) => {
            return None;
        }
    };
    Some(json(burials.iter()))
}

/// For `evaluate_tiers`. What is no tier evaluation is none of its business.
pub(super) fn tiers(effects: &[&Effect]) -> String {
    json(effects.iter().filter_map(|effect| match &effect.event.data {
        EventData::TierEvaluationRequested(data) => Some(TierCall::of(data)),
        _ => None,
    }))
}

/// For `record_progress`, likewise.
pub(super) fn progress(effects: &[&Effect]) -> String {
    json(effects.iter().filter_map(|effect| match &effect.event.data {
        EventData::MissionEvaluationRequested(data) => Some(ProgressCall {
            data,
            basis: Basis::of(&data.row),
        }),
        _ => None,
    }))
}

fn json<T: Serialize>(elements: impl Iterator<Item = T>) -> String {
    let mut text = String::from("[");
    for element in elements {
        if text.len() > 1 {
            text.push(',');
        }
        // Writing texts, numbers and booleans into memory cannot fail.
        text.push_str(&serde_json::to_string(&element).unwrap_or_default());
    }
    text.push(']');
    text
}

#[derive(Serialize)]
struct Burial<'a> {
    effect_key: EffectKey,
    source_table: Table,
    source_id: &'a RowId,
    merchant_id: &'a MerchantId,
    user_id: Option<&'a UserId>,
    basis: Option<Basis<'a>>,
    reason: &'a str,
}

#[derive(Serialize)]
struct TierCall<'a> {
    merchant_id: &'a MerchantId,
    user_id: &'a UserId,
    effect_key: &'a EffectKey,
    program_rev: u32,
    as_of_ms: i64,
    rules: RulesOf<'a>,
    triggers: Vec<TriggerCall<'a>>,
}

#[derive(Serialize)]
struct RulesOf<'a> {
    metric: Metric,
    window: WindowOf,
    time_zone: &'a str,
    timing: &'static str,
    ladder: Vec<Step<'a>>,
}

#[derive(Serialize)]
struct WindowOf {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    months: Option<u32>,
}

#[derive(Serialize)]
struct Step<'a> {
    name: &'a str,
    #[serde(serialize_with = "as_text")]
    threshold: Decimal,
}

#[derive(Serialize)]
struct TriggerCall<'a> {
    #[serde(flatten)]
    change: &'a RowRef,
    at: Timestamp,
    due_at: Option<DueAt>,
    lowers: bool,
}

#[derive(Serialize)]
struct ProgressCall<'a> {
    #[serde(flatten)]
    data: &'a MissionEvaluation,
    basis: Option<Basis<'a>>,
}

impl<'a> TierCall<'a> {
    fn of(data: &'a TierEvaluation) -> Self {
        Self {
            merchant_id: &data.merchant_id,
            user_id: &data.user_id,
            effect_key: &data.effect_key,
            program_rev: data.program_rev,
            as_of_ms: data.as_of_ms,
            rules: RulesOf::new(&data.rule, data.zone.iana_name().unwrap_or("UTC")),
            triggers: data.triggers.iter().map(TriggerCall::of).collect(),
        }
    }
}

impl<'a> RulesOf<'a> {
    fn new(rule: &'a TierRule, time_zone: &'a str) -> Self {
        let (kind, months) = match rule.window {
            Window::RollingMonths(months) => ("rolling_months", Some(months)),
            Window::CalendarYear => ("calendar_year", None),
            Window::Lifetime => ("lifetime", None),
        };
        let step = |tier: &'a crate::loyalty::Tier| Step {
            name: &tier.name,
            threshold: tier.threshold,
        };
        Self {
            metric: rule.metric,
            window: WindowOf { kind, months },
            time_zone,
            timing: match rule.timing {
                Timing::Immediate => "immediate",
                Timing::StartOfNextMonth => "start_of_next_month",
            },
            ladder: rule.ladder.iter().map(step).collect(),
        }
    }
}

impl<'a> TriggerCall<'a> {
    fn of(trigger: &'a Trigger) -> Self {
        Self {
            change: &trigger.change,
            at: trigger.at,
            due_at: trigger.due_at,
            lowers: trigger.lowers,
        }
    }
}

fn as_text<S: Serializer>(number: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
