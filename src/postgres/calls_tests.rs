//! What the functions are called with, whole.

use insta::assert_snapshot;

use super::*;
use crate::consumers::fixtures::{created, form, purchase, refunded, rules, snapshot, updated};
use crate::consumers::{Consumer, Decision, decide};
use crate::rows::{Referral, ReferralStatus, RowChange};

fn effect(consumer: Consumer, change: &RowChange) -> Effect {
    let now = "2026-11-20T10:00:01Z".parse().expect("a time");
    match decide(consumer, change, &rules(), now) {
        Decision::Deliver(effects) => effects.into_iter().next().expect("at least one"),
        other => panic!("not delivered: {other:?}"),
    }
}

#[test]
fn a_comparison_has_what_an_award_says_of_its_fact() {
    let scheduled = effect(Consumer::Currency, &snapshot(purchase("m-rolling")));
    let cancelled = effect(Consumer::Currency, &snapshot(refunded("m-rolling", "100")));
    assert_snapshot!(compared(&[&scheduled, &cancelled]), @r#"[{"effect_key":"award:p-1","source_table":"purchase_ledger","source_id":"p-1","merchant_id":"m-rolling","user_id":"u-1","basis":{"user_id":"u-1","merchant_id":"m-rolling","final_amount":"100.00","refunded_amount":"0","status":"completed","earn_currency":true,"created_at":"2026-11-20T10:00:00Z","completed_at":null},"target":10,"due_at":"2026-12-04T11:00:00+01:00","program_rev":7},{"effect_key":"award:p-1","source_table":"purchase_ledger","source_id":"p-1","merchant_id":"m-rolling","user_id":"u-1","basis":{"user_id":"u-1","merchant_id":"m-rolling","final_amount":"100.00","refunded_amount":"100","status":"refunded","earn_currency":true,"created_at":"2026-11-20T10:00:00Z","completed_at":null},"target":0,"due_at":null,"program_rev":7}]"#);
    assert_snapshot!(compared(&[]), @"[]");
}

#[test]
fn a_row_older_than_the_cut_off_is_compared_under_the_key_by_which_it_may_be_known() {
    let mut tier = effect(Consumer::Tier, &created(purchase("m-instant")));
    tier.proof = Proof::IfKnown(EffectKey::award(&tier.source.row_id));
    assert_snapshot!(compared(&[&tier]), @r#"[{"effect_key":"award:p-1","source_table":"purchase_ledger","source_id":"p-1","merchant_id":"m-instant","user_id":"u-1","basis":null,"target":0,"due_at":null,"program_rev":1}]"#);
}

#[test]
fn a_tier_is_evaluated_by_its_rules_for_all_its_triggers() {
    let mut effect = effect(
        Consumer::Tier,
        &updated(purchase("m-instant"), refunded("m-instant", "40")),
    );
    effect.absorb([&self::effect(Consumer::Tier, &created(purchase("m-instant")))]);
    assert_snapshot!(tiers(&[&effect]), @r#"[{"merchant_id":"m-instant","user_id":"u-1","effect_key":"tier:m-instant:u-1","program_rev":1,"as_of_ms":1795168800000,"rules":{"metric":"spend","window":{"kind":"rolling_months","months":12},"time_zone":"Asia/Bangkok","timing":"immediate","ladder":[{"name":"gold","threshold":"1000"}]},"triggers":[{"table":"purchase_ledger","row_id":"p-1","version":"41","op":"c","at":"2026-11-20T10:00:00Z","due_at":null,"lowers":false},{"table":"purchase_ledger","row_id":"p-1","version":"42","op":"u","at":"2026-11-20T10:00:00Z","due_at":null,"lowers":true}]}]"#);
}

#[test]
fn a_scheduled_upgrade_has_the_due_time_of_each_trigger() {
    let entry = crate::consumers::fixtures::wallet_entry("m-rolling", 5);
    assert_snapshot!(tiers(&[&effect(Consumer::Tier, &created(entry))]), @r#"[{"merchant_id":"m-rolling","user_id":"u-1","effect_key":"tier:m-rolling:u-1","program_rev":7,"as_of_ms":1795168800000,"rules":{"metric":"points","window":{"kind":"calendar_year"},"time_zone":"Europe/Berlin","timing":"start_of_next_month","ladder":[{"name":"gold","threshold":"1000"}]},"triggers":[{"table":"wallet_ledger","row_id":"w-1","version":"41","op":"c","at":"2026-11-20T10:00:00Z","due_at":"2026-12-01T00:00:00+01:00","lowers":false}]}]"#);
}

#[test]
fn progress_has_the_row_it_was_decided_on() {
    let effects = [
        effect(Consumer::Mission, &created(purchase("m-instant"))),
        effect(Consumer::Mission, &created(form("m-rolling", "survey"))),
    ];
    assert_snapshot!(progress(&[&effects[0], &effects[1]]), @r#"[{"merchant_id":"m-instant","user_id":"u-1","effect_key":"mission_source:m-instant:u-1:purchase_ledger:p-1","source":{"table":"purchase_ledger","row_id":"p-1","version":"41","op":"c"},"missions":[{"mission_id":"spend","effect_key":"mission:m-instant:spend:u-1:2026-11","period":"2026-11","trigger":"purchase_total","counted":"100.00","target":"500"},{"mission_id":"visits","effect_key":"mission:m-instant:visits:u-1:lifetime","period":"lifetime","trigger":"purchase_count","counted":"1","target":"3"}],"program_rev":1,"as_of_ms":1795168800000,"reason":"counted","basis":{"user_id":"u-1","merchant_id":"m-instant","final_amount":"100.00","refunded_amount":"0","status":"completed","earn_currency":true,"created_at":"2026-11-20T10:00:00Z","completed_at":null}},{"merchant_id":"m-rolling","user_id":"u-1","effect_key":"mission_source:m-rolling:u-1:form_submissions:f-1","source":{"table":"form_submissions","row_id":"f-1","version":"41","op":"c"},"missions":[{"mission_id":"survey","effect_key":"mission:m-rolling:survey:u-1:lifetime","period":"lifetime","trigger":"form","counted":"1","target":"1"}],"program_rev":7,"as_of_ms":1795168800000,"reason":"counted","basis":{"form_id":"survey","user_id":"u-1","merchant_id":"m-rolling","submitted_at":"2026-11-20T10:00:00Z"}}]"#);
}

#[test]
fn a_call_takes_only_what_is_its_business() {
    let tier = effect(Consumer::Tier, &created(purchase("m-instant")));
    let mission = effect(Consumer::Mission, &created(purchase("m-instant")));
    assert_eq!(tiers(&[&mission]), "[]");
    assert_eq!(progress(&[&tier]), "[]");
}

#[test]
fn a_burial_has_its_reason_and_every_effect_that_rests_on_the_row_alone() {
    let row = purchase("m-rolling").into();
    let dead = |consumer| buried(consumer, &row, "inngest_rejected").unwrap_or_default();
    assert_snapshot!(dead(Consumer::Currency), @r#"[{"effect_key":"award:p-1","source_table":"purchase_ledger","source_id":"p-1","merchant_id":"m-rolling","user_id":"u-1","basis":{"user_id":"u-1","merchant_id":"m-rolling","final_amount":"100.00","refunded_amount":"0","status":"completed","earn_currency":true,"created_at":"2026-11-20T10:00:00Z","completed_at":null},"reason":"inngest_rejected"}]"#);
    assert_snapshot!(dead(Consumer::Mission), @r#"[{"effect_key":"mission_source:m-rolling:u-1:purchase_ledger:p-1","source_table":"purchase_ledger","source_id":"p-1","merchant_id":"m-rolling","user_id":"u-1","basis":{"user_id":"u-1","merchant_id":"m-rolling","final_amount":"100.00","refunded_amount":"0","status":"completed","earn_currency":true,"created_at":"2026-11-20T10:00:00Z","completed_at":null},"reason":"inngest_rejected"}]"#);
    // A tier rests on many rows.
    assert_eq!(dead(Consumer::Tier), "");
    let referral = Row::Referral(Referral {
        id: RowId::new("r-1").expect("not empty"),
        referrer_user_id: UserId::new("u-1").expect("not empty"),
        referee_user_id: UserId::new("u-2").expect("not empty"),
        merchant_id: MerchantId::new("m").expect("not empty"),
        status: ReferralStatus::Qualified,
        created_at: Timestamp::UNIX_EPOCH,
    });
    let both = buried(Consumer::Reward, &referral, "rejected").unwrap_or_default();
    assert_snapshot!(both, @r#"[{"effect_key":"referral:r-1:referrer","source_table":"referral_ledger","source_id":"r-1","merchant_id":"m","user_id":"u-1","basis":{"referrer_user_id":"u-1","referee_user_id":"u-2","merchant_id":"m","status":"qualified"},"reason":"rejected"},{"effect_key":"referral:r-1:referee","source_table":"referral_ledger","source_id":"r-1","merchant_id":"m","user_id":"u-2","basis":{"referrer_user_id":"u-1","referee_user_id":"u-2","merchant_id":"m","status":"qualified"},"reason":"rejected"}]"#);
}
