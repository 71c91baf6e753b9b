//! Every way bytes from outside can be wrong. Takes what was found, gives a sentence for a person ([`std::fmt::Display`])
//! and a word for machines (`reason`). Never repeats a row's value: rows are personal data, and dead letters and logs
//! outlive them. Numbers, status words, op letters and the connector's own fields may be named.

use std::fmt;

use super::DecimalMode;

/// What stood where something else was expected: its kind and size, never its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Null,
    Bool,
    Integer,
    /// A number with a fraction or an exponent, or one too large for 64 bits.
    Number,
    Text {
        bytes: usize,
    },
    Array,
    Object,
}

/// Why a record could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error(
        "value is in the schema registry's format (Avro, JSON Schema or Protobuf; {}): set the connector's output format \
         to JSON (output.data.format=JSON, or value.converter=org.apache.kafka.connect.json.JsonConverter)",
        Registered(*.schema_id)
    )]
    RegistryFormat { schema_id: Option<u32> },
    #[error(
        "header {header} says the {} is in the schema registry's format (schema {schema}): set the connector's output \
         format to JSON (output.data.format and output.key.format, or the converters JsonConverter)",
        if *.header == "__key_schema_id" { "key" } else { "value" }
    )]
    RegistryHeader { header: &'static str, schema: Box<str> },
    #[error("value is not UTF-8 from byte {at} on: is the connector's output format JSON?")]
    NotUtf8 { at: usize },
    #[error("value is not JSON: {problem}: is the connector's output format JSON?")]
    NotJson { problem: Box<str> },
    #[error("value is {found}, not a JSON object: a Debezium envelope was expected")]
    NotAnObject { found: Found },
    #[error("op is \"{op}\": only c, u, d, r, t and m are known; a newer Debezium needs a newer worker")]
    UnknownOp { op: Box<str> },
    #[error("{field} is missing or null: the record is no complete Debezium envelope")]
    MissingField { field: &'static str },
    #[error("{field} is {found} where {expected} was expected")]
    WrongField {
        field: &'static str,
        expected: &'static str,
        found: Found,
    },
    #[error("{field} is {value}, not a time in ms between 1980 and 2100: check the clock and the connector")]
    ImplausibleTime { field: &'static str, value: i64 },
    #[error("neither source.ts_ms nor ts_ms is given: the commit time is unknown")]
    MissingTime,
    #[error("neither source.table nor the topic names a table")]
    NoTable,
    #[error(
        "the record is flattened and has no __op, so a snapshot row, an insert and an update look alike: set \
         after.state.only=false, or remove the transform ExtractNewRecordState (unwrap) from the connector"
    )]
    Flattened,
    #[error(
        "the record is flattened and has no {field}: set after.state.only=false, or remove the transform \
         ExtractNewRecordState (unwrap), or give it add.fields=op,table,lsn,source.ts_ms"
    )]
    FlattenedWithout { field: &'static str },
}

