//! What a scripted request meets.

use std::time::Duration;

use crate::faults::Gate;

/// One request's fate; a request that finds no fault is treated well.
#[derive(Debug)]
pub enum Fault {
    /// This status and error; nothing is accepted.
    Answer {
        status: u16,
        retry_after: Option<String>,
        error: String,
    },
    /// This body as it stands, with 200; nothing is accepted.
    Body(String),
    /// A redirect to somewhere else; nothing is accepted.
    Redirect { location: String },
    /// No answer for as long as the receiver runs; nothing is accepted.
    Hang,
    /// Stops before it accepts, until the gate is released.
    Hold(Gate),
    /// Takes that long before it accepts.
    Slow(Duration),
    /// Everything is accepted, then the connection is closed without an answer.
    AcceptThenDrop,
    /// The first `n` are accepted, then 400.
    AcceptPrefixThenReject { n: usize },
    /// Everything is accepted and answered with 200, but that many ids are missing.
    TooFewIds { missing: usize },
}

impl Fault {
    /// 429, with a `Retry-After` as it stands.
    #[must_use]
    pub fn too_many_requests(retry_after: Option<&str>) -> Self {
        Self::Answer {
            status: 429,
            retry_after: retry_after.map(str::to_owned),
            error: "rate limited".to_owned(),
        }
    }

    #[must_use]
    pub fn status(status: u16, error: &str) -> Self {
        Self::Answer {
            status,
            retry_after: None,
            error: error.to_owned(),
        }
    }
}
