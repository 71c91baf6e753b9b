//! One line of the input: takes its bytes, gives the record it describes, or what is wrong with the line and where.
//!
//! Three forms are understood: what `kcat -J` prints, the same with a payload that was turned into JSON (`jq`), and a bare
//! Debezium envelope. It never interprets a value beyond its place in the line, and never repeats one.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::value::RawValue;

use crate::fields::Fields;
use crate::record::{Header, Headers, RecordView};

/// A record as the line gives it. What the line does not say is unknown, not assumed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) topic: Option<String>,
    pub(super) partition: Option<i32>,
    pub(super) offset: Option<i64>,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) key: Option<Cow<'a, [u8]>>,
    /// `None` is a tombstone.
    pub(super) value: Option<Cow<'a, [u8]>>,
    pub(super) headers: Vec<OwnedHeader>,
    /// The line is the value itself.
    pub(super) bare: bool,
}

/// Name and value; a value may be null.
type OwnedHeader = (String, Option<Vec<u8>>);

/// Why a line describes no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct BadLine {
    /// In bytes, from 1, where one place is to blame.
    pub(in crate::cli) column: Option<usize>,
    pub(in crate::cli) problem: String,
}

/// With or without padding: both are in use.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What only an envelope has, or what stands in one's place.
const ENVELOPE_FIELDS: [&str; 7] = ["op", "schema", "payload", "before", "after", "source", "__op"];

impl<'a> Message<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, BadLine> {
        let text = std::str::from_utf8(line).map_err(|error| not_utf8(line, error.valid_up_to()))?;
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
        if !whole.get().starts_with('{') {
            let found = kind(whole.get());
            return Err(BadLine {
                column: Some(1),
                problem: format!("{found}, not an object: put one message a line (`jq -c '.[]'` splits an array)"),
            });
        }
        let fields: Fields<'a> = serde_json::from_str(text).map_err(|error| not_json(&error))?;
        let fields = Line { text, fields: fields.0 };
        if fields.is_recorded()? {
            return fields.recorded();
        }
        if ENVELOPE_FIELDS.iter().any(|name| fields.has(name)) {
            return Ok(Self {
                value: Some(Cow::Borrowed(whole.get().as_bytes())),
                bare: true,
                ..Self::default()
            });
        }
        Err(BadLine {
            column: None,
            problem:
                "neither a message as `kcat -J` prints it (no topic) nor a Debezium envelope (no op, schema, payload \
                      or source)"
                    .to_owned(),
        })
    }

    /// Calls `use_it` with the record as the worker would see it; an unknown topic is empty, an unknown position 0.
    pub(super) fn with<R>(&self, use_it: impl FnOnce(&RecordView<'_>) -> R) -> R {
        let headers: Vec<Header<'_>> = self
            .headers
            .iter()
            .map(|(name, value)| Header {
                name,
                value: value.as_deref(),
            })
            .collect();
        use_it(&RecordView {
            topic: self.topic.as_deref().unwrap_or_default(),
            partition: self.partition.unwrap_or_default(),
            offset: self.offset.unwrap_or_default(),
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: Headers(&headers),
        })
    }
}

struct Line<'a> {
    text: &'a str,
    fields: Vec<(String, &'a RawValue)>,
}

