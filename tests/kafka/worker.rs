//! The worker as `run` puts it together, with a dedupe store and an Inngest in memory.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crm_event_processors::clock::TokioClock;
use crm_event_processors::consumers::{Consumer, Rules};
use crm_event_processors::dead_letters::{KafkaDeadLetters, Queue};
use crm_event_processors::debezium::DecimalMode;
use crm_event_processors::dedupe::memory::{MemoryDedupe, MemoryStore};
use crm_event_processors::faults::Gate;
use crm_event_processors::inngest::memory::{Fault, MemoryDeliver};
use crm_event_processors::inngest::recorded::Recorded;
use crm_event_processors::kafka::{self, Connection, Group, Membership, Source, StartAt, StartError};
use crm_event_processors::loyalty::{DEMO_PROGRAM, Programs};
use crm_event_processors::pipeline::source::Handle;
use crm_event_processors::pipeline::{self, Exit, OldRecords, Options, Ports, Randomness, RuleBook};
use crm_event_processors::progress::Orders;
use crm_event_processors::record::{Budget, TopicPartition};
use crm_event_processors::telemetry::{Status, Telemetry};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, GROUP, NOW_MS, PATIENCE, TOPICS};

/// Longer than a busy machine takes over what is in hand.
const REVOKE_DEADLINE: Duration = Duration::from_secs(60);
/// Of a worker that is gone it is waited for; it should not end under one that is only slow.
const LEASE: Duration = Duration::from_secs(10);

/// Everything that outlives a worker.
pub(crate) struct World {
    cluster: Cluster,
    pub(super) store: MemoryStore,
    pub(crate) inngest: Arc<MemoryDeliver>,
    /// How many workers were started: each has an owner token of its own.
    started: Cell<u64>,
}

/// How a worker is started.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) is_subset: bool,
    pub(crate) orders: Orders,
    pub(crate) start_at: Option<StartAt>,
    pub(crate) max_records: usize,
    pub(crate) commit_interval: Duration,
    pub(crate) revoke_deadline: Duration,
    pub(crate) drain_deadline: Duration,
}

/// A running worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(super) budget: Budget,
    shutdown: CancellationToken,
    task: JoinHandle<Exit>,
    source: Source,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            consumers: Consumer::ALL.to_vec(),
            is_subset: false,
            orders: Orders::default(),
            start_at: None,
            max_records: 1000,
            commit_interval: Duration::from_millis(100),
            revoke_deadline: REVOKE_DEADLINE,
            drain_deadline: PATIENCE,
        }
    }
}

impl Deref for World {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl World {
    /// The mock cluster with so many partitions of purchases.
    pub(super) fn new(partitions: i32) -> Self {
        Self::on(Cluster::start(partitions))
    }

    pub(crate) fn on(cluster: Cluster) -> Self {
        Self {
            cluster,
            store: MemoryStore::default(),
            inngest: Arc::default(),
            started: Cell::new(0),
        }
    }

    pub(crate) async fn worker(&self) -> Worker {
        self.worker_with(Start::default()).await
    }

    pub(crate) async fn worker_with(&self, start: Start) -> Worker {
        self.try_worker(start).await.expect("joins")
    }

