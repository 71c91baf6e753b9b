//! What is refused, and in which words.

use super::super::{DecodeError, Decoder, Found};
use super::{BARE, TOPIC, record, refusal, with_headers, wrap};
use crate::record::Header;

fn refuse_bytes(value: &[u8]) -> DecodeError {
    Decoder::default().decode(&record(TOPIC, value)).expect_err("refused")
}

#[test]
fn the_registry_format_is_refused_with_its_schema_id_and_the_fix() {
    let error = refuse_bytes(b"\x00\x00\x01\x86\xa1{\"op\":\"c\"}");
    assert_eq!(
        error,
        DecodeError::RegistryFormat {
            schema_id: Some(100_001)
        }
    );
    assert_eq!(error.reason(), "registry_format");
    let message = error.to_string();
    assert!(
        message.contains("schema id 100001") && message.contains("output.data.format=JSON"),
        "{message}"
    );
    assert!(refuse_bytes(b"\x00\x01").to_string().contains("cut off"));
}

#[test]
fn a_schema_id_in_the_headers_is_refused_too() {
    let mut guid = vec![1];
    guid.extend(0x10..0x20_u8);
    let id = [0, 0, 0, 0, 7];
    for (name, value, expected) in [
        ("__value_schema_id", Some(&*guid), "101112131415161718191a1b1c1d1e1f"),
        ("__key_schema_id", Some(&id[..]), "id 7"),
        ("__value_schema_id", None, "unknown"),
        ("__value_schema_id", Some(b"a\nb".as_slice()), "a\\nb"),
    ] {
        let headers = [Header { name, value }];
        let error = Decoder::default()
            .decode(&with_headers(BARE, &headers))
            .expect_err("refused");
        assert_eq!(error.reason(), "registry_format");
        assert!(error.to_string().contains(&format!("schema {expected}")), "{error}");
    }
}

#[test]
fn what_is_no_json_object_is_refused_by_what_it_is() {
    for (value, reason) in [
        (b"\xff\xfe{}".as_slice(), "not_utf8"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b"Struct{id=p-1}", "not_json"),
        (b"{\"op\":\"c\"", "not_json"),
        (b"{\"op\":\"c\"} {}", "not_json"),
        (b"{op:1}", "not_json"),
        (b"   ", "not_json"),
        (b"[]", "not_an_object"),
        (b"\"a text\"", "not_an_object"),
        (b"17", "not_an_object"),
        (b"1e5", "not_an_object"),
        (b"true", "not_an_object"),
        (b"null", "not_an_object"),
    ] {
        assert_eq!(
            refuse_bytes(value).reason(),
            reason,
            "{}",
            String::from_utf8_lossy(value)
        );
    }
    assert_eq!(
        refusal(&wrap("[1]", 1)),
        DecodeError::NotAnObject { found: Found::Array }
    );
}

