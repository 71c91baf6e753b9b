//! What is drawn of a worker under load: a real Prometheus scrapes it, and is asked what the dashboard asks.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;

use super::{House, plain_currency};
use crate::contract::dashboard;
use crate::real::prometheus::{Prometheus, lint};
use crate::real::stack;
use crate::real::worker::{Inbox, PATIENCE, receiver};

/// Rows of one round. A round a second is load enough to be seen.
const ROWS: usize = 40;
const ROUND: Duration = Duration::from_secs(1);

/// Which queries have no number yet.
async fn without_data(prometheus: &Prometheus, queries: &[String]) -> BTreeMap<String, Vec<f64>> {
    let mut without = BTreeMap::new();
    for query in queries {
        let values = prometheus.values(query).await;
        if !values.iter().any(|value| value.is_finite()) {
            without.insert(query.clone(), values);
        }
    }
    without
}

impl House {
    async fn round(&self, round: usize) {
        let merchant = &self.merchant;
        self.sql(&format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
             select 'p-{round}-' || n, 'u-' || n, '{merchant}', 10, 'completed', true, now() from generate_series(1, {ROWS}) n"
        ))
        .await;
    }

    /// What no decoder takes.
    async fn poison(&self) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", stack("KAFKA_BOOTSTRAP_SERVERS"));
        let producer: FutureProducer = config.create().expect("a producer");
        let topic = self.topic("purchase_ledger");
        let message = FutureRecord::<str, str>::to(&topic).key("poison").payload("no JSON");
        producer.send(message, PATIENCE).await.expect("delivered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_dashboard_has_data_of_a_worker_under_load_and_its_scrape_is_in_form() {
    let house = House::new(2).await;
    // Tiers are evaluated by the database: its calls are drawn as well.
    let rules = json!({
        "currency": plain_currency(),
        "tiers": {"ladder": [{"name": "silver", "threshold": "100"}], "metric": "spend", "window": {"kind": "lifetime"},
                  "timing": "immediate"},
        "refund_policy": "within_balance",
    });
    house.program("UTC", &rules).await;
    let inbox = Inbox::of(&house.merchant);
    let receiver = receiver(&inbox).await;
    let mut worker = house.looking_worker(&receiver.base_url());
    worker.start().await;
    let connector = house.connector().await;
    let address = worker.variables().find(|(name, _)| *name == "HTTP_ADDR");
    let prometheus = Prometheus::of(address.expect("an address").1).await;
    house.poison().await;

    let queries = dashboard::queries();
    assert!(queries.len() > 40, "only {} queries", queries.len());
    let mut without = BTreeMap::new();
    let drawing = async {
        let mut rounds = tokio::time::interval(ROUND);
        for round in 0.. {
            rounds.tick().await;
            house.round(round).await;
            without = without_data(&prometheus, &queries).await;
            if without.is_empty() {
                return;
            }
            // The reconciler's turn comes in ten minutes, and what it finds is told behind its first pass. It hears of us
            // once everything else has begun.
            let of_passes = |query: &String| query.contains("crm_reconciler_") || query.contains("crm_effects_");
            if without.keys().all(of_passes) {
                worker.signal("USR1").await;
            }
        }
    };
    let waited = tokio::time::timeout(PATIENCE, drawing).await;
    assert!(waited.is_ok(), "these have no data: {without:#?}\n{}", worker.log());
    // What has no series looks so; a query that is wrong would as well.
    let nothing = prometheus.values("crm_nobody_has_this").await;
    assert!(nothing.is_empty(), "{nothing:?}");

    let (_, scrape) = worker.get("metrics").await.expect("a scrape");
    assert_eq!(lint(&scrape), "");
    assert_ne!(
        lint("# TYPE crmCamel counter\ncrmCamel 1\n"),
        "",
        "it finds what is out of form"
    );
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    house.done(connector).await;
}
