//! The bytes of an event.

use super::*;
use crate::consumers::Consumer;
use crate::consumers::fixtures::{COMMIT_MS, created, decided, delivered, purchase};

#[test]
fn a_commit_time_in_the_future_is_clamped_to_now_but_stays_in_the_data() {
    let event = delivered(decided(Consumer::Currency, &created(purchase("m-instant")))).event;
    let written = |now_ms| {
        let mut out = b"[".to_vec();
        event.write_json(now_ms, &mut out);
        String::from_utf8(out).expect("text")
    };
    assert!(written(COMMIT_MS - 1).starts_with('['), "appended");
    assert!(written(COMMIT_MS - 1).contains(&format!(r#""ts":{},"#, COMMIT_MS - 1)));
    assert!(written(COMMIT_MS + 1).contains(&format!(r#""ts":{COMMIT_MS},"#)));
    assert!(written(COMMIT_MS - 1).contains(&format!(r#""as_of_ms":{COMMIT_MS},"#)));
    assert_eq!(
        written(COMMIT_MS + 1),
        written(i64::MAX),
        "the same text for every re-send"
    );
}

#[test]
fn ids_that_hold_quotes_stay_json() {
    let mut row = purchase("m-instant");
    row.id = RowId::new("p\"\\\u{1}:é").expect("not empty");
    let effect = delivered(decided(Consumer::Currency, &created(row)));
    let mut out = Vec::new();
    effect.event.write_json(i64::MAX, &mut out);
    let read: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(read["data"]["purchase_id"], "p\"\\\u{1}:é");
    assert_eq!(read["id"], effect.claim.as_str());
}
