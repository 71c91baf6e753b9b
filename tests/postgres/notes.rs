//! What the worker asks besides: comparing, dead letters, announcements, the cut-off, the lease, seeding.

use serde_json::{Value, json};

use super::{Database, Purchase};

const DUE: &str = "2026-01-20T00:00:00+07:00";

async fn settle(db: &Database, purchase: &Purchase, points: i64) {
    db.own.run(&purchase.sql()).await;
    db.own
        .call("apply_award", &purchase.scheduled(points, DUE, "unlimited"))
        .await;
    db.own.settle("settle_award", &purchase.key()).await;
}

// Edge case 12: what a snapshot repeats is known; what was missed is not.
#[tokio::test]
async fn a_record_is_equal_only_with_the_basis_and_target_that_were_applied() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    let standing = |points, due, rev| {
        let record = purchase.record(points, due, rev);
        let session = &db.own;
        async move { session.standing(&record).await }
    };
    assert_eq!(standing(100, Some(DUE), 1).await, "absent");
    db.own.run(&purchase.sql()).await;
    db.own
        .call("apply_award", &purchase.scheduled(100, DUE, "unlimited"))
        .await;
    assert_eq!(
        standing(100, Some("2026-01-19T17:00:00Z"), 1).await,
        "equal",
        "times are compared as instants"
    );
    assert_eq!(
        standing(100, Some("2026-01-19T17:00:01Z"), 1).await,
        "differs",
        "unsettled, it is to be due at another time"
    );
    assert_eq!(standing(99, Some(DUE), 1).await, "differs");
    assert_eq!(standing(99, Some(DUE), 0).await, "equal", "our rules are older");
    db.own.settle("settle_award", "award:p").await;
    assert_eq!(
        standing(100, None, 2).await,
        "equal",
        "what is settled needs no due time"
    );
    let refund = Purchase::new("p").refunded("100", "refunded");
    assert_eq!(db.own.standing(&refund.record(0, None, 9)).await, "differs");
    db.own.run(&refund.sql()).await;
    db.own.call("apply_award", &refund.cancelled(Some("unlimited"))).await;
    assert_eq!(
        db.own.standing(&refund.record(0, None, 9)).await,
        "equal",
        "applied and pending: the sweeper has it"
    );
    db.own.settle("settle_award", "award:p").await;
    assert_eq!(db.own.standing(&refund.record(0, None, 1)).await, "equal");
    assert_eq!(standing(100, Some(DUE), 1).await, "zero");
    db.done().await;
}

#[tokio::test]
async fn a_batch_is_compared_in_its_order() {
    let db = Database::new().await;
    settle(&db, &Purchase::new("a"), 5).await;
    let records = json!([
        Purchase::new("b").record(1, None, 1),
        Purchase::new("a").record(5, Some(DUE), 1),
        Purchase::new("a").record(6, Some(DUE), 1)
    ]);
    let sql = format!("select ordinal, standing from crm_events.compare_effects('{records}')");
    assert_eq!(
        db.own.rows(&sql).await,
        [
            json!({"ordinal": 1, "standing": "absent"}),
            json!({"ordinal": 2, "standing": "equal"}),
            json!({"ordinal": 3, "standing": "differs"})
        ]
    );
    db.done().await;
}

#[tokio::test]
async fn what_a_source_row_counts_is_compared_by_its_basis_and_rules() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    let key = "mission_source:m-1:u-1:purchase_ledger:p";
    let record = |purchase: &Purchase, rev: i64| json!({"effect_key": key, "basis": purchase.basis(), "target": 1, "program_rev": rev});
    assert_eq!(db.own.standing(&record(&purchase, 1)).await, "absent");
    let share = json!({"mission_id": "spend", "effect_key": "mission:m-1:spend:u-1:2026", "period": "2026", "trigger": "purchase_total",
        "counted": "100", "target": "500"});
    let element = json!({"merchant_id": "m-1", "user_id": "u-1", "effect_key": key, "basis": purchase.basis(), "program_rev": 2,
        "source": {"table": "purchase_ledger", "row_id": "p", "version": "1", "op": "c"}, "as_of_ms": 5, "missions": [share]});
    let announced = db
        .own
        .try_announcing("record_progress", &json!([element]).to_string())
        .await;
    assert_eq!(announced.expect("recorded").len(), 1);
    assert_eq!(db.own.standing(&record(&purchase, 2)).await, "equal");
    assert_eq!(db.own.standing(&record(&purchase, 1)).await, "equal", "ours are older");
    assert_eq!(db.own.standing(&record(&purchase, 3)).await, "differs");
    let refund = purchase.refunded("100", "refunded");
    assert_eq!(db.own.standing(&record(&refund, 2)).await, "differs");
    db.done().await;
}

