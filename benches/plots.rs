//! `make plots`: takes what `make bench` wrote, gives the drawings of docs/performance.md. It measures nothing.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, SegmentValue, ValueFormatter};
use plotters::prelude::*;
use serde::Deserialize;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What `make bench` wrote.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/ratios.json"))]
    from: PathBuf,
    /// Where the drawings go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance"))]
    to: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Measured {
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
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Figure {
    median: f64,
    min: f64,
    max: f64,
}

/// A bar: where each of its parts ends, and from where to where the rounds spread.
struct Bar<'a> {
    name: &'a str,
    ends: Vec<f64>,
    spread: Option<Figure>,
    said: String,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 900;
const ROW: u32 = 30;
const COLOURS: [RGBColor; 3] = [RGBColor(38, 99, 171), RGBColor(214, 126, 44), RGBColor(140, 140, 140)];

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let from = options.from.display();
    let text = std::fs::read_to_string(&options.from).with_context(|| format!("{from}: run `make bench` first"))?;
    let measured: Measured =
        serde_json::from_str(&text).with_context(|| format!("{from}: not what `make bench` writes"))?;
    std::fs::create_dir_all(&options.to)?;
    draw(
        &options.to.join("throughput.svg"),
        "records a second (logarithmic)",
        &[],
        &throughput(&measured),
        true,
    )?;
    let parts = ["worker", "Redis", "broker and receiver"];
    draw(
        &options.to.join("cpu.svg"),
        "microseconds of CPU a record",
        &parts,
        &cpu(&measured),
        false,
    )?;
    let title = "how far each goal is reached: 1 is the goal, the dot what was asked for first";
    draw(&options.to.join("goals.svg"), title, &[], &goals(&measured), false)?;
    println!("drawn in {}", options.to.display());
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

/// The old worker's bars would be a hundred times as long.
fn cpu(measured: &Measured) -> Vec<Bar<'_>> {
    let ours = measured
        .cases
        .iter()
        .filter(|case| case.worker_cpu_us_per_record.median < 100.0);
    let bars = ours.map(|case| {
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

/// As a share of the goal; where less is better, the other way round.
fn goals(measured: &Measured) -> Vec<Bar<'_>> {
    let bar = |ratio: &'_ Ratio| -> Option<(f64, Option<f64>, f64)> {
        let (measured, goal): (f64, f64) = (ratio.measured?.median, ratio.goal.parse().ok()?);
        let is_cost = ["CPU", "allocations", "memory"]
            .iter()
            .any(|word| ratio.figure.contains(word));
        let share = |value: f64| if is_cost { goal / value } else { value / goal };
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
            ends: vec![share],
            spread: line,
            said: format!("{share:.2} ({value:.2}, goal {})", ratio.goal),
        })
    });
    bars.collect()
}

fn draw(path: &Path, title: &str, parts: &[&str], bars: &[Bar<'_>], is_log: bool) -> anyhow::Result<()> {
    let rows = u32::try_from(bars.len()).context("bars")?;
    let size = (WIDTH, 90 + ROW * (rows + u32::from(!parts.is_empty())));
    let root = SVGBackend::new(path, size).into_drawing_area();
    // Also on a dark page.
    root.fill(&WHITE)?;
    let most = bars
        .iter()
        .flat_map(|bar| &bar.ends)
        .fold(1.0_f64, |most, end| most.max(*end));
    if is_log {
        on(&root, title, parts, bars, (10.0, (10.0..most * 20.0).log_scale()))?;
    } else {
        on(&root, title, parts, bars, (0.0, 0.0..most * 1.45))?;
    }
    root.present()?;
    Ok(())
}

fn short(value: &f64) -> String {
    match *value {
        value if value >= 1e6 => format!("{:.0} M", value / 1e6),
        value if value >= 1e3 => format!("{:.0} k", value / 1e3),
        value if value.fract().abs() < 1e-9 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

/// Horizontal bars, the first at the top.
fn on<X>(
    root: &Area<'_>,
    title: &str,
    parts: &[&str],
    bars: &[Bar<'_>],
    (begins, across): (f64, X),
) -> anyhow::Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let rows = i32::try_from(bars.len()).context("bars")?;
    let mut chart = ChartBuilder::on(root)
        .caption(title, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(26)
        .y_label_area_size(270)
        .build_cartesian_2d(across, (0..rows - 1).into_segmented())?;
    let name = |row: &SegmentValue<i32>| match row {
        SegmentValue::Exact(row) | SegmentValue::CenterOf(row) => usize::try_from(rows - 1 - row)
            .ok()
            .and_then(|row| bars.get(row))
            .map_or(String::new(), |bar| bar.name.to_owned()),
        SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len())
        .y_label_formatter(&name)
        .x_label_formatter(&short)
        .label_style(("sans-serif", 13))
        .draw()?;
    for (row, bar) in (0..rows).rev().zip(bars) {
        let mut from = begins;
        for (end, colour) in bar.ends.iter().zip(COLOURS) {
            let corners = [(from, SegmentValue::Exact(row)), (*end, SegmentValue::Exact(row + 1))];
            let mut part = Rectangle::new(corners, colour.filled());
            part.set_margin(5, 5, 0, 0);
            chart.draw_series([part])?;
            from = *end;
        }
        if let Some(spread) = bar.spread {
            let at = |value: f64| (value, SegmentValue::CenterOf(row));
            chart.draw_series([PathElement::new(
                vec![at(spread.min), at(spread.max)],
                BLACK.stroke_width(2),
            )])?;
            chart.draw_series([Circle::new(at(spread.median), 3, BLACK.filled())])?;
        }
        let furthest = bar.spread.map_or(0.0, |spread| spread.max).max(from);
        let place = (furthest, SegmentValue::CenterOf(row));
        let said = EmptyElement::at(place) + Text::new(bar.said.clone(), (8, -6), ("sans-serif", 13));
        chart.draw_series([said])?;
    }
    for (part, colour) in parts.iter().zip(COLOURS) {
        let square = move |(x, y): (i32, i32)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled());
        chart
            .draw_series(std::iter::empty::<Circle<(f64, SegmentValue<i32>), i32>>())?
            .label(*part)
            .legend(square);
    }
    if !parts.is_empty() {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .label_font(("sans-serif", 13))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    Ok(())
}
