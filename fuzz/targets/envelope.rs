//! The envelope in its shapes: bare, and in `{schema,payload}`, with the schema known and unknown. All mean the same, and what
//! they mean is what any JSON reader finds in them: of a field or column that stands twice, the last one counts.

use std::collections::BTreeSet;

use crm_event_processors::debezium::{Change, Columns, DecodeError, Decoded, Decoder, Op};
use crm_event_processors::record::{Headers, RecordView};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::wire::is_sound;
use super::{assert_inert, assert_word};

const TOPIC: &str = "crm.public.purchase_ledger";
const SCHEMA: &str = r#"{"schema":{"type":"struct","name":"crm.public.purchase_ledger.Envelope"},"payload":"#;

pub(super) fn run(data: &[u8]) {
    let bare = Decoder::default().decode(&record(data));
    if let Err(error) = &bare {
        assert_inert(&error.to_string());
        assert_word(error.reason());
    }
    let Ok(text) = std::str::from_utf8(data) else {
        assert!(bare.is_err() || data.is_empty());
        return;
    };
    let value: Option<Value> = serde_json::from_str(text).ok();
    if !is_wrapped(text) {
        means_the_same_wrapped(text, &bare);
    }
    if let (Ok(Decoded::Change(change)), Some(Value::Object(object))) = (&bare, &value) {
        is_sound(change);
        let envelope = match object.get("payload") {
            Some(Value::Object(payload)) if is_wrapped(text) => payload,
            _ => object,
        };
        // A flattened record has no envelope to compare with.
        if !envelope.contains_key("__op") {
            is_what_is_written(change, envelope);
        }
    }
}

fn record(value: &[u8]) -> RecordView<'_> {
    RecordView {
        topic: TOPIC,
        partition: 0,
        offset: 1,
        timestamp_ms: None,
        key: None,
        value: Some(value),
        headers: Headers::default(),
    }
}

/// Whether these are the names of `{schema,payload}`, and no others.
fn is_wrapped(text: &str) -> bool {
    let fields: Result<std::collections::BTreeMap<String, &serde_json::value::RawValue>, _> =
        serde_json::from_str(text);
    fields.is_ok_and(|fields| fields.keys().eq(["payload", "schema"]))
}

fn means_the_same_wrapped(text: &str, bare: &Result<Decoded<'_>, DecodeError>) {
    let wrapped = format!("{SCHEMA}{text}}}");
    let unknown = Decoder::default().decode(&record(wrapped.as_bytes())).map_err(drop);
    let primer = format!("{SCHEMA}null}}");
    let mut decoder = Decoder::default();
    assert!(decoder.decode(&record(primer.as_bytes())).is_ok());
    let known = decoder.decode(&record(wrapped.as_bytes())).map_err(drop);
    assert_eq!(format!("{known:?}"), format!("{unknown:?}"));
    match bare {
        Ok(decoded) if !text.is_empty() => {
            assert_eq!(format!("{unknown:?}"), format!("Ok({decoded:?})"));
        }
        // What is more than one value escapes from its place, and makes another record of the whole.
        _ if serde_json::from_str::<IgnoredAny>(text).is_err() => {}
        // Nothing else becomes a change by being wrapped; a payload of null is a tombstone.
        _ => assert!(!matches!(unknown, Ok(Decoded::Change(_))), "{unknown:?}"),
    }
}

fn is_what_is_written(change: &Change<'_>, envelope: &Map<String, Value>) {
    let op = match change.op {
        Op::Create => "c",
        Op::Update => "u",
        Op::Delete => "d",
        Op::Read => "r",
        Op::Truncate => "t",
    };
    assert_eq!(envelope["op"], op);
    let none = Value::Null;
    let source = |name: &str| {
        envelope
            .get("source")
            .and_then(|source| source.get(name))
            .unwrap_or(&none)
    };
    assert_eq!(change.lsn, source("lsn").as_i64());
    assert_eq!(change.tx_id, source("txId").as_i64());
    assert_eq!(change.source_ts_ms, source("ts_ms").as_i64());
    if change.source_ts_ms.is_none() {
        assert_eq!(Some(change.commit_ms), envelope["ts_ms"].as_i64());
    }
    match source("table").as_str() {
        Some(table) if !table.is_empty() => assert_eq!(change.table, table),
        _ => assert_eq!(change.table, "purchase_ledger"),
    }
    for (name, columns) in [("before", &change.before), ("after", &change.after)] {
        match (columns, envelope.get(name)) {
            (None, None | Some(Value::Null)) => {}
            (Some(columns), Some(Value::Object(image))) => holds(columns, image),
            (read, written) => panic!("{name}: {read:?} of {written:?}"),
        }
    }
}

fn holds(columns: &Columns<'_>, image: &Map<String, Value>) {
    let names: BTreeSet<&str> = columns.names().collect();
    assert!(names.iter().copied().eq(image.keys().map(String::as_str)), "{names:?}");
    for (name, value) in image {
        let token = columns.get(name).expect("a column that is named");
        assert_eq!(&serde_json::from_str::<Value>(token).expect("JSON"), value, "{name}");
    }
}
