//! What operators see: one set of instruments, the status of the pipeline, logs, and the HTTP endpoints. And the watchdog,
//! for what nobody sees in time.
//!
//! Takes what happened, as calls of [`Telemetry`]; gives it as metrics to whoever scrapes and, by OTLP, to whoever is
//! configured, from the same instruments, and what ended lately to whoever looks. It never waits for the pipeline or the
//! client; of a row only its id ever comes here, of a payload or a secret nothing.

mod flow;
pub mod http;
mod lately;
pub mod logging;
mod metrics;
pub mod names;
mod observed;
mod otlp;
mod passes;
pub mod reach;
mod recent;
mod source;
mod status;
mod traces;
pub mod watchdog;

pub use flow::{Flow, State, flow};
pub use lately::Latency;
pub use metrics::{InFlight, Telemetry, TelemetryError};
pub use otlp::{Push, PushError, TracePush};
pub use recent::{Decided, LastError};
pub use status::{ConsumerStatus, Group, Halted, Status};
pub use traces::{BatchSpan, MAX_LINKS, Stage, StageSpan, Traces};
