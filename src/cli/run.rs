//! `run`: puts the real parts together and runs the pipeline until SIGTERM.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::OptionFuture;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::understood;
use super::{Code, hang, look};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Checking, Looking, Out, Problems, RunFlags, Settings, ShadowOut, Way};
use crate::console;
use crate::consumers::{Consumer, Rules};
use crate::dead_letters::{DeadLetters, KafkaDeadLetters, Queue};
use crate::dedupe::{Dedupe, RedisDedupe, RedisSettings};
use crate::doctor::Question;
use crate::inert::clean;
use crate::inngest::{Deliver, Endpoint, HttpDeliver, HttpSettings};
use crate::kafka::{self, Membership};
use crate::loyalty::Programs;
use crate::pipeline::source::Failure;
use crate::pipeline::{self, Exit, Ports, Randomness, RuleBook};
use crate::postgres::{self, Books, Ledger, LedgerError, PostgresLedger, Waits};
use crate::reconcile::Reconciler;
use crate::record::{Budget, Topics};
use crate::shadow::nowhere::{CompareOnly, Nowhere};
use crate::shadow::{Decisions, FileDecisions};
use crate::telemetry::reach::Reach;
use crate::telemetry::{self, Telemetry, logging};

/// The most bytes of records in memory between fetch and finish.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;
/// While they flow.
const FLOWING_BYTES: usize = 16 * 1024 * 1024;
/// However few flow: a partition that a consumer holds is paused alone before all of it is used (`pipeline`, 10,000 records),
/// and the others go on in what is left.
const MAX_RECORDS: usize = 16_384;
/// How often progress is committed.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(250);
/// How long a revocation waits for lanes, but never more than half of a session.
const REVOKE_DEADLINE: Duration = Duration::from_secs(8);
/// How long a shutdown waits for lanes. The last commit may take 5 s more, the reconciler's page and leaving 2 s each, and
/// pushing the metrics a last time 5 s, 39 s in all: the platform's kill delay must be longer (`render.yaml` says 60 s).
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);
/// A client whose brokers are away may take a session to leave, and the reconciler is in the midst of a page; the process waits
/// for neither. Each takes this once.
pub const LEAVE_DEADLINE: Duration = Duration::from_secs(2);

pub(super) fn run(flags: &RunFlags) -> anyhow::Result<Code> {
    let (settings, looking) = flags.understood()?;
    let config = understood(&settings, &looking);
    let Looking { every, source } = looking;
    logging::start(settings.log_format, &settings.log_filter);
    let programs = settings.program_file.as_deref().map(read_programs).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let looks = every.map(|every| (look::question(Checking::from_flags(&flags.flags), source), every));
    let ended = runtime.block_on(work(settings, config, programs, looks));
    // Nothing of worth runs any more; whatever hangs in there must not keep the process.
    runtime.shutdown_background();
    ended
}

/// How much may be in memory between fetch and finish. While records flow, a batch and a half for each lane of the consumer that
/// has most of them: while one is under way, the next one grows.
#[must_use]
pub fn budget(consumers: &[(Consumer, usize)]) -> Budget {
    let widest = consumers.iter().map(|(_, lanes)| *lanes).max().unwrap_or(1);
    let flowing = widest * (pipeline::MAX_BATCH + pipeline::MAX_BATCH / 2);
    Budget::flowing(flowing, FLOWING_BYTES, flowing.max(MAX_RECORDS), MAX_BYTES)
}

/// Reads and checks a program file.
pub(super) fn read_programs(path: &str) -> anyhow::Result<Programs> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problems(vec![format!("PROGRAM_FILE {} cannot be read: {error}", clean(path))]))?;
    Programs::from_json(&text).with_context(|| format!("PROGRAM_FILE {}", clean(path)))
}

