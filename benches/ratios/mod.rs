//! The benchmark: every case in turn, round after round, so that what disturbs the machine disturbs all of them.
//!
//! Takes how many rounds; gives figures for each case, and ratios beside what is asked for. The clock of a case runs from the
//! first record to the last; for a worker, from the first event's arrival to the last one's answer. It judges nothing.

mod cases;
pub(crate) mod read;
mod report;
mod scrape;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use crm_event_processors::kafka::embedded::EmbeddedKafka;
use tokio::runtime::Runtime;

use crate::rig::collector::Collector;
use crate::rig::process::Process;
use crate::rig::receiving::Receiving;
use crate::rig::records::PROGRAM;
use crate::rig::redis::Redis;
use crate::rig::workers::{self, Real, Surroundings};
use crate::rig::{brokers, folder};
use cases::{CASES, Case, LANES, LOGS, Worker};
use report::Report;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often every case runs.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these cases, separated by commas; ratios of others are left out.
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Where the old worker's modules are; without it, its cases are left out.
    #[arg(long)]
    node_modules: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

/// One case, once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Run {
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    /// CPU time of the worker, of Redis, and of brokers and receiver together.
    pub(crate) worker_cpu: Duration,
    pub(crate) redis_cpu: Duration,
    pub(crate) servers_cpu: Duration,
    pub(crate) peak_resident_kib: u64,
    pub(crate) requests: u64,
}

/// Heap allocations of our own code, a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocations {
    pub(crate) memory: f64,
    pub(crate) redis: f64,
}

struct Bench {
    runtime: Runtime,
    kafka: EmbeddedKafka,
    redis: Redis,
    node_modules: Option<PathBuf>,
    groups: u32,
}

/// All CPU times at one moment.
struct Cpu {
    worker: Duration,
    redis: Duration,
    servers: Duration,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let wanted = |case: &Case| {
        let named = options.cases.is_empty() || options.cases.iter().any(|name| name == case.name);
        named && (case.worker != Worker::Old || options.node_modules.is_some())
    };
    let known = |name: &String| CASES.iter().any(|case| case.name == name) || name == "allocations" || name == "scrape";
    let unknown: Vec<&String> = options.cases.iter().filter(|name| !known(name)).collect();
    ensure!(unknown.is_empty(), "no such case: {unknown:?}");
    let cases: Vec<Case> = CASES.into_iter().filter(wanted).collect();
    crm_event_processors::tls::install_provider();
    std::fs::create_dir_all(folder())?;
    std::fs::write(folder().join("program.json"), PROGRAM)?;
    let mut bench = Bench {
        runtime: Runtime::new()?,
        kafka: brokers::start(&LOGS)?,
        redis: Redis::start()?,
        node_modules: options.node_modules.clone(),
        groups: 0,
    };
    let counting = options.cases.is_empty() || options.cases.iter().any(|name| name == "allocations");
    for log in LOGS {
        if cases.iter().any(|case| case.log.prefix == log.prefix) || (counting && log.prefix == COUNTED.log.prefix) {
            eprintln!("writing {} records to {}", log.records, log.purchases());
            brokers::fill(&bench.kafka, &log)?;
        }
    }
    let allocations = if counting { Some(bench.allocations()?) } else { None };
    let scrapes = if options.cases.is_empty() || options.cases.iter().any(|name| name == "scrape") {
        scrape::milliseconds()?
    } else {
        Vec::new()
    };
    let mut report = Report::new(&cases, allocations, scrapes);
    let (file, mut json) = (folder().join("ratios.json"), String::new());
    for round in 1..=options.rounds {
        for case in &cases {
            let run = bench.case(case).with_context(|| format!("case {}", case.name))?;
            eprintln!(
                "round {round}: {}: {:.0} records/s",
                case.name,
                run.records as f64 / run.seconds
            );
            report.add(case, run);
        }
        // After every round: an interrupted run is not lost.
        json = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(&file, &json)?;
    }
    match options.format {
        Format::Json => println!("{json}"),
        Format::Text => println!("{report}\n\nwritten to {}", file.display()),
    }
    Ok(())
}

/// What allocations are counted on.
const COUNTED: Case = CASES[3];

impl Bench {
    fn case(&mut self, case: &Case) -> anyhow::Result<Run> {
        match case.worker {
            Worker::Consume { passes } => self.read(case, passes, false),
            Worker::Decode { passes } => self.read(case, passes, true),
            Worker::Memory | Worker::Real { .. } | Worker::Told { .. } | Worker::Old => self.deliver(case),
        }
    }

    fn read(&self, case: &Case, passes: u32, decode: bool) -> anyhow::Result<Run> {
        let mut arguments = vec!["read".to_owned()];
        for (name, value) in [
            ("--brokers", self.kafka.bootstrap_servers().to_owned()),
            ("--topic", case.log.purchases()),
            ("--partitions", case.log.partitions.to_string()),
            ("--records", case.log.records.to_string()),
            ("--passes", passes.to_string()),
        ] {
            arguments.extend([name.to_owned(), value]);
        }
        if decode {
            arguments.push("--decode".to_owned());
        }
        let mut reader = Process::role("reader", &arguments)?;
        ensure!(reader.line()? == "first", "the reader is out of step");
        let begun = self.cpu(&reader)?;
        let done = reader.line()?;
        let mut words = done.split(' ').skip(1);
        let mut word = || words.next().context("the reader is out of step");
        let run = Run {
            seconds: word()?.parse()?,
            records: word()?.parse()?,
            peak_resident_kib: reader.peak_resident_kib()?,
            ..self.cpu(&reader)?.since(&begun)
        };
        reader.close_input();
        reader.ended()?;
        Ok(run)
    }

