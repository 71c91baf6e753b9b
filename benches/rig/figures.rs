//! Medians, quantiles and slopes of numbers. Pure.

use serde::{Deserialize, Serialize};

/// A median, and from where to where the rounds spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Figure {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
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

    pub(crate) fn text(self, digits: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
    }
}

/// The value that this part of all values does not exceed, in per mille. `None` of nothing.
pub(crate) fn quantile(sorted: &[u32], per_mille: usize) -> Option<u32> {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied()
}

/// By how much `y` grows with each step of `x`, by least squares. `None` where all `x` are the same.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |part: fn(&(f64, f64)) -> f64| points.iter().map(part).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let across: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let along: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    (across > 0.0).then(|| along / across)
}

/// By which part of their mean points rise from the first to the last: along a line of this slope, or from one to the
/// other, whichever is further from nothing. `None` of nothing.
pub(crate) fn rise(points: &[(f64, f64)], slope: f64) -> Option<f64> {
    let (first, last) = points.first().zip(points.last())?;
    let mean = points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64;
    let (along, between) = (slope * (last.0 - first.0) / mean, (last.1 - first.1) / mean);
    Some(if along.abs() > between.abs() { along } else { between })
}
