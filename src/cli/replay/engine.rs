//! The worker's pipeline for a command: the same ports as `run`, but for where records come from and dead letters go.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cli::run::{COMMIT_INTERVAL, MAX_BYTES, budget, knowledge, read_programs};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Flags, OldRecords, Problems, Settings, Way};
use crate::consumers::Consumer;
use crate::dead_letters::{DeadLetters, KafkaDeadLetters};
use crate::dedupe::{RedisDedupe, RedisSettings};
use crate::inngest::{Endpoint, HttpDeliver, HttpSettings};
use crate::kafka::Asker;
use crate::pipeline::source::{Failure, Handle};
use crate::pipeline::{self, Exit, Ports, Randomness, Replay};
use crate::postgres::{Books, Client};
use crate::record::Budget;
use crate::telemetry::{Status, Telemetry, logging};

/// How long an interrupted replay waits for what is in flight.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Everything outside, ready to work.
pub(in crate::cli) struct Engine {
    pub(in crate::cli) settings: Settings,
    pub(in crate::cli) ports: Ports,
    pub(in crate::cli) letters: Arc<KafkaDeadLetters>,
}

/// Why a replay ended before it had worked on everything.
#[derive(Debug)]
pub(in crate::cli) enum Stopped {
    /// By SIGINT or SIGTERM.
    Interrupted,
    /// Too many dead letters.
    Halted(String),
    /// Somebody must act.
    Configuration(String),
    Failed(String),
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Halted(why) => write!(f, "too many dead letters: {why}"),
            Self::Configuration(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Engine {
    /// What is away is not waited for: a person stands by.
    pub(in crate::cli) async fn start(flags: &Flags, forced: bool) -> anyhow::Result<Self> {
        let settings = Settings::from_flags(flags)?;
        if settings.database.is_none() && settings.old_records == OldRecords::DeadLetter && !forced {
            let problem = "a replay counts every record as old, and OLD_RECORDS=deadletter without DATABASE_URL makes a dead \
                           letter of each: give DATABASE_URL, or OLD_RECORDS=deliver if whoever settles is idempotent";
            return Err(Problems(vec![problem.to_owned()]).into());
        }
        let Way::Deliver { out, .. } = &settings.way else {
            let problem = "--shadow does nothing about what is decided, and this command does: leave it out";
            return Err(Problems(vec![problem.to_owned()]).into());
        };
        logging::start(settings.log_format, &settings.log_filter);
        let programs = settings.program_file.as_deref().map(read_programs).transpose()?;
        let clock: SharedClock = Arc::new(SystemClock);
        let randomness = Arc::new(Randomness::from_entropy());
        let redis = RedisSettings {
            window: out.dedup_window,
            ..RedisSettings::new(out.redis_url.clone(), format!("{:016x}", randomness.number()))
        };
        let inngest = &out.inngest;
        let endpoint = Endpoint::new(&inngest.base_url, &inngest.event_key, inngest.environment.as_deref());
        let endpoint = endpoint.map_err(|error| Problems(vec![error.to_string()]))?;
        let http = HttpSettings::at_rate(inngest.requests_per_second);
        let letters = KafkaDeadLetters::new(&settings.kafka, &settings.topic_prefix, Arc::clone(&clock));
        let letters = Arc::new(letters);
        if let Some(url) = &settings.database {
            Books::new(Arc::new(Client::new(url)?)).overdue().await?;
        }
        let (knowledge, rules) = knowledge(&settings, programs, &|_logged| {}).await?;
        let ports = Ports {
            dedupe: Arc::new(RedisDedupe::new(&redis)?),
            deliver: Arc::new(HttpDeliver::new(endpoint, &http, Arc::clone(&clock))?),
            ledger: knowledge.ledger,
            dead_letters: Arc::clone(&letters) as Arc<dyn DeadLetters>,
            clock,
            randomness,
            rules,
            old_records: settings.old_records,
            telemetry: Arc::new(Telemetry::new()?),
            decisions: None,
        };
        Ok(Self {
            settings,
            ports,
            letters,
        })
    }

    pub(in crate::cli) fn asker(&self) -> Asker {
        Asker {
            connection: self.settings.kafka.clone(),
            group: self.settings.group.main.clone(),
        }
    }

    pub(in crate::cli) fn budget(lanes: &[(Consumer, usize)]) -> Budget {
        budget(lanes)
    }

    /// The lanes of these consumers.
    pub(in crate::cli) fn lanes(&self, wanted: impl Fn(Consumer) -> bool) -> Vec<(Consumer, usize)> {
        let all = self.settings.consumers.iter().copied();
        all.filter(|(consumer, _)| wanted(*consumer)).collect()
    }

    /// Works until `shutdown`, which the source tells when all is done; dead letters go to `letters`, if that is given. Gives what stopped it, if it is known: whoever keeps
    /// the progress knows whether all is done.
    pub(in crate::cli) async fn work(
        &self,
        replay: Replay,
        consumers: Vec<(Consumer, usize)>,
        letters: Option<Arc<dyn DeadLetters>>,
        source: Handle,
        shutdown: CancellationToken,
    ) -> Option<Stopped> {
        let options = pipeline::Options {
            max_records: budget(&consumers).max_records(),
            consumers,
            decimals: self.settings.decimals,
            commit_interval: COMMIT_INTERVAL,
            revoke_deadline: DRAIN_DEADLINE,
            drain_deadline: DRAIN_DEADLINE,
            max_bytes: MAX_BYTES,
            // Letters that stay letters are written nowhere.
            accept_dead_letters: self.settings.accept_dead_letters || letters.is_some(),
        };
        let ports = Ports {
            dead_letters: letters.unwrap_or_else(|| Arc::clone(&self.ports.dead_letters)),
            ..self.ports.clone()
        };
        let mut status = ports.telemetry.watch();
        let working = Box::pin(pipeline::run_as(replay, options, source, ports, shutdown.clone()));
        let trouble = async {
            loop {
                if let Some(trouble) = trouble(&status.borrow_and_update()) {
                    return trouble;
                }
                if status.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let (exit, trouble) = tokio::select! {
            biased;
            exit = working => (exit, None),
            // What is in flight is in the same trouble, and what is not committed is read again.
            trouble = trouble => (Exit::Drained { unfinished: 0 }, Some(trouble)),
        };
        match exit {
            Exit::Failed(Failure::Configuration(why)) => Some(Stopped::Configuration(why)),
            Exit::Failed(Failure::Fatal(why)) => Some(Stopped::Failed(why)),
            Exit::Drained { .. } => trouble,
        }
    }
}

/// What a worker would wait for an operator with. Here one stands by.
fn trouble(status: &Status) -> Option<Stopped> {
    status.consumers.iter().find_map(|consumer| {
        let name = consumer.consumer.name();
        let standing = consumer.standing_still.as_ref();
        let standing = standing.map(|why| Stopped::Configuration(format!("{name} stands still: {why}")));
        standing.or_else(|| {
            let halted = consumer.halted.as_ref()?;
            Some(Stopped::Halted(format!("{name} is halted: {halted}")))
        })
    })
}
