//! `/livez`, `/readyz`, `/statusz`, `/metrics`.
//!
//! *Live* means that the loops tick, as soon as they have begun; it does not depend on anything outside, so that an outage
//! elsewhere restarts nobody, in the midst of a start neither. *Ready* means that partitions can be worked on: ticking, in the
//! group, not draining, no consumer standing still or halted, no partition halted. A platform that asks for `/livez` restarts a
//! hanging process before the [watchdog](super::watchdog) ends it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::flow::flow;
use super::lately::Latency;
use super::metrics::Telemetry;
use super::reach::{Reach, guard};
use super::recent::Decided;
use super::status::{Status, holders, skew};
use crate::consumers::Consumer;
use crate::pipeline::Outcome;

/// Older ticks mean that a loop hangs. Longer than anything that blocks the polling thread on purpose: a revocation takes at
/// most 10 s, the commit in it another 10, the look-ups of an assignment about a minute.
pub const STALE: Duration = Duration::from_secs(120);

/// What a worker serves in any case. What it says of single records is for whoever it may reach; the rest is for probes and
/// scrapers, under whatever name they know this machine by.
pub fn routes(telemetry: Arc<Telemetry>, reach: Reach) -> Router {
    Router::new()
        .route("/statusz", get(statusz))
        .layer(middleware::from_fn_with_state(reach, guard))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(telemetry)
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    routes: Router,
    shutdown: CancellationToken,
) -> std::io::Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let serving = axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned());
    let task = tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the endpoints ended");
        }
    });
    Ok((bound, task))
}

/// What keeps the process from being live.
pub(super) fn not_live(telemetry: &Telemetry) -> Vec<String> {
    let (poll, tick) = telemetry.ages();
    let mut problems = Vec::new();
    // A start may rightly wait, for the database or slow brokers, before there is a thread that polls.
    if telemetry.seen.has_polled() && poll > STALE {
        problems.push(format!(
            "the polling thread has not gone round for {} s",
            poll.as_secs()
        ));
    }
    if telemetry.status().ticked_ms > 0 && tick > STALE {
        problems.push(format!("the pipeline has not ticked for {} s", tick.as_secs()));
    }
    problems
}

/// What keeps the process from being ready.
fn not_ready(telemetry: &Telemetry) -> Vec<String> {
    let status = telemetry.status();
    let mut problems = not_live(telemetry);
    if status.ticked_ms == 0 {
        problems.push(format!("starting: {}", telemetry.beginning()));
    }
    if status.ticked_ms > 0 && !status.joined {
        problems.push("not in the consumer group yet".to_owned());
    }
    if status.draining {
        problems.push("draining".to_owned());
    }
    problems.extend(stands(telemetry, &status));
    problems
}

/// Who waits for an operator.
pub(super) fn stands(telemetry: &Telemetry, status: &Status) -> Vec<String> {
    let mut problems = Vec::new();
    for consumer in &status.consumers {
        if let Some(reason) = &consumer.standing_still {
            problems.push(format!("{} stands still: {reason}", consumer.consumer.name()));
        }
        if let Some(reason) = &consumer.halted {
            problems.push(format!("{} is halted: {reason}", consumer.consumer.name()));
        }
    }
    for (place, halted) in telemetry.halted_partitions() {
        let (topic, reason) = (status.topic(place.topic), halted.reason);
        problems.push(format!("partition {topic}/{} halted: {reason}", place.partition));
    }
    problems
}

async fn livez(State(telemetry): State<Arc<Telemetry>>) -> Response {
    verdict(&not_live(&telemetry))
}

async fn readyz(State(telemetry): State<Arc<Telemetry>>) -> Response {
    verdict(&not_ready(&telemetry))
}

