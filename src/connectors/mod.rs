//! The connector that feeds the worker: what it must be set to, what it is set to, and whether it runs.
//!
//! Takes the two templates of `connectors/`, or a configuration that somebody has, and what Kafka Connect or Confluent Cloud
//! answer; gives configurations, findings with their reasons, differences and states. Only `client` and what waits on it talk to
//! the outside. It prints nothing, and lets no secret into a message: a connector's configuration holds a password.

mod config;
mod diff;
mod health;
pub mod rules;
mod template;
mod words;

#[cfg(feature = "io")]
mod client;
#[cfg(feature = "io")]
mod waiting;

pub use config::{Config, ConfigError, MASK, is_secret};
pub use diff::{Diff, Difference};
pub use health::{Cause, Health, Part, State, Status};
pub use template::{Platform, SERVICE_ACCOUNT, database};
pub use words::presentable;

#[cfg(feature = "io")]
pub use client::{Access, CONFLUENT_CLOUD, Client, ConnectError, Validation};
#[cfg(feature = "io")]
pub use waiting::{End, wait};
