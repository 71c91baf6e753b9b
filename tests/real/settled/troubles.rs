//! The database restarted under load, and a worker that dies between what the database did and its announcement.

use std::collections::{BTreeMap, BTreeSet};

use crm_event_processors::faults::Gate;
use crm_event_processors::inngest::receiver::Fault;
use serde_json::{Value, json};

use super::{House, plain_currency};
use crate::postgres::Database;
use crate::postgres_client::server::Server;
use crate::real::worker::{Accepted, Inbox, receiver};

/// Ten members, tiers by spend, a mission that ten purchases complete.
fn rules() -> Value {
    json!({
        "currency": plain_currency(),
        "tiers": {"ladder": [{"name": "silver", "threshold": "100"}, {"name": "gold", "threshold": "1000"}],
                  "metric": "spend", "window": {"kind": "lifetime"}, "timing": "immediate"},
        "missions": [{"id": "ten", "trigger": {"kind": "purchase_count"}, "target": 10, "period": "lifetime"}],
        "refund_policy": "within_balance",
    })
}

/// Ids of the events of one name, by how often they were accepted.
fn ids(events: &[Accepted], name: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for event in events.iter().filter(|event| event.name == name) {
        *found.entry(event.id.clone()).or_default() += 1;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_restarts_and_kills_connections_under_load_loses_and_doubles_nothing() {
    let mut server = Server::start().await;
    let mut house = House::with(Database::on(&server.url()).await, 4).await;
    house.program("UTC", &rules()).await;
    let inbox = Inbox::of(&house.merchant);
    let receiver = receiver(&inbox).await;
    let mut worker = house.worker(&receiver.base_url());
    worker.start().await;

    let merchant = house.merchant.clone();
    let insert = |from: i64, to: i64| {
        format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
             select 'p-' || n, 'u-' || n % 10, '{merchant}', 40, 'completed', true, now() from generate_series({from}, {to}) n"
        )
    };
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity \
                where application_name = 'crm-event-processors' and pid <> pg_backend_pid()";
    // Rounds of a hundred, each with its trouble: the connections killed as fast as they come, or the whole server.
    for round in 0..10 {
        let (from, to) = (round * 100 + 1, round * 100 + 100);
        house.sql(&insert(from, to)).await;
        house
            .produce(&format!("substr(p.id, 3)::integer between {from} and {to}"))
            .await;
        for _ in 0..20 {
            house.sql(kill).await;
        }
        if round % 4 == 2 {
            server.shut_down();
            server.come_back().await;
            house.database.own = house.database.session().await;
        }
    }
    let tiers = "select count(*)::text from crm_events.tier_state where tier = 'gold' and value = 4000";
    house.until("every member's tier over all purchases", tiers, "10").await;
    house.read_through("purchase_ledger", 1000).await;

    let progress =
        "select count(*) from crm_events.effects where kind = 'mission' and detail->>'progress' = '100' and booked = 1";
    assert_eq!(house.number(progress).await, 10, "every purchase counts once");
    let history = "select count(*) from crm_events.tier_history";
    let steps = house.number(history).await;
    assert_eq!(
        house
            .number("select count(distinct (user_id, tier)) from crm_events.tier_history")
            .await,
        steps,
        "none twice"
    );
    let unsent = "select count(*) from crm_events.announcements where announced_at is null";
    assert_eq!(house.number(unsent).await, 0);
    let announced = house
        .database
        .own
        .rows("select id, name from crm_events.announcements")
        .await;
    let events = inbox.all();
    for name in ["loyalty/tier.upgraded", "loyalty/mission.evaluated"] {
        let written = announced.iter().filter(|one| one["name"] == name);
        let written: BTreeSet<&str> = written.map(|one| one["id"].as_str().expect("an id")).collect();
        let accepted = ids(&events, name);
        assert_eq!(
            accepted.keys().map(String::as_str).collect::<BTreeSet<_>>(),
            written,
            "{name}: all, and no other"
        );
    }
    let completed = events
        .iter()
        .filter(|event| event.data["completed_now"] == true)
        .map(|event| event.id.as_str());
    assert_eq!(completed.collect::<BTreeSet<_>>().len(), 10, "each mission once");
    let awards = ids(&events, "loyalty/award.scheduled");
    assert_eq!(awards.len(), 1000, "every purchase one award");
    assert_eq!(house.dead_letters().await, 0);
    let resent = events.len() - events.iter().map(|event| &event.id).collect::<BTreeSet<_>>().len();
    println!(
        "1000 purchases, 200 killings and 2 restarts of the database: {} events, {resent} resent",
        events.len()
    );
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_between_the_database_and_the_announcement_announces_it_once_with_its_id() {
    let house = House::new(1).await;
    let mut tiers = rules();
    for other in ["currency", "missions"] {
        tiers.as_object_mut().expect("an object").remove(other);
    }
    house.program("UTC", &tiers).await;
    let inbox = Inbox::of(&house.merchant);
    let receiver = receiver(&inbox).await;
    let mut worker = house.worker(&receiver.base_url());
    worker.is_missed_soon();
    worker.start().await;

    let held = Gate::default();
    receiver.faults().push(Fault::Hold(held.clone()));
    house.purchase("p-1", "u-1", "150.00", "completed").await;
    house.produce("p.id = 'p-1'").await;
    held.arrived().await;
    let unsent = "select count(*) from crm_events.announcements where announced_at is null";
    assert_eq!(house.number(unsent).await, 1, "the member is moved, and nobody knows");
    assert_eq!(house.number("select count(*) from crm_events.tier_history").await, 1);
    assert_eq!(inbox.all().len(), 0);
    worker.kill().await;
    worker.start().await;
    inbox.wait_until("the announcement", |events| !events.is_empty()).await;
    house.read_through("purchase_ledger", 1).await;
    held.release();

    assert_eq!(house.number(unsent).await, 0);
    assert_eq!(
        house.number("select count(*) from crm_events.tier_history").await,
        1,
        "moved once"
    );
    let upgraded = ids(&inbox.all(), "loyalty/tier.upgraded");
    let key = format!("tier:{}:u-1:upgraded:1", house.merchant);
    assert_eq!(upgraded.keys().collect::<Vec<_>>(), [&key]);
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    house.emptied().await;
}
