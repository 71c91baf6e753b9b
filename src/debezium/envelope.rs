//! The Debezium envelope: `op`, `before`, `after`, `source`, `ts_ms`. Takes JSON text, gives a [`Change`] or the control
//! record it is. Borrows from the text, in one pass. Never fails on a field it does not need, never reads a row's values.
//!
//! No field's type is trusted while parsing: a wrong one is noted as [`Field::Wrong`] and reported by name, if it is needed
//! at all. So the parser itself fails on broken syntax only, and its messages never quote a value.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::columns::{Columns, Text, read_columns};
use super::{
    Change, Control, DecodeError, Decoded, Found, Op, control_table, plausible_ms, rekeyed, shown, table_of_topic,
};
use crate::record::RecordView;

/// One field of an envelope, as found.
#[derive(Debug, Default)]
pub(super) enum Field<T> {
    #[default]
    Absent,
    Null,
    Wrong(Found),
    Given(T),
}

/// An envelope, or any other object: which of the two, [`Envelope::is_envelope`] says.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    op: Field<Cow<'a, str>>,
    before: Field<Columns<'a>>,
    after: Field<Columns<'a>>,
    source: Field<Source<'a>>,
    ts_ms: Field<i64>,
    status: Field<Cow<'a, str>>,
    has_data_collections: bool,
    /// A field that no envelope and no heartbeat has.
    has_others: bool,
}

/// The part of `source` that identifies a change. `snapshot` is a string, a boolean or null depending on version and
/// converter, `sequence` differs when a connector repeats itself: neither is read.
#[derive(Debug, Default)]
pub(super) struct Source<'a> {
    table: Field<Cow<'a, str>>,
    lsn: Field<i64>,
    tx_id: Field<i64>,
    ts_ms: Field<i64>,
}

/// `None` for `null`: the payload of a tombstone.
pub(super) fn parse(text: &str) -> Result<Option<Envelope<'_>>, DecodeError> {
    match serde_json::from_str(text) {
        Ok(Field::Given(envelope)) => Ok(Some(envelope)),
        Ok(Field::Null | Field::Absent) => Ok(None),
        Ok(Field::Wrong(found)) => Err(DecodeError::NotAnObject { found }),
        Err(error) => Err(DecodeError::not_json(&error)),
    }
}

impl<'a> Envelope<'a> {
    /// Told by several fields together: a table may have columns called `op` and `source`, too.
    pub(super) const fn is_envelope(&self) -> bool {
        let has_image = self.before.is_there() || self.after.is_there();
        match self.source {
            Field::Given(_) => self.op.is_there() || has_image,
            Field::Null => self.op.is_there(),
            Field::Absent | Field::Wrong(_) => self.op.is_there() && has_image,
        }
    }

    /// The control records that are no envelopes.
    pub(super) fn control(&self, topic: &str) -> Option<Control> {
        // An envelope that lost its `op` or `source` on the way is no heartbeat, and must not pass for one.
        let has_row = self.before.is_there() || self.after.is_there() || self.source.is_there();
        let has_more = has_row || self.has_others || self.status.is_there() || self.op.is_there();
        if !has_more && matches!(self.ts_ms, Field::Given(_)) {
            return Some(Control::Heartbeat);
        }
        let is_boundary = matches!(&self.status, Field::Given(status) if matches!(&**status, "BEGIN" | "END"));
        let of_transaction = self.has_data_collections || topic.rsplit('.').next() == Some("transaction");
        (is_boundary && of_transaction).then_some(Control::Transaction)
    }

