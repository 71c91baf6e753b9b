//! The worker of the demo: the same source and the same pipeline as `run`, on the embedded brokers and the receiver.
//!
//! An [`Employer`] hires one worker after another: each is a new member with a new owner token, and only what real workers
//! share outside of themselves outlives them. The sabotages are put around its ports here.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::sabotage::{Forgetful, FreshIds, Sabotage, Swallowing, commit_early};
use super::{GROUP, PREFIX};
use crate::cli::run::{COMMIT_INTERVAL, DRAIN_DEADLINE, MAX_BYTES, budget};
use crate::clock::SharedClock;
use crate::config::{Secret, topic};
use crate::consumers::{Consumer, Rules};
use crate::dead_letters::{KafkaDeadLetters, Queue};
use crate::debezium::DecimalMode;
use crate::dedupe::memory::MemoryStore;
use crate::dedupe::{Dedupe, MemoryDedupe};
use crate::inngest::{Deliver, Endpoint, HttpDeliver, HttpSettings};
use crate::kafka::{self, Connection, Group, Membership};
use crate::pipeline::{self, Exit, OldRecords, Ports, Randomness, RuleBook};
use crate::progress::Orders;
use crate::record::Topics;
use crate::rows::Table;
use crate::telemetry::Telemetry;

/// What the workers have in common.
pub(super) struct Employer {
    pub(super) connection: Connection,
    pub(super) base_url: String,
    pub(super) event_key: Secret,
    pub(super) consumers: Vec<Consumer>,
    pub(super) rules: Arc<Rules>,
    pub(super) clock: SharedClock,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) memory: Memory,
}

/// What outlives a worker: the dedupe store, and what a sabotage has done.
#[derive(Debug, Default)]
pub(super) struct Memory {
    store: MemoryStore,
    given_ids: Arc<AtomicU64>,
    swallowed: Arc<Mutex<Option<String>>>,
}

/// One running worker.
pub(super) struct Worker {
    pipeline: JoinHandle<Exit>,
    source: kafka::Source,
    shutdown: CancellationToken,
    telemetry: Arc<Telemetry>,
    hired: Instant,
}

/// The shortest there is: nothing is waited for longer after the crash than it must be.
const SESSION_TIMEOUT_MS: u32 = 6000;
const REVOKE_DEADLINE: Duration = Duration::from_secs(2);
/// A crashed worker's leases end before its successor has joined.
const LEASE: Duration = Duration::from_secs(3);
/// Longer than a connector takes to repeat itself here, short enough to keep a million keys from piling up.
const WINDOW: Duration = Duration::from_secs(60);

