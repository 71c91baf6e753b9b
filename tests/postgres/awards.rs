//! Awards: whatever arrives in whatever order, what is booked is the target of the row as it is.

use serde_json::{Value, json};

use super::{CREATED, Database, Purchase};

const LONG_AGO: &str = "2026-01-20T00:00:00+07:00";

async fn applied(db: &Database, event: &Value) -> String {
    let answer = db.own.call("apply_award", event).await;
    answer["outcome"].as_str().expect("an outcome").to_owned()
}

/// Outcome, and what was booked now.
async fn settled(db: &Database, purchase: &Purchase) -> (String, i64) {
    let answer = db.own.settle("settle_award", &purchase.key()).await;
    let outcome = answer["outcome"].as_str().expect("an outcome").to_owned();
    (outcome, answer["booked_now"].as_i64().expect("a number"))
}

/// Brings the row to this state, delivers its event, settles.
async fn converge(db: &Database, purchase: &Purchase, points: i64, policy: &str) -> (String, i64) {
    db.own.run(&purchase.sql()).await;
    let event = if points == 0 {
        purchase.cancelled(Some(policy))
    } else {
        purchase.scheduled(points, LONG_AGO, policy)
    };
    applied(db, &event).await;
    settled(db, purchase).await
}

// Edge case 1 and 4, where they are settled: one award, and a repetition books nothing.
#[tokio::test]
async fn an_award_is_booked_once_however_often_it_is_delivered_and_settled() {
    let db = Database::new().await;
    let purchase = Purchase::new("p:1%");
    db.own.run(&purchase.sql()).await;
    let mut event = purchase.scheduled(100, LONG_AGO, "unlimited");
    event["effect_key"] = json!("award:p%3A1%25");
    for outcome in ["applied", "unchanged", "unchanged"] {
        assert_eq!(applied(&db, &event).await, outcome);
    }
    let answer = db.own.settle("settle_award", "award:p%3A1%25").await;
    assert_eq!(
        answer,
        json!({"outcome": "settled", "booked_now": 100, "due_at": "2026-01-19T17:00:00.000000Z"})
    );
    assert_eq!(applied(&db, &event).await, "unchanged", "after it was settled, too");
    let again = db.own.settle("settle_award", "award:p%3A1%25").await;
    assert_eq!(
        (again["outcome"].as_str(), again["booked_now"].as_i64()),
        (Some("unchanged"), Some(0))
    );
    let entries = db
        .own
        .rows("select user_id, merchant_id, amount, kind, source_type, source_id from wallet_ledger")
        .await;
    let entry = json!({"user_id": "u-1", "merchant_id": "m-1", "amount": 100, "kind": "earn",
        "source_type": "purchase", "source_id": "p:1%"});
    assert_eq!(entries, [entry]);
    db.done().await;
}

#[tokio::test]
async fn what_is_compared_are_values_and_not_texts() {
    let db = Database::new().await;
    let purchase = Purchase::new("p").worth("1e2").at("2026-01-15T17:00:00+07:00");
    db.own.run(&Purchase::new("p").sql()).await;
    let mut event = purchase.scheduled(100, LONG_AGO, "unlimited");
    event["basis"]["refunded_amount"] = json!("0");
    assert_eq!(applied(&db, &event).await, "applied");
    event["basis"]["final_amount"] = json!("100.000");
    event["due_at"] = json!("2026-01-19T17:00:00Z");
    assert_eq!(applied(&db, &event).await, "unchanged");
    event["basis"]["final_amount"] = json!("100.001");
    assert_eq!(applied(&db, &event).await, "stale");
    // A refund that nobody entered is none.
    db.own.run("update purchase_ledger set refunded_amount = null").await;
    event["basis"]["final_amount"] = json!("100");
    assert_eq!(applied(&db, &event).await, "unchanged");
    db.done().await;
}

#[tokio::test]
async fn a_row_that_is_not_there_is_said_to_be_missing_and_nothing_is_noted() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    assert_eq!(
        applied(&db, &purchase.scheduled(100, LONG_AGO, "unlimited")).await,
        "missing_row"
    );
    assert_eq!(db.own.effect("award:p").await, Value::Null);
    assert_eq!(settled(&db, &purchase).await, ("unknown".to_owned(), 0));
    db.done().await;
}

