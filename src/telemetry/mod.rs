//! What operators see: one set of instruments, the status of the pipeline, logs, and the HTTP endpoints.
//!
//! The instruments are OpenTelemetry's. They are scraped at `/metrics` today and can be pushed by OTLP from the same
//! set. Every metric name stands in [`metrics`]. No row value, payload or secret ever comes here.

pub mod http;
pub mod logging;
mod metrics;
mod status;

pub use metrics::{Telemetry, names};
pub use status::{ConsumerStatus, Status};
