//! The worker tells of itself. It reads no dead letters: that is a look at the brokers, and not for the process that works.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use super::Tells;
use crate::dead_letters::filed::{Filter, Place};
use crate::telemetry::Telemetry;
use crate::telemetry::http::status_json;

/// This process.
pub struct Worker {
    pub telemetry: Arc<Telemetry>,
    /// The settings as they are understood, secrets redacted.
    pub config: String,
}

const NO_LETTERS: &str = "a worker reads no dead letters; the command `console` does";

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Tells for Worker {
    fn data(&self) -> BoxFuture<'_, Result<Value, String>> {
        let mut told = status_json(&self.telemetry);
        told["config"] = self.config.clone().into();
        Box::pin(async { Ok(told) })
    }

    fn has_letters(&self) -> bool {
        false
    }

    fn letters(&self, _filter: Filter) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async { Err(NO_LETTERS.to_owned()) })
    }

    fn letter(&self, _place: Place) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async { Err(NO_LETTERS.to_owned()) })
    }
}
