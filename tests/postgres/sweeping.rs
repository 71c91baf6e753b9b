//! Lost runs and lost events: what is overdue is settled, what was never applied is sent again, later and later.

use serde_json::{Value, json};

use super::{Database, Purchase, Session};

async fn due(session: &Session) -> Vec<String> {
    let rows = session.rows("select crm_events.due_effects(100) as key").await;
    let mut keys: Vec<String> = rows
        .iter()
        .map(|row| row["key"].as_str().expect("a key").to_owned())
        .collect();
    keys.sort();
    keys
}

async fn apply(db: &Database, id: &str, due_at: &str) -> Purchase {
    let purchase = Purchase::new(id);
    db.own.run(&purchase.sql()).await;
    db.own
        .call("apply_award", &purchase.scheduled(100, due_at, "unlimited"))
        .await;
    purchase
}

async fn heal(db: &Database, record: &Value) -> i64 {
    let rows = db
        .own
        .rows(&format!("select heal from crm_events.plan_heals('[{record}]')"))
        .await;
    rows[0]["heal"].as_i64().expect("a number")
}

#[tokio::test]
async fn a_run_that_was_lost_is_found_when_it_is_overdue_by_a_quarter_of_an_hour() {
    let db = Database::new().await;
    let soon = db
        .own
        .text("select crm_events.rfc3339(now() + interval '1 hour')")
        .await;
    apply(&db, "soon", &soon).await;
    assert_eq!(due(&db.own).await, Vec::<String>::new());
    db.own.wait("74 minutes").await;
    assert_eq!(
        due(&db.own).await,
        Vec::<String>::new(),
        "a run may be about to settle it"
    );
    db.own.wait("76 minutes").await;
    assert_eq!(due(&db.own).await, ["award:soon"]);
    assert_eq!(due(&db.own).await, Vec::<String>::new(), "its next attempt is later");
    assert_eq!(db.own.settle("settle", "award:soon").await["booked_now"], 100);
    db.own.wait("30 days").await;
    assert_eq!(due(&db.own).await, Vec::<String>::new());
    db.done().await;
}

#[tokio::test]
async fn what_cannot_be_settled_is_tried_later_and_later() {
    let db = Database::new().await;
    apply(&db, "p", "2026-01-20T00:00:00Z").await;
    db.own.run("update purchase_ledger set refunded_amount = 1").await;
    let mut minutes = 16;
    for wait in [15, 30, 60, 120, 240, 360, 360] {
        db.own.wait(&format!("{minutes} minutes")).await;
        assert_eq!(due(&db.own).await, ["award:p"], "after {minutes} minutes");
        assert_eq!(db.own.settle("settle", "award:p").await["outcome"], "stale");
        db.own.wait(&format!("{} minutes", minutes + wait - 1)).await;
        assert_eq!(
            due(&db.own).await,
            Vec::<String>::new(),
            "{wait} minutes have not passed"
        );
        minutes += wait + 1;
    }
    db.done().await;
}

#[tokio::test]
async fn two_sweepers_take_different_effects() {
    let db = Database::new().await;
    for number in 0..40 {
        apply(&db, &format!("p{number}"), "2026-01-20T00:00:00Z").await;
    }
    db.own.wait("1 hour").await;
    let other = db.session().await;
    let (mut one, two) = tokio::join!(due(&db.own), due(&other));
    one.extend(two);
    one.sort();
    let count = one.len();
    one.dedup();
    assert_eq!((one.len(), count), (40, 40));
    db.done().await;
}

#[tokio::test]
async fn a_scheduled_upgrade_whose_run_was_lost_is_made_by_the_sweeper() {
    let db = Database::new().await;
    let due_at = db
        .own
        .text("select crm_events.rfc3339(now() + interval '1 hour')")
        .await;
    db.own.run(&Purchase::new("p").at(&due_at).sql()).await;
    let element = json!({"merchant_id": "m-1", "user_id": "u-1", "effect_key": "tier:m-1:u-1", "program_rev": 1,
        "as_of_ms": super::TS_MS, "rules": {"metric": "spend", "window": {"kind": "lifetime"}, "time_zone": "UTC",
            "timing": "start_of_next_month", "ladder": [{"name": "silver", "threshold": "1"}]},
        "triggers": [{"table": "purchase_ledger", "row_id": "p", "version": "1", "op": "c", "at": super::CREATED, "due_at": due_at,
            "lowers": false}]});
    let scheduled = db.own.announcing("evaluate_tiers", &json!([element])).await;
    db.own.announced(&scheduled).await;
    db.own.wait("2 hours").await;
    assert_eq!(due(&db.own).await, ["tier:m-1:u-1"]);
    let answer = db.own.settle("settle", "tier:m-1:u-1").await;
    assert_eq!(answer["announcements"][0]["name"], "loyalty/tier.upgraded", "{answer}");
    super::assert_valid(&answer["announcements"][0]);
    db.done().await;
}

