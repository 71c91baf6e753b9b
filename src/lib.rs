//! Turns the row changes of a loyalty CRM into durable workflows.
//!
//! The modules below stand in the order a record passes them:
//! `fetch → decode → route → (per consumer: lane → decide → claim → deliver → confirm) → progress → commit`.
//! Read [`pipeline`] first, then [`consumers`]. `ARCHITECTURE.md` is the map.
//!
//! Pure rooms (`connectors` but for its client, `record`, `debezium`, `rows`, `loyalty`, `consumers`, `progress`, and the pure files of `dedupe`,
//! `inngest` and `dead_letters`) do no I/O and read no clock. They build alone with the feature `io` off.
#![forbid(unsafe_code)]

mod fields;
mod inert;
mod parts;
pub mod planted;
pub mod traceparent;

pub mod connectors;

pub mod record;

pub mod debezium;
pub mod rows;

pub mod loyalty;

pub mod consumers;

pub mod dead_letters;
pub mod dedupe;
pub mod inngest;
pub mod progress;

#[cfg(feature = "io")]
pub mod cli;
#[cfg(feature = "io")]
pub mod clock;
#[cfg(feature = "io")]
pub mod config;
#[cfg(feature = "io")]
pub mod console;
#[cfg(feature = "io")]
pub mod doctor;
#[cfg(feature = "io")]
pub mod faults;
#[cfg(feature = "io")]
pub mod kafka;
#[cfg(feature = "io")]
pub mod pipeline;
#[cfg(feature = "io")]
pub mod postgres;
#[cfg(feature = "io")]
pub mod reconcile;
#[cfg(feature = "io")]
pub mod shadow;
#[cfg(feature = "io")]
pub mod telemetry;
#[cfg(feature = "io")]
pub mod tls;
