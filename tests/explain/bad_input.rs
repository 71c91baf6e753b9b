//! What is wrong with a record or a line, in words that say where and what to do; and that it stops nothing else.

use serde_json::{Value, json};

use super::{explain, objects, recorded, text};

/// Each kind of bad input, and the words that say what is wrong, where, and what to do.
#[test]
fn a_poison_record_is_named_and_the_ones_around_it_are_still_explained() {
    let value = |text: &str| json!({"topic": "crm.public.purchase_ledger", "payload": text}).to_string();
    let poison = [
        (
            value("Struct{id=p-1}"),
            "not_json",
            "value is not JSON: expected value at line 1 column 1: is the connector's output",
        ),
        (value("\0\0\0\0\u{7}{}"), "registry_format", "output.data.format=JSON"),
        (
            json!({"topic": "t", "payload_base64": "/v8="}).to_string(),
            "not_utf8",
            "value is not UTF-8 from byte 0 on",
        ),
        (
            recorded("\"op\":\"c\"", "\"op\":\"x\""),
            "unknown_op",
            "op is \"x\": only c, u, d, r, t and m are known",
        ),
        (
            recorded("\"completed\"", "\"paid\""),
            "unknown_value",
            "column status has the unknown value \"paid\"",
        ),
        (
            recorded("\"user_id\":\"u-1\",\"merchant_id\":\"m-1\",", ""),
            "missing_columns",
            "required columns are missing or null: user_id, merchant_id",
        ),
        (
            recorded("true", "\"yes\""),
            "wrong_type",
            "column earn_currency is a string of 3 bytes where",
        ),
        (
            recorded("100.00", "\"JxA=\""),
            "wrong_decimal_mode",
            "set DECIMAL_MODE or the connector so that they agree",
        ),
        (
            recorded("\"2026-11-20T10:00:00Z\"", "\"1026-11-20T10:00:00Z\""),
            "implausible_time",
            "column created_at is 1026-11-20T10:00:00Z, not a time between 1980 and 2100",
        ),
        (
            recorded("1795168800000", "1795168800"),
            "implausible_time",
            "ts_ms is 1795168800, not a time in ms between 1980 and 2100",
        ),
        (
            recorded("\"lsn\":42,", ""),
            "missing_lsn",
            "the change has no source.lsn",
        ),
        (
            recorded("\"op\":\"c\"", "\"op\":\"d\""),
            "ledger_rewritten",
            "a row was deleted",
        ),
    ];
    for (poison, reason, says) in poison {
        let good = recorded("", "");
        let output = explain(&["--format", "json"], format!("{good}\n{poison}\n{good}\n").as_bytes());
        assert_eq!(output.status.code(), Some(1), "{reason}");
        let records = objects(&output);
        let outcomes: Vec<&Value> = records.iter().map(|record| &record["outcome"]).collect();
        assert_eq!(outcomes, ["event", "dead_letter", "event"], "{reason}");
        let dead = &records[1]["dead_letter"];
        assert_eq!(dead["queue"], "crm.dlq.decode");
        assert_eq!(dead["reason"], reason);
        let detail = dead["detail"].as_str().expect("a sentence");
        assert!(detail.contains(says), "{reason}: {detail}");
    }
}

#[test]
fn a_row_that_one_consumer_refuses_is_dead_for_it_alone() {
    let row = recorded("100.00,", "9922816251426433759123,");
    let output = explain(&["--format", "json", "--topic-prefix", "shop"], row.as_bytes());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let record = &objects(&output)[0];
    assert_eq!(record["outcome"], "dead_letter");
    let currency = &record["consumers"][0];
    assert_eq!(currency["decision"], "refuse");
    assert_eq!(currency["dead_letter"]["queue"], "shop.dlq.currency");
    assert_eq!(currency["dead_letter"]["reason"], "points_overflow");
    let decision = |consumer: usize| &record["consumers"][consumer]["decision"];
    assert_eq!((decision(1), decision(2)), (&json!("deliver"), &json!("deliver")));
}

#[test]
fn an_event_too_large_for_a_request_is_dead_although_its_row_is_sound() {
    let id = "p".repeat(300_000);
    let row = recorded("\"id\":\"p-1\"", &format!("\"id\":\"{id}\""));
    let output = explain(&["--format", "json", "--consumers", "currency"], row.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let record = &objects(&output)[0];
    assert_eq!(record["consumers"][0]["reason"], "event_too_large");
    assert_eq!(record["consumers"].as_array().map(Vec::len), Some(1));
}

#[test]
fn keys_and_values_that_are_no_text_come_as_base64() {
    let line = json!({
        "topic": "crm.public.purchase_ledger", "key": null, "key_base64": "/wA=", "payload": null,
        "payload_base64": "AAAAAAd7fQ==",
    });
    let output = explain(&[], line.to_string().as_bytes());
    let shown = text(&output.stdout);
    assert!(shown.contains("key of 2 bytes, not UTF-8"), "{shown}");
    assert!(shown.contains("schema id 7"), "{shown}");
    // As they are, they make the line unreadable, which is said with its place.
    let output = explain(&[], b"\n{\"topic\":\"t\",\"key\":\"\xff\",\"payload\":null}\n");
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stdout);
    assert!(
        shown.contains("line 2, column 21  bad line\n  not UTF-8: record"),
        "{shown}"
    );
}

#[test]
fn one_thing_is_explained_at_a_time() {
    for subjects in [
        ["--purchase=p", "--claim=c"],
        ["--code=c", "--member=m:u"],
        ["letters.jsonl", "--referral=r"],
    ] {
        let output = explain(&subjects, b"");
        assert_eq!(output.status.code(), Some(64), "{subjects:?}");
        let said = text(&output.stderr);
        assert!(said.contains("cannot be used with"), "{said}");
    }
}
