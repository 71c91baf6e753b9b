//! Upgrades at the start of a month: what waits for which month, and what is left of it then.

use serde_json::{Value, json};

use super::tiers::{KEY, element, evaluate_with, it_is, lifetime, news, rules, said, spends, tier, trigger};
use super::{Database, Purchase};

#[tokio::test]
async fn an_upgrade_waits_for_the_start_of_the_month_and_is_evaluated_again() {
    let db = Database::new().await;
    it_is(&db, "2027-03-10T00:00:00Z").await;
    let rules = lifetime("start_of_next_month");
    let (at, due) = ("2027-03-09T10:00:00Z", "2027-04-01T00:00:00+07:00");
    let call = element(&rules, 1, &json!([trigger(at, Some(due), false)]));
    spends(&db, "a", "150", at).await;
    let scheduled = db.own.announcing("evaluate_tiers", &json!([call])).await;
    assert_eq!(
        scheduled.iter().map(said).collect::<Vec<_>>(),
        news("tier_upgrade.scheduled", "silver")
    );
    assert_eq!(scheduled[0]["data"]["due_at"], "2027-03-31T17:00:00.000000Z");
    db.own.announced(&scheduled).await;
    assert_eq!(
        evaluate_with(&db, &call).await,
        [],
        "an upgrade that is scheduled stays"
    );
    assert_eq!(
        db.own.announcing("upgrade_tier", &json!(KEY)).await,
        Vec::<Value>::new(),
        "not due"
    );
    assert_eq!(tier(&db).await, "none");
    // Edge case 23: what re-qualifies meanwhile is no second upgrade; a higher tier takes the place.
    spends(&db, "b", "400", at).await;
    assert_eq!(evaluate_with(&db, &call).await, news("tier_upgrade.scheduled", "gold"));
    it_is(&db, "2027-04-01T00:00:00+07:00").await;
    let upgraded = db.own.announcing("upgrade_tier", &json!(KEY)).await;
    assert_eq!(
        upgraded.iter().map(said).collect::<Vec<_>>(),
        news("tier.upgraded", "gold")
    );
    assert_eq!(
        db.own.announcing("upgrade_tier", &json!(KEY)).await,
        upgraded,
        "its answer was lost"
    );
    db.own.announced(&upgraded).await;
    assert_eq!(
        db.own.announcing("upgrade_tier", &json!(KEY)).await,
        Vec::<Value>::new()
    );
    assert_eq!(
        (tier(&db).await.as_str(), &db.own.effect(KEY).await["state"]),
        ("gold", &json!("settled"))
    );
    db.done().await;
}

#[tokio::test]
async fn an_upgrade_that_is_no_longer_deserved_at_its_time_is_lower_or_none() {
    for (refund, expected, tier_then) in [("60", vec![], "none"), ("0", news("tier.upgraded", "silver"), "silver")] {
        let db = Database::new().await;
        it_is(&db, "2027-03-10T00:00:00Z").await;
        let (at, due) = ("2027-03-09T10:00:00Z", "2027-04-01T00:00:00+07:00");
        let call = element(
            &lifetime("start_of_next_month"),
            1,
            &json!([trigger(at, Some(due), true)]),
        );
        spends(&db, "a", "150", at).await;
        spends(&db, "b", "400", at).await;
        assert_eq!(evaluate_with(&db, &call).await, news("tier_upgrade.scheduled", "gold"));
        db.own
            .run(&Purchase::new("b").worth("400").refunded("400", "refunded").at(at).sql())
            .await;
        db.own
            .run(
                &Purchase::new("a")
                    .worth("150")
                    .refunded(refund, "partially_refunded")
                    .at(at)
                    .sql(),
            )
            .await;
        assert_eq!(evaluate_with(&db, &call).await, [], "left to its time");
        it_is(&db, "2027-04-02T00:00:00Z").await;
        let upgraded = db.own.announcing("upgrade_tier", &json!(KEY)).await;
        assert_eq!(upgraded.iter().map(said).collect::<Vec<_>>(), expected);
        assert_eq!(
            (tier(&db).await.as_str(), &db.own.effect(KEY).await["state"]),
            (tier_then, &json!("settled"))
        );
        db.done().await;
    }
}