async fn work(
    settings: Settings,
    config: String,
    programs: Option<Programs>,
    looks: Option<(Question, Duration)>,
) -> anyhow::Result<Code> {
    let clock: SharedClock = Arc::new(SystemClock);
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone())?;
    let randomness = Arc::new(Randomness::from_entropy());
    let owner = format!("{:016x}", randomness.number());
    let telemetry = Arc::new(telemetry_of(&settings, &owner)?);
    if let Some(address) = settings.http {
        let routes = routes(&settings, address, config, &telemetry);
        let served = telemetry::http::serve(address, routes, shutdown.child_token()).await;
        let served = served.map_err(|error| Problems(vec![format!("HTTP_ADDR {address} cannot be bound: {error}")]));
        let (address, _task) = served?;
        tracing::info!(%address, "health endpoints");
    }
    let targets = match &settings.way {
        Way::Deliver { out, .. } => Targets::real(&settings, out, &owner, &clock).await?,
        Way::Shadow(out) => Targets::shadow(out)?,
    };
    // Waiting for the database, and looking whether everything is there with slow brokers, may take a while. Nothing is in
    // hand before.
    let started = async {
        telemetry.begins("asks the database for the cut-off and the programs");
        let waits = |error: &LedgerError| telemetry.begins(&format!("waits: {error}"));
        let (knowledge, book) = knowledge(&settings, programs, &waits).await?;
        telemetry.begins("looks at brokers, topics and grants");
        anyhow::Ok((knowledge, book, join(&settings, Arc::clone(&telemetry)).await?))
    };
    let (knowledge, book, (handle, source)) = tokio::select! {
        started = started => started?,
        () = shutdown.cancelled() => {
            tracing::info!("stopped before it began");
            return Ok(Code::Ok);
        }
    };
    let options = pipeline::Options {
        consumers: settings.consumers.clone(),
        decimals: settings.decimals,
        commit_interval: COMMIT_INTERVAL,
        revoke_deadline: revoke_deadline(settings.session_timeout_ms),
        drain_deadline: DRAIN_DEADLINE,
        max_records: budget(&settings.consumers).max_records(),
        max_bytes: MAX_BYTES,
        accept_dead_letters: settings.accept_dead_letters,
    };
    let ports = Ports {
        dedupe: targets.dedupe,
        deliver: targets.deliver,
        dead_letters: targets.dead_letters,
        clock: Arc::clone(&clock),
        randomness,
        ledger: knowledge.ledger.clone(),
        old_records: settings.old_records,
        rules: book,
        telemetry: Arc::clone(&telemetry),
        decisions: targets.decisions,
    };
    let _watchdog = hang::watch(
        &telemetry,
        Duration::from_millis(u64::from(settings.session_timeout_ms)),
    )?;
    if let Some((question, every)) = looks {
        let looking = look::look(question, every, clock, Arc::clone(&telemetry));
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(looking));
    }
    let reconciling = reconcile_beside(&settings, &ports, knowledge.books, owner, asked_by_signal()?, &shutdown);
    let exit = pipeline::run(options, handle, ports, shutdown.clone()).await;
    shutdown.cancel();
    // It ends behind its page, and gives its lease back.
    let _ended = tokio::time::timeout(LEAVE_DEADLINE, OptionFuture::from(reconciling)).await;
    if !source.left(LEAVE_DEADLINE).await {
        tracing::warn!("leaving without the group's farewell: the brokers do not answer");
    }
    telemetry.last_push().await;
    Ok(told(exit))
}

/// Says how it ended, and gives the exit code.
fn told(exit: Exit) -> Code {
    match exit {
        Exit::Drained { unfinished: 0 } => {
            tracing::info!("drained");
            Code::Ok
        }
        Exit::Drained { unfinished } => {
            tracing::warn!(unfinished, "drain deadline: unfinished records are read again");
            Code::Ok
        }
        Exit::Failed(Failure::Configuration(message)) => {
            tracing::error!(reason = message, "cannot go on");
            Code::Configuration
        }
        Exit::Failed(Failure::Fatal(message)) => {
            tracing::error!(reason = message, "cannot go on");
            Code::Internal
        }
    }
}

