//! The curves: what a record costs as what there is of it grows, how long it is on its way, how a worker starts and ends.
//!
//! Takes how many rounds and which parts; gives a table, and JSON for `make plots`. Every run is checked: each change covered
//! once, no event twice, the worker ends with 0. Like the ratios it judges nothing else.

mod cases;
mod ends;
mod latency;
mod pace;
mod report;
mod stamps;
mod tally;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use crm_event_processors::kafka::embedded::EmbeddedKafka;
use tokio::runtime::Runtime;

use self::cases::{Behind, Case, GROWING, LANES, Ledger, SHARED, THROUGHPUT, TWELVE};
use self::report::Report;
use self::tally::Taking;
use crate::rig::goals::head;
use crate::rig::kafka::Broker;
use crate::rig::origin::{self, Origin};
use crate::rig::records::owed;
use crate::rig::redis::Redis;
use crate::rig::workers::{Real, Surroundings, built_with_benches};
use crate::rig::{brokers, folder};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often everything runs.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these parts, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Print the JSON that is written to target/bench.
    #[arg(long)]
    json: bool,
    /// The worker to measure; without it, the one that cargo built with this.
    #[arg(long, default_value_os_t = built_with_benches())]
    worker: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One, three, five consumers; bare and wrapped; 1 KB and 4 KB.
    Throughput,
    /// CPU a record as partitions, members, consumers and size grow.
    Slopes,
    /// From due to accepted, alone and under load.
    Latency,
    /// Start and drain.
    Ends,
}

/// A log that was read once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Those of the measured time.
    pub(crate) records: u32,
    pub(crate) seconds: f64,
    pub(crate) worker_cpu: Duration,
    pub(crate) redis_cpu: Duration,
    pub(crate) peak_resident_kib: u64,
}

/// What everything stands on.
pub(crate) struct Ground {
    pub(crate) runtime: Runtime,
    pub(crate) redis: Redis,
    worker: PathBuf,
    mock: EmbeddedKafka,
    /// Only where a part needs it.
    broker: Option<Broker>,
    pub(crate) groups: u32,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let origin = Origin::look()?;
    let wants = |part| options.only.is_empty() || options.only.contains(&part);
    let throughput = THROUGHPUT
        .into_iter()
        .filter(|case| wants(Part::Throughput) || (wants(Part::Slopes) && SHARED.contains(&case.name)));
    let growing = GROWING.into_iter().filter(|_| wants(Part::Slopes));
    let cases: Vec<Case> = throughput.chain(growing).collect();
    let mut ledgers: Vec<Ledger> = Vec::new();
    let more = wants(Part::Ends).then_some(TWELVE);
    for ledger in cases.iter().map(|case| case.ledger).chain(more) {
        if !ledgers.iter().any(|known| known.log.prefix == ledger.log.prefix) {
            ledgers.push(ledger);
        }
    }
    crm_event_processors::tls::install_provider();
    let is_mock = |ledger: &&Ledger| ledger.behind == Behind::Mock;
    let mocked: Vec<_> = ledgers.iter().filter(is_mock).map(|ledger| ledger.log).collect();
    let needs_broker = wants(Part::Latency) || ledgers.len() > mocked.len();
    let mut ground = Ground {
        runtime: Runtime::new()?,
        redis: Redis::start()?,
        worker: options.worker.clone(),
        mock: brokers::start(&mocked)?,
        broker: needs_broker.then(Broker::start).transpose()?,
        groups: 0,
    };
    let mut report = Report::new(origin, &cases);
    for ledger in &ledgers {
        eprintln!("writing {} records to {}", ledger.log.records, ledger.log.purchases());
        ground.fill(ledger)?;
    }
    let mut lines = if wants(Part::Latency) {
        latency::lines(&mut ground)?
    } else {
        Vec::new()
    };
    let (mut file, mut json) = (folder(), String::new());
    for round in 1..=options.rounds {
        for case in &cases {
            let run = ground.read(case).with_context(|| format!("case {}", case.name))?;
            let rate = f64::from(run.records) / run.seconds;
            eprintln!("round {round}: {}: {rate:.0} records/s", case.name);
            report.read(case, run);
        }
        for line in &mut lines {
            let found = latency::measure(&mut ground, line);
            for latency in found.with_context(|| format!("latency of {}", line.consumers))? {
                eprintln!(
                    "round {round}: {} {}: p99 {:.1} ms",
                    latency.consumers, latency.load, latency.p99
                );
                report.took(latency);
            }
        }
        if wants(Part::Ends) {
            let ends = ends::measure(&mut ground).context("start and end")?;
            eprintln!(
                "round {round}: started in {:.0} ms, drained in {:.0} ms",
                ends.started(),
                ends.drained
            );
            report.ended(ends);
        }
        let complete = options.only.is_empty() && round == options.rounds;
        report.round(round, complete);
        // After every round: an interrupted run is not lost.
        json = serde_json::to_string_pretty(&report.curves())?;
        file = origin::keep(&folder(), "curves", &json, complete)?;
    }
    if options.json {
        println!("{json}");
    } else {
        println!("{report}\n\nwritten to {}", file.display());
    }
    Ok(())
}

