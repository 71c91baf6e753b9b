use super::{
    ChangeVersion, ClaimStatus, CodeStatus, Purchase, PurchaseStatus, ReferralStatus, RouteError, Routed, Row,
    RowChange, WalletEntryKind, route,
};
use crate::debezium::{Change, DecimalMode, Decoded, Decoder, Op};
use crate::record::{Header, Headers, RecordView};

const TOPIC: &str = "crm.public.purchase_ledger";

const PURCHASE: &str = r#"{"id":"p-1","user_id":"u-1","merchant_id":"m-1","final_amount":"100.00","refunded_amount":"40.10","status":"partially_refunded","earn_currency":true,"created_at":"2026-01-02T03:04:05.123456Z","completed_at":"2026-01-02T03:10:00.000000Z"}"#;
const WALLET: &str = r#"{"id":"w-1","user_id":"u-1","merchant_id":"m-1","amount":-250,"kind":"clawback","source_type":"purchase","source_id":"p-1","created_at":"2026-01-02T03:04:05.5Z"}"#;
const FORM: &str =
    r#"{"id":7,"form_id":"form-1","user_id":"u-1","merchant_id":"m-1","submitted_at":1767323045123456,"answers":"{}"}"#;
const CLAIM: &str = r#"{"id":"k-1","user_id":"u-1","merchant_id":"m-1","mission_id":"spend","status":"claimed","period":"2026-01","claimed_at":1767323045123456}"#;
const REFERRAL: &str = r#"{"id":"f-1","referrer_user_id":"u-1","referee_user_id":"u-2","merchant_id":"m-1","status":"pending","created_at":"2026-01-02T03:04:05Z"}"#;
const CODE: &str =
    r#"{"id":"c-1","code":"SECRET","merchant_id":"m-1","status":"redeemed","user_id":null,"redeemed_at":null}"#;
const LSN: &str = r#""lsn":26459320,"ts_ms":1795203709806"#;

fn envelope(op: &str, table: &str, source: &str, before: &str, after: &str) -> String {
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"table":"{table}",{source}}},"op":"{op}","ts_ms":1795203710605}}"#
    )
}

fn with_change<T>(value: &str, headers: &[Header<'_>], then: impl FnOnce(&Change<'_>) -> T) -> T {
    let record = RecordView {
        topic: TOPIC,
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: None,
        value: Some(value.as_bytes()),
        headers: Headers(headers),
    };
    match Decoder::default().decode(&record).expect("decodable") {
        Decoded::Change(change) => then(&change),
        Decoded::Control(control) => panic!("a change, not {control:?}"),
    }
}

fn routed(value: &str) -> Result<Routed, RouteError> {
    with_change(value, &[], |change| route(TOPIC, change, DecimalMode::Text))
}

fn row_change(value: &str) -> RowChange {
    match routed(value).expect("a row") {
        Routed::Row(change) => change,
        Routed::Unread { table } => panic!("{table} is read"),
    }
}

fn purchase(value: &str) -> Purchase {
    match row_change(value).row {
        Row::Purchase(purchase) => purchase,
        other => panic!("a purchase, not {other:?}"),
    }
}

fn created(after: &str) -> String {
    envelope("c", "purchase_ledger", LSN, "null", after)
}

#[test]
fn a_purchase_is_read_whole_and_exactly() {
    let change = row_change(&created(PURCHASE));
    assert_eq!(
        (change.op, change.version, change.commit_ms),
        (Op::Create, ChangeVersion::Lsn(26_459_320), 1_795_203_709_806)
    );
    assert_eq!(change.before, None);
    let row = purchase(&created(PURCHASE));
    assert_eq!(
        (row.id.as_str(), row.user_id.as_str(), row.merchant_id.as_str()),
        ("p-1", "u-1", "m-1")
    );
    assert_eq!(
        (row.final_amount.to_string(), row.refunded_amount.to_string()),
        ("100.00".to_owned(), "40.10".to_owned())
    );
    assert_eq!(
        (row.status, row.earn_currency),
        (PurchaseStatus::PartiallyRefunded, true)
    );
    assert_eq!(row.created_at.to_string(), "2026-01-02T03:04:05.123456Z");
    assert_eq!(
        row.completed_at.map(|time| time.to_string()).as_deref(),
        Some("2026-01-02T03:10:00Z")
    );
}