/// Why one column of a row could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("column {column} is missing or null")]
    Missing { column: &'static str },
    #[error(
        "column {column} was not sent because it did not change (TOAST placeholder): set REPLICA IDENTITY FULL on the table"
    )]
    Unchanged { column: &'static str },
    #[error("column {column} is {found} where {expected} was expected")]
    WrongType {
        column: &'static str,
        expected: &'static str,
        found: Found,
    },
    #[error("column {column} is an empty text")]
    Empty { column: &'static str },
    #[error("column {column} holds a text with a broken escape")]
    BrokenText { column: &'static str },
    #[error("column {column} holds an integer beyond 64 bits")]
    IntegerRange { column: &'static str },
    #[error("column {column} is {found} that is no decimal in {}", Expected(*.mode))]
    NotDecimal {
        column: &'static str,
        found: Found,
        mode: DecimalMode,
    },
    #[error(
        "column {column} looks like another decimal.handling.mode than the configured one ({}; found {found}): \
         set DECIMAL_MODE or the connector so that they agree",
        Expected(*.mode)
    )]
    WrongDecimalMode {
        column: &'static str,
        found: Found,
        mode: DecimalMode,
    },
    #[error("column {column} is {word}: an amount must be finite")]
    NotFinite { column: &'static str, word: &'static str },
    #[error("column {column} needs more than 28 digits: it would have to be rounded")]
    TooManyDigits { column: &'static str },
    #[error("column {column} is {found} that is no time (RFC 3339 with Z or an offset)")]
    NotTime { column: &'static str, found: Found },
    #[error("column {column} is infinite: a time was expected")]
    InfiniteTime { column: &'static str },
    #[error("column {column} is {value}, not a time between 1980 and 2100 in ms, us or ns: correct the row")]
    ImplausibleTime { column: &'static str, value: Box<str> },
    #[error("column {column} has the unknown value \"{value}\": correct the row, or run a worker that knows the word")]
    UnknownValue { column: &'static str, value: Box<str> },
}

impl DecodeError {
    /// A stable word for dead-letter headers and metric labels.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::RegistryFormat { .. } | Self::RegistryHeader { .. } => "registry_format",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotJson { .. } => "not_json",
            Self::NotAnObject { .. } => "not_an_object",
            Self::UnknownOp { .. } => "unknown_op",
            Self::MissingField { .. } => "missing_field",
            Self::WrongField { .. } => "wrong_field",
            Self::ImplausibleTime { .. } => "implausible_time",
            Self::MissingTime => "missing_time",
            Self::NoTable => "no_table",
            Self::Flattened | Self::FlattenedWithout { .. } => "flattened",
        }
    }

    /// Only what `serde_json` says about syntax is repeated: its messages about data quote the data.
    pub(super) fn not_json(error: &serde_json::Error) -> Self {
        let problem = match error.classify() {
            serde_json::error::Category::Syntax | serde_json::error::Category::Eof => error.to_string(),
            serde_json::error::Category::Data | serde_json::error::Category::Io => {
                format!("unexpected data at line {} column {}", error.line(), error.column())
            }
        };
        Self::NotJson {
            problem: problem.into(),
        }
    }
}

impl ValueError {
    /// A stable word for dead-letter headers and metric labels.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing_columns",
            Self::Unchanged { .. } => "unchanged_column",
            Self::WrongType { .. } => "wrong_type",
            Self::Empty { .. } => "empty_text",
            Self::BrokenText { .. } => "broken_text",
            Self::IntegerRange { .. } => "integer_range",
            Self::NotDecimal { .. } => "not_decimal",
            Self::WrongDecimalMode { .. } => "wrong_decimal_mode",
            Self::NotFinite { .. } => "not_finite",
            Self::TooManyDigits { .. } => "too_many_digits",
            Self::NotTime { .. } => "not_a_time",
            Self::InfiniteTime { .. } => "infinite_time",
            Self::ImplausibleTime { .. } => "implausible_time",
            Self::UnknownValue { .. } => "unknown_value",
        }
    }

    /// The column the error is about.
    #[must_use]
    pub const fn column(&self) -> &'static str {
        match self {
            Self::Missing { column }
            | Self::Unchanged { column }
            | Self::WrongType { column, .. }
            | Self::Empty { column }
            | Self::BrokenText { column }
            | Self::IntegerRange { column }
            | Self::NotDecimal { column, .. }
            | Self::WrongDecimalMode { column, .. }
            | Self::NotFinite { column, .. }
            | Self::TooManyDigits { column }
            | Self::NotTime { column, .. }
            | Self::InfiniteTime { column }
            | Self::ImplausibleTime { column, .. }
            | Self::UnknownValue { column, .. } => column,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("a boolean"),
            Self::Integer => f.write_str("an integer"),
            Self::Number => f.write_str("a number that is no 64-bit integer"),
            Self::Text { bytes } => write!(f, "a string of {bytes} bytes"),
            Self::Array => f.write_str("an array"),
            Self::Object => f.write_str("an object"),
        }
    }
}

/// A word from outside, fit for a log line: at most 64 characters, control characters and quotes escaped, so that it can
/// neither forge a line nor fill one.
pub(crate) fn shown(word: &str) -> Box<str> {
    const LONGEST: usize = 64;
    let mut text: String = word.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if word.chars().nth(LONGEST).is_some() {
        text.push_str("...");
    }
    text.into_boxed_str()
}

struct Registered(Option<u32>);

impl fmt::Display for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "schema id {id}"),
            None => f.write_str("schema id cut off"),
        }
    }
}

struct Expected(DecimalMode);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DecimalMode::Text => f.write_str("mode string"),
            DecimalMode::Precise { scale } => write!(f, "mode precise:{scale}"),
        }
    }
}
