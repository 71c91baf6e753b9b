//! What a worker says that cannot start: what is wrong, where, and what to do.

use std::time::Duration;

use super::worker::{PATIENCE, Worker};
use super::{stack, unique};

const PROGRAM: &str = crm_event_processors::loyalty::DEMO_PROGRAM;

fn worker() -> Worker {
    Worker::new(&format!("startup-{}", unique()), PROGRAM, "http://127.0.0.1:9")
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_named() {
    let mut worker = worker();
    worker.set("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9");
    worker.spawn();
    assert_eq!(worker.ends().await, 69);
    let log = worker.log();
    assert!(
        log.contains("127.0.0.1:9") && log.contains("KAFKA_BOOTSTRAP_SERVERS"),
        "{log}"
    );
}

#[tokio::test]
async fn a_start_that_waits_for_the_database_lives_and_says_what_it_waits_for() {
    let mut worker = worker();
    worker.set("DATABASE_URL", "postgres://crm@127.0.0.1:9/crm");
    worker.spawn();
    let waits = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            let Some(status) = worker.status().await else { continue };
            let why = status["flow"]["why"][0].as_str().unwrap_or_default();
            if why.starts_with("waits: the database cannot answer now: ") {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, waits).await;
    let status = status.unwrap_or_else(|_| panic!("{}", worker.log()));
    assert_eq!(status["flow"]["state"], "starting", "{status}");
    assert_eq!(worker.get("livez").await.map(|(code, _)| code), Some(200));
    let (code, problems) = worker.get("readyz").await.expect("an answer");
    assert_eq!(code, 503);
    assert!(problems.starts_with("starting: waits: the database"), "{problems}");
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
}

#[tokio::test]
async fn missing_topics_are_named_all_at_once() {
    let mut worker = worker();
    worker.set("TOPIC_PREFIX", "nobody");
    worker.spawn();
    assert_eq!(worker.ends().await, 78);
    let log = worker.log();
    for topic in [
        "nobody.public.purchase_ledger",
        "nobody.public.form_submissions",
        "nobody.dlq.decode",
    ] {
        assert!(log.contains(topic), "{topic} is not in: {log}");
    }
}

#[tokio::test]
async fn settings_that_are_wrong_are_all_reported_and_no_secret_with_them() {
    let mut worker = worker();
    worker.set("REDIS_URL", "http://:sentinel-secret@nowhere");
    worker.set("KAFKA_API_KEY", "sentinel-secret");
    worker.set("CURRENCY_CONCURRENCY", "many");
    worker.spawn();
    assert_eq!(worker.ends().await, 78);
    let log = worker.log();
    for name in ["REDIS_URL", "KAFKA_API_SECRET", "CURRENCY_CONCURRENCY"] {
        assert!(log.contains(name), "{name} is not in: {log}");
    }
    assert!(!log.contains("sentinel-secret"), "{log}");
}

#[tokio::test]
async fn mistakes_in_the_program_file_are_all_told_with_their_place() {
    let program = r#"{"programs": [{"merchant_id": "", "time_zone": "Mars/Olympus", "versions": []}]}"#;
    let mut worker = Worker::new(&format!("startup-{}", unique()), program, "http://127.0.0.1:9");
    worker.spawn();
    assert_eq!(worker.ends().await, 78);
    let log = worker.log();
    for place in [
        "programs[0].merchant_id",
        "programs[0].time_zone",
        "programs[0].versions",
    ] {
        assert!(log.contains(place), "{place} is not in: {log}");
    }
}

#[tokio::test]
async fn a_worker_whose_targets_are_away_starts_waits_and_drains_on_sigterm() {
    let mut worker = worker();
    worker.set("REDIS_URL", "redis://127.0.0.1:9");
    worker.set("KAFKA_BOOTSTRAP_SERVERS", &stack("KAFKA_BOOTSTRAP_SERVERS"));
    worker.start().await;
    assert_eq!(
        worker.get("livez").await.expect("an answer").0,
        200,
        "an outage elsewhere restarts nobody"
    );
    let (code, metrics) = worker.get("metrics").await.expect("an answer");
    assert_eq!(code, 200);
    assert!(metrics.contains("crm_record_outcomes_total"), "{metrics}");
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
}
