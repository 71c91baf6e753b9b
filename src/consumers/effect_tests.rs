//! What proves that an effect is new, what it says of its fact, and which must be compared with `effects` first.

use insta::assert_snapshot;

use super::fixtures::{
    COMMIT_MS, at, code, created, decided, decimal, deliveries, form, mission_claim, pending, purchase, referral,
    refunded, rules, snapshot, told_briefly, updated, updated_blind, wallet_entry,
};
use super::{Consumer, Decision, EffectKey, Proof, Reason, Refusal, Rules, decide, needs_effects_check};
use crate::debezium::Op;
use crate::rows::{ClaimStatus, Code, CodeStatus, MissionClaim, Purchase, ReferralStatus, RowChange};

fn proofs(consumer: Consumer, change: &RowChange) -> Vec<Proof> {
    let effects = deliveries(decided(consumer, change));
    effects.iter().map(|effect| effect.proof.clone()).collect()
}

// 3, 4: a repetition proves nothing. 12: neither does a snapshot. 33: neither does an update without its old image.
#[test]
fn only_a_new_row_and_an_old_image_that_counts_for_something_else_prove_a_change() {
    let cheaper = Purchase {
        final_amount: decimal("90"),
        ..purchase("m-instant")
    };
    for consumer in [Consumer::Currency, Consumer::Mission] {
        for (change, proof) in [
            (created(purchase("m-instant")), Proof::Change),
            (updated(pending("m-instant"), purchase("m-instant")), Proof::Change),
            (updated(cheaper.clone(), purchase("m-instant")), Proof::Change),
            (updated(purchase("m-instant"), purchase("m-instant")), Proof::Nothing),
            (updated_blind(purchase("m-instant")), Proof::Nothing),
            (snapshot(purchase("m-instant")), Proof::Nothing),
            // A target of zero.
            (
                updated(purchase("m-instant"), refunded("m-instant", "100")),
                Proof::Change,
            ),
            (updated_blind(refunded("m-instant", "100")), Proof::Nothing),
            (snapshot(refunded("m-instant", "100")), Proof::Nothing),
        ] {
            assert_eq!(proofs(consumer, &change), [proof], "{consumer:?}: {change:?}");
        }
    }
}

// 12: the cut-off, with and without a database that knows what was there before it.
#[test]
fn a_row_older_than_the_cut_off_is_decided_only_for_a_database_that_may_know_it() {
    let cut_off = at("2026-11-20T10:00:00.000001Z");
    let now = at("2026-11-20T10:00:01Z");
    let without = Rules {
        effective_from: Some(cut_off),
        ..rules()
    };
    let with = Rules {
        database: true,
        ..without.clone()
    };
    let known = |key: &str, rest: &str| format!("{rest}, proof: if {key} is known");
    for (consumer, change, expected) in [
        (
            Consumer::Currency,
            created(purchase("m-instant")),
            known("award:p-1", "award:p-1 loyalty/award.scheduled due_now"),
        ),
        // Seeding knows a purchase by its award, whoever asks.
        (
            Consumer::Tier,
            created(purchase("m-instant")),
            known(
                "award:p-1",
                "tier:m-instant:u-1 loyalty/tier.evaluation_requested spend_may_have_changed",
            ),
        ),
        (
            Consumer::Mission,
            created(purchase("m-instant")),
            known(
                "award:p-1",
                "mission_source:m-instant:u-1:purchase_ledger:p-1 loyalty/mission.evaluation_requested counted",
            ),
        ),
        (
            Consumer::Reward,
            created(mission_claim(ClaimStatus::Claimed)),
            known("grant:k-1", "grant:k-1 loyalty/reward.granted claimed"),
        ),
        (
            Consumer::Reward,
            created(referral(ReferralStatus::Qualified)),
            format!(
                "{}; {}",
                known(
                    "referral:f-1:referrer",
                    "referral:f-1:referrer loyalty/reward.granted qualified"
                ),
                known(
                    "referral:f-1:referee",
                    "referral:f-1:referee loyalty/reward.granted qualified"
                )
            ),
        ),
        (
            Consumer::Marketplace,
            created(code(CodeStatus::Redeemed)),
            known("code:c-1", "code:c-1 loyalty/code.redeemed redeemed"),
        ),
        (
            Consumer::Tier,
            created(wallet_entry("m-rolling", 5)),
            "ignore before_cut_off".to_owned(),
        ),
        (
            Consumer::Mission,
            created(form("m-instant", "survey")),
            "ignore before_cut_off".to_owned(),
        ),
    ] {
        assert_eq!(
            told_briefly(&decide(consumer, &change, &with, now)),
            expected,
            "{change:?}"
        );
        assert_eq!(
            decide(consumer, &change, &without, now),
            Decision::Ignore(Reason::BeforeCutOff),
            "{change:?}"
        );
    }
}

