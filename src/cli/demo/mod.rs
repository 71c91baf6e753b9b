//! `demo`: the very same worker on an embedded Kafka, a seeded workload and an in-process Inngest, with a crash in the
//! middle, and the books at the end.
//!
//! This file puts the parts together. [`workload`] says what happens and what must come out, [`feeder`] writes it to
//! Kafka, [`worker`] runs the real pipeline, [`checker`] keeps the books, [`settler`] books what the workflows would,
//! [`report`] shows it all.

mod accepted;
mod balance;
mod checker;
mod envelope;
mod feeder;
mod label;
mod merchants;
mod report;
mod sabotage;
mod settler;
mod tickets;
mod worker;
mod workload;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::ProgressBar;

use super::progress::bar;
use super::{Code, Format, print_json};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Secret, topic};
use crate::consumers::{Consumer, Rules};
use crate::dead_letters::Queue;
use crate::faults::Gate;
use crate::inngest::receiver::{AcceptedEvent, Fault, Receiver, ReceiverSettings, Sink};
use crate::kafka::embedded::{EmbeddedKafka, Feed, read_topic};
use crate::loyalty::{DEMO_PROGRAM, Programs};
use crate::rows::Table;
use crate::telemetry::Telemetry;
use balance::Reader;
use checker::{Books, Place};
use feeder::{Feeder, Phase, Script};
use label::{Ledger, STORY};
use report::Report;
use sabotage::Sabotage;
use settler::Settlement;
use worker::{Employer, Worker};

/// Runs everything in this process: nothing to install, nothing left behind.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Records in the workload, repetitions, tombstones and poison included. At least 100: the crash needs records in flight.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    events: u64,
    /// The same seed makes the same workload.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The consumers that run, separated by commas. Default: all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = consumer)]
    consumers: Vec<Consumer>,
    /// Break the worker on purpose: the books must fail and the exit code must be 1.
    #[arg(long, value_enum, value_name = "HOW")]
    sabotage: Option<Sabotage>,
}

const PREFIX: &str = "crm";
const GROUP: &str = "crm-event-processors";
const PARTITIONS: i32 = 12;
/// The demo gives up when nothing has moved for this long; it shows the books as they are.
const STALLED: Duration = Duration::from_secs(240);
/// Requests that are accepted without an answer right before the crash: they must come again with the same ids.
const UNANSWERED: usize = 3;
/// At least as many as lanes that may try again: all of them are caught in flight.
const HELD: usize = 64;
/// Positions of before the crash must be committed: so many ticks pass while everything is held.
const TICKS_BEFORE_CRASH: usize = 3;
const LEAVE_DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let topics: Vec<(String, i32)> = Table::ALL
        .iter()
        .map(|table| (topic(PREFIX, *table), PARTITIONS))
        .collect();
    let queues = Queue::ALL.iter().map(|queue| (queue.topic(PREFIX), 1));
    // The cluster stays on this thread and outlives everybody who uses it.
    let kafka = EmbeddedKafka::start(&topics.iter().cloned().chain(queues).collect::<Vec<_>>())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(play(options, &kafka, &topics));
    runtime.shutdown_background();
    let report = report?;
    match options.format {
        Format::Text => println!("{}", report.text()),
        Format::Json => print_json(&report.json())?,
    }
    Ok(if report.balanced() { Code::Ok } else { Code::Findings })
}

fn consumer(name: &str) -> Result<Consumer, String> {
    let known = || Consumer::ALL.map(Consumer::name).join(", ");
    Consumer::ALL
        .into_iter()
        .find(|consumer| consumer.name() == name)
        .ok_or_else(|| format!("known are {}", known()))
}

async fn play(options: &Options, kafka: &EmbeddedKafka, topics: &[(String, i32)]) -> anyhow::Result<Report> {
    let started = Instant::now();
    let clock: SharedClock = Arc::new(SystemClock);
    let mut consumers = if options.consumers.is_empty() {
        Consumer::ALL.to_vec()
    } else {
        options.consumers.clone()
    };
    consumers.sort_unstable();
    consumers.dedup();
    let merchants = merchants::all()?.iter().map(|merchant| merchant.id).collect();
    let books = Books::new(merchants, consumers.iter().map(|consumer| reader(*consumer)).collect());
    let books = Arc::new(Mutex::new(books));
    let sink: Arc<dyn Sink> = Arc::new(IntoBooks(Arc::clone(&books)));
    let receiver = Receiver::start(ReceiverSettings::default(), sink, Arc::clone(&clock)).await?;
    let telemetry = Arc::new(Telemetry::new()?);
    let feeder = Feeder::start(Script {
        workload: workload::Workload::new(options.seed, options.events)?,
        feed: Feed::new(&kafka.connection(), GROUP, topics)?,
        books: Arc::clone(&books),
        clock: Arc::clone(&clock),
        length: options.events,
        prefix: PREFIX,
        partitions: PARTITIONS,
    })?;
    let employer = Employer {
        connection: kafka.connection(),
        base_url: receiver.base_url(),
        event_key: Secret::new("demo"),
        consumers: consumers.clone(),
        rules: Arc::new(Rules::new(Arc::new(Programs::from_json(DEMO_PROGRAM)?), None)),
        clock,
        telemetry: Arc::clone(&telemetry),
        sabotage: options.sabotage,
        memory: worker::Memory::default(),
    };
    let mut show = Show::new(options);
    let working = work(&employer, &receiver, &feeder, &mut show).await;
    show.bar.finish_and_clear();
    feeder.ended()?;
    let working = working?;
    count_dead_letters(kafka, &books)?;
    let books = books.lock().unwrap_or_else(PoisonError::into_inner);
    let settlement = consumers
        .contains(&Consumer::Currency)
        .then(|| Settlement::of(books.awards(), &books.final_targets(), options.seed, STORY));
    Ok(Report {
        seed: options.seed,
        events: options.events,
        sabotage: options.sabotage,
        balance: books.balance(),
        story: books.story(),
        settlement,
        outcomes: consumers
            .iter()
            .map(|consumer| report::Outcomes::of(*consumer, &telemetry))
            .collect(),
        requests: receiver.stats().requests,
        elapsed: started.elapsed(),
        joining: working.joining,
        stalled: working.stalled,
    })
}

