//! `check`: whether everything that a worker needs is there and well, from the settings to the source.
//!
//! Takes the settings, looks at everything at once, gives findings in the order in which they explain each other. Looking
//! (`kafka::survey`, `postgres::survey`, `dedupe::redis::survey`, `connectors::Client`, `HttpDeliver::reach`) gives plain
//! facts, each within its own time; judging them ([`judges`]) is pure. It never mends anything, joins no group, and leaves
//! nothing behind but a key that lives for a second, and an event if it is asked to send one.

pub mod catalogue;
pub mod facts;
mod finding;
pub mod judges;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::time::{Instant, timeout};

use self::catalogue::{Area, CONFIGURATION_INVALID, CONFIGURATION_PROGRAM};
use self::judges::clock::Other;
use self::judges::connector::Seen as Connected;
use self::judges::inngest::Asked;
use self::judges::names::Names;
use self::judges::windows::Windows;
use self::judges::{clock as clocks, connector, group, inngest, kafka, postgres, redis, windows};
use crate::clock::SharedClock;
use crate::config::Checking;
use crate::connectors::{Access, Client, Config, ConnectError};
use crate::dead_letters::Queue;
use crate::dedupe::DedupeError;
use crate::dedupe::redis::{DEFAULT_LEASE, survey as redis_survey};
use crate::inngest::{Endpoint, HttpDeliver, HttpSettings, Limits};
use crate::kafka::{Seen as Brokers, Survey, Trouble};
use crate::postgres::LedgerError;
use crate::postgres::survey::{self as postgres_survey, Source};

pub use facts::Facts;
pub use finding::{End, Finding, Purpose, Report, Severity, Verdicts};

/// What is asked.
#[derive(Debug)]
pub struct Question {
    pub settings: Checking,
    /// What is wrong with the program file.
    pub program: Option<String>,
    /// Where the connector runs; or why nobody knows.
    pub platform: Result<Access, String>,
    pub connector: String,
    /// Keys of the connector whose rules may be broken.
    pub accepted: Vec<String>,
    pub areas: BTreeSet<Area>,
    pub purpose: Purpose,
    pub sends_test_event: bool,
    /// Rights on topics are tried out. Whoever looks again and again leaves that: each try is a refusal that brokers count.
    pub tries_rights: bool,
    /// How long a worker that is stopped takes at most.
    pub drain: Duration,
}

/// What was seen of each; `None`: not looked at.
#[derive(Debug)]
struct Seen {
    brokers: Option<Result<Brokers, Trouble>>,
    source: Option<Result<Source, LedgerError>>,
    connector: Option<Result<Connected, ConnectError>>,
    redis: Option<Result<redis_survey::Seen, DedupeError>>,
    inngest: Option<Asked>,
}

/// For each look. What hangs is told as away or as not verifiable, and the whole ends within five seconds.
const PATIENCE: Duration = Duration::from_millis(3_500);
/// For what is asked once more.
const AGAIN: Duration = Duration::from_millis(500);

/// Looks, and judges what was seen.
pub async fn examine(question: &Question, clock: &SharedClock) -> Report {
    let begun = Instant::now();
    let settings = &question.settings;
    let wants = |areas: &[Area]| areas.iter().any(|area| question.areas.contains(area));
    let brokers = settings.kafka.as_ref().filter(|_| wants(&[Area::Kafka, Area::Group]));
    let database = settings
        .database
        .as_ref()
        .filter(|_| wants(&[Area::Postgres, Area::Clock, Area::Windows]));
    // The source's names are the connector's.
    let platform = question
        .platform
        .as_ref()
        .ok()
        .filter(|_| wants(&[Area::Connector, Area::Postgres]));
    let redis = settings
        .redis_url
        .as_ref()
        .filter(|_| wants(&[Area::Redis]) && !settings.is_shadow);
    let api = settings
        .inngest
        .as_ref()
        .filter(|_| wants(&[Area::Inngest, Area::Clock]) && !settings.is_shadow);
    let (brokers, source, connector, redis, inngest) = futures::join!(
        OptionFuture::from(brokers.map(|connection| {
            let survey = Survey {
                connection: connection.clone(),
                group: settings.group.clone(),
                sources: settings.topics.clone(),
                dead_letters: dead_letters(settings),
                tries_rights: question.tries_rights,
            };
            survey.look(clock.now_ms(), PATIENCE)
        })),
        OptionFuture::from(database.map(|url| postgres_survey::survey(url, &**clock, PATIENCE))),
        OptionFuture::from(platform.map(|access| connector_of(access, &question.connector))),
        OptionFuture::from(redis.map(async |url| {
            let late = || DedupeError::Unavailable("no answer in time".to_owned());
            timeout(PATIENCE, redis_survey::survey(url, PATIENCE))
                .await
                .unwrap_or_else(|_| Err(late()))
        })),
        OptionFuture::from(api.map(|api| ask_inngest(api, question.sends_test_event, clock))),
    );
    let mut seen = Seen {
        brokers,
        source,
        connector,
        redis,
        inngest,
    };
    look_again(question, &mut seen).await;
    let verdicts = judge(question, &seen);
    let mut areas = question.areas.clone();
    if !settings.problems.is_empty() {
        // Whatever was asked for: nothing else can be believed before this is mended.
        areas.insert(Area::Configuration);
    }
    let connected = seen.connector.as_ref().and_then(|connected| connected.as_ref().ok());
    let source = seen.source.as_ref().and_then(|source| source.as_ref().ok());
    Report {
        facts: facts::of(connected, source, &names(question, connected)),
        ..Report::new(verdicts, &areas, question.purpose, begun.elapsed())
    }
}

