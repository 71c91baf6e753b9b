//! Dedupe: has this change been delivered already?
//!
//! Takes claim keys, gives for each whether it is ours to deliver. Two phases make it crash-safe: a short lease before
//! the work, `done` for a window after the target accepted it. Lost keys cost a repeat, never a loss.
//! It never decides what happens to a record: the pipeline does.

mod key;
#[cfg(feature = "io")]
pub mod memory;
#[cfg(feature = "io")]
pub mod redis;

#[cfg(feature = "io")]
use futures::future::BoxFuture;

pub use key::{ClaimKey, escape};
#[cfg(feature = "io")]
pub use {
    memory::MemoryDedupe,
    redis::{RedisDedupe, RedisSettings, RedisUrl},
};

/// What the store said about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Ours: the key was free, or it holds our own lease (a retry of ours).
    Granted,
    /// Delivered and confirmed before. The only answer that means skip.
    Done,
    /// Another live process holds the lease. Wait for it at most one lease, then deliver all the same.
    Foreign,
}

/// Why the store could not answer. Nothing is known about the keys then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DedupeError {
    /// Down, out of memory, read-only, loading, busy: back off and ask again.
    #[error("dedupe store unavailable: {0}")]
    Unavailable(String),
    /// Credentials or permissions: an operator must act.
    #[error("dedupe store refuses us: {0}")]
    Configuration(String),
}

/// The dedupe store. Each call is one round trip for the whole batch.
#[cfg(feature = "io")]
pub trait Dedupe: Send + Sync {
    /// Takes a lease on every key that is free. Answers in the order of the keys.
    fn claim<'a>(&'a self, keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<Vec<Claim>, DedupeError>>;

    /// Marks every key done for the window, whoever holds it: it records a fact.
    fn confirm<'a>(&'a self, keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<(), DedupeError>>;

    /// How long a lease lives: the longest a foreign one is waited for.
    fn lease(&self) -> std::time::Duration;
}
