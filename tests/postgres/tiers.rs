//! Tiers: what is summed when, upgrades now and at the start of a month, reviews instead of downgrades.

use serde_json::{Value, json};

use super::{Database, Purchase, TS_MS};

pub(super) const KEY: &str = "tier:m-1:u-1";

/// Spend, two steps, in Bangkok.
pub(super) fn rules(window: &Value, timing: &str) -> Value {
    json!({"metric": "spend", "window": window, "time_zone": "Asia/Bangkok", "timing": timing,
        "ladder": [{"name": "silver", "threshold": "100"}, {"name": "gold", "threshold": "500.00"}]})
}

pub(super) fn lifetime(timing: &str) -> Value {
    rules(&json!({"kind": "lifetime"}), timing)
}

/// A trigger whose row was earned then.
pub(super) fn trigger(at: &str, due_at: Option<&str>, lowers: bool) -> Value {
    json!({"table": "purchase_ledger", "row_id": "p", "version": "1", "op": "u", "at": at, "due_at": due_at, "lowers": lowers})
}

pub(super) fn element(rules: &Value, rev: i64, triggers: &Value) -> Value {
    json!({"merchant_id": "m-1", "user_id": "u-1", "effect_key": KEY, "program_rev": rev, "as_of_ms": TS_MS,
        "rules": rules, "triggers": triggers})
}

/// Evaluates, and gives what was announced newly: name and tier.
async fn evaluate(db: &Database, rules: &Value, at: &str, lowers: bool) -> Vec<(String, String)> {
    evaluate_with(db, &element(rules, 1, &json!([trigger(at, None, lowers)]))).await
}

pub(super) async fn evaluate_with(db: &Database, element: &Value) -> Vec<(String, String)> {
    let announcements = db.own.announcing("evaluate_tiers", &json!([element])).await;
    db.own.announced(&announcements).await;
    announcements.iter().map(said).collect()
}

pub(super) fn said(announcement: &Value) -> (String, String) {
    let name = announcement["name"]
        .as_str()
        .expect("a name")
        .trim_start_matches("loyalty/");
    (
        name.to_owned(),
        announcement["data"]["tier"].as_str().expect("a tier").to_owned(),
    )
}

pub(super) fn news(name: &str, tier: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), tier.to_owned())]
}

pub(super) async fn spends(db: &Database, id: &str, amount: &str, at: &str) {
    db.own.run(&Purchase::new(id).worth(amount).at(at).sql()).await;
}

/// Sets the clock of the functions.
pub(super) async fn it_is(db: &Database, moment: &str) {
    let offset = db
        .own
        .text(&format!("select ('{moment}'::timestamptz - now())::text"))
        .await;
    db.own.wait(&offset).await;
}

pub(super) async fn tier(db: &Database) -> String {
    db.own
        .text("select coalesce((select tier from crm_events.tier_state), 'none')")
        .await
}

#[tokio::test]
async fn a_member_rises_step_by_step_and_each_step_is_announced_until_it_was_sent() {
    let db = Database::new().await;
    let rules = lifetime("immediate");
    let call = element(&rules, 7, &json!([trigger("2026-01-15T10:00:00Z", None, false)]));
    assert_eq!(evaluate_with(&db, &call).await, [], "nothing spent");
    spends(&db, "a", "100.00", "2026-01-15T10:00:00Z").await;
    let first = db.own.announcing("evaluate_tiers", &json!([call])).await;
    assert_eq!(
        first.iter().map(said).collect::<Vec<_>>(),
        news("tier.upgraded", "silver")
    );
    assert_eq!(first[0]["id"], "tier:m-1:u-1:upgraded:1");
    assert_eq!(first[0]["data"]["previous_tier"], Value::Null);
    assert_eq!(first[0]["data"]["value"], "100.00");
    assert_eq!(first[0]["data"]["program_rev"], 7);
    // The answer was lost: the same comes again, and nothing new.
    assert_eq!(db.own.announcing("evaluate_tiers", &json!([call])).await, first);
    spends(&db, "b", "400.00", "2026-01-16T10:00:00Z").await;
    let both = db.own.announcing("evaluate_tiers", &json!([call])).await;
    assert_eq!(both[0], first[0], "older ones first");
    assert_eq!(said(&both[1]), ("tier.upgraded".to_owned(), "gold".to_owned()));
    assert_eq!(both[1]["data"]["previous_tier"], "silver");
    db.own.announced(&both).await;
    assert_eq!(evaluate_with(&db, &call).await, []);
    let history = db
        .own
        .rows("select tier, previous_tier from crm_events.tier_history order by n")
        .await;
    assert_eq!(
        history,
        [
            json!({"tier": "silver", "previous_tier": null}),
            json!({"tier": "gold", "previous_tier": "silver"})
        ]
    );
    db.done().await;
}

