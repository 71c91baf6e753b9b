//! What operators see of the client, and the real binary pushing its metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::cluster::Cluster;
use super::process::Process;
use super::worker::{World, patiently};
use crate::telemetry::push::{Collector, metric_names};

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_were_lost_are_counted_and_the_reason_is_told_in_the_words_of_the_client() {
    let world = World::new(1);
    let worker = world.worker().await;
    worker
        .wait_until("an assignment", |status| !status.partitions.is_empty())
        .await;
    let counts = |kind: &str| {
        let series = format!("crm_rebalances_total{{kind=\"{kind}\"}} ");
        let scrape = worker.telemetry.scrape().expect("text");
        let line = scrape.lines().find_map(|line| line.strip_prefix(&series));
        line.and_then(|count| count.parse::<u64>().ok())
    };
    // Counted behind the callback that tells of it.
    let counted = async |kind: &str| {
        while counts(kind) != Some(1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    patiently("an assignment counted", counted("assign")).await;
    assert_eq!(counts("lost"), Some(0));
    let illegal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION];
    world.mock().request_errors(RDKafkaApiKey::Heartbeat, &illegal);
    worker
        .wait_until("a reason", |_| {
            worker.telemetry.last_rebalance().reason == "illegal generation"
        })
        .await;
    patiently("a loss counted", counted("lost")).await;
    assert_eq!(counts("revoke"), Some(0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_pushes_its_totals_a_last_time_and_never_prints_the_key() {
    let cluster = Cluster::start(1);
    let mut collector = Collector::start().await;
    let more = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base().to_string()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=sentinel%2Dsecret".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000".to_owned()),
    ];
    let more = more.each_ref().map(|(name, value)| (*name, value.as_str()));
    // It ends without an answer to its last push if that takes 5 s: what a busy machine cuts off, the next run has to push.
    let mut runs = 0;
    let (headers, request, log) = loop {
        let mut worker = Process::start("pushing", &cluster.mock().bootstrap_servers(), &more);
        worker.says("\"partitions assigned\"").await;
        worker.terminate();
        let (ended, log) = (worker.ended().await, worker.log);
        assert_eq!(ended, Some(0), "{log}");
        if let Some((headers, request)) = collector.arrived() {
            break (headers, request, log);
        }
        runs += 1;
        assert!(runs < 5, "no push: {log}");
    };
    assert_eq!(headers["x-api-key"], "sentinel-secret");
    let pushed = metric_names(&request);
    let expected = [
        "crm_rebalances",
        "crm_offset_commits",
        "crm_assigned_partitions",
        "crm_build_info",
    ];
    let missing: BTreeSet<&str> = expected.into_iter().filter(|name| !pushed.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?} of {pushed:?}");
    assert!(log.contains("metrics are pushed"), "{log}");
    assert!(!log.contains("sentinel"), "{log}");
}
