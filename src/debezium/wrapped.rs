//! `{schema,payload}`: what Kafka Connect's `JsonConverter` writes with `schemas.enable=true`. Takes the record's text,
//! gives the payload's. The schema is four times the size of the row and the same in every record of a topic, so the
//! text up to the payload is kept per topic and compared byte for byte: a record that begins with it needs no second
//! parse of its schema. Never reads the schema, and never decides by a field called `payload` alone: a table may have one.
//!
//! `tests::properties::a_wrapped_record_means_the_same_with_and_without_a_cached_prefix` proves that the short way changes nothing.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::columns::Text;

/// One prefix a topic, and no more topics or longer prefixes than this: at most 8 MiB.
const MOST_TOPICS: usize = 64;
const LONGEST_PREFIX: usize = 128 * 1024;

/// The text up to the payload's first byte, as last seen in each topic.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    by_topic: HashMap<Box<str>, Box<str>>,
}

/// A `{schema,payload}` record, taken apart.
#[derive(Debug)]
pub(super) struct Wrapped<'a> {
    pub(super) payload: &'a str,
    /// `{"schema":...,"payload":` if nothing but `}` follows the payload.
    pub(super) prefix: Option<&'a str>,
}

impl Prefixes {
    /// The payload, if the record begins with the prefix known for its topic. The caller must read it as *one* JSON value:
    /// that, and the prefix being a learned one, make the whole a valid record with exactly two keys.
    pub(super) fn strip<'a>(&self, topic: &str, value: &'a [u8]) -> Option<&'a [u8]> {
        let prefix = self.by_topic.get(topic)?;
        let mut rest = value.strip_prefix(prefix.as_bytes())?;
        while let [before @ .., b' ' | b'\t' | b'\n' | b'\r'] = rest {
            rest = before;
        }
        rest.strip_suffix(b"}")
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Keeps the newest prefix. Topics beyond the limit are parsed in full, each time.
    pub(super) fn learn(&mut self, topic: &str, prefix: &str) {
        if prefix.len() > LONGEST_PREFIX {
            return;
        }
        if let Some(known) = self.by_topic.get_mut(topic) {
            *known = prefix.into();
        } else if self.by_topic.len() < MOST_TOPICS {
            let _none = self.by_topic.insert(topic.into(), prefix.into());
        }
    }
}

/// `None` if the text is anything but an object with exactly the keys `schema` and `payload`; broken JSON included, which
/// the next parser will report.
pub(super) fn split(text: &str) -> Option<Wrapped<'_>> {
    // A bare envelope is told by its first key, without a parse.
    let first_key = text
        .trim_start_matches(WHITESPACE)
        .strip_prefix('{')?
        .trim_start_matches(WHITESPACE);
    if !["\"s", "\"p", "\"\\"].iter().any(|start| first_key.starts_with(start)) {
        return None;
    }
    let Pair { payload } = serde_json::from_str(text).ok()?;
    let payload = payload.get();
    let start = payload.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let end = start.checked_add(payload.len())?;
    let prefix = if text.get(end..)?.trim_matches(WHITESPACE) == "}" {
        text.get(..start)
    } else {
        None
    };
    Some(Wrapped { payload, prefix })
}

/// JSON's white space; Rust's `trim` would take more.
const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];

struct Pair<'a> {
    payload: &'a RawValue,
}

impl<'de> Deserialize<'de> for Pair<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairVisitor)
    }
}

struct PairVisitor;

impl<'de> Visitor<'de> for PairVisitor {
    type Value = Pair<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the keys schema and payload")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut schema, mut payload) = (None, None);
        while let Some(Text(key)) = map.next_key()? {
            let slot = match &*key {
                "schema" => &mut schema,
                "payload" => &mut payload,
                _ => return Err(A::Error::custom("another key")),
            };
            if slot.replace(map.next_value::<&'de RawValue>()?).is_some() {
                return Err(A::Error::custom("a key twice"));
            }
        }
        match (schema, payload) {
            (Some(_), Some(payload)) => Ok(Pair { payload }),
            _ => Err(A::Error::custom("a key missing")),
        }
    }
}
