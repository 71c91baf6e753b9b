//! The pipeline of `run`, put together here so that its parts can be changed: memory or Redis for dedupe, an allocator
//! that counts. Everything else is as `src/cli/run.rs` has it.

use std::sync::Arc;

use anyhow::ensure;
use clap::Args;
use crm_event_processors::cli::run::{
    COMMIT_INTERVAL, DRAIN_DEADLINE, LEAVE_DEADLINE, MAX_BYTES, budget, revoke_deadline,
};
use crm_event_processors::clock::{SharedClock, SystemClock};
use crm_event_processors::config::{Secret, topic};
use crm_event_processors::consumers::{Consumer, Rules};
use crm_event_processors::dead_letters::{KafkaDeadLetters, Queue};
use crm_event_processors::debezium::DecimalMode;
use crm_event_processors::dedupe::{Dedupe, MemoryDedupe, RedisDedupe, RedisSettings, RedisUrl};
use crm_event_processors::inngest::{Endpoint, HttpDeliver, HttpSettings};
use crm_event_processors::kafka::{self, Connection, Group, Membership};
use crm_event_processors::loyalty::Programs;
use crm_event_processors::pipeline::{self, Exit, OldRecords, Ports, Randomness, RuleBook};
use crm_event_processors::progress::Orders;
use crm_event_processors::record::Topics;
use crm_event_processors::rows::Table;
use crm_event_processors::telemetry::Telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What it reads and where it sends.
#[derive(Debug, Args)]
pub(crate) struct Member {
    #[arg(long)]
    brokers: String,
    #[arg(long)]
    group: String,
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    inngest: String,
    #[arg(long)]
    program_file: String,
    /// Without it, dedupe is in memory.
    #[arg(long)]
    redis: Option<String>,
    #[arg(long)]
    lanes: usize,
}

/// The shortest that brokers take: every case waits for a rebalance.
pub(crate) const SESSION_TIMEOUT_MS: u32 = 6000;

impl Member {
    /// Works as the currency consumer until SIGTERM. Tells when the first record may come.
    pub(crate) fn run(&self, begins: impl FnOnce()) -> anyhow::Result<()> {
        crm_event_processors::tls::install_provider();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(self.work(begins))
    }

    async fn work(&self, begins: impl FnOnce()) -> anyhow::Result<()> {
        let clock: SharedClock = Arc::new(SystemClock);
        let telemetry = Arc::new(Telemetry::new()?);
        let randomness = Arc::new(Randomness::from_entropy());
        let owner = format!("{:016x}", randomness.number());
        let dedupe: Arc<dyn Dedupe> = match &self.redis {
            Some(url) => Arc::new(RedisDedupe::new(&RedisSettings::new(RedisUrl::parse(url)?, owner))?),
            None => Arc::new(MemoryDedupe::new(&owner)),
        };
        let programs = Programs::from_json(&std::fs::read_to_string(&self.program_file)?)?;
        let connection = Connection {
            bootstrap_servers: self.brokers.clone(),
            security_protocol: "PLAINTEXT".to_owned(),
            api_key: None,
            api_secret: None,
            ca_file: None,
        };
        let endpoint = Endpoint::new(&self.inngest, &Secret::new("dev"), None)?;
        let ports = Ports {
            dedupe,
            deliver: Arc::new(HttpDeliver::new(
                endpoint,
                &HttpSettings::at_rate(None),
                Arc::clone(&clock),
            )?),
            dead_letters: Arc::new(KafkaDeadLetters::new(&connection, &self.prefix, Arc::clone(&clock))),
            clock,
            randomness,
            ledger: None,
            old_records: OldRecords::Deliver,
            rules: RuleBook::fixed(Arc::new(Rules::new(Arc::new(programs), None))),
            telemetry: Arc::clone(&telemetry),
            decisions: None,
        };
        let purchases = topic(&self.prefix, Table::PurchaseLedger).into_boxed_str();
        let consumers = vec![(Consumer::Currency, self.lanes)];
        let budget = budget(&consumers);
        let room = budget.max_records();
        let membership = Membership {
            connection,
            group: Group {
                main: self.group.clone(),
                is_subset: false,
                consumers: [Consumer::Currency].into_iter().collect(),
            },
            topics: Topics::from(vec![purchases]),
            needed: Queue::ALL.iter().map(|queue| queue.topic(&self.prefix)).collect(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            revoke_deadline: revoke_deadline(SESSION_TIMEOUT_MS),
            orders: Orders::default(),
            start_at: None,
            budget,
        };
        let options = pipeline::Options {
            consumers,
            decimals: DecimalMode::Text,
            commit_interval: COMMIT_INTERVAL,
            revoke_deadline: revoke_deadline(SESSION_TIMEOUT_MS),
            drain_deadline: DRAIN_DEADLINE,
            max_records: room,
            max_bytes: MAX_BYTES,
            accept_dead_letters: false,
        };
        let runtime = tokio::runtime::Handle::current();
        let started = tokio::task::spawn_blocking(move || kafka::start(membership, runtime, telemetry)).await?;
        let (handle, source) = started?;
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let asked = shutdown.clone();
        tokio::spawn(async move {
            terminate.recv().await;
            asked.cancel();
        });
        begins();
        let exit = pipeline::run(options, handle, ports, shutdown).await;
        source.left(LEAVE_DEADLINE).await;
        ensure!(exit == Exit::Drained { unfinished: 0 }, "{exit:?}");
        Ok(())
    }
}