#[tokio::test]
async fn a_dead_letter_is_noted_until_the_row_changes_or_a_replay_was_applied() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    let mut letter = purchase.record(100, None, 1);
    letter["reason"] = json!("points_overflow");
    db.own.call_nothing("mark_dead", &json!([letter])).await;
    let effect = db.own.effect("award:p").await;
    assert_eq!(
        (&effect["state"], &effect["dead_reason"]),
        (&json!("dead"), &json!("points_overflow"))
    );
    assert_eq!(
        db.own.standing(&purchase.record(0, None, 1)).await,
        "zero",
        "never equal"
    );
    assert_eq!(db.own.settle("settle_award", "award:p").await["outcome"], "unchanged");
    // A replay.
    assert_eq!(
        db.own
            .call("apply_award", &purchase.scheduled(100, DUE, "unlimited"))
            .await["outcome"],
        "applied"
    );
    assert_eq!(db.own.settle("settle_award", "award:p").await["booked_now"], 100);
    // The letter is reported again: it was applied since.
    db.own.call_nothing("mark_dead", &json!([letter])).await;
    assert_eq!(db.own.effect("award:p").await["state"], "settled");
    db.done().await;
}

#[tokio::test]
async fn a_dead_letter_of_an_older_state_kills_nothing() {
    let db = Database::new().await;
    let mut letter = Purchase::new("p").worth("1").record(100, None, 1);
    letter["reason"] = json!("points_overflow");
    db.own.run(&Purchase::new("p").sql()).await;
    db.own
        .call(
            "apply_award",
            &Purchase::new("p").scheduled(100, "2100-01-01T00:00:00Z", "unlimited"),
        )
        .await;
    let gone = Purchase::new("gone").record(1, None, 1);
    db.own.call_nothing("mark_dead", &json!([letter, gone])).await;
    assert_eq!(db.own.effect("award:p").await["state"], "pending");
    assert_eq!(db.own.effect("award:gone").await, Value::Null);
    db.done().await;
}

#[tokio::test]
async fn an_announcement_is_given_until_it_was_sent_or_rejected() {
    let db = Database::new().await;
    for user in ["a", "b"] {
        db.own.run(&Purchase::new(user).of(user).sql()).await;
    }
    let element = |user: &str| {
        json!({"merchant_id": "m-1", "user_id": user, "effect_key": format!("tier:m-1:{user}"), "program_rev": 1, "as_of_ms": super::TS_MS,
            "rules": {"metric": "spend", "window": {"kind": "lifetime"}, "time_zone": "UTC", "timing": "immediate",
                "ladder": [{"name": "silver", "threshold": "1"}]}, "triggers": []})
    };
    let given = db
        .own
        .announcing("evaluate_tiers", &json!([element("a"), element("b")]))
        .await;
    assert_eq!(given.len(), 2);
    let unsent = "select id from crm_events.unsent_announcements('1 minute', 10)";
    assert_eq!(
        db.own.rows(unsent).await,
        Vec::<Value>::new(),
        "a minute has not passed"
    );
    db.own.wait("61 seconds").await;
    let first = json!([{"id": "tier:m-1:a:upgraded:1"}]);
    assert_eq!(
        json!(
            db.own
                .rows("select id from crm_events.unsent_announcements('1 minute', 1)")
                .await
        ),
        first
    );
    db.own.announced(&given[..1]).await;
    db.own
        .run("select crm_events.announcement_rejected('tier:m-1:b:upgraded:1', 'invalid')")
        .await;
    assert_eq!(db.own.rows(unsent).await, Vec::<Value>::new());
    assert_eq!(
        db.own
            .announcing("evaluate_tiers", &json!([element("a"), element("b")]))
            .await,
        Vec::<Value>::new()
    );
    let kept = db
        .own
        .rows("select dead_reason from crm_events.announcements where dead_at is not null")
        .await;
    assert_eq!(kept, [json!({"dead_reason": "invalid"})]);
    db.done().await;
}

