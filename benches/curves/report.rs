//! What was measured, as tables in Markdown and as JSON: medians over the rounds, and their spread.

use std::fmt;

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

use super::Run;
use super::cases::{Behind, Case, FIVE, GROWTHS, Growth, ONE};
use super::ends::Ends;
use super::latency::{HALF, LONE, Latency};
use crate::rig::figures::{Figure, rise, slope};
use crate::rig::origin::Origin;

/// What rises by less than this part of the mean is called flat.
const FLAT: f64 = 0.1;

pub(crate) struct Report {
    origin: Origin,
    rows: Vec<(Case, Vec<Run>)>,
    latencies: Vec<Latency>,
    ends: Vec<Ends>,
}

/// All of it, as `make plots` reads it.
#[derive(Debug, Serialize)]
pub(crate) struct Curves {
    origin: Origin,
    cases: Vec<Read>,
    slopes: Vec<Slope>,
    latencies: Vec<Took>,
    ends: Vec<End>,
}

#[derive(Debug, Serialize)]
struct Read {
    case: &'static str,
    what: String,
    brokers: &'static str,
    rounds: usize,
    records: u32,
    partitions: i32,
    members: u32,
    records_per_second: Option<Figure>,
    worker_cpu_us_per_record: Option<Figure>,
    redis_cpu_us_per_record: Option<Figure>,
    peak_resident_mib: Option<Figure>,
}

#[derive(Debug, Serialize)]
struct Slope {
    what: &'static str,
    step: &'static str,
    points: Vec<Point>,
    us_per_step: Figure,
    /// From the first point to the last, as a part of the mean.
    rise: f64,
    flat: bool,
    goal: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Point {
    at: f64,
    worker_cpu_us_per_record: Figure,
    peak_resident_mib: Figure,
}

#[derive(Debug, Serialize)]
struct Took {
    consumers: &'static str,
    load: String,
    records_per_second: Option<Figure>,
    p50_ms: Option<Figure>,
    p99_ms: Option<Figure>,
    p99_goal_ms: Option<f64>,
    most_ms: Option<Figure>,
    writer_late_p99_ms: Option<Figure>,
}

#[derive(Debug, Serialize)]
struct End {
    what: &'static str,
    ms: Option<Figure>,
}

impl Run {
    fn rate(&self) -> f64 {
        f64::from(self.records) / self.seconds
    }

    /// Of the worker, a record.
    fn worker_us(&self) -> f64 {
        self.worker_cpu.as_secs_f64() * 1e6 / f64::from(self.records)
    }

    fn redis_us(&self) -> f64 {
        self.redis_cpu.as_secs_f64() * 1e6 / f64::from(self.records)
    }

