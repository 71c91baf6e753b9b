//! `make plots`: takes what `make bench` and `make curves` wrote, whichever is there, gives the drawings of docs/performance.md. It measures
//! nothing, and draws nothing that was measured in part.

mod bars;
mod points;
mod sheet;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use self::bars::{Bar, Bars};
use self::points::{Line, Panel};
use self::sheet::{sheet, short};
use crate::rig::figures::Figure;
use crate::rig::goals::reached;
use crate::rig::origin::Origin;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What `make bench` wrote.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/ratios.json"))]
    from: PathBuf,
    /// What `make curves` wrote.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/curves.json"))]
    curves: PathBuf,
    /// Where the drawings go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance"))]
    to: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Measured {
    origin: Origin,
    cases: Vec<Case>,
    ratios: Vec<Ratio>,
}

#[derive(Debug, Deserialize)]
struct Case {
    what: String,
    records_per_second: Figure,
    worker_cpu_us_per_record: Figure,
    redis_cpu_us_per_record: Figure,
    broker_and_receiver_cpu_us_per_record: Figure,
}

#[derive(Debug, Deserialize)]
struct Ratio {
    figure: String,
    measured: Option<Figure>,
    first: String,
    goal: String,
    less_is_better: bool,
}

/// What `make curves` wrote.
#[derive(Debug, Deserialize)]
struct Curves {
    origin: Origin,
    cases: Vec<Curve>,
    slopes: Vec<Slope>,
    latencies: Vec<Latency>,
}

#[derive(Debug, Deserialize)]
struct Curve {
    what: String,
    worker_cpu_us_per_record: Figure,
}

#[derive(Debug, Deserialize)]
struct Slope {
    what: String,
    step: String,
    points: Vec<Point>,
}

#[derive(Debug, Deserialize)]
struct Point {
    at: f64,
    worker_cpu_us_per_record: Figure,
    peak_resident_mib: Figure,
}

#[derive(Debug, Deserialize)]
struct Latency {
    consumers: String,
    load: String,
    p50_ms: Figure,
    p99_ms: Figure,
    p99_goal_ms: Option<f64>,
}

/// One figure of a point.
type Part = fn(&Point) -> Figure;

/// Everything that is drawn here; what was not measured this time does not stay from another time.
const DRAWINGS: [&str; 6] = [
    "throughput.svg",
    "cpu.svg",
    "goals.svg",
    "curves.svg",
    "latency.svg",
    "slopes.svg",
];
/// Others would be drawn so much longer that nothing could be seen of these.
const LONGEST_BAR_US: f64 = 100.0;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let (ratios, curves): (Option<Measured>, Option<Curves>) = (read(&options.from)?, read(&options.curves)?);
    ensure!(
        ratios.is_some() || curves.is_some(),
        "there is nothing to draw, neither {} nor {}: run `make bench` or `make curves` to its end first",
        options.from.display(),
        options.curves.display()
    );
    if let Some(measured) = &ratios {
        measured.origin.check(&options.from, "make bench")?;
    }
    if let Some(curves) = &curves {
        curves.origin.check(&options.curves, "make curves")?;
    }
    std::fs::create_dir_all(&options.to)?;
    let mut drawn = Vec::new();
    if let Some(measured) = ratios {
        drawn.extend(draw_ratios(&options.to, &measured)?);
    }
    if let Some(curves) = curves {
        drawn.extend(draw_curves(&options.to, &curves)?);
    }
    for stale in DRAWINGS.iter().filter(|name| !drawn.contains(name)) {
        let path = options.to.join(stale);
        if path.exists() {
            std::fs::remove_file(&path)?;
            println!("removed {}: it was not measured", path.display());
        }
    }
    println!("drawn in {}: {}", options.to.display(), drawn.join(", "));
    Ok(())
}

/// `None` if it was not measured.
fn read<T: DeserializeOwned>(from: &Path) -> anyhow::Result<Option<T>> {
    if !from.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(from)?;
    let measured = serde_json::from_str(&text);
    Ok(Some(measured.with_context(|| {
        format!("{}: not what is written today; measure again", from.display())
    })?))
}