    pub(super) fn into_decoded(self, record: &RecordView<'a>) -> Result<Decoded<'a>, DecodeError> {
        let op = self.op.required("op", "a letter")?;
        // Messages have no table: `source.table` is empty.
        if op == "m" {
            return Ok(Decoded::Control(Control::Message));
        }
        let op = read_op(&op)?;
        let source = self.source.optional("source", "an object")?.unwrap_or_default();
        let table = match source.table.optional("source.table", "a text")? {
            Some(table) if !table.is_empty() => table,
            _ => table_of_topic(record.topic)?,
        };
        if let Some(control) = control_table(&table) {
            return Ok(Decoded::Control(control));
        }
        let source_ts_ms = source.ts_ms.optional("source.ts_ms", "an integer")?;
        let commit_ms = match source_ts_ms {
            Some(ms) => check_time("source.ts_ms", ms)?,
            None => match self.ts_ms.optional("ts_ms", "an integer")? {
                Some(ms) => check_time("ts_ms", ms)?,
                None => return Err(DecodeError::MissingTime),
            },
        };
        Ok(Decoded::Change(Change {
            op,
            table,
            lsn: check_lsn("source.lsn", source.lsn.optional("source.lsn", "an integer")?)?,
            tx_id: source.tx_id.optional("source.txId", "an integer")?,
            source_ts_ms,
            commit_ms,
            rekeyed: rekeyed(record),
            before: self.before.optional("before", "an object")?,
            after: self.after.optional("after", "an object")?,
        }))
    }
}

pub(super) fn read_op(op: &str) -> Result<Op, DecodeError> {
    match op {
        "c" => Ok(Op::Create),
        "u" => Ok(Op::Update),
        "d" => Ok(Op::Delete),
        "r" => Ok(Op::Read),
        "t" => Ok(Op::Truncate),
        other => Err(DecodeError::UnknownOp { op: shown(other) }),
    }
}

pub(super) const fn check_time(field: &'static str, ms: i64) -> Result<i64, DecodeError> {
    if plausible_ms(ms) {
        Ok(ms)
    } else {
        Err(DecodeError::ImplausibleTime { field, value: ms })
    }
}

/// Zero is Postgres's invalid LSN: as a part of dedupe keys it would make all changes of a row one.
pub(super) const fn check_lsn(field: &'static str, lsn: Option<i64>) -> Result<Option<i64>, DecodeError> {
    match lsn {
        Some(lsn) if lsn <= 0 => Err(DecodeError::WrongField {
            field,
            expected: "an LSN above 0",
            found: Found::Integer,
        }),
        other => Ok(other),
    }
}

impl<T> Field<T> {
    const fn is_there(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    fn optional(self, field: &'static str, expected: &'static str) -> Result<Option<T>, DecodeError> {
        match self {
            Self::Absent | Self::Null => Ok(None),
            Self::Given(value) => Ok(Some(value)),
            Self::Wrong(found) => Err(DecodeError::WrongField { field, expected, found }),
        }
    }

    fn required(self, field: &'static str, expected: &'static str) -> Result<T, DecodeError> {
        self.optional(field, expected)?
            .ok_or(DecodeError::MissingField { field })
    }
}

/// What a field of this type is made from; everything else is [`Field::Wrong`].
trait Expect<'de>: Sized {
    fn from_integer(_value: i64) -> Option<Self> {
        None
    }

    fn from_text(_text: Cow<'de, str>) -> Option<Self> {
        None
    }

    /// `None` after the object was read to its end.
    fn from_object<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl Expect<'_> for i64 {
    fn from_integer(value: i64) -> Option<Self> {
        Some(value)
    }
}

impl<'de> Expect<'de> for Cow<'de, str> {
    fn from_text(text: Cow<'de, str>) -> Option<Self> {
        Some(text)
    }
}

impl<'de> Expect<'de> for Columns<'de> {
    fn from_object<A: MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
        read_columns(map).map(Some)
    }
}

impl<'de> Expect<'de> for Source<'de> {
    fn from_object<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut source = Self::default();
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "table" => source.table = map.next_value()?,
                "lsn" => source.lsn = map.next_value()?,
                "txId" => source.tx_id = map.next_value()?,
                "ts_ms" => source.ts_ms = map.next_value()?,
                _ => {
                    let _: IgnoredAny = map.next_value()?;
                }
            }
        }
        Ok(Some(source))
    }
}

impl<'de> Expect<'de> for Envelope<'de> {
    fn from_object<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut envelope = Self::default();
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "op" => envelope.op = map.next_value()?,
                "before" => envelope.before = map.next_value()?,
                "after" => envelope.after = map.next_value()?,
                "source" => envelope.source = map.next_value()?,
                "ts_ms" => envelope.ts_ms = map.next_value()?,
                "status" => envelope.status = map.next_value()?,
                other => {
                    envelope.has_data_collections |= other == "data_collections";
                    envelope.has_others |= !matches!(other, "ts_us" | "ts_ns");
                    let _: IgnoredAny = map.next_value()?;
                }
            }
        }
        Ok(Some(envelope))
    }
}

impl<'de, T: Expect<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

struct FieldVisitor<T>(PhantomData<T>);

impl<'de, T: Expect<'de>> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Null)
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Self::Value, E> {
        Ok(Field::Wrong(Found::Bool))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(T::from_integer(value).map_or(Field::Wrong(Found::Integer), Field::Given))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        let given = i64::try_from(value)
            .ok()
            .map(|value| T::from_integer(value).map_or(Field::Wrong(Found::Integer), Field::Given));
        Ok(given.unwrap_or(Field::Wrong(Found::Number)))
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Self::Value, E> {
        Ok(Field::Wrong(Found::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(given_text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(given_text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Wrong(Found::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Ok(T::from_object(map)?.map_or(Field::Wrong(Found::Object), Field::Given))
    }
}

fn given_text<'de, T: Expect<'de>>(text: Cow<'de, str>) -> Field<T> {
    let bytes = text.len();
    T::from_text(text).map_or(Field::Wrong(Found::Text { bytes }), Field::Given)
}
