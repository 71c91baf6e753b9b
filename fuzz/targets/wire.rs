//! Bytes on any topic, behind any header: what they are, or why they are nothing. Inputs: topic, header name, header value,
//! value.

use crm_event_processors::debezium::{Change, Decoded, Decoder, plausible_ms};
use crm_event_processors::record::{Header, Headers, RecordView};
use crm_event_processors::traceparent::TraceParent;

use super::{assert_inert, assert_word, parts};

/// Of `{schema,payload}`: once a decoder has seen it, it knows the topic's prefix and takes the short way.
const WRAPPED: &[u8] = br#"{"schema":{"type":"struct"},"payload":{"op":"c","before":null,"after":{"id":"p-1"},"source":{"table":"purchase_ledger","lsn":42,"ts_ms":1795168800000},"ts_ms":1795168800000}}"#;

pub(super) fn run(data: &[u8]) {
    let [topic, name, header, value] = parts(data);
    let (topic, name) = (String::from_utf8_lossy(topic), String::from_utf8_lossy(name));
    let headers = [Header {
        name: &name,
        value: (!header.is_empty()).then_some(header),
    }];
    let record = RecordView {
        topic: &topic,
        partition: 0,
        offset: 1,
        timestamp_ms: None,
        key: None,
        value: Some(value),
        headers: if name.is_empty() {
            Headers::default()
        } else {
            Headers(&headers)
        },
    };
    check(&record);
    // Whatever passes for a trace is written again as it was.
    if let Some(context) = TraceParent::parse(header) {
        assert_eq!(context.to_string().as_bytes(), header);
    }
}

/// Decodes the record; whatever the decoder has seen before, it says the same.
fn check(record: &RecordView<'_>) {
    let decoded = Decoder::default().decode(record);
    let mut primed = Decoder::default();
    let primer = RecordView {
        value: Some(WRAPPED),
        headers: Headers::default(),
        ..*record
    };
    // On some topics even this is a control record.
    let _known_from_now_on = primed.decode(&primer);
    let again = primed.decode(record);
    assert_eq!(format!("{again:?}"), format!("{decoded:?}"));
    match &decoded {
        Ok(Decoded::Change(change)) => is_sound(change),
        Ok(Decoded::Control(_)) => {}
        Err(error) => {
            assert_inert(&error.to_string());
            assert_word(error.reason());
        }
    }
}

/// What a decoded change always is.
pub(super) fn is_sound(change: &Change<'_>) {
    assert!(!change.table.is_empty());
    assert!(change.lsn.is_none_or(|lsn| lsn > 0), "{:?}", change.lsn);
    assert!(plausible_ms(change.commit_ms), "{}", change.commit_ms);
    assert!(change.source_ts_ms.is_none_or(|ms| ms == change.commit_ms));
    for columns in [&change.before, &change.after].into_iter().flatten() {
        assert_eq!(columns.is_empty(), columns.names().next().is_none());
    }
}
