//! The instruments: what happened is told here, and counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::OptionFuture;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundHistogram, Counter, Histogram, MeterProvider as _};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use tokio::sync::watch;

use super::lately::{Latency, SECONDS};
use super::names;
use super::observed::{Observed, consumer_label, observe};
use super::otlp::{self, Push, PushError, TracePush};
use super::passes::Passes;
use super::source::Looks;
use super::status::{Group, Halted, Status};
use super::traces::Traces;
use crate::consumers::Consumer;
use crate::dedupe::Claim;
use crate::doctor::Report;
use crate::inngest::Answer;
use crate::pipeline::Outcome;
use crate::postgres::LedgerError;
use crate::reconcile::Kind;
use crate::record::TopicPartition;

/// For the spans that wait at the end.
const LAST_PUSH: Duration = Duration::from_secs(5);

/// What a rebalance callback may be about. *Lost* partitions were taken away before we let them go.
const REBALANCES: [&str; 4] = ["assign", "revoke", "lost", "error"];

/// The outcome of what is nobody's row.
const CONTROL: &str = Outcome::Control.label();

/// Statements of the pipeline, as far as a consumer makes them.
fn calls_of(consumer: Consumer) -> impl Iterator<Item = &'static str> {
    let evaluates: &[&str] = match consumer {
        Consumer::Tier => &["evaluate_tiers", "announced", "announcement_rejected"],
        Consumer::Mission => &["record_progress", "announced", "announcement_rejected"],
        Consumer::Currency | Consumer::Reward | Consumer::Marketplace => &[],
    };
    ["compare_effects", "knows", "mark_dead"]
        .into_iter()
        .chain(evaluates.iter().copied())
}

/// The instruments and what the endpoints read.
pub struct Telemetry {
    registry: prometheus::Registry,
    provider: SdkMeterProvider,
    pushes: bool,
    traces: Traces,
    received: Counter<u64>,
    outcomes: Counter<u64>,
    dead_letters: Counter<u64>,
    batches: Counter<u64>,
    claims: Counter<u64>,
    /// Bound, by consumer: this one is told of every event.
    latency: [BoundHistogram<f64>; Consumer::ALL.len()],
    requests: Counter<u64>,
    request_duration: Histogram<f64>,
    database_calls: Counter<u64>,
    database_call_duration: Histogram<f64>,
    retries: Counter<u64>,
    commits: Counter<u64>,
    rebalances: Counter<u64>,
    room_pauses: Counter<u64>,
    passes: Passes,
    looks: Looks,
    pub(super) seen: Arc<Observed>,
}

/// Why the instruments cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the instruments cannot be made: {0}")]
    Instruments(#[from] opentelemetry_sdk::error::OTelSdkError),
    #[error(transparent)]
    Push(#[from] PushError),
}

/// Events in a request that is under way; dropped when the request has ended, however it ended.
#[must_use]
pub struct InFlight<'a> {
    seen: &'a Observed,
    consumer: Consumer,
    events: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.seen.came_back(self.consumer, self.events);
    }
}