// Edge case 21: several changes in one batch, only the final tier is told.
#[tokio::test]
async fn one_evaluation_covers_the_whole_batch_and_names_the_tier_it_ends_at() {
    let db = Database::new().await;
    spends(&db, "a", "100", "2026-01-15T10:00:00Z").await;
    spends(&db, "b", "900", "2026-01-15T10:00:00Z").await;
    let refund = Purchase::new("c").worth("5000").refunded("5000", "refunded");
    db.own.run(&refund.sql()).await;
    let triggers = json!([
        trigger("2026-01-15T10:00:00Z", None, false),
        trigger("2026-01-15T10:00:00Z", None, true)
    ]);
    let call = element(&lifetime("immediate"), 1, &triggers);
    assert_eq!(evaluate_with(&db, &call).await, news("tier.upgraded", "gold"));
    db.done().await;
}

#[tokio::test]
async fn spend_is_what_remains_of_purchases_that_count() {
    let db = Database::new().await;
    let rules = lifetime("immediate");
    let counted = Purchase::new("part")
        .worth("130.00")
        .refunded("30.01", "partially_refunded");
    for purchase in [
        counted,
        Purchase {
            status: "pending",
            ..Purchase::new("pending")
        },
        Purchase {
            status: "cancelled",
            ..Purchase::new("cancelled")
        },
        Purchase::new("refunded").refunded("100", "refunded"),
        Purchase::new("more").worth("10").refunded("500", "completed"),
        Purchase::new("other").of("u-2"),
        Purchase {
            merchant: "m-2".to_owned(),
            ..Purchase::new("elsewhere")
        },
    ] {
        db.own.run(&purchase.sql()).await;
    }
    assert_eq!(evaluate(&db, &rules, "2026-01-15T10:00:00Z", false).await, [], "99.99");
    spends(&db, "cent", "0.01", "2026-01-15T10:00:00Z").await;
    assert_eq!(
        evaluate(&db, &rules, "2026-01-15T10:00:00Z", false).await,
        news("tier.upgraded", "silver")
    );
    db.done().await;
}

#[tokio::test]
async fn points_are_what_was_earned_whatever_was_spent_since() {
    let db = Database::new().await;
    let mut rules = lifetime("immediate");
    rules["metric"] = json!("points");
    let entry = |amount: i64, kind: &str| {
        format!(
            "insert into wallet_ledger (user_id, merchant_id, amount, kind, created_at) \
             values ('u-1', 'm-1', {amount}, '{kind}', '2026-01-15T10:00:00Z')"
        )
    };
    for (amount, kind) in [
        (150, "earn"),
        (-140, "spend"),
        (-5, "expire"),
        (-60, "clawback"),
        (9, "adjust"),
    ] {
        db.own.run(&entry(amount, kind)).await;
    }
    assert_eq!(evaluate(&db, &rules, "2026-01-15T10:00:00Z", false).await, [], "99");
    db.own.run(&entry(1, "adjust")).await;
    assert_eq!(
        evaluate(&db, &rules, "2026-01-15T10:00:00Z", false).await,
        news("tier.upgraded", "silver")
    );
    db.done().await;
}