fn draw_ratios(to: &Path, measured: &Measured) -> anyhow::Result<[&'static str; 3]> {
    let origin = measured.origin.to_string();
    let throughput = Bars {
        title: "records a second (logarithmic)",
        parts: &[],
        bars: throughput(measured),
        is_log: true,
    };
    bars::draw(&to.join("throughput.svg"), &throughput, std::slice::from_ref(&origin))?;
    let cpu = Bars {
        title: "microseconds of CPU a record",
        parts: &["worker", "Redis", "broker and receiver"],
        bars: cpu(measured),
        is_log: false,
    };
    let mut notes = vec![origin.clone()];
    notes.extend(too_long(measured));
    bars::draw(&to.join("cpu.svg"), &cpu, &notes)?;
    let goals = Bars {
        title: "how far each goal is reached: 1 is the goal, the dot what was asked for first",
        parts: &[],
        bars: goals(measured),
        is_log: false,
    };
    bars::draw(&to.join("goals.svg"), &goals, std::slice::from_ref(&origin))?;
    Ok(["throughput.svg", "cpu.svg", "goals.svg"])
}

fn draw_curves(to: &Path, curves: &Curves) -> anyhow::Result<[&'static str; 3]> {
    let origin = curves.origin.to_string();
    let bars = curves.cases.iter().map(|case| Bar {
        name: &case.what,
        ends: vec![case.worker_cpu_us_per_record.median],
        spread: Some(case.worker_cpu_us_per_record),
        said: format!("{:.1}", case.worker_cpu_us_per_record.median),
    });
    let cpu = Bars {
        title: "microseconds of the worker's CPU a record",
        parts: &[],
        bars: bars.collect(),
        is_log: false,
    };
    bars::draw(&to.join("curves.svg"), &cpu, std::slice::from_ref(&origin))?;
    draw_latencies(&to.join("latency.svg"), &curves.latencies, &origin)?;
    draw_slopes(&to.join("slopes.svg"), &curves.slopes, &origin)?;
    Ok(["curves.svg", "latency.svg", "slopes.svg"])
}

/// Each load is a place of the axis, in the order in which they were measured.
fn draw_latencies(path: &Path, latencies: &[Latency], origin: &str) -> anyhow::Result<()> {
    let mut loads: Vec<&str> = Vec::new();
    let mut lines: Vec<Line> = Vec::new();
    let mut goals = Vec::new();
    for took in latencies {
        let place = loads.iter().position(|load| *load == took.load).unwrap_or_else(|| {
            loads.push(&took.load);
            loads.len() - 1
        });
        let at = place as f64;
        goals.extend(took.p99_goal_ms.map(|goal| (at, goal)));
        let consumers = took.consumers.split(',').count();
        for (part, figure) in [("p50", took.p50_ms), ("p99", took.p99_ms)] {
            let name = format!("{consumers} consumer(s), {part}");
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push((at, figure)),
                None => lines.push(Line {
                    name,
                    points: vec![(at, figure)],
                }),
            }
        }
    }
    let label = |at: f64| {
        let named = loads
            .iter()
            .enumerate()
            .find(|(place, _)| (*place as f64 - at).abs() < 1e-6);
        named.map_or(String::new(), |(_, load)| (*load).to_owned())
    };
    let panel = Panel {
        title: "milliseconds from due to accepted, by load (a share of the maximum)".to_owned(),
        lines,
        goals,
        label: &label,
    };
    let (whole, area) = sheet(path, 380, &[origin.to_owned()])?;
    points::draw(&area, &panel)?;
    whole.present()?;
    Ok(())
}

