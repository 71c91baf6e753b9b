//! Properties of award decisions over random purchases and rules. A failure prints its seed; regressions are committed.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may fail by panicking"
)]

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::fixtures::{created, delivered, purchase, updated_blind};
use super::{Consumer, Decision, Rules, decide};
use crate::inngest::EventData;
use crate::loyalty::{Activation, Programs, Rounding, due_at, points_for, remaining};
use crate::rows::{Purchase, PurchaseStatus};

const ACTIVATIONS: [&str; 4] = [
    r#"{"kind":"immediate"}"#,
    r#"{"kind":"rolling_days","days":17}"#,
    r#"{"kind":"on","date":"2026-12-24"}"#,
    r#"{"kind":"start_of_next_month"}"#,
];
const ROUNDINGS: [&str; 4] = ["floor", "half_up", "half_even", "ceil"];
const ZONES: [&str; 5] = [
    "UTC",
    "Europe/Berlin",
    "Asia/Bangkok",
    "America/Sao_Paulo",
    "Pacific/Apia",
];

fn rules(rate: Decimal, rounding: &str, activation: &str, zone: &str) -> Rules {
    let text = format!(
        r#"{{"programs":[{{"merchant_id":"*","time_zone":"{zone}","versions":[{{"rev":1,"effective_from":"1970-01-02",
        "refund_policy":"unlimited","currency":{{"rate":"{rate}","rounding":"{rounding}","activation":{activation}}}}}]}}]}}"#
    );
    Rules::new(Programs::from_json(&text).expect("a valid program").into(), None)
}

fn any_purchase() -> impl Strategy<Value = Purchase> {
    let status = prop_oneof![
        Just(PurchaseStatus::Pending),
        Just(PurchaseStatus::Completed),
        Just(PurchaseStatus::PartiallyRefunded),
        Just(PurchaseStatus::Refunded),
        Just(PurchaseStatus::Cancelled),
    ];
    let time = 86_400_000_i64..4_000_000_000_000;
    (
        -1000_i64..100_000_000,
        0_i64..100_000_000,
        0_u32..4,
        status,
        any::<bool>(),
        time.clone(),
        proptest::option::of(time),
    )
        .prop_map(
            |(amount, refund, scale, status, earn_currency, created, completed)| Purchase {
                final_amount: Decimal::new(amount, scale),
                refunded_amount: Decimal::new(refund, scale),
                status,
                earn_currency,
                created_at: Timestamp::from_millisecond(created).expect("in range"),
                completed_at: completed.map(|ms| Timestamp::from_millisecond(ms).expect("in range")),
                ..purchase("m")
            },
        )
}

fn target(row: Purchase, rules: &Rules) -> i64 {
    match decide(Consumer::Currency, &updated_blind(row), rules, Timestamp::UNIX_EPOCH) {
        Decision::Deliver(effects) => match delivered(Decision::Deliver(effects)).event.data {
            EventData::AwardScheduled { target_points, .. } => target_points.get(),
            EventData::AwardCancelled(_) => 0,
            other => panic!("not an award: {other:?}"),
        },
        other => panic!("an update without its old image is delivered: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_target_is_never_negative_and_never_more_than_the_unrefunded_amount_gives(
        row in any_purchase(), rate in 0_i64..1_000_000, rounding in 0_usize..4, activation in 0_usize..4,
    ) {
        let rate = Decimal::new(rate, 4);
        let rules = rules(rate, ROUNDINGS[rounding], ACTIVATIONS[activation], "Asia/Bangkok");
        let left = remaining(row.final_amount, row.refunded_amount).expect("exact");
        let most = points_for(left, rate, Rounding::Ceil).expect("fits").get();
        let target = target(row, &rules);
        prop_assert!((0..=most).contains(&target), "{target} of {most}");
    }

    #[test]
    fn more_refunded_never_gives_more(row in any_purchase(), more in 0_i64..100_000, rounding in 0_usize..4) {
        let rules = rules(Decimal::new(37, 2), ROUNDINGS[rounding], ACTIVATIONS[0], "UTC");
        let mut refunded = row.clone();
        refunded.refunded_amount += Decimal::new(more, 2);
        prop_assert!(target(refunded, &rules) <= target(row, &rules));
    }

    #[test]
    fn points_are_never_due_before_they_are_earned_except_on_a_fixed_date(
        ms in 86_400_000_i64..4_000_000_000_000, days in 1_u32..800, zone in 0_usize..5,
    ) {
        let earned = Timestamp::from_millisecond(ms).expect("in range");
        let zone = TimeZone::get(ZONES[zone]).expect("a zone");
        for activation in [Activation::Immediate, Activation::RollingDays(days), Activation::StartOfNextMonth] {
            let due = due_at(activation, earned, &zone).expect("in range").timestamp();
            prop_assert!(due >= earned, "{activation:?}: {due} before {earned}");
        }
    }

    #[test]
    fn the_same_input_gives_the_same_decision_for_every_consumer(
        row in any_purchase(), activation in 0_usize..4, now in 0_i64..4_000_000_000_000,
    ) {
        let rules = rules(Decimal::ONE, "half_even", ACTIVATIONS[activation], "Europe/Berlin");
        let now = Timestamp::from_millisecond(now).expect("in range");
        for consumer in Consumer::ALL {
            for change in [created(row.clone()), updated_blind(row.clone())] {
                prop_assert_eq!(decide(consumer, &change, &rules, now), decide(consumer, &change, &rules.clone(), now));
            }
        }
    }
}
