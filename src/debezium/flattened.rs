//! Flattened records: what the transform `ExtractNewRecordState` or Confluent's `after.state.only=true` leave of an
//! envelope. Takes an object without `op` and `source`, gives a [`Change`] if the metadata was kept in `__` columns. Never
//! guesses an operation: without `__op` a snapshot row, an insert and an update are the same bytes.

use std::borrow::Cow;

use super::columns::{Column, Columns};
use super::envelope::{check_lsn, check_time, read_op};
use super::{Cell, Change, Control, DecodeError, Decoded, Found, Op, control_table, rekeyed, table_of_topic};
use crate::record::RecordView;

pub(super) fn decode<'a>(text: &'a str, record: &RecordView<'a>) -> Result<Decoded<'a>, DecodeError> {
    let columns: Columns<'a> = serde_json::from_str(text).map_err(|error| DecodeError::not_json(&error))?;
    let Some(op) = text_of(columns.column("__op"))? else {
        return Err(DecodeError::Flattened);
    };
    if op == "m" {
        return Ok(Decoded::Control(Control::Message));
    }
    let op = if is_deleted(&columns) {
        Op::Delete
    } else {
        read_op(&op)?
    };
    let table = match first(&columns, ["__table", "__source_table"], text_of)? {
        Some((_, table)) if !table.is_empty() => table,
        _ => table_of_topic(record.topic)?,
    };
    if let Some(control) = control_table(&table) {
        return Ok(Decoded::Control(control));
    }
    let lsn = match first(&columns, ["__lsn", "__source_lsn"], integer_of)? {
        Some((field, lsn)) => check_lsn(field, Some(lsn))?,
        None => None,
    };
    let source_ts_ms = integer_of(columns.column("__source_ts_ms"))?;
    match op {
        Op::Create | Op::Update if lsn.is_none() => return Err(DecodeError::FlattenedWithout { field: "__lsn" }),
        Op::Create | Op::Update | Op::Delete | Op::Read | Op::Truncate => {}
    }
    let commit_ms = match (source_ts_ms, integer_of(columns.column("__ts_ms"))?) {
        (Some(ms), _) => check_time("__source_ts_ms", ms)?,
        (None, Some(ms)) => check_time("__ts_ms", ms)?,
        (None, None) => {
            return Err(DecodeError::FlattenedWithout {
                field: "__source_ts_ms",
            });
        }
    };
    let tx_id = first(&columns, ["__txId", "__source_txId"], integer_of)?.map(|(_, id)| id);
    // A rewritten delete holds the key in truth, the rest is null or the column's default: never an image of the row.
    let after = match op {
        Op::Create | Op::Update | Op::Read => Some(columns),
        Op::Delete | Op::Truncate => None,
    };
    Ok(Decoded::Change(Change {
        op,
        table,
        lsn,
        tx_id,
        source_ts_ms,
        commit_ms,
        rekeyed: rekeyed(record),
        before: None,
        after,
    }))
}

/// `delete.tombstone.handling.mode=rewrite` writes the text `"true"`, and the text `"false"` into every other record.
fn is_deleted(columns: &Columns<'_>) -> bool {
    matches!(columns.get("__deleted"), Some("\"true\"" | "true"))
}

/// The first of two spellings (`add.fields=lsn` and `add.fields=source.lsn`) that is given.
fn first<'a, T>(
    columns: &Columns<'a>,
    names: [&'static str; 2],
    read: fn(Column<'a>) -> Result<Option<T>, DecodeError>,
) -> Result<Option<(&'static str, T)>, DecodeError> {
    for column in columns.pick(names) {
        if let Some(value) = read(column)? {
            return Ok(Some((column.name, value)));
        }
    }
    Ok(None)
}

fn text_of(column: Column<'_>) -> Result<Option<Cow<'_, str>>, DecodeError> {
    read_as(column, "a text", |cell| match cell {
        Cell::Text(text) => Some(text.clone()),
        _ => None,
    })
}

fn integer_of(column: Column<'_>) -> Result<Option<i64>, DecodeError> {
    read_as(column, "an integer", |cell| match cell {
        Cell::Number(token) => token.parse().ok(),
        _ => None,
    })
}

fn read_as<'a, T>(
    column: Column<'a>,
    expected: &'static str,
    read: impl FnOnce(&Cell<'a>) -> Option<T>,
) -> Result<Option<T>, DecodeError> {
    let Some(token) = column.token else {
        return Ok(None);
    };
    let wrong = |found| DecodeError::WrongField {
        field: column.name,
        expected,
        found,
    };
    let cell = Cell::read(token).ok_or(wrong(Found::Text { bytes: token.len() }))?;
    read(&cell).map(Some).ok_or_else(|| wrong(cell.found()))
}
