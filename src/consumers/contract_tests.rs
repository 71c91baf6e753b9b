//! The schemas in `schemas/` hold for what is decided: every event of a table of cases validates against the schema of its
//! name, every schema is used, and every one refuses something.
#![expect(clippy::indexing_slicing, reason = "a test may fail by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::fixtures::{
    code, created, decided, deliveries, form, mission_claim, pending, purchase, referral, refunded, snapshot, updated,
    updated_blind, user, wallet_entry,
};
use super::{Consumer, Decision, Effect};
use crate::inngest::event::ANNOUNCED;
use crate::inngest::{EventBatch, EventData};
use crate::loyalty::{DEMO_PROGRAM, Programs};
use crate::rows::{ClaimStatus, CodeStatus, ReferralStatus, RowChange};
use crate::traceparent::TraceParent;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn schema(file: &str) -> Validator {
    let text = std::fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let schema: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(
        schema["$schema"], "https://json-schema.org/draft/2020-12/schema",
        "{file}"
    );
    for field in ["title", "description"] {
        assert!(schema[field].is_string(), "{file} has no {field}");
    }
    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn wrong(schema: &Validator, value: &Value) -> Vec<String> {
    schema
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

fn event_file(name: &str) -> String {
    format!("inngest/{}.schema.json", name.replace('/', "."))
}

fn files_in(sub: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder().join(sub)).expect("the folder is there");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("readable").file_name().into_string();
    entries
        .map(|entry| format!("{sub}/{}", name(entry).expect("a text")))
        .collect()
}

fn cases() -> Vec<RowChange> {
    let mut cases = vec![
        created(form("m-instant", "survey")),
        created(form("m-rolling", "survey")),
        updated(form("m-instant", "survey"), form("m-instant", "other")),
        created(wallet_entry("m-rolling", -5)),
        snapshot(wallet_entry("m-rolling", 5)),
    ];
    for merchant in [
        "m-instant",
        "m-rolling",
        "m-date",
        "m-month",
        "m-none",
        "m-later",
        "m-unknown",
    ] {
        let mut odd = purchase(merchant);
        odd.id = crate::rows::RowId::new("a:%\"é").expect("not empty");
        odd.completed_at = Some(super::fixtures::at("2026-11-20T10:00:00.123456789Z"));
        let mut earns_nothing = purchase(merchant);
        earns_nothing.earn_currency = false;
        let mut negative = purchase(merchant);
        negative.final_amount = super::fixtures::decimal("-3.50");
        cases.extend([
            created(purchase(merchant)),
            created(odd),
            updated_blind(earns_nothing),
            updated_blind(negative),
            updated(pending(merchant), purchase(merchant)),
            updated(purchase(merchant), purchase(merchant)),
            updated(purchase(merchant), refunded(merchant, "40.5")),
            updated(purchase(merchant), refunded(merchant, "99.99")),
            updated(purchase(merchant), refunded(merchant, "100")),
            updated_blind(pending(merchant)),
            snapshot(purchase(merchant)),
        ]);
    }
    let mut moved = purchase("m-instant");
    moved.user_id = user("u-2");
    cases.push(updated(purchase("m-instant"), moved));
    cases.extend(grants());
    cases
}

/// Claims, referrals and codes in every state, whole and with what may be absent.
fn grants() -> Vec<RowChange> {
    let mut cases = Vec::new();
    for status in [ClaimStatus::Claimed, ClaimStatus::Revoked] {
        let mut bare = mission_claim(status);
        (bare.period, bare.claimed_at) = (None, None);
        cases.extend([
            created(mission_claim(status)),
            updated_blind(bare.clone()),
            snapshot(bare),
        ]);
    }
    for status in [
        ReferralStatus::Pending,
        ReferralStatus::Qualified,
        ReferralStatus::Cancelled,
    ] {
        let mut of_oneself = referral(status);
        of_oneself.referee_user_id = of_oneself.referrer_user_id.clone();
        cases.extend([
            created(referral(status)),
            snapshot(referral(status)),
            updated_blind(of_oneself),
        ]);
    }
    for status in [
        CodeStatus::Issued,
        CodeStatus::Redeemed,
        CodeStatus::Expired,
        CodeStatus::Void,
    ] {
        let mut nobodys = code(status);
        (nobodys.user_id, nobodys.redeemed_at) = (None, None);
        cases.extend([
            created(code(status)),
            updated(nobodys.clone(), code(status)),
            snapshot(nobodys),
        ]);
    }
    cases
}

fn written(effect: &Effect) -> Value {
    serde_json::from_str(&super::fixtures::json(effect)).expect("JSON")
}

#[test]
fn every_event_decided_validates_and_every_event_schema_is_used() {
    let mut used = BTreeSet::new();
    for change in cases() {
        for consumer in Consumer::ALL {
            let Decision::Deliver(effects) = decided(consumer, &change) else {
                continue;
            };
            for mut effect in effects {
                if let Decision::Deliver(older) = decided(consumer, &created(purchase("m-instant"))) {
                    effect.absorb(older.iter());
                }
                let file = event_file(effect.event.data.name());
                assert_eq!(
                    wrong(&schema(&file), &written(&effect)),
                    Vec::<String>::new(),
                    "{file}: {effect:?}"
                );
                let mut traced = EventBatch::in_trace(TraceParent::new(1, 2, 1));
                traced.push(&effect.event, i64::MAX);
                let traced: Value = serde_json::from_slice(traced.event(0)).expect("JSON");
                assert!(traced["data"]["traceparent"].is_string(), "{traced}");
                assert_eq!(wrong(&schema(&file), &traced), Vec::<String>::new(), "{file}");
                used.insert(file);
            }
        }
    }
    assert_eq!(used, EventData::NAMES.map(event_file).into());
    // What the database announces is held to its schemas in tests/postgres.
    used.extend(ANNOUNCED.map(event_file));
    assert_eq!(used, files_in("inngest"));
}

#[test]
fn every_event_schema_refuses_an_unknown_field_a_missing_one_and_a_number_for_a_text() {
    let change = created(purchase("m-instant"));
    let refund = updated_blind(refunded("m-instant", "100"));
    let claim = created(mission_claim(ClaimStatus::Claimed));
    let cancelled = updated_blind(referral(ReferralStatus::Cancelled));
    let redeemed = created(code(CodeStatus::Redeemed));
    for (consumer, change, text_field) in [
        (Consumer::Currency, &change, "target_points"),
        (Consumer::Currency, &refund, "target_points"),
        (Consumer::Tier, &change, "user_id"),
        (Consumer::Mission, &change, "merchant_id"),
        (Consumer::Reward, &claim, "claim_id"),
        (Consumer::Reward, &cancelled, "user_id"),
        (Consumer::Marketplace, &redeemed, "code_id"),
    ] {
        let effects = deliveries(decided(consumer, change));
        let event = written(effects.iter().next().expect("an effect"));
        let schema = schema(&event_file(event["name"].as_str().expect("a name")));
        assert!(schema.is_valid(&event));
        let mut changed = event.clone();
        changed["data"]["more"] = json!(1);
        assert!(!schema.is_valid(&changed), "unknown field: {changed}");
        let mut changed = event.clone();
        changed["data"].as_object_mut().expect("an object").remove("effect_key");
        assert!(!schema.is_valid(&changed), "missing field: {changed}");
        let mut changed = event.clone();
        changed["data"][text_field] = json!(5);
        assert!(!schema.is_valid(&changed), "number for a text: {changed}");
        let mut changed = event;
        changed["ts"] = json!(1.5);
        assert!(!schema.is_valid(&changed), "fraction of a millisecond: {changed}");
    }
}

#[test]
fn every_row_schema_takes_a_row_and_refuses_one_that_cannot_be_routed() {
    let purchase = json!({"id": "p-1", "user_id": "u", "merchant_id": "m", "final_amount": 100.00, "status": "completed",
        "earn_currency": true, "created_at": "2026-11-20T10:00:00Z", "unknown": [1]});
    let wallet = json!({"id": 1, "user_id": "u", "merchant_id": "m", "amount": 5, "kind": "earn",
        "created_at": 1_795_168_800_000_000_i64, "source_type": null});
    let form = json!({"id": "f", "form_id": "survey", "user_id": "u", "merchant_id": "m",
        "submitted_at": "2026-11-20T10:00:00Z"});
    let claim = json!({"id": 1, "user_id": "u", "merchant_id": "m", "mission_id": "spend", "status": "claimed",
        "claimed_at": 1_795_168_800_000_000_i64});
    let referral = json!({"id": "r", "referrer_user_id": "u", "referee_user_id": 2, "merchant_id": "m",
        "status": "qualified", "created_at": "2026-11-20T10:00:00Z"});
    let code = json!({"id": "c", "code": "SECRET", "merchant_id": "m", "status": "redeemed", "user_id": null});
    let mut used = BTreeSet::new();
    // 32: a status that is not known is never guessed at.
    for (table, row, field, bad) in [
        ("purchase_ledger", purchase, "status", json!("paid")),
        ("wallet_ledger", wallet, "amount", json!(1.5)),
        ("form_submissions", form, "form_id", json!("")),
        ("mission_claims", claim, "status", json!("open")),
        ("referral_ledger", referral, "status", json!("completed")),
        ("codes", code, "status", json!("used")),
    ] {
        let file = format!("rows/{table}.schema.json");
        let schema = schema(&file);
        assert_eq!(wrong(&schema, &row), Vec::<String>::new(), "{table}");
        let mut changed = row.clone();
        changed[field] = bad;
        assert!(!schema.is_valid(&changed), "{changed}");
        let mut changed = row;
        changed.as_object_mut().expect("an object").remove(field);
        assert!(!schema.is_valid(&changed), "{changed}");
        assert!(crate::rows::Table::from_name(table).is_some());
        used.insert(file);
    }
    assert_eq!(used, files_in("rows"));
}

#[test]
fn the_program_schema_takes_what_the_reader_takes_and_refuses_what_it_refuses() {
    let schema = schema("program.schema.json");
    for text in [DEMO_PROGRAM, include_str!("fixture_program.json")] {
        let file: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(wrong(&schema, &file), Vec::<String>::new());
        assert!(Programs::from_json(text).is_ok());
    }
    let demo: Value = serde_json::from_str(DEMO_PROGRAM).expect("JSON");
    for (pointer, bad) in [
        ("/programs/0/versions/0/currency/rate", json!(-1)),
        ("/programs/0/versions/0/currency/rate", json!("1e3")),
        (
            "/programs/0/versions/0/currency/activation",
            json!({"kind": "rolling_days"}),
        ),
        ("/programs/0/versions/0/tiers/ladder", json!([])),
        ("/programs/0/versions/0/refund_policy", json!("never")),
        ("/programs/0/versions/0/rev", json!(0)),
        ("/programs/0/merchant_id", json!("")),
        (
            "/programs/0",
            json!({"merchant_id": "m", "time_zone": "UTC", "versions": [], "more": 1}),
        ),
    ] {
        let mut changed = demo.clone();
        *changed.pointer_mut(pointer).expect("the field is there") = bad;
        assert!(!schema.is_valid(&changed), "{pointer}");
        assert!(Programs::from_json(&changed.to_string()).is_err(), "{pointer}");
    }
}