// A claim without `claimed_at` and a code without `redeemed_at` do not tell when they came to be. Their change does, if it shows that
// they count only since then; of what a snapshot brings `effects` alone can tell that it is ours.
#[test]
fn a_row_that_does_not_tell_its_age_is_as_old_as_a_change_that_it_begins_with() {
    let claim = |status, period: &str| MissionClaim {
        claimed_at: None,
        period: Some(period.into()),
        ..mission_claim(status)
    };
    let claimed = || claim(ClaimStatus::Claimed, "2026-11");
    let redeemed = || Code {
        redeemed_at: None,
        ..code(CodeStatus::Redeemed)
    };
    let of_another = Code {
        user_id: None,
        ..redeemed()
    };
    let proof = |consumer, change: &RowChange, cut_off: &str, database| {
        let rules = Rules {
            effective_from: Some(at(cut_off)),
            database,
            ..rules()
        };
        match decide(consumer, change, &rules, at("2026-11-20T10:00:01Z")) {
            Decision::Deliver(effects) => effects.iter().next().map(|effect| effect.proof.clone()),
            decision => {
                assert_eq!(decision, Decision::Ignore(Reason::BeforeCutOff));
                None
            }
        }
    };
    let (before, after) = ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00.001Z");
    let issued = code(CodeStatus::Issued);
    let revoked = || claim(ClaimStatus::Revoked, "2026-11");
    for (consumer, change, begins) in [
        (Consumer::Reward, created(claimed()), true),
        (Consumer::Reward, updated(revoked(), claimed()), true),
        (
            Consumer::Reward,
            updated(claim(ClaimStatus::Claimed, "2026-10"), claimed()),
            false,
        ),
        (Consumer::Reward, updated(claimed(), revoked()), false),
        (Consumer::Reward, updated_blind(claimed()), false),
        (Consumer::Reward, snapshot(claimed()), false),
        (Consumer::Marketplace, updated(issued, redeemed()), true),
        (Consumer::Marketplace, updated(of_another, redeemed()), false),
        (Consumer::Marketplace, updated_blind(redeemed()), false),
        (Consumer::Marketplace, snapshot(redeemed()), false),
    ] {
        let if_known = Some(Proof::IfKnown(match consumer {
            Consumer::Reward => EffectKey::grant(change.row.id()),
            _ => EffectKey::code(change.row.id()),
        }));
        let expected = if begins { &Some(Proof::Change) } else { &if_known };
        assert_eq!(&proof(consumer, &change, before, true), expected, "{change:?}");
        assert_eq!(proof(consumer, &change, after, true), if_known, "{change:?}");
        // Nobody could say that it is known: it is as old as its change.
        let alone = proof(consumer, &change, before, false);
        assert!(alone.is_some() && alone != if_known, "{change:?}");
        assert_eq!(proof(consumer, &change, after, false), None, "{change:?}");
    }
}

#[test]
fn a_row_older_than_the_cut_off_that_cannot_be_decided_is_refused_only_if_it_is_known() {
    let rules = Rules {
        effective_from: Some(at("2026-11-21T00:00:00Z")),
        database: true,
        ..rules()
    };
    let change = snapshot(refunded("m-instant", "-1"));
    for consumer in [Consumer::Currency, Consumer::Mission] {
        let decision = decide(consumer, &change, &rules, at("2026-11-21T10:00:00Z"));
        let key = EffectKey::award(change.row.id());
        assert_eq!(decision, Decision::RefuseIfKnown(Refusal::NegativeRefund, key));
    }
}

