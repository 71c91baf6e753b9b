//! What is understood.

use std::borrow::Cow;

use super::super::{Control, Decoded, Decoder, Op};
use super::{BARE, TOPIC, as_change, change, decode, record, with_headers, wrap};
use crate::record::{Header, RecordView};

fn control(topic: &str, value: Option<&str>) -> Option<Control> {
    let record = RecordView {
        value: value.map(str::as_bytes),
        ..record(topic, b"")
    };
    match Decoder::default().decode(&record) {
        Ok(Decoded::Control(control)) => Some(control),
        _ => None,
    }
}

#[test]
fn a_bare_envelope_becomes_a_change_that_borrows_from_the_record() {
    let change = change(BARE);
    assert_eq!(
        (
            change.op,
            &*change.table,
            change.lsn,
            change.tx_id,
            change.source_ts_ms,
            change.commit_ms,
            change.rekeyed
        ),
        (
            Op::Create,
            "purchase_ledger",
            Some(26_459_320),
            Some(734),
            Some(1_795_203_709_806),
            1_795_203_709_806,
            false
        )
    );
    assert!(matches!(change.table, Cow::Borrowed(_)));
    assert!(change.before.is_none());
    let after = change.after.expect("a row");
    assert_eq!(after.get("final_amount"), Some("\"100.00\""));
    assert_eq!(after.get("metadata"), Some(r#""{\"rate\": 1.10}""#));
    assert_eq!(after.get("nothing"), None);
    let range = BARE.as_bytes().as_ptr_range();
    assert!(after.names().all(|name| range.contains(&name.as_ptr())));
}

#[test]
fn the_minimal_envelope_of_the_specification_is_enough() {
    let change = change(
        r#"{"op":"c","before":null,"after":{"id":"p-1","final_amount":100.00},"source":{"lsn":24023128,"txId":555},"ts_ms":1767323045123}"#,
    );
    assert_eq!(
        (change.op, &*change.table, change.lsn),
        (Op::Create, "purchase_ledger", Some(24_023_128))
    );
    assert_eq!((change.source_ts_ms, change.commit_ms), (None, 1_767_323_045_123));
    assert_eq!(change.after.expect("a row").get("final_amount"), Some("100.00"));
}

#[test]
fn every_operation_is_told_apart() {
    let with_op = |op: &str| BARE.replace(r#""op":"c""#, &format!(r#""op":"{op}""#));
    for (letter, op) in [
        ("c", Op::Create),
        ("u", Op::Update),
        ("d", Op::Delete),
        ("r", Op::Read),
        ("t", Op::Truncate),
    ] {
        assert_eq!(change(&with_op(letter)).op, op);
    }
    assert!(matches!(decode(&with_op("m")), Ok(Decoded::Control(Control::Message))));
}

#[test]
fn source_snapshot_may_be_a_text_a_boolean_or_null_and_sequence_anything() {
    for snapshot in [
        "null",
        "true",
        "false",
        "\"first_in_data_collection\"",
        "\"incremental\"",
        "{}",
    ] {
        let value = BARE.replace(r#""snapshot":null"#, &format!(r#""snapshot":{snapshot},"sequence":17"#));
        assert_eq!(change(&value).lsn, Some(26_459_320), "{snapshot}");
    }
}

#[test]
fn rows_of_an_incremental_snapshot_have_no_lsn() {
    let value = BARE
        .replace(r#""lsn":26459320"#, r#""lsn":null"#)
        .replace(r#""txId":734"#, r#""txId":null"#)
        .replace(r#""op":"c""#, r#""op":"r""#);
    let change = change(&value);
    assert_eq!((change.op, change.lsn, change.tx_id), (Op::Read, None, None));
    assert_eq!(change.source_ts_ms, Some(1_795_203_709_806));
}

#[test]
fn without_a_source_the_table_is_the_last_part_of_the_topic() {
    for source in [r#"{"lsn":1}"#, r#"{"lsn":1,"table":null}"#, r#"{"lsn":1,"table":""}"#] {
        let value = format!(r#"{{"op":"c","after":{{}},"source":{source},"ts_ms":1767323045123}}"#);
        assert_eq!(change(&value).table, "purchase_ledger", "{source}");
    }
}

#[test]
fn escaped_names_and_white_space_mean_the_same() {
    let value = "{ \"op\" : \"\\u0063\" ,\n \"\\u0061fter\" : { \"\\u0069d\" : \"p-1\" } , \"source\" : { \"lsn\" : 5 , \"table\" : \"wallet\\u005fledger\" } , \"ts_ms\" : 1767323045123 }\r\n";
    let change = change(value);
    assert_eq!(
        (change.op, &*change.table, change.lsn),
        (Op::Create, "wallet_ledger", Some(5))
    );
    assert_eq!(change.after.expect("a row").get("id"), Some("\"p-1\""));
}

#[test]
fn of_a_name_that_stands_twice_the_last_wins() {
    let value =
        r#"{"op":"d","op":"c","after":{"id":"p-1","id":"p-2"},"source":{"lsn":1,"lsn":2},"ts_ms":1767323045123}"#;
    let change = change(value);
    assert_eq!((change.op, change.lsn), (Op::Create, Some(2)));
    let after = change.after.expect("a row");
    assert_eq!(after.get("id"), Some("\"p-2\""));
    assert_eq!(
        after.pick(["id"]).map(|column| column.id().map(Cow::into_owned)),
        [Ok("p-2".to_owned())]
    );
}

#[test]
fn a_row_that_was_given_another_key_is_marked() {
    let headers = [Header {
        name: "__debezium.oldkey",
        value: Some(br#"{"id":"p-3"}"#),
    }];
    assert!(as_change(Decoder::default().decode(&with_headers(BARE, &headers))).rekeyed);
    let headers = [Header {
        name: "__debezium.newkey",
        value: Some(br#"{"id":"p-3"}"#),
    }];
    assert!(!as_change(Decoder::default().decode(&with_headers(BARE, &headers))).rekeyed);
}

#[test]
fn a_null_value_and_an_empty_one_are_tombstones() {
    assert_eq!(control(TOPIC, None), Some(Control::Tombstone));
    assert_eq!(control(TOPIC, Some("")), Some(Control::Tombstone));
    assert_eq!(control(TOPIC, Some(&wrap("null", 1))), Some(Control::Tombstone));
}

#[test]
fn records_that_the_connector_writes_for_itself_are_control_records() {
    let begin =
        r#"{"status":"BEGIN","id":"764:26505792","event_count":null,"data_collections":null,"ts_ms":1795203742449}"#;
    let message = r#"{"op":"m","ts_ms":1795203742449,"source":{"schema":"","table":"","txId":1,"lsn":1},"message":{"prefix":"fixture","content":"AA=="}}"#;
    let signal = BARE.replace(r#""table":"purchase_ledger""#, r#""table":"dbz_signal""#);
    let beat = BARE.replace(r#""table":"purchase_ledger""#, r#""table":"dbz_heartbeat""#);
    for (topic, value, expected) in [
        (
            "__debezium-heartbeat.crm",
            r#"{"ts_ms":1795203742449}"#,
            Control::Heartbeat,
        ),
        ("crm.heartbeats", r#"{"ts_ms":1795203742449}"#, Control::Heartbeat),
        ("crm.public.dbz_heartbeat", &*beat, Control::Heartbeat),
        ("crm.transaction", begin, Control::Transaction),
        (
            "crm.transaction",
            r#"{"status":"END","id":"764:26505792","event_count":2}"#,
            Control::Transaction,
        ),
        ("crm.message", message, Control::Message),
        ("crm.public.dbz_signal", &*signal, Control::Signal),
    ] {
        assert_eq!(control(topic, Some(value)), Some(expected), "{topic} {value}");
        assert_eq!(
            control(topic, Some(&wrap(value, 1))),
            Some(expected),
            "{topic} {value}, with a schema"
        );
    }
}

#[test]
fn an_envelope_with_its_schema_means_the_same_as_a_bare_one() {
    let wrapped = wrap(BARE, 1);
    let reversed = format!(r#"{{ "payload" : {BARE} , "schema":null }}"#);
    let escaped = wrapped.replacen("\"schema\"", "\"sch\\u0065ma\"", 1);
    for value in [&wrapped, &reversed, &escaped] {
        assert_eq!(format!("{:?}", change(value)), format!("{:?}", change(BARE)));
    }
}

#[test]
fn a_schema_that_changes_in_the_middle_of_the_stream_changes_nothing() {
    let mut decoder = Decoder::default();
    for version in [1, 1, 2, 2, 1, 2] {
        for payload in [BARE.to_owned(), BARE.replace("p-1", "p-2")] {
            let value = wrap(&payload, version);
            let cached = as_change(decoder.decode(&record(TOPIC, value.as_bytes())));
            assert_eq!(format!("{cached:?}"), format!("{:?}", change(&payload)));
        }
    }
    // Bare ones in between, and a third key behind a payload whose prefix is known.
    assert!(decoder.decode(&record(TOPIC, BARE.as_bytes())).is_ok());
    let third = wrap(&format!("{BARE},\"more\":1"), 2);
    let error = decoder
        .decode(&record(TOPIC, third.as_bytes()))
        .expect_err("three keys are no pair");
    assert_eq!(error.reason(), "flattened");
}

#[test]
fn what_is_kept_of_schemas_has_a_limit() {
    let mut decoder = Decoder::default();
    let long = format!(r#"{{"schema":"{}","payload":{BARE}}}"#, "x".repeat(200_000));
    assert!(decoder.decode(&record(TOPIC, long.as_bytes())).is_ok());
    assert_eq!(decoder.prefixes.len(), 0);
    let value = wrap(BARE, 1);
    for topic in 0..100 {
        let topic = format!("crm.public.t{topic}");
        assert!(decoder.decode(&record(&topic, value.as_bytes())).is_ok());
    }
    assert_eq!(decoder.prefixes.len(), 64);
}

#[test]
fn a_table_may_have_columns_called_like_the_envelope() {
    let value = r#"{"schema":"s","payload":"p","source":"web","op":"x","id":"1","__op":"c","__lsn":5,"__source_ts_ms":1767323045123}"#;
    let change = change(value);
    assert_eq!((change.op, change.lsn), (Op::Create, Some(5)));
    assert_eq!(change.after.expect("a row").get("source"), Some("\"web\""));
}

#[test]
fn a_flattened_record_that_kept_its_metadata_is_a_change() {
    let row = r#"{"id":"p-11","status":"completed","__op":"u","__table":"purchase_ledger","__lsn":26505568,"__source_ts_ms":1795203742335,"__source_snapshot":null,"__deleted":"false"}"#;
    let change = change(row);
    assert_eq!(
        (change.op, &*change.table, change.lsn, change.commit_ms),
        (Op::Update, "purchase_ledger", Some(26_505_568), 1_795_203_742_335)
    );
    assert!(change.before.is_none());
    assert_eq!(change.after.expect("a row").get("status"), Some("\"completed\""));
}

#[test]
fn a_rewritten_delete_is_a_delete_without_an_image() {
    for row in [
        r#"{"id":"p-11","status":null,"__op":"d","__lsn":26505792,"__source_ts_ms":1795203742335,"__deleted":"true"}"#,
        r#"{"id":"p-11","status":null,"__op":"u","__ts_ms":1795203742335,"__deleted":true}"#,
    ] {
        let change = change(row);
        assert_eq!(change.op, Op::Delete);
        assert!(change.before.is_none() && change.after.is_none());
    }
}
