//! A worker on fakes: a log, a dedupe store, an Inngest and dead letters in memory, and workers that can be dropped.

use std::sync::Arc;
use std::time::Duration;

use crm_event_processors::clock::TokioClock;
use crm_event_processors::consumers::{Consumer, Rules};
use crm_event_processors::dead_letters::MemoryDeadLetters;
use crm_event_processors::debezium::DecimalMode;
use crm_event_processors::dedupe::memory::{MemoryDedupe, MemoryStore};
use crm_event_processors::faults::Gate;
use crm_event_processors::inngest::memory::{Fault, MemoryDeliver};
use crm_event_processors::kafka::memory::{Member, MemoryLog, MemoryRecord};
use crm_event_processors::loyalty::{DEMO_PROGRAM, Programs};
use crm_event_processors::pipeline::{self, Exit, OldRecords, Options, Ports, Randomness, Replay, RuleBook};
use crm_event_processors::postgres::Ledger;
use crm_event_processors::postgres::memory::MemoryLedger;
use crm_event_processors::record::{Budget, TopicPartition};
use crm_event_processors::shadow::{Decisions, MemoryDecisions};
use crm_event_processors::telemetry::{Status, Telemetry};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) const PURCHASES: TopicPartition = TopicPartition { topic: 0, partition: 0 };
pub(super) const OTHER_PURCHASES: TopicPartition = TopicPartition { topic: 0, partition: 1 };
pub(super) const WALLET: TopicPartition = TopicPartition { topic: 1, partition: 0 };
pub(super) const REFERRALS: TopicPartition = TopicPartition { topic: 3, partition: 0 };
pub(super) const CODES: TopicPartition = TopicPartition { topic: 4, partition: 0 };

const TOPICS: [&str; 5] = [
    "crm.public.purchase_ledger",
    "crm.public.wallet_ledger",
    "crm.public.form_submissions",
    "crm.public.referral_ledger",
    "crm.public.codes",
];

/// 2026-11-20T12:00:00Z; every row of these tests was committed a second before.
pub(super) const NOW_MS: i64 = 1_795_176_000_000;

/// When a snapshot was taken.
pub(super) const SNAPSHOT_MS: i64 = 1_795_175_000_000;

/// Longer than any back-off adds up to here.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);

/// Everything that outlives a worker.
pub(super) struct World {
    pub(super) log: MemoryLog,
    pub(super) store: MemoryStore,
    pub(super) inngest: Arc<MemoryDeliver>,
    pub(super) dead_letters: Arc<MemoryDeadLetters>,
    pub(super) ledger: Option<Arc<MemoryLedger>>,
    /// Rows created before it are none of ours, but for those that the database knows.
    pub(super) effective_from: Option<jiff::Timestamp>,
    pub(super) old_records: OldRecords,
    /// In place of the demo's programs.
    pub(super) rules: Option<RuleBook>,
    /// Workers are shadows: what they decide is here.
    pub(super) decisions: Option<Arc<MemoryDecisions>>,
    /// In place of one that is only scraped.
    pub(super) telemetry: Option<Arc<Telemetry>>,
    /// How many workers were started: each has an owner token of its own.
    started: std::cell::Cell<u32>,
}

/// How a worker is started, where it differs from the others.
pub(super) struct Start {
    /// Each with its lanes.
    pub(super) consumers: Vec<(Consumer, usize)>,
    pub(super) budget: Budget,
    pub(super) accept_dead_letters: bool,
    pub(super) replay: Replay,
}

/// A running worker.
pub(super) struct Worker {
    pub(super) member: Member,
    pub(super) dedupe: Arc<MemoryDedupe>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) budget: Budget,
    shutdown: CancellationToken,
    task: JoinHandle<Exit>,
}