#[test]
fn an_effect_says_all_of_its_fact_that_a_comparison_needs() {
    let mut lines = Vec::new();
    for (consumer, change) in [
        (Consumer::Currency, created(purchase("m-rolling"))),
        (Consumer::Currency, updated_blind(refunded("m-instant", "100"))),
        (Consumer::Tier, created(purchase("m-instant"))),
        (Consumer::Mission, created(form("m-instant", "survey"))),
        (Consumer::Reward, created(mission_claim(ClaimStatus::Claimed))),
        (Consumer::Reward, updated_blind(referral(ReferralStatus::Cancelled))),
        (Consumer::Marketplace, created(code(CodeStatus::Redeemed))),
    ] {
        for effect in &deliveries(decided(consumer, &change)).into_iter().collect::<Vec<_>>() {
            lines.push(serde_json::to_string(&effect.fact()).expect("JSON"));
        }
    }
    assert_snapshot!(lines.join("\n"), @r#"
    {"effect_key":"award:p-1","source_table":"purchase_ledger","source_id":"p-1","merchant_id":"m-rolling","user_id":"u-1","basis":{"user_id":"u-1","merchant_id":"m-rolling","final_amount":"100.00","refunded_amount":"0","status":"completed","earn_currency":true,"created_at":"2026-11-20T10:00:00Z","completed_at":null},"target":10,"due_at":"2026-12-04T11:00:00+01:00","program_rev":7}
    {"effect_key":"award:p-1","source_table":"purchase_ledger","source_id":"p-1","merchant_id":"m-instant","user_id":"u-1","basis":{"user_id":"u-1","merchant_id":"m-instant","final_amount":"100.00","refunded_amount":"100","status":"refunded","earn_currency":true,"created_at":"2026-11-20T10:00:00Z","completed_at":null},"target":0,"due_at":null,"program_rev":1}
    {"effect_key":"tier:m-instant:u-1","source_table":"purchase_ledger","source_id":"p-1","merchant_id":"m-instant","user_id":"u-1","basis":null,"target":0,"due_at":null,"program_rev":1}
    {"effect_key":"mission_source:m-instant:u-1:form_submissions:f-1","source_table":"form_submissions","source_id":"f-1","merchant_id":"m-instant","user_id":"u-1","basis":{"form_id":"survey","user_id":"u-1","merchant_id":"m-instant","submitted_at":"2026-11-20T10:00:00Z"},"target":0,"due_at":null,"program_rev":1}
    {"effect_key":"grant:k-1","source_table":"mission_claims","source_id":"k-1","merchant_id":"m-instant","user_id":"u-1","basis":{"user_id":"u-1","merchant_id":"m-instant","mission_id":"spend","status":"claimed","period":"2026-11"},"target":1,"due_at":null,"program_rev":0}
    {"effect_key":"referral:f-1:referrer","source_table":"referral_ledger","source_id":"f-1","merchant_id":"m-instant","user_id":"u-1","basis":{"referrer_user_id":"u-1","referee_user_id":"u-2","merchant_id":"m-instant","status":"cancelled"},"target":0,"due_at":null,"program_rev":0}
    {"effect_key":"referral:f-1:referee","source_table":"referral_ledger","source_id":"f-1","merchant_id":"m-instant","user_id":"u-2","basis":{"referrer_user_id":"u-1","referee_user_id":"u-2","merchant_id":"m-instant","status":"cancelled"},"target":0,"due_at":null,"program_rev":0}
    {"effect_key":"code:c-1","source_table":"codes","source_id":"c-1","merchant_id":"m-instant","user_id":"u-1","basis":{"merchant_id":"m-instant","user_id":"u-1","status":"redeemed","redeemed_at":"2026-11-20T10:00:00Z"},"target":1,"due_at":null,"program_rev":0}
    "#);
}

#[test]
fn what_the_change_does_not_prove_and_what_is_old_needs_a_look_into_effects_but_no_tier() {
    let hours = |hours: i64| COMMIT_MS + hours * 60 * 60 * 1000;
    let grants = [
        (Consumer::Currency, created(purchase("m-instant"))),
        (Consumer::Mission, created(form("m-instant", "survey"))),
        (Consumer::Reward, created(mission_claim(ClaimStatus::Claimed))),
        (Consumer::Reward, created(referral(ReferralStatus::Qualified))),
        (Consumer::Marketplace, created(code(CodeStatus::Redeemed))),
    ];
    let needs = |consumer: Consumer, change: &RowChange, now_ms: i64| -> Vec<bool> {
        let effects = deliveries(decided(consumer, change));
        let needs = |effect| needs_effects_check(effect, change.op, change.commit_ms, now_ms);
        effects.iter().map(needs).collect()
    };
    for (consumer, new) in grants {
        let mut read = new.clone();
        read.op = Op::Read;
        let mut blind = new.clone();
        blind.op = Op::Update;
        let all = |expected: bool| vec![expected; deliveries(decided(consumer, &new)).iter().count()];
        assert_eq!(needs(consumer, &new, hours(20)), all(false), "{new:?}");
        assert_eq!(needs(consumer, &new, hours(20) + 1), all(true), "old: {new:?}");
        assert_eq!(needs(consumer, &read, hours(0)), all(true), "{read:?}");
        assert_eq!(needs(consumer, &blind, hours(0)), all(true), "{blind:?}");
        // A clock that is behind makes nothing old.
        assert_eq!(needs(consumer, &new, hours(-1)), all(false), "{new:?}");
    }
    let tier = snapshot(purchase("m-instant"));
    assert_eq!(needs(Consumer::Tier, &tier, hours(1000)), [false]);
}
