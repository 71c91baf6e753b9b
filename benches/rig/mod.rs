//! What benchmark and soak run on: brokers and receiver in this process, Redis and workers in processes of their own.
//!
//! Takes nothing from outside but free ports; gives processes that end with whoever started them, and what `/proc` says
//! of them. It never uses the stack's servers, and never decides what a figure means.

pub(crate) mod brokers;
pub(crate) mod collector;
pub(crate) mod counter;
pub(crate) mod covered;
pub(crate) mod figures;
pub(crate) mod goals;
pub(crate) mod ids;
pub(crate) mod kafka;
pub(crate) mod origin;
pub(crate) mod peers;
pub(crate) mod process;
pub(crate) mod receiving;
pub(crate) mod records;
pub(crate) mod redis;
pub(crate) mod workers;

use std::path::PathBuf;
use std::time::Duration;

/// Longer than anything takes on a busy machine; reaching it means that something never came.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Where programs, logs and results are put.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench"))
}
