//! A body to events, one at a time, with Inngest's rules. Pure.
//!
//! Takes a body, gives each event to a closure as soon as it is read, and why reading ended early. What stood before a bad
//! event has been given already, as in Inngest. It borrows from the body and parses only what the rules need.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// One valid event; what it leaves out is filled in by the receiver.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) name: Cow<'a, str>,
    pub(super) ts_ms: Option<i64>,
    pub(super) v: Option<Cow<'a, str>>,
    pub(super) data: Cow<'a, str>,
}

/// What ends a request early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    #[error("invalid JSON: {0}")]
    Json(String),
    #[error("event name is empty")]
    EmptyName,
    #[error("event name is reserved")]
    ReservedName,
    #[error("event name is longer than 255 characters")]
    LongName,
    #[error("event ts must be whole milliseconds")]
    TsType,
    #[error("event ts must be between 1980 and 2100")]
    TsRange,
    #[error("event data must be an object")]
    Data,
    #[error("event is too large")]
    TooLarge,
    #[error("too many events")]
    TooMany,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    ts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    v: Option<Text<'a>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Borrowed unless it holds escapes: in an `Option`, serde would copy a bare `Cow`.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

const MAX_EVENT_BYTES: usize = 3 * 1024 * 1024;
const MAX_NAME_CHARS: usize = 255;
const RESERVED_PREFIX: &str = "inngest/";
const RESERVED_FIELD: &str = "_inngest";
/// 1980-01-01 up to 2100-01-01.
const TS_RANGE_MS: std::ops::RangeInclusive<i64> = 315_532_800_000..=4_102_444_800_000;

/// Reads one object or an array of them. `take` is given each valid event in turn.
pub(super) fn read<'a>(body: &'a [u8], max_events: usize, take: impl FnMut(Incoming<'a>)) -> Result<(), Bad> {
    let mut reading = Reading {
        max_events,
        taken: 0,
        take,
        bad: None,
    };
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let mut json = serde_json::Deserializer::from_slice(body);
    let result = match first {
        None => Ok(()),
        Some(b'[') => json.deserialize_seq(&mut reading),
        Some(_) => Wire::deserialize(&mut json).and_then(|wire| reading.event(wire)),
    };
    match (reading.bad, result) {
        (Some(bad), _) => Err(bad),
        (None, Err(error)) => Err(Bad::Json(error.to_string())),
        (None, Ok(())) => Ok(()),
    }
}

struct Reading<F> {
    max_events: usize,
    taken: usize,
    take: F,
    /// Set before an error that serde only carries out.
    bad: Option<Bad>,
}

impl<'a, F: FnMut(Incoming<'a>)> Reading<F> {
    fn event<E: serde::de::Error>(&mut self, wire: Wire<'a>) -> Result<(), E> {
        match self.check(wire) {
            Ok(event) => {
                self.taken += 1;
                (self.take)(event);
                Ok(())
            }
            Err(bad) => {
                self.bad = Some(bad);
                Err(E::custom("bad event"))
            }
        }
    }

    fn check(&self, wire: Wire<'a>) -> Result<Incoming<'a>, Bad> {
        if self.taken >= self.max_events {
            return Err(Bad::TooMany);
        }
        let name = wire.name.map_or(Cow::Borrowed(""), |Text(name)| name);
        Ok(Incoming {
            id: wire.id.map(|Text(id)| id).filter(|id| !id.is_empty()),
            ts_ms: wire.ts.map_or(Ok(None), ts)?,
            v: wire.v.map(|Text(v)| v),
            data: wire.data.map_or(Ok(Cow::Borrowed("{}")), data)?,
            name: check_name(name)?,
        })
    }
}

impl<'a, F: FnMut(Incoming<'a>)> Visitor<'a> for &mut Reading<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(One(&mut *self))?.is_some() {}
        Ok(())
    }
}

/// One element of the list: given on before the next one is read.
struct One<'r, F>(&'r mut Reading<F>);

impl<'a, F: FnMut(Incoming<'a>)> DeserializeSeed<'a> for One<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        self.0.event(wire)
    }
}

fn check_name(name: Cow<'_, str>) -> Result<Cow<'_, str>, Bad> {
    let prefix = name.get(..RESERVED_PREFIX.len());
    if name.is_empty() {
        Err(Bad::EmptyName)
    } else if prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(RESERVED_PREFIX)) {
        Err(Bad::ReservedName)
    } else if name.chars().count() > MAX_NAME_CHARS {
        Err(Bad::LongName)
    } else {
        Ok(name)
    }
}

/// Zero counts as missing, as it does for the server's language.
fn ts(raw: &RawValue) -> Result<Option<i64>, Bad> {
    match raw.get() {
        "null" => Ok(None),
        text => match text.parse::<i64>() {
            Ok(0) => Ok(None),
            Ok(ts) if TS_RANGE_MS.contains(&ts) => Ok(Some(ts)),
            Ok(_) => Err(Bad::TsRange),
            Err(_not_whole) => Err(Bad::TsType),
        },
    }
}

