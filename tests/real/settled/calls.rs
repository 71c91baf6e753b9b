//! Tiers and missions: one statement a batch and consumer, by the database's own count.

use serde_json::json;

use super::{House, counted};
use crate::real::worker::{Inbox, receiver};

const PURCHASES: i64 = 3000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiers_and_missions_cost_one_statement_a_batch() {
    let house = House::new(2).await;
    let merchant = &house.merchant;
    house
        .program(
            "UTC",
            &json!({
                "tiers": {"ladder": [{"name": "silver", "threshold": "100"}, {"name": "gold", "threshold": "1000"}],
                          "metric": "spend", "window": {"kind": "lifetime"}, "timing": "immediate"},
                "missions": [{"id": "ten", "trigger": {"kind": "purchase_count"}, "target": 10, "period": "lifetime"}],
                "refund_policy": "within_balance",
            }),
        )
        .await;
    // A hundred members, thirty purchases of 40 each.
    house
        .sql(&format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
             select 'p-' || n, 'u-' || n % 100, '{merchant}', 40, 'completed', true, now() \
             from generate_series(1, {PURCHASES}) n"
        ))
        .await;
    let inbox = Inbox::of(merchant);
    let receiver = receiver(&inbox).await;
    let mut worker = house.worker(&receiver.base_url());
    worker.start().await;
    let connector = house.connector().await;
    house.read_through("purchase_ledger", PURCHASES).await;

    for (consumer, call) in [("tier", "evaluate_tiers"), ("mission", "record_progress")] {
        // Statements as clients send them; what functions do inside is not counted.
        let statements = house
            .number(&format!(
                "select coalesce(sum(calls), 0) from pg_stat_statements \
                 join pg_database on oid = dbid and datname = current_database() where query like '%' || '{call}' || '%' \
                 and query not like '%pg_stat_statements%' and query not ilike '%create%function%'"
            ))
            .await;
        // The server counts only what it carried out.
        let calls = counted(&worker, "crm_database_calls", &[consumer, call, "\"done\""]).await;
        let batches = counted(&worker, "crm_lane_batches", &[consumer]).await;
        println!("{call}: {statements} statements for {PURCHASES} records, {batches} batches");
        assert_eq!(u64::try_from(statements).ok(), Some(calls), "{call}");
        assert!(
            calls > 0 && calls <= batches,
            "{call}: {calls} calls of {batches} batches"
        );
        assert!(statements * 10 <= PURCHASES, "{call}: far fewer than records");
    }
    let gold = "select count(*) from crm_events.tier_state where tier = 'gold' and value = 1200";
    assert_eq!(house.number(gold).await, 100);
    let upgraded = "select count(*) from crm_events.tier_history where tier = 'gold'";
    assert_eq!(house.number(upgraded).await, 100, "each member once");
    let completed =
        "select count(*) from crm_events.effects where kind = 'mission' and detail->>'completed_at' is not null";
    assert_eq!(house.number(completed).await, 100);
    let unsent = "select count(*) from crm_events.announcements where announced_at is null";
    assert_eq!(house.number(unsent).await, 0);
    let gold = inbox
        .all()
        .into_iter()
        .filter(|event| event.name == "loyalty/tier.upgraded" && event.data["tier"] == "gold");
    assert_eq!(
        gold.map(|event| event.id)
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        100
    );
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    house.done(connector).await;
}
