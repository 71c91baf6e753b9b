//! The soak: the real worker under a steady load with bursts, an Inngest that fails now and then, and a second worker that
//! joins, leaves and dies.
//!
//! Takes how long and how fast; gives a verdict: whether there was load, memory and open files of the worker are flat, and
//! the books balance.
//! It never measures speed.

mod books;
mod load;
mod verdict;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use clap::Args;
use crm_event_processors::clock::SystemClock;
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::inngest::receiver::{Fault, Receiver, ReceiverSettings};
use crm_event_processors::kafka::embedded::{EmbeddedKafka, read_topic};
use tokio::runtime::Runtime;

use crate::rig::process::Process;
use crate::rig::records::{self, Log};
use crate::rig::redis::Redis;
use crate::rig::workers::{Real, Surroundings, built_with_benches};
use crate::rig::{brokers, folder};
use books::Books;
use load::Load;
use verdict::{Findings, Quarters, Sample};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Records a second between the bursts: about half of what two cores manage with everything on them.
    #[arg(long, default_value_t = 4000.0)]
    rate: f64,
}

const LOG: Log = Log {
    prefix: "soak",
    partitions: 12,
    records: 0,
    wrapped: false,
};
const GROUP: &str = "soak";
/// Shorter than the soak, so that Redis forgets what it would in production.
const WINDOW_SECS: u32 = 30;

const SAMPLE: Duration = Duration::from_secs(1);
const FAULT_EVERY_SECS: u64 = 10;
/// The second worker comes and goes once in so many seconds.
const SECOND_EVERY_SECS: u64 = 60;
const SECOND_FROM: u64 = 15;
const SECOND_UNTIL: u64 = 40;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    crm_event_processors::tls::install_provider();
    let runtime = Runtime::new()?;
    let kafka = brokers::start(&[LOG])?;
    let redis = Redis::start()?;
    let books = Arc::new(Books::default());
    let receiver = Receiver::start(
        ReceiverSettings::default(),
        Arc::clone(&books) as _,
        Arc::new(SystemClock),
    );
    let receiver = runtime.block_on(receiver)?;
    let surroundings = Surroundings {
        worker: built_with_benches(),
        brokers: kafka.bootstrap_servers().to_owned(),
        redis: redis.url(),
        inngest: receiver.base_url(),
        prefix: LOG.prefix.to_owned(),
        group: GROUP.to_owned(),
    };
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let mut worker = worker("soak-worker", &surroundings)?;
    let load = Load::start(&kafka, LOG, GROUP, options.rate)?;
    let mut watch = Watch::default();
    let ended = watch.over(length, &worker, &load, &receiver, &surroundings, &books);
    watch.second.leave()?;
    ended?;
    let records = load.end()?;
    let peak_resident_kib = worker.peak_resident_kib()?;
    worker.stop()?;
    runtime.block_on(receiver.stop());
    let samples = watch.samples;
    let findings = Findings {
        records: u64::from(records),
        asked: (options.rate * length.as_secs_f64()) as u64,
        books: books.balance(),
        dead_letters: dead_letters(&kafka)?,
        faults: watch.faults,
        second_workers: watch.second.count,
        resident_kib: Quarters::of(&samples, |sample| sample.resident_kib)?,
        open_files: Quarters::of(&samples, |sample| sample.open_files)?,
        peak_resident_kib,
        samples,
    };
    let file = folder().join("soak.json");
    std::fs::write(&file, serde_json::to_string_pretty(&findings)?)?;
    println!("{findings}\nsamples in {}", file.display());
    let problems = findings.problems();
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    println!("flat, and the books balance");
    Ok(())
}

fn worker(name: &str, surroundings: &Surroundings) -> anyhow::Result<Process> {
    let real = Real {
        consumers: "currency,tier,mission,reward,marketplace",
        lanes: 4,
        window_secs: WINDOW_SECS,
        push: None,
    };
    real.start(name, surroundings)
}

/// Watches the worker and disturbs it.
#[derive(Default)]
struct Watch {
    samples: Vec<Sample>,
    faults: usize,
    second: Second,
}

/// The worker that comes and goes.
#[derive(Default)]
struct Second {
    running: Option<Process>,
    leaving: Option<JoinHandle<anyhow::Result<()>>>,
    count: u64,
}

impl Watch {
    #[expect(clippy::too_many_arguments, reason = "everything that runs")]
    fn over(
        &mut self,
        length: Duration,
        worker: &Process,
        load: &Load,
        receiver: &Receiver,
        surroundings: &Surroundings,
        books: &Books,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < length {
            // It says nothing while all is well; the time it is given is the time between two samples.
            worker.line_within(SAMPLE)?;
            ensure!(
                !load.is_over(),
                "the load ended early: the group does not follow, or the brokers failed"
            );
            let second = begun.elapsed().as_secs();
            let sample = Sample {
                second,
                resident_kib: worker.resident_kib()?,
                open_files: worker.open_files()?,
            };
            self.samples.push(sample);
            if second.is_multiple_of(FAULT_EVERY_SECS) {
                receiver.faults().push(fault(self.faults));
                self.faults += 1;
            }
            self.second.at(second % SECOND_EVERY_SECS, surroundings)?;
            if second.is_multiple_of(30) {
                eprintln!("{sample}; events: {}", books.balance());
            }
        }
        Ok(())
    }
}

/// One kind of trouble after the other.
fn fault(number: usize) -> Fault {
    match number % 6 {
        0 => Fault::status(503, "no"),
        1 => Fault::too_many_requests(Some("1")),
        2 => Fault::AcceptThenDrop,
        3 => Fault::TooFewIds { missing: 1 },
        4 => Fault::Slow(Duration::from_secs(2)),
        _ => Fault::Body("not json".to_owned()),
    }
}

impl Second {
    fn at(&mut self, second: u64, surroundings: &Surroundings) -> anyhow::Result<()> {
        let wanted = (SECOND_FROM..SECOND_UNTIL).contains(&second);
        if wanted && self.running.is_none() {
            self.left()?;
            self.running = Some(worker("soak-second", surroundings)?);
            self.count += 1;
        }
        if !wanted && let Some(mut leaving) = self.running.take() {
            // One farewell, one kill -9, by turns.
            let kindly = self.count % 2 == 1;
            let leave = move || if kindly { leaving.stop() } else { leaving.kill() };
            self.leaving = Some(std::thread::spawn(leave));
        }
        Ok(())
    }

    /// Waits for the one that is on its way out.
    fn left(&mut self) -> anyhow::Result<()> {
        match self.leaving.take() {
            Some(thread) => thread.join().map_err(|_panic| anyhow!("leaving ended in a panic"))?,
            None => Ok(()),
        }
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        self.left()?;
        self.running.take().map_or(Ok(()), |mut running| running.stop())
    }
}

fn dead_letters(kafka: &EmbeddedKafka) -> anyhow::Result<i64> {
    let mut letters = 0;
    for queue in Queue::ALL {
        letters += read_topic(&kafka.connection(), &queue.topic(LOG.prefix), |_letter| {})?;
    }
    Ok(letters)
}