fn dead_letters(settings: &Checking) -> Vec<String> {
    // A shadow writes none.
    let queues = Queue::ALL.into_iter().filter(|queue| match queue {
        Queue::Decode => !settings.is_shadow,
        Queue::Consumer(consumer) => !settings.is_shadow && settings.group.consumers.contains(*consumer),
    });
    queues.map(|queue| queue.topic(&settings.topic_prefix)).collect()
}

async fn connector_of(access: &Access, name: &str) -> Result<Connected, ConnectError> {
    let asking = async {
        let client = patient(access, PATIENCE / 2)?;
        // Offsets lie in a topic: they may be away while the platform answers from its memory.
        let position = timeout(PATIENCE / 2, client.position(name));
        let known = async {
            let config = client.config(name).await?;
            let secrets = config.as_ref().map(Config::secrets).unwrap_or_default();
            let status = client.status(name, &secrets).await?;
            Ok((config.clone(), status))
        };
        let (known, position) = futures::join!(known, position);
        let (config, status) = known?;
        Ok(Connected {
            platform: client.platform(),
            position: match position {
                Ok(position) => position.map_err(|error| error.to_string()),
                Err(_elapsed) => Err("the platform does not say in time how far the connector is".to_owned()),
            },
            status,
            config,
        })
    };
    let late = || ConnectError::Unreachable {
        at: "CONNECT_URL".to_owned(),
        detail: "no answer in time".to_owned(),
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(late()))
}

fn patient(access: &Access, patience: Duration) -> Result<Client, ConnectError> {
    Client::new(Access {
        patience,
        ..access.clone()
    })
}

async fn ask_inngest(api: &crate::config::Inngest, sends: bool, clock: &SharedClock) -> Asked {
    let asking = async {
        let endpoint = Endpoint::new(&api.base_url, &api.event_key, api.environment.as_deref());
        let settings = HttpSettings {
            limits: Limits::default(),
            rate_per_sec: None,
            connect_timeout: PATIENCE,
            request_timeout: PATIENCE,
        };
        let deliver = endpoint.and_then(|endpoint| HttpDeliver::new(endpoint, &settings, SharedClock::clone(clock)));
        let deliver = deliver.map_err(|error| error.to_string())?;
        let reached = deliver.reach().await?;
        let test = OptionFuture::from(sends.then(|| deliver.test())).await;
        Ok((reached, test))
    };
    match timeout(PATIENCE, asking).await {
        Ok(Ok((reached, test))) => Asked {
            reached: Ok(reached),
            test,
        },
        Ok(Err(why)) => Asked {
            reached: Err(why),
            test: None,
        },
        Err(_elapsed) => Asked {
            reached: Err("no answer in time".to_owned()),
            test: None,
        },
    }
}

/// The connector's place was read beside the slot's, maybe before it, and both move. One that seems to lie behind the slot
/// is read once more: then it is the later of the two.
async fn look_again(question: &Question, seen: &mut Seen) {
    let (Ok(access), Some(Ok(source)), Some(Ok(connected))) =
        (&question.platform, &seen.source, seen.connector.as_mut())
    else {
        return;
    };
    let (Ok(Some(read)), Ok(slots)) = (&connected.position, &source.slots) else {
        return;
    };
    let names = names(question, Some(connected));
    let slot = slots.iter().find(|slot| slot.name == names.slot);
    let begins = slot.and_then(|slot| slot.confirmed_lsn.max(slot.restart_lsn));
    if begins.is_none_or(|begins| begins <= *read) {
        return;
    }
    let asking = async { patient(access, AGAIN)?.position(&question.connector).await };
    if let Ok(Ok(position)) = timeout(AGAIN, asking).await {
        connected.position = Ok(position);
    }
}

fn names(question: &Question, connected: Option<&Connected>) -> Names {
    let live = connected.and_then(|connected| connected.config.as_ref());
    Names::of(&question.connector, question.platform.as_ref().ok(), live)
}

