//! What holds for every input, and for the forms of a line that no recording has.

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::verdict::Explainer;
use super::{Format, explain, text};
use crate::config::{Deciding, Flags};
use crate::consumers::Rules;
use crate::loyalty::{DEMO_PROGRAM, Programs};

const ENVELOPE: &str = r#"{"op":"c","before":null,"after":{"id":"p-1","user_id":"u-1","merchant_id":"m-1","final_amount":100.00,"status":"completed","earn_currency":true,"created_at":"2026-01-02T03:04:05Z"},"source":{"table":"purchase_ledger","lsn":7,"txId":1},"ts_ms":1795203710605}"#;

fn explainer() -> Explainer {
    let programs = Programs::from_json(DEMO_PROGRAM).expect("the demo's program");
    let deciding = Deciding::from_flags(&Flags::default()).expect("defaults");
    let now: Timestamp = "2026-12-01T00:00:00Z".parse().expect("a time");
    Explainer::new(&deciding, Rules::new(Arc::new(programs), None), now)
}

fn explained(input: &[u8], format: Format) -> (String, bool) {
    let mut out = Vec::new();
    let findings = explain(explainer(), input, &mut out, format).expect("memory");
    (String::from_utf8(out).expect("text"), findings)
}

/// What is wrong with a line, with its column.
fn problem(line: &[u8]) -> (Option<u64>, String) {
    let (json, findings) = explained(line, Format::Json);
    assert!(findings, "{json}");
    let object: serde_json::Value = serde_json::from_str(&json).expect("an object");
    assert_eq!(object["outcome"], "bad_line", "{json}");
    let problem = object["bad_line"]["problem"].as_str().expect("a sentence");
    (object["bad_line"]["column"].as_u64(), problem.to_owned())
}

#[test]
fn a_bad_line_is_told_with_its_column_and_what_to_do() {
    for (line, column, says) in [
        (
            b"{\"op\":\"c\"".as_slice(),
            Some(9),
            "not JSON: EOF while parsing an object; a message must stand on one line",
        ),
        (b"Struct{id=1}", Some(1), "not JSON: expected value"),
        (b"{\"topic\":\"t\",}", Some(14), "not JSON: key must be a string"),
        (b"[1]", Some(1), "an array, not an object: put one message a line"),
        (b"\"text\"", Some(1), "a string, not an object"),
        (b"{\"a\":1}", None, "neither a message as `kcat -J` prints it"),
        (
            b"{\"topic\":\"t\"}",
            None,
            "neither payload nor payload_base64 is given",
        ),
        (
            b"{\"topic\":7,\"payload\":null}",
            Some(10),
            "topic is a number where a string",
        ),
        (
            b"{\"topic\":\"t\",\"offset\":\"1\",\"payload\":null}",
            Some(23),
            "offset is a string where an integer",
        ),
        (
            b"{\"topic\":\"t\",\"partition\":3000000000,\"payload\":null}",
            Some(26),
            "partition is a number where a 32-bit",
        ),
        (
            b"{\"topic\":\"t\",\"payload\":\"\\ud800\"}",
            Some(24),
            "payload is a string where a string that is Unicode",
        ),
        (
            b"{\"topic\":\"t\",\"payload\":null,\"payload\":1}",
            Some(39),
            "payload is given twice",
        ),
        (
            b"{\"topic\":\"t\",\"payload_base64\":\"***\"}",
            Some(31),
            "payload_base64 is not base64",
        ),
        (
            b"{\"topic\":\"t\",\"payload\":null,\"headers\":[\"a\"]}",
            Some(39),
            "headers is an array where a list of name, value",
        ),
        (
            b"{\"topic\":\"t\",\"payload\":null,\"headers\":{}}",
            Some(39),
            "headers is an object where a list of name, value",
        ),
        (
            b"{\"topic\":\"t\",\"key\":\"\xff\",\"payload\":null}",
            Some(21),
            "not UTF-8: record what is no text as payload_base64",
        ),
        (b"\xff\xfe{\0}\0", Some(1), "not UTF-8: this looks like UTF-16"),
    ] {
        let (found, problem) = problem(line);
        let shown = String::from_utf8_lossy(line);
        assert!(problem.starts_with(says), "{shown}: {problem}");
        assert_eq!(found, column, "{shown}: {problem}");
    }
}

#[test]
fn every_way_to_write_one_record_down_is_decided_alike() {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(ENVELOPE);
    let quoted = serde_json::to_string(ENVELOPE).expect("a text");
    let wrapped = format!(r#"{{"schema":{{"type":"struct"}},"payload":{ENVELOPE}}}"#);
    let (expected, _) = explained(ENVELOPE.as_bytes(), Format::Json);
    let consumers = |json: &str| json.split_once(r#""table""#).expect("a change").1.to_owned();
    for line in [
        format!(r#"{{"topic":"crm.public.purchase_ledger","payload":{quoted}}}"#),
        format!(r#"{{"payload":{quoted}}}"#),
        format!(r#"{{"topic":"crm.public.purchase_ledger","payload":{ENVELOPE}}}"#),
        format!(r#"{{"topic":"t","key":null,"payload":null,"payload_base64":"{encoded}","key_base64":"/w"}}"#),
        wrapped,
    ] {
        let (found, findings) = explained(line.as_bytes(), Format::Json);
        assert_eq!(consumers(&found), consumers(&expected), "{line}");
        assert!(!findings, "{line}");
    }
}

#[test]
fn json_laid_out_for_people_is_the_same_json() {
    let json = r#"{"a":[],"b":{},"c":[1.10,{"d":"x\"{,:\\"}],"e":"สวัสดี"}"#;
    let pretty = text::pretty(json, "  ");
    assert_eq!(
        pretty,
        "{\n    \"a\": [],\n    \"b\": {},\n    \"c\": [\n      1.10,\n      {\n        \"d\": \"x\\\"{,:\\\\\"\n      }\n    ],\n    \"e\": \"สวัสดี\"\n  }"
    );
}

/// Lines that are nearly right reach further than noise.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let quoted = serde_json::to_string(ENVELOPE).expect("a text");
    let lines = [
        ENVELOPE.to_owned(),
        format!(
            r#"{{"topic":"crm.public.purchase_ledger","partition":1,"offset":2,"headers":["a",null],"key":"k","payload":{quoted}}}"#
        ),
        format!(r#"{{"topic":"t","payload":{ENVELOPE}}}"#),
    ];
    let cuts = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(lines.to_vec()), cuts).prop_map(|(line, changes)| {
        let mut bytes = line.into_bytes();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn no_input_crashes_it_and_every_line_is_accounted_for(
        lines in proptest::collection::vec(prop_oneof![nearly_right(), any::<Vec<u8>>()], 0..4),
    ) {
        let input = lines.join(&b'\n');
        let (json, findings) = explained(&input, Format::Json);
        let filled = input.split(|byte| *byte == b'\n').enumerate().filter(|(index, line)| {
            let line = if *index == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
            !line.trim_ascii().is_empty()
        });
        prop_assert_eq!(json.lines().count(), filled.count());
        let mut bad = false;
        for line in json.lines() {
            let object: serde_json::Value = serde_json::from_str(line).expect("an object a line");
            bad |= object["outcome"] == "dead_letter" || object["outcome"] == "bad_line";
        }
        prop_assert_eq!(bad, findings);
        let (text, as_text) = explained(&input, Format::Text);
        prop_assert_eq!(findings, as_text);
        prop_assert!(!text.contains(|character: char| character.is_control() && character != '\n'));
    }
}
