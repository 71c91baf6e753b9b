//! What operators see: one set of instruments, the status of the pipeline, logs, and the HTTP endpoints. And the watchdog,
//! for what nobody sees in time.
//!
//! Takes what happened, as calls of [`Telemetry`]; gives it as metrics to whoever scrapes and, by OTLP, to whoever is
//! configured, from the same instruments. It never waits for the pipeline or the client, and no row value, payload or
//! secret ever comes here.

pub mod http;
pub mod logging;
mod metrics;
pub mod names;
mod observed;
mod otlp;
mod source;
mod status;
mod traces;
pub mod watchdog;

pub use metrics::{InFlight, Telemetry, TelemetryError};
pub use otlp::{Push, PushError, TracePush};
pub use status::{ConsumerStatus, Group, Halted, Status};
pub use traces::{BatchSpan, Stage, StageSpan, Traces};
