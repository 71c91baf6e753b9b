//! What operators see of the client, and the real binary pushing its metrics.

use std::collections::BTreeSet;
use std::process::Stdio;

use crm_event_processors::loyalty::DEMO_PROGRAM;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::cluster::Cluster;
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
    assert_eq!(counts("assign"), Some(1));
    assert_eq!(counts("lost"), Some(0));
    let illegal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION];
    world.mock().request_errors(RDKafkaApiKey::Heartbeat, &illegal);
    worker
        .wait_until("a reason", |_| {
            worker.telemetry.last_rebalance().reason == "illegal generation"
        })
        .await;
    assert_eq!(counts("lost"), Some(1));
    assert_eq!(counts("revoke"), Some(0));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_pushes_its_totals_a_last_time_and_never_prints_the_key() {
    let cluster = Cluster::start(1);
    let mut collector = Collector::start().await;
    let program_file = format!("{}/pushing.program.json", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&program_file, DEMO_PROGRAM).expect("a program file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .arg("run")
        .env_clear()
        .env("KAFKA_BOOTSTRAP_SERVERS", cluster.mock().bootstrap_servers())
        .env("REDIS_URL", "redis://127.0.0.1:9")
        .env("INNGEST_DEV", "http://127.0.0.1:9")
        .env("PROGRAM_FILE", program_file)
        .env("LEDGER_EFFECTIVE_FROM", "2020-01-01T00:00:00Z")
        .env("HTTP_ADDR", "off")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=sentinel%2Dsecret")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut log = String::new();
    patiently("an assignment", async {
        while !log.contains("\"partitions assigned\"") {
            let line = lines.next_line().await.expect("readable");
            log.push_str(&line.unwrap_or_else(|| panic!("the worker ended: {log}")));
        }
    })
    .await;
    let pid = child.id().expect("running").to_string();
    let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.expect("kill runs").success());
    let (headers, request) = collector.next().await;
    patiently("the end of the log", async {
        while let Some(line) = lines.next_line().await.expect("readable") {
            log.push_str(&line);
        }
    })
    .await;
    let ended = patiently("the end", child.wait()).await.expect("waited");
    assert_eq!(ended.code(), Some(0), "{log}");
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
