//! Rows, changes and rules for tests. A purchase is described by what differs from a plain completed one.

use std::sync::Arc;

use jiff::Timestamp;
use rust_decimal::Decimal;

use super::{Consumer, Decision, Effect, Rules, decide};
use crate::debezium::Op;
use crate::loyalty::Programs;
use crate::rows::{
    ChangeVersion, FormId, FormSubmission, MerchantId, Purchase, PurchaseStatus, Row, RowChange, RowId, UserId,
    WalletEntry, WalletEntryKind,
};

/// No default, so that a merchant can have no program.
const PROGRAM: &str = include_str!("fixture_program.json");

pub(crate) const COMMIT_MS: i64 = 1_795_168_800_000; // 2026-11-20T10:00:00Z

pub(crate) fn rules() -> Rules {
    Rules {
        programs: Arc::new(Programs::from_json(PROGRAM).expect("the fixture program is valid")),
        effective_from: None,
    }
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

/// 100.00, completed on 20 November 2026 at 10:00 UTC.
pub(crate) fn purchase(merchant_id: &str) -> Purchase {
    Purchase {
        id: RowId::new("p-1").expect("not empty"),
        user_id: UserId::new("u-1").expect("not empty"),
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
        user_id: UserId::new("u-1").expect("not empty"),
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
        user_id: UserId::new("u-1").expect("not empty"),
        merchant_id: merchant(merchant_id),
        submitted_at: at("2026-11-20T10:00:00Z"),
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
        Decision::Deliver(effect) => {
            assert_eq!(effect.event.id, effect.claim, "the event's id is the claim");
            format!("{} {} {}", effect.key, effect.claim, json(effect))
        }
    }
}

pub(crate) fn json(effect: &Effect) -> String {
    let mut out = Vec::new();
    effect.event.write_json(i64::MAX, &mut out);
    String::from_utf8(out).expect("JSON is text")
}

pub(crate) fn delivered(decision: Decision) -> Effect {
    match decision {
        Decision::Deliver(effect) => effect,
        other => panic!("not delivered: {}", told(&other)),
    }
}

/// Reason, target and due time of an award, or why there is none.
pub(crate) fn award(change: &RowChange) -> String {
    use crate::inngest::EventData;
    match decided(Consumer::Currency, change) {
        Decision::Deliver(effect) => match effect.event.data {
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
