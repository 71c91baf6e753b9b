//! What the marketplace consumer decides. Numbers name the edge cases of the loyalty study.

use insta::assert_snapshot;

use super::fixtures::{code, created, decided, snapshot, told, told_briefly, updated, updated_blind, user};
use super::{Consumer, fixtures};
use crate::rows::{Code, CodeStatus, RowChange};

use CodeStatus::{Expired, Issued, Redeemed, Void};

fn fulfilment(change: &RowChange) -> String {
    told_briefly(&decided(Consumer::Marketplace, change))
}

#[test]
fn a_redeemed_code_is_fulfilled_with_its_whole_basis_and_without_the_code() {
    assert_snapshot!(told(&decided(Consumer::Marketplace, &updated(code(Issued), code(Redeemed)))), @r#"code:c-1 marketplace:fulfil:codes:c-1:42 {"id":"marketplace:fulfil:codes:c-1:42","name":"loyalty/code.redeemed","ts":1795168800000,"v":"2026-11-22.1","data":{"effect_key":"code:c-1","code_id":"c-1","merchant_id":"m-instant","user_id":"u-1","redeemed_at":"2026-11-20T10:00:00Z","basis":{"merchant_id":"m-instant","user_id":"u-1","status":"redeemed","redeemed_at":"2026-11-20T10:00:00Z"},"as_of_ms":1795168800000,"reason":"redeemed"}}"#);
}

#[test]
fn a_code_that_is_nobodys_is_fulfilled_all_the_same() {
    let nobodys = Code {
        user_id: None,
        redeemed_at: None,
        ..code(Redeemed)
    };
    assert_snapshot!(told(&decided(Consumer::Marketplace, &created(nobodys))), @r#"code:c-1 marketplace:fulfil:codes:c-1:41 {"id":"marketplace:fulfil:codes:c-1:41","name":"loyalty/code.redeemed","ts":1795168800000,"v":"2026-11-22.1","data":{"effect_key":"code:c-1","code_id":"c-1","merchant_id":"m-instant","user_id":null,"redeemed_at":null,"basis":{"merchant_id":"m-instant","user_id":null,"status":"redeemed","redeemed_at":null},"as_of_ms":1795168800000,"reason":"redeemed"}}"#);
}

#[test]
fn only_a_code_that_is_redeemed_is_fulfilled_once_under_one_key() {
    let fulfil = |reason, proof| format!("code:c-1 loyalty/code.redeemed {reason}, proof: {proof}");
    let by_another = Code {
        user_id: Some(user("u-2")),
        ..code(Redeemed)
    };
    for (change, expected) in [
        (created(code(Redeemed)), fulfil("redeemed", "change")),
        (updated(code(Issued), code(Redeemed)), fulfil("redeemed", "change")),
        (
            updated(code(Redeemed), code(Redeemed)),
            fulfil("unchanged_basis", "nothing"),
        ),
        (updated(by_another, code(Redeemed)), fulfil("redeemed", "change")),
        (updated_blind(code(Redeemed)), fulfil("redeemed", "nothing")),
        (snapshot(code(Redeemed)), fulfil("redeemed", "nothing")),
        (created(code(Issued)), "ignore not_redeemed".to_owned()),
        (updated_blind(code(Expired)), "ignore expired".to_owned()),
        (updated(code(Issued), code(Void)), "ignore void".to_owned()),
        (snapshot(code(Void)), "ignore void".to_owned()),
    ] {
        assert_eq!(fulfilment(&change), expected, "{change:?}");
    }
}

// 29: what was fulfilled cannot be taken back, so a redemption that is cancelled later is ignored, with its own reason.
#[test]
fn a_code_that_was_redeemed_before_is_left_alone() {
    for status in [Issued, Expired, Void] {
        let change = updated(code(Redeemed), code(status));
        assert_eq!(fulfilment(&change), "ignore redeemed_before", "{status:?}");
    }
}

#[test]
fn other_tables_are_ignored() {
    let change = created(fixtures::purchase("m-instant"));
    assert_eq!(fulfilment(&change), "ignore not_interested");
    for consumer in [Consumer::Currency, Consumer::Tier, Consumer::Mission, Consumer::Reward] {
        let decision = decided(consumer, &created(code(Redeemed)));
        assert_eq!(told(&decision), "ignore not_interested", "{consumer:?}");
    }
}
