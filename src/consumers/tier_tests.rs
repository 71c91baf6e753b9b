//! What the tier consumer decides. Numbers name the edge cases of the loyalty study.

use insta::assert_snapshot;

use super::fixtures::{
    at, created, decided, decimal, delivered, form, json, pending, purchase, refunded, snapshot, told, updated,
    updated_blind, wallet_entry,
};
use super::{Consumer, Decision, Reason};
use crate::rows::{ChangeVersion, Purchase, RowChange, UserId};

fn reason(change: &RowChange) -> String {
    match decided(Consumer::Tier, change) {
        Decision::Deliver(effects) => format!("deliver {}", delivered(Decision::Deliver(effects)).reason),
        other => told(&other),
    }
}

#[test]
fn a_purchase_asks_for_an_evaluation_of_its_member() {
    assert_snapshot!(told(&decided(Consumer::Tier, &created(purchase("m-instant")))), @r#"tier:m-instant:u-1 tier:evaluation:purchase_ledger:p-1:41 {"id":"tier:evaluation:purchase_ledger:p-1:41","name":"loyalty/tier.evaluation_requested","ts":1795168800000,"v":"2026-11-20.1","data":{"merchant_id":"m-instant","user_id":"u-1","effect_key":"tier:m-instant:u-1","metric":"spend","program_rev":1,"as_of_ms":1795168800000,"triggers":[{"table":"purchase_ledger","row_id":"p-1","version":"41","op":"c"}],"reason":"spend_may_have_changed"}}"#);
}

#[test]
fn a_wallet_entry_asks_for_an_evaluation_where_tiers_look_at_points() {
    assert_snapshot!(told(&decided(Consumer::Tier, &created(wallet_entry("m-rolling", 5)))), @r#"tier:m-rolling:u-1 tier:evaluation:wallet_ledger:w-1:41 {"id":"tier:evaluation:wallet_ledger:w-1:41","name":"loyalty/tier.evaluation_requested","ts":1795168800000,"v":"2026-11-20.1","data":{"merchant_id":"m-rolling","user_id":"u-1","effect_key":"tier:m-rolling:u-1","metric":"points","program_rev":7,"as_of_ms":1795168800000,"triggers":[{"table":"wallet_ledger","row_id":"w-1","version":"41","op":"c"}],"reason":"points_may_have_changed"}}"#);
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

// 23: a scheduled upgrade is only named again, never decided here. A moved row evaluates its current user.
#[test]
fn a_row_that_moved_to_another_user_evaluates_the_current_one() {
    let moved = Purchase {
        user_id: UserId::new("u-2").expect("not empty"),
        ..purchase("m-instant")
    };
    let effect = delivered(decided(Consumer::Tier, &updated(purchase("m-instant"), moved)));
    assert_eq!(effect.key.as_str(), "tier:m-instant:u-2");
    assert_eq!(effect.reason, Reason::SpendMayHaveChanged);
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
    newer.absorb(&older);
    newer.absorb(&older);
    assert_eq!(newer.claim, claim, "the claims stay two");
    assert_snapshot!(json(&newer), @r#"{"id":"tier:evaluation:purchase_ledger:p-1:77","name":"loyalty/tier.evaluation_requested","ts":1795168800000,"v":"2026-11-20.1","data":{"merchant_id":"m-instant","user_id":"u-1","effect_key":"tier:m-instant:u-1","metric":"spend","program_rev":1,"as_of_ms":1795168800000,"triggers":[{"table":"purchase_ledger","row_id":"p-1","version":"41","op":"c"},{"table":"purchase_ledger","row_id":"p-1","version":"77","op":"u"}],"reason":"spend_may_have_changed"}}"#);
}

#[test]
fn an_effect_of_another_key_is_not_absorbed() {
    let mut award = delivered(decided(Consumer::Currency, &created(purchase("m-instant"))));
    let tier = delivered(decided(Consumer::Tier, &created(purchase("m-instant"))));
    let (award_before, mut tier_after) = (award.clone(), tier.clone());
    award.absorb(&tier);
    tier_after.absorb(&award_before);
    assert_eq!((award, tier_after), (award_before, tier));
}

#[test]
fn an_older_award_leaves_nothing_but_its_time() {
    let older = delivered(decided(Consumer::Currency, &created(purchase("m-instant"))));
    let change = updated(purchase("m-instant"), refunded("m-instant", "40"));
    let newer = delivered(decided(Consumer::Currency, &change));
    let mut absorbed = newer.clone();
    absorbed.absorb(&older);
    assert_eq!(absorbed, newer);
}