// Edge case 19: rolling months on 29 February, and the clamp at the end of a month.
#[tokio::test]
async fn a_rolling_window_begins_on_the_same_local_day_or_the_last_of_its_month() {
    for (now, months, first_counted) in [
        ("2028-02-29T12:00:00+07:00", 12, "2027-02-28T12:00:00+07:00"),
        ("2029-02-28T12:00:00+07:00", 12, "2028-02-28T12:00:00+07:00"),
        ("2027-03-31T12:00:00+07:00", 1, "2027-02-28T12:00:00+07:00"),
        ("2027-07-31T00:30:00+07:00", 1, "2027-06-30T00:30:00+07:00"),
        // In UTC this is still June, where a month back would be 30 May.
        ("2027-07-01T00:30:00+07:00", 1, "2027-06-01T00:30:00+07:00"),
    ] {
        let db = Database::new().await;
        it_is(&db, now).await;
        let rules = rules(&json!({"kind": "rolling_months", "months": months}), "immediate");
        // The clock runs on, so the row lies a little behind or before the border.
        let just = |shift: &str| format!("'{first_counted}'::timestamptz {shift}");
        let insert = |id: &str, at: String| Purchase::new(id).sql().replace("'2026-01-15T10:00:00Z'", &at);
        db.own.run(&insert("before", just("- interval '1 second'"))).await;
        assert_eq!(evaluate(&db, &rules, now, false).await, [], "{now}");
        db.own.run(&insert("after", just("+ interval '10 minutes'"))).await;
        assert_eq!(
            evaluate(&db, &rules, now, false).await,
            news("tier.upgraded", "silver"),
            "{now}"
        );
        db.done().await;
    }
}

// Edge case 18, where it is summed: the local year decides, not the one of UTC.
#[tokio::test]
async fn a_calendar_year_is_the_local_one() {
    let db = Database::new().await;
    it_is(&db, "2027-06-15T00:00:00Z").await;
    let rules = rules(&json!({"kind": "calendar_year"}), "immediate");
    spends(&db, "old", "99.99", "2026-12-31T23:59:59.999+07:00").await;
    spends(&db, "new", "99.99", "2027-01-01T00:00:00+07:00").await;
    let both = element(
        &rules,
        1,
        &json!([
            trigger("2026-12-31T16:59:59.999Z", None, false),
            trigger("2026-12-31T17:00:00Z", None, false)
        ]),
    );
    assert_eq!(
        evaluate_with(&db, &both).await,
        [],
        "neither year is enough, and they do not add up"
    );
    spends(&db, "cent", "0.01", "2026-12-31T17:00:00Z").await;
    assert_eq!(evaluate_with(&db, &both).await, news("tier.upgraded", "silver"));
    db.done().await;
}

// Edge case 20: a late event of a closed year lifts the member still.
#[tokio::test]
async fn a_late_row_of_a_closed_year_completes_that_year() {
    let db = Database::new().await;
    it_is(&db, "2027-02-01T00:00:00Z").await;
    let rules = rules(&json!({"kind": "calendar_year"}), "immediate");
    spends(&db, "a", "80", "2026-11-01T00:00:00Z").await;
    spends(&db, "b", "30", "2027-01-20T00:00:00Z").await;
    assert_eq!(evaluate(&db, &rules, "2027-01-20T00:00:00Z", false).await, []);
    spends(&db, "late", "20", "2026-12-24T00:00:00Z").await;
    assert_eq!(
        evaluate(&db, &rules, "2027-01-20T00:00:00Z", false).await,
        [],
        "a trigger of this year looks at this year"
    );
    assert_eq!(
        evaluate(&db, &rules, "2026-12-24T00:00:00Z", false).await,
        news("tier.upgraded", "silver")
    );
    db.done().await;
}

// Edge case 35: a row whose clock is ahead of ours counts when it comes; it comes once only.
#[tokio::test]
async fn a_row_dated_a_moment_ahead_counts_at_once() {
    let db = Database::new().await;
    let rules = rules(&json!({"kind": "rolling_months", "months": 12}), "immediate");
    let ahead = db
        .own
        .text("select crm_events.rfc3339(now() + interval '2 minutes')")
        .await;
    spends(&db, "a", "100", &ahead).await;
    assert_eq!(
        evaluate(&db, &rules, &ahead, false).await,
        news("tier.upgraded", "silver")
    );
    db.done().await;
}

