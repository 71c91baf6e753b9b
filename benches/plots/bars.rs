//! Horizontal bars with their parts, their values beside them.

use std::path::Path;

use anyhow::Context as _;
use plotters::coord::ranged1d::{AsRangedCoord, SegmentValue, ValueFormatter};
use plotters::prelude::*;

use super::sheet::{Area, COLOURS, sheet, short};
use crate::rig::figures::Figure;

/// A bar: where each of its parts ends, and from where to where the rounds spread.
pub(super) struct Bar<'a> {
    pub(super) name: &'a str,
    pub(super) ends: Vec<f64>,
    pub(super) spread: Option<Figure>,
    pub(super) said: String,
}

/// All of one drawing.
pub(super) struct Bars<'a> {
    pub(super) title: &'a str,
    pub(super) parts: &'a [&'a str],
    pub(super) bars: Vec<Bar<'a>>,
    pub(super) is_log: bool,
}

const ROW: u32 = 30;

pub(super) fn draw(path: &Path, drawing: &Bars<'_>, notes: &[String]) -> anyhow::Result<()> {
    let Bars {
        title,
        parts,
        bars,
        is_log,
    } = drawing;
    let rows = u32::try_from(bars.len()).context("bars")?;
    let (whole, root) = sheet(path, 90 + ROW * (rows + u32::from(!parts.is_empty())), notes)?;
    let most = bars
        .iter()
        .flat_map(|bar| &bar.ends)
        .fold(1.0_f64, |most, end| most.max(*end));
    if *is_log {
        on(&root, title, parts, bars, (10.0, (10.0..most * 20.0).log_scale()))?;
    } else {
        on(&root, title, parts, bars, (0.0, 0.0..most * 1.45))?;
    }
    whole.present()?;
    Ok(())
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
        .y_label_area_size(340)
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