#[tokio::test]
async fn the_first_cut_off_given_is_the_one_that_stays() {
    let db = Database::new().await;
    let ask = |given: &str| format!("select crm_events.rfc3339(crm_events.effective_from({given}))");
    assert_eq!(db.own.text(&ask("null")).await, "null");
    assert_eq!(
        db.own.text(&ask("'2026-01-01T00:00:00.123456+07:00'")).await,
        "2025-12-31T17:00:00.123456Z"
    );
    assert_eq!(db.own.text(&ask("'2027-01-01'")).await, "2025-12-31T17:00:00.123456Z");
    assert_eq!(db.own.text(&ask("null")).await, "2025-12-31T17:00:00.123456Z");
    db.done().await;
}

#[tokio::test]
async fn one_instance_at_a_time_holds_a_lease() {
    let db = Database::new().await;
    let take = |owner: &str| format!("select crm_events.take_lease('reconcile', '{owner}', 60)::text");
    assert_eq!(db.own.text(&take("a")).await, "true");
    assert_eq!(db.own.text(&take("b")).await, "false");
    assert_eq!(db.own.text(&take("a")).await, "true", "renewed");
    db.own.run("select crm_events.drop_lease('reconcile', 'b')").await;
    assert_eq!(db.own.text(&take("b")).await, "false", "nobody drops what is not his");
    db.own.wait("61 seconds").await;
    assert_eq!(db.own.text(&take("b")).await, "true", "lapsed");
    db.own.run("select crm_events.drop_lease('reconcile', 'b')").await;
    assert_eq!(db.own.text(&take("a")).await, "true");
    db.done().await;
}

#[tokio::test]
async fn seeding_settles_what_the_wallet_knows_and_leaves_the_rest_open() {
    let db = Database::new().await;
    for purchase in [
        Purchase::new("booked"),
        Purchase::new("partly:100%").refunded("50", "partially_refunded"),
        Purchase::new("open"),
        Purchase::new("young").at("2026-06-01T00:00:00Z"),
    ] {
        db.own.run(&purchase.sql()).await;
    }
    db.own
        .run(
            "insert into wallet_ledger (user_id, merchant_id, amount, kind, source_type, source_id, created_at) values \
             ('u-1', 'm-1', 95, 'earn', 'purchase', 'booked', now()), ('u-1', 'm-1', 80, 'earn', 'purchase', 'partly:100%', now()), \
             ('u-1', 'm-1', -40, 'clawback', 'purchase', 'partly:100%', now()), ('u-1', 'm-1', 7, 'earn', 'gift', 'open', now())",
        )
        .await;
    let seed = "select settled, open from crm_events.seed_effects('2026-06-01T00:00:00Z')";
    assert_eq!(db.own.rows(seed).await, [json!({"settled": 2, "open": 1})]);
    assert_eq!(db.own.rows(seed).await, [json!({"settled": 0, "open": 0})], "once");
    let open = "select purchase_id, final_amount from crm_events.open_purchases('2026-06-01T00:00:00Z')";
    assert_eq!(
        db.own.rows(open).await,
        [json!({"purchase_id": "open", "final_amount": 100.00})]
    );
    // What the old worker settled is not decided again by new rules, as long as the row stays as it is.
    assert_eq!(
        db.own
            .standing(&Purchase::new("booked").record(100, Some(DUE), 3))
            .await,
        "equal"
    );
    assert_eq!(
        db.own
            .call("apply_award", &Purchase::new("booked").scheduled(100, DUE, "unlimited"))
            .await["outcome"],
        "outdated"
    );
    let refund = Purchase::new("booked").refunded("50", "partially_refunded");
    settle(&db, &refund, 50).await;
    assert_eq!(
        db.own
            .text("select sum(amount)::text from wallet_ledger where source_id = 'booked'")
            .await,
        "50"
    );
    assert_eq!(db.own.effect("award:partly%3A100%25").await["booked"], 40);
    // What is open is ours.
    assert_eq!(
        db.own.standing(&Purchase::new("open").record(100, Some(DUE), 3)).await,
        "zero"
    );
    settle(&db, &Purchase::new("open"), 100).await;
    assert_eq!(db.own.effect("award:open").await["booked"], 100);
    assert_eq!(db.own.rows(open).await, Vec::<Value>::new());
    db.done().await;
}

