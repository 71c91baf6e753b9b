//! The pipeline on fakes, time paused: what goes out, and what is committed.

mod crashes;
mod delivery;
mod harness;
mod progress;
mod rebalance;
mod shutdown;
mod watched;