/// How the two workers went.
struct Work {
    /// Time in which no worker had partitions.
    joining: Duration,
    /// Why it ended before everything was committed.
    stalled: Option<String>,
}

/// One worker up to the middle, a crash, another to the end.
async fn work(employer: &Employer, receiver: &Receiver, feeder: &Feeder, show: &mut Show) -> anyhow::Result<Work> {
    let mut first = employer.hire().await?;
    let mut joining = first.joined(STALLED).await;
    if let Err(stalled) = reach(Phase::Middle, feeder, &mut first, show).await {
        drop(first.stop().await);
        return Ok(Work {
            joining,
            stalled: Some(stalled),
        });
    }
    let gate = Gate::default();
    for _ in 0..UNANSWERED {
        receiver.faults().push(Fault::AcceptThenDrop);
    }
    for _ in 0..HELD {
        receiver.faults().push(Fault::Hold(gate.clone()));
    }
    feeder.go_on();
    let in_flight = tokio::time::timeout(STALLED, async {
        gate.arrived().await;
        first.ticks(TICKS_BEFORE_CRASH).await;
    });
    if in_flight.await.is_err() {
        drop(first.stop().await);
        return Ok(Work {
            joining,
            stalled: Some("nothing was in flight after the middle".to_owned()),
        });
    }
    // Without a farewell, without a last commit, with records in every lane.
    first.crash(LEAVE_DEADLINE).await;
    show.crashed();
    while receiver.faults().next().is_some() {}
    gate.release();
    let mut second = employer.hire().await?;
    joining += second.joined(STALLED).await;
    let stalled = reach(Phase::Done, feeder, &mut second, show).await.err();
    let exit = second.stop().await;
    let unclean = (exit != "drained").then(|| format!("the worker ended: {exit}"));
    Ok(Work {
        joining,
        stalled: stalled.or(unclean),
    })
}

/// Waits for a phase as long as anything moves.
async fn reach(phase: Phase, feeder: &Feeder, worker: &mut Worker, show: &mut Show) -> Result<(), String> {
    let mut reached = feeder.reached.clone();
    loop {
        let now = *reached.borrow_and_update();
        show.at(now.committed);
        if now.phase >= phase {
            return Ok(());
        }
        tokio::select! {
            changed = tokio::time::timeout(STALLED, reached.changed()) => match changed {
                Ok(Ok(())) => {}
                Ok(Err(_gone)) => return Err("the feeder ended early".to_owned()),
                Err(_elapsed) => return Err(format!("nothing moved for {} s", STALLED.as_secs())),
            },
            exit = worker.ended() => return Err(format!("the worker ended by itself: {exit}")),
        }
    }
}

/// Reads what the worker gave up on, with its place.
fn count_dead_letters(kafka: &EmbeddedKafka, books: &Mutex<Books>) -> anyhow::Result<()> {
    use rdkafka::message::{Headers as _, Message as _};
    for queue in Queue::ALL {
        let topic = queue.topic(PREFIX);
        let mut unread = Vec::new();
        let written = read_topic(&kafka.connection(), &topic, |message| {
            let header = |name: &str| {
                let headers = message.headers()?;
                let value = headers.iter().find(|header| header.key == name)?.value?;
                Some(String::from_utf8_lossy(value).into_owned())
            };
            let place = || -> Option<Place> {
                let (partition, offset) = (header("crm.dlq.partition")?, header("crm.dlq.offset")?);
                Some((header("crm.dlq.topic")?, partition.parse().ok()?, offset.parse().ok()?))
            };
            unread.push(place().unwrap_or_else(|| (topic.clone(), 0, message.offset())));
        });
        let written = written.with_context(|| format!("dead-letter topic {topic}"))?;
        let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
        // What the embedded Kafka has trimmed can only be counted; there are a handful unless something is badly wrong.
        for trimmed in 0..written.saturating_sub(i64::try_from(unread.len()).unwrap_or(i64::MAX)) {
            books.dead_letter(queue.name(), (topic.clone(), -1, trimmed));
        }
        for place in unread {
            books.dead_letter(queue.name(), place);
        }
    }
    Ok(())
}

const fn reader(consumer: Consumer) -> Reader {
    match consumer {
        Consumer::Currency => Reader::Currency,
        Consumer::Tier => Reader::Tier,
        Consumer::Mission => Reader::Mission,
        Consumer::Reward => Reader::Reward,
        Consumer::Marketplace => Reader::Marketplace,
    }
}

/// Every accepted event goes into the books.
#[derive(Debug)]
struct IntoBooks(Arc<Mutex<Books>>);

impl Sink for IntoBooks {
    fn accepted(&self, event: AcceptedEvent<'_>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .accepted(event.id, event.name, event.data);
    }
}

/// The progress display: silent unless a person looks.
struct Show {
    bar: ProgressBar,
}

impl Show {
    fn new(options: &Options) -> Self {
        let bar = bar(options.events, options.format, "first worker");
        Self { bar }
    }

    fn at(&self, committed: u64) {
        self.bar.set_position(committed);
    }

    fn crashed(&self) {
        self.bar.set_message("second worker");
    }
}

/// The order of the ledgers is the order of the topics.
const _: () = assert!(Ledger::ALL.len() == Table::ALL.len());
