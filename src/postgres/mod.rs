//! The database: takes decided effects, gives what is known about them and what must be announced because of them.
//!
//! With `DATABASE_URL` the table `effects` remembers for ever what was settled: what may be a repetition is compared with
//! it, tiers and missions are evaluated there, one call a batch, and what a call leads to is written beside it before it is
//! announced. It never decides what a row means (the consumers do), never tries again and never judges an error for a
//! record: the pipeline does.

mod books;
mod cache;
mod calls;
mod client;
mod facts;
mod failure;
mod ledger;
pub mod memory;
pub mod migrations;
mod notes;
mod programs;
mod start;
pub mod survey;
mod url;

use futures::future::BoxFuture;
use serde_json::value::RawValue;

use crate::consumers::{Consumer, Effect, EffectKey};
use crate::inngest::event::ANNOUNCED_V;
use crate::rows::Row;

pub use books::{Books, EffectState, Heal, LedgerRow, MemberState, Noted, Place, Rejected, Suspect, Unbalanced};
pub use cache::RulesCache;
pub use client::{Client, MAX_CONNECTIONS};
pub use facts::Settled;
pub use ledger::PostgresLedger;
pub use notes::{Notes, Told};
pub use start::{StartError, Waits, rule_book, rule_book_of_shadow};
pub use url::DatabaseUrl;

/// The functions of `schemas/postgres`, as the pipeline needs them. Every call is one statement and idempotent.
pub trait Ledger: Send + Sync {
    /// How `effects` stands to each decision, in the order given.
    fn compare<'a>(&'a self, effects: &'a [&'a Effect]) -> BoxFuture<'a, Result<Vec<Standing>, LedgerError>>;

    /// Evaluates the tiers of these effects; gives everything that is to be announced about their keys and was not yet.
    fn evaluate_tiers<'a>(&'a self, effects: &'a [&'a Effect])
    -> BoxFuture<'a, Result<Vec<Announcement>, LedgerError>>;

    /// Records what these source rows count for their missions; gives what is to be announced, as above.
    fn record_progress<'a>(
        &'a self,
        effects: &'a [&'a Effect],
    ) -> BoxFuture<'a, Result<Vec<Announcement>, LedgerError>>;

    /// These announcements were accepted.
    fn announced<'a>(&'a self, ids: &'a [&'a str]) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// This announcement will never be accepted.
    fn announcement_rejected<'a>(&'a self, id: &'a str, reason: &'a str) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// Whether anything is known of this fact.
    fn knows<'a>(&'a self, key: &'a EffectKey) -> BoxFuture<'a, Result<bool, LedgerError>>;

    /// A record of this row is in this consumer's dead letters: its effects are `dead` with the basis it had.
    fn bury<'a>(&'a self, consumer: Consumer, row: &'a Row, reason: &'a str) -> BoxFuture<'a, Result<(), LedgerError>>;

    /// That letter was replayed: what is still `dead` because of it is so no more, and the reconciler's again.
    fn lift<'a>(&'a self, consumer: Consumer, row: &'a Row) -> BoxFuture<'a, Result<(), LedgerError>>;
}

/// How `effects` stands to a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known of this fact: its target is zero.
    Absent,
    /// Known, and its target and what was booked are zero.
    Zero,
    /// Known with this basis, target and due time, or with this basis by newer rules.
    Equal,
    Differs,
}

/// An event that the database wrote down in the transaction that led to it.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// Also the event's `id`.
    pub id: Box<str>,
    /// The fact it tells of.
    pub effect_key: Box<str>,
    pub name: Box<str>,
    pub ts_ms: i64,
    pub data: Box<RawValue>,
}

impl Announcement {
    /// Appends the event as compact JSON.
    pub fn write_json(&self, now_ms: i64, out: &mut Vec<u8>) {
        #[derive(serde::Serialize)]
        struct Envelope<'a> {
            id: &'a str,
            name: &'a str,
            ts: i64,
            v: &'static str,
            data: &'a RawValue,
        }
        let envelope = Envelope {
            id: &self.id,
            name: &self.name,
            ts: self.ts_ms.min(now_ms),
            v: ANNOUNCED_V,
            data: &self.data,
        };
        // Writing texts, integers and finished JSON into memory cannot fail.
        let _infallible = serde_json::to_writer(out, &envelope);
    }
}

impl LedgerError {
    pub const LABELS: [&'static str; 5] = ["unavailable", "configuration", "too_long", "rejected", "unknown"];

    /// The error's metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Configuration(_) => "configuration",
            Self::TooLong(_) => "too_long",
            Self::Rejected(_) => "rejected",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Why a call failed. What it means for a record is in `Disposition::of_ledger`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Away, overloaded, shutting down, read-only, a conflict of transactions: SQLSTATE 08, 25006, 26, 40, 53, 57.
    #[error("the database cannot answer now: {0}")]
    Unavailable(String),
    /// Password, database, schema, function, permission: SQLSTATE 28, 3D, 3F, 42.
    #[error("the database refuses us: {0}")]
    Configuration(String),
    /// The statement ran into its timeout: too much at once.
    #[error("the statement took too long: {0}")]
    TooLong(String),
    /// SQLSTATE 22, 23, P0: wrong for some row of the call.
    #[error("the database rejected a value: {0}")]
    Rejected(String),
    #[error("unknown answer of the database: {0}")]
    Unknown(String),
}

/// A column of an answer. One that is not as the functions promise is nobody's row's fault.
fn field<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a tokio_postgres::Row,
    index: usize,
) -> Result<T, LedgerError> {
    row.try_get(index)
        .map_err(|error| LedgerError::Unknown(format!("column {index} of the answer: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inngest::EventBatch;
    use crate::traceparent::TraceParent;

    #[test]
    fn an_announcement_is_sent_in_the_shape_that_is_promised() {
        let schema = include_str!("../../schemas/inngest/loyalty.tier.upgraded.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema).expect("JSON");
        let data = r#"{"effect_key":"tier:m:u","merchant_id":"m","user_id":"u","tier":"gold","previous_tier":null,
            "value":"100","program_rev":1,"upgraded_at":"2026-11-21T00:00:00+00:00"}"#;
        let announcement = Announcement {
            id: "tier:m:u:upgraded:1".into(),
            effect_key: "tier:m:u".into(),
            name: "loyalty/tier.upgraded".into(),
            ts_ms: 1_795_176_000_000,
            data: RawValue::from_string(data.to_owned()).expect("JSON"),
        };
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        for trace in [None, TraceParent::new(1, 2, 1)] {
            let mut sent = EventBatch::in_trace(trace);
            sent.push_announcement(&announcement, i64::MAX);
            let sent: serde_json::Value = serde_json::from_slice(sent.event(0)).expect("JSON");
            let wrong: Vec<String> = validator.iter_errors(&sent).map(|error| error.to_string()).collect();
            assert_eq!(wrong, [""; 0]);
            assert_eq!(sent["data"].get("traceparent").is_some(), trace.is_some());
        }
    }
}
