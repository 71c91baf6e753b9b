//! The pipeline on fakes, time paused: what goes out, and what is committed.

mod crashes;
mod delivery;
mod harness;
mod rebalance;
mod shutdown;
mod watched;
