//! The shadow: takes what the pipeline decided, gives lines of JSON, and keeps everything else from happening.
//!
//! `run --shadow` is the pipeline with [`Decisions`] among its ports: what is decided is written down and nothing more is done
//! about it. Behind the other ports there is [`nowhere`]: nothing that could claim, deliver, evaluate, bury or mark. A
//! line is durable before its record is finished, so that a restart repeats lines and loses none. It never decides, and a
//! line never holds a column of a row: only ids, and what was made of them.

mod file;
mod line;
mod memory;
pub mod nowhere;

use futures::future::BoxFuture;

pub use file::{FileDecisions, OpenError};
pub use line::{Line, Said};
pub use memory::{Fault, MemoryDecisions};

/// Where decisions are written down.
pub trait Decisions: Send + Sync {
    /// Takes whole lines, each with its line feed. They are durable when it returns; after an error none of them counts, and
    /// all are given again.
    fn write<'a>(&'a self, lines: &'a [u8]) -> BoxFuture<'a, Result<(), WriteError>>;
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It is written again, without limit.
    #[error("decisions cannot be written: {0}")]
    Unavailable(String),
    /// Nobody reads any more: the process ends.
    #[error("nobody takes the decisions any more: {0}")]
    Gone(String),
}
