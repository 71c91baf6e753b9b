//! A program file: every problem in words that are fit to be shown, or rules that decide without a panic and to the point.

use std::sync::Arc;

use crm_event_processors::debezium::{DecimalMode, Decoded, Decoder};
use crm_event_processors::loyalty::{ProgramErrors, Programs};
use crm_event_processors::record::{Headers, RecordView};
use crm_event_processors::rows::{Routed, route};

use super::assert_inert;
use super::decide::by_everybody;

const TOPIC: &str = "crm.public.purchase_ledger";
/// More problems than these are not looked at one by one.
const MANY: usize = 50;

pub(super) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = Programs::from_json(&text);
    match &read {
        Ok(programs) => judges(&Arc::new(programs.clone())),
        Err(errors) => are_shown(errors),
    }
    let mut one = Programs::default();
    if let Err(errors) = one.put_json("m-1", &text) {
        are_shown(&errors);
        assert_eq!(one.merchants(), 0);
    }
    // The same text means the same.
    let again = Programs::from_json(&text);
    assert_eq!(
        read.map(|programs| programs.merchants()),
        again.map(|programs| programs.merchants())
    );
}

fn are_shown(errors: &ProgramErrors) {
    assert!(!errors.problems.is_empty(), "refused without a word");
    for problem in errors.problems.iter().take(MANY) {
        assert_inert(&problem.to_string());
    }
    let lines = errors.to_string().lines().count();
    assert_eq!(lines, errors.problems.len(), "a problem is a line");
}

/// Rows of several sizes and times, for the merchant that a file most often names and for one that it leaves to the default.
fn judges(programs: &Arc<Programs>) {
    for (merchant, amount, refunded, at) in [
        ("m-1", "100.00", "0", "2026-11-20T10:00:00Z"),
        ("*", "9999999999999999999999999999", "0.01", "2099-12-31T23:59:59Z"),
        ("nobody", "0.0000000000000000000000000001", "0", "1980-01-01T00:00:00Z"),
        ("m-1", "12345.678", "45.6789", "2026-02-28T23:30:00Z"),
    ] {
        let value = format!(
            r#"{{"op":"u","before":null,"after":{{"id":"p","user_id":"u","merchant_id":"{merchant}","final_amount":"{amount}",
            "refunded_amount":"{refunded}","status":"completed","earn_currency":true,"created_at":"{at}"}},
            "source":{{"lsn":42}},"ts_ms":1795168800000}}"#
        );
        let record = RecordView {
            topic: TOPIC,
            partition: 0,
            offset: 1,
            timestamp_ms: None,
            key: None,
            value: Some(value.as_bytes()),
            headers: Headers::default(),
        };
        let mut decoder = Decoder::default();
        let Ok(Decoded::Change(change)) = decoder.decode(&record) else {
            panic!("a change");
        };
        let Ok(Routed::Row(change)) = route(TOPIC, &change, DecimalMode::Text) else {
            panic!("a row");
        };
        by_everybody(&change, programs);
    }
}
