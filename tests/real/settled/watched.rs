//! A worker looks at its source while it works, and shows what it sees as metrics.

use super::{House, LOOK};
use crate::real::worker::{Inbox, PATIENCE, Worker, receiver};

/// Waits until a scrape has a line that begins with each of these, and none that begins with one of the others; gives that
/// scrape.
async fn until_scraped(worker: &Worker, what: &str, present: &[&str], absent: &[&str]) -> String {
    let mut last = String::new();
    let asking = async {
        loop {
            if let Some((_, text)) = worker.get("metrics").await {
                let has = |begin: &&str| text.lines().any(|known| known.starts_with(*begin));
                if present.iter().all(has) && !absent.iter().any(has) {
                    return text;
                }
                last = text;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, asking).await;
    waited.unwrap_or_else(|_| panic!("{what} was never shown: {last}\n{}", worker.log()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_shows_whether_its_connector_runs_and_its_slot_is_read() {
    let house = House::new(1).await;
    let inbox = Inbox::of(&house.merchant);
    let receiver = receiver(&inbox).await;
    let mut worker = house.looking_worker(&receiver.base_url());
    worker.start().await;
    // Somebody answers, and says that there is none.
    let missing = ["crm_connector_running 0", "crm_connector_tasks{state=\"running\"} 0"];
    until_scraped(&worker, "no connector", &missing, &["crm_slot_", "crm_heartbeat_"]).await;

    let connector = house.connector().await;
    house
        .until("a beat", "select (count(*) > 0)::text from dbz_heartbeat", "true")
        .await;
    let runs = [
        "crm_connector_running 1",
        "crm_connector_tasks{state=\"running\"} 1",
        "crm_connector_tasks{state=\"failed\"} 0",
        "crm_slot_active 1",
        "crm_slot_lost 0",
        "crm_check_findings{severity=\"failed\"} 0",
        // Asked last: a look whose time ends before lacks it.
        "crm_heartbeat_age_seconds ",
        "crm_slot_retained_bytes ",
        "crm_source_look_age_seconds ",
    ];
    // Of that very scrape: the next look may lack something.
    let text = until_scraped(&worker, "a connector that runs", &runs, &[]).await;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let line = line.unwrap_or_else(|| panic!("{name}: {text}"));
        line.parse::<f64>().expect("a number")
    };
    // Seconds, not milliseconds and not since 1970: half of an hour is more than any machine takes for this test.
    assert!((0.0..1800.0).contains(&value("crm_heartbeat_age_seconds")), "{text}");
    assert!((0.0..1800.0).contains(&value("crm_source_look_age_seconds")), "{text}");
    assert!(value("crm_slot_retained_bytes") >= 0.0, "{text}");

    connector.stop().await;
    let stopped = ["crm_connector_running 0", "crm_slot_active 0"];
    until_scraped(&worker, "a connector that somebody stopped", &stopped, &[]).await;
    connector.resume().await;
    until_scraped(&worker, "a connector that runs again", &runs, &[]).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    let log = worker.log();
    for line in [
        "a look around found something finding=\"connector.missing\"",
        "a look around found something finding=\"connector.paused\"",
        "a look around does not find it any more finding=\"connector.paused\"",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    house.done(connector).await;
}
