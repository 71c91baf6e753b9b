//! Tier: takes a change of a purchase or a wallet entry, gives a request to evaluate the member.
//!
//! It never sums anything and never names a tier: one row cannot tell. It only tells rows that may matter from rows that
//! provably do not.

use jiff::Timestamp;

use super::currency::status_reason;
use super::{Decision, Effect, EffectKey, Proof, Reason};
use crate::debezium::Op;
use crate::dedupe::ClaimKey;
use crate::inngest::{Event, EventData, RowRef, TierEvaluation};
use crate::loyalty::{Lookup, Metric, Programs};
use crate::rows::{Row, RowChange};

/// A change that moved the row to another user touches two members. The row's current user is evaluated; the old user's
/// evaluation needs a second effect for one change and comes with the evaluation in Postgres.
pub(super) fn decide(row: &Row, change: &RowChange, programs: &Programs) -> Decision {
    let (merchant, user) = row.member();
    // A tier is what a member has now, so the version in force when the row changed decides, not the one of the
    // purchase: a refund of an old purchase still takes spend out of a window that today's rules look at.
    let lookup = match Timestamp::from_millisecond(change.commit_ms) {
        Ok(changed_at) => programs.version_at(merchant, changed_at),
        Err(_) => Lookup::NoVersionYet,
    };
    let version = match lookup {
        Lookup::Found(version, _) => version,
        Lookup::NoProgram => return Decision::Ignore(Reason::NoProgram),
        Lookup::NoVersionYet => return Decision::Ignore(Reason::NoVersionYet),
    };
    let Some(rule) = &version.tiers else {
        return Decision::Ignore(Reason::NoTierLadder);
    };
    let reason = match (rule.metric, row) {
        (Metric::Spend, Row::Purchase(_)) => Reason::SpendMayHaveChanged,
        (Metric::Points, Row::WalletEntry(_)) => Reason::PointsMayHaveChanged,
        (Metric::Spend | Metric::Points, _) => return Decision::Ignore(Reason::NotInMetric),
    };
    let counted_before = match (change.op, &change.before) {
        (Op::Create, _) => false,
        (_, Some(before)) => may_count(before),
        // A snapshot row, or an update without its old image, may stand for a change that was never seen.
        (_, None) => true,
    };
    if !may_count(row) && !counted_before {
        return Decision::Ignore(Reason::CannotChangeMetric);
    }
    // An unchanged row is evaluated all the same: evaluations are cheap, coalesced, and heal.
    let unchanged = change.op == Op::Update && change.before.as_ref() == Some(row);
    let reason = if unchanged { Reason::UnchangedBasis } else { reason };
    let claim = ClaimKey::new("tier", "evaluation", row.table(), row.id(), change.version);
    let key = EffectKey::tier(merchant, user);
    Decision::Deliver(Effect {
        key: key.clone(),
        claim: claim.clone(),
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
                triggers: vec![RowRef::of(change)],
                reason,
            }),
        },
    })
}

/// Whether this image can add to a sum. Amounts are only compared here, so a refusal of the currency rules is none here.
fn may_count(row: &Row) -> bool {
    match row {
        Row::Purchase(row) => status_reason(row.status).is_none() && row.final_amount > row.refunded_amount,
        Row::WalletEntry(row) => row.amount != 0,
        Row::FormSubmission(_) => false,
    }
}