/// Of paused time: what never comes fails the test instead of keeping it for ever.
pub(super) async fn patiently<T>(awaited: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(PATIENCE, awaited).await;
    came.expect("it comes to this")
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            log: MemoryLog::new(&TOPICS),
            store: MemoryStore::default(),
            inngest: Arc::default(),
            dead_letters: Arc::default(),
            ledger: None,
            effective_from: None,
            old_records: OldRecords::default(),
            rules: None,
            decisions: None,
            telemetry: None,
            started: std::cell::Cell::new(0),
        }
    }

    /// A world with a database.
    pub(super) fn with_ledger() -> (Self, Arc<MemoryLedger>) {
        let ledger = Arc::new(MemoryLedger::default());
        let world = Self {
            ledger: Some(Arc::clone(&ledger)),
            ..Self::new()
        };
        (world, ledger)
    }

    /// A worker of all consumers that owns these partitions.
    pub(super) async fn worker(&self, partitions: &[TopicPartition]) -> Worker {
        self.worker_of(&Consumer::ALL, partitions).await
    }

    pub(super) async fn worker_of(&self, consumers: &[Consumer], partitions: &[TopicPartition]) -> Worker {
        self.worker_as(Start::of(consumers), partitions).await
    }

    pub(super) async fn worker_as(&self, start: Start, partitions: &[TopicPartition]) -> Worker {
        self.started.set(self.started.get() + 1);
        let owner = format!("worker-{}", self.started.get());
        let dedupe = Arc::new(MemoryDedupe::shared(self.store.clone(), &owner));
        let clock = Arc::new(TokioClock::starting_at(
            jiff::Timestamp::from_millisecond(NOW_MS).expect("in range"),
        ));
        let scraped = || Arc::new(Telemetry::new().expect("instruments"));
        let telemetry = self.telemetry.clone().unwrap_or_else(scraped);
        let programs = Arc::new(Programs::from_json(DEMO_PROGRAM).expect("the demo's program is valid"));
        let rules = Rules {
            database: self.ledger.is_some(),
            ..Rules::new(programs, self.effective_from)
        };
        let ports = Ports {
            dedupe: dedupe.clone(),
            deliver: self.inngest.clone(),
            ledger: self.ledger.clone().map(|ledger| ledger as Arc<dyn Ledger>),
            dead_letters: self.dead_letters.clone(),
            clock,
            randomness: Arc::new(Randomness::seeded(u64::from(self.started.get()))),
            old_records: self.old_records,
            rules: self.rules.clone().unwrap_or_else(|| RuleBook::fixed(Arc::new(rules))),
            telemetry: telemetry.clone(),
            decisions: self.decisions.clone().map(|decisions| decisions as Arc<dyn Decisions>),
        };
        let budget = start.budget;
        let (handle, member) = self.log.join(
            budget.clone(),
            start.consumers.iter().map(|(consumer, _)| *consumer).collect(),
        );
        let shutdown = CancellationToken::new();
        let options = Options {
            consumers: start.consumers,
            decimals: DecimalMode::Text,
            commit_interval: Duration::from_millis(250),
            revoke_deadline: Duration::from_secs(8),
            drain_deadline: Duration::from_secs(25),
            max_records: budget.max_records(),
            max_bytes: budget.max_bytes(),
            accept_dead_letters: start.accept_dead_letters,
        };
        let task = tokio::spawn(pipeline::run_as(start.replay, options, handle, ports, shutdown.clone()));
        member.assign(partitions).await;
        Worker {
            member,
            dedupe,
            telemetry,
            budget,
            shutdown,
            task,
        }
    }

    /// A currency worker on these partitions whose one delivery, of purchase p-1, waits at the gate.
    pub(super) async fn delivery_in_flight(&self, partitions: &[TopicPartition]) -> (Worker, Gate) {
        let gate = Gate::default();
        self.inngest.faults().push(Fault::Hold(gate.clone()));
        let worker = self.worker_of(&[Consumer::Currency], partitions).await;
        self.purchase(&Purchase::completed("p-1", 10));
        patiently(gate.arrived()).await;
        (worker, gate)
    }

    pub(super) fn purchase(&self, purchase: &Purchase) -> i64 {
        self.raw(PURCHASES, &purchase.envelope())
    }

    pub(super) fn raw(&self, place: TopicPartition, value: &str) -> i64 {
        let record = MemoryRecord {
            value: Some(value.as_bytes().to_vec()),
            ..MemoryRecord::default()
        };
        self.log.append(place, record, 0)
    }

    /// Waits until everything appended to the partition so far is committed.
    pub(super) async fn all_committed(&self, place: TopicPartition) {
        let committed = tokio::time::timeout(PATIENCE, self.log.wait_all_committed(place)).await;
        assert!(
            committed.is_ok(),
            "{:?} is committed of {place:?}",
            self.log.committed(place)
        );
    }

    /// The accepted ids of one event name, in order, repeats included.
    pub(super) fn accepted(&self, name: &str) -> Vec<String> {
        let events = self.inngest.accepted().all();
        events
            .into_iter()
            .filter(|event| event.name == name)
            .map(|event| event.id)
            .collect()
    }

    pub(super) fn awards(&self) -> Vec<String> {
        self.accepted("loyalty/award.scheduled")
    }
}

