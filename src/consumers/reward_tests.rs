//! What the reward consumer decides. Numbers name the edge cases of the loyalty study.

use insta::assert_snapshot;

use super::fixtures::{
    created, decided, deliveries, mission_claim, purchase, referral, snapshot, told, told_briefly, updated,
    updated_blind, user,
};
use super::{Consumer, Proof};
use crate::rows::{ClaimStatus, MissionClaim, Referral, ReferralStatus, RowChange};

use ClaimStatus::{Claimed, Revoked};
use ReferralStatus::{Cancelled, Pending, Qualified};

fn reward(change: &RowChange) -> String {
    told_briefly(&decided(Consumer::Reward, change))
}

/// The member refers itself.
fn self_referral(status: ReferralStatus) -> Referral {
    Referral {
        referee_user_id: user("u-1"),
        ..referral(status)
    }
}

#[test]
fn a_claim_is_granted_with_its_whole_basis() {
    assert_snapshot!(told(&decided(Consumer::Reward, &created(mission_claim(Claimed)))), @r#"grant:k-1 reward:grant:mission_claims:k-1:41 {"id":"reward:grant:mission_claims:k-1:41","name":"loyalty/reward.granted","ts":1795168800000,"v":"2026-11-22.1","data":{"effect_key":"grant:k-1","source":"mission_claim","claim_id":"k-1","merchant_id":"m-instant","user_id":"u-1","mission_id":"spend","period":"2026-11","basis":{"user_id":"u-1","merchant_id":"m-instant","mission_id":"spend","status":"claimed","period":"2026-11"},"program_rev":0,"as_of_ms":1795168800000,"reason":"claimed"}}"#);
}

#[test]
fn a_claim_that_was_revoked_is_revoked_with_its_whole_basis() {
    let change = updated(mission_claim(Claimed), mission_claim(Revoked));
    assert_snapshot!(told(&decided(Consumer::Reward, &change)), @r#"grant:k-1 reward:grant:mission_claims:k-1:42 {"id":"reward:grant:mission_claims:k-1:42","name":"loyalty/reward.revoked","ts":1795168800000,"v":"2026-11-22.1","data":{"effect_key":"grant:k-1","source":"mission_claim","claim_id":"k-1","merchant_id":"m-instant","user_id":"u-1","mission_id":"spend","period":"2026-11","basis":{"user_id":"u-1","merchant_id":"m-instant","mission_id":"spend","status":"revoked","period":"2026-11"},"program_rev":0,"as_of_ms":1795168800000,"reason":"revoked"}}"#);
}

// 28: both sides, each with an effect, a claim and an event of its own.
#[test]
fn a_qualified_referral_is_granted_on_both_sides() {
    let change = updated(referral(Pending), referral(Qualified));
    assert_snapshot!(told(&decided(Consumer::Reward, &change)), @r#"
    referral:f-1:referrer reward:grant_referrer:referral_ledger:f-1:42 {"id":"reward:grant_referrer:referral_ledger:f-1:42","name":"loyalty/reward.granted","ts":1795168800000,"v":"2026-11-22.1","data":{"effect_key":"referral:f-1:referrer","source":"referral","referral_id":"f-1","side":"referrer","merchant_id":"m-instant","user_id":"u-1","basis":{"referrer_user_id":"u-1","referee_user_id":"u-2","merchant_id":"m-instant","status":"qualified"},"program_rev":0,"as_of_ms":1795168800000,"reason":"qualified"}}
    referral:f-1:referee reward:grant_referee:referral_ledger:f-1:42 {"id":"reward:grant_referee:referral_ledger:f-1:42","name":"loyalty/reward.granted","ts":1795168800000,"v":"2026-11-22.1","data":{"effect_key":"referral:f-1:referee","source":"referral","referral_id":"f-1","side":"referee","merchant_id":"m-instant","user_id":"u-2","basis":{"referrer_user_id":"u-1","referee_user_id":"u-2","merchant_id":"m-instant","status":"qualified"},"program_rev":0,"as_of_ms":1795168800000,"reason":"qualified"}}
    "#);
}

// 25: taken back once: the same target under the same key, whoever asks again.
#[test]
fn a_claim_stands_or_falls_by_its_own_status() {
    let granted = |reason, proof| format!("grant:k-1 loyalty/reward.granted {reason}, proof: {proof}");
    let revoked = |proof| format!("grant:k-1 loyalty/reward.revoked revoked, proof: {proof}");
    let other_period = MissionClaim {
        period: Some("2026-10".into()),
        ..mission_claim(Claimed)
    };
    let later = MissionClaim {
        claimed_at: None,
        ..mission_claim(Claimed)
    };
    for (change, expected) in [
        (created(mission_claim(Claimed)), granted("claimed", "change")),
        (created(mission_claim(Revoked)), "ignore revoked".to_owned()),
        (
            updated(mission_claim(Revoked), mission_claim(Claimed)),
            granted("claimed", "change"),
        ),
        (
            updated(mission_claim(Claimed), mission_claim(Claimed)),
            granted("unchanged_basis", "nothing"),
        ),
        // When it was claimed decides nothing.
        (
            updated(mission_claim(Claimed), later),
            granted("unchanged_basis", "nothing"),
        ),
        (
            updated(other_period, mission_claim(Claimed)),
            granted("claimed", "change"),
        ),
        (updated_blind(mission_claim(Claimed)), granted("claimed", "nothing")),
        (snapshot(mission_claim(Claimed)), granted("claimed", "nothing")),
        (
            updated(mission_claim(Claimed), mission_claim(Revoked)),
            revoked("change"),
        ),
        (
            updated(mission_claim(Revoked), mission_claim(Revoked)),
            "ignore was_zero_before".to_owned(),
        ),
        (updated_blind(mission_claim(Revoked)), revoked("nothing")),
        (snapshot(mission_claim(Revoked)), revoked("nothing")),
    ] {
        assert_eq!(reward(&change), expected, "{change:?}");
    }
}

// 28: a referral that is cancelled takes both sides back.
#[test]
fn a_referral_stands_or_falls_on_both_sides() {
    let both = |name, reason, proof| {
        let side = |side| format!("referral:f-1:{side} loyalty/reward.{name} {reason}, proof: {proof}");
        format!("{}; {}", side("referrer"), side("referee"))
    };
    for (change, expected) in [
        (created(referral(Qualified)), both("granted", "qualified", "change")),
        (created(referral(Pending)), "ignore pending".to_owned()),
        (created(referral(Cancelled)), "ignore cancelled".to_owned()),
        (
            updated(referral(Pending), referral(Qualified)),
            both("granted", "qualified", "change"),
        ),
        (
            updated(referral(Qualified), referral(Qualified)),
            both("granted", "unchanged_basis", "nothing"),
        ),
        (
            updated(referral(Pending), referral(Cancelled)),
            "ignore was_zero_before".to_owned(),
        ),
        (
            updated(referral(Qualified), referral(Cancelled)),
            both("revoked", "cancelled", "change"),
        ),
        (
            updated(referral(Qualified), referral(Pending)),
            both("revoked", "pending", "change"),
        ),
        (
            updated_blind(referral(Cancelled)),
            both("revoked", "cancelled", "nothing"),
        ),
        (snapshot(referral(Qualified)), both("granted", "qualified", "nothing")),
        (snapshot(referral(Pending)), both("revoked", "pending", "nothing")),
    ] {
        assert_eq!(reward(&change), expected, "{change:?}");
    }
}

// 28: self-referral.
#[test]
fn nobody_is_granted_anything_for_referring_oneself() {
    let both = |proof| {
        let side = |side| format!("referral:f-1:{side} loyalty/reward.revoked self_referral, proof: {proof}");
        format!("{}; {}", side("referrer"), side("referee"))
    };
    for (change, expected) in [
        (created(self_referral(Qualified)), "ignore self_referral".to_owned()),
        (
            updated(self_referral(Pending), self_referral(Qualified)),
            "ignore was_zero_before".to_owned(),
        ),
        (updated(referral(Qualified), self_referral(Qualified)), both("change")),
        (snapshot(self_referral(Qualified)), both("nothing")),
    ] {
        assert_eq!(reward(&change), expected, "{change:?}");
    }
}

#[test]
fn a_referral_whose_members_changed_is_granted_anew() {
    let of_another = Referral {
        referee_user_id: user("u-3"),
        ..referral(Qualified)
    };
    let effects = deliveries(decided(Consumer::Reward, &updated(referral(Qualified), of_another)));
    assert!(effects.iter().all(|effect| effect.proof == Proof::Change));
    let users: Vec<_> = effects.iter().map(|effect| effect.fact().user_id.cloned()).collect();
    assert_eq!(users, [Some(user("u-1")), Some(user("u-3"))]);
}

#[test]
fn other_tables_are_ignored() {
    assert_eq!(reward(&created(purchase("m-instant"))), "ignore not_interested");
    for consumer in [
        Consumer::Currency,
        Consumer::Tier,
        Consumer::Mission,
        Consumer::Marketplace,
    ] {
        for change in [created(mission_claim(Claimed)), created(referral(Qualified))] {
            assert_eq!(
                told(&decided(consumer, &change)),
                "ignore not_interested",
                "{consumer:?}"
            );
        }
    }
}
