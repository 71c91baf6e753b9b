//! The one integration binary.
//!
//! `contract` holds the repository to what it says about itself; `demo`, `explain`, `connectors` and `hostile` run the real
//! binary;
//! `soak` and `chaos` hold the verdicts of `make soak` and `make chaos` to refusing what is broken, `ratios` what `make bench` and
//! `make plots` refuse, `curves` the arithmetic of `make curves` and the verdict of `make instructions`;
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

/// What comes may take as long as a busy machine needs: only what never comes fails a test by this.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(240);

mod chaos;
mod connectors;
mod contract;
mod curves;
mod demo;
mod explain;
mod hostile;
mod kafka;
mod pipeline;
mod postgres;
mod postgres_client;
mod ratios;
mod real;
mod redis;
mod sim;
mod soak;
mod telemetry;