fn verdict(problems: &[String]) -> Response {
    if problems.is_empty() {
        (StatusCode::OK, "ok\n".to_owned()).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", problems.join("\n"))).into_response()
    }
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> Response {
    match telemetry.scrape() {
        Ok(text) => (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn statusz(State(telemetry): State<Arc<Telemetry>>) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        status_json(&telemetry).to_string(),
    )
        .into_response()
}

/// The status as people and scripts read it.
#[must_use]
pub fn status_json(telemetry: &Telemetry) -> serde_json::Value {
    let status = telemetry.status();
    let problems = not_ready(telemetry);
    let lags = telemetry.lags();
    let consumers = status.consumers.iter().map(|consumer| {
        let of_it = lags.iter().filter(|(name, ..)| *name == consumer.consumer);
        let lag: i64 = of_it.map(|(.., lag)| lag).sum();
        let outcomes = Outcome::LABELS.map(|label| (label, telemetry.outcomes(consumer.consumer, label)));
        serde_json::json!({
            "name": consumer.consumer.name(),
            "lanes": consumer.lanes,
            "standing_still": consumer.standing_still,
            "halted": consumer.halted,
            "lag": lag,
            "in_flight": telemetry.in_flight(consumer.consumer),
            "outcomes": BTreeMap::from(outcomes),
            "rates": telemetry.rates(consumer.consumer).map(|(label, rate)| (label, rounded(rate))).into_iter().collect::<BTreeMap<_, _>>(),
            "latency_ms": telemetry.latency(consumer.consumer).map(latency_json),
            "last_error": telemetry.last_error(consumer.consumer.name()),
        })
    });
    let partitions = status.partitions.iter().map(|partition| {
        let watermarks = partition
            .watermarks
            .iter()
            .map(|(consumer, mark)| (consumer.name(), *mark));
        serde_json::json!({
            "topic": status.topic(partition.place.topic),
            "partition": partition.place.partition,
            "committed": partition.committed,
            "position": partition.position,
            "outstanding": partition.outstanding,
            "paused": partition.paused,
            "held_by": holders(partition),
            "skew": skew(partition),
            "watermarks": watermarks.collect::<BTreeMap<_, _>>(),
            "absent": partition.absent.iter().cloned().collect::<BTreeMap<_, _>>(),
        })
    });
    let halted = telemetry.halted_partitions();
    let halted = halted.iter().map(|(place, halted)| {
        serde_json::json!({
            "topic": status.topic(place.topic),
            "partition": place.partition,
            "committed": halted.committed,
            "reason": halted.reason,
        })
    });
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "now_ms": now_ms(telemetry, &status),
        "flow": flow(telemetry),
        "ready": problems.is_empty(),
        "problems": problems,
        "joined": status.joined,
        "draining": status.draining,
        "client": client_json(telemetry),
        "totals": totals_json(telemetry, &status),
        "consumers": consumers.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
        "halted": halted.collect::<Vec<_>>(),
        "undecodable": telemetry.last_error("decode"),
        "source": source_json(telemetry),
        "recent": recent_json(telemetry, &status),
    })
}

/// The time by which the others are told.
pub(super) fn now_ms(telemetry: &Telemetry, status: &Status) -> i64 {
    let (_, since) = telemetry.ages();
    let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    status
        .ticked_ms
        .saturating_add(if status.ticked_ms > 0 { since } else { 0 })
}

/// Of all consumers together, a record counted once however many of them read it.
fn totals_json(telemetry: &Telemetry, status: &Status) -> serde_json::Value {
    let (seen, lately) = (&telemetry.seen, &telemetry.seen.lately);
    let in_hand: usize = status.partitions.iter().map(|partition| partition.outstanding).sum();
    let in_flight: u64 = Consumer::ALL.map(|consumer| telemetry.in_flight(consumer)).iter().sum();
    serde_json::json!({
        "received_a_second": rounded(lately.received_a_second()),
        "behind": seen.behind(),
        "in_hand": in_hand,
        "in_flight": in_flight,
        "letters": lately.letters.load(Ordering::Relaxed),
    })
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn latency_json(latency: Latency) -> serde_json::Value {
    let ms = |seconds: f64| rounded(seconds * 1000.0);
    serde_json::json!({
        "events": latency.events,
        "p50": ms(latency.p50),
        "p95": ms(latency.p95),
        "p99": ms(latency.p99),
    })
}

/// The last look at the source; null if nobody looks.
fn source_json(telemetry: &Telemetry) -> Option<serde_json::Value> {
    let (at_ms, report) = telemetry.last_look()?;
    let findings = report.findings.iter().map(|finding| {
        serde_json::json!({
            "id": finding.id.name(),
            "area": finding.id.area(),
            "severity": finding.severity,
            "what": finding.what,
            "evidence": finding.evidence,
            "fix": finding.fix,
        })
    });
    Some(serde_json::json!({ "looked_ms": at_ms, "findings": findings.collect::<Vec<_>>() }))
}

/// Some of what ended lately, newest first; of a row its id and nothing else.
fn recent_json(telemetry: &Telemetry, status: &Status) -> Vec<serde_json::Value> {
    let told = |one: &Decided| {
        serde_json::json!({
            "at_ms": one.at_ms,
            "consumer": one.consumer,
            "topic": status.topic(one.place.topic),
            "partition": one.place.partition,
            "offset": one.offset,
            "table": one.row.as_ref().map(|(table, _)| *table),
            "row": one.row.as_ref().map(|(_, id)| id),
            "outcome": one.outcome,
            "reason": one.reason,
        })
    };
    telemetry.recent().iter().map(told).collect()
}

/// The Kafka client and the loops.
fn client_json(telemetry: &Telemetry) -> serde_json::Value {
    let (poll, tick) = telemetry.ages();
    let in_ms = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let group = telemetry.last_rebalance();
    serde_json::json!({
        "poll_age_ms": in_ms(poll),
        "tick_age_ms": in_ms(tick),
        "commit_age_ms": in_ms(telemetry.commit_age()),
        "rebalances": group.rebalances,
        "last_rebalance": group.reason,
        "paused": BTreeMap::from(telemetry.paused()),
    })
}