#[tokio::test]
async fn an_upgrade_of_december_is_still_deserved_in_january() {
    let db = Database::new().await;
    it_is(&db, "2026-12-20T00:00:00Z").await;
    let rules = rules(&json!({"kind": "calendar_year"}), "start_of_next_month");
    let (at, due) = ("2026-12-19T00:00:00Z", "2027-01-01T00:00:00+07:00");
    spends(&db, "a", "150", at).await;
    let call = element(&rules, 1, &json!([trigger(at, Some(due), false)]));
    assert_eq!(
        evaluate_with(&db, &call).await,
        news("tier_upgrade.scheduled", "silver")
    );
    it_is(&db, "2027-01-01T00:00:00+07:00").await;
    let upgraded = db.own.announcing("upgrade_tier", &json!(KEY)).await;
    assert_eq!(
        upgraded.iter().map(said).collect::<Vec<_>>(),
        news("tier.upgraded", "silver")
    );
    db.done().await;
}

// Edge case 35: the time has passed already, so it is now, once.
#[tokio::test]
async fn an_upgrade_whose_month_has_begun_is_made_at_once() {
    let db = Database::new().await;
    it_is(&db, "2027-04-10T00:00:00Z").await;
    spends(&db, "a", "150", "2027-03-09T10:00:00Z").await;
    let late = trigger("2027-03-09T10:00:00Z", Some("2027-04-01T00:00:00+07:00"), false);
    let call = element(&lifetime("start_of_next_month"), 1, &json!([late]));
    assert_eq!(evaluate_with(&db, &call).await, news("tier.upgraded", "silver"));
    assert_eq!(evaluate_with(&db, &call).await, []);
    db.done().await;
}

#[tokio::test]
async fn a_scheduled_upgrade_that_nobody_made_is_made_by_the_next_evaluation() {
    let db = Database::new().await;
    it_is(&db, "2027-03-10T00:00:00Z").await;
    let rules = lifetime("start_of_next_month");
    let at = "2027-03-09T10:00:00Z";
    spends(&db, "a", "150", at).await;
    let march = element(
        &rules,
        1,
        &json!([trigger(at, Some("2027-04-01T00:00:00+07:00"), false)]),
    );
    evaluate_with(&db, &march).await;
    it_is(&db, "2027-04-05T00:00:00Z").await;
    spends(&db, "b", "400", "2027-04-04T00:00:00Z").await;
    let april = element(
        &rules,
        1,
        &json!([trigger(
            "2027-04-04T00:00:00Z",
            Some("2027-05-01T00:00:00+07:00"),
            false
        )]),
    );
    let both = vec![
        ("tier.upgraded".to_owned(), "silver".to_owned()),
        ("tier_upgrade.scheduled".to_owned(), "gold".to_owned()),
    ];
    assert_eq!(
        evaluate_with(&db, &april).await,
        both,
        "what was due first, and no further than it was scheduled"
    );
    assert_eq!(tier(&db).await, "silver");
    db.done().await;
}

// Rows of a member lie in different partitions: the old one may be evaluated after the new one was committed.
#[tokio::test]
async fn what_was_earned_this_month_waits_for_the_next_whichever_row_is_evaluated() {
    let rules = lifetime("start_of_next_month");
    let january = trigger("2027-01-20T10:00:00Z", Some("2027-02-01T00:00:00+07:00"), false);
    let february = trigger("2027-02-10T00:00:00Z", Some("2027-03-01T00:00:00+07:00"), false);
    for triggers in [json!([january]), json!([february]), json!([january, february])] {
        let db = Database::new().await;
        it_is(&db, "2027-02-10T00:00:00Z").await;
        spends(&db, "a", "95", "2027-01-20T10:00:00Z").await;
        spends(&db, "b", "10", "2027-02-10T00:00:00Z").await;
        let call = element(&rules, 1, &triggers);
        let scheduled = db.own.announcing("evaluate_tiers", &json!([call])).await;
        assert_eq!(
            scheduled.iter().map(said).collect::<Vec<_>>(),
            news("tier_upgrade.scheduled", "silver"),
            "{triggers}"
        );
        assert_eq!(scheduled[0]["data"]["due_at"], "2027-02-28T17:00:00.000000Z");
        db.own.announced(&scheduled).await;
        // A row of January that comes late: now it is deserved since the first of February.
        spends(&db, "late", "5", "2027-01-31T16:59:59Z").await;
        assert_eq!(evaluate_with(&db, &call).await, news("tier.upgraded", "silver"));
        // And gold by this month's row waits as any other.
        spends(&db, "c", "400", "2027-01-31T17:00:00Z").await;
        assert_eq!(evaluate_with(&db, &call).await, news("tier_upgrade.scheduled", "gold"));
        assert_eq!(tier(&db).await, "silver");
        db.done().await;
    }
}

