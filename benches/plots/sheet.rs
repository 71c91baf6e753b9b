//! The sheet that a drawing is on: a white one, with what has to be known of the figures below them.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 900;
const NOTE: i32 = 18;
pub(super) const COLOURS: [RGBColor; 4] = [
    RGBColor(38, 99, 171),
    RGBColor(214, 126, 44),
    RGBColor(140, 140, 140),
    RGBColor(62, 142, 88),
];

/// The whole sheet, which has to be presented, and the part of this height that is drawn on.
pub(super) fn sheet<'a>(path: &'a Path, height: u32, notes: &[String]) -> anyhow::Result<(Area<'a>, Area<'a>)> {
    let below = NOTE * i32::try_from(notes.len())? + 8;
    let whole = SVGBackend::new(path, (WIDTH, height + below.unsigned_abs())).into_drawing_area();
    // Also on a dark page.
    whole.fill(&WHITE)?;
    let (above, below) = whole.split_vertically(height);
    for (line, note) in (0..).zip(notes) {
        below.draw(&Text::new(note.as_str(), (12, line * NOTE), ("sans-serif", 12)))?;
    }
    Ok((whole, above))
}

/// A number of an axis.
pub(super) fn short(value: &f64) -> String {
    let (value, unit) = match *value {
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e3 => (value / 1e3, " k"),
        value => (value, ""),
    };
    if value.fract().abs() < 1e-9 {
        format!("{value:.0}{unit}")
    } else {
        format!("{value:.1}{unit}")
    }
}