#[test]
fn an_unknown_operation_is_named_and_cannot_forge_a_log_line() {
    let with_op = |op: &str| refusal(&BARE.replace(r#""op":"c""#, &format!(r#""op":"{op}""#)));
    assert_eq!(with_op("x").reason(), "unknown_op");
    assert!(with_op("x").to_string().starts_with("op is \"x\""));
    assert!(
        with_op("\\nERROR \\u001b[31m\\u202e")
            .to_string()
            .contains(r"\nERROR \u{1b}[31m\u{202e}")
    );
    assert!(with_op(&"y".repeat(1_000)).to_string().len() < 200);
}

#[test]
fn fields_that_are_missing_or_wrong_are_named() {
    for (from, to, expected) in [
        (r#""op":"c","#, "", "op is missing or null"),
        (r#""op":"c""#, r#""op":null"#, "op is missing or null"),
        (r#""op":"c""#, r#""op":3"#, "op is an integer where a letter"),
        (
            r#""lsn":26459320"#,
            r#""lsn":"26459320""#,
            "source.lsn is a string of 8 bytes where an integer",
        ),
        (
            r#""lsn":26459320"#,
            r#""lsn":1.5"#,
            "source.lsn is a number that is no 64-bit integer",
        ),
        (
            r#""lsn":26459320"#,
            r#""lsn":18446744073709551615"#,
            "source.lsn is a number that is no 64-bit integer",
        ),
        (
            r#""lsn":26459320"#,
            r#""lsn":0"#,
            "source.lsn is an integer where an LSN above 0",
        ),
        (r#""txId":734"#, r#""txId":[]"#, "source.txId is an array"),
        (
            r#""table":"purchase_ledger""#,
            r#""table":{"a":1}"#,
            "source.table is an object",
        ),
        (
            r#""ts_ms":1795203709806"#,
            r#""ts_ms":true"#,
            "source.ts_ms is a boolean",
        ),
        (
            r#""before":null"#,
            r#""before":"secret""#,
            "before is a string of 6 bytes where an object",
        ),
        (
            r#""ts_ms":1795203709806"#,
            r#""ts_ms":0"#,
            "source.ts_ms is 0, not a time in ms",
        ),
        (
            r#""ts_ms":1795203709806"#,
            r#""ts_ms":1795203709806851"#,
            "source.ts_ms is 1795203709806851, not a time",
        ),
    ] {
        let value = BARE.replace(from, to);
        assert_ne!(value, BARE, "{from}");
        let message = refusal(&value).to_string();
        assert!(message.starts_with(expected), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn a_change_needs_a_commit_time_and_a_plausible_one() {
    let envelope = |time: &str| refusal(&format!(r#"{{"op":"c","after":{{}},"source":{{"lsn":1}}{time}}}"#));
    assert_eq!(envelope("").reason(), "missing_time");
    assert_eq!(envelope(r#","ts_ms":null"#).reason(), "missing_time");
    assert_eq!(
        envelope(r#","ts_ms":4102444800000"#),
        DecodeError::ImplausibleTime {
            field: "ts_ms",
            value: 4_102_444_800_000
        }
    );
}

#[test]
fn without_source_and_topic_there_is_no_table() {
    let value = br#"{"op":"c","after":{},"source":{"lsn":1},"ts_ms":1767323045123}"#;
    let error = Decoder::default()
        .decode(&record("crm.public.", value))
        .expect_err("refused");
    assert_eq!(error, DecodeError::NoTable);
}

#[test]
fn a_flattened_record_is_refused_with_the_setting_to_change() {
    for (value, expected) in [
        (r#"{"id":"p-10","status":"completed","source":"web"}"#, "has no __op"),
        (r#"{"schema":1,"payload":{"op":"c"},"id":1}"#, "has no __op"),
        ("{}", "has no __op"),
        (
            r#"{"id":"p-10","__op":"c","__source_ts_ms":1767323045123}"#,
            "has no __lsn",
        ),
        (r#"{"id":"p-10","__op":"c","__lsn":5}"#, "has no __source_ts_ms"),
    ] {
        let error = refusal(value);
        assert_eq!(error.reason(), "flattened", "{value}");
        let message = error.to_string();
        assert!(
            message.contains(expected) && message.contains("after.state.only=false"),
            "{message}"
        );
    }
    let error = refusal(r#"{"id":"p-10","__op":"c","__lsn":"5","__source_ts_ms":1767323045123}"#);
    assert!(error.to_string().starts_with("__lsn is a string of 1 bytes"), "{error}");
}

#[test]
fn json_as_deep_as_it_likes_neither_overflows_the_stack_nor_takes_long() {
    const DEPTH: usize = 1_000_000;
    let nested = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(DEPTH), "}".repeat(DEPTH));
    for value in [
        nested.clone(),
        "[".repeat(DEPTH),
        objects.clone(),
        wrap(&nested, 1),
        wrap(&objects, 1),
        BARE.replace(r#""op":"c""#, &format!(r#""op":{nested}"#)),
        BARE.replace(r#""lsn":26459320"#, &format!(r#""lsn":{objects}"#)),
    ] {
        assert!(!refusal(&value).reason().is_empty());
    }
    // Fields nobody reads may be anything.
    assert!(super::decode(&BARE.replace(r#""transaction":null"#, &format!(r#""transaction":{nested}"#))).is_ok());
    assert!(super::decode(&BARE.replace(r#""completed_at":null"#, &format!(r#""extra":{objects}"#))).is_ok());
}

#[test]
fn an_envelope_that_lost_its_op_and_source_is_no_heartbeat() {
    let value = br#"{"before":null,"after":{"id":"p-1"},"ts_ms":1780000000000}"#;
    assert!(Decoder::default().decode(&record(TOPIC, value)).is_err());
}
