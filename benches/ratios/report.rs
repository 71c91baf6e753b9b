//! What was measured, as tables in Markdown and as JSON: medians, and from where to where the rounds spread.
//!
//! A ratio is taken within a round, then its median over the rounds: what slowed one side of it slowed the other as well.

use std::fmt;
use std::time::Duration;

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use serde::Serialize;
use serde_json::{Value, json};

use super::cases::{Case, FAR, LANES};
use super::{Allocations, Run};

pub(crate) struct Report {
    rows: Vec<Row>,
    allocations: Option<Allocations>,
    /// Milliseconds.
    scrapes: Vec<f64>,
}

struct Row {
    case: Case,
    runs: Vec<Run>,
}

/// A median and its spread.
#[derive(Debug, Clone, Copy, Serialize)]
struct Figure {
    median: f64,
    min: f64,
    max: f64,
}

/// One line of the second table.
#[derive(Debug, Serialize)]
struct Ratio {
    figure: &'static str,
    measured: Option<Figure>,
    /// What is asked for first, and in the end.
    first: &'static str,
    goal: &'static str,
}

/// The most events of one request, which a lane has in flight.
const BATCH: f64 = 400.0;

/// The cases of the real worker with a receiver that answers at once.
const FULL_LOAD: [&str; 3] = ["one", "three", "one-wrapped"];

impl Figure {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self {
            median: f64::midpoint(lower, upper),
            min,
            max,
        })
    }

    fn text(self, digits: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
    }
}

impl Run {
    fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    /// Microseconds of CPU a record.
    fn micros(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.records as f64
    }

    fn peak_mib(&self) -> f64 {
        self.peak_resident_kib as f64 / 1024.0
    }
}

impl Row {
    fn figure(&self, of: impl Fn(&Run) -> f64) -> Option<Figure> {
        Figure::of(self.runs.iter().map(of))
    }
}

impl Report {
    pub(crate) fn new(cases: &[Case], allocations: Option<Allocations>, scrapes: Vec<f64>) -> Self {
        let row = |case: &Case| Row {
            case: *case,
            runs: Vec::new(),
        };
        Self {
            rows: cases.iter().map(row).collect(),
            allocations,
            scrapes,
        }
    }

