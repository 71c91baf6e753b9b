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
use crate::rig::figures::Figure;
use crate::rig::goals::{REQUEST_EVENTS, fit, most_per_second};
use crate::rig::origin::Origin;

pub(crate) struct Report {
    origin: Origin,
    rows: Vec<Row>,
    allocations: Option<Allocations>,
    /// Milliseconds.
    scrapes: Vec<f64>,
}

struct Row {
    case: Case,
    runs: Vec<Run>,
}

/// One line of the second table.
#[derive(Debug, Serialize)]
struct Ratio {
    figure: &'static str,
    measured: Option<Figure>,
    /// What is asked for first, and in the end.
    first: &'static str,
    goal: &'static str,
    /// Of what is spent. Else more is better.
    less_is_better: bool,
}

/// The cases of the real worker with a receiver that answers at once.
const FULL_LOAD: [&str; 3] = ["one", "three", "one-wrapped"];

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
    pub(crate) fn new(origin: Origin, cases: &[Case], allocations: Option<Allocations>, scrapes: Vec<f64>) -> Self {
        let row = |case: &Case| Row {
            case: *case,
            runs: Vec::new(),
        };
        Self {
            origin,
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

    /// So many rounds are over.
    pub(crate) fn ended(&mut self, rounds: usize, complete: bool) {
        self.origin.rounds = rounds;
        self.origin.complete = complete;
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
                "worker_instructions": Figure::of(row.runs.iter().filter_map(|run| run.instructions).map(|count| count as f64)),
            })
        };
        json!({
            "origin": self.origin,
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

    /// Both do the same records.
    fn divide_instructions(&self, above: &str, below: &str) -> Option<Figure> {
        let (above, below) = (self.row(above)?, self.row(below)?);
        let pairs = above.runs.iter().zip(&below.runs);
        let counted = pairs.filter_map(|(above, below)| above.instructions.zip(below.instructions));
        Figure::of(counted.map(|(above, below)| above as f64 / below as f64))
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

    fn telemetry(&self) -> [Ratio; 4] {
        [
            cost(
                "instructions: metrics and 1 % of traces pushed / nothing",
                self.divide_instructions("one-told", "one"),
                "-",
                "1.03",
            ),
            cost(
                "instructions: all traces pushed / nothing",
                self.divide_instructions("one-traced", "one"),
                "-",
                "-",
            ),
            cost(
                "CPU: metrics and 1 % of traces pushed / nothing",
                self.divide_cpu("one-told", "one"),
                "-",
                "1.03",
            ),
            cost(
                "CPU: all traces pushed / nothing",
                self.divide_cpu("one-traced", "one"),
                "-",
                "-",
            ),
        ]
    }

    fn ratios(&self) -> Vec<Ratio> {
        // With full requests of the most events there may be, and with full ones of those that fit.
        let far = |events: fn(&Run) -> Option<f64>| {
            let share = |run: &Run| Some(run.rate() / most_per_second(LANES, events(run)?, FAR));
            Figure::of(self.row("one-200ms")?.runs.iter().filter_map(share))
        };
        let (of_most, of_fitting) = (far(|_| Some(REQUEST_EVENTS)), far(|run| fit(run.bytes, run.events)));
        let exact = |value: f64| Figure::of(std::iter::once(value));
        let counts = self.allocations;
        let mut ratios = vec![
            gain(
                "one consumer / consume + decode",
                self.divide("one", "decode"),
                "0.15",
                "0.33",
            ),
            gain(
                "three consumers / consume + decode",
                self.divide("three", "decode"),
                "0.06",
                "0.12",
            ),
            cost("worker CPU a record, one consumer, us", self.cpu("one"), "-", "7"),
            cost(
                "worker CPU a record, three consumers, us",
                self.cpu("three"),
                "25",
                "14",
            ),
            cost(
                "allocations a record, Redis",
                counts.and_then(|counts| exact(counts.redis)),
                "-",
                "10",
            ),
            cost(
                "allocations a record, memory",
                counts.and_then(|counts| exact(counts.memory)),
                "-",
                "-",
            ),
        ];
        ratios.extend(self.telemetry());
        ratios.extend([
            cost(
                "a scrape, 5 consumers x 48 partitions, ms",
                Figure::of(self.scrapes.iter().copied()),
                "-",
                "20",
            ),
            gain(
                "decode: {schema,payload} / bare",
                self.divide("decode-wrapped", "decode"),
                "0.28",
                "0.65",
            ),
            gain(
                "worker: {schema,payload} / bare",
                self.divide("one-wrapped", "one"),
                "-",
                "-",
            ),
            gain("share of batch x lanes / latency, 200 ms", of_most, "0.6", "0.85"),
            gain("the same, of the events that fit a request", of_fitting, "0.6", "0.85"),
            cost("peak resident memory at full load, MiB", self.resident(), "128", "64"),
        ]);
        ratios.extend(self.against_peers());
        ratios
    }

    fn against_peers(&self) -> [Ratio; 6] {
        let at_once = |figure, peer, first, goal| gain(figure, self.divide("one", peer), first, goal);
        let near = |figure, peer, first, goal| gain(figure, self.divide("one-20ms", peer), first, goal);
        [
            at_once("one consumer / old worker", "old", "25", "50"),
            near("one consumer / old worker, 20 ms", "old-20ms", "150", "500"),
            at_once("one consumer / tuned KafkaJS", "tuned", "-", "-"),
            near("one consumer / tuned KafkaJS, 20 ms", "tuned-20ms", "-", "-"),
            at_once("one consumer / Bento", "bento", "-", "5"),
            near("one consumer / Bento, 20 ms", "bento-20ms", "-", "-"),
        ]
    }
}

/// More is better.
const fn gain(figure: &'static str, measured: Option<Figure>, first: &'static str, goal: &'static str) -> Ratio {
    Ratio {
        figure,
        measured,
        first,
        goal,
        less_is_better: false,
    }
}

/// Less is better.
const fn cost(figure: &'static str, measured: Option<Figure>, first: &'static str, goal: &'static str) -> Ratio {
    Ratio {
        less_is_better: true,
        ..gain(figure, measured, first, goal)
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
                        .and(row.figure(|run| run.events as f64 / run.requests as f64)),
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
        writeln!(f, "{ratios}\n")?;
        write!(f, "{}", self.origin)
    }
}
