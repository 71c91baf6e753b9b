//! Who waits for whom: a call in a transaction that is still open, and another one that must wait for its end.

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Database, Purchase, Session, TS_MS};
use crate::PATIENCE;

const DUE: &str = "2026-01-20T00:00:00Z";

/// The second statement waits until the first one's transaction ends; then gives its answer.
async fn waits(db: &Database, first: &str, second: &str) -> Value {
    let (one, two) = (db.session().await, db.session().await);
    one.run(&format!("begin; {first}")).await;
    let pid = two.text("select pg_backend_pid()::text").await;
    let answer = async {
        let rows = two.rows(second).await;
        rows.into_iter().next().unwrap_or(Value::Null)
    };
    let (answer, ()) = tokio::join!(answer, async {
        until_blocked(&db.own, &pid).await;
        one.run("commit").await;
    });
    answer
}

async fn until_blocked(session: &Session, pid: &str) {
    let blocked = format!("select (cardinality(pg_blocking_pids({pid})) > 0)::text");
    let seen = timeout(PATIENCE, async { while session.text(&blocked).await != "true" {} });
    assert!(seen.await.is_ok(), "it does not wait for anybody");
}

/// Two statements do not wait for each other.
async fn passes(db: &Database, first: &str, second: &str) {
    let (one, two) = (db.session().await, db.session().await);
    one.run(&format!("begin; {first}")).await;
    two.run(&format!("set lock_timeout = '5s'; {second}")).await;
    one.run("commit").await;
}

fn apply(purchase: &Purchase, points: i64, policy: &str) -> String {
    let event = if points == 0 {
        purchase.cancelled(Some(policy))
    } else {
        purchase.scheduled(points, DUE, policy)
    };
    format!("select crm_events.apply_award('{event}')")
}

fn settle(purchase: &Purchase) -> String {
    format!("select crm_events.settle_award('{}')", purchase.key())
}

async fn booked(db: &Database, purchase: &Purchase, points: i64, policy: &str) {
    db.own.run(&purchase.sql()).await;
    db.own.run(&apply(purchase, points, policy)).await;
    db.own.run(&settle(purchase)).await;
}

#[tokio::test]
async fn two_who_settle_one_award_book_it_once() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    db.own.run(&apply(&purchase, 100, "unlimited")).await;
    let second = waits(&db, &settle(&purchase), &settle(&purchase)).await;
    assert_eq!(second["settle_award"]["outcome"], "unchanged", "{second}");
    assert_eq!(db.own.balance("u-1").await, 100);
    db.done().await;
}

// Edge case 7: two refunds of one member share one balance.
#[tokio::test]
async fn two_refunds_of_one_member_take_back_no_more_than_there_is() {
    let db = Database::new().await;
    let policy = "within_balance";
    for id in ["a", "b"] {
        booked(&db, &Purchase::new(id), 100, policy).await;
    }
    db.own
        .run(
            "insert into wallet_ledger (user_id, merchant_id, amount, kind, created_at) \
             values ('u-1', 'm-1', -80, 'spend', now())",
        )
        .await;
    let refunds = ["a", "b"].map(|id| Purchase::new(id).refunded("100", "refunded"));
    for refund in &refunds {
        db.own.run(&refund.sql()).await;
        db.own.run(&apply(refund, 0, policy)).await;
    }
    let second = waits(&db, &settle(&refunds[0]), &settle(&refunds[1])).await;
    assert_eq!(second["settle_award"]["booked_now"], -20, "{second}");
    assert_eq!(db.own.balance("u-1").await, 0);
    db.done().await;
}

#[tokio::test]
async fn nobody_changes_a_row_while_it_is_applied_or_settled_or_its_progress_is_replaced() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    let change = "update purchase_ledger set refunded_amount = 1 where id = 'p' returning '1'::text";
    for first in [
        apply(&purchase, 100, "unlimited"),
        settle(&purchase),
        recorded(&purchase, 1),
    ] {
        let (one, two) = (db.session().await, db.session().await);
        one.run(&format!("begin; {first}")).await;
        let pid = two.text("select pg_backend_pid()::text").await;
        let (changed, ()) = tokio::join!(two.text(change), async {
            until_blocked(&db.own, &pid).await;
            one.run("commit").await;
        });
        assert_eq!(changed, "1");
        db.own.run(&purchase.sql()).await;
    }
    db.done().await;
}

#[tokio::test]
async fn an_event_that_waited_while_the_row_changed_is_stale() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    let change = "update purchase_ledger set refunded_amount = 1 where id = 'p'";
    let late = waits(&db, change, &apply(&purchase, 100, "unlimited")).await;
    assert_eq!(late["apply_award"]["outcome"], "stale", "{late}");
    db.done().await;
}

