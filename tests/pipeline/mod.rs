//! The pipeline on fakes, time paused: what goes out, and what is committed.

mod crashes;
mod cut_off;
mod delivery;
mod halts;
mod harness;
mod ledger;
mod poison;
mod pressure;
mod progress;
mod rebalance;
mod replay;
mod shadow;
mod shutdown;
mod traced;
mod watched;
