//! The soak: the real worker under a steady load with bursts, an Inngest that fails now and then, and a second worker that
//! joins, leaves and dies.
//!
//! Takes how long; gives a verdict: whether memory and open files of the worker are flat, and whether the books balance.
//! It never measures speed.

mod books;
mod load;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use clap::Args;
use crm_event_processors::clock::SystemClock;
use crm_event_processors::consumers::Consumer;
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::inngest::receiver::{Fault, Receiver, ReceiverSettings};
use crm_event_processors::kafka::embedded::{EmbeddedKafka, read_topic};
use tokio::runtime::Runtime;

use crate::rig::process::Process;
use crate::rig::records::Log;
use crate::rig::redis::Redis;
use crate::rig::workers::{Real, Surroundings};
use crate::rig::{brokers, folder};
use books::{Balance, Books};
use load::Load;

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

/// What the worker may grow by from the second quarter to the last. A full prefetch or one more buffer a connection takes
/// megabytes and comes and goes; a leak of one pointer a record takes more than this in ten minutes.
const GROWTH_KIB: u64 = 8 * 1024;
/// Connections to a receiver and to brokers come and go.
const GROWTH_FILES: u64 = 4;

#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Sample {
    second: u64,
    resident_kib: u64,
    open_files: u64,
}

/// What was seen, written as JSON as well.
#[derive(Debug, serde::Serialize)]
struct Findings {
    records: u32,
    books: Balance,
    dead_letters: i64,
    faults: usize,
    second_workers: u64,
    resident_kib: Quarters,
    open_files: Quarters,
    peak_resident_kib: u64,
    samples: Vec<Sample>,
}

/// The medians of the second and of the last quarter.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Quarters {
    second: u64,
    last: u64,
}

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
        records,
        books: books.balance(),
        dead_letters: dead_letters(&kafka)?,
        faults: watch.faults,
        second_workers: watch.second.count,
        resident_kib: quarters(&samples, |sample| sample.resident_kib)?,
        open_files: quarters(&samples, |sample| sample.open_files)?,
        peak_resident_kib,
        samples,
    };
    let file = folder().join("soak.json");
    std::fs::write(&file, serde_json::to_string_pretty(&findings)?)?;
    findings.print();
    println!("samples in {}", file.display());
    findings.judge()
}

fn worker(name: &str, surroundings: &Surroundings) -> anyhow::Result<Process> {
    let real = Real {
        consumers: "currency,tier,mission",
        lanes: 4,
        window_secs: WINDOW_SECS,
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
            self.samples.push(Sample {
                second,
                resident_kib: worker.resident_kib()?,
                open_files: worker.open_files()?,
            });
            if second.is_multiple_of(FAULT_EVERY_SECS) {
                receiver.faults().push(fault(self.faults));
                self.faults += 1;
            }
            self.second.at(second % SECOND_EVERY_SECS, surroundings)?;
            if second.is_multiple_of(30) {
                eprintln!("{second} s: {:?} {:?}", self.samples.last(), books.balance());
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

fn quarters(samples: &[Sample], of: impl Fn(&Sample) -> u64) -> anyhow::Result<Quarters> {
    let quarter = samples.len() / 4;
    ensure!(quarter > 0, "too short to compare quarters");
    let median = |from: usize| {
        let mut values: Vec<u64> = samples.iter().skip(from).take(quarter).map(&of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Ok(Quarters {
        second: median(quarter),
        last: median(samples.len() - quarter),
    })
}

impl Quarters {
    fn growth(self) -> u64 {
        self.last.saturating_sub(self.second)
    }
}

impl Findings {
    fn expected(&self) -> u64 {
        u64::from(self.records) * Consumer::ALL.len() as u64
    }

    fn print(&self) {
        let Balance {
            accepted,
            resent,
            doubled,
        } = self.books;
        let (resident, files) = (self.resident_kib, self.open_files);
        let lost = self.expected() - accepted.min(self.expected());
        println!("records        {} in {} s", self.records, self.samples.len());
        println!("events         {accepted} accepted, {lost} lost, {doubled} doubled, {resent} resent");
        println!("dead letters   {}", self.dead_letters);
        println!(
            "disturbances   {} faults, {} second workers",
            self.faults, self.second_workers
        );
        println!(
            "resident       {} MiB in the second quarter, {} MiB in the last, {} MiB at most",
            resident.second / 1024,
            resident.last / 1024,
            self.peak_resident_kib / 1024
        );
        println!(
            "open files     {} in the second quarter, {} in the last",
            files.second, files.last
        );
    }

    fn judge(&self) -> anyhow::Result<()> {
        let balanced = self.books.accepted == self.expected() && self.books.doubled == 0 && self.dead_letters == 0;
        ensure!(balanced, "the books do not balance");
        ensure!(self.records > 0, "nothing was written");
        ensure!(self.resident_kib.growth() <= GROWTH_KIB, "memory grows");
        ensure!(self.open_files.growth() <= GROWTH_FILES, "open files grow");
        println!("flat, and the books balance");
        Ok(())
    }
}
