//! The one integration binary.
//!
//! `contract` holds the repository to what it says about itself; `demo`, `explain`, `connectors` and `hostile` run the real
//! binary;
//! `soak` and `chaos` hold the verdicts of `make soak` and `make chaos` to refusing what is broken;
//! `sim` simulates schedules from seeds;
//! `pipeline` runs the whole way on fakes with paused time; `telemetry` is about what operators see; `kafka` on librdkafka's mock
//! cluster; `postgres`, `postgres_client`, `redis` and `real` on real servers, which `make stack-up` starts. A server that is
//! missing fails its tests; nothing is skipped.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::clone_on_ref_ptr,
    reason = "tests fail by panicking, print figures, and share fakes that coerce to ports"
)]

mod chaos;
mod connectors;
mod contract;
mod demo;
mod explain;
mod hostile;
mod kafka;
mod pipeline;
mod postgres;
mod postgres_client;
mod real;
mod redis;
mod sim;
mod soak;
mod telemetry;