#[test]
fn optional_columns_default_when_absent_or_null() {
    for after in [
        r#"{"id":"p-1","user_id":"u-1","merchant_id":"m-1","final_amount":100.00,"status":"completed","earn_currency":true,"created_at":"2026-01-02T03:04:05Z"}"#.to_owned(),
        PURCHASE.replace("\"40.10\"", "null").replace("\"2026-01-02T03:10:00.000000Z\"", "null"),
    ] {
        let row = purchase(&created(&after));
        assert!(row.refunded_amount.is_zero());
        assert_eq!((row.completed_at, row.final_amount.to_string()), (None, "100.00".to_owned()));
    }
}

#[test]
fn refunds_beyond_the_amount_and_negative_amounts_are_kept_for_the_rules_to_clamp() {
    assert_eq!(
        purchase(&created(&PURCHASE.replace("40.10", "400.1")))
            .refunded_amount
            .to_string(),
        "400.1"
    );
    assert_eq!(
        purchase(&created(&PURCHASE.replace("40.10", "-3")))
            .refunded_amount
            .to_string(),
        "-3"
    );
    assert_eq!(
        purchase(&created(&PURCHASE.replace("100.00", "-5.00")))
            .final_amount
            .to_string(),
        "-5.00"
    );
}

#[test]
fn wallet_entries_and_form_submissions_are_read() {
    match row_change(&envelope("c", "wallet_ledger", LSN, "null", WALLET)).row {
        Row::WalletEntry(row) => {
            assert_eq!(
                (row.amount, row.kind, row.source_id.as_deref()),
                (-250, WalletEntryKind::Clawback, Some("p-1"))
            );
        }
        other => panic!("a wallet entry, not {other:?}"),
    }
    match row_change(&envelope("c", "form_submissions", LSN, "null", FORM)).row {
        Row::FormSubmission(row) => {
            assert_eq!((row.id.as_str(), row.form_id.as_str()), ("7", "form-1"));
            assert_eq!(row.submitted_at.to_string(), "2026-01-02T03:04:05.123456Z");
        }
        other => panic!("a form submission, not {other:?}"),
    }
}