fn recorded(purchase: &Purchase, rev: i64) -> String {
    let mission = if rev == 1 { "a" } else { "b" };
    let event = json!([{"merchant_id": "m-1", "user_id": "u-1", "program_rev": rev, "as_of_ms": TS_MS, "reason": "counted",
        "effect_key": format!("mission_source:m-1:u-1:purchase_ledger:{}", purchase.id), "basis": purchase.basis(),
        "source": {"table": "purchase_ledger", "row_id": purchase.id, "version": "1", "op": "u"},
        "missions": [{"mission_id": mission, "effect_key": format!("mission:m-1:{mission}:u-1:x"), "period": "x",
            "trigger": "purchase_total", "counted": "100", "target": "150"}]}]);
    format!("select * from crm_events.record_progress('{event}')")
}

// Edge case 24.
#[tokio::test]
async fn two_rows_of_one_mission_add_up_though_they_come_at_once() {
    let db = Database::new().await;
    let rows = ["a", "b"].map(Purchase::new);
    for row in &rows {
        db.own.run(&row.sql()).await;
    }
    waits(&db, &recorded(&rows[0], 1), &recorded(&rows[1], 1)).await;
    let told = db
        .own
        .rows("select data->>'progress' as progress, data->'completed_now' as now from crm_events.announcements order by seq")
        .await;
    assert_eq!(
        told,
        [
            json!({"progress": "100", "now": false}),
            json!({"progress": "200", "now": true})
        ]
    );
    db.done().await;
}

#[tokio::test]
async fn two_revisions_of_one_row_do_not_mix_their_shares() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    for (first, second) in [(1, 2), (2, 1)] {
        waits(&db, &recorded(&purchase, first), &recorded(&purchase, second)).await;
        let counted = "select effect_key from crm_events.mission_sources where counted <> 0";
        assert_eq!(
            db.own.rows(counted).await,
            [json!({"effect_key": "mission:m-1:b:u-1:x"})]
        );
        let told = "select effect_key, detail->>'progress' as progress from crm_events.effects where kind = 'mission'";
        let progress = db
            .own
            .rows(&format!(
                "select progress from ({told}) told where effect_key like '%:a:%'"
            ))
            .await;
        assert_eq!(progress, [json!({"progress": "0"})], "it left its first mission");
    }
    db.done().await;
}

#[tokio::test]
async fn two_evaluations_of_one_member_upgrade_once() {
    let db = Database::new().await;
    db.own.run(&Purchase::new("p").sql()).await;
    let element = json!([{"merchant_id": "m-1", "user_id": "u-1", "effect_key": "tier:m-1:u-1", "program_rev": 1, "as_of_ms": TS_MS,
        "rules": {"metric": "spend", "window": {"kind": "lifetime"}, "time_zone": "UTC", "timing": "immediate",
            "ladder": [{"name": "silver", "threshold": "1"}]}, "triggers": []}]);
    // The effect is there already, so that only its lock can keep them apart.
    db.own.run(&Purchase::new("p").of("nobody").sql()).await;
    let call = format!("select * from crm_events.evaluate_tiers('{element}')");
    db.own.run(&call).await;
    db.own.run(&Purchase::new("p").sql()).await;
    waits(&db, &call, &call).await;
    assert_eq!(
        db.own.text("select count(*)::text from crm_events.tier_history").await,
        "1"
    );
    db.done().await;
}

#[tokio::test]
async fn different_members_do_not_wait_for_each_other() {
    let db = Database::new().await;
    let (one, two) = (Purchase::new("a"), Purchase::new("b").of("u-2"));
    for purchase in [&one, &two] {
        db.own.run(&purchase.sql()).await;
        db.own.run(&apply(purchase, 100, "unlimited")).await;
    }
    passes(&db, &settle(&one), &settle(&two)).await;
    assert_eq!((db.own.balance("u-1").await, db.own.balance("u-2").await), (100, 100));
    db.done().await;
}

#[tokio::test]
async fn whoever_settles_behind_a_lock_gives_up_in_time() {
    let db = Database::new().await;
    let limited = db
        .own
        .rows(
            "select p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
             where n.nspname = 'crm_events' and p.proconfig @> array['lock_timeout=20s'] order by 1",
        )
        .await;
    let settling = [
        "apply_award",
        "settle",
        "settle_award",
        "settle_code",
        "settle_grant",
        "upgrade_tier",
    ];
    assert_eq!(limited, settling.map(|name| json!({"proname": name})));
    // What the function is set to holds for every lock below it; shortened here, so that nobody waits.
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    db.own.run(&apply(&purchase, 100, "unlimited")).await;
    db.own
        .run("alter function crm_events.settle_award(text) set lock_timeout = '20ms'")
        .await;
    let (idle, workflow) = (db.session().await, db.session().await);
    for lock in [
        "update purchase_ledger set metadata = '{}'",
        "select crm_events.lock_wallet('m-1', 'u-1')",
    ] {
        idle.run(&format!("begin; {lock}")).await;
        assert_eq!(workflow.refusal(&settle(&purchase)).await, "55P03", "{lock}");
        idle.run("rollback").await;
    }
    let answer = workflow.settle("settle_award", "award:p").await;
    assert_eq!(answer["booked_now"], 100);
    db.done().await;
}