impl Ground {
    /// The real one.
    pub(crate) fn broker(&self) -> anyhow::Result<&Broker> {
        self.broker.as_ref().context("no part needs the broker")
    }

    fn fill(&self, ledger: &Ledger) -> anyhow::Result<()> {
        let Ledger { log, shape, behind } = ledger;
        if *behind == Behind::Mock {
            return brokers::fill_shaped(&self.mock, log, *shape);
        }
        let broker = self.broker()?;
        broker.make_topics(&self.runtime, log)?;
        brokers::write_all(&broker.bootstrap(), log, *shape)?;
        Ok(())
    }

    pub(crate) fn surroundings(&self, brokers: String, inngest: String, prefix: &str, group: String) -> Surroundings {
        Surroundings {
            worker: self.worker.clone(),
            brokers,
            redis: self.redis.url(),
            inngest,
            prefix: prefix.to_owned(),
            group,
        }
    }

    /// A whole log; measured from a tenth of it to its end.
    fn read(&mut self, case: &Case) -> anyhow::Result<Run> {
        self.redis.empty()?;
        let records = case.ledger.log.records;
        let expected = u64::from(records) * case.readers();
        let head = head(records);
        let taking = Taking::start(&self.runtime, vec![u64::from(head) * case.readers(), expected])?;
        let bootstrap = match case.ledger.behind {
            Behind::Mock => self.mock.bootstrap_servers().to_owned(),
            Behind::Kafka => self.broker()?.bootstrap(),
        };
        let group = next_group(&mut self.groups);
        let surroundings = self.surroundings(bootstrap, taking.url(), case.ledger.log.prefix, group);
        let real = Real {
            consumers: case.consumers,
            lanes: LANES,
            window_secs: 300,
            push: None,
        };
        let mut worker = real.start("worker", &surroundings)?;
        let warm = taking.notice(&worker)?;
        let (worker_cpu, redis_cpu) = (worker.cpu()?, self.redis.process.cpu()?);
        let last = taking.notice(&worker)?;
        let run = Run {
            records: records - head,
            seconds: last.duration_since(warm).as_secs_f64(),
            worker_cpu: worker.cpu()?.saturating_sub(worker_cpu),
            redis_cpu: self.redis.process.cpu()?.saturating_sub(redis_cpu),
            peak_resident_kib: worker.peak_resident_kib()?,
        };
        worker.stop()?;
        taking.end(&self.runtime, &owed(case.consumers, records))?;
        Ok(run)
    }
}

/// One that nobody was in before.
pub(crate) fn next_group(groups: &mut u32) -> String {
    *groups += 1;
    format!("curves-{groups}")
}
