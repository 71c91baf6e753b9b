//! Reward: takes a change of a mission claim or a referral, gives whether its grant stands: once for a claim, once for each
//! side of a referral.
//!
//! The target follows from the row alone: granted or not. It never knows what a grant is worth, never looks whether a
//! mission was completed, and never sees a second referral of the same referee: whoever settles does.

use super::{Decision, Effect, EffectKey, Effects, Proof, Reason};
use crate::debezium::Op;
use crate::dedupe::ClaimKey;
use crate::inngest::{Basis, Event, EventData, Reward, RewardSource, RowRef, Side};
use crate::rows::{ClaimStatus, MissionClaim, Referral, ReferralStatus, Row, RowChange};

pub(super) fn claim(claim: &MissionClaim, change: &RowChange) -> Decision {
    let before = match &change.before {
        Some(Row::MissionClaim(before)) => Some(claim_target(before)),
        Some(_) | None => None,
    };
    let verdict = match judge(claim_target(claim), before, change) {
        Ok(verdict) => verdict,
        Err(reason) => return Decision::Ignore(reason),
    };
    let key = EffectKey::grant(&claim.id);
    let effect = verdict.effect("grant", key, RewardSource::MissionClaim(claim.clone()), change);
    Decision::Deliver(effect.into())
}

pub(super) fn referral(referral: &Referral, change: &RowChange) -> Decision {
    let before = match &change.before {
        Some(Row::Referral(before)) => Some(referral_target(before)),
        Some(_) | None => None,
    };
    let verdict = match judge(referral_target(referral), before, change) {
        Ok(verdict) => verdict,
        Err(reason) => return Decision::Ignore(reason),
    };
    let side = |side, name| {
        let source = RewardSource::Referral(referral.clone(), side);
        verdict.effect(name, EffectKey::referral(&referral.id, side), source, change)
    };
    Decision::Deliver(Effects::both(
        side(Side::Referrer, "grant_referrer"),
        side(Side::Referee, "grant_referee"),
    ))
}

/// Whether the grant stands, and why.
#[derive(Debug, Clone, Copy)]
struct Target {
    stands: bool,
    reason: Reason,
}

/// What is to be delivered.
struct Verdict {
    target: Target,
    proof: Proof,
}

const fn claim_target(claim: &MissionClaim) -> Target {
    match claim.status {
        ClaimStatus::Claimed => Target::stands(Reason::Claimed),
        ClaimStatus::Revoked => Target::falls(Reason::Revoked),
    }
}

fn referral_target(referral: &Referral) -> Target {
    match referral.status {
        _ if referral.referrer_user_id == referral.referee_user_id => Target::falls(Reason::SelfReferral),
        ReferralStatus::Qualified => Target::stands(Reason::Qualified),
        ReferralStatus::Pending => Target::falls(Reason::Pending),
        ReferralStatus::Cancelled => Target::falls(Reason::Cancelled),
    }
}

fn judge(target: Target, before: Option<Target>, change: &RowChange) -> Result<Verdict, Reason> {
    if !target.stands && change.op == Op::Create {
        return Err(target.reason);
    }
    let stood_before = before.map(|before| before.stands);
    if !target.stands && stood_before == Some(false) {
        return Err(Reason::WasZeroBefore);
    }
    let unchanged = change.before.as_ref().map(Basis::of) == Some(Basis::of(&change.row));
    let before_differs = if target.stands {
        before.is_some() && !unchanged
    } else {
        stood_before == Some(true)
    };
    let reason = match change.op {
        Op::Update if target.stands && unchanged => Reason::UnchangedBasis,
        _ => target.reason,
    };
    Ok(Verdict {
        target: Target { reason, ..target },
        proof: Proof::of(change, before_differs),
    })
}

impl Target {
    const fn stands(reason: Reason) -> Self {
        Self { stands: true, reason }
    }

    const fn falls(reason: Reason) -> Self {
        Self { stands: false, reason }
    }
}

impl Verdict {
    fn effect(&self, name: &str, key: EffectKey, source: RewardSource, change: &RowChange) -> Effect {
        let claim = ClaimKey::new("reward", name, change.row.table(), change.row.id(), change.version);
        let reward = Reward {
            source,
            effect_key: key.clone(),
            as_of_ms: change.commit_ms,
            reason: self.target.reason,
        };
        Effect {
            key,
            claim: claim.clone(),
            source: RowRef::of(change),
            state_like: true,
            reason: self.target.reason,
            proof: self.proof.clone(),
            event: Event {
                id: claim,
                ts_ms: change.commit_ms,
                data: if self.target.stands {
                    EventData::RewardGranted(reward)
                } else {
                    EventData::RewardRevoked(reward)
                },
            },
        }
    }
}
