//! The instruments, and every metric's name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider as _};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use tokio::sync::watch;

use super::status::Status;
use crate::clock::SharedClock;
use crate::consumers::Consumer;
use crate::inngest::Answer;
use crate::pipeline::Outcome;
use crate::record::TopicPartition;

/// Every metric, without the suffixes that the unit and the kind add on a scrape. The runbook explains each.
pub mod names {
    pub const RECEIVED: &str = "crm_records_received";
    pub const OUTCOMES: &str = "crm_record_outcomes";
    pub const DEAD_LETTERS: &str = "crm_dead_letters";
    pub const LATENCY: &str = "crm_commit_to_accepted";
    pub const REQUESTS: &str = "crm_inngest_requests";
    pub const REQUEST_DURATION: &str = "crm_inngest_request_duration";
    pub const RETRIES: &str = "crm_retries";
    pub const COMMITS: &str = "crm_offset_commits";
    pub const REBALANCES: &str = "crm_rebalances";
    pub const ROOM_PAUSES: &str = "crm_room_pauses";
    pub const LAG: &str = "crm_consumer_lag";
    pub const ASSIGNED: &str = "crm_assigned_partitions";
    pub const HALTED: &str = "crm_halted_partitions";
    pub const OUTSTANDING: &str = "crm_outstanding_records";
    pub const STANDING_STILL: &str = "crm_consumer_standing_still";
    pub const POLL_AGE: &str = "crm_poll_age";

    pub const ALL: [&str; 16] = [
        RECEIVED,
        OUTCOMES,
        DEAD_LETTERS,
        LATENCY,
        REQUESTS,
        REQUEST_DURATION,
        RETRIES,
        COMMITS,
        REBALANCES,
        ROOM_PAUSES,
        LAG,
        ASSIGNED,
        HALTED,
        OUTSTANDING,
        STANDING_STILL,
        POLL_AGE,
    ];
}

/// Seconds: from a loopback answer to a night of back-off.
const SECONDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0,
];

/// The instruments and what the endpoints read.
pub struct Telemetry {
    clock: SharedClock,
    registry: prometheus::Registry,
    _provider: SdkMeterProvider,
    received: Counter<u64>,
    outcomes: Counter<u64>,
    dead_letters: Counter<u64>,
    latency: Histogram<f64>,
    requests: Counter<u64>,
    request_duration: Histogram<f64>,
    retries: Counter<u64>,
    commits: Counter<u64>,
    rebalances: Counter<u64>,
    room_pauses: Counter<u64>,
    shared: Arc<Observed>,
}