impl std::fmt::Debug for InFlight<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InFlight").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Only to be scraped.
    ///
    /// # Errors
    /// When the exporter cannot be built.
    pub fn new() -> Result<Self, TelemetryError> {
        Self::with_readers(None, Traces::none())
    }

    /// To be scraped, and pushed where there is an address. `instance` tells this process from its siblings: each has totals of its own.
    ///
    /// # Errors
    /// When an exporter cannot be built.
    pub fn outward(
        push: Option<&Push>,
        traces: Option<&TracePush>,
        instance: &str,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, TelemetryError> {
        let reader = push.map(|push| otlp::reader(push, runtime.clone())).transpose()?;
        let resource = push.map(|push| otlp::resource(&push.resource, instance));
        let traces = match traces {
            Some(push) => {
                let exporter = otlp::exporter(push, runtime.clone())?;
                Traces::pushed(exporter, push, otlp::resource(&push.resource, instance))
            }
            None => Traces::none(),
        };
        Self::with_readers(reader.zip(resource), traces)
    }

    fn with_readers(
        push: Option<(otlp::Reader, opentelemetry_sdk::Resource)>,
        traces: Traces,
    ) -> Result<Self, TelemetryError> {
        let registry = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()?;
        let pushes = push.is_some();
        let provider = SdkMeterProvider::builder().with_reader(exporter);
        let provider = match push {
            Some((reader, resource)) => provider.with_reader(reader).with_resource(resource),
            None => provider,
        };
        let provider = provider.build();
        let meter = provider.meter("crm-event-processors");
        let seen = Arc::new(Observed::new());
        observe(&meter, &seen);
        let counter = |name: &'static str, text: &'static str| meter.u64_counter(name).with_description(text).build();
        let seconds = |name: &'static str, text: &'static str| {
            let boundaries = SECONDS.to_vec();
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_boundaries(boundaries)
                .with_description(text)
                .build()
        };
        let latency = seconds(
            names::LATENCY,
            "From the commit in Postgres until the event was accepted.",
        );
        let telemetry = Self {
            received: counter(names::RECEIVED, "Records fetched from Kafka."),
            outcomes: counter(names::OUTCOMES, "Records that ended, by consumer and outcome."),
            dead_letters: counter(names::DEAD_LETTERS, "Dead letters written, by queue and reason."),
            batches: counter(names::BATCHES, "Batches that lanes took, by consumer."),
            claims: counter(names::CLAIMS, "Answers of the dedupe store, by consumer and answer."),
            latency: Consumer::ALL.map(|consumer| latency.bind(&[consumer_label(Some(consumer))])),
            requests: counter(names::REQUESTS, "Requests to Inngest, by consumer and answer."),
            request_duration: seconds(names::REQUEST_DURATION, "How long Inngest took to answer."),
            database_calls: counter(
                names::DATABASE_CALLS,
                "Statements of the pipeline, by consumer, call and result.",
            ),
            database_call_duration: seconds(
                names::DATABASE_CALL_DURATION,
                "How long the database took to answer, by consumer and call.",
            ),
            retries: counter(names::RETRIES, "Waits before trying again, by consumer and target."),
            commits: counter(names::COMMITS, "Offset commits, by result."),
            rebalances: counter(names::REBALANCES, "Rebalance callbacks, by kind."),
            room_pauses: counter(names::ROOM_PAUSES, "Times the fetch paused because memory was used up."),
            passes: Passes::new(&meter),
            looks: Looks::new(&meter),
            registry,
            provider,
            pushes,
            traces,
            seen,
        };
        telemetry.start_at_zero();
        Ok(telemetry)
    }

    /// Every label set that is known beforehand begins at 0, so that the first error is an increase. Dead letters are not
    /// among them: their reasons are many and mostly never seen. Their outcomes are.
    fn start_at_zero(&self) {
        self.received.add(0, &[]);
        self.room_pauses.add(0, &[]);
        for consumer in Consumer::ALL {
            self.batches.add(0, &[consumer_label(Some(consumer))]);
            for label in Outcome::LABELS.into_iter().filter(|label| *label != CONTROL) {
                self.outcomes
                    .add(0, &[consumer_label(Some(consumer)), KeyValue::new("outcome", label)]);
            }
            for answer in Answer::LABELS {
                self.requests
                    .add(0, &[consumer_label(Some(consumer)), KeyValue::new("answer", answer)]);
            }
            for claim in ["granted", "done", "foreign"] {
                self.claims
                    .add(0, &[consumer_label(Some(consumer)), KeyValue::new("answer", claim)]);
            }
            for call in calls_of(consumer) {
                for result in std::iter::once("done").chain(LedgerError::LABELS) {
                    let labels = [("call", call), ("result", result)].map(|(name, value)| KeyValue::new(name, value));
                    let [call, result] = labels;
                    self.database_calls
                        .add(0, &[consumer_label(Some(consumer)), call, result]);
                }
            }
            for target in ["dedupe", "database", "inngest", "dead_letters"] {
                self.retries
                    .add(0, &[consumer_label(Some(consumer)), KeyValue::new("target", target)]);
            }
        }
        self.outcomes
            .add(0, &[consumer_label(None), KeyValue::new("outcome", CONTROL)]);
        // For what nobody could decode.
        self.retries.add(
            0,
            &[
                KeyValue::new("consumer", "decode"),
                KeyValue::new("target", "dead_letters"),
            ],
        );
        for result in ["confirmed", "failed"] {
            self.commits.add(0, &[KeyValue::new("result", result)]);
        }
        for kind in REBALANCES {
            self.rebalances.add(0, &[KeyValue::new("kind", kind)]);
        }
    }

    pub fn received(&self, records: usize) {
        self.received.add(records as u64, &[]);
        self.seen.lately.received.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Records that ended; without a consumer they were for nobody.
    pub fn finished(&self, consumer: Option<Consumer>, outcome: &'static str, records: u64) {
        self.outcomes
            .add(records, &[consumer_label(consumer), KeyValue::new("outcome", outcome)]);
        let label = Outcome::LABELS.iter().position(|label| *label == outcome);
        self.seen.ended();
        let row = consumer.and_then(|consumer| self.seen.lately.outcomes.get(consumer.index()));
        if let Some(count) = row.zip(label).and_then(|(row, label)| row.get(label)) {
            count.fetch_add(records, Ordering::Relaxed);
        }
    }

    /// How many records of a consumer ended so.
    #[must_use]
    pub fn outcomes(&self, consumer: Consumer, outcome: &str) -> u64 {
        let label = Outcome::LABELS.iter().position(|label| *label == outcome);
        let row = self.seen.lately.outcomes.get(consumer.index());
        row.zip(label)
            .and_then(|(row, label)| row.get(label))
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// A lane of this consumer took what was there.
    pub fn batch_taken(&self, consumer: Consumer) {
        self.batches.add(1, &[consumer_label(Some(consumer))]);
    }

    /// What the dedupe store said about the keys of one batch. A foreign lease is counted each time it is looked at.
    pub fn claimed(&self, consumer: Consumer, claims: &[Claim]) {
        for (claim, answer) in [
            (Claim::Granted, "granted"),
            (Claim::Done, "done"),
            (Claim::Foreign, "foreign"),
        ] {
            let count = claims.iter().filter(|other| **other == claim).count();
            if count > 0 {
                let labels = [consumer_label(Some(consumer)), KeyValue::new("answer", answer)];
                self.claims.add(count as u64, &labels);
            }
        }
    }

    /// Events leave in a request; they are in flight until what is given back is dropped.
    pub fn sending(&self, consumer: Consumer, events: usize) -> InFlight<'_> {
        let events = events as u64;
        self.seen.sent(consumer, events);
        InFlight {
            seen: &self.seen,
            consumer,
            events,
        }
    }

    pub fn accepted(&self, consumer: Consumer, since_commit: Duration) {
        self.seen.lately.took(consumer, since_commit);
        if let Some(latency) = self.latency.get(consumer.index()) {
            latency.record(since_commit.as_secs_f64());
        }
    }

    pub fn answered(&self, consumer: Consumer, answer: &Answer, took: Duration) {
        let labels = [consumer_label(Some(consumer)), KeyValue::new("answer", answer.label())];
        self.requests.add(1, &labels);
        self.request_duration.record(took.as_secs_f64(), &labels);
    }

    /// A statement of the pipeline has its answer: `done`, or the label of its error.
    pub fn called(&self, consumer: Consumer, call: &'static str, result: &'static str, took: Duration) {
        let (consumer, call) = (consumer_label(Some(consumer)), KeyValue::new("call", call));
        self.database_call_duration
            .record(took.as_secs_f64(), &[consumer.clone(), call.clone()]);
        self.database_calls
            .add(1, &[consumer, call, KeyValue::new("result", result)]);
    }

    /// A wait before asking a target again, on behalf of a consumer or (for what is undecodable) of `decode`.
    pub fn retried(&self, consumer: &'static str, target: &'static str) {
        self.retries.add(
            1,
            &[KeyValue::new("consumer", consumer), KeyValue::new("target", target)],
        );
    }

    /// A letter is written; it may end a record for several consumers.
    pub fn dead_lettered(&self, queue: &'static str, reason: &'static str) {
        self.seen.lately.letters.fetch_add(1, Ordering::Relaxed);
        self.dead_letters
            .add(1, &[KeyValue::new("queue", queue), KeyValue::new("reason", reason)]);
    }

    pub fn committed(&self, confirmed: bool) {
        self.commits.add(
            1,
            &[KeyValue::new("result", if confirmed { "confirmed" } else { "failed" })],
        );
    }

    pub fn rebalanced(&self, kind: &'static str) {
        self.rebalances.add(1, &[KeyValue::new("kind", kind)]);
    }

    /// A pass of the reconciler ended so.
    pub fn reconciled(&self, ended: &'static str) {
        self.passes.ended(ended);
    }

    pub fn looked_at(&self, rows: usize) {
        self.passes.looked_at(rows);
    }

    pub fn healed(&self, consumer: Consumer, events: usize) {
        self.passes.healed(consumer, events);
    }

    /// How much of each kind a pass found, and whether it saw everything that a pass looks at.
    pub fn found(&self, findings: [(&'static str, u64); Kind::ALL.len()], is_whole: bool) {
        self.passes.found(findings, is_whole);
    }

    pub fn overdue(&self, effects: i64) {
        self.passes.overdue(effects);
    }

    /// Another process has the lease: what this one found before is out of date.
    pub fn passes_are_of_another(&self) {
        self.passes.are_of_another();
    }

    /// Somebody has looked at everything around the worker.
    pub fn looked(&self, at_ms: i64, report: Arc<Report>) {
        self.looks.made(at_ms, report);
    }

    /// When somebody last looked, and what came of it.
    #[must_use]
    pub fn last_look(&self) -> Option<(i64, Arc<Report>)> {
        self.looks.last()
    }

    /// Memory is used up and everything is paused, or there is room again.
    pub fn short_of_room(&self, short: bool) {
        if short {
            self.room_pauses.add(1, &[]);
        }
        self.seen.short_of_room(short);
    }

    /// The polling thread has gone round, or begins to.
    pub fn polled(&self) {
        self.seen.polled();
    }

    /// The partitions that wait for an operator now.
    pub fn halted(&self, partitions: BTreeMap<TopicPartition, Halted>) {
        self.seen.slow().halted = partitions;
    }

    /// What the client says of the group. True if it gives a new reason.
    pub fn group(&self, group: Group) -> bool {
        let mut slow = self.seen.slow();
        let reasoned = slow.group.reason != group.reason && !group.reason.is_empty();
        slow.group = group;
        reasoned
    }

    /// The ends of logs, as far as they are known.
    pub fn log_ends(&self, ends: impl IntoIterator<Item = (TopicPartition, i64)>) {
        self.seen.log_ends(ends);
    }

    /// The pipeline has ticked, and says how things stand.
    pub fn publish(&self, status: Status) {
        self.seen.published(status);
    }

    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.seen.status.borrow())
    }

    /// Wakes at every published status.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Status>> {
        self.seen.status.subscribe()
    }

    #[must_use]
    pub fn halted_partitions(&self) -> BTreeMap<TopicPartition, Halted> {
        self.seen.slow().halted.clone()
    }

    #[must_use]
    pub fn last_rebalance(&self) -> Group {
        self.seen.slow().group.clone()
    }

    /// How long ago the polling thread last went round, and the pipeline last ticked.
    #[must_use]
    pub fn ages(&self) -> (Duration, Duration) {
        (self.seen.poll_age(), self.seen.tick_age())
    }

    /// Records of a consumer a second, by outcome, in the last minute.
    #[must_use]
    pub fn rates(&self, consumer: Consumer) -> [(&'static str, f64); Outcome::LABELS.len()] {
        let rates = self.seen.lately.rates(consumer);
        std::array::from_fn(|at| {
            let label = Outcome::LABELS.get(at).copied().unwrap_or_default();
            (label, rates.get(at).copied().unwrap_or_default())
        })
    }

    /// From the commit in Postgres until the event was accepted, in the last minute; `None` if none was.
    #[must_use]
    pub fn latency(&self, consumer: Consumer) -> Option<Latency> {
        self.seen.lately.latency(consumer)
    }

    /// The longest that a partition with something uncommitted has waited for a confirmed commit.
    #[must_use]
    pub fn commit_age(&self) -> Duration {
        self.seen.commit_age()
    }

    /// Partitions that are paused now, by cause.
    #[must_use]
    pub fn paused(&self) -> [(&'static str, u64); 2] {
        self.seen.paused()
    }

    /// Events of a consumer in requests that are under way.
    #[must_use]
    pub fn in_flight(&self, consumer: Consumer) -> u64 {
        self.seen.in_flight(consumer)
    }

    /// How many records each consumer is behind in each partition.
    #[must_use]
    pub fn lags(&self) -> Vec<(Consumer, TopicPartition, i64)> {
        self.seen.lags()
    }

    /// Begins the traces of batches.
    #[must_use]
    pub const fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Pushes a last time, if anything is pushed, and ends the instruments. Bounded: each of both gives up after 5 s.
    pub async fn last_push(&self) {
        // A failure was logged where it happened. On threads of their own: they block, and the push needs the runtime.
        let metrics = self.pushes.then(|| {
            let provider = self.provider.clone();
            tokio::task::spawn_blocking(move || provider.shutdown())
        });
        let traces = self
            .traces
            .provider()
            .map(|provider| tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_PUSH)));
        let (_metrics, _traces) = futures::join!(OptionFuture::from(metrics), OptionFuture::from(traces));
    }

    /// The text a scraper reads.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn scrape(&self) -> Result<String, prometheus::Error> {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