#[tokio::test]
async fn settling_what_nobody_knows_says_so() {
    let db = Database::new().await;
    assert_eq!(db.own.settle("settle", "award:p").await["outcome"], "unknown");
    assert_eq!(db.own.settle("settle_award", "tier:m:u").await["outcome"], "unknown");
    db.done().await;
}

#[tokio::test]
async fn what_was_never_applied_is_sent_again_four_times_and_then_is_a_finding() {
    let db = Database::new().await;
    let record = Purchase::new("p").record(100, None, 1);
    let mut told = Vec::new();
    for minutes in [0, 10, 14, 15, 20, 59, 60, 70, 359, 360, 1439, 1440, 1450, 1456, 3000] {
        db.own.wait(&format!("{minutes} minutes")).await;
        told.push((minutes, heal(&db, &record).await));
    }
    let expected = [
        (0, 0),
        (10, 0),
        (14, 0),
        (15, 1),
        (20, 0),
        (59, 0),
        (60, 2),
        (70, 0),
        (359, 0),
        (360, 3),
        (1439, 0),
        (1440, 4),
        (1450, 0),
        (1456, -1),
        (3000, -1),
    ];
    assert_eq!(told, expected);
    assert_eq!(db.own.effect("award:p").await["state"], "missing");
    // The row changed, or the rules: what is missed now is missed since now.
    let other = Purchase::new("p").record(90, None, 2);
    assert_eq!(heal(&db, &other).await, 0);
    db.own.wait("3016 minutes").await;
    assert_eq!(heal(&db, &other).await, 1);
    // It arrived.
    db.own.run(&Purchase::new("p").sql()).await;
    db.own
        .call(
            "apply_award",
            &Purchase::new("p").scheduled(90, "2026-01-20T00:00:00Z", "unlimited"),
        )
        .await;
    let effect = db.own.effect("award:p").await;
    assert_eq!((&effect["missed_since"], &effect["heals"]), (&Value::Null, &json!(0)));
    db.done().await;
}

#[tokio::test]
async fn after_a_long_absence_of_the_reconciler_heals_keep_their_distance() {
    let db = Database::new().await;
    let record = Purchase::new("p").record(100, None, 1);
    heal(&db, &record).await;
    let mut told = Vec::new();
    for minutes in [5000, 5010, 5015, 5030, 5045, 5060] {
        db.own.wait(&format!("{minutes} minutes")).await;
        told.push(heal(&db, &record).await);
    }
    assert_eq!(told, [1, 0, 2, 3, 4, -1]);
    db.done().await;
}

#[tokio::test]
async fn what_lies_in_the_dead_letters_is_not_sent_again_until_its_row_changes() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    db.own
        .call_nothing("mark_dead", &json!([purchase.record(1, None, 1)]))
        .await;
    for minutes in [0, 20, 3000] {
        db.own.wait(&format!("{minutes} minutes")).await;
        assert_eq!(heal(&db, &purchase.record(1, None, 1)).await, 0);
    }
    assert!(db.own.effect("award:p").await["missed_since"].is_null());
    let changed = purchase.worth("50").record(1, None, 1);
    heal(&db, &changed).await;
    db.own.wait("3020 minutes").await;
    assert_eq!(heal(&db, &changed).await, 1);
    db.done().await;
}

#[tokio::test]
async fn suspects_are_looked_at_in_turns_so_that_none_hides_another() {
    let db = Database::new().await;
    apply(&db, "overdue", "2026-01-20T00:00:00Z").await;
    apply(&db, "fine", "2100-01-20T00:00:00Z").await;
    heal(&db, &Purchase::new("missing").record(100, None, 1)).await;
    let stale = Purchase::new("stale");
    db.own.run(&stale.sql()).await;
    db.own
        .call(
            "apply_award",
            &stale.worth("1").scheduled(1, "2100-01-20T00:00:00Z", "unlimited"),
        )
        .await;
    db.own.wait("20 minutes").await;
    let mut seen = Vec::new();
    for minutes in 20..23 {
        db.own.wait(&format!("{minutes} minutes")).await;
        let rows = db
            .own
            .rows("select source_id, why from crm_events.suspect_effects(1)")
            .await;
        let text = |field: &str| rows[0][field].as_str().expect("text").to_owned();
        seen.push((text("source_id"), text("why")));
    }
    seen.sort();
    let expected = [("missing", "missing"), ("overdue", "overdue"), ("stale", "stale")];
    assert_eq!(seen, expected.map(|(id, why)| (id.to_owned(), why.to_owned())));
    db.own.wait("8 days").await;
    let left = db
        .own
        .rows("select source_id from crm_events.suspect_effects(10) order by 1")
        .await;
    assert_eq!(
        left,
        [json!({"source_id": "missing"}), json!({"source_id": "overdue"})],
        "the slow pass has the old ones"
    );
    db.done().await;
}