/// What is read when somebody looks.
struct Observed {
    status: watch::Sender<Arc<Status>>,
    log_ends: Mutex<BTreeMap<TopicPartition, i64>>,
    halted: AtomicU64,
    polled_ms: AtomicI64,
    outcomes: [[AtomicU64; Outcome::LABELS.len()]; Consumer::ALL.len()],
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Telemetry {
    /// # Errors
    /// When the exporter cannot be built.
    pub fn new(clock: SharedClock) -> Result<Self, opentelemetry_sdk::error::OTelSdkError> {
        let registry = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("crm-event-processors");
        let shared = Arc::new(Observed {
            status: watch::Sender::new(Arc::new(Status::starting())),
            log_ends: Mutex::default(),
            halted: AtomicU64::new(0),
            polled_ms: AtomicI64::new(clock.now_ms()),
            outcomes: Default::default(),
        });
        observe(&meter, &shared, &clock);
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
        let telemetry = Self {
            received: counter(names::RECEIVED, "Records fetched from Kafka."),
            outcomes: counter(names::OUTCOMES, "Records that ended, by consumer and outcome."),
            dead_letters: counter(names::DEAD_LETTERS, "Dead letters written, by queue and reason."),
            latency: seconds(
                names::LATENCY,
                "From the commit in Postgres until the event was accepted.",
            ),
            requests: counter(names::REQUESTS, "Requests to Inngest, by consumer and answer."),
            request_duration: seconds(names::REQUEST_DURATION, "How long Inngest took to answer."),
            retries: counter(names::RETRIES, "Waits before trying again, by consumer and target."),
            commits: counter(names::COMMITS, "Offset commits, by result."),
            rebalances: counter(names::REBALANCES, "Rebalance callbacks, by kind."),
            room_pauses: counter(names::ROOM_PAUSES, "Times the fetch paused because memory was used up."),
            clock,
            registry,
            _provider: provider,
            shared,
        };
        telemetry.start_at_zero();
        Ok(telemetry)
    }

    /// Every label set that is known beforehand begins at 0, so that the first error is an increase. Dead letters are not
    /// among them: their reasons are many and mostly never seen.
    fn start_at_zero(&self) {
        self.received.add(0, &[]);
        self.room_pauses.add(0, &[]);
        for consumer in Consumer::ALL {
            for label in Outcome::LABELS {
                self.outcomes
                    .add(0, &[consumer_label(Some(consumer)), KeyValue::new("outcome", label)]);
            }
            for answer in Answer::LABELS {
                self.requests
                    .add(0, &[consumer_label(Some(consumer)), KeyValue::new("answer", answer)]);
            }
            for target in ["dedupe", "inngest", "dead_letters"] {
                self.retries
                    .add(0, &[consumer_label(Some(consumer)), KeyValue::new("target", target)]);
            }
        }
        for result in ["confirmed", "failed"] {
            self.commits.add(0, &[KeyValue::new("result", result)]);
        }
        for kind in ["assign", "revoke"] {
            self.rebalances.add(0, &[KeyValue::new("kind", kind)]);
        }
    }

    pub fn received(&self, records: usize) {
        self.received.add(records as u64, &[]);
    }

    /// Records that ended; without a consumer they were for nobody.
    pub fn finished(&self, consumer: Option<Consumer>, outcome: &'static str, records: u64) {
        self.outcomes
            .add(records, &[consumer_label(consumer), KeyValue::new("outcome", outcome)]);
        let label = Outcome::LABELS.iter().position(|label| *label == outcome);
        let row = consumer.and_then(|consumer| self.shared.outcomes.get(consumer.index()));
        if let Some(count) = row.zip(label).and_then(|(row, label)| row.get(label)) {
            count.fetch_add(records, Ordering::Relaxed);
        }
    }

    /// How many records of a consumer ended so.
    #[must_use]
    pub fn outcomes(&self, consumer: Consumer, outcome: &str) -> u64 {
        let label = Outcome::LABELS.iter().position(|label| *label == outcome);
        let row = self.shared.outcomes.get(consumer.index());
        row.zip(label)
            .and_then(|(row, label)| row.get(label))
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub fn accepted(&self, consumer: Consumer, since_commit: Duration) {
        self.latency
            .record(since_commit.as_secs_f64(), &[consumer_label(Some(consumer))]);
    }

    pub fn answered(&self, consumer: Consumer, answer: &Answer, took: Duration) {
        let labels = [consumer_label(Some(consumer)), KeyValue::new("answer", answer.label())];
        self.requests.add(1, &labels);
        self.request_duration.record(took.as_secs_f64(), &labels);
    }

    /// A wait before asking a target again, on behalf of a consumer or (for what is undecodable) of `decode`.
    pub fn retried(&self, consumer: &'static str, target: &'static str) {
        self.retries.add(
            1,
            &[KeyValue::new("consumer", consumer), KeyValue::new("target", target)],
        );
    }

    pub fn dead_lettered(&self, queue: &'static str, reason: &'static str) {
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

    pub fn paused_for_room(&self) {
        self.room_pauses.add(1, &[]);
    }

    /// The polling thread has gone round.
    pub fn polled(&self) {
        self.shared.polled_ms.store(self.clock.now_ms(), Ordering::Relaxed);
    }

    /// How many partitions wait for an operator.
    pub fn halted(&self, partitions: usize) {
        self.shared.halted.store(partitions as u64, Ordering::Relaxed);
    }

    /// The ends of the logs, as the client's statistics give them.
    pub fn log_ends(&self, ends: BTreeMap<TopicPartition, i64>) {
        *self.shared.log_ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }

    pub fn publish(&self, status: Status) {
        self.shared.status.send_replace(Arc::new(status));
    }

    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.shared.status.borrow())
    }

    /// Wakes at every published status.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Status>> {
        self.shared.status.subscribe()
    }

    #[must_use]
    pub fn halted_partitions(&self) -> u64 {
        self.shared.halted.load(Ordering::Relaxed)
    }