impl<'a> Line<'a> {
    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }

    /// Whether the line wraps a record rather than being its value: a `{schema,payload}` envelope has a payload too, but
    /// never as text.
    fn is_recorded(&self) -> Result<bool, BadLine> {
        let text_payload = self.given("payload")?.is_some_and(|raw| raw.get().starts_with('"'));
        Ok(text_payload
            || ["topic", "payload_base64", "key_base64"]
                .iter()
                .any(|name| self.has(name)))
    }

    fn recorded(&self) -> Result<Message<'a>, BadLine> {
        if !self.has("payload") && !self.has("payload_base64") {
            return Err(BadLine {
                column: None,
                problem: "neither payload nor payload_base64 is given; a tombstone has \"payload\":null".to_owned(),
            });
        }
        let partition = self.integer("partition")?.map(i32::try_from).transpose();
        Ok(Message {
            topic: self.text("topic")?,
            partition: partition.map_err(|_too_large| self.wrong("partition", "a 32-bit integer"))?,
            offset: self.integer("offset")?,
            timestamp_ms: self.integer("ts")?,
            key: self.bytes("key", "key_base64")?,
            value: self.bytes("payload", "payload_base64")?,
            headers: self.headers()?,
            bare: false,
        })
    }

    /// A field that is there and not null.
    fn given(&self, name: &str) -> Result<Option<&'a RawValue>, BadLine> {
        let mut found = self
            .fields
            .iter()
            .filter(|(field, _)| field == name)
            .map(|(_, raw)| *raw);
        let first = found.next();
        if let Some(again) = found.next() {
            return Err(BadLine {
                column: self.column(again),
                problem: format!("{name} is given twice"),
            });
        }
        Ok(first.filter(|raw| raw.get() != "null"))
    }

    fn text(&self, name: &str) -> Result<Option<String>, BadLine> {
        let parse = |raw: &RawValue| {
            let remedy = "a string that is Unicode (else give the bytes as base64)";
            serde_json::from_str(raw.get()).map_err(|_not_text| self.wrong(name, remedy))
        };
        self.given(name)?.map(parse).transpose()
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, BadLine> {
        let parse = |raw: &RawValue| raw.get().parse().map_err(|_not_one| self.wrong(name, "an integer"));
        self.given(name)?.map(parse).transpose()
    }

    /// The bytes behind a text field or its base64 twin, which wins: it is exact. What is neither text nor null is JSON
    /// that somebody unpacked, and stands for its own text.
    fn bytes(&self, name: &str, base64_name: &str) -> Result<Option<Cow<'a, [u8]>>, BadLine> {
        if let Some(encoded) = self.text(base64_name)? {
            let decoded = BASE64.decode(encoded).map_err(|error| BadLine {
                column: self.column_of(base64_name),
                problem: format!("{base64_name} is not base64: {error}"),
            })?;
            return Ok(Some(Cow::Owned(decoded)));
        }
        match self.given(name)? {
            Some(raw) if !raw.get().starts_with('"') => Ok(Some(Cow::Borrowed(raw.get().as_bytes()))),
            _ => Ok(self.text(name)?.map(|text| Cow::Owned(text.into_bytes()))),
        }
    }

    /// A flat list: name, value, name, value.
    fn headers(&self) -> Result<Vec<OwnedHeader>, BadLine> {
        let expected = "a list of name, value, name, value, each value a string or null";
        let wrong = || self.wrong("headers", expected);
        let Some(raw) = self.given("headers")? else {
            return Ok(Vec::new());
        };
        let list: Vec<Option<String>> = serde_json::from_str(raw.get()).map_err(|_other| wrong())?;
        let mut list = list.into_iter();
        let mut headers = Vec::new();
        while let Some(name) = list.next() {
            let (Some(name), Some(value)) = (name, list.next()) else {
                return Err(wrong());
            };
            headers.push((name, value.map(String::into_bytes)));
        }
        Ok(headers)
    }

    fn wrong(&self, name: &str, expected: &str) -> BadLine {
        let found = self.fields.iter().find(|(field, _)| field == name);
        let found = found.map_or("nothing", |(_, raw)| kind(raw.get()));
        BadLine {
            column: self.column_of(name),
            problem: format!("{name} is {found} where {expected} was expected"),
        }
    }

    fn column_of(&self, name: &str) -> Option<usize> {
        let field = self.fields.iter().find(|(field, _)| field == name);
        field.and_then(|(_, raw)| self.column(raw))
    }

    /// Every raw value is a part of the line, so their addresses tell where it stands.
    fn column(&self, raw: &RawValue) -> Option<usize> {
        let before = raw.get().as_ptr().addr().checked_sub(self.text.as_ptr().addr())?;
        before.checked_add(1)
    }
}

/// What a JSON text is, by its first character.
fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn not_utf8(line: &[u8], at: usize) -> BadLine {
    let remedy = if line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") {
        "this looks like UTF-16: save the file as UTF-8"
    } else {
        "record what is no text as payload_base64 or key_base64"
    };
    BadLine {
        column: Some(at.saturating_add(1)),
        problem: format!("not UTF-8: {remedy}"),
    }
}

fn not_json(error: &serde_json::Error) -> BadLine {
    let message = error.to_string();
    // The place is told apart; this one would always name line 1.
    let what = message.split(" at line ").next().unwrap_or_default();
    let remedy = if error.is_eof() {
        "; a message must stand on one line, as `kcat -J` and `jq -c` print it"
    } else {
        ""
    };
    BadLine {
        column: Some(error.column()),
        problem: format!("not JSON: {what}{remedy}"),
    }
}