#[test]
fn claims_referrals_and_codes_are_read_and_what_may_be_absent_is() {
    let row = |table: &str, after: &str| row_change(&envelope("c", table, LSN, "null", after)).row;
    let claim = CLAIM.replace(r#","period":"2026-01","claimed_at":1767323045123456"#, "");
    for (after, period, claimed_at) in [
        (CLAIM, Some("2026-01"), Some("2026-01-02T03:04:05.123456Z")),
        (&claim, None, None),
    ] {
        match row("mission_claims", after) {
            Row::MissionClaim(row) => {
                let ids = [row.id.as_str(), row.user_id.as_str(), row.mission_id.as_str()];
                assert_eq!((ids, row.status), (["k-1", "u-1", "spend"], ClaimStatus::Claimed));
                let time = row.claimed_at.map(|time| time.to_string());
                assert_eq!((row.period.as_deref(), time.as_deref()), (period, claimed_at));
            }
            other => panic!("a claim, not {other:?}"),
        }
    }
    match row("referral_ledger", REFERRAL) {
        Row::Referral(row) => {
            let ids = [
                row.id.as_str(),
                row.referrer_user_id.as_str(),
                row.referee_user_id.as_str(),
            ];
            assert_eq!((ids, row.status), (["f-1", "u-1", "u-2"], ReferralStatus::Pending));
        }
        other => panic!("a referral, not {other:?}"),
    }
    match row("codes", CODE) {
        Row::Code(row) => {
            assert_eq!((row.id.as_str(), row.status), ("c-1", CodeStatus::Redeemed));
            assert_eq!((row.user_id, row.redeemed_at), (None, None));
        }
        other => panic!("a code, not {other:?}"),
    }
}

/// A code is worth money to whoever reads it.
#[test]
fn the_code_itself_must_be_there_and_is_never_kept() {
    let read = row_change(&envelope("u", "codes", LSN, CODE, CODE));
    assert!(read.before.is_some());
    assert!(!format!("{read:?}").contains("SECRET"), "{read:?}");
    let error = routed(&envelope(
        "c",
        "codes",
        LSN,
        "null",
        &CODE.replace("\"SECRET\"", "null"),
    ))
    .expect_err("missing");
    assert_eq!(error.reason(), "missing_columns");
    for (from, to) in [("redeemed", "used"), ("\"m-1\"", "\"\"")] {
        let error = routed(&envelope("c", "codes", LSN, "null", &CODE.replace(from, to))).expect_err("wrong");
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
}

#[test]
fn every_status_and_kind_of_the_contract_is_known_and_others_are_named() {
    for status in ["pending", "completed", "partially_refunded", "refunded", "cancelled"] {
        let row = purchase(&created(&PURCHASE.replace("partially_refunded", status)));
        assert_eq!(serde_json::to_value(row.status).expect("a word"), status);
    }
    for kind in ["earn", "spend", "expire", "adjust", "clawback"] {
        assert!(
            routed(&envelope(
                "c",
                "wallet_ledger",
                LSN,
                "null",
                &WALLET.replace("clawback", kind)
            ))
            .is_ok()
        );
    }
    for (table, row, own, known) in [
        ("mission_claims", CLAIM, "claimed", &["claimed", "revoked"][..]),
        (
            "referral_ledger",
            REFERRAL,
            "pending",
            &["pending", "qualified", "cancelled"],
        ),
        ("codes", CODE, "redeemed", &["issued", "redeemed", "expired", "void"]),
    ] {
        let with = |word: &str| {
            let after = row.replace(&format!(r#""status":"{own}""#), &format!(r#""status":"{word}""#));
            routed(&envelope("c", table, LSN, "null", &after)).map_err(|error| error.reason())
        };
        assert!(known.iter().all(|word| with(word).is_ok()), "{table}");
        assert_eq!(with("unheard-of").err(), Some("unknown_value"), "{table}");
    }
    let error = routed(&created(&PURCHASE.replace("partially_refunded", "Completed\\n"))).expect_err("unknown");
    assert_eq!((error.reason(), error.is_policy()), ("unknown_value", false));
    assert_eq!(
        error.to_string(),
        r#"purchase_ledger: column status has the unknown value "Completed\n": correct the row, or run a worker that knows the word"#
    );
    let error = routed(&created(&PURCHASE.replace("partially_refunded", &"x".repeat(9_000)))).expect_err("unknown");
    assert!(error.to_string().len() < 200);
}

#[test]
fn missing_columns_are_reported_together() {
    let error = routed(&created(r#"{"id":"p-1","user_id":null,"status":"x"}"#)).expect_err("missing");
    assert_eq!(error.reason(), "missing_columns");
    assert_eq!(
        error.to_string(),
        "purchase_ledger: required columns are missing or null: user_id, merchant_id, final_amount, earn_currency, created_at: fill the row, or send the columns (connector and publication)"
    );
}

#[test]
fn a_column_that_was_not_sent_is_never_taken_for_a_value() {
    for column in [
        "\"u-1\"",
        "\"40.10\"",
        "\"partially_refunded\"",
        "\"2026-01-02T03:10:00.000000Z\"",
    ] {
        let after = PURCHASE.replace(column, "\"__debezium_unavailable_value\"");
        let error = routed(&created(&after)).expect_err("unknown");
        assert_eq!(error.reason(), "unchanged_column", "{column}");
    }
}

#[test]
fn the_wrong_decimal_mode_has_a_reason_of_its_own() {
    let error = routed(&created(&PURCHASE.replace("100.00", "MDk="))).expect_err("base64");
    assert_eq!(error.reason(), "wrong_decimal_mode");
    let value = created(&PURCHASE.replace("100.00", "MDk=").replace("40.10", "AA=="));
    let precise = DecimalMode::Precise { scale: 2 };
    assert!(with_change(&value, &[], |change| route(TOPIC, change, precise)).is_ok());
}

#[test]
fn a_rewritten_ledger_is_refused_by_policy() {
    let oldkey = [Header {
        name: "__debezium.oldkey",
        value: Some(b"{}"),
    }];
    for (table, row) in [
        ("purchase_ledger", PURCHASE),
        ("wallet_ledger", WALLET),
        ("form_submissions", FORM),
        ("mission_claims", CLAIM),
        ("referral_ledger", REFERRAL),
        ("codes", CODE),
    ] {
        for (op, headers) in [("d", &[][..]), ("t", &[][..]), ("c", &oldkey[..])] {
            let value = envelope(op, table, LSN, row, row);
            let error =
                with_change(&value, headers, |change| route(TOPIC, change, DecimalMode::Text)).expect_err("rewritten");
            assert_eq!(
                (error.reason(), error.is_policy(), error.table().name()),
                ("ledger_rewritten", true, table)
            );
        }
    }
    // A truncate has neither image; a delete of another table is nobody's business.
    let error = routed(&envelope("t", "purchase_ledger", LSN, "null", "null")).expect_err("rewritten");
    assert_eq!(error.reason(), "ledger_rewritten");
    let delete = envelope("d", "campaigns", LSN, "null", "null");
    let other = with_change(&delete, &[], |change| {
        route("crm.public.campaigns", change, DecimalMode::Text)
    });
    assert_eq!(
        other,
        Ok(Routed::Unread {
            table: "campaigns".into()
        })
    );
}

#[test]
fn a_row_of_another_table_on_a_ledgers_topic_is_not_passed_over() {
    let error = routed(&envelope("c", "purchase_ledger_2026", LSN, "null", PURCHASE)).expect_err("a mistake");
    assert_eq!((error.reason(), error.is_policy()), ("unexpected_table", false));
    assert!(error.to_string().contains("purchase_ledger_2026"), "{error}");
}

#[test]
fn a_change_is_versioned_by_what_a_connector_repeats() {
    let version = |op: &str, source: &str| {
        routed(&envelope(op, "purchase_ledger", source, "null", PURCHASE))
            .map(|routed| match routed {
                Routed::Row(change) => change.version.to_string(),
                Routed::Unread { table } => panic!("{table} is read"),
            })
            .map_err(|error| error.reason())
    };
    assert_eq!(version("c", LSN), Ok("26459320".to_owned()));
    assert_eq!(version("u", LSN), Ok("26459320".to_owned()));
    assert_eq!(version("r", LSN), Ok("r1795203709806".to_owned()));
    assert_eq!(
        version("r", r#""lsn":null,"ts_ms":1795203709806"#),
        Ok("r1795203709806".to_owned())
    );
    assert_eq!(version("r", r#""lsn":26459320"#), Ok("rl26459320".to_owned()));
    assert_eq!(version("c", r#""ts_ms":1795203709806"#), Err("missing_lsn"));
    assert_eq!(version("r", r#""lsn":null"#), Err("missing_snapshot_time"));
}

#[test]
fn a_change_without_a_row_is_refused() {
    for op in ["c", "u", "r"] {
        let error = routed(&envelope(op, "purchase_ledger", LSN, "null", "null")).expect_err("no row");
        assert_eq!(error.reason(), "missing_after");
    }
}

#[test]
fn before_counts_only_if_it_is_complete() {
    let before = |before: &str| row_change(&envelope("u", "purchase_ledger", LSN, before, PURCHASE)).before;
    match before(&PURCHASE.replace("partially_refunded", "completed")) {
        Some(Row::Purchase(row)) => assert_eq!(row.status, PurchaseStatus::Completed),
        other => panic!("the row before, not {other:?}"),
    }
    for incomplete in [
        "null".to_owned(),
        "{}".to_owned(),
        r#"{"id":"p-1"}"#.to_owned(),
        PURCHASE.replace("\"u-1\"", "null"),
        PURCHASE.replace("\"u-1\"", "\"__debezium_unavailable_value\""),
        PURCHASE.replace("partially_refunded", "unheard-of"),
        PURCHASE.replace("p-1", "p-2"),
    ] {
        assert_eq!(before(&incomplete), None, "{incomplete}");
    }
}
