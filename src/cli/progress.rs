//! What a person sees of a long command: on a terminal alone, on standard error, and never beside JSON.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Format;

/// Of so many.
pub(super) fn bar(length: u64, format: Format, what: &'static str) -> ProgressBar {
    let template = "{msg:>16} {wide_bar} {human_pos}/{human_len} {per_sec} {elapsed}";
    shown(
        ProgressBar::with_draw_target(Some(length), target(format)),
        template,
        what,
    )
}

/// Of a number that nobody knows before the end. It turns by itself, so that a statement that takes long does not look hung.
pub(super) fn counter(format: Format, what: &'static str) -> ProgressBar {
    let counter = ProgressBar::with_draw_target(None, target(format));
    let counter = shown(counter, "{spinner} {msg} {human_pos} {per_sec} {elapsed}", what);
    turning(counter)
}

/// Of steps that cannot be counted.
pub(super) fn spinner(format: Format, what: &'static str) -> ProgressBar {
    let spinner = ProgressBar::with_draw_target(None, target(format));
    turning(shown(spinner, "{spinner} {msg} {elapsed}", what))
}

fn target(format: Format) -> ProgressDrawTarget {
    if format == Format::Json || !std::io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    }
}

fn shown(bar: ProgressBar, template: &str, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_invalid| ProgressStyle::default_bar()));
    bar.set_message(what);
    bar
}

/// Only where somebody looks: it takes a thread.
fn turning(bar: ProgressBar) -> ProgressBar {
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}
