//! What operators see of records on their way.

use crm_event_processors::consumers::Consumer;
use crm_event_processors::telemetry::http::status_json;

use super::harness::{PURCHASES, Purchase, World, patiently};

/// The value of one series of a scrape.
fn value(scrape: &str, series: &[&str]) -> Option<u64> {
    let line = scrape
        .lines()
        .find(|line| !line.starts_with('#') && series.iter().all(|part| line.contains(part)))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn events_in_flight_and_answers_of_the_dedupe_store_are_counted() {
    let world = World::new();
    let (worker, gate) = world.delivery_in_flight(&[PURCHASES]).await;
    assert_eq!(worker.telemetry.in_flight(Consumer::Currency), 1);
    gate.release();
    world.all_committed(PURCHASES).await;
    assert_eq!(worker.telemetry.in_flight(Consumer::Currency), 0);
    // The connector repeats itself.
    world.purchase(&Purchase::completed("p-1", 10));
    world.all_committed(PURCHASES).await;
    let scrape = worker.telemetry.scrape().expect("text");
    for (answer, count) in [("granted", 1), ("done", 1), ("foreign", 0)] {
        let answer = format!("answer=\"{answer}\"");
        let series = ["crm_dedupe_claims_total", "consumer=\"currency\"", &answer];
        assert_eq!(value(&scrape, &series), Some(count), "{answer}");
    }
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_holds_a_committed_offset_is_named_and_the_commit_grows_old() {
    let world = World::new();
    let (worker, gate) = world.delivery_in_flight(&[PURCHASES]).await;
    let mut ticks = worker.telemetry.watch();
    for _ in 0..20 {
        ticks.changed().await.expect("ticks");
    }
    let status = status_json(&worker.telemetry);
    assert_eq!(
        status["partitions"][0]["held_by"],
        serde_json::json!(["currency"]),
        "{status}"
    );
    assert_eq!(status["consumers"][0]["in_flight"], 1, "{status}");
    let age = status["client"]["commit_age_ms"].as_u64().expect("a number");
    assert!((4000..6000).contains(&age), "{status}");
    gate.release();
    world.all_committed(PURCHASES).await;
    let confirmed = ticks.wait_for(|status| status.partitions[0].committed == Some(1));
    drop(patiently(confirmed).await.expect("a tick behind the commit"));
    let status = status_json(&worker.telemetry);
    assert_eq!(status["partitions"][0]["held_by"], serde_json::json!([]), "{status}");
    assert_eq!(status["client"]["commit_age_ms"], 0, "{status}");
    worker.stop().await;
}
