//! What the mission consumer decides. Numbers name the edge cases of the loyalty study.

use insta::assert_snapshot;

use super::fixtures::{
    at, created, decided, decimal, delivered, form, pending, purchase, refunded, rules, snapshot, told, told_briefly,
    updated, updated_blind, wallet_entry,
};
use super::{Consumer, Decision, Refusal, Rules, decide};
use crate::inngest::EventData;
use crate::rows::{Purchase, RowChange};

/// The reason, and what counts for which mission and period.
fn counts(change: &RowChange) -> String {
    match decided(Consumer::Mission, change) {
        Decision::Deliver(effects) => {
            let effect = delivered(Decision::Deliver(effects));
            let EventData::MissionEvaluationRequested(data) = &effect.event.data else {
                panic!("not a mission: {effect:?}");
            };
            let shares = data
                .missions
                .iter()
                .map(|share| format!("{} {} {}", share.mission_id, share.period, share.counted));
            format!("{}: {}", effect.reason, shares.collect::<Vec<_>>().join(", "))
        }
        other => told(&other),
    }
}

#[test]
fn a_purchase_counts_for_every_mission_on_purchases() {
    let decision = decided(Consumer::Mission, &created(purchase("m-instant")));
    assert!(!delivered(decision.clone()).state_like, "every change is sent");
    let with_database = Rules {
        database: true,
        ..rules()
    };
    let compared = decide(
        Consumer::Mission,
        &created(purchase("m-instant")),
        &with_database,
        at("2026-11-20T10:00:01Z"),
    );
    assert!(delivered(compared).state_like, "the database takes the newest state");
    assert_snapshot!(told(&decision), @r#"mission_source:m-instant:u-1:purchase_ledger:p-1 mission:evaluation:purchase_ledger:p-1:41 {"id":"mission:evaluation:purchase_ledger:p-1:41","name":"loyalty/mission.evaluation_requested","ts":1795168800000,"v":"2026-11-22.1","data":{"merchant_id":"m-instant","user_id":"u-1","effect_key":"mission_source:m-instant:u-1:purchase_ledger:p-1","source":{"table":"purchase_ledger","row_id":"p-1","version":"41","op":"c"},"missions":[{"mission_id":"spend","effect_key":"mission:m-instant:spend:u-1:2026-11","period":"2026-11","trigger":"purchase_total","counted":"100.00","target":"500"},{"mission_id":"visits","effect_key":"mission:m-instant:visits:u-1:lifetime","period":"lifetime","trigger":"purchase_count","counted":"1","target":"3"}],"program_rev":1,"as_of_ms":1795168800000,"reason":"counted"}}"#);
}

#[test]
fn a_form_counts_once_for_the_mission_that_names_it() {
    assert_snapshot!(told(&decided(Consumer::Mission, &created(form("m-rolling", "survey")))), @r#"mission_source:m-rolling:u-1:form_submissions:f-1 mission:evaluation:form_submissions:f-1:41 {"id":"mission:evaluation:form_submissions:f-1:41","name":"loyalty/mission.evaluation_requested","ts":1795168800000,"v":"2026-11-22.1","data":{"merchant_id":"m-rolling","user_id":"u-1","effect_key":"mission_source:m-rolling:u-1:form_submissions:f-1","source":{"table":"form_submissions","row_id":"f-1","version":"41","op":"c"},"missions":[{"mission_id":"survey","effect_key":"mission:m-rolling:survey:u-1:lifetime","period":"lifetime","trigger":"form","counted":"1","target":"1"}],"program_rev":7,"as_of_ms":1795168800000,"reason":"counted"}}"#);
}

#[test]
fn rows_that_no_mission_looks_at_are_ignored_with_the_reason() {
    for (change, expected) in [
        (created(purchase("m-unknown")), "ignore no_program"),
        (created(purchase("m-later")), "ignore no_version_yet"),
        (created(purchase("m-none")), "ignore no_mission_concerned"),
        (created(purchase("m-rolling")), "ignore no_mission_concerned"),
        (created(form("m-instant", "other")), "ignore no_mission_concerned"),
        (created(wallet_entry("m-instant", 5)), "ignore not_interested"),
        (created(pending("m-instant")), "ignore nothing_counted"),
        (
            updated(pending("m-instant"), pending("m-instant")),
            "ignore was_zero_before",
        ),
    ] {
        assert_eq!(counts(&change), expected, "{change:?}");
    }
}

// 25: progress is taken back by the row that gave it, and by nothing else.
#[test]
fn a_refund_sets_what_the_row_counts_to_what_is_left() {
    for (change, expected) in [
        (
            updated(pending("m-instant"), purchase("m-instant")),
            "counted: spend 2026-11 100.00, visits lifetime 1",
        ),
        (
            updated(purchase("m-instant"), refunded("m-instant", "40")),
            "counted: spend 2026-11 60.00, visits lifetime 1",
        ),
        (
            updated(purchase("m-instant"), refunded("m-instant", "100")),
            "counts_no_longer: spend 2026-11 0, visits lifetime 0",
        ),
        (
            updated_blind(pending("m-instant")),
            "counts_no_longer: spend 2026-11 0, visits lifetime 0",
        ),
        (
            snapshot(pending("m-instant")),
            "counts_no_longer: spend 2026-11 0, visits lifetime 0",
        ),
        (
            updated(purchase("m-instant"), purchase("m-instant")),
            "unchanged_basis: spend 2026-11 100.00, visits lifetime 1",
        ),
    ] {
        assert_eq!(counts(&change), expected, "{change:?}");
    }
}

// 26, 27: the row's own time names the period and the version, in the program's zone.
#[test]
fn a_row_counts_in_the_period_of_its_own_time() {
    let mut row = purchase("m-instant");
    row.completed_at = Some(at("2026-11-30T17:00:00Z"));
    assert_eq!(
        counts(&created(row.clone())),
        "counted: spend 2026-12 100.00, visits lifetime 1"
    );
    row.completed_at = Some(at("2026-12-31T17:00:00Z"));
    assert_eq!(
        counts(&created(row)),
        "ignore no_mission_concerned",
        "edited away from 2027 on"
    );
}

#[test]
fn a_period_or_form_that_the_row_has_left_falls_back_to_zero() {
    let earlier = purchase("m-instant");
    let later = Purchase {
        completed_at: Some(at("2026-12-05T00:00:00Z")),
        ..earlier.clone()
    };
    let moved = counts(&updated(earlier.clone(), later));
    assert_eq!(
        moved,
        "counted: spend 2026-12 100.00, visits lifetime 1, spend 2026-11 0"
    );
    let out_of_reach = Purchase {
        completed_at: Some(at("2027-02-05T00:00:00Z")),
        ..earlier.clone()
    };
    assert_eq!(
        counts(&updated(earlier, out_of_reach)),
        "counts_no_longer: spend 2026-11 0, visits lifetime 0"
    );
    let renamed = updated(form("m-instant", "survey"), form("m-instant", "other"));
    assert_eq!(counts(&renamed), "counts_no_longer: survey 2026 0");
}

// 14: with a database the progress of a row that no mission looks at any more, or of another member, is replaced by the
// evaluation of the row as it is, even if that counts for nothing.
#[test]
fn with_a_database_a_row_that_counts_nowhere_any_more_is_told_so() {
    let rules = Rules {
        database: true,
        ..rules()
    };
    let now = at("2026-11-20T10:00:01Z");
    let told = |change: &RowChange| told_briefly(&decide(Consumer::Mission, change, &rules, now));
    assert_eq!(told(&created(purchase("m-none"))), "ignore no_mission_concerned");
    let left = |reason, proof| {
        let key = "mission_source:m-none:u-1:purchase_ledger:p-1";
        format!("{key} loyalty/mission.evaluation_requested {reason}, proof: {proof}")
    };
    let (gone, never) = (
        updated(purchase("m-instant"), purchase("m-none")),
        updated(purchase("m-date"), purchase("m-none")),
    );
    assert_eq!(told(&gone), left("counts_no_longer", "change"));
    assert_eq!(told(&never), "ignore no_mission_concerned");
    assert_eq!(told(&snapshot(purchase("m-none"))), left("counts_no_longer", "nothing"));
    // Without one there is nobody who could take it back.
    assert_eq!(counts(&gone), "ignore no_mission_concerned");
}

#[test]
fn an_amount_that_cannot_be_counted_exactly_is_refused() {
    let mut row = purchase("m-instant");
    row.refunded_amount = decimal("-1");
    let decision = decided(Consumer::Mission, &created(row.clone()));
    assert_eq!(decision, Decision::Refuse(Refusal::NegativeRefund));
    // As an old image it only proves nothing.
    assert_eq!(
        counts(&updated(row, pending("m-instant"))),
        "counts_no_longer: spend 2026-11 0, visits lifetime 0"
    );
}
