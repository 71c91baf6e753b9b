//! Records as a connector writes them, cut down from measured ones, and the ways they go wrong.

mod columns;
mod decoding;
mod properties;
mod recorded;
mod refusing;

use super::{Change, DecodeError, Decoded, Decoder};
use crate::record::{Header, Headers, RecordView};

pub(super) const TOPIC: &str = "crm.public.purchase_ledger";

/// One record of the purchase ledger, as Debezium 3.6 writes it with `schemas.enable=false`.
pub(super) const BARE: &str = r#"{"before":null,"after":{"id":"p-1","user_id":"u-1","merchant_id":"m-1","final_amount":"100.00","refunded_amount":"0.00","status":"completed","earn_currency":true,"created_at":"2026-01-02T03:04:05.123456Z","completed_at":null,"metadata":"{\"rate\": 1.10}"},"source":{"version":"3.6.3.Final","connector":"postgresql","name":"crm","ts_ms":1795203709806,"snapshot":null,"db":"crm","sequence":"[null,\"26459320\"]","ts_us":1795203709806851,"ts_ns":1795203709806851000,"schema":"public","table":"purchase_ledger","txId":734,"lsn":26459320,"xmin":null,"origin":null,"origin_lsn":null},"transaction":null,"op":"c","ts_ms":1795203710605,"ts_us":1795203710605420,"ts_ns":1795203710605420607}"#;

pub(super) fn record<'a>(topic: &'a str, value: &'a [u8]) -> RecordView<'a> {
    RecordView {
        topic,
        partition: 0,
        offset: 7,
        timestamp_ms: None,
        key: None,
        value: Some(value),
        headers: Headers::default(),
    }
}

pub(super) fn with_headers<'a>(value: &'a str, headers: &'a [Header<'a>]) -> RecordView<'a> {
    RecordView {
        headers: Headers(headers),
        ..record(TOPIC, value.as_bytes())
    }
}

pub(super) fn decode(value: &str) -> Result<Decoded<'_>, DecodeError> {
    Decoder::default().decode(&record(TOPIC, value.as_bytes()))
}

pub(super) fn change(value: &str) -> Change<'_> {
    as_change(decode(value))
}

pub(super) fn as_change<'a>(decoded: Result<Decoded<'a>, DecodeError>) -> Change<'a> {
    match decoded.expect("decodable") {
        Decoded::Change(change) => change,
        Decoded::Control(control) => panic!("a change, not {control:?}"),
    }
}

pub(super) fn refusal(value: &str) -> DecodeError {
    decode(value).expect_err("refused")
}

/// `{schema,payload}` around a payload, with a schema that `version` makes another one.
pub(super) fn wrap(payload: &str, version: u32) -> String {
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{{"type":"string","optional":true,"field":"payload"}}],"name":"crm.public.purchase_ledger.Envelope","version":{version}}},"payload":{payload}}}"#
    )
}