fn judge(question: &Question, seen: &Seen) -> Verdicts {
    let settings = &question.settings;
    let mut verdicts = Verdicts::default();
    configuration(&mut verdicts, question);
    match (&settings.kafka, &seen.brokers) {
        (Some(connection), Some(brokers)) => {
            verdicts.append(kafka::judge(brokers, connection));
            if let Ok(brokers) = brokers {
                verdicts.append(group::judge(brokers, &settings.group.name(), settings.group.consumers));
            }
        }
        (Some(_), None) => {}
        (None, _) => verdicts.rest_after(&[Area::Kafka, Area::Group], CONFIGURATION_INVALID),
    }
    if settings.is_shadow {
        verdicts.rest(&[Area::Redis, Area::Inngest], "a shadow needs none");
    }
    let connected = seen.connector.as_ref();
    let known = connected.and_then(|connected| connected.as_ref().ok());
    let names = names(question, known);
    match (&question.platform, connected) {
        (Err(why), _) => verdicts.rest(&[Area::Connector], why),
        (Ok(_), Some(connected)) => {
            let wanted = connector::Wanted {
                names: &names,
                topic_prefix: &settings.topic_prefix,
                accepted: &question.accepted,
            };
            verdicts.append(connector::judge(connected, &wanted));
        }
        (Ok(_), None) => {}
    }
    source(&mut verdicts, question, seen, &names);
    match (&settings.redis_url, &seen.redis) {
        (_, Some(redis)) => verdicts.append(redis::judge(redis, settings.window_s)),
        (None, None) => verdicts.rest_after(&[Area::Redis], CONFIGURATION_INVALID),
        (Some(_), None) => {}
    }
    match (&settings.inngest, &seen.inngest) {
        (Some(api), Some(asked)) => verdicts.append(inngest::judge(asked, &api.base_url, settings.is_dev)),
        (None, _) => verdicts.rest_after(&[Area::Inngest], CONFIGURATION_INVALID),
        (Some(_), None) => {}
    }
    verdicts.append(clocks::judge(&others(seen)));
    verdicts.append(windows::judge(&all_windows(question, seen)));
    verdicts
}

fn configuration(verdicts: &mut Verdicts, question: &Question) {
    for problem in &question.settings.problems {
        let fix = "Correct it: `.env.example` says what each variable means; `crm-event-processors config` shows what is understood";
        verdicts.push(Finding::failed(CONFIGURATION_INVALID, problem).fix(fix));
    }
    if question.settings.problems.is_empty() {
        verdicts.push(Finding::ok(CONFIGURATION_INVALID, "the settings are understood"));
    }
    verdicts.push(match (&question.program, &question.settings.program_file) {
        (Some(problem), _) => {
            let finding = Finding::failed(CONFIGURATION_PROGRAM, "the loyalty programs cannot be used").saw(problem);
            finding.fix("Correct PROGRAM_FILE: schemas/program.schema.json is its shape")
        }
        (None, Some(file)) => Finding::ok(CONFIGURATION_PROGRAM, format!("{file} is understood")),
        (None, None) => Finding::ok(CONFIGURATION_PROGRAM, "the programs are the database's"),
    });
}

fn source(verdicts: &mut Verdicts, question: &Question, seen: &Seen, names: &Names) {
    let settings = &question.settings;
    let Some(source) = &seen.source else {
        let is_wrong = settings
            .problems
            .iter()
            .any(|problem| problem.starts_with("DATABASE_URL"));
        match (&settings.database, is_wrong) {
            (None, true) => verdicts.rest_after(&[Area::Postgres], CONFIGURATION_INVALID),
            (None, false) => verdicts.rest(&[Area::Postgres], "DATABASE_URL is not set"),
            (Some(_), _) => {}
        }
        return;
    };
    let read = match (&question.platform, &seen.connector) {
        (Err(why), _) => Err(why.clone()),
        (Ok(_), Some(Ok(connected))) => connected.position.clone(),
        (Ok(_), Some(Err(error))) => Err(error.to_string()),
        (Ok(_), None) => Err("the connector was not asked".to_owned()),
    };
    verdicts.append(postgres::judge(
        source,
        &postgres::Wanted {
            names,
            read: &read,
            effective_from: settings.effective_from,
        },
    ));
}

fn others(seen: &Seen) -> Vec<Other> {
    let mut others = Vec::new();
    if let Some(Ok(source)) = &seen.source {
        others.push(Other {
            whose: "PostgreSQL",
            ahead_ms: source.server.ahead_ms,
            unsure_ms: source.server.took_ms / 2,
        });
    }
    let reached = seen.inngest.as_ref().and_then(|asked| asked.reached.as_ref().ok());
    if let Some((reached, ahead_ms)) = reached.and_then(|reached| Some((reached, reached.ahead_ms?))) {
        others.push(Other {
            whose: "Inngest",
            ahead_ms,
            // It tells whole seconds.
            unsure_ms: reached.took_ms / 2 + 1_000,
        });
    }
    others
}

fn all_windows(question: &Question, seen: &Seen) -> Windows {
    let settings = &question.settings;
    Windows {
        dedupe_s: (!settings.is_shadow).then_some(settings.window_s),
        session_s: settings.session_s,
        drain_s: question.drain.as_secs(),
        lease_s: DEFAULT_LEASE.as_secs(),
        has_database: settings.database.is_some(),
        old_records: settings.old_records,
        slot: match &seen.source {
            Some(Ok(source)) => source
                .wal_rate
                .clone()
                .map(|rate| (source.server.slot_keep_bytes, rate)),
            Some(Err(error)) => Err(format!("{} first", postgres::first_of(error).name())),
            None => Err("DATABASE_URL is not set".to_owned()),
        },
    }
}