fn data(raw: &RawValue) -> Result<Cow<'_, str>, Bad> {
    let text = raw.get();
    if text == "null" {
        return Ok(Cow::Borrowed("{}"));
    }
    if !text.starts_with('{') {
        return Err(Bad::Data);
    }
    if text.len() > MAX_EVENT_BYTES {
        return Err(Bad::TooLarge);
    }
    if !text.contains(RESERVED_FIELD) {
        return Ok(Cow::Borrowed(text));
    }
    let parsed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    let mut data = parsed.map_err(|error| Bad::Json(error.to_string()))?;
    data.remove(RESERVED_FIELD);
    let cleaned = serde_json::to_string(&data).map_err(|error| Bad::Json(error.to_string()))?;
    Ok(Cow::Owned(cleaned))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names taken, and how it ended.
    fn names(body: &str) -> (Vec<String>, Result<(), Bad>) {
        let mut names = Vec::new();
        let end = read(body.as_bytes(), 3, |event| names.push(event.name.into_owned()));
        (names, end)
    }

    fn one(event: &str) -> Result<(Option<i64>, String), Bad> {
        let mut taken = None;
        read(event.as_bytes(), 1, |event| {
            taken = Some((event.ts_ms, event.data.into_owned()));
        })?;
        Ok(taken.expect("one event"))
    }

    #[test]
    fn an_object_or_a_list_is_read_in_order() {
        assert_eq!(names(r#" {"name":"a"}"#), (vec!["a".to_owned()], Ok(())));
        let list = r#"[{"name":"a","id":"1","data":{}},{"name":"b\u0041","x":[1]}]"#;
        assert_eq!(names(list), (vec!["a".to_owned(), "bA".to_owned()], Ok(())));
        assert_eq!(names(""), (vec![], Ok(())));
        assert_eq!(names("[]"), (vec![], Ok(())));
    }

    #[test]
    fn what_stands_before_a_bad_event_is_taken_and_what_follows_is_not() {
        let (taken, end) = names(r#"[{"name":"a"},{"name":""},{"name":"c"}]"#);
        assert_eq!((taken, end), (vec!["a".to_owned()], Err(Bad::EmptyName)));
        let (taken, end) = names(r#"[{"name":"a"},{"name":7}]"#);
        assert_eq!(taken, ["a"]);
        assert!(matches!(end, Err(Bad::Json(_))));
        let (taken, end) = names(r#"[{"name":"a"},{"na"#);
        assert_eq!(taken, ["a"]);
        assert!(matches!(end, Err(Bad::Json(_))));
        let (taken, end) = names(r#"[{"name":"a"},{"name":"b"},{"name":"c"},{"name":"d"}]"#);
        assert_eq!((taken.len(), end), (3, Err(Bad::TooMany)));
    }

    #[test]
    fn names_keep_to_the_rules() {
        for (name, bad) in [
            ("", Bad::EmptyName),
            ("Inngest/function.finished", Bad::ReservedName),
            (&"n".repeat(256), Bad::LongName),
        ] {
            assert_eq!(one(&format!(r#"{{"name":"{name}"}}"#)), Err(bad));
        }
        assert_eq!(one(r#"{"data":{}}"#), Err(Bad::EmptyName));
        assert!(one(&format!(r#"{{"name":"{}"}}"#, "n".repeat(255))).is_ok());
        assert!(one(r#"{"name":"é"}"#).is_ok());
    }

    #[test]
    fn ts_is_whole_milliseconds_of_our_age() {
        let ts = |ts: &str| one(&format!(r#"{{"name":"n","ts":{ts}}}"#)).map(|(ts, _)| ts);
        assert_eq!(ts("1790000000000"), Ok(Some(1_790_000_000_000)));
        assert_eq!(ts("null"), Ok(None));
        assert_eq!(ts("0"), Ok(None));
        for wrong in ["1.5", "1e12", "\"1790000000000\"", "99999999999999999999"] {
            assert_eq!(ts(wrong), Err(Bad::TsType), "{wrong}");
        }
        for wrong in ["1", "-5", "315532799999", "4102444800001", "1790000000000000"] {
            assert_eq!(ts(wrong), Err(Bad::TsRange), "{wrong}");
        }
    }

    #[test]
    fn data_is_an_object_without_the_reserved_field() {
        let data = |data: &str| one(&format!(r#"{{"name":"n","data":{data}}}"#)).map(|(_, data)| data);
        assert_eq!(data(r#"{"a": 1}"#).as_deref(), Ok(r#"{"a": 1}"#));
        assert_eq!(data("null").as_deref(), Ok("{}"));
        assert_eq!(
            data(r#"{"_inngest":{},"b":"_inngest"}"#).as_deref(),
            Ok(r#"{"b":"_inngest"}"#)
        );
        assert_eq!(data("[1]"), Err(Bad::Data));
        assert_eq!(data(r#""text""#), Err(Bad::Data));
    }
}
