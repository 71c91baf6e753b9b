//! What the tier consumer decides. Numbers name the edge cases of the loyalty study.

use insta::assert_snapshot;

use super::fixtures::{
    at, created, decided, decimal, delivered, deliveries, form, json, pending, purchase, refunded, snapshot, told,
    updated, updated_blind, wallet_entry,
};
use super::{Consumer, Decision, Effect, Reason};
use crate::inngest::EventData;
use crate::rows::{ChangeVersion, Purchase, RowChange, UserId};

fn reason(change: &RowChange) -> String {
    match decided(Consumer::Tier, change) {
        Decision::Deliver(effects) => format!("deliver {}", delivered(Decision::Deliver(effects)).reason),
        other => told(&other),
    }
}

#[test]
fn a_purchase_asks_for_an_evaluation_of_its_member() {
    assert_snapshot!(told(&decided(Consumer::Tier, &created(purchase("m-instant")))), @r#"tier:m-instant:u-1 tier:evaluation:purchase_ledger:p-1:41 {"id":"tier:evaluation:purchase_ledger:p-1:41","name":"loyalty/tier.evaluation_requested","ts":1795168800000,"v":"2026-11-22.1","data":{"merchant_id":"m-instant","user_id":"u-1","effect_key":"tier:m-instant:u-1","metric":"spend","program_rev":1,"as_of_ms":1795168800000,"triggers":[{"table":"purchase_ledger","row_id":"p-1","version":"41","op":"c"}],"reason":"spend_may_have_changed"}}"#);
}

#[test]
fn a_wallet_entry_asks_for_an_evaluation_where_tiers_look_at_points() {
    assert_snapshot!(told(&decided(Consumer::Tier, &created(wallet_entry("m-rolling", 5)))), @r#"tier:m-rolling:u-1 tier:evaluation:wallet_ledger:w-1:41 {"id":"tier:evaluation:wallet_ledger:w-1:41","name":"loyalty/tier.evaluation_requested","ts":1795168800000,"v":"2026-11-22.1","data":{"merchant_id":"m-rolling","user_id":"u-1","effect_key":"tier:m-rolling:u-1","metric":"points","program_rev":7,"as_of_ms":1795168800000,"triggers":[{"table":"wallet_ledger","row_id":"w-1","version":"41","op":"c"}],"reason":"points_may_have_changed"}}"#);
}

#[test]
fn rows_that_the_program_does_not_look_at_are_ignored_with_the_reason() {
    for (change, expected) in [
        (created(purchase("m-unknown")), "ignore no_program"),
        (created(purchase("m-later")), "ignore no_version_yet"),
        (created(purchase("m-none")), "ignore no_tier_ladder"),
        (created(purchase("m-rolling")), "ignore not_in_metric"),
        (created(wallet_entry("m-instant", 5)), "ignore not_in_metric"),
        (created(form("m-instant", "survey")), "ignore not_interested"),
        (created(wallet_entry("m-rolling", 0)), "ignore cannot_change_metric"),
        (created(pending("m-instant")), "ignore cannot_change_metric"),
        (created(refunded("m-instant", "100")), "ignore cannot_change_metric"),
        (
            updated(pending("m-instant"), pending("m-instant")),
            "ignore cannot_change_metric",
        ),
    ] {
        assert_eq!(reason(&change), expected, "{change:?}");
    }
}

// 21, 22: a refund is evaluated like a purchase; whether it leads to a review is decided over all rows.
#[test]
fn a_change_that_may_have_changed_spend_is_evaluated() {
    for (change, expected) in [
        (
            updated(pending("m-instant"), purchase("m-instant")),
            "deliver spend_may_have_changed",
        ),
        (
            updated(purchase("m-instant"), refunded("m-instant", "40")),
            "deliver spend_may_have_changed",
        ),
        (
            updated(purchase("m-instant"), refunded("m-instant", "100")),
            "deliver spend_may_have_changed",
        ),
        (updated_blind(pending("m-instant")), "deliver spend_may_have_changed"),
        (snapshot(pending("m-instant")), "deliver spend_may_have_changed"),
        (
            updated(purchase("m-instant"), purchase("m-instant")),
            "deliver unchanged_basis",
        ),
        (
            updated(wallet_entry("m-rolling", 5), wallet_entry("m-rolling", 0)),
            "deliver points_may_have_changed",
        ),
    ] {
        assert_eq!(reason(&change), expected, "{change:?}");
    }
}

// 20: a purchase that arrives late is evaluated by the ladder of today.
#[test]
fn a_late_purchase_from_before_the_first_rules_is_evaluated() {
    let mut late = purchase("m-instant");
    late.created_at = at("2019-06-01T00:00:00Z");
    assert_eq!(reason(&created(late)), "deliver spend_may_have_changed");
}

#[test]
fn spend_does_not_depend_on_earning_points() {
    let mut row = purchase("m-instant");
    row.earn_currency = false;
    assert_eq!(reason(&created(row.clone())), "deliver spend_may_have_changed");
    row.refunded_amount = decimal("100");
    assert_eq!(reason(&created(row)), "ignore cannot_change_metric");
}

// 14: a row that moved to another member. What the old one had may be gone, what the new one has may be more.
#[test]
fn a_row_that_moved_to_another_member_evaluates_both_under_claims_of_their_own() {
    let moved = |row: Purchase| Purchase {
        user_id: UserId::new("u-2").expect("not empty"),
        ..row
    };
    let told = |before: Purchase, row: Purchase| -> Vec<String> {
        let effects = deliveries(decided(Consumer::Tier, &updated(before, row)));
        let tell = |effect: &Effect| {
            let EventData::TierEvaluationRequested(data) = &effect.event.data else {
                panic!("no tier: {effect:?}");
            };
            let lowers: Vec<bool> = data.triggers.iter().map(|trigger| trigger.lowers).collect();
            format!("{} {} lowers {lowers:?}", effect.key, effect.claim)
        };
        effects.iter().map(tell).collect()
    };
    let old = "tier:m-instant:u-1 tier:evaluation_before:purchase_ledger:p-1:42 lowers [true]";
    let new = "tier:m-instant:u-2 tier:evaluation:purchase_ledger:p-1:42 lowers [false]";
    let (completed, pending) = (purchase("m-instant"), pending("m-instant"));
    assert_eq!(told(completed.clone(), moved(completed.clone())), [new, old]);
    // Whoever the row neither counted nor counts for is not evaluated.
    assert_eq!(told(completed.clone(), moved(pending.clone())), [old]);
    assert_eq!(told(pending.clone(), moved(completed)), [new]);
    let nobody = decided(Consumer::Tier, &updated(pending.clone(), moved(pending)));
    assert_eq!(nobody, Decision::Ignore(Reason::CannotChangeMetric));
}

// 20, 22: what an evaluation needs beside the sum: when the row was earned, from when an upgrade counts, and whether
// the change may have taken something away.
#[test]
fn a_trigger_tells_when_it_was_earned_when_it_is_due_and_whether_it_lowers() {
    let trigger = |change: &RowChange| {
        let effect = delivered(decided(Consumer::Tier, change));
        let EventData::TierEvaluationRequested(data) = effect.event.data else {
            panic!("no tier");
        };
        let [trigger] = &data.triggers[..] else {
            panic!("one trigger");
        };
        let due = trigger.due_at.map_or_else(|| "-".to_owned(), |due| due.to_string());
        format!("{} {due} {}", trigger.at, trigger.lowers)
    };
    let at_ten = "2026-11-20T10:00:00Z";
    let month = "2026-12-01T00:00:00+01:00";
    let full = || purchase("m-instant");
    for (change, expected) in [
        (created(full()), format!("{at_ten} - false")),
        (updated(full(), refunded("m-instant", "40")), format!("{at_ten} - true")),
        (
            updated(refunded("m-instant", "40"), full()),
            format!("{at_ten} - false"),
        ),
        (updated(full(), full()), format!("{at_ten} - false")),
        (updated_blind(full()), format!("{at_ten} - false")),
        (updated_blind(refunded("m-instant", "40")), format!("{at_ten} - true")),
        (snapshot(full()), format!("{at_ten} - false")),
        (snapshot(pending("m-instant")), format!("{at_ten} - true")),
        // Start of the month after it was earned, in the program's zone.
        (created(wallet_entry("m-rolling", 5)), format!("{at_ten} {month} false")),
        (
            updated(wallet_entry("m-rolling", 5), wallet_entry("m-rolling", 3)),
            format!("{at_ten} {month} true"),
        ),
    ] {
        assert_eq!(trigger(&change), expected, "{change:?}");
    }
    let mut late = full();
    late.completed_at = Some(at("2026-10-01T00:00:00Z"));
    assert_eq!(trigger(&created(late.clone())), "2026-10-01T00:00:00Z - false");
    // It may have left the window.
    assert_eq!(trigger(&updated(full(), late)), "2026-10-01T00:00:00Z - true");
}

// 21: several changes of one member in a batch end in one evaluation that covers them all.
#[test]
fn a_newer_evaluation_takes_over_the_triggers_of_older_ones() {
    let first = created(purchase("m-instant"));
    let mut second = updated(purchase("m-instant"), refunded("m-instant", "100"));
    second.version = ChangeVersion::Lsn(77);
    second.commit_ms -= 5;
    let older = delivered(decided(Consumer::Tier, &first));
    let mut newer = delivered(decided(Consumer::Tier, &second));
    let claim = newer.claim.clone();
    newer.absorb([&older, &older]);
    newer.absorb([&older]);
    assert_eq!(newer.claim, claim, "the claims stay two");
    assert_snapshot!(json(&newer), @r#"{"id":"tier:evaluation:purchase_ledger:p-1:77","name":"loyalty/tier.evaluation_requested","ts":1795168800000,"v":"2026-11-22.1","data":{"merchant_id":"m-instant","user_id":"u-1","effect_key":"tier:m-instant:u-1","metric":"spend","program_rev":1,"as_of_ms":1795168800000,"triggers":[{"table":"purchase_ledger","row_id":"p-1","version":"41","op":"c"},{"table":"purchase_ledger","row_id":"p-1","version":"77","op":"u"}],"reason":"spend_may_have_changed"}}"#);
}

#[test]
fn an_effect_of_another_key_is_not_absorbed() {
    let mut award = delivered(decided(Consumer::Currency, &created(purchase("m-instant"))));
    let tier = delivered(decided(Consumer::Tier, &created(purchase("m-instant"))));
    let (award_before, mut tier_after) = (award.clone(), tier.clone());
    award.absorb([&tier]);
    tier_after.absorb([&award_before]);
    assert_eq!((award, tier_after), (award_before, tier));
}

#[test]
fn an_older_award_leaves_nothing_but_its_time() {
    let older = delivered(decided(Consumer::Currency, &created(purchase("m-instant"))));
    let change = updated(purchase("m-instant"), refunded("m-instant", "40"));
    let newer = delivered(decided(Consumer::Currency, &change));
    let mut absorbed = newer.clone();
    absorbed.absorb([&older]);
    assert_eq!(absorbed, newer);
}