#[tokio::test]
async fn a_row_that_goes_after_it_was_applied_is_looked_at_by_a_person() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    applied(&db, &purchase.scheduled(100, LONG_AGO, "unlimited")).await;
    db.own.run("delete from purchase_ledger").await;
    assert_eq!(settled(&db, &purchase).await, ("review".to_owned(), 0));
    db.done().await;
}

#[tokio::test]
async fn what_is_not_due_waits_for_its_time() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    let due = db
        .own
        .text("select crm_events.rfc3339(now() + interval '40 days')")
        .await;
    applied(&db, &purchase.scheduled(100, &due, "only_pending")).await;
    let answer = db.own.settle("settle_award", "award:p").await;
    assert_eq!(answer, json!({"outcome": "not_due", "booked_now": 0, "due_at": due}));
    db.own.wait("40 days").await;
    assert_eq!(settled(&db, &purchase).await, ("settled".to_owned(), 100));
    db.done().await;
}

// Edge case 5: refund before the delayed award fires. Edge case 9: partial refund while it is pending.
#[tokio::test]
async fn a_refund_before_the_award_is_due_leaves_what_remains_and_books_once() {
    for (refund, points) in [
        (Purchase::new("p").refunded("100", "refunded"), 0),
        (Purchase::new("p").refunded("30", "partially_refunded"), 70),
    ] {
        let db = Database::new().await;
        let purchase = Purchase::new("p");
        db.own.run(&purchase.sql()).await;
        let first = purchase.scheduled(100, "2100-01-01T00:00:00Z", "only_pending");
        applied(&db, &first).await;
        assert_eq!(
            converge(&db, &refund, points, "only_pending").await,
            ("settled".to_owned(), points)
        );
        // The run that slept wakes up.
        assert_eq!(settled(&db, &purchase).await, ("unchanged".to_owned(), 0));
        assert_eq!(applied(&db, &first).await, "stale");
        assert_eq!(db.own.balance("u-1").await, points);
        db.done().await;
    }
}

// Edge case 6: the refund is consumed before the purchase.
#[tokio::test]
async fn a_purchase_that_arrives_after_its_refund_is_stale() {
    let db = Database::new().await;
    let (purchase, refund) = (Purchase::new("p"), Purchase::new("p").refunded("100", "refunded"));
    db.own.run(&refund.sql()).await;
    // In this order the effect is not there yet, and what came is noted.
    assert_eq!(
        applied(&db, &purchase.scheduled(100, LONG_AGO, "unlimited")).await,
        "stale"
    );
    let effect = db.own.effect("award:p").await;
    assert_eq!(
        (effect["state"].as_str(), effect["stale_at"].is_null()),
        (Some("missing"), false)
    );
    assert_eq!(settled(&db, &purchase).await, ("unchanged".to_owned(), 0));
    assert_eq!(applied(&db, &refund.cancelled(None)).await, "applied");
    assert!(db.own.effect("award:p").await["stale_at"].is_null(), "cleared");
    assert_eq!(settled(&db, &refund).await, ("settled".to_owned(), 0));
    // Once more: the effect is as the row is, so the late event leaves no trace.
    assert_eq!(
        applied(&db, &purchase.scheduled(100, LONG_AGO, "unlimited")).await,
        "stale"
    );
    assert!(db.own.effect("award:p").await["stale_at"].is_null());
    assert_eq!(db.own.text("select count(*)::text from wallet_ledger").await, "0");
    db.done().await;
}

// Edge case 7: refund after the award, by policy. Edge case 8: refunds add up to the award without residue.
#[tokio::test]
async fn refunds_take_back_as_far_as_the_policy_says() {
    // (policy, points spent meanwhile, what each refund takes back, balance in the end)
    for (policy, spent, taken, balance) in [
        ("only_pending", 0, [0, 0], 99),
        ("within_balance", 0, [-33, -66], 0),
        ("within_balance", 80, [-19, 0], 0),
        ("within_balance", 150, [0, 0], -51),
        ("unlimited", 80, [-33, -66], -80),
    ] {
        let db = Database::new().await;
        assert_eq!(
            converge(&db, &Purchase::new("p"), 99, policy).await,
            ("settled".to_owned(), 99)
        );
        if spent != 0 {
            db.own
                .run(&format!(
                    "insert into wallet_ledger (user_id, merchant_id, amount, kind, created_at) \
                     values ('u-1', 'm-1', -{spent}, 'spend', now())"
                ))
                .await;
        }
        let part = Purchase::new("p").refunded("33.33", "partially_refunded");
        let all = Purchase::new("p").refunded("100.00", "refunded");
        let took = [
            converge(&db, &part, 66, policy).await.1,
            converge(&db, &all, 0, policy).await.1,
        ];
        assert_eq!(
            (took, db.own.balance("u-1").await),
            (taken, balance),
            "{policy}, {spent} spent"
        );
        // Settled is settled, though less was booked: a repeat takes nothing more when there is a balance again.
        db.own
            .run(
                "insert into wallet_ledger (user_id, merchant_id, amount, kind, created_at) \
                 values ('u-1', 'm-1', 500, 'adjust', now())",
            )
            .await;
        assert_eq!(applied(&db, &all.cancelled(Some(policy))).await, "unchanged");
        assert_eq!(settled(&db, &all).await, ("unchanged".to_owned(), 0));
        db.done().await;
    }
}

