//! Snapshots: what was settled is not delivered again, what was missed is.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;

use super::workflows::Workflows;
use super::{House, counted, plain_currency};
use crate::real::topics;
use crate::real::worker::{Accepted, Inbox, receiver};

const ROWS: i64 = 100_000;

/// The effects as awards that were applied and settled leave them. The last hundred rows: fifty that nobody ever saw,
/// twenty-five that were refunded since, twenty-five of which a part was.
const LEDGER: &str = "
    insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at)
    select 'p-' || n, 'u-' || n % 5000, '{merchant}', 100 + n % 7, 'completed', true, '2026-01-15T10:00:00Z'
    from generate_series(1, {rows}) n;
    insert into crm_events.effects (effect_key, kind, source_table, source_id, merchant_id, user_id, state, basis, target, due_at,
        program_rev, as_of_ms, refund_policy, booked, booked_user_id, booked_merchant_id, settled_at)
    select 'award:' || p.id, 'award', 'purchase_ledger', p.id, p.merchant_id, p.user_id, 'settled',
        crm_events.basis_of('purchase_ledger', to_jsonb(p)), floor(p.final_amount), p.created_at,
        1, 1, 'within_balance', floor(p.final_amount), p.user_id, p.merchant_id, now()
    from purchase_ledger p where substr(p.id, 3)::integer <= {rows} - 50;
    update purchase_ledger set status = 'refunded', refunded_amount = final_amount
    where substr(id, 3)::integer between {rows} - 99 and {rows} - 75;
    update purchase_ledger set status = 'partially_refunded', refunded_amount = 10
    where substr(id, 3)::integer between {rows} - 74 and {rows} - 50;
    analyze purchase_ledger; analyze crm_events.effects";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_thousand_snapshot_rows_exactly_the_hundred_that_are_not_settled_are_delivered() {
    let house = House::new(4).await;
    house
        .program(
            "UTC",
            &json!({"currency": plain_currency(), "refund_policy": "within_balance"}),
        )
        .await;
    let made = LEDGER
        .replace("{merchant}", &house.merchant)
        .replace("{rows}", &ROWS.to_string());
    house.sql(&made).await;
    let begun = Instant::now();
    let connector = house.connector().await;
    house.holds("purchase_ledger", ROWS).await;
    let snapshot = begun.elapsed();
    let inbox = Inbox::of(&house.merchant);
    let receiver = receiver(&inbox).await;
    let mut worker = house.worker(&receiver.base_url());
    let begun = Instant::now();
    worker.start().await;
    house.read_through("purchase_ledger", ROWS).await;
    let worked = begun.elapsed();

    let events = inbox.all();
    let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!((events.len(), ids.len()), (100, 100), "no more, and none twice");
    let rows = |name: &str| -> BTreeSet<i64> {
        let number = |event: &Accepted| event.data["purchase_id"].as_str().and_then(|id| id[2..].parse().ok());
        events
            .iter()
            .filter(|event| event.name == name)
            .map(|event| number(event).expect("a row"))
            .collect()
    };
    assert_eq!(
        rows("loyalty/award.cancelled"),
        (ROWS - 99..=ROWS - 75).collect(),
        "refunded since"
    );
    assert_eq!(
        rows("loyalty/award.scheduled"),
        (ROWS - 74..=ROWS).collect(),
        "reduced since, or missed"
    );
    assert_eq!(house.dead_letters().await, 0);
    let equal = counted(&worker, "crm_record_outcomes", &["\"currency\"", "\"ignored\""]).await;
    assert_eq!(equal, 99_900, "found settled");
    let calls = counted(&worker, "crm_database_calls", &["compare_effects"]).await;
    println!(
        "{ROWS} snapshot rows, 99,900 of them settled: 100 deliveries, {calls} comparisons; \
         snapshot {snapshot:.1?}, worker {worked:.1?} from its start to the last commit"
    );
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    house.done(connector).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_lost_slot_the_missed_purchase_is_awarded_the_refunded_one_taken_back_and_none_twice() {
    let house = House::new(2).await;
    house
        .program(
            "UTC",
            &json!({"currency": plain_currency(), "refund_policy": "within_balance"}),
        )
        .await;
    let workflows = Workflows::start(&house).await;
    let mut worker = house.worker(&workflows.url);
    worker.start().await;
    let connector = house.connector().await;
    // From the row to the points, one by one; p-3 and its like in two steps.
    for number in 1..=20 {
        house
            .purchase(&format!("p-{number}"), &format!("u-{number}"), "100.00", "completed")
            .await;
    }
    let entries = "select count(*)::text from wallet_ledger";
    house.until("twenty awards", entries, "20").await;
    house.read_through("wallet_ledger", 20).await;
    workflows.idle().await;
    let before = workflows.events().await.len();

    connector.stop().await;
    connector.drop_slot(&house.database).await;
    house.purchase("p-missed", "u-missed", "70.00", "completed").await;
    house
        .sql(
            "update purchase_ledger set status = 'refunded', refunded_amount = final_amount where id = 'p-3'; \
             update purchase_ledger set metadata = '{}' where id = 'p-4'",
        )
        .await;
    connector.resume().await;
    house.until("the missed award and the clawback", entries, "22").await;
    house.read_through("purchase_ledger", 20 + 21).await;
    // The two entries stream behind the snapshot of the twenty.
    house.read_through("wallet_ledger", 20 + 20 + 2).await;
    workflows.idle().await;

    // Every row came again, as a snapshot.
    let (topic, merchant) = (house.topic("purchase_ledger"), house.merchant.clone());
    let changes = tokio::task::spawn_blocking(move || topics::changes(&topic, &merchant))
        .await
        .expect("read");
    let again: BTreeSet<&str> = changes
        .iter()
        .filter(|change| change.op == "r")
        .map(|change| &*change.row)
        .collect();
    assert_eq!(again.len(), 21, "{changes:?}");
    let events = workflows.events().await;
    let mut delivered: Vec<(&str, &str)> = events[before..]
        .iter()
        .map(|event| {
            (
                event["name"].as_str().expect("a name"),
                event["data"]["purchase_id"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    delivered.sort_unstable();
    assert_eq!(
        delivered,
        [
            ("loyalty/award.cancelled", "p-3"),
            ("loyalty/award.scheduled", "p-missed")
        ]
    );
    let sums = "select source_id, count(*) as entries, sum(amount) as points from wallet_ledger group by 1 order by 1";
    for row in house.database.own.rows(sums).await {
        let expected = match row["source_id"].as_str().expect("a purchase") {
            "p-3" => (2, 0),
            "p-missed" => (1, 70),
            _ => (1, 100),
        };
        assert_eq!(
            (row["entries"].as_i64(), row["points"].as_i64()),
            (Some(expected.0), Some(expected.1)),
            "{row}"
        );
    }
    assert_eq!(house.dead_letters().await, 0);
    assert_eq!(workflows.failed().await, Vec::<serde_json::Value>::new());
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    house.done(connector).await;
}