    pub(crate) fn add(&mut self, case: &Case, run: Run) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.case.name == case.name) {
            row.runs.push(run);
        }
    }

    pub(crate) fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "case": row.case.name,
                "what": row.case.what,
                "records": row.case.log.records,
                "rounds": row.runs.len(),
                "records_per_second": row.figure(Run::rate),
                "worker_cpu_us_per_record": row.figure(|run| run.micros(run.worker_cpu)),
                "redis_cpu_us_per_record": row.figure(|run| run.micros(run.redis_cpu)),
                "broker_and_receiver_cpu_us_per_record": row.figure(|run| run.micros(run.servers_cpu)),
                "peak_resident_mib": row.figure(Run::peak_mib),
                "requests": row.figure(|run| run.requests as f64),
            })
        };
        json!({
            "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            "cases": self.rows.iter().map(row).collect::<Vec<_>>(),
            "ratios": self.ratios(),
            "allocations_per_record": self.allocations.map(|counts| json!({"memory": counts.memory, "redis": counts.redis})),
        })
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.case.name == name)
    }

    fn divide(&self, above: &str, below: &str) -> Option<Figure> {
        let (above, below) = (self.row(above)?, self.row(below)?);
        let pairs = above.runs.iter().zip(&below.runs);
        Figure::of(pairs.map(|(above, below)| above.rate() / below.rate()))
    }

    /// CPU of the worker a record.
    fn divide_cpu(&self, above: &str, below: &str) -> Option<Figure> {
        let (above, below) = (self.row(above)?, self.row(below)?);
        let pairs = above.runs.iter().zip(&below.runs);
        Figure::of(pairs.map(|(above, below)| above.micros(above.worker_cpu) / below.micros(below.worker_cpu)))
    }

    fn cpu(&self, name: &str) -> Option<Figure> {
        self.row(name)?.figure(|run| run.micros(run.worker_cpu))
    }

    /// That of the case that needs most. A median over several cases would be that of none.
    fn resident(&self) -> Option<Figure> {
        let cases = FULL_LOAD.map(|name| self.row(name)?.figure(Run::peak_mib));
        let figures: Option<Vec<Figure>> = cases.into_iter().collect();
        figures?
            .into_iter()
            .max_by(|one, other| one.median.total_cmp(&other.median))
    }

    fn ratios(&self) -> Vec<Ratio> {
        let ratio = |figure, measured, first, goal| Ratio {
            figure,
            measured,
            first,
            goal,
        };
        let formula = f64::from(LANES) * BATCH / FAR.as_secs_f64();
        let reached = self
            .row("one-200ms")
            .and_then(|row| row.figure(|run| run.rate() / formula));
        let exact = |value: f64| Figure::of(std::iter::once(value));
        let counts = self.allocations;
        vec![
            ratio(
                "one consumer / consume + decode",
                self.divide("one", "decode"),
                "0.15",
                "0.33",
            ),
            ratio(
                "three consumers / consume + decode",
                self.divide("three", "decode"),
                "0.06",
                "0.12",
            ),
            ratio("worker CPU a record, one consumer, us", self.cpu("one"), "-", "7"),
            ratio(
                "worker CPU a record, three consumers, us",
                self.cpu("three"),
                "25",
                "14",
            ),
            ratio(
                "allocations a record, Redis",
                counts.and_then(|counts| exact(counts.redis)),
                "-",
                "10",
            ),
            ratio(
                "allocations a record, memory",
                counts.and_then(|counts| exact(counts.memory)),
                "-",
                "-",
            ),
            ratio(
                "CPU: metrics and 1 % of traces pushed / nothing",
                self.divide_cpu("one-told", "one"),
                "-",
                "1.03",
            ),
            ratio(
                "CPU: all traces pushed / nothing",
                self.divide_cpu("one-traced", "one"),
                "-",
                "-",
            ),
            ratio(
                "a scrape, 5 consumers x 48 partitions, ms",
                Figure::of(self.scrapes.iter().copied()),
                "-",
                "20",
            ),
            ratio("one consumer / old worker", self.divide("one", "old"), "25", "50"),
            ratio("the same, 20 ms", self.divide("one-20ms", "old-20ms"), "150", "500"),
            ratio(
                "decode: {schema,payload} / bare",
                self.divide("decode-wrapped", "decode"),
                "0.28",
                "0.65",
            ),
            ratio(
                "worker: {schema,payload} / bare",
                self.divide("one-wrapped", "one"),
                "-",
                "-",
            ),
            ratio("share of batch x lanes / latency, 200 ms", reached, "0.6", "0.85"),
            ratio("peak resident memory at full load, MiB", self.resident(), "128", "64"),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            |figure: Option<Figure>, digits| figure.map_or_else(|| "-".to_owned(), |figure| figure.text(digits));
        let mut cases = Table::new();
        cases.load_preset(ASCII_MARKDOWN);
        cases.set_header([
            "case",
            "records/s",
            "worker us",
            "redis us",
            "servers us",
            "peak MiB",
            "events a request",
        ]);
        for row in &self.rows {
            let events = (u64::from(row.case.log.records) * row.case.events_a_record()) as f64;
            cases.add_row([
                row.case.what.to_owned(),
                shown(row.figure(Run::rate), 0),
                shown(row.figure(|run| run.micros(run.worker_cpu)), 1),
                shown(row.figure(|run| run.micros(run.redis_cpu)), 1),
                shown(row.figure(|run| run.micros(run.servers_cpu)), 1),
                shown(row.figure(Run::peak_mib), 0),
                shown(
                    row.figure(|run| run.requests as f64)
                        .filter(|requests| requests.median > 0.0)
                        .and(row.figure(|run| events / run.requests as f64)),
                    0,
                ),
            ]);
        }
        let mut ratios = Table::new();
        ratios.load_preset(ASCII_MARKDOWN);
        ratios.set_header(["figure", "measured", "first", "goal"]);
        for ratio in self.ratios() {
            let digits = match ratio.measured {
                Some(figure) if figure.median < 2.0 => 3,
                _ => 1,
            };
            ratios.add_row([
                ratio.figure.to_owned(),
                shown(ratio.measured, digits),
                ratio.first.to_owned(),
                ratio.goal.to_owned(),
            ]);
        }
        writeln!(f, "{cases}\n")?;
        write!(f, "{ratios}")
    }
}
