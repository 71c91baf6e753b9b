//! Stage 2, decode: takes a [`RecordView`], gives a [`Decoded`] change or a [`DecodeError`].
//!
//! It understands every JSON form a Debezium Postgres connector writes: bare and `{schema,payload}` envelopes, flattened
//! records that carry `__op`, tombstones, heartbeats, transaction, signal and message records. It never does I/O, never
//! reads a clock, never turns a number into a float, and never panics on bytes from outside.
//!
//! The files stand in the order of the bytes: `wire` (is it JSON at all), `wrapped` (`{schema,payload}`), `envelope`
//! (op, source, row images) or `flattened`, then `cell`, `decimals` and `times` (one column at a time, asked by the rows).
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod cell;
mod columns;
mod decimals;
mod envelope;
mod error;
mod flattened;
mod times;
mod wire;
mod wrapped;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::record::RecordView;

pub use cell::Cell;
pub use columns::{Column, Columns};
pub use error::{DecodeError, Found, ValueError};
pub use times::plausible_ms;

pub(crate) use error::shown;

/// What a row change did. Logical messages (`m`) are [`Control`] records; any other letter is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Create,
    Update,
    Delete,
    /// A snapshot read (`r`), initial, incremental or ad hoc.
    Read,
    Truncate,
}

/// A record that carries no row of ours: counted, acknowledged, and nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Tombstone,
    Heartbeat,
    Transaction,
    Signal,
    Message,
}

#[derive(Debug)]
pub enum Decoded<'a> {
    Change(Change<'a>),
    Control(Control),
}

/// One row change, columns not yet interpreted.
#[derive(Debug)]
pub struct Change<'a> {
    pub op: Op,
    /// From `source.table`, else from the topic's last part.
    pub table: Cow<'a, str>,
    /// `source.lsn`, always above 0; null for incremental snapshots.
    pub lsn: Option<i64>,
    /// `source.txId`.
    pub tx_id: Option<i64>,
    /// `source.ts_ms`: commit time in the database, or the time of the snapshot.
    pub source_ts_ms: Option<i64>,
    /// Commit time in ms: `source.ts_ms`, else the envelope's `ts_ms`. Always within 1980..2100.
    pub commit_ms: i64,
    /// The record carries the header `__debezium.oldkey`: a row whose primary key was changed.
    pub rekeyed: bool,
    pub before: Option<Columns<'a>>,
    pub after: Option<Columns<'a>>,
}

/// How the connector writes `numeric` columns (`decimal.handling.mode`). Never guessed: the text `1234` is a decimal in
/// one mode and -26588.24 in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecimalMode {
    /// Decimal text.
    Text,
    /// Base64 of the unscaled big-endian integer; the scale is ours to know.
    Precise { scale: u32 },
}

/// Decodes records; keeps the schema prefixes it has learned, one a topic, in bounded memory.
#[derive(Debug, Default)]
pub struct Decoder {
    prefixes: wrapped::Prefixes,
}

impl Decoder {
    /// # Errors
    /// Every way the bytes can be wrong, each named: the record goes to the dead letters.
    pub fn decode<'a>(&mut self, record: &RecordView<'a>) -> Result<Decoded<'a>, DecodeError> {
        let value = match wire::sniff(record)? {
            wire::Wire::Control(control) => return Ok(Decoded::Control(control)),
            wire::Wire::Value(value) => value,
        };
        // The cached way first. Whatever it cannot read exactly goes the long way, which also words the errors.
        if let Some(payload) = self.prefixes.strip(record.topic, value)
            && let Ok(payload) = wire::text(payload)
            && let Ok(envelope) = envelope::parse(payload)
        {
            return understand(payload, envelope, record);
        }
        let text = wire::text(value)?;
        let Some(wrapped) = wrapped::split(text) else {
            // Only a payload may be null: a bare `null` is no tombstone that any converter writes.
            let envelope = envelope::parse(text)?.ok_or(DecodeError::NotAnObject { found: Found::Null })?;
            return understand(text, Some(envelope), record);
        };
        if let Some(prefix) = wrapped.prefix {
            self.prefixes.learn(record.topic, prefix);
        }
        understand(wrapped.payload, envelope::parse(wrapped.payload)?, record)
    }
}

/// What stands in the envelope's place: nothing, an envelope, or one of the shapes without `op`.
fn understand<'a>(
    text: &'a str,
    parsed: Option<envelope::Envelope<'a>>,
    record: &RecordView<'a>,
) -> Result<Decoded<'a>, DecodeError> {
    let Some(envelope) = parsed else {
        return Ok(Decoded::Control(Control::Tombstone));
    };
    if envelope.is_envelope() {
        return envelope.into_decoded(record);
    }
    match envelope.control(record.topic) {
        Some(control) => Ok(Decoded::Control(control)),
        None => flattened::decode(text, record),
    }
}

/// The topic's last part is the table's name: `crm.public.purchase_ledger`.
fn table_of_topic(topic: &str) -> Result<Cow<'_, str>, DecodeError> {
    match topic.rsplit('.').next() {
        Some(table) if !table.is_empty() => Ok(Cow::Borrowed(table)),
        _ => Err(DecodeError::NoTable),
    }
}

/// Tables that exist for the connector's sake: their rows are no business of any consumer.
fn control_table(table: &str) -> Option<Control> {
    match table {
        "dbz_signal" => Some(Control::Signal),
        "dbz_heartbeat" => Some(Control::Heartbeat),
        _ => None,
    }
}

/// A row whose primary key was changed arrives as a delete and a create; only this header tells it from a new row.
fn rekeyed(record: &RecordView<'_>) -> bool {
    record.headers.get("__debezium.oldkey").is_some()
}