    fn peak_mib(&self) -> f64 {
        self.peak_resident_kib as f64 / 1024.0
    }
}

impl Slope {
    /// The CPU a record at its first point and at its last.
    fn ends(&self) -> String {
        let ends = self.points.first().zip(self.points.last());
        let median = |point: &Point| point.worker_cpu_us_per_record.median;
        ends.map_or(String::new(), |(from, to)| {
            format!("{:.1}, {:.1}", median(from), median(to))
        })
    }
}

/// What is asked for of a load.
fn goal_ms(load: &str) -> Option<f64> {
    match load {
        LONE => Some(25.0),
        HALF => Some(50.0),
        _ => None,
    }
}

impl Report {
    pub(crate) fn new(origin: Origin, cases: &[Case]) -> Self {
        Self {
            origin,
            rows: cases.iter().map(|case| (*case, Vec::new())).collect(),
            latencies: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// So many rounds are over.
    pub(crate) fn round(&mut self, rounds: usize, complete: bool) {
        self.origin.rounds = rounds;
        self.origin.complete = complete;
    }

    pub(crate) fn read(&mut self, case: &Case, run: Run) {
        if let Some((_, runs)) = self.rows.iter_mut().find(|(known, _)| known.name == case.name) {
            runs.push(run);
        }
    }

    pub(crate) fn took(&mut self, latency: Latency) {
        self.latencies.push(latency);
    }

    pub(crate) fn ended(&mut self, ends: Ends) {
        self.ends.push(ends);
    }

    pub(crate) fn curves(&self) -> Curves {
        Curves {
            origin: self.origin.clone(),
            cases: self.rows.iter().map(|(case, runs)| read(case, runs)).collect(),
            slopes: GROWTHS.iter().filter_map(|growth| self.slope(growth)).collect(),
            latencies: self.latencies(),
            ends: self.ends(),
        }
    }

    /// Taken within each round: what slowed one point of it slowed the others as well.
    fn slope(&self, growth: &Growth) -> Option<Slope> {
        let rows: Option<Vec<&(Case, Vec<Run>)>> = growth
            .cases
            .iter()
            .map(|name| self.rows.iter().find(|(case, _)| case.name == *name))
            .collect();
        let rows = rows?;
        let rounds = rows.iter().map(|(_, runs)| runs.len()).min()?;
        let of_round = |round: usize| {
            let points = rows.iter().filter_map(|(case, runs)| {
                let run = runs.get(round)?;
                Some(((growth.measure)(case), run.worker_us()))
            });
            slope(&points.collect::<Vec<_>>())
        };
        let us_per_step = Figure::of((0..rounds).filter_map(of_round))?;
        let points: Option<Vec<Point>> = rows
            .iter()
            .map(|(case, runs)| {
                Some(Point {
                    at: (growth.measure)(case),
                    worker_cpu_us_per_record: Figure::of(runs.iter().map(Run::worker_us))?,
                    peak_resident_mib: Figure::of(runs.iter().map(Run::peak_mib))?,
                })
            })
            .collect();
        let points = points?;
        let medians = points
            .iter()
            .map(|point| (point.at, point.worker_cpu_us_per_record.median));
        let rise = rise(&medians.collect::<Vec<_>>(), us_per_step.median)?;
        Some(Slope {
            what: growth.what,
            step: growth.step,
            points,
            us_per_step,
            rise,
            flat: rise.abs() < FLAT,
            goal: growth.shall_be_flat.then_some("flat"),
        })
    }

    fn latencies(&self) -> Vec<Took> {
        let mut loads: Vec<(&'static str, &str)> = Vec::new();
        for latency in &self.latencies {
            if !loads.contains(&(latency.consumers, &latency.load)) {
                loads.push((latency.consumers, &latency.load));
            }
        }
        let took = |(consumers, load): (&'static str, &str)| {
            let of = |part: fn(&Latency) -> f64| {
                let same = |found: &&Latency| found.consumers == consumers && found.load == load;
                Figure::of(self.latencies.iter().filter(same).map(part))
            };
            Took {
                consumers,
                load: load.to_owned(),
                records_per_second: of(|found| found.rate).filter(|rate| rate.median > 0.0),
                p50_ms: of(|found| found.p50),
                p99_ms: of(|found| found.p99),
                p99_goal_ms: goal_ms(load),
                most_ms: of(|found| found.most),
                writer_late_p99_ms: of(|found| found.late),
            }
        };
        loads.into_iter().map(took).collect()
    }

    fn ends(&self) -> Vec<End> {
        if self.ends.is_empty() {
            return Vec::new();
        }
        let end = |what, part: fn(&Ends) -> f64| End {
            what,
            ms: Figure::of(self.ends.iter().map(part)),
        };
        vec![
            end("start to the first event, a log waiting", Ends::started),
            end("of it: until it asks to join", |ends| ends.asked),
            end("of it: until it has its partitions", |ends| ends.joined),
            end("of it: until the first event is accepted", |ends| ends.first),
            end("SIGTERM under load to the end", |ends| ends.drained),
        ]
    }
}

fn read(case: &Case, runs: &[Run]) -> Read {
    let of = |part: fn(&Run) -> f64| Figure::of(runs.iter().map(part));
    Read {
        case: case.name,
        what: what(case),
        brokers: match case.ledger.behind {
            Behind::Mock => "mock",
            Behind::Kafka => "Kafka",
        },
        rounds: runs.len(),
        records: case.ledger.log.records,
        partitions: case.ledger.log.partitions,
        members: case.members(),
        records_per_second: of(Run::rate),
        worker_cpu_us_per_record: of(Run::worker_us),
        redis_cpu_us_per_record: of(Run::redis_us),
        peak_resident_mib: of(Run::peak_mib),
    }
}

/// For people.
fn what(case: &Case) -> String {
    let consumers = consumers(case.consumers);
    let kb = case.ledger.shape.bytes / 1024;
    let wrapped = if case.ledger.log.wrapped {
        ", {schema,payload}"
    } else {
        ""
    };
    let members = match case.ledger.shape.members {
        0 => String::new(),
        members => format!(", {members} members"),
    };
    let partitions = match case.ledger.behind {
        Behind::Mock => String::new(),
        Behind::Kafka => format!(", Kafka, {} partitions", case.ledger.log.partitions),
    };
    format!("{consumers}, {kb} KB{wrapped}{members}{partitions}")
}

fn consumers(names: &str) -> &'static str {
    match names {
        ONE => "one",
        FIVE => "five",
        _ => "three",
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN);
    table.set_header(header);
    table
}

fn shown(figure: Option<Figure>, digits: usize) -> String {
    figure.map_or("-".to_owned(), |figure| figure.text(digits))
}

fn latency_table(latencies: &[Took]) -> Table {
    let mut table = table([
        "consumers, load",
        "records/s",
        "p50 ms",
        "p99 ms",
        "goal",
        "most ms",
        "writer late ms",
    ]);
    for took in latencies {
        table.add_row([
            format!("{}, {}", consumers(took.consumers), took.load),
            shown(took.records_per_second, 0),
            shown(took.p50_ms, 1),
            shown(took.p99_ms, 1),
            took.p99_goal_ms.map_or("-".to_owned(), |goal| format!("{goal}")),
            shown(took.most_ms, 1),
            shown(took.writer_late_p99_ms, 1),
        ]);
    }
    table
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Curves {
            origin,
            cases,
            slopes,
            latencies,
            ends,
        } = self.curves();
        if !cases.is_empty() {
            let mut table = table(["consumers, rows", "records/s", "worker us", "redis us", "peak MiB"]);
            for case in cases {
                table.add_row([
                    case.what,
                    shown(case.records_per_second, 0),
                    shown(case.worker_cpu_us_per_record, 1),
                    shown(case.redis_cpu_us_per_record, 1),
                    shown(case.peak_resident_mib, 0),
                ]);
            }
            writeln!(f, "{table}\n")?;
        }
        if !slopes.is_empty() {
            let header = [
                "worker CPU a record as it grows",
                "us a step",
                "from, to",
                "rise",
                "",
                "goal",
            ];
            let mut table = table(header);
            for slope in slopes {
                table.add_row([
                    slope.what.to_owned(),
                    format!("{} a {}", slope.us_per_step.text(3), slope.step),
                    slope.ends(),
                    format!("{:+.0} %", slope.rise * 100.0),
                    if slope.flat { "flat" } else { "" }.to_owned(),
                    slope.goal.unwrap_or("-").to_owned(),
                ]);
            }
            writeln!(f, "{table}\n")?;
        }
        if !latencies.is_empty() {
            writeln!(f, "{}\n", latency_table(&latencies))?;
        }
        if !ends.is_empty() {
            let mut table = table(["start and end", "ms"]);
            for end in ends {
                table.add_row([end.what.to_owned(), shown(end.ms, 0)]);
            }
            writeln!(f, "{table}\n")?;
        }
        write!(f, "{origin}")
    }
}