fn telemetry_of(settings: &Settings, instance: &str) -> anyhow::Result<Telemetry> {
    let (push, traces) = (settings.push.as_ref(), settings.traces.as_ref());
    if let Some(push) = push {
        let (origin, every_s) = (push.origin(), push.interval.as_secs());
        tracing::info!(origin, every_s, "metrics are pushed");
    }
    if let Some(traces) = traces {
        let (origin, ratio) = (traces.origin(), traces.ratio);
        tracing::info!(origin, ratio, "traces are pushed");
    }
    let runtime = tokio::runtime::Handle::current();
    Ok(Telemetry::outward(push, traces, instance, &runtime)?)
}

/// What is served at this address: the endpoints, and the console if it is wanted.
fn routes(settings: &Settings, address: SocketAddr, config: String, telemetry: &Arc<Telemetry>) -> axum::Router {
    // Whoever may see the console may see what it shows.
    let reach = settings.console.unwrap_or_else(|| Reach::of(address));
    let endpoints = telemetry::http::routes(Arc::clone(telemetry), reach);
    if settings.console.is_none() {
        return endpoints;
    }
    let worker = console::Worker {
        telemetry: Arc::clone(telemetry),
        config,
    };
    endpoints.merge(console::routes(Arc::new(worker), reach))
}

/// How long a revocation waits for lanes, with this session.
#[must_use]
pub fn revoke_deadline(session_timeout_ms: u32) -> Duration {
    REVOKE_DEADLINE.min(Duration::from_millis(u64::from(session_timeout_ms)) / 2)
}

/// Who takes what is decided.
struct Targets {
    dedupe: Arc<dyn Dedupe>,
    deliver: Arc<dyn Deliver>,
    dead_letters: Arc<dyn DeadLetters>,
    decisions: Option<Arc<dyn Decisions>>,
}

impl Targets {
    async fn real(settings: &Settings, out: &Out, owner: &str, clock: &SharedClock) -> anyhow::Result<Self> {
        let redis = RedisSettings {
            window: out.dedup_window,
            ..RedisSettings::new(out.redis_url.clone(), owner.to_owned())
        };
        let dedupe = RedisDedupe::new(&redis)?;
        match dedupe.policy_warning().await {
            Ok(None) => {}
            Ok(Some(warning)) => tracing::warn!(warning, "dedupe store"),
            // Not a reason to stop: records wait until the store is there.
            Err(error) => tracing::warn!(%error, "dedupe store not reachable yet"),
        }
        let inngest = &out.inngest;
        let endpoint = Endpoint::new(&inngest.base_url, &inngest.event_key, inngest.environment.as_deref());
        let endpoint = endpoint.map_err(|error| Problems(vec![error.to_string()]))?;
        let http = HttpSettings::at_rate(inngest.requests_per_second);
        let deliver = HttpDeliver::new(endpoint, &http, Arc::clone(clock))?;
        let dead_letters = KafkaDeadLetters::new(&settings.kafka, &settings.topic_prefix, Arc::clone(clock));
        Ok(Self {
            dedupe: Arc::new(dedupe),
            deliver: Arc::new(deliver),
            dead_letters: Arc::new(dead_letters),
            decisions: None,
        })
    }

    /// Nobody but the file.
    fn shadow(out: &ShadowOut) -> anyhow::Result<Self> {
        let (decisions, name) = match out {
            ShadowOut::Stdout => (FileDecisions::stdout(), "-".to_owned()),
            ShadowOut::File(path) => (FileDecisions::open(path), path.display().to_string()),
        };
        let decisions = decisions.map_err(|error| Problems(vec![format!("--shadow-out {name} {error}")]))?;
        tracing::info!(
            file = name,
            "shadow: decisions are written down, and nothing is done about them"
        );
        Ok(Self {
            dedupe: Arc::new(Nowhere),
            deliver: Arc::new(Nowhere),
            dead_letters: Arc::new(Nowhere),
            decisions: Some(Arc::new(decisions)),
        })
    }
}

/// What the database knows, if there is one.
#[derive(Default)]
pub(super) struct Knowledge {
    /// What is settled.
    pub(super) ledger: Option<Arc<dyn Ledger>>,
    /// For the reconciler; a shadow has none.
    books: Option<Books>,
}

