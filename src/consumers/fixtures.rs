//! Rows, changes and rules for tests. A purchase is described by what differs from a plain completed one.

use std::sync::Arc;

use jiff::Timestamp;
use rust_decimal::Decimal;

use super::{Consumer, Decision, Effect, Effects, Proof, Rules, decide};
use crate::debezium::Op;
use crate::loyalty::Programs;
use crate::rows::{
    ChangeVersion, ClaimStatus, Code, CodeStatus, FormId, FormSubmission, MerchantId, MissionClaim, MissionId,
    Purchase, PurchaseStatus, Referral, ReferralStatus, Row, RowChange, RowId, UserId, WalletEntry, WalletEntryKind,
};

/// No default, so that a merchant can have no program.
const PROGRAM: &str = include_str!("fixture_program.json");

pub(crate) const COMMIT_MS: i64 = 1_795_168_800_000; // 2026-11-20T10:00:00Z

pub(crate) fn rules() -> Rules {
    Rules::new(
        Arc::new(Programs::from_json(PROGRAM).expect("the fixture program is valid")),
        None,
    )
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

pub(crate) fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).expect("a decimal")
}

pub(crate) fn merchant(text: &str) -> MerchantId {
    MerchantId::new(text).expect("not empty")
}

pub(crate) fn user(text: &str) -> UserId {
    UserId::new(text).expect("not empty")
}

/// 100.00, completed on 20 November 2026 at 10:00 UTC.
pub(crate) fn purchase(merchant_id: &str) -> Purchase {
    Purchase {
        id: RowId::new("p-1").expect("not empty"),
        user_id: user("u-1"),
        merchant_id: merchant(merchant_id),
        final_amount: decimal("100.00"),
        refunded_amount: Decimal::ZERO,
        status: PurchaseStatus::Completed,
        earn_currency: true,
        created_at: at("2026-11-20T10:00:00Z"),
        completed_at: None,
    }
}

pub(crate) fn pending(merchant_id: &str) -> Purchase {
    Purchase {
        status: PurchaseStatus::Pending,
        ..purchase(merchant_id)
    }
}

pub(crate) fn refunded(merchant_id: &str, amount: &str) -> Purchase {
    let refunded_amount = decimal(amount);
    Purchase {
        status: if refunded_amount < decimal("100") {
            PurchaseStatus::PartiallyRefunded
        } else {
            PurchaseStatus::Refunded
        },
        refunded_amount,
        ..purchase(merchant_id)
    }
}

pub(crate) fn wallet_entry(merchant_id: &str, amount: i64) -> WalletEntry {
    WalletEntry {
        id: RowId::new("w-1").expect("not empty"),
        user_id: user("u-1"),
        merchant_id: merchant(merchant_id),
        amount,
        kind: WalletEntryKind::Earn,
        source_type: None,
        source_id: None,
        created_at: at("2026-11-20T10:00:00Z"),
    }
}

pub(crate) fn form(merchant_id: &str, form_id: &str) -> FormSubmission {
    FormSubmission {
        id: RowId::new("f-1").expect("not empty"),
        form_id: FormId::new(form_id).expect("not empty"),
        user_id: user("u-1"),
        merchant_id: merchant(merchant_id),
        submitted_at: at("2026-11-20T10:00:00Z"),
    }
}

pub(crate) fn mission_claim(status: ClaimStatus) -> MissionClaim {
    MissionClaim {
        id: RowId::new("k-1").expect("not empty"),
        user_id: user("u-1"),
        merchant_id: merchant("m-instant"),
        mission_id: MissionId::new("spend").expect("not empty"),
        status,
        period: Some("2026-11".into()),
        claimed_at: Some(at("2026-11-20T10:00:00Z")),
    }
}

/// `u-1` has referred `u-2`.
pub(crate) fn referral(status: ReferralStatus) -> Referral {
    Referral {
        id: RowId::new("f-1").expect("not empty"),
        referrer_user_id: user("u-1"),
        referee_user_id: user("u-2"),
        merchant_id: merchant("m-instant"),
        status,
        created_at: at("2026-11-20T10:00:00Z"),
    }
}

pub(crate) fn code(status: CodeStatus) -> Code {
    let is_issued = status == CodeStatus::Issued;
    Code {
        id: RowId::new("c-1").expect("not empty"),
        merchant_id: merchant("m-instant"),
        status,
        user_id: (!is_issued).then(|| user("u-1")),
        redeemed_at: (!is_issued).then(|| at("2026-11-20T10:00:00Z")),
    }
}

impl From<Purchase> for Row {
    fn from(row: Purchase) -> Self {
        Self::Purchase(row)
    }
}