    fn deliver(&mut self, case: &Case) -> anyhow::Result<Run> {
        self.redis.empty()?;
        let records = u64::from(case.log.records);
        let expected = records * case.events_a_record();
        let receiving = self.runtime.block_on(Receiving::start(case.latency, expected))?;
        let is_told = matches!(case.worker, Worker::Told { .. });
        let collector = is_told.then(|| self.runtime.block_on(Collector::start())).transpose()?;
        let mut worker = self.start(case, &receiving.url(), collector.as_ref().map(Collector::url))?;
        let first = receiving.notice(&worker)?;
        let begun = self.cpu(&worker)?;
        let last = receiving.notice(&worker)?;
        let run = Run {
            records,
            // Events are counted as they arrive: the last answer is one latency later.
            seconds: (last.duration_since(first) + case.latency).as_secs_f64(),
            peak_resident_kib: worker.peak_resident_kib()?,
            ..self.cpu(&worker)?.since(&begun)
        };
        worker.stop()?;
        if let (Some(collector), Worker::Told { ratio, .. }) = (collector, case.worker) {
            collector.end(ratio == "1")?;
        }
        let requests = self.runtime.block_on(receiving.end())?;
        Ok(Run { requests, ..run })
    }

    fn start(&mut self, case: &Case, inngest: &str, collector: Option<String>) -> anyhow::Result<Process> {
        let surroundings = Surroundings {
            brokers: self.kafka.bootstrap_servers().to_owned(),
            redis: self.redis.url(),
            inngest: inngest.to_owned(),
            prefix: case.log.prefix.to_owned(),
            group: self.next_group(),
        };
        let real = |consumers, ratio| Real {
            consumers,
            lanes: LANES,
            window_secs: 300,
            push: collector.as_deref().zip(ratio),
        };
        match case.worker {
            Worker::Real { consumers } => real(consumers, None).start("worker", &surroundings),
            Worker::Told { consumers, ratio } => real(consumers, Some(ratio)).start("worker", &surroundings),
            Worker::Old => {
                let modules = self.node_modules.as_deref().context("the old worker's modules")?;
                workers::old(modules, &surroundings)
            }
            Worker::Memory | Worker::Consume { .. } | Worker::Decode { .. } => {
                let Surroundings {
                    brokers,
                    inngest,
                    prefix,
                    group,
                    ..
                } = &surroundings;
                let mut arguments = member_arguments(brokers, group, prefix, inngest, LANES);
                arguments.insert(0, "member".to_owned());
                Process::role("member", &arguments)
            }
        }
    }

    /// Counts in a binary of its own: counting would slow whatever is timed.
    fn allocations(&mut self) -> anyhow::Result<Allocations> {
        let binary = counting_binary()?;
        let redis = self.redis.url();
        Ok(Allocations {
            memory: self.count(&binary, None)?,
            redis: self.count(&binary, Some(&redis))?,
        })
    }

    fn count(&mut self, binary: &str, redis: Option<&str>) -> anyhow::Result<f64> {
        self.redis.empty()?;
        let records = u64::from(COUNTED.log.records);
        let receiving = self.runtime.block_on(Receiving::start(Duration::ZERO, records))?;
        let (brokers, group) = (self.kafka.bootstrap_servers().to_owned(), self.next_group());
        let mut command = Command::new(binary);
        command.args(member_arguments(
            &brokers,
            &group,
            COUNTED.log.prefix,
            &receiving.url(),
            LANES,
        ));
        command.args(redis.into_iter().flat_map(|url| ["--redis", url]));
        let mut counting = Process::start("allocations", command)?;
        receiving.notice(&counting)?;
        receiving.notice(&counting)?;
        counting.terminate()?;
        let counts = counting.line()?;
        counting.ended()?;
        self.runtime.block_on(receiving.end())?;
        let allocations: u64 = counts.split(' ').next().unwrap_or_default().parse()?;
        Ok(allocations as f64 / records as f64)
    }

    fn next_group(&mut self) -> String {
        self.groups += 1;
        format!("bench-{}", self.groups)
    }

    fn cpu(&self, worker: &Process) -> anyhow::Result<Cpu> {
        Ok(Cpu {
            worker: worker.cpu()?,
            redis: self.redis.process.cpu()?,
            servers: crate::rig::process::own_cpu()?,
        })
    }
}

impl Cpu {
    fn since(&self, begun: &Self) -> Run {
        Run {
            worker_cpu: self.worker.saturating_sub(begun.worker),
            redis_cpu: self.redis.saturating_sub(begun.redis),
            servers_cpu: self.servers.saturating_sub(begun.servers),
            ..Run::default()
        }
    }
}

/// The arguments that [`crate::member::Member`] reads.
fn member_arguments(brokers: &str, group: &str, prefix: &str, inngest: &str, lanes: u32) -> Vec<String> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/program.json");
    let lanes = lanes.to_string();
    let pairs = [
        ("--brokers", brokers),
        ("--group", group),
        ("--prefix", prefix),
        ("--inngest", inngest),
        ("--program-file", program),
        ("--lanes", &lanes),
    ];
    let pairs = pairs.into_iter().flat_map(|(name, value)| [name, value]);
    pairs.map(ToOwned::to_owned).collect()
}

/// Builds the other benchmark, if it is not built, and asks cargo where it is: nobody else knows.
fn counting_binary() -> anyhow::Result<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "bench",
        "--locked",
        "--no-run",
        "--bench",
        "allocations",
        "--message-format=json",
    ]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    let mut built = lines.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let ours = message["target"]["name"] == "allocations";
        ours.then(|| Some(message["executable"].as_str()?.to_owned())).flatten()
    });
    built.next_back().context("cargo does not say where the benchmark is")
}