    pub(crate) async fn try_worker(&self, start: Start) -> Result<Worker, StartError> {
        self.started.set(self.started.get() + 1);
        let clock = clock();
        let telemetry = Arc::new(Telemetry::new().expect("instruments"));
        let owner = format!("worker-{}", self.started.get());
        let dedupe = MemoryDedupe::shared(self.store.clone(), &owner).with_lease(LEASE);
        let dead_letters = KafkaDeadLetters::new(&self.connection(), self.prefix(), clock.clone());
        let ports = Ports {
            dedupe: Arc::new(dedupe),
            deliver: self.inngest.clone(),
            dead_letters: Arc::new(dead_letters),
            clock,
            randomness: Arc::new(Randomness::seeded(self.started.get())),
            ledger: None,
            old_records: OldRecords::Deliver,
            rules: RuleBook::fixed(Arc::new(Rules::new(
                Arc::new(Programs::from_json(DEMO_PROGRAM).expect("valid")),
                None,
            ))),
            telemetry: telemetry.clone(),
            decisions: None,
        };
        let budget = Budget::new(start.max_records, 50_000_000);
        let membership = Membership {
            revoke_deadline: start.revoke_deadline,
            group: group(&self.group(), &start.consumers, start.is_subset),
            orders: start.orders,
            start_at: start.start_at,
            budget: budget.clone(),
            topics: (0..3)
                .map(|topic| self.topic(TopicPartition { topic, partition: 0 }).into())
                .collect(),
            needed: Queue::ALL.map(|queue| queue.topic(self.prefix())).to_vec(),
            ..membership(self.connection())
        };
        let (handle, source) = join(membership, telemetry.clone()).await?;
        let options = Options {
            consumers: start.consumers.iter().map(|consumer| (*consumer, 2)).collect(),
            decimals: DecimalMode::Text,
            commit_interval: start.commit_interval,
            revoke_deadline: start.revoke_deadline,
            drain_deadline: start.drain_deadline,
            max_records: start.max_records,
            max_bytes: 50_000_000,
            accept_dead_letters: false,
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(pipeline::run(options, handle, ports, shutdown.clone()));
        Ok(Worker {
            telemetry,
            budget,
            shutdown,
            task,
            source,
        })
    }

    /// The ids of the accepted events of one consumer, sorted, repeats included.
    pub(crate) fn accepted_of(&self, consumer: Consumer) -> Vec<String> {
        let events = self.inngest.accepted().all().into_iter().map(|event| event.id);
        let prefix = format!("{}:", consumer.name());
        let mut ids: Vec<String> = events.filter(|id| id.starts_with(&prefix)).collect();
        ids.sort();
        ids
    }

    /// The ids of the accepted awards, in order, repeats included.
    pub(super) fn awards(&self) -> Vec<String> {
        let events = self.inngest.accepted().all().into_iter();
        let awards = events.filter(|event| event.name == "loyalty/award.scheduled");
        awards.map(|event| event.id).collect()
    }

    pub(super) async fn wait_for_awards(&self, count: usize) {
        let enough = |events: &[Recorded]| {
            let is_award = |event: &&Recorded| event.name == "loyalty/award.scheduled";
            events.iter().filter(is_award).count() >= count
        };
        let waited = tokio::time::timeout(PATIENCE, self.inngest.accepted().wait_until(enough)).await;
        assert!(waited.is_ok(), "not {count} awards, but {:?}", self.awards());
    }

    /// From now on Inngest takes nothing until the gate is released.
    pub(super) fn hold_deliveries(&self) -> Gate {
        let gate = Gate::default();
        for _ in 0..100 {
            self.inngest.faults().push(Fault::Hold(gate.clone()));
        }
        gate
    }
}

impl Worker {
    /// Waits until the published status is like this.
    pub(crate) async fn wait_until(&self, what: &str, predicate: impl Fn(&Status) -> bool) {
        let mut status = self.telemetry.watch();
        let waited = tokio::time::timeout(PATIENCE, status.wait_for(|status| predicate(status))).await;
        let changed = waited.unwrap_or_else(|_elapsed| panic!("never: {what}: {:?}", self.telemetry.status()));
        drop(changed.expect("the worker runs"));
    }

    /// The process is gone at once: nothing is drained, nothing committed.
    pub(crate) async fn crash(self) {
        self.task.abort();
        let _aborted = self.task.await;
        assert!(self.source.left(PATIENCE).await, "the thread ends with the pipeline");
    }

    /// SIGTERM, out of the group.
    pub(crate) async fn stop(self) -> Exit {
        let (exit, source) = self.stop_and_stay().await;
        assert!(source.left(PATIENCE).await, "the thread ends");
        exit
    }

    /// SIGTERM; whether the client has left the group is for the test to see.
    pub(super) async fn stop_and_stay(self) -> (Exit, Source) {
        self.shutdown.cancel();
        (ended(self.task).await, self.source)
    }

    /// The worker ends by itself.
    pub(super) async fn ended(self) -> Exit {
        let exit = ended(self.task).await;
        assert!(self.source.left(PATIENCE).await, "the thread ends");
        exit
    }
}

async fn ended(task: JoinHandle<Exit>) -> Exit {
    let ended = tokio::time::timeout(PATIENCE, task).await.expect("the pipeline ends");
    ended.expect("the pipeline does not panic")
}

fn clock() -> Arc<TokioClock> {
    let now = jiff::Timestamp::from_millisecond(NOW_MS).expect("in range");
    Arc::new(TokioClock::starting_at(now))
}

fn group(main: &str, consumers: &[Consumer], is_subset: bool) -> Group {
    Group {
        main: main.to_owned(),
        is_subset,
        consumers: consumers.iter().copied().collect(),
    }
}

/// A member of the group that needs everything a worker needs.
pub(super) fn membership(connection: Connection) -> Membership {
    Membership {
        connection,
        group: group(GROUP, &Consumer::ALL, false),
        topics: TOPICS.map(Box::from).into(),
        needed: Queue::ALL.map(|queue| queue.topic("crm")).to_vec(),
        // The mock waits a session for whoever has left, at every start after another's end.
        session_timeout_ms: 10_000,
        revoke_deadline: REVOKE_DEADLINE,
        orders: Orders::default(),
        start_at: None,
        budget: Budget::new(1000, 1_000_000),
    }
}

pub(super) async fn join(membership: Membership, telemetry: Arc<Telemetry>) -> Result<(Handle, Source), StartError> {
    let runtime = tokio::runtime::Handle::current();
    let joining = tokio::task::spawn_blocking(move || kafka::start(membership, runtime, telemetry));
    joining.await.expect("no panic")
}

pub(super) fn telemetry() -> Arc<Telemetry> {
    Arc::new(Telemetry::new().expect("instruments"))
}

/// Waits for what must happen.
pub(crate) async fn patiently<T>(what: &str, waited: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, waited).await;
    ended.unwrap_or_else(|_elapsed| panic!("never: {what}"))
}
