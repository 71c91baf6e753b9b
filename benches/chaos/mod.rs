//! Chaos: two workers, Kafka, Redis, PostgreSQL and a receiver that executes the workflows' functions, all real processes,
//! under load, while they are broken one over the other by a plan from a seed.
//!
//! Takes how long and a seed; gives what was lost, doubled and resent, whether the books balance, and how long it took to get
//! over each kind of fault. Nothing but the receiver is replaced, and the connector, whose records it writes itself. It never
//! measures speed: what is accepted is what the machine manages between the faults.

mod books;
mod breaker;
mod changes;
mod database;
mod end;
mod executor;
mod journal;
mod ledger;
mod load;
mod parts;
mod plan;
mod rows;
mod verdict;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use crm_event_processors::clock::SystemClock;
use crm_event_processors::inngest::receiver::{Receiver, ReceiverSettings};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::books::Books;
use self::breaker::Stage;
use self::database::Session;
use self::journal::Journal;
use self::load::Length;
use self::parts::{Ground, binary, listens};
use self::plan::Part;
use self::rows::MERCHANTS;
use self::verdict::Broken;
use crate::rig::{PATIENCE, folder};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Of the plan and of the load.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many records at an even pace, instead of as many as the group follows.
    #[arg(long)]
    records: Option<u64>,
    /// Say what would be broken, and break nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What all tasks share.
pub(crate) struct World {
    ground: Ground,
    journal: Journal,
    /// When the load began: both workers are there by then.
    begun: OnceLock<Instant>,
    books: Mutex<Books>,
    /// Of workflows that have not ended.
    runs: AtomicU64,
    /// How often the wallet was read to its end.
    wallet_looks: AtomicU64,
    /// Workers that found no broker when they started, and were started again.
    restarted: AtomicU64,
    broken: Mutex<Vec<Broken>>,
    notes: Mutex<Vec<String>>,
}

const WORKERS: usize = 2;
const LOOK: Duration = Duration::from_millis(250);
const TELL: Duration = Duration::from_secs(15);

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    crm_event_processors::tls::install_provider();
    let length = Length {
        time: Duration::from_secs_f64(options.minutes * 60.0),
        records: options.records,
    };
    let plan = plan::plan(options.seed, length.time);
    if options.dry_run {
        for fault in &plan {
            println!(
                "{:>7.1} s  {:<24} {}",
                fault.at.as_secs_f64(),
                fault.kind.name(),
                fault.part
            );
        }
        return Ok(());
    }
    let findings = Runtime::new()?.block_on(chaos(options.seed, length, plan))?;
    let file = folder().join("chaos.json");
    std::fs::write(&file, serde_json::to_string_pretty(&findings)?)?;
    println!("{findings}\nfindings in {}", file.display());
    let problems = findings.problems();
    ensure!(
        problems.is_empty(),
        "{}; logs in {}",
        problems.join("; "),
        folder().display()
    );
    println!("nothing lost, nothing doubled, and the books balance");
    Ok(())
}

async fn chaos(seed: u64, length: Length, plan: Vec<plan::Fault>) -> anyhow::Result<verdict::Findings> {
    let ground = Ground::new()?;
    let mut processes = BTreeMap::new();
    for part in [Part::Postgres, Part::Redis, Part::Broker] {
        let mut process = ground.server(part)?;
        process.start()?;
        processes.insert(part, process);
    }
    prepare(&ground).await?;
    listens(ground.redis).await?;
    listens(ground.broker).await?;
    let journal = Journal::new(&ground.bootstrap()).await?;
    let world = Arc::new(World {
        ground,
        journal,
        begun: OnceLock::new(),
        books: Mutex::default(),
        runs: AtomicU64::new(0),
        wallet_looks: AtomicU64::new(0),
        restarted: AtomicU64::new(0),
        broken: Mutex::default(),
        notes: Mutex::default(),
    });
    has_topics(&world).await?;
    let mut tasks = JoinSet::new();
    let starter = executor::start(&world, &mut tasks);
    let settings = ReceiverSettings::default();
    let receiver = Receiver::start(settings, Arc::new(starter), Arc::new(SystemClock)).await?;
    for part in [Part::First, Part::Second] {
        let mut process = world.ground.worker(part, &receiver.base_url())?;
        process.start()?;
        processes.insert(part, process);
    }
    let lock = |(part, process)| (part, tokio::sync::Mutex::new(process));
    let stage = Arc::new(Stage {
        world: Arc::clone(&world),
        processes: processes.into_iter().map(lock).collect(),
        receiver,
        receiving: tokio::sync::Mutex::default(),
    });
    joined(&stage).await?;
    world.begun.get_or_init(Instant::now);
    tasks.spawn(load::follow_wallet(Arc::clone(&world)));
    tasks.spawn(look(Arc::clone(&world)));
    let mut acts = JoinSet::new();
    acts.spawn(load::write(Arc::clone(&world), seed, length));
    acts.spawn(breaker::carry_out(Arc::clone(&stage), plan));
    let mut told = Instant::now();
    while !acts.is_empty() {
        for over in [acts.try_join_next(), tasks.try_join_next()] {
            over.transpose()?.transpose()?;
        }
        stage.look_after()?;
        if told.elapsed() >= TELL {
            eprintln!("{world}");
            told = Instant::now();
        }
        sleep(LOOK).await;
    }
    let load = world.since();
    let swept = end::drain_and_sweep(&stage, &mut tasks).await?;
    let drained = world.since() - load;
    end::findings(&stage, seed, (load, drained), swept).await
}

