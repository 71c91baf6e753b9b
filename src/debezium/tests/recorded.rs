//! Records as the real connector wrote them (`tests/fixtures/debezium`, with their provenance): what each one becomes.
//! Nothing that a new recording changes is asserted: no LSN, no time of the recording, no order between keys.

use serde_json::Value;

use super::super::{Cell, Change, Columns, DecimalMode, Decoded, Decoder, Op};
use crate::record::{Header, Headers, RecordView};
use crate::rows::{ChangeVersion, Routed, Row, route};

macro_rules! recorded {
    ($file:literal) => {
        include_str!(concat!("../../../tests/fixtures/debezium/3.6.3.Final/", $file))
    };
}

/// Hands each record of a file to one decoder, key by key, and gives a line for each.
fn lines(file: &str, describe: impl Fn(&Change<'_>) -> String) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut records: Vec<Value> = file
        .lines()
        .map(|line| serde_json::from_str(line).expect("a record as kcat prints it"))
        .collect();
    records.sort_by(|a, b| a["key"].as_str().cmp(&b["key"].as_str()));
    records
        .iter()
        .map(|record| {
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            let headers: Vec<String> = record["headers"].as_array().into_iter().flatten().map(text).collect();
            let headers: Vec<Header<'_>> = headers
                .chunks_exact(2)
                .filter_map(|pair| {
                    Some(Header {
                        name: pair.first()?,
                        value: Some(pair.last()?.as_bytes()),
                    })
                })
                .collect();
            let view = RecordView {
                topic: record["topic"].as_str().expect("a topic"),
                partition: 0,
                offset: record["offset"].as_i64().expect("an offset"),
                timestamp_ms: record["ts"].as_i64(),
                key: record["key"].as_str().map(str::as_bytes),
                value: record["payload"].as_str().map(str::as_bytes),
                headers: Headers(&headers),
            };
            match decoder.decode(&view) {
                Ok(Decoded::Change(change)) => describe(&change),
                Ok(Decoded::Control(control)) => format!("{control:?}"),
                Err(error) => format!("refused: {}", error.reason()),
            }
        })
        .collect()
}

fn routed(change: &Change<'_>, mode: DecimalMode) -> String {
    let op = change.op;
    let topic = format!("crm.public.{}", change.table);
    match route(&topic, change, mode) {
        Err(error) => format!("{op:?} refused: {}", error.reason()),
        Ok(Routed::Unread { table }) => format!("{op:?} unread {table}"),
        Ok(Routed::Row(change)) => {
            let by_time = matches!(change.version, ChangeVersion::Snapshot(ms) if ms == change.commit_ms);
            assert_eq!(by_time, op == Op::Read, "{change:?}");
            let before = change
                .before
                .as_ref()
                .map_or_else(String::new, |before| format!(", was {}", row(before)));
            format!("{op:?} {}{before}", row(&change.row))
        }
    }
}

fn row(row: &Row) -> String {
    match row {
        Row::Purchase(row) => {
            let completed = if row.completed_at.is_some() { " at" } else { "" };
            format!(
                "{} {:?}{completed} {}-{}",
                row.id, row.status, row.final_amount, row.refunded_amount
            )
        }
        Row::WalletEntry(row) => format!("{} {:?} {} {:?}", row.id, row.kind, row.amount, row.source_id),
        Row::FormSubmission(row) => format!("{} {} {}", row.id, row.form_id, row.submitted_at),
        Row::MissionClaim(row) => {
            let period = row.period.as_deref().unwrap_or("-");
            let at = row.claimed_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
            format!("{} {:?} {} {period} {at}", row.id, row.status, row.mission_id)
        }
        Row::Referral(row) => {
            let (referrer, referee) = (&row.referrer_user_id, &row.referee_user_id);
            format!("{} {:?} {referrer} {referee} {}", row.id, row.status, row.created_at)
        }
        Row::Code(row) => {
            let user = row.user_id.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            let at = row.redeemed_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
            format!("{} {:?} {user} {at}", row.id, row.status)
        }
    }
}

fn as_text(change: &Change<'_>) -> String {
    routed(change, DecimalMode::Text)
}

#[test]
fn a_ledger_with_full_identity_is_read_with_its_history() {
    assert_eq!(
        lines(recorded!("purchase_stream.jsonl"), as_text),
        [
            "Create p-1 Pending 100.00-0.00",
            "Update p-1 Completed at 100.00-0.00, was p-1 Pending 100.00-0.00",
            "Update p-1 PartiallyRefunded at 100.00-40.10, was p-1 Completed at 100.00-0.00",
            "Update p-1 Refunded at 100.00-100.00, was p-1 PartiallyRefunded at 100.00-40.10",
            "Create p-2 Completed at 6.00-0",
            "Delete refused: ledger_rewritten",
            "Tombstone",
            "Create p-3 Completed at -5.00-0.00",
            "Delete refused: ledger_rewritten",
            "Tombstone",
            // The same row under its new key.
            "Create refused: ledger_rewritten",
        ]
    );
}

#[test]
fn a_snapshot_is_versioned_by_its_time() {
    assert_eq!(
        lines(recorded!("snapshot.jsonl"), as_text),
        [
            "Read f-old form-1 2026-01-02T03:04:05Z",
            "Read p-old-1 Completed at 100.00-0.00",
            "Read p-old-2 Pending 20.50-0",
            "Read w-old Earn 100 Some(\"p-old-1\")",
        ]
    );
}

#[test]
fn the_other_ledgers_are_read() {
    assert_eq!(
        lines(recorded!("other_ledgers.jsonl"), as_text),
        [
            "Create f-1 form-1 2026-01-02T03:04:05.123Z",
            "Create w-1 Earn 9007199254740993 Some(\"p-1\")",
            "Create w-2 Clawback -250 None",
        ]
    );
}

#[test]
fn claims_referrals_and_codes_are_read_with_their_history() {
    assert_eq!(
        lines(recorded!("grants.jsonl"), as_text),
        [
            "Create c-1 Claimed mission-1 2026-01 2026-01-02T03:04:05.123456Z",
            "Update c-1 Revoked mission-1 2026-01 2026-01-02T03:04:05.123456Z, \
             was c-1 Claimed mission-1 2026-01 2026-01-02T03:04:05.123456Z",
            "Create c-2 Claimed mission-1 - -",
            "Create k-1 Issued - -",
            "Update k-1 Redeemed u-1 2026-01-02T03:04:05.5Z, was k-1 Issued - -",
            "Delete refused: ledger_rewritten",
            "Tombstone",
            "Create r-1 Pending u-1 u-2 2026-01-02T03:04:05Z",
            "Update r-1 Qualified u-1 u-2 2026-01-02T03:04:05Z, was r-1 Pending u-1 u-2 2026-01-02T03:04:05Z",
            "Update r-1 Cancelled u-1 u-2 2026-01-02T03:04:05Z, was r-1 Qualified u-1 u-2 2026-01-02T03:04:05Z",
        ]
    );
}

#[test]
fn a_ledger_with_default_identity_has_no_history() {
    assert_eq!(
        lines(recorded!("identity_default.jsonl"), as_text),
        [
            "Create p-4 Pending 100.00-0.00",
            "Update p-4 Completed 100.00-0.00",
            "Delete refused: ledger_rewritten",
            "Tombstone",
        ]
    );
}

#[test]
fn the_schema_in_front_of_a_payload_makes_no_difference() {
    assert_eq!(
        lines(recorded!("schema_payload.jsonl"), as_text),
        [
            "Create p-6 Pending 100.00-0.00",
            "Update p-6 Completed 100.00-0.00, was p-6 Pending 100.00-0.00",
            "Delete refused: ledger_rewritten",
            "Tombstone",
        ]
    );
}

#[test]
fn precise_decimals_are_read_with_the_configured_scale_and_refused_without() {
    let precise = |change: &Change<'_>| routed(change, DecimalMode::Precise { scale: 2 });
    let bare = recorded!("decimal_precise.jsonl");
    assert_eq!(
        lines(bare, precise),
        [
            "Create p-7 Completed at 123.45-0.00",
            "Create p-8 Completed at -5.00-1.50"
        ]
    );
    assert_eq!(lines(bare, as_text), ["Create refused: wrong_decimal_mode"; 2]);
    let wrapped = recorded!("decimal_precise_schema.jsonl");
    assert_eq!(lines(wrapped, precise), ["Create p-9 Completed at 123.45-0.00"]);
}

#[test]
fn a_null_that_arrives_as_the_default_is_read_as_the_default() {
    assert_eq!(
        lines(recorded!("replaced_nulls.jsonl"), as_text),
        ["Create p-5 Completed at 100.00-0.00"]
    );
}

#[test]
fn flattened_records_need_their_metadata() {
    assert_eq!(
        lines(recorded!("flattened.jsonl"), as_text),
        [
            "refused: flattened",
            "Create p-11 Completed at 100.00-0.00",
            "Delete refused: ledger_rewritten",
            "Tombstone",
        ]
    );
}

#[test]
fn what_the_connector_writes_for_itself_is_no_change() {
    let seen = lines(recorded!("control.jsonl"), as_text);
    let count = |line: &str| seen.iter().filter(|seen| *seen == line).count();
    assert_eq!((count("Transaction"), count("Message"), count("Heartbeat")), (4, 1, 1));
    assert!(count("Signal") >= 3);
    assert_eq!(count("Truncate refused: ledger_rewritten"), 1);
    assert_eq!(
        seen.iter().filter(|line| line.starts_with("Read w-")).count(),
        3,
        "an incremental snapshot"
    );
    assert_eq!(
        seen.iter().filter(|line| line.contains("refused")).count(),
        1,
        "only the truncate: {seen:?}"
    );
}

#[test]
fn every_type_is_a_cell_and_a_large_column_that_did_not_change_is_unknown_in_every_shape() {
    let cell =
        |columns: &Columns<'_>, name: &str| columns.get(name).and_then(Cell::read).map(|cell| format!("{cell:?}"));
    let describe = |change: &Change<'_>| {
        let after = change.after.as_ref().expect("a row");
        let unknown: Vec<&str> = after
            .names()
            .filter(|name| cell(after, name).as_deref() == Some("Unchanged"))
            .collect();
        let free = after.column("free").optional(|free| free.decimal(DecimalMode::Text));
        let times = ["at_tz", "at_us", "at_ms", "on_day"].map(|name| {
            after.column(name).optional(|time| time.timestamp()).map_or_else(
                |error| error.reason().to_owned(),
                |time| time.map_or_else(|| "-".to_owned(), |time| time.to_string()),
            )
        });
        format!(
            "{unknown:?} {:?} {}",
            free.map_err(|error| error.reason()),
            times.join(" ")
        )
    };
    assert_eq!(
        lines(recorded!("types.jsonl"), describe),
        [
            "[] Ok(Some(-0.001)) 2026-01-01T20:04:05.123456Z 2026-01-02T03:04:05.123456Z 2026-01-02T03:04:05.123Z implausible_time",
            "[] Err(\"not_finite\") infinite_time implausible_time - implausible_time",
            "[] Ok(None) - - - -",
            "[\"doc\", \"tags\", \"numbers\", \"blob\"] Ok(None) - - - -",
        ]
    );
}
