//! What the currency consumer decides. Numbers name the edge cases of the loyalty study.

use insta::assert_snapshot;

use super::fixtures::{
    at, award, created, decided, decimal, delivered, pending, purchase, refunded, rules, snapshot, told, updated,
    updated_blind, wallet_entry,
};
use super::{Consumer, Decision, Reason, Refusal, decide};
use crate::debezium::Op;
use crate::rows::{Purchase, PurchaseStatus, UserId};

const DUE_NOW: &str = "due_now: 100 points at 2026-11-20T17:00:00+07:00";

// 1: created as completed, no pending update.
#[test]
fn a_purchase_created_as_completed_is_awarded_once_with_its_whole_basis() {
    assert_snapshot!(told(&decided(Consumer::Currency, &created(purchase("m-instant")))), @r#"award:p-1 currency:award:purchase_ledger:p-1:41 {"id":"currency:award:purchase_ledger:p-1:41","name":"loyalty/award.scheduled","ts":1795168800000,"v":"2026-11-22.1","data":{"purchase_id":"p-1","effect_key":"award:p-1","target_points":"100","due_at":"2026-11-20T17:00:00+07:00","program_rev":1,"refund_policy":"within_balance","basis":{"user_id":"u-1","merchant_id":"m-instant","final_amount":"100.00","refunded_amount":"0","status":"completed","earn_currency":true,"created_at":"2026-11-20T10:00:00Z","completed_at":null},"as_of_ms":1795168800000,"reason":"due_now"}}"#);
}

// 7: a refund after the award lowers the target to zero; the policy is applied where it is booked.
#[test]
fn a_refund_cancels_with_the_whole_basis() {
    let change = updated(purchase("m-instant"), refunded("m-instant", "100.00"));
    assert_snapshot!(told(&decided(Consumer::Currency, &change)), @r#"award:p-1 currency:award:purchase_ledger:p-1:42 {"id":"currency:award:purchase_ledger:p-1:42","name":"loyalty/award.cancelled","ts":1795168800000,"v":"2026-11-22.1","data":{"purchase_id":"p-1","effect_key":"award:p-1","target_points":"0","program_rev":1,"refund_policy":"within_balance","basis":{"user_id":"u-1","merchant_id":"m-instant","final_amount":"100.00","refunded_amount":"100.00","status":"refunded","earn_currency":true,"created_at":"2026-11-20T10:00:00Z","completed_at":null},"as_of_ms":1795168800000,"reason":"refunded"}}"#);
}

#[test]
fn a_new_row_without_a_target_sends_nothing_and_says_why() {
    let with = |change: fn(&mut Purchase)| {
        let mut row = purchase("m-instant");
        change(&mut row);
        award(&created(row))
    };
    // 31: zero and negative amounts.
    assert_eq!(with(|row| row.final_amount = decimal("0.00")), "ignore nothing_remains");
    assert_eq!(with(|row| row.final_amount = decimal("-5")), "ignore nothing_remains");
    assert_eq!(
        with(|row| row.refunded_amount = decimal("100")),
        "ignore nothing_remains"
    );
    assert_eq!(with(|row| row.final_amount = decimal("9.99")), "ignore below_minimum");
    assert_eq!(with(|row| row.earn_currency = false), "ignore earns_nothing");
    assert_eq!(with(|row| row.status = PurchaseStatus::Pending), "ignore pending");
    assert_eq!(with(|row| row.status = PurchaseStatus::Refunded), "ignore refunded");
    assert_eq!(with(|row| row.status = PurchaseStatus::Cancelled), "ignore cancelled");
    // 31: points = 0. 0.5 points are rounded down.
    assert_eq!(award(&created(purchase("m-date"))), "ignore zero_points");
    assert_eq!(award(&created(purchase("m-unknown"))), "ignore no_program");
    let cancelled = updated(purchase("m-unknown"), pending("m-unknown"));
    assert_eq!(award(&cancelled), "ignore no_program", "what it was worth is not known");
    assert_eq!(award(&created(purchase("m-later"))), "ignore no_version_yet");
    assert_eq!(award(&created(purchase("m-none"))), "ignore no_currency_rule");
}

// 2: pending, then completed: one award, from the final state, under a claim of its own.
#[test]
fn a_completion_is_awarded_although_the_pending_row_was_ignored() {
    assert_eq!(award(&created(pending("m-instant"))), "ignore pending");
    let completed = updated(pending("m-instant"), purchase("m-instant"));
    assert_eq!(award(&completed), DUE_NOW);
    assert_ne!(
        delivered(decided(Consumer::Currency, &completed)).claim,
        delivered(decided(Consumer::Currency, &created(purchase("m-instant")))).claim
    );
}

// 3: updates that change nothing. 4: completed again under another LSN. Both carry the same target; nothing is added.
#[test]
fn an_update_that_changes_nothing_repeats_the_same_target() {
    let unchanged = updated(purchase("m-instant"), purchase("m-instant"));
    assert_eq!(award(&unchanged), DUE_NOW.replace("due_now", "unchanged_basis"));
    let mut replayed = unchanged.clone();
    replayed.version = crate::rows::ChangeVersion::Lsn(99);
    assert_eq!(award(&replayed), award(&unchanged));
    assert_eq!(
        delivered(decided(Consumer::Currency, &replayed)).key,
        delivered(decided(Consumer::Currency, &unchanged)).key
    );
}

// 5: a refund before the delayed award fires.
#[test]
fn a_refund_before_the_award_is_due_cancels_it() {
    assert_eq!(
        award(&created(purchase("m-rolling"))),
        "scheduled: 10 points at 2026-12-04T11:00:00+01:00"
    );
    let refund = updated(purchase("m-rolling"), refunded("m-rolling", "100"));
    assert_eq!(award(&refund), "refunded: nothing");
}

// 8: partial refunds that add up; 16: the same rounding, applied to what remains, so no residue.
#[test]
fn partial_refunds_lower_the_target_to_exactly_zero() {
    let steps = ["0", "33.33", "66.66", "99.99", "100.00"];
    let targets: Vec<String> = steps
        .map(|amount| award(&updated_blind(refunded("m-rolling", amount))))
        .map(|told| told.split(" at ").next().unwrap_or_default().to_owned())
        .into();
    assert_eq!(
        targets,
        [
            "scheduled: 10 points",
            "scheduled: 7 points",
            "scheduled: 3 points",
            "zero_points: nothing",
            "refunded: nothing"
        ]
    );
}

// 9: a partial refund while the award sleeps: the same effect with a smaller target.
#[test]
fn a_partial_refund_while_pending_reduces_the_same_award() {
    let full = delivered(decided(Consumer::Currency, &created(purchase("m-rolling"))));
    let change = updated(purchase("m-rolling"), refunded("m-rolling", "50"));
    assert_eq!(award(&change), "scheduled: 5 points at 2026-12-04T11:00:00+01:00");
    assert_eq!(delivered(decided(Consumer::Currency, &change)).key, full.key);
}

// 10: refunded and completed again.
#[test]
fn a_purchase_completed_again_is_awarded_again_under_its_own_claim() {
    let again = updated(refunded("m-instant", "100"), purchase("m-instant"));
    assert_eq!(award(&again), DUE_NOW);
}

#[test]
fn an_update_to_no_target_is_ignored_only_if_the_old_image_proves_that_there_was_none() {
    let cancelled = Purchase {
        status: PurchaseStatus::Cancelled,
        ..purchase("m-instant")
    };
    assert_eq!(
        award(&updated(pending("m-instant"), cancelled.clone())),
        "ignore was_zero_before"
    );
    assert_eq!(
        award(&updated(purchase("m-instant"), cancelled.clone())),
        "cancelled: nothing"
    );
    assert_eq!(award(&updated_blind(cancelled.clone())), "cancelled: nothing");
    assert_eq!(
        award(&updated(wallet_entry("m-instant", 0), cancelled.clone())),
        "cancelled: nothing"
    );
    // An old image that would be refused proves nothing.
    let odd = Purchase {
        refunded_amount: decimal("-1"),
        ..purchase("m-instant")
    };
    assert_eq!(award(&updated(odd, cancelled)), "cancelled: nothing");
}

// 12: snapshot rows are decided like updates without an old image, under the snapshot's own version.
#[test]
fn a_snapshot_row_repeats_its_target_whatever_it_is() {
    assert_eq!(award(&snapshot(purchase("m-instant"))), DUE_NOW);
    assert_eq!(award(&snapshot(pending("m-instant"))), "pending: nothing");
    let effect = delivered(decided(Consumer::Currency, &snapshot(purchase("m-instant"))));
    assert_eq!(
        effect.claim.as_str(),
        "currency:award:purchase_ledger:p-1:r1795168800000"
    );
}

// 18, 35: the time of completion decides, in the program's zone; a time that has passed is due at once.
#[test]
fn the_due_time_follows_completed_at_in_the_programs_zone() {
    let mut row = purchase("m-month");
    row.final_amount = decimal("0.000003");
    row.completed_at = Some(at("2026-12-01T04:59:59.999Z"));
    let change = created(row.clone());
    assert_eq!(award(&change), "scheduled: 3 points at 2026-12-01T00:00:00-05:00");
    let later = decide(Consumer::Currency, &change, &rules(), at("2026-12-01T05:00:00Z"));
    assert_eq!(delivered(later).reason, Reason::AlreadyDue);
    row.completed_at = Some(at("2026-12-01T05:00:00Z"));
    assert_eq!(award(&created(row)), "scheduled: 3 points at 2027-01-01T00:00:00-05:00");

    let mut passed = purchase("m-date");
    passed.final_amount = decimal("1000");
    assert_eq!(
        award(&created(passed)),
        "already_due: 5 points at 2026-11-01T00:00:00-04:00"
    );
}

#[test]
fn the_rule_version_in_force_when_it_was_earned_decides() {
    let mut row = purchase("m-instant");
    row.completed_at = Some(at("2026-12-31T16:59:59Z"));
    assert_eq!(
        award(&created(row.clone())),
        "due_now: 100 points at 2026-12-31T23:59:59+07:00"
    );
    row.completed_at = Some(at("2026-12-31T17:00:00Z"));
    assert_eq!(award(&created(row)), "due_now: 300 points at 2027-01-01T00:00:00+07:00");
}

#[test]
fn a_row_created_before_the_cut_off_is_ignored() {
    let mut rules = rules();
    rules.effective_from = Some(at("2026-11-20T10:00:00Z"));
    let now = at("2026-11-20T10:00:01Z");
    let mut row = purchase("m-instant");
    let on_time = decide(Consumer::Currency, &created(row.clone()), &rules, now);
    assert!(matches!(on_time, Decision::Deliver(_)), "{on_time:?}");
    row.created_at = at("2026-11-20T09:59:59.999Z");
    row.completed_at = Some(now);
    for consumer in [Consumer::Currency, Consumer::Tier, Consumer::Mission] {
        let decision = decide(consumer, &created(row.clone()), &rules, now);
        assert_eq!(decision, Decision::Ignore(Reason::BeforeCutOff));
    }
}

#[test]
fn what_cannot_be_decided_is_refused() {
    let with = |change: fn(&mut Purchase)| {
        let mut row = purchase("m-month");
        change(&mut row);
        decided(Consumer::Currency, &created(row))
    };
    let overflow = with(|row| row.final_amount = decimal("99999999999999"));
    assert_eq!(overflow, Decision::Refuse(Refusal::PointsOverflow));
    let negative = with(|row| row.refunded_amount = decimal("-1"));
    assert_eq!(negative, Decision::Refuse(Refusal::NegativeRefund));
    let late = with(|row| row.completed_at = Some(at("9999-12-15T00:00:00Z")));
    assert_eq!(late, Decision::Refuse(Refusal::DueTimeOutOfRange));
    let precise = with(|row| {
        row.final_amount = decimal("79228162514264337593543950335");
        row.refunded_amount = decimal("0.1");
    });
    assert_eq!(precise, Decision::Refuse(Refusal::AmountTooPrecise));
    // 11: proven at routing; here only that it is never guessed at.
    for op in [Op::Delete, Op::Truncate] {
        let mut change = created(purchase("m-instant"));
        change.op = op;
        assert_eq!(
            decided(Consumer::Currency, &change),
            Decision::Refuse(Refusal::LedgerRewritten)
        );
    }
}

#[test]
fn a_table_that_is_not_read_is_ignored() {
    let decision = decided(Consumer::Currency, &created(wallet_entry("m-instant", 5)));
    assert_eq!(decision, Decision::Ignore(Reason::NotInterested));
}

#[test]
fn lanes_are_picked_by_row_for_currency_and_by_member_for_the_others() {
    let one = created(purchase("m-instant"));
    let mut other_row = one.clone();
    other_row.row = Purchase {
        id: crate::rows::RowId::new("p-2").expect("not empty"),
        ..purchase("m-instant")
    }
    .into();
    let mut other_member = one.clone();
    other_member.row = Purchase {
        user_id: UserId::new("u-2").expect("not empty"),
        ..purchase("m-instant")
    }
    .into();
    assert_ne!(
        Consumer::Currency.lane_key(&one),
        Consumer::Currency.lane_key(&other_row)
    );
    assert_eq!(
        Consumer::Currency.lane_key(&one),
        Consumer::Currency.lane_key(&other_member)
    );
    for consumer in [Consumer::Tier, Consumer::Mission] {
        assert_eq!(consumer.lane_key(&one), consumer.lane_key(&other_row));
        assert_ne!(consumer.lane_key(&one), consumer.lane_key(&other_member));
    }
    assert_eq!(Consumer::ALL.map(Consumer::default_lanes), [5, 3, 3, 2, 2]);
    // Fixed for ever, as the state of lanes may one day be looked up by it.
    assert_snapshot!(Consumer::Currency.lane_key(&one), @r#"12059538474595541971"#);
}