/// What grows from row to row; its CPU on the left, its memory on the right.
fn draw_slopes(path: &Path, slopes: &[Slope], origin: &str) -> anyhow::Result<()> {
    let (whole, area) = sheet(path, 230 * u32::try_from(slopes.len())?, &[origin.to_owned()])?;
    let areas = area.split_evenly((slopes.len(), 2));
    for (slope, areas) in slopes.iter().zip(areas.chunks(2)) {
        let tenfold = |at: f64| short(&10_f64.powf(at).round());
        let plain = |at: f64| short(&at);
        let label: points::Label<'_> = if slope.step == "tenfold" { &tenfold } else { &plain };
        let parts: [(&str, Part); 2] = [
            ("us of CPU a record", |point| point.worker_cpu_us_per_record),
            ("MiB at the peak", |point| point.peak_resident_mib),
        ];
        for ((unit, of), area) in parts.iter().zip(areas) {
            let points = slope.points.iter().map(|point| (point.at, of(point)));
            let line = Line {
                name: (*unit).to_owned(),
                points: points.collect(),
            };
            let panel = Panel {
                title: format!("{}: {unit}", slope.what),
                lines: vec![line],
                goals: Vec::new(),
                label,
            };
            points::draw(area, &panel)?;
        }
    }
    whole.present()?;
    Ok(())
}

fn throughput(measured: &Measured) -> Vec<Bar<'_>> {
    let bars = measured.cases.iter().map(|case| {
        let spread = case.records_per_second;
        Bar {
            name: &case.what,
            ends: vec![spread.median],
            spread: Some(spread),
            said: format!("{:.0}", spread.median),
        }
    });
    bars.collect()
}

fn is_too_long(case: &&Case) -> bool {
    case.worker_cpu_us_per_record.median >= LONGEST_BAR_US
}

/// Names what is left out.
fn too_long(measured: &Measured) -> Option<String> {
    let left_out = measured.cases.iter().filter(is_too_long);
    let left_out = left_out.map(|case| format!("{} ({:.0})", case.what, case.worker_cpu_us_per_record.median));
    let left_out: Vec<String> = left_out.collect();
    (!left_out.is_empty()).then(|| format!("not drawn, because it would be too long: {}", left_out.join(", ")))
}

fn cpu(measured: &Measured) -> Vec<Bar<'_>> {
    let short = measured.cases.iter().filter(|case| !is_too_long(case));
    let bars = short.map(|case| {
        let parts = [
            case.worker_cpu_us_per_record,
            case.redis_cpu_us_per_record,
            case.broker_and_receiver_cpu_us_per_record,
        ];
        let ends = parts.iter().scan(0.0, |end, part| {
            *end += part.median;
            Some(*end)
        });
        let [worker, redis, servers] = parts.map(|part| part.median);
        Bar {
            name: &case.what,
            ends: ends.collect(),
            spread: None,
            said: format!("{worker:.1} + {redis:.1} + {servers:.1}"),
        }
    });
    bars.collect()
}

/// Of a goal that is outdone: what is beyond is only said.
const LONGEST_SHARE: f64 = 2.0;

/// As a share of the goal; where less is better, the other way round.
fn goals(measured: &Measured) -> Vec<Bar<'_>> {
    let bar = |ratio: &'_ Ratio| -> Option<(f64, Option<f64>, f64)> {
        let (measured, goal): (f64, f64) = (ratio.measured?.median, ratio.goal.parse().ok()?);
        let share = |value: f64| reached(value, goal, ratio.less_is_better);
        let first: Option<f64> = ratio.first.parse().ok();
        Some((share(measured), first.map(share), measured))
    };
    let bars = measured.ratios.iter().filter_map(|ratio| {
        let (share, first, value) = bar(ratio)?;
        let line = first.map(|first| Figure {
            median: first,
            min: first,
            max: first,
        });
        Some(Bar {
            name: &ratio.figure,
            // A scrape in a thirtieth of its time would leave nothing of the others.
            ends: vec![share.min(LONGEST_SHARE)],
            spread: line,
            said: format!("{share:.2} ({value:.2}, goal {})", ratio.goal),
        })
    });
    bars.collect()
}
