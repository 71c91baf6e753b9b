//! Currency: takes a change of a purchase, gives the absolute target of its award.
//!
//! The target follows from the row alone, never from what was sent before, so awards converge to the newest row in
//! whatever order they are settled. It never computes a difference and never books.

use jiff::Timestamp;

use super::{Decision, Effect, EffectKey, Proof, Reason, Refusal};
use crate::debezium::Op;
use crate::inngest::{Award, Event, EventData, RowRef};
use crate::loyalty::{Activation, DueAt, Lookup, Points, Programs, due_at, points_for, remaining};
use crate::rows::{Purchase, PurchaseStatus, Row, RowChange};

/// What a purchase image is worth by the rules.
#[derive(Clone, Copy)]
enum Target {
    Zero(Reason),
    Points {
        points: Points,
        activation: Activation,
        due_at: DueAt,
    },
}

pub(super) fn decide(
    purchase: &Purchase,
    change: &RowChange,
    programs: &Programs,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let before = match &change.before {
        Some(Row::Purchase(before)) => Some(before),
        Some(_) | None => None,
    };
    let lookup = programs.version_at(&purchase.merchant_id, earned_at(purchase));
    let target = target(purchase, &lookup)?;
    // An image that would be refused proves nothing.
    let target_before = before.and_then(|before| {
        let lookup = programs.version_at(&before.merchant_id, earned_at(before));
        self::target(before, &lookup).ok()
    });
    let proof = Proof::of(
        change,
        match target {
            Target::Zero(_) => matches!(target_before, Some(Target::Points { .. })),
            Target::Points { .. } => before.is_some_and(|before| before != purchase),
        },
    );
    let reason = match target {
        Target::Zero(reason) if change.op == Op::Create => return Ok(Decision::Ignore(reason)),
        // Of an unknown merchant the old image proves nothing: its program may be newer than the rules.
        Target::Zero(Reason::NoProgram)
            if !matches!(target_before, Some(Target::Points { .. })) && before.is_some() =>
        {
            return Ok(Decision::Ignore(Reason::NoProgram));
        }
        // Nor does it of a row that is worth nothing now: what it was worth before is not known either.
        Target::Zero(_) if matches!(target_before, Some(Target::Zero(Reason::NoProgram))) => {
            return Ok(Decision::Ignore(Reason::NoProgram));
        }
        Target::Zero(_) if matches!(target_before, Some(Target::Zero(_))) => {
            return Ok(Decision::Ignore(Reason::WasZeroBefore));
        }
        Target::Zero(reason) => reason,
        // An unchanged basis is delivered all the same: without a database nothing proves that the change before it was, and
        // whoever settles is idempotent. With one it is compared first.
        Target::Points { .. } if change.op == Op::Update && before == Some(purchase) => Reason::UnchangedBasis,
        Target::Points {
            activation: Activation::Immediate,
            ..
        } => Reason::DueNow,
        Target::Points { due_at, .. } if due_at.timestamp() <= now => Reason::AlreadyDue,
        Target::Points { .. } => Reason::Scheduled,
    };
    let (key, claim) = EffectKey::award_at(&purchase.id, change.version);
    let award = Award {
        purchase: purchase.clone(),
        effect_key: key.clone(),
        program_rev: lookup.rev(),
        refund_policy: match lookup {
            Lookup::Found(version, _) => Some(version.refund_policy),
            Lookup::NoProgram | Lookup::NoVersionYet => None,
        },
        as_of_ms: change.commit_ms,
        reason,
    };
    let effect = Effect {
        key,
        claim: claim.clone(),
        source: RowRef::of(change),
        state_like: true,
        reason,
        proof,
        event: Event {
            id: claim,
            ts_ms: change.commit_ms,
            data: match target {
                Target::Zero(_) => EventData::AwardCancelled(award),
                Target::Points { points, due_at, .. } => EventData::AwardScheduled {
                    award,
                    target_points: points,
                    due_at,
                },
            },
        },
    };
    Ok(Decision::Deliver(effect.into()))
}

/// When a purchase was earned: the time whose rules decide.
pub(super) fn earned_at(purchase: &Purchase) -> Timestamp {
    purchase.completed_at.unwrap_or(purchase.created_at)
}

/// Why a status earns nothing, if it does not.
pub(super) const fn status_reason(status: PurchaseStatus) -> Option<Reason> {
    match status {
        PurchaseStatus::Completed | PurchaseStatus::PartiallyRefunded => None,
        PurchaseStatus::Pending => Some(Reason::Pending),
        PurchaseStatus::Refunded => Some(Reason::Refunded),
        PurchaseStatus::Cancelled => Some(Reason::Cancelled),
    }
}

fn target(purchase: &Purchase, lookup: &Lookup<'_>) -> Result<Target, Refusal> {
    if let Some(reason) = status_reason(purchase.status) {
        return Ok(Target::Zero(reason));
    }
    if !purchase.earn_currency {
        return Ok(Target::Zero(Reason::EarnsNothing));
    }
    let amount = remaining(purchase.final_amount, purchase.refunded_amount)?;
    if amount.is_zero() {
        return Ok(Target::Zero(Reason::NothingRemains));
    }
    let (version, zone) = match lookup {
        Lookup::Found(version, zone) => (version, zone),
        Lookup::NoProgram => return Ok(Target::Zero(Reason::NoProgram)),
        Lookup::NoVersionYet => return Ok(Target::Zero(Reason::NoVersionYet)),
    };
    let Some(rule) = &version.currency else {
        return Ok(Target::Zero(Reason::NoCurrencyRule));
    };
    if amount < rule.minimum {
        return Ok(Target::Zero(Reason::BelowMinimum));
    }
    let points = points_for(amount, rule.rate, rule.rounding)?;
    if points.is_zero() {
        return Ok(Target::Zero(Reason::ZeroPoints));
    }
    let due_at = due_at(rule.activation, earned_at(purchase), zone)?;
    Ok(Target::Points {
        points,
        activation: rule.activation,
        due_at,
    })
}
