//! Mission: takes a change of a purchase or a form submission, gives what the row now counts for, mission by mission.
//!
//! What a row counts is absolute, like an award's target: the progress of a mission is the sum over its source rows, so a
//! refund sets its own row to zero and nothing else. It never sums over rows and never says that a mission is complete.

use rust_decimal::Decimal;

use super::currency::status_reason;
use super::{Decision, Effect, EffectKey, Proof, Reason, Refusal, Rules, happened_at};
use crate::debezium::Op;
use crate::dedupe::ClaimKey;
use crate::inngest::{Event, EventData, MissionEvaluation, MissionShare, RowRef};
use crate::loyalty::{Lookup, Mission, Trigger, remaining};
use crate::rows::{Row, RowChange};

/// A change that moved the row to another member: the progress in Postgres replaces all shares of the row, whoever had
/// them. Without a database the old member's progress stays as it was.
pub(super) fn decide(row: &Row, change: &RowChange, rules: &Rules) -> Result<Decision, Refusal> {
    let programs = &rules.programs;
    let Some((merchant, user)) = row.member() else {
        return Ok(Decision::Ignore(Reason::NotInterested));
    };
    // A mission edited later leaves this row under the version of its own time.
    let lookup = programs.version_at(merchant, happened_at(row));
    let mut shares = shares(row, &lookup)?;
    let before = change.before.as_ref().filter(|_| change.op != Op::Create);
    // An image that would be refused proves nothing and adds nothing.
    let shares_before = before.and_then(|before| {
        let (merchant, _) = before.member()?;
        self::shares(before, &programs.version_at(merchant, happened_at(before))).ok()
    });
    let counted_before = shares_before.as_ref().map(|shares| shares.iter().any(counts));
    if before.is_some_and(|before| before.member() == row.member()) {
        // A period or a form that the row has left must fall back to zero, else it would count twice.
        let left = shares_before.unwrap_or_default().into_iter().filter(counts);
        for mut share in left {
            if !shares.iter().any(|now| now.effect_key == share.effect_key) {
                share.counted = Decimal::ZERO;
                shares.push(share);
            }
        }
    }
    // Shares that the row has left altogether are taken back by an evaluation without any.
    let left = rules.database
        && match counted_before {
            Some(counted) => counted,
            None => change.op != Op::Create && matches!(lookup, Lookup::Found(..)),
        };
    if shares.is_empty() && !left {
        return Ok(Decision::Ignore(match lookup {
            Lookup::Found(..) => Reason::NoMissionConcerned,
            Lookup::NoProgram => Reason::NoProgram,
            Lookup::NoVersionYet => Reason::NoVersionYet,
        }));
    }
    let reason = match (shares.iter().any(counts), change.op, counted_before) {
        (false, Op::Create, _) => return Ok(Decision::Ignore(Reason::NothingCounted)),
        (false, _, Some(false)) => return Ok(Decision::Ignore(Reason::WasZeroBefore)),
        (false, _, Some(true) | None) => Reason::CountsNoLonger,
        // Unchanged is delivered all the same, as for awards: nothing proves yet that the change before was.
        (true, Op::Update, _) if before == Some(row) => Reason::UnchangedBasis,
        (true, _, _) => Reason::Counted,
    };
    let proof = Proof::of(change, counted_before.is_some() && before != Some(row));
    let claim = ClaimKey::new("mission", "evaluation", row.table(), row.id(), change.version);
    let key = EffectKey::mission_source(merchant, user, row.table(), row.id());
    let source = RowRef::of(change);
    let effect = Effect {
        key: key.clone(),
        claim: claim.clone(),
        source: source.clone(),
        // The database replaces all that a row counted by what its newest state counts. Without it, who adds up must see
        // every change.
        state_like: rules.database,
        reason,
        proof,
        event: Event {
            id: claim,
            ts_ms: change.commit_ms,
            data: EventData::MissionEvaluationRequested(MissionEvaluation {
                merchant_id: merchant.clone(),
                user_id: user.clone(),
                effect_key: key,
                source,
                missions: shares,
                program_rev: lookup.rev(),
                as_of_ms: change.commit_ms,
                reason,
                row: row.clone(),
            }),
        },
    };
    Ok(Decision::Deliver(effect.into()))
}

fn counts(share: &MissionShare) -> bool {
    !share.counted.is_zero()
}

/// Every mission of the version that looks at this kind of row, with what this image counts for it, zero included.
fn shares(row: &Row, lookup: &Lookup<'_>) -> Result<Vec<MissionShare>, Refusal> {
    let Lookup::Found(version, zone) = lookup else {
        return Ok(Vec::new());
    };
    let Some((merchant, user)) = row.member() else {
        return Ok(Vec::new());
    };
    let mut shares = Vec::new();
    for mission in &version.missions {
        if let Some(counted) = counted(row, mission)? {
            let period = mission.period.name_at(happened_at(row), zone);
            shares.push(MissionShare {
                mission_id: mission.id.clone(),
                effect_key: EffectKey::mission(merchant, &mission.id, user, &period),
                period: period.into(),
                trigger: mission.trigger.name(),
                counted,
                target: mission.target,
            });
        }
    }
    Ok(shares)
}

/// What the row counts for the mission; `None` if the mission does not look at it.
fn counted(row: &Row, mission: &Mission) -> Result<Option<Decimal>, Refusal> {
    Ok(match (row, &mission.trigger) {
        (Row::Purchase(row), Trigger::PurchaseTotal | Trigger::PurchaseCount) => {
            let amount = match status_reason(row.status) {
                Some(_) => Decimal::ZERO,
                None => remaining(row.final_amount, row.refunded_amount)?,
            };
            Some(match mission.trigger {
                Trigger::PurchaseCount if !amount.is_zero() => Decimal::ONE,
                _ => amount,
            })
        }
        (Row::FormSubmission(row), Trigger::Form(form)) if row.form_id == *form => Some(Decimal::ONE),
        (_, _) => None,
    })
}
