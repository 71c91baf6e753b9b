//! Stage 6, deliver: takes events, gives what Inngest said about them.
//!
//! The shapes of the events are pure and live in [`event`], what they were based on in [`Basis`]; so do [`batch`] (what fits into one request) and [`answer`]
//! (what a reply means). The HTTP client knows the event API's documented answers and its limits; [`receiver`] imitates
//! that API for tests, demo and benchmarks. It never retries and never decides what an answer means for a record: the
//! pipeline does.

pub mod answer;
mod basis;
pub mod batch;
#[cfg(feature = "io")]
pub mod client;
pub mod event;
mod json;
#[cfg(feature = "io")]
pub mod memory;
#[cfg(feature = "io")]
pub mod receiver;
#[cfg(feature = "io")]
pub mod recorded;
#[cfg(test)]
mod samples;

#[cfg(feature = "io")]
use futures::future::BoxFuture;

pub use basis::Basis;
pub use batch::{EventBatch, Limits, Split};
#[cfg(feature = "io")]
pub use client::{Endpoint, HttpDeliver, HttpSettings, Reached};
pub use event::{
    Award, Event, EventData, MissionEvaluation, MissionShare, Redemption, Reward, RewardSource, RowRef, Side,
    TierEvaluation, Trigger,
};
#[cfg(feature = "io")]
pub use memory::MemoryDeliver;

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200 with one id for every event.
    Accepted,
    /// 400, 406, 409, 412, 413: wrong for *some* event; earlier ones of the request may have been accepted.
    Rejected { status: u16, detail: String },
    /// 401, 403, 404: the key or the environment is wrong. An operator must act; nothing is wrong with the events.
    Refused { status: u16, detail: String },
    /// 429, 5xx, timeout, lost connection, 200 with a bad body or too few ids: the same ids again later.
    Unavailable {
        detail: String,
        retry_after: Option<std::time::Duration>,
    },
    /// Any other answer.
    Unknown { status: u16, detail: String },
}

/// Where events go.
#[cfg(feature = "io")]
pub trait Deliver: Send + Sync {
    /// Returns when one more request may be sent. Whoever sends waits for it first, and takes no time before: a wait for our
    /// own rate is no answer that takes long.
    fn permit(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// One request, one answer. `events` is never empty and within [`Deliver::limits`].
    fn send<'a>(&'a self, batch: &'a EventBatch, events: std::ops::Range<usize>) -> BoxFuture<'a, Answer>;

    /// How much one request may carry.
    fn limits(&self) -> Limits;
}

impl Answer {
    pub const LABELS: [&'static str; 5] = ["accepted", "rejected", "refused", "unavailable", "unknown"];

    /// The answer's metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected { .. } => "rejected",
            Self::Refused { .. } => "refused",
            Self::Unavailable { .. } => "unavailable",
            Self::Unknown { .. } => "unknown",
        }
    }
}