// Edge case 22: a refund below the threshold downgrades nobody, and asks once.
#[tokio::test]
async fn a_refund_that_takes_a_member_below_asks_for_one_review_until_the_member_is_back() {
    let db = Database::new().await;
    let rules = lifetime("immediate");
    let at = "2026-01-15T10:00:00Z";
    spends(&db, "a", "500", at).await;
    assert_eq!(evaluate(&db, &rules, at, false).await, news("tier.upgraded", "gold"));
    db.own
        .run(
            &Purchase::new("a")
                .worth("500")
                .refunded("200", "partially_refunded")
                .sql(),
        )
        .await;
    assert_eq!(
        evaluate(&db, &rules, at, false).await,
        [],
        "nothing that came now took anything away"
    );
    let call = element(&rules, 1, &json!([trigger(at, None, true)]));
    let review = db.own.announcing("evaluate_tiers", &json!([call])).await;
    assert_eq!(
        review.iter().map(said).collect::<Vec<_>>(),
        news("tier.review_requested", "gold")
    );
    assert_eq!(
        (&review[0]["data"]["value"], &review[0]["data"]["threshold"]),
        (&json!("300.00"), &json!("500.00"))
    );
    db.own.announced(&review).await;
    assert_eq!(evaluate_with(&db, &call).await, [], "asked once");
    assert_eq!(db.own.effect(KEY).await["state"], "review");
    assert_eq!(tier(&db).await, "gold", "never a downgrade");
    spends(&db, "b", "200", at).await;
    assert_eq!(
        evaluate(&db, &rules, at, false).await,
        [],
        "at the tier again, which is no upgrade"
    );
    assert_eq!(db.own.effect(KEY).await["state"], "settled");
    db.own
        .run(&Purchase::new("b").worth("200").refunded("200", "refunded").sql())
        .await;
    assert_eq!(
        evaluate_with(&db, &call).await,
        news("tier.review_requested", "gold"),
        "another fall, another review"
    );
    db.done().await;
}

#[tokio::test]
async fn rules_of_a_lower_revision_than_the_stored_ones_are_not_used() {
    let db = Database::new().await;
    let at = "2026-01-15T10:00:00Z";
    spends(&db, "a", "150", at).await;
    let mut dear = lifetime("immediate");
    dear["ladder"] = json!([{"name": "silver", "threshold": "1000"}]);
    let newer = element(&dear, 5, &json!([trigger(at, None, false)]));
    assert_eq!(evaluate_with(&db, &newer).await, []);
    let older = element(&lifetime("immediate"), 4, &json!([trigger(at, None, false)]));
    assert_eq!(evaluate_with(&db, &older).await, [], "a worker whose rules are old");
    let newest = element(&lifetime("immediate"), 6, &json!([trigger(at, None, false)]));
    assert_eq!(evaluate_with(&db, &newest).await, news("tier.upgraded", "silver"));
    db.done().await;
}

#[tokio::test]
async fn a_tier_that_the_ladder_does_not_have_any_more_stands_where_it_stood() {
    let db = Database::new().await;
    let at = "2026-01-15T10:00:00Z";
    spends(&db, "a", "150", at).await;
    evaluate(&db, &lifetime("immediate"), at, false).await;
    let mut renamed = lifetime("immediate");
    renamed["ladder"] = json!([{"name": "bronze", "threshold": "50"}, {"name": "platinum", "threshold": "900"}]);
    let call = element(&renamed, 2, &json!([trigger(at, None, false)]));
    assert_eq!(evaluate_with(&db, &call).await, [], "bronze is below the silver of 100");
    spends(&db, "b", "900", at).await;
    assert_eq!(evaluate_with(&db, &call).await, news("tier.upgraded", "platinum"));
    db.done().await;
}

#[tokio::test]
async fn a_batch_of_many_members_is_one_statement() {
    let db = Database::new().await;
    let mut batch = Vec::new();
    for number in 0..50 {
        let user = format!("u-{number}");
        db.own.run(&Purchase::new(&user).of(&user).sql()).await;
        let mut one = element(
            &lifetime("immediate"),
            1,
            &json!([trigger("2026-01-15T10:00:00Z", None, false)]),
        );
        one["user_id"] = json!(user);
        one["effect_key"] = json!(format!("tier:m-1:{user}"));
        batch.push(one);
    }
    let announcements = db.own.announcing("evaluate_tiers", &json!(batch)).await;
    assert_eq!(announcements.len(), 50);
    db.done().await;
}
