//! Marketplace: takes a change of a code, gives the one fulfilment that a redeemed code is due.
//!
//! A fulfilment cannot be taken back, so a code that is no longer redeemed sends nothing. It never sees the code itself.

use super::{Decision, Effect, EffectKey, Proof, Reason};
use crate::debezium::Op;
use crate::dedupe::ClaimKey;
use crate::inngest::{Basis, Event, EventData, Redemption, RowRef};
use crate::rows::{Code, CodeStatus, Row, RowChange};

pub(super) fn decide(code: &Code, change: &RowChange) -> Decision {
    let was_redeemed = match &change.before {
        Some(Row::Code(before)) => before.status == CodeStatus::Redeemed,
        Some(_) | None => false,
    };
    let reason = match code.status {
        CodeStatus::Redeemed => Reason::Redeemed,
        CodeStatus::Issued | CodeStatus::Expired | CodeStatus::Void if was_redeemed => {
            return Decision::Ignore(Reason::RedeemedBefore);
        }
        CodeStatus::Issued => return Decision::Ignore(Reason::NotRedeemed),
        CodeStatus::Expired => return Decision::Ignore(Reason::Expired),
        CodeStatus::Void => return Decision::Ignore(Reason::Void),
    };
    let before = change.before.as_ref().and_then(Basis::of);
    let differs = before.is_some_and(|before| before != Basis::Code(code));
    let unchanged = change.op == Op::Update && before.is_some() && !differs;
    let reason = if unchanged { Reason::UnchangedBasis } else { reason };
    let claim = ClaimKey::new("marketplace", "fulfil", change.row.table(), &code.id, change.version);
    let key = EffectKey::code(&code.id);
    let effect = Effect {
        key: key.clone(),
        claim: claim.clone(),
        source: RowRef::of(change),
        state_like: true,
        reason,
        proof: Proof::of(change, differs),
        event: Event {
            id: claim,
            ts_ms: change.commit_ms,
            data: EventData::CodeRedeemed(Redemption {
                code: code.clone(),
                effect_key: key,
                as_of_ms: change.commit_ms,
                reason,
            }),
        },
    };
    Decision::Deliver(effect.into())
}
