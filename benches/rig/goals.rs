//! What a figure is held against: how much fits a request, what lanes can deliver, how far a goal is reached. Pure.

use std::time::Duration;

/// What a request may hold at most, as the worker's own limits are by default.
pub(crate) const REQUEST_EVENTS: f64 = 400.0;
const REQUEST_BYTES: f64 = 204_800.0;

/// How many events of this mean size a request may hold. `None` of nothing.
pub(crate) fn fit(bytes: u64, events: u64) -> Option<f64> {
    (bytes > 0 && events > 0).then(|| (REQUEST_BYTES * events as f64 / bytes as f64).min(REQUEST_EVENTS))
}

/// Events a second, if every lane always has one request of so many events under way.
pub(crate) fn most_per_second(lanes: u32, events: f64, latency: Duration) -> f64 {
    f64::from(lanes) * events / latency.as_secs_f64()
}

/// 1 is the goal, and more is better than that, whichever way the figure itself goes.
pub(crate) fn reached(value: f64, goal: f64, less_is_better: bool) -> f64 {
    if less_is_better { goal / value } else { value / goal }
}

/// A tenth of what there is: by then whoever works is warm, and its pipeline as full as it stays.
pub(crate) const fn head(records: u32) -> u32 {
    let tenth = records / 10;
    if tenth == 0 { 1 } else { tenth }
}
