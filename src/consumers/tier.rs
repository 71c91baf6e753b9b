//! Tier: takes a change of a purchase or a wallet entry, gives a request to evaluate the member, or both members if the row
//! moved from one to another.
//!
//! It never sums anything and never names a tier: one row cannot tell. It only tells rows that may matter from rows that
//! provably do not.

use std::sync::Arc;

use jiff::Timestamp;
use rust_decimal::Decimal;

use super::currency::status_reason;
use super::{Decision, Effect, EffectKey, Effects, Proof, Reason, Refusal, happened_at};
use crate::debezium::Op;
use crate::dedupe::ClaimKey;
use crate::inngest::{Event, EventData, RowRef, TierEvaluation, Trigger};
use crate::loyalty::{Activation, Lookup, Metric, Programs, Timing, due_at};
use crate::rows::{Row, RowChange, WalletEntryKind};

/// Why a member is not evaluated.
enum Without {
    Reason(Reason),
    Refusal(Refusal),
}

pub(super) fn decide(row: &Row, change: &RowChange, programs: &Programs) -> Result<Decision, Refusal> {
    let before = change.before.as_ref().filter(|_| change.op != Op::Create);
    let left = before.filter(|before| before.member() != row.member());
    // What the old image counted, it counted for its own member.
    let counted_before = match (change.op, before) {
        (Op::Create, _) => Some(Decimal::ZERO),
        (_, Some(before)) if left.is_none() => Some(counted(before)),
        (_, Some(_)) => Some(Decimal::ZERO),
        // A snapshot row, or an update without its old image, may stand for a change that was never seen.
        (_, None) => None,
    };
    let counts = counted(row);
    let may_matter = !counts.is_zero() || counted_before.is_none_or(|before| !before.is_zero());
    let lowers = match (counted_before, before) {
        (Some(before), _) if counts < before => true,
        // Out of the window, perhaps.
        (Some(counted), Some(before)) => !counted.is_zero() && happened_at(before) != happened_at(row),
        (Some(_), None) => false,
        // What was there before is not known. A row that counts in full shows nothing taken away: else every snapshot would
        // ask for a review of every member whose window has moved on.
        (None, _) => !counts_in_full(row),
    };
    let current = evaluation("evaluation", row, change, programs, may_matter, lowers);
    // The change took the row away from its old member, whoever has it now.
    let old = left.map(|before| {
        let may_matter = !counted(before).is_zero();
        evaluation("evaluation_before", before, change, programs, may_matter, may_matter)
    });
    match (current, old) {
        (Err(Without::Refusal(refusal)), _) | (_, Some(Err(Without::Refusal(refusal)))) => Err(refusal),
        (Ok(current), Some(Ok(old))) => Ok(Decision::Deliver(Effects::both(current, old))),
        (Ok(one), _) | (Err(Without::Reason(_)), Some(Ok(one))) => Ok(Decision::Deliver(one.into())),
        (Err(Without::Reason(reason)), _) => Ok(Decision::Ignore(reason)),
    }
}

/// The evaluation of the member whose row this image is.
fn evaluation(
    name: &str,
    image: &Row,
    change: &RowChange,
    programs: &Programs,
    may_matter: bool,
    lowers: bool,
) -> Result<Effect, Without> {
    let without = |reason| Err(Without::Reason(reason));
    let Some((merchant, user)) = image.member() else {
        return without(Reason::NotInterested);
    };
    // A tier is what a member has now, so the version in force when the row changed decides, not the one of the
    // purchase: a refund of an old purchase still takes spend out of a window that today's rules look at.
    let lookup = match Timestamp::from_millisecond(change.commit_ms) {
        Ok(changed_at) => programs.version_at(merchant, changed_at),
        Err(_) => Lookup::NoVersionYet,
    };
    let (version, zone) = match lookup {
        Lookup::Found(version, zone) => (version, zone),
        Lookup::NoProgram => return without(Reason::NoProgram),
        Lookup::NoVersionYet => return without(Reason::NoVersionYet),
    };
    let Some(rule) = &version.tiers else {
        return without(Reason::NoTierLadder);
    };
    let reason = match (rule.metric, image) {
        (Metric::Spend, Row::Purchase(_)) => Reason::SpendMayHaveChanged,
        (Metric::Points, Row::WalletEntry(_)) => Reason::PointsMayHaveChanged,
        (Metric::Spend | Metric::Points, _) => return without(Reason::NotInMetric),
    };
    if !may_matter {
        return without(Reason::CannotChangeMetric);
    }
    // An unchanged row is evaluated all the same: evaluations are cheap, coalesced, and heal.
    let unchanged = change.op == Op::Update && change.before.as_ref() == Some(&change.row);
    let reason = if unchanged { Reason::UnchangedBasis } else { reason };
    let at = happened_at(image);
    let due_at = match rule.timing {
        Timing::Immediate => None,
        Timing::StartOfNextMonth => {
            let due = due_at(Activation::StartOfNextMonth, at, zone).map_err(Without::Refusal)?;
            Some(due)
        }
    };
    let claim = ClaimKey::new("tier", name, image.table(), image.id(), change.version);
    let key = EffectKey::tier(merchant, user);
    let source = RowRef::of(change);
    Ok(Effect {
        key: key.clone(),
        claim: claim.clone(),
        source: source.clone(),
        state_like: true,
        reason,
        proof: Proof::Change,
        event: Event {
            id: claim,
            ts_ms: change.commit_ms,
            data: EventData::TierEvaluationRequested(TierEvaluation {
                merchant_id: merchant.clone(),
                user_id: user.clone(),
                effect_key: key,
                metric: rule.metric,
                program_rev: version.rev,
                as_of_ms: change.commit_ms,
                triggers: vec![Trigger {
                    change: source,
                    at,
                    due_at,
                    lowers,
                }],
                reason,
                rule: Arc::clone(rule),
                zone: zone.clone(),
            }),
        },
    })
}

/// What this image adds to the sum, as near as a comparison needs: a refusal of the currency rules is none here.
fn counted(row: &Row) -> Decimal {
    match row {
        Row::Purchase(row) if status_reason(row.status).is_none() => {
            let left = row.final_amount.checked_sub(row.refunded_amount);
            left.unwrap_or(row.final_amount).max(Decimal::ZERO)
        }
        // What is spent or expires was earned all the same.
        Row::WalletEntry(row) => match row.kind {
            WalletEntryKind::Earn | WalletEntryKind::Clawback | WalletEntryKind::Adjust => row.amount.into(),
            WalletEntryKind::Spend | WalletEntryKind::Expire => Decimal::ZERO,
        },
        Row::Purchase(_) | Row::FormSubmission(_) | Row::MissionClaim(_) | Row::Referral(_) | Row::Code(_) => {
            Decimal::ZERO
        }
    }
}

/// Whether nothing of this image shows that it ever counted more.
fn counts_in_full(row: &Row) -> bool {
    match row {
        Row::Purchase(row) => status_reason(row.status).is_none() && row.refunded_amount <= Decimal::ZERO,
        row => counted(row) > Decimal::ZERO,
    }
}