impl Employer {
    /// A new worker, on its way into the group.
    pub(super) async fn hire(&self) -> anyhow::Result<Worker> {
        let randomness = Arc::new(Randomness::from_entropy());
        let ports = Ports {
            dedupe: self.dedupe(&format!("{:016x}", randomness.number())),
            deliver: self.deliver()?,
            dead_letters: Arc::new(KafkaDeadLetters::new(&self.connection, PREFIX, Arc::clone(&self.clock))),
            clock: Arc::clone(&self.clock),
            randomness,
            ledger: None,
            old_records: OldRecords::Deliver,
            rules: RuleBook::fixed(Arc::clone(&self.rules)),
            telemetry: Arc::clone(&self.telemetry),
            decisions: None,
        };
        let lanes = |consumer: &Consumer| (*consumer, consumer.default_lanes());
        let consumers: Vec<_> = self.consumers.iter().map(lanes).collect();
        let budget = budget(&consumers);
        let room = budget.max_records();
        let membership = Membership {
            connection: self.connection.clone(),
            group: Group {
                main: GROUP.to_owned(),
                is_subset: false,
                consumers: self.consumers.iter().copied().collect(),
            },
            topics: self.topics(),
            needed: Queue::ALL.iter().map(|queue| queue.topic(PREFIX)).collect(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            revoke_deadline: REVOKE_DEADLINE,
            orders: Orders::default(),
            start_at: None,
            budget,
        };
        let options = pipeline::Options {
            consumers,
            decimals: DecimalMode::Text,
            commit_interval: COMMIT_INTERVAL,
            revoke_deadline: REVOKE_DEADLINE,
            drain_deadline: DRAIN_DEADLINE,
            max_records: room,
            max_bytes: MAX_BYTES,
            accept_dead_letters: false,
        };
        let hired = Instant::now();
        let (runtime, telemetry) = (tokio::runtime::Handle::current(), Arc::clone(&self.telemetry));
        let started = tokio::task::spawn_blocking(move || kafka::start(membership, runtime, telemetry)).await?;
        let (mut handle, source) = started?;
        if self.sabotage == Some(Sabotage::CommitEarly) {
            handle = commit_early(handle, room + 1024);
        }
        let shutdown = CancellationToken::new();
        let pipeline = tokio::spawn(pipeline::run(options, handle, ports, shutdown.clone()));
        Ok(Worker {
            pipeline,
            source,
            shutdown,
            telemetry: Arc::clone(&self.telemetry),
            hired,
        })
    }

    /// All tables, whoever runs: records that nobody reads are passed over, as in a topic that carries several tables.
    fn topics(&self) -> Topics {
        Table::ALL
            .iter()
            .map(|table| topic(PREFIX, *table).into_boxed_str())
            .collect()
    }

    fn dedupe(&self, owner: &str) -> Arc<dyn Dedupe> {
        if self.sabotage == Some(Sabotage::NoDedupe) {
            return Arc::new(Forgetful);
        }
        let dedupe = MemoryDedupe::shared(self.memory.store.clone(), owner);
        Arc::new(dedupe.with_lease(LEASE).with_window(WINDOW))
    }

    fn deliver(&self) -> anyhow::Result<Arc<dyn Deliver>> {
        let endpoint = Endpoint::new(&self.base_url, &self.event_key, None)?;
        let inner: Arc<dyn Deliver> = Arc::new(HttpDeliver::new(
            endpoint,
            &HttpSettings::at_rate(None),
            Arc::clone(&self.clock),
        )?);
        Ok(match self.sabotage {
            None | Some(Sabotage::CommitEarly) => inner,
            Some(Sabotage::NoDedupe) => Arc::new(FreshIds {
                inner,
                given: Arc::clone(&self.memory.given_ids),
            }),
            Some(Sabotage::DropOne) => {
                let of = self.consumers.last().copied().unwrap_or(Consumer::Mission);
                Arc::new(Swallowing {
                    inner,
                    of,
                    swallowed: Arc::clone(&self.memory.swallowed),
                })
            }
        })
    }
}

impl Worker {
    /// Waits until it has partitions, at most `limit`; gives how long that took since it was hired.
    pub(super) async fn joined(&self, limit: Duration) -> Duration {
        let mut status = self.telemetry.watch();
        let joined = status.wait_for(|status| !status.partitions.is_empty());
        // Without partitions nothing moves, which whoever waits for progress will notice.
        let _noticed_later = tokio::time::timeout(limit, joined).await;
        self.hired.elapsed()
    }

    /// Waits until the pipeline has ticked that often: commits of what was done before are under way by then.
    pub(super) async fn ticks(&self, count: usize) {
        let mut status = self.telemetry.watch();
        for _ in 0..count {
            let _telemetry_is_ours = status.changed().await;
        }
    }

    /// Only if it ends by itself.
    pub(super) async fn ended(&mut self) -> String {
        match (&mut self.pipeline).await {
            Ok(exit) => format!("{exit:?}"),
            Err(error) => error.to_string(),
        }
    }

    /// As `kill -9` would: nothing is drained, nothing is committed. Returns when the group has noticed.
    pub(super) async fn crash(self, limit: Duration) {
        self.pipeline.abort();
        let _cancelled = self.pipeline.await;
        self.telemetry.publish(crate::telemetry::Status::starting());
        self.source.left(limit).await;
    }

    /// Drains; gives how it ended.
    pub(super) async fn stop(self) -> String {
        self.shutdown.cancel();
        let exit = match self.pipeline.await {
            Ok(Exit::Drained { unfinished: 0 }) => "drained".to_owned(),
            Ok(exit) => format!("{exit:?}"),
            Err(error) => error.to_string(),
        };
        self.source.left(Duration::from_secs(5)).await;
        exit
    }
}