/// What is settled, and the rules: from the database, unless a file has the programs; the cut-off is the database's, if there
/// is one.
pub(super) async fn knowledge(
    settings: &Settings,
    programs: Option<Programs>,
    waits: Waits<'_>,
) -> anyhow::Result<(Knowledge, RuleBook)> {
    let Some(url) = &settings.database else {
        let programs = Arc::new(programs.unwrap_or_default());
        let rules = Rules::new(programs, settings.effective_from);
        return Ok((Knowledge::default(), RuleBook::fixed(Arc::new(rules))));
    };
    let client = Arc::new(postgres::Client::new(url).map_err(postgres::StartError::Database)?);
    let ledger: Arc<dyn Ledger> = Arc::new(PostgresLedger::new(Arc::clone(&client)));
    match &settings.way {
        Way::Deliver { cache_url, .. } => {
            let cache = postgres::RulesCache::new(cache_url, url);
            let cache = cache.map_err(|error| Problems(vec![format!("CRM_CACHE_REDIS_URL: {error}")]))?;
            let (client_too, given) = (Arc::clone(&client), settings.effective_from);
            let book = postgres::rule_book(client_too, Some(cache), given, programs, waits).await?;
            let knowledge = Knowledge {
                ledger: Some(ledger),
                books: Some(Books::new(client)),
            };
            Ok((knowledge, book))
        }
        Way::Shadow(_) => {
            let book = postgres::rule_book_of_shadow(client, settings.effective_from, programs, waits).await?;
            let knowledge = Knowledge {
                ledger: Some(Arc::new(CompareOnly(ledger))),
                books: None,
            };
            Ok((knowledge, book))
        }
    }
}

/// With a database, the net under what was lost.
fn reconcile_beside(
    settings: &Settings,
    ports: &Ports,
    books: Option<Books>,
    owner: String,
    asked: Arc<Notify>,
    shutdown: &CancellationToken,
) -> Option<tokio::task::JoinHandle<()>> {
    let (ledger, books) = ports.ledger.clone().zip(books)?;
    let group = settings.group.name();
    let reconciler = Reconciler {
        ports: ports.clone(),
        ledger,
        books: Arc::new(books),
        progress: Arc::new(kafka::Backlog {
            connection: settings.kafka.clone(),
            group: group.clone(),
            topics: settings.topics(),
        }),
        consumers: settings.consumers.iter().map(|(consumer, _)| *consumer).collect(),
        group,
        owner,
        shutdown: shutdown.clone(),
    };
    Some(tokio::spawn(reconciler.run(asked)))
}

async fn join(
    settings: &Settings,
    telemetry: Arc<Telemetry>,
) -> anyhow::Result<(pipeline::source::Handle, kafka::Source)> {
    let topics: Topics = settings.topics().into_iter().map(String::into_boxed_str).collect();
    let membership = Membership {
        connection: settings.kafka.clone(),
        group: settings.group.clone(),
        topics,
        needed: match &settings.way {
            Way::Deliver { .. } => Queue::ALL.map(|queue| queue.topic(&settings.topic_prefix)).to_vec(),
            Way::Shadow(_) => Vec::new(),
        },
        session_timeout_ms: settings.session_timeout_ms,
        revoke_deadline: revoke_deadline(settings.session_timeout_ms),
        orders: settings.orders.clone(),
        start_at: settings.start_at,
        budget: budget(&settings.consumers),
    };
    let runtime = tokio::runtime::Handle::current();
    let joined = tokio::task::spawn_blocking(move || kafka::start(membership, runtime, telemetry)).await?;
    Ok(joined?)
}

/// SIGUSR1: an operator who has mended something need not wait for the reconciler's next turn. Without one it does nothing.
fn asked_by_signal() -> anyhow::Result<Arc<Notify>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = signal(SignalKind::user_defined1())?;
    let asked = Arc::new(Notify::new());
    let told = Arc::clone(&asked);
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            told.notify_one();
        }
    });
    Ok(asked)
}

/// SIGTERM and SIGINT drain. A second one changes nothing: the platform kills if it must.
pub(super) fn stop_on_signal(shutdown: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM"),
            _ = interrupt.recv() => tracing::info!("SIGINT"),
        }
        shutdown.cancel();
    });
    Ok(())
}
