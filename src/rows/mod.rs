//! Stage 3, route: takes a decoded [`Change`](crate::debezium::Change), gives a [`RowChange`] with a typed, owned row.
//!
//! Required columns are checked, others default. Raw integers and JSON stop here. It never does I/O, never decides
//! anything about loyalty.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod codes;
mod error;
mod form_submissions;
mod id;
mod image;
mod mission_claims;
mod purchase_ledger;
mod referral_ledger;
mod route;
mod wallet_ledger;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use rust_decimal::Decimal;

use crate::debezium::Op;

pub use error::{Rewrite, RouteError};
pub use id::{FormId, MerchantId, MissionId, RowId, UserId};
pub use route::{Routed, route};

/// The tables a consumer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    PurchaseLedger,
    WalletLedger,
    FormSubmissions,
    MissionClaims,
    ReferralLedger,
    Codes,
}

/// Which change of a row this is: the part of the dedupe key that a connector restart does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeVersion {
    /// `source.lsn` of a streamed change.
    Lsn(i64),
    /// `source.ts_ms` of a snapshot row, written `r<ms>`.
    Snapshot(i64),
    /// `source.lsn` of a snapshot row without `source.ts_ms`, written `rl<lsn>`.
    SnapshotLsn(i64),
    /// A state of the row that no change told of, by its fingerprint, written `s<hex>`.
    State(u64),
}

/// One change of one row we know.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChange {
    pub op: Op,
    pub version: ChangeVersion,
    /// Commit time, ms since the epoch.
    pub commit_ms: i64,
    pub row: Row,
    /// The row image before the change, if the table's replica identity sends one and it is complete.
    pub before: Option<Row>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    Purchase(Purchase),
    WalletEntry(WalletEntry),
    FormSubmission(FormSubmission),
    MissionClaim(MissionClaim),
    Referral(Referral),
    Code(Code),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PurchaseStatus {
    Pending,
    Completed,
    PartiallyRefunded,
    Refunded,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Purchase {
    pub id: RowId,
    pub user_id: UserId,
    pub merchant_id: MerchantId,
    pub final_amount: Decimal,
    /// Zero when the column is absent or null.
    pub refunded_amount: Decimal,
    pub status: PurchaseStatus,
    pub earn_currency: bool,
    pub created_at: Timestamp,
    pub completed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletEntryKind {
    Earn,
    Spend,
    Expire,
    Adjust,
    Clawback,
}

#[derive(Debug, Clone, PartialEq)]
pub struct WalletEntry {
    pub id: RowId,
    pub user_id: UserId,
    pub merchant_id: MerchantId,
    /// Points, signed.
    pub amount: i64,
    pub kind: WalletEntryKind,
    pub source_type: Option<Box<str>>,
    pub source_id: Option<Box<str>>,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FormSubmission {
    pub id: RowId,
    pub form_id: FormId,
    pub user_id: UserId,
    pub merchant_id: MerchantId,
    pub submitted_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimStatus {
    Claimed,
    Revoked,
}

/// A member asks for the reward of a mission.
#[derive(Debug, Clone, PartialEq)]
pub struct MissionClaim {
    pub id: RowId,
    pub user_id: UserId,
    pub merchant_id: MerchantId,
    pub mission_id: MissionId,
    pub status: ClaimStatus,
    /// As the application names it; may be absent.
    pub period: Option<Arc<str>>,
    pub claimed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferralStatus {
    Pending,
    Qualified,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Referral {
    pub id: RowId,
    pub referrer_user_id: UserId,
    pub referee_user_id: UserId,
    pub merchant_id: MerchantId,
    pub status: ReferralStatus,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeStatus {
    Issued,
    Redeemed,
    Expired,
    Void,
}

/// A voucher, without the code itself: whoever reads it in a log or an event could spend it.
#[derive(Debug, Clone, PartialEq)]
pub struct Code {
    pub id: RowId,
    pub merchant_id: MerchantId,
    pub status: CodeStatus,
    pub user_id: Option<UserId>,
    pub redeemed_at: Option<Timestamp>,
}

impl Table {
    pub const ALL: [Self; 6] = [
        Self::PurchaseLedger,
        Self::WalletLedger,
        Self::FormSubmissions,
        Self::MissionClaims,
        Self::ReferralLedger,
        Self::Codes,
    ];

    /// The table's name in Postgres, which is also the last part of its topic.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PurchaseLedger => "purchase_ledger",
            Self::WalletLedger => "wallet_ledger",
            Self::FormSubmissions => "form_submissions",
            Self::MissionClaims => "mission_claims",
            Self::ReferralLedger => "referral_ledger",
            Self::Codes => "codes",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }
}

impl serde::Serialize for Table {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Display for ChangeVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lsn(lsn) => write!(f, "{lsn}"),
            Self::Snapshot(ms) => write!(f, "r{ms}"),
            Self::SnapshotLsn(lsn) => write!(f, "rl{lsn}"),
            Self::State(fingerprint) => write!(f, "s{fingerprint:016x}"),
        }
    }
}

impl Row {
    #[must_use]
    pub const fn table(&self) -> Table {
        match self {
            Self::Purchase(_) => Table::PurchaseLedger,
            Self::WalletEntry(_) => Table::WalletLedger,
            Self::FormSubmission(_) => Table::FormSubmissions,
            Self::MissionClaim(_) => Table::MissionClaims,
            Self::Referral(_) => Table::ReferralLedger,
            Self::Code(_) => Table::Codes,
        }
    }

    #[must_use]
    pub const fn id(&self) -> &RowId {
        match self {
            Self::Purchase(row) => &row.id,
            Self::WalletEntry(row) => &row.id,
            Self::FormSubmission(row) => &row.id,
            Self::MissionClaim(row) => &row.id,
            Self::Referral(row) => &row.id,
            Self::Code(row) => &row.id,
        }
    }

    /// Merchant and user: the referrer, if it is a referral. `None` for a code that is nobody's.
    #[must_use]
    pub const fn member(&self) -> Option<(&MerchantId, &UserId)> {
        match self {
            Self::Purchase(row) => Some((&row.merchant_id, &row.user_id)),
            Self::WalletEntry(row) => Some((&row.merchant_id, &row.user_id)),
            Self::FormSubmission(row) => Some((&row.merchant_id, &row.user_id)),
            Self::MissionClaim(row) => Some((&row.merchant_id, &row.user_id)),
            Self::Referral(row) => Some((&row.merchant_id, &row.referrer_user_id)),
            Self::Code(row) => match &row.user_id {
                Some(user) => Some((&row.merchant_id, user)),
                None => None,
            },
        }
    }

    /// When it came to be, as far as the row tells.
    #[must_use]
    pub const fn created_at(&self) -> Option<Timestamp> {
        match self {
            Self::Purchase(row) => Some(row.created_at),
            Self::WalletEntry(row) => Some(row.created_at),
            Self::FormSubmission(row) => Some(row.submitted_at),
            Self::MissionClaim(row) => row.claimed_at,
            Self::Referral(row) => Some(row.created_at),
            Self::Code(row) => row.redeemed_at,
        }
    }
}
