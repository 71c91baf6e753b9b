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

mod error;
mod form_submissions;
mod image;
mod purchase_ledger;
mod route;
mod wallet_ledger;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use rust_decimal::Decimal;

use crate::debezium::Op;

pub use error::{Rewrite, RouteError};
pub use route::{Routed, route};

/// An opaque, non-empty identifier of the source database. One newtype a kind, so that they cannot be mixed up. Shared,
/// because every consumer's effect carries it on.
macro_rules! id {
    ($($name:ident),*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// `None` for an empty text.
            #[must_use]
            pub fn new(text: &str) -> Option<Self> {
                (!text.is_empty()).then(|| Self(text.into()))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )*};
}

id!(RowId, UserId, MerchantId, FormId);

/// The tables a consumer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    PurchaseLedger,
    WalletLedger,
    FormSubmissions,
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

impl Table {
    pub const ALL: [Self; 3] = [Self::PurchaseLedger, Self::WalletLedger, Self::FormSubmissions];

    /// The table's name in Postgres, which is also the last part of its topic.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PurchaseLedger => "purchase_ledger",
            Self::WalletLedger => "wallet_ledger",
            Self::FormSubmissions => "form_submissions",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
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
        }
    }

    #[must_use]
    pub const fn id(&self) -> &RowId {
        match self {
            Self::Purchase(row) => &row.id,
            Self::WalletEntry(row) => &row.id,
            Self::FormSubmission(row) => &row.id,
        }
    }

    #[must_use]
    pub const fn member(&self) -> (&MerchantId, &UserId) {
        match self {
            Self::Purchase(row) => (&row.merchant_id, &row.user_id),
            Self::WalletEntry(row) => (&row.merchant_id, &row.user_id),
            Self::FormSubmission(row) => (&row.merchant_id, &row.user_id),
        }
    }
}
