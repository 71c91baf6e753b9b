//! The program rules of a merchant: what a purchase earns, when it is due, what tiers and missions look at.
//!
//! Takes a program file and the facts of a row, gives exact points and due times, or a [`Refusal`](crate::consumers::Refusal).
//! It never does I/O, never reads a clock, never turns a number into a float, and never guesses: what does not fit is refused.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::float_arithmetic
)]

mod activation;
mod document;
mod period;
mod points;
mod program;
mod program_file;
#[cfg(test)]
mod program_tests;

pub use activation::{Activation, DueAt, due_at};
pub use document::{Problem, ProgramErrors};
pub use period::Period;
pub use points::{Points, Rounding, points_for, remaining};
pub use program::{
    CurrencyRule, Lookup, Metric, Mission, Program, Programs, RefundPolicy, Tier, TierRule, Timing, Trigger, Version,
    Window,
};

/// The program file of the demo: every kind of activation over a few named merchants, and a default for all others.
pub const DEMO_PROGRAM: &str = include_str!("demo_program.json");
