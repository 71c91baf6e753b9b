//! What Inngest took and never ran: the reconciler inside the worker notices it and sends it once more.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::workflows::Workflows;
use super::{House, LOOK, counted, plain_currency};
use crate::real::worker::{PATIENCE, Worker};

const EFFECTS: [&str; 5] = [
    "award:p-1",
    "code:k-1",
    "grant:c-1",
    "referral:r-1:referee",
    "referral:r-1:referrer",
];

/// Asks the worker for a pass of its reconciler, and waits until one was made.
async fn pass(worker: &Worker) {
    let done = async || counted(worker, "crm_reconciler_passes", &["done"]).await;
    let before = done().await;
    worker.signal("USR1").await;
    let made = async {
        while done().await == before {
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, made).await;
    assert!(waited.is_ok(), "no pass was made; the log:\n{}", worker.log());
}

/// The effects of these events, one each, and their ids.
fn effects(events: &[Value]) -> (BTreeSet<&str>, Vec<&str>) {
    let keys = events.iter().filter_map(|event| event["data"]["effect_key"].as_str());
    let ids = events.iter().filter_map(|event| event["id"].as_str());
    (keys.collect(), ids.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_inngest_accepted_and_never_ran_is_sent_again_by_the_worker_and_settled_once() {
    let house = House::new(1).await;
    let merchant = &house.merchant;
    let rules = json!({"currency": plain_currency(), "refund_policy": "within_balance"});
    house.program("UTC", &rules).await;
    let workflows = Workflows::start(&house).await;
    workflows.accept_only(true).await;
    let mut worker = house.worker(&workflows.url);
    worker.start().await;
    let connector = house.connector().await;
    house.purchase("p-1", "u-1", "150.00", "completed").await;
    house
        .sql(&format!(
            "insert into mission_claims (id, user_id, merchant_id, mission_id, status, claimed_at) \
             values ('c-1', 'u-1', '{merchant}', 'two', 'claimed', now()); \
             insert into referral_ledger (id, referrer_user_id, referee_user_id, merchant_id, status, created_at) \
             values ('r-1', 'u-1', 'u-9', '{merchant}', 'qualified', now()); \
             insert into codes (id, code, merchant_id, status, user_id, redeemed_at) \
             values ('k-1', 'SECRET', '{merchant}', 'redeemed', 'u-1', now())"
        ))
        .await;
    for table in ["purchase_ledger", "mission_claims", "referral_ledger", "codes"] {
        house.read_through(table, 1).await;
    }
    workflows.accept_only(false).await;
    let taken = workflows.events().await;
    let (keys, ids) = effects(&taken);
    assert_eq!((keys, ids.len()), (BTreeSet::from(EFFECTS), 5), "all were accepted");
    let known = "select count(*) from crm_events.effects";
    assert_eq!(house.number(known).await, 0, "and nothing was done");

    pass(&worker).await;
    let noted = format!("{known} where state = 'missing'");
    assert_eq!(house.number(&noted).await, 5);
    workflows.advance_minutes(14).await;
    pass(&worker).await;
    assert_eq!(workflows.events().await.len(), 5, "they may still be on their way");
    workflows.advance_minutes(2).await;
    assert_eq!(house.number(&noted).await, 5, "nobody else heals it");
    pass(&worker).await;
    let settled = "select count(*)::text from crm_events.effects where state = 'settled' and booked = target";
    house.until("everything is settled", settled, "5").await;
    house.read_through("wallet_ledger", 1).await;

    // A day later there is nothing left to heal.
    workflows.advance_days(1).await;
    pass(&worker).await;
    workflows.idle().await;
    let events = workflows.events().await;
    let (healed, ids) = effects(&events[5..]);
    assert_eq!((healed, ids.len()), (BTreeSet::from(EFFECTS), 5), "each once: {ids:?}");
    assert!(ids.iter().all(|id| id.contains("#h1")), "{ids:?}");
    let wallet = house
        .database
        .own
        .rows("select user_id, kind, amount from wallet_ledger")
        .await;
    assert_eq!(wallet, [json!({"user_id": "u-1", "kind": "earn", "amount": 150})]);
    assert_eq!(workflows.failed().await, Vec::<Value>::new());
    assert_eq!(house.dead_letters().await, 0);
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    house.done(connector).await;
}
