//! Panels of points joined by lines, each point with the spread of its rounds: what grows with what.

use plotters::prelude::*;

use super::sheet::{Area, COLOURS, short};
use crate::rig::figures::Figure;

pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, Figure)>,
}

/// What stands below a place of the axis.
pub(super) type Label<'a> = &'a dyn Fn(f64) -> String;

pub(super) struct Panel<'a> {
    pub(super) title: String,
    pub(super) lines: Vec<Line>,
    /// What is asked for, and where.
    pub(super) goals: Vec<(f64, f64)>,
    pub(super) label: Label<'a>,
}

/// How far from a point its goal is drawn, as a part of the axis.
const GOAL: f64 = 0.04;
const RED: RGBColor = RGBColor(190, 40, 40);

pub(super) fn draw(area: &Area<'_>, panel: &Panel<'_>) -> anyhow::Result<()> {
    let all = || panel.lines.iter().flat_map(|line| &line.points);
    let (first, last) = all().fold((f64::MAX, f64::MIN), |(first, last), (at, _)| {
        (first.min(*at), last.max(*at))
    });
    let highest = all()
        .map(|(_, figure)| figure.max)
        .chain(panel.goals.iter().map(|goal| goal.1));
    let highest = highest.fold(0.0, f64::max);
    let margin = (last - first) * 0.06;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 15))
        .margin(12)
        .x_label_area_size(26)
        .y_label_area_size(48)
        .build_cartesian_2d(first - margin..last + margin, 0.0..highest * 1.15)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|at| (panel.label)(*at))
        .y_label_formatter(&short)
        .label_style(("sans-serif", 12))
        .draw()?;
    for (line, colour) in panel.lines.iter().zip(COLOURS) {
        let path: Vec<(f64, f64)> = line.points.iter().map(|(at, figure)| (*at, figure.median)).collect();
        chart
            .draw_series([PathElement::new(path.clone(), colour.stroke_width(2))])?
            .label(line.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
        chart.draw_series(path.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
        let spreads = line
            .points
            .iter()
            .map(|(at, figure)| PathElement::new([(*at, figure.min), (*at, figure.max)], colour.stroke_width(1)));
        chart.draw_series(spreads)?;
    }
    let half = (last - first) * GOAL;
    let goals = panel
        .goals
        .iter()
        .map(|(at, goal)| PathElement::new([(at - half, *goal), (at + half, *goal)], RED.stroke_width(2)));
    let goals = chart.draw_series(goals)?;
    if !panel.goals.is_empty() {
        goals
            .label("goal of p99")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], RED.stroke_width(2)));
    }
    if panel.lines.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", 12))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    Ok(())
}
