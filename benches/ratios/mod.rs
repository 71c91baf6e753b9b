//! The benchmark: every case in turn, round after round, so that what disturbs the machine disturbs all of them.
//!
//! Takes how many rounds; gives figures for each case, and ratios beside what is asked for. The clock of a case runs from the
//! first record to the last; for a worker, from the arrival of a tenth of the events to that of the last one, and only the
//! records between the two count. It judges nothing.

mod cases;
pub(crate) mod read;
mod report;
mod scrape;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use crm_event_processors::inngest::receiver::Stats;
use crm_event_processors::kafka::embedded::EmbeddedKafka;
use tokio::runtime::Runtime;

use crate::rig::collector::Collector;
use crate::rig::counter::Counter;
use crate::rig::goals::head;
use crate::rig::origin::{self, Origin};
use crate::rig::process::{Process, bound_to_us};
use crate::rig::receiving::Receiving;
use crate::rig::records::PROGRAM;
use crate::rig::redis::Redis;
use crate::rig::workers::{Real, Surroundings, built_with_benches};
use crate::rig::{brokers, folder};
use cases::{CASES, Case, LANES, LOGS, MEMORY, Worker};
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
    /// What `benches/install peers` has put there; without it, the cases of the peers are left out.
    #[arg(long)]
    peers: Option<PathBuf>,
    /// The worker to measure; without it, the one that cargo built with this.
    #[arg(long, default_value_os_t = built_with_benches())]
    worker: PathBuf,
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
    /// Those of the measured time.
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    /// CPU time of the worker, of Redis, and of brokers and receiver together.
    pub(crate) worker_cpu: Duration,
    pub(crate) redis_cpu: Duration,
    pub(crate) servers_cpu: Duration,
    pub(crate) peak_resident_kib: u64,
    /// Of the whole case, not only of the measured time; none where nothing is delivered.
    pub(crate) events: u64,
    pub(crate) requests: u64,
    /// Of all bodies.
    pub(crate) bytes: u64,
    /// Of the worker in the whole case, from a moment behind its start; none where nobody counts them.
    pub(crate) instructions: Option<u64>,
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
    worker: PathBuf,
    peers: Option<PathBuf>,
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
        named && (!matches!(case.worker, Worker::Peer(_)) || options.peers.is_some())
    };
    let known = |name: &String| CASES.iter().any(|case| case.name == name) || name == "allocations" || name == "scrape";
    let unknown: Vec<&String> = options.cases.iter().filter(|name| !known(name)).collect();
    ensure!(unknown.is_empty(), "no such case: {unknown:?}");
    let whole = options.cases.is_empty() && options.peers.is_some();
    let origin = Origin::look()?;
    let cases: Vec<Case> = CASES.into_iter().filter(wanted).collect();
    crm_event_processors::tls::install_provider();
    std::fs::create_dir_all(folder())?;
    std::fs::write(folder().join("program.json"), PROGRAM)?;
    let mut bench = Bench {
        runtime: Runtime::new()?,
        kafka: brokers::start(&LOGS)?,
        redis: Redis::start()?,
        worker: options.worker.clone(),
        peers: options.peers.clone(),
        groups: 0,
    };
    let counting = options.cases.is_empty() || options.cases.iter().any(|name| name == "allocations");
    for log in LOGS {
        if cases.iter().any(|case| case.log.prefix == log.prefix) || (counting && log.prefix == MEMORY.log.prefix) {
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
    let mut report = Report::new(origin, &cases, allocations, scrapes);
    let (mut file, mut json) = (folder(), String::new());
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
        let complete = whole && round == options.rounds;
        report.ended(round, complete);
        // After every round: an interrupted run is not lost.
        json = serde_json::to_string_pretty(&report.json())?;
        file = origin::keep(&folder(), "ratios", &json, complete)?;
    }
    match options.format {
        Format::Json => println!("{json}"),
        Format::Text => println!("{report}\n\nwritten to {}", file.display()),
    }
    Ok(())
}

impl Bench {
    fn case(&mut self, case: &Case) -> anyhow::Result<Run> {
        match case.worker {
            Worker::Consume { passes } => self.read(case, passes, false),
            Worker::Decode { passes } => self.read(case, passes, true),
            Worker::Memory | Worker::Real { .. } | Worker::Told { .. } | Worker::Peer(_) => self.deliver(case),
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
        let owed = case.owed();
        let events = owed.len() as u64;
        let (all, head) = (case.log.records, head(case.log.records));
        // So much of all consumers together: it is their work that is shared out, whoever is ahead.
        let arrived = events / u64::from(all) * u64::from(head);
        let receiving = Receiving::start(case.latency, owed, arrived);
        let receiving = self.runtime.block_on(receiving)?;
        let is_told = matches!(case.worker, Worker::Told { .. });
        let collector = is_told.then(|| self.runtime.block_on(Collector::start())).transpose()?;
        let mut worker = self.start(case, &receiving.url(), collector.as_ref().map(Collector::url))?;
        let counter = Counter::of(worker.pid());
        let warm = receiving.notice(&worker)?;
        let begun = self.cpu(&worker)?;
        let last = receiving.notice(&worker)?;
        let came = collector.as_ref().map(Collector::came);
        let run = Run {
            records: u64::from(all - head),
            events,
            // From arrival to arrival: the answers to both come one latency later.
            seconds: last.duration_since(warm).as_secs_f64(),
            peak_resident_kib: worker.peak_resident_kib()?,
            ..self.cpu(&worker)?.since(&begun)
        };
        worker.stop()?;
        let instructions = counter.and_then(Counter::counted);
        if let (Some(came), Worker::Told { ratio, .. }) = (came, case.worker) {
            came.check(ratio == "1")?;
        }
        if let Some(collector) = collector {
            collector.end();
        }
        let Stats { requests, bytes, .. } = self.runtime.block_on(receiving.end())?;
        Ok(Run {
            requests,
            bytes,
            instructions,
            ..run
        })
    }

    fn start(&mut self, case: &Case, inngest: &str, collector: Option<String>) -> anyhow::Result<Process> {
        let surroundings = Surroundings {
            worker: self.worker.clone(),
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
            Worker::Peer(peer) => {
                let installed = self.peers.as_deref().context("what the peers need")?;
                peer.start(installed, &surroundings)
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
        let records = u64::from(MEMORY.log.records);
        let head = u64::from(head(MEMORY.log.records));
        let receiving = Receiving::start(Duration::ZERO, MEMORY.owed(), head);
        let receiving = self.runtime.block_on(receiving)?;
        let (brokers, group) = (self.kafka.bootstrap_servers().to_owned(), self.next_group());
        let mut command = bound_to_us(binary);
        command.args(member_arguments(
            &brokers,
            &group,
            MEMORY.log.prefix,
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
    cargo.args(["bench", "--locked", "--no-run", "--bench", "allocations"]);
    cargo.arg("--message-format=json");
    // What cargo says to whom it runs, dependencies take for a change (ring's build script does): all would be built anew.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|of| name.to_string_lossy().starts_with(of))
        {
            cargo.env_remove(name);
        }
    }
    // By the profile that built this binary.
    if origin::profile(&std::env::current_exe()?) == Some("dist") {
        cargo.args(["--profile", "dist"]);
    }
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