impl From<WalletEntry> for Row {
    fn from(row: WalletEntry) -> Self {
        Self::WalletEntry(row)
    }
}

impl From<FormSubmission> for Row {
    fn from(row: FormSubmission) -> Self {
        Self::FormSubmission(row)
    }
}

impl From<MissionClaim> for Row {
    fn from(row: MissionClaim) -> Self {
        Self::MissionClaim(row)
    }
}

impl From<Referral> for Row {
    fn from(row: Referral) -> Self {
        Self::Referral(row)
    }
}

impl From<Code> for Row {
    fn from(row: Code) -> Self {
        Self::Code(row)
    }
}

pub(crate) fn created(row: impl Into<Row>) -> RowChange {
    RowChange {
        op: Op::Create,
        version: ChangeVersion::Lsn(41),
        commit_ms: COMMIT_MS,
        row: row.into(),
        before: None,
    }
}

/// An update whose replica identity sends the old image.
pub(crate) fn updated(before: impl Into<Row>, row: impl Into<Row>) -> RowChange {
    RowChange {
        before: Some(before.into()),
        ..updated_blind(row)
    }
}

/// An update without the old image.
pub(crate) fn updated_blind(row: impl Into<Row>) -> RowChange {
    RowChange {
        op: Op::Update,
        version: ChangeVersion::Lsn(42),
        ..created(row)
    }
}

pub(crate) fn snapshot(row: impl Into<Row>) -> RowChange {
    RowChange {
        op: Op::Read,
        version: ChangeVersion::Snapshot(COMMIT_MS),
        ..created(row)
    }
}

/// Decided with the fixture program one second after the commit.
pub(crate) fn decided(consumer: Consumer, change: &RowChange) -> Decision {
    decide(consumer, change, &rules(), at("2026-11-20T10:00:01Z"))
}

/// The whole decision on a line or a few: what a table of cases asserts.
pub(crate) fn told(decision: &Decision) -> String {
    match decision {
        Decision::Ignore(reason) => format!("ignore {reason}"),
        Decision::Refuse(refusal) => format!("refuse {}", refusal.reason()),
        Decision::RefuseIfKnown(refusal, key) => format!("refuse {}, if {key} is known", refusal.reason()),
        Decision::Deliver(effects) => {
            let lines = effects.iter().map(|effect| {
                assert_eq!(effect.event.id, effect.claim, "the event's id is the claim");
                format!("{} {} {}", effect.key, effect.claim, json(effect))
            });
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

/// Of each effect its key, its reason and what proves it: what a longer table of cases asserts.
pub(crate) fn told_briefly(decision: &Decision) -> String {
    match decision {
        Decision::Deliver(effects) => {
            let brief = |effect: &Effect| {
                let proof = match &effect.proof {
                    Proof::Change => "change".to_owned(),
                    Proof::Nothing => "nothing".to_owned(),
                    Proof::IfKnown(key) => format!("if {key} is known"),
                };
                let name = effect.event.data.name();
                format!("{} {name} {}, proof: {proof}", effect.key, effect.reason)
            };
            effects.iter().map(brief).collect::<Vec<_>>().join("; ")
        }
        other => told(other),
    }
}

pub(crate) fn json(effect: &Effect) -> String {
    let mut out = Vec::new();
    effect.event.write_json(i64::MAX, &mut out);
    String::from_utf8(out).expect("JSON is text")
}

/// The one effect of a decision.
pub(crate) fn delivered(decision: Decision) -> Effect {
    one(deliveries(decision))
}

/// All effects of a decision.
pub(crate) fn deliveries(decision: Decision) -> Effects {
    match decision {
        Decision::Deliver(effects) => effects,
        other => panic!("not delivered: {}", told(&other)),
    }
}

fn one(effects: Effects) -> Effect {
    let mut effects = effects.into_iter();
    match (effects.next(), effects.next()) {
        (Some(effect), None) => effect,
        other => panic!("not one effect: {other:?}"),
    }
}

/// Reason, target and due time of an award, or why there is none.
pub(crate) fn award(change: &RowChange) -> String {
    use crate::inngest::EventData;
    match decided(Consumer::Currency, change) {
        Decision::Deliver(effects) => match one(effects).event.data {
            EventData::AwardScheduled {
                award,
                target_points,
                due_at,
            } => format!("{}: {target_points} points at {due_at}", award.reason),
            EventData::AwardCancelled(award) => format!("{}: nothing", award.reason),
            other => panic!("not an award: {other:?}"),
        },
        other => told(&other),
    }
}