impl Start {
    /// As usual, but of these consumers.
    pub(super) fn of(consumers: &[Consumer]) -> Self {
        let lanes = |consumer: &Consumer| (*consumer, consumer.default_lanes());
        Self {
            consumers: consumers.iter().map(lanes).collect(),
            budget: Budget::new(1000, 10_000_000),
            accept_dead_letters: false,
            replay: Replay::No,
        }
    }
}

impl Worker {
    /// Waits until the published status is like this.
    pub(super) async fn wait_until(&self, predicate: impl Fn(&Status) -> bool) {
        let mut status = self.telemetry.watch();
        let seen = patiently(status.wait_for(|status| predicate(status))).await;
        drop(seen.expect("the worker runs"));
    }

    /// The process is gone at once: nothing is drained, nothing committed.
    pub(super) async fn crash(self) {
        self.task.abort();
        let _aborted = self.task.await;
    }

    /// SIGTERM.
    pub(super) async fn stop(self) -> Exit {
        self.shutdown.cancel();
        self.task.await.expect("the pipeline does not panic")
    }

    /// SIGTERM, not waited for.
    pub(super) fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    pub(super) async fn ended(self) -> Exit {
        self.task.await.expect("the pipeline does not panic")
    }
}

/// One change of one purchase.
pub(super) struct Purchase {
    pub(super) id: &'static str,
    pub(super) op: &'static str,
    pub(super) status: &'static str,
    pub(super) refunded: &'static str,
    pub(super) lsn: u32,
}

impl Purchase {
    pub(super) fn completed(id: &'static str, lsn: u32) -> Self {
        Self {
            id,
            op: "c",
            status: "completed",
            refunded: "0.00",
            lsn,
        }
    }

    pub(super) fn update(id: &'static str, status: &'static str, lsn: u32) -> Self {
        Self {
            id,
            op: "u",
            status,
            refunded: "0.00",
            lsn,
        }
    }

    /// As Debezium writes it.
    pub(super) fn envelope(&self) -> String {
        let Self {
            id,
            op,
            status,
            refunded,
            lsn,
        } = self;
        let ms = NOW_MS - 1000;
        format!(
            r#"{{"before":null,"after":{{"id":"{id}","user_id":"u-1","merchant_id":"m-any","final_amount":"100.00",
            "refunded_amount":"{refunded}","status":"{status}","earn_currency":true,
            "created_at":"2026-11-20T11:00:00.000000Z","completed_at":null}},
            "source":{{"ts_ms":{ms},"table":"purchase_ledger","txId":1,"lsn":{lsn}}},"op":"{op}","ts_ms":{ms}}}"#
        )
    }
}

/// A snapshot row of a completed purchase, in the snapshot of that time.
pub(super) fn snapshot(id: &str, ts_ms: i64) -> String {
    let read = Purchase {
        op: "r",
        ..Purchase::completed("an-id", 1)
    };
    let taken = format!(r#""source":{{"ts_ms":{ts_ms}"#);
    let before = format!(r#""source":{{"ts_ms":{}"#, NOW_MS - 1000);
    read.envelope().replace("an-id", id).replace(&before, &taken)
}

/// A completed purchase of that id, as Debezium writes it.
pub(super) fn completed(id: &str, lsn: u32) -> String {
    Purchase::completed("an-id", lsn).envelope().replace("an-id", id)
}

/// The id of the award event of one change of one purchase.
pub(super) fn award_id(purchase: &str, lsn: u32) -> String {
    format!("currency:award:purchase_ledger:{purchase}:{lsn}")
}