    /// How long ago the polling thread last went round, and the pipeline last ticked.
    #[must_use]
    pub fn ages(&self) -> (Duration, Duration) {
        let now_ms = self.clock.now_ms();
        let age = |since_ms: i64| Duration::from_millis(now_ms.saturating_sub(since_ms).try_into().unwrap_or(0));
        (
            age(self.shared.polled_ms.load(Ordering::Relaxed)),
            age(self.status().ticked_ms),
        )
    }

    /// How many records each consumer is behind in each partition.
    #[must_use]
    pub fn lags(&self) -> Vec<(Consumer, TopicPartition, i64)> {
        self.shared.lags()
    }

    /// The text a scraper reads.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn scrape(&self) -> Result<String, prometheus::Error> {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl Observed {
    fn lags(&self) -> Vec<(Consumer, TopicPartition, i64)> {
        let ends = self.log_ends.lock().unwrap_or_else(PoisonError::into_inner);
        let status = Arc::clone(&self.status.borrow());
        let mut lags = Vec::new();
        for partition in &status.partitions {
            // No statistics yet: at least what we have received ourselves.
            let end = ends.get(&partition.place).copied().unwrap_or(0).max(partition.position);
            for (consumer, watermark) in &partition.watermarks {
                lags.push((*consumer, partition.place, end.saturating_sub(*watermark).max(0)));
            }
        }
        lags
    }
}

/// Instruments that are computed when somebody looks.
fn observe(meter: &Meter, shared: &Arc<Observed>, clock: &SharedClock) {
    let seen = Arc::clone(shared);
    let lag = meter
        .i64_observable_gauge(names::LAG)
        .with_description("Records a consumer is behind the end of the log.");
    lag.with_callback(move |gauge| {
        for (consumer, place, lag) in seen.lags() {
            let status = Arc::clone(&seen.status.borrow());
            let topic = status
                .topics
                .get(usize::from(place.topic))
                .map_or_else(String::new, ToString::to_string);
            let partition = KeyValue::new("partition", i64::from(place.partition));
            gauge.observe(
                lag,
                &[consumer_label(Some(consumer)), KeyValue::new("topic", topic), partition],
            );
        }
    })
    .build();
    let seen = Arc::clone(shared);
    let assigned = meter
        .u64_observable_gauge(names::ASSIGNED)
        .with_description("Partitions assigned to this process.");
    assigned
        .with_callback(move |gauge| gauge.observe(seen.status.borrow().partitions.len() as u64, &[]))
        .build();
    let seen = Arc::clone(shared);
    let halted = meter
        .u64_observable_gauge(names::HALTED)
        .with_description("Partitions that wait for an operator.");
    halted
        .with_callback(move |gauge| gauge.observe(seen.halted.load(Ordering::Relaxed), &[]))
        .build();
    let seen = Arc::clone(shared);
    let outstanding = meter.u64_observable_gauge(names::OUTSTANDING);
    let outstanding = outstanding.with_description("Received records that are not finished by every consumer.");
    outstanding
        .with_callback(move |gauge| {
            let status = Arc::clone(&seen.status.borrow());
            gauge.observe(
                status
                    .partitions
                    .iter()
                    .map(|partition| partition.outstanding as u64)
                    .sum(),
                &[],
            );
        })
        .build();
    let seen = Arc::clone(shared);
    let still = meter.u64_observable_gauge(names::STANDING_STILL);
    still
        .with_description("1 while a consumer waits for an operator: refused by a target, or halted.")
        .with_callback(move |gauge| {
            for consumer in &seen.status.borrow().consumers {
                let standing = u64::from(consumer.standing_still.is_some() || consumer.halted.is_some());
                gauge.observe(standing, &[consumer_label(Some(consumer.consumer))]);
            }
        })
        .build();
    let (seen, clock) = (Arc::clone(shared), Arc::clone(clock));
    let age = meter.f64_observable_gauge(names::POLL_AGE).with_unit("s");
    age.with_description("Since the polling thread last went round.")
        .with_callback(move |gauge| {
            let age_ms = clock
                .now_ms()
                .saturating_sub(seen.polled_ms.load(Ordering::Relaxed))
                .max(0);
            gauge.observe(Duration::from_millis(age_ms.try_into().unwrap_or(0)).as_secs_f64(), &[]);
        })
        .build();
}

fn consumer_label(consumer: Option<Consumer>) -> KeyValue {
    KeyValue::new("consumer", consumer.map_or("none", Consumer::name))
}