#[tokio::test]
async fn the_balance_of_another_merchant_is_not_touched() {
    let db = Database::new().await;
    converge(&db, &Purchase::new("p"), 50, "within_balance").await;
    db.own
        .run(
            "insert into wallet_ledger (user_id, merchant_id, amount, kind, created_at) \
             values ('u-1', 'm-1', -50, 'spend', now()), ('u-1', 'm-2', 500, 'earn', now())",
        )
        .await;
    let refund = Purchase::new("p").refunded("100", "refunded");
    assert_eq!(
        converge(&db, &refund, 0, "within_balance").await,
        ("settled".to_owned(), 0)
    );
    db.done().await;
}

#[tokio::test]
async fn a_cancellation_that_knows_no_policy_keeps_to_the_one_of_the_award_and_takes_nothing_without_any() {
    let db = Database::new().await;
    converge(&db, &Purchase::new("p"), 50, "unlimited").await;
    let refund = Purchase::new("p").refunded("100", "refunded");
    db.own.run(&refund.sql()).await;
    applied(&db, &refund.cancelled(None)).await;
    assert_eq!(settled(&db, &refund).await, ("settled".to_owned(), -50));
    let other = Purchase::new("other").of("u-2");
    db.own.run(&other.sql()).await;
    let mut event = other.scheduled(20, LONG_AGO, "");
    event.as_object_mut().expect("an object").remove("refund_policy");
    applied(&db, &event).await;
    settled(&db, &other).await;
    let refund = other.refunded("100", "refunded");
    db.own.run(&refund.sql()).await;
    applied(&db, &refund.cancelled(None)).await;
    assert_eq!(settled(&db, &refund).await, ("settled".to_owned(), 0));
    db.done().await;
}

// Edge case 10: refunded, then completed again.
#[tokio::test]
async fn a_purchase_completed_again_after_its_refund_is_brought_back_to_its_target() {
    for (policy, entries) in [("unlimited", 3), ("only_pending", 1)] {
        let db = Database::new().await;
        let purchase = Purchase::new("p");
        converge(&db, &purchase, 100, policy).await;
        converge(&db, &Purchase::new("p").refunded("100", "refunded"), 0, policy).await;
        converge(&db, &purchase, 100, policy).await;
        assert_eq!(db.own.balance("u-1").await, 100, "{policy}");
        assert_eq!(
            db.own.text("select count(*)::text from wallet_ledger").await,
            entries.to_string()
        );
        db.done().await;
    }
}

// Edge case 14: merged between earn and activation, the points go to the survivor.
#[tokio::test]
async fn an_award_is_booked_for_the_user_the_row_has_when_it_is_settled() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    applied(&db, &purchase.scheduled(100, "2100-01-01T00:00:00Z", "unlimited")).await;
    let merged = Purchase::new("p").of("survivor");
    assert_eq!(
        converge(&db, &merged, 100, "unlimited").await,
        ("settled".to_owned(), 100)
    );
    assert_eq!(
        (db.own.balance("u-1").await, db.own.balance("survivor").await),
        (0, 100)
    );
    db.done().await;
}

#[tokio::test]
async fn a_change_of_user_after_booking_books_nothing_and_asks_for_a_review() {
    let db = Database::new().await;
    converge(&db, &Purchase::new("p"), 100, "unlimited").await;
    let moved = Purchase::new("p").of("other");
    assert_eq!(converge(&db, &moved, 100, "unlimited").await, ("review".to_owned(), 0));
    let refund = moved.clone().refunded("100", "refunded");
    assert_eq!(
        converge(&db, &refund, 0, "unlimited").await,
        ("review".to_owned(), 0),
        "nor a refund"
    );
    assert_eq!(db.own.effect("award:p").await["state"], "review");
    assert_eq!((db.own.balance("u-1").await, db.own.balance("other").await), (100, 0));
    // Somebody put the row right: its own change settles it.
    let back = Purchase::new("p").refunded("100", "refunded");
    assert_eq!(converge(&db, &back, 0, "unlimited").await, ("settled".to_owned(), -100));
    db.done().await;
}