#[tokio::test]
async fn what_was_spent_or_expired_under_a_purchase_is_not_taken_for_its_award() {
    let db = Database::new().await;
    for id in ["expired", "paid"] {
        db.own.run(&Purchase::new(id).sql()).await;
    }
    db.own
        .run(
            "insert into wallet_ledger (user_id, merchant_id, amount, kind, source_type, source_id, created_at) values \
             ('u-1', 'm-1', 100, 'earn', 'purchase', 'expired', now()), ('u-1', 'm-1', -100, 'expire', 'purchase', 'expired', now()), \
             ('u-1', 'm-1', -500, 'spend', 'purchase', 'paid', now())",
        )
        .await;
    let seed = "select settled, open from crm_events.seed_effects('2026-06-01T00:00:00Z')";
    assert_eq!(db.own.rows(seed).await, [json!({"settled": 1, "open": 1})]);
    // What expired was awarded all the same, so that a refund takes back and earns nothing.
    let refund = Purchase::new("expired").refunded("30", "partially_refunded");
    settle(&db, &refund, 70).await;
    settle(&db, &Purchase::new("paid"), 100).await;
    let entries =
        "select amount, kind, source_id from wallet_ledger where amount in (-30, 100) order by kind, source_id";
    assert_eq!(
        db.own.rows(entries).await,
        [
            json!({"amount": -30, "kind": "clawback", "source_id": "expired"}),
            json!({"amount": 100, "kind": "earn", "source_id": "expired"}),
            json!({"amount": 100, "kind": "earn", "source_id": "paid"}),
        ]
    );
    assert_eq!(
        db.own.text("select count(*)::text from wallet_ledger").await,
        "5",
        "and nothing else was booked"
    );
    db.done().await;
}

#[tokio::test]
async fn a_row_that_is_again_as_it_was_applied_is_dead_no_longer_though_older_rules_say_so() {
    for settled in [true, false] {
        let db = Database::new().await;
        let purchase = Purchase::new("p");
        let due = if settled { DUE } else { "2100-01-01T00:00:00Z" };
        db.own.run(&purchase.sql()).await;
        let mut newer = purchase.scheduled(100, due, "unlimited");
        newer["program_rev"] = json!(2);
        db.own.call("apply_award", &newer).await;
        db.own.settle("settle_award", "award:p").await;
        let broken = Purchase::new("p").worth("1");
        db.own.run(&broken.sql()).await;
        let mut letter = broken.record(1, None, 2);
        letter["reason"] = json!("points_overflow");
        db.own.call_nothing("mark_dead", &json!([letter])).await;
        assert_eq!(db.own.effect("award:p").await["state"], "dead");
        db.own.run(&purchase.sql()).await;
        let older = purchase.scheduled(50, due, "unlimited");
        assert_eq!(db.own.call("apply_award", &older).await["outcome"], "outdated");
        let effect = db.own.effect("award:p").await;
        let state = if settled { "settled" } else { "pending" };
        assert_eq!(
            (&effect["state"], &effect["dead_basis"], &effect["dead_reason"]),
            (&json!(state), &Value::Null, &Value::Null)
        );
        assert_eq!(db.own.standing(&purchase.record(50, Some(due), 1)).await, "equal");
        db.done().await;
    }
}