#[tokio::test]
async fn one_evaluation_makes_the_step_that_is_due_and_schedules_the_one_that_is_not() {
    let db = Database::new().await;
    it_is(&db, "2027-02-10T00:00:00Z").await;
    spends(&db, "a", "150", "2027-01-20T10:00:00Z").await;
    spends(&db, "b", "400", "2027-02-09T00:00:00Z").await;
    let january = trigger("2027-01-20T10:00:00Z", Some("2027-02-01T00:00:00+07:00"), false);
    let call = element(&lifetime("start_of_next_month"), 1, &json!([january]));
    let both = vec![
        ("tier.upgraded".to_owned(), "silver".to_owned()),
        ("tier_upgrade.scheduled".to_owned(), "gold".to_owned()),
    ];
    assert_eq!(evaluate_with(&db, &call).await, both);
    assert_eq!(evaluate_with(&db, &call).await, [], "once");
    it_is(&db, "2027-03-01T00:00:00+07:00").await;
    let upgraded = db.own.announcing("upgrade_tier", &json!(KEY)).await;
    assert_eq!(
        upgraded.iter().map(said).collect::<Vec<_>>(),
        news("tier.upgraded", "gold")
    );
    db.done().await;
}

// Points taken back this month are gone, though at the start of the month they were there.
#[tokio::test]
async fn what_was_taken_back_since_the_month_began_lifts_nobody() {
    let db = Database::new().await;
    it_is(&db, "2027-02-10T00:00:00Z").await;
    let mut rules = lifetime("start_of_next_month");
    rules["metric"] = json!("points");
    let entry = |amount: i64, kind: &str, at: &str| {
        format!(
            "insert into wallet_ledger (user_id, merchant_id, amount, kind, created_at) values ('u-1', 'm-1', {amount}, '{kind}', '{at}')"
        )
    };
    db.own.run(&entry(110, "earn", "2027-01-20T10:00:00Z")).await;
    db.own.run(&entry(-20, "clawback", "2027-02-05T10:00:00Z")).await;
    let january = trigger("2027-01-20T10:00:00Z", Some("2027-02-01T00:00:00+07:00"), false);
    assert_eq!(evaluate_with(&db, &element(&rules, 1, &json!([january]))).await, []);
    db.done().await;
}

#[tokio::test]
async fn a_review_that_was_asked_for_outlasts_an_upgrade_that_is_no_longer_deserved() {
    let db = Database::new().await;
    it_is(&db, "2027-03-10T00:00:00Z").await;
    let (at, due) = ("2027-03-09T10:00:00Z", "2027-04-01T00:00:00+07:00");
    let call = element(
        &lifetime("start_of_next_month"),
        1,
        &json!([trigger(at, Some(due), true)]),
    );
    spends(&db, "a", "150", "2027-02-01T10:00:00Z").await;
    spends(&db, "b", "400", at).await;
    let both = vec![
        ("tier.upgraded".to_owned(), "silver".to_owned()),
        ("tier_upgrade.scheduled".to_owned(), "gold".to_owned()),
    ];
    assert_eq!(evaluate_with(&db, &call).await, both);
    db.own
        .run("update purchase_ledger set status = 'refunded', refunded_amount = final_amount")
        .await;
    assert_eq!(evaluate_with(&db, &call).await, news("tier.review_requested", "silver"));
    it_is(&db, "2027-04-02T00:00:00Z").await;
    assert_eq!(
        db.own.announcing("upgrade_tier", &json!(KEY)).await,
        Vec::<Value>::new()
    );
    assert_eq!(
        (tier(&db).await.as_str(), &db.own.effect(KEY).await["state"]),
        ("silver", &json!("review"))
    );
    db.done().await;
}