#[tokio::test]
async fn a_change_of_merchant_after_booking_books_nothing_and_asks_for_a_review() {
    let db = Database::new().await;
    converge(&db, &Purchase::new("p"), 100, "unlimited").await;
    let at = |merchant: &str| Purchase {
        merchant: merchant.to_owned(),
        ..Purchase::new("p")
    };
    for points in [40, 100] {
        assert_eq!(
            converge(&db, &at("m-2"), points, "unlimited").await,
            ("review".to_owned(), 0)
        );
    }
    let entries = "select merchant_id, amount from wallet_ledger";
    assert_eq!(
        db.own.rows(entries).await,
        [json!({"merchant_id": "m-1", "amount": 100})]
    );
    let back = at("m-1").refunded("60", "partially_refunded");
    assert_eq!(converge(&db, &back, 40, "unlimited").await, ("settled".to_owned(), -60));
    // Nothing is booked any more, so there is nothing left to move.
    let none = at("m-1").refunded("100", "refunded");
    converge(&db, &none, 0, "unlimited").await;
    assert_eq!(
        converge(&db, &at("m-2"), 7, "unlimited").await,
        ("settled".to_owned(), 7)
    );
    db.done().await;
}

#[tokio::test]
async fn at_an_equal_basis_a_lower_revision_of_the_rules_is_ignored() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    let with_rev = |points: i64, rev: i64| {
        let mut event = purchase.scheduled(points, LONG_AGO, "unlimited");
        event["program_rev"] = json!(rev);
        event
    };
    assert_eq!(applied(&db, &with_rev(200, 5)).await, "applied");
    assert_eq!(applied(&db, &with_rev(100, 4)).await, "outdated");
    assert_eq!(settled(&db, &purchase).await, ("settled".to_owned(), 200));
    assert_eq!(applied(&db, &with_rev(100, 4)).await, "outdated");
    assert_eq!(applied(&db, &with_rev(200, 6)).await, "unchanged");
    assert_eq!(
        applied(&db, &with_rev(150, 5)).await,
        "outdated",
        "the newer rules said the same and count"
    );
    assert_eq!(applied(&db, &with_rev(250, 7)).await, "applied");
    assert_eq!(settled(&db, &purchase).await, ("settled".to_owned(), 50));
    // A changed row begins anew, whatever the revision.
    let refund = Purchase::new("p").refunded("50", "partially_refunded");
    assert_eq!(
        converge(&db, &refund, 60, "unlimited").await,
        ("settled".to_owned(), -190)
    );
    db.done().await;
}

#[tokio::test]
async fn what_was_applied_for_an_older_state_of_the_row_is_not_booked() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    applied(&db, &purchase.scheduled(100, LONG_AGO, "unlimited")).await;
    let refund = Purchase::new("p").refunded("40", "partially_refunded");
    db.own.run(&refund.sql()).await;
    assert_eq!(settled(&db, &purchase).await, ("stale".to_owned(), 0));
    assert!(!db.own.effect("award:p").await["stale_at"].is_null());
    applied(&db, &refund.scheduled(60, LONG_AGO, "unlimited")).await;
    assert_eq!(settled(&db, &refund).await, ("settled".to_owned(), 60));
    db.done().await;
}

// Edge case 15: the smallest step of a currency is not lost, however it is written.
#[tokio::test]
async fn three_decimals_and_none_are_told_apart_exactly() {
    let db = Database::new().await;
    db.own
        .run("alter table purchase_ledger alter final_amount type numeric(20,3)")
        .await;
    let purchase = Purchase::new("p").worth("9007199254740993.001").at(CREATED);
    db.own.run(&purchase.sql()).await;
    let mut event = purchase.scheduled(7, LONG_AGO, "unlimited");
    event["basis"]["final_amount"] = json!("9007199254740993.002");
    assert_eq!(applied(&db, &event).await, "stale");
    assert_eq!(
        applied(&db, &purchase.scheduled(7, LONG_AGO, "unlimited")).await,
        "applied"
    );
    db.done().await;
}