/// The schema as `migrate` makes it, the programs, and a role for each who comes.
async fn prepare(ground: &Ground) -> anyhow::Result<()> {
    let mut owner = Session::new(ground.database_url("crm"));
    owner.client().await?;
    let migrated = tokio::process::Command::new(binary())
        .args(["migrate", "--database-url", &ground.database_url("crm")])
        .output()
        .await?;
    let told = String::from_utf8_lossy(&migrated.stderr);
    ensure!(migrated.status.success(), "migrate: {told}");
    let roles = "create role chaos_worker login password 'chaos_worker' in role crm_worker; \
                 create role chaos_workflows login password 'chaos_workflows' in role crm_workflows;";
    owner.run(roles).await.context("roles")?;
    owner.run(&programs()).await.context("programs")?;
    owner.run(load::WALLET_AS_A_LOG).await.context("the wallet")
}

/// The programs as statements.
fn programs() -> String {
    let mut statements = String::new();
    for merchant in MERCHANTS {
        let (id, rules) = (merchant.id, merchant.rules);
        // Writing to a String cannot fail.
        let _infallible = write!(
            statements,
            "insert into crm_events.programs (merchant_id, time_zone) values ('{id}', 'Asia/Bangkok'); \
             insert into crm_events.program_versions (merchant_id, rev, effective_from, rules) \
             values ('{id}', 1, '2020-01-01', '{rules}');"
        );
    }
    statements
}

/// Waits until the broker tells of all topics: a worker that starts does not look for them for long.
async fn has_topics(world: &Arc<World>) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let world = Arc::clone(world);
        if tokio::task::spawn_blocking(move || world.journal.has_topics()).await? {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "the broker does not tell of its topics");
        sleep(LOOK).await;
    }
}

/// Waits until both workers have joined: until then nothing is measured and nothing breaks.
async fn joined(stage: &Stage) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let world = Arc::clone(&stage.world);
        if tokio::task::spawn_blocking(move || world.journal.is_joined(WORKERS)).await? {
            return Ok(());
        }
        stage.look_after()?;
        ensure!(begun.elapsed() < PATIENCE, "the workers do not join");
        sleep(LOOK).await;
    }
}

/// Looks where the group stands, again and again.
async fn look(world: Arc<World>) -> anyhow::Result<()> {
    loop {
        let looking = Arc::clone(&world);
        tokio::task::spawn_blocking(move || looking.journal.look()).await??;
        sleep(LOOK).await;
    }
}

impl World {
    fn since(&self) -> Duration {
        self.begun.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    fn with_books<T>(&self, with: impl FnOnce(&mut Books) -> T) -> T {
        with(&mut self.books.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn accept(&self, id: &str) {
        let since = self.since();
        self.with_books(|books| books.accept(id, since));
    }

    fn run_ended(&self, failure: Option<String>) {
        self.runs.fetch_sub(1, Ordering::AcqRel);
        if let Some(failure) = failure {
            self.note(failure);
        }
    }

    fn note(&self, note: String) {
        eprintln!("{:.1} s: {note}", self.since().as_secs_f64());
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = self.with_books(|books| books.tally().clone());
        let faults = self.broken.lock().unwrap_or_else(PoisonError::into_inner).len();
        write!(
            f,
            "{:.0} s: {} records, {} behind; {} events, {} resent, {} doubled; {} runs open; {faults} faults",
            self.since().as_secs_f64(),
            self.journal.written(),
            self.journal.behind(),
            tally.accepted,
            tally.resent,
            tally.doubled,
            self.runs.load(Ordering::Acquire),
        )
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("ground", &self.ground)
            .finish_non_exhaustive()
    }
}
