//! The Kafka source on librdkafka's mock cluster: the whole worker, with real joins, commits and rebalances.
//!
//! Each test has a cluster of its own. The mock takes three seconds for the first join of a group and up to ten to
//! let a second member in, so these tests wait more than they work.

mod answers;
mod backlog;
pub(crate) mod cluster;
mod commits;
pub(crate) mod consumer_sets;
mod dead_letters;
pub(crate) mod halts;
mod members;
mod preflight;
mod pressure;
mod process;
mod raw;
mod shutdown;
mod starts;
mod watched;
pub(crate) mod worker;
