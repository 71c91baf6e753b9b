//! The dedupe store in Redis (7.0 or newer, or Valkey).
//!
//! Takes claim keys, gives a claim for each in one pipeline. A key holds `lease:<owner>` for the lease, then `done` for the
//! window. It never skips and never waits for a foreign lease (the pipeline does), and never puts an address or a
//! password into a message.
//!
//! A write whose answer was lost may have been done. It is reported as unavailable: the caller asks again, and its own
//! lease is granted again. `tests/redis.rs` holds all of this against a real server.

mod connection;
mod failure;
mod packing;
mod policy;
pub mod survey;

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use redis::Value;

pub(crate) use self::connection::Connector;
use self::packing::{Commands, DONE};
use super::{Claim, ClaimKey, Dedupe, DedupeError};

pub use self::connection::RedisUrl;

/// Where the store is and how long it remembers.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    pub url: RedisUrl,
    /// How long a claim that nobody confirms keeps others away.
    pub lease: Duration,
    /// How long a delivered change is known as done.
    pub window: Duration,
    /// Names this start of this process. Random: after a restart our old leases must be foreign.
    pub owner: String,
    /// Above the slowest answer of a healthy server, below the lease.
    pub response_timeout: Duration,
}

/// Claims and confirms in Redis, over one connection that all lanes share.
#[derive(Debug)]
pub struct RedisDedupe {
    connector: Connector,
    commands: Commands,
    lease: Duration,
}

pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);
const DEFAULT_WINDOW: Duration = Duration::from_secs(300);
const DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bounds what one lane puts before the others on the shared connection, and Redis's output buffer.
const MAX_PIPELINE: usize = 500;

impl RedisSettings {
    #[must_use]
    pub fn new(url: RedisUrl, owner: String) -> Self {
        Self {
            url,
            lease: DEFAULT_LEASE,
            window: DEFAULT_WINDOW,
            owner,
            response_timeout: DEFAULT_RESPONSE_TIMEOUT,
        }
    }
}

impl RedisDedupe {
    /// Opens no connection yet: the first call does, and so does [`Self::connect`].
    ///
    /// # Errors
    /// An empty owner, or a lease or window of zero.
    pub fn new(settings: &RedisSettings) -> Result<Self, DedupeError> {
        if settings.owner.is_empty() {
            return Err(DedupeError::Configuration("the owner token is empty".to_owned()));
        }
        if settings.lease.as_millis() == 0 || settings.window.as_millis() == 0 {
            let problem = "lease and window must be at least a millisecond";
            return Err(DedupeError::Configuration(problem.to_owned()));
        }
        Ok(Self {
            connector: Connector::new(&settings.url, settings.response_timeout)?,
            commands: Commands::new(&settings.owner, settings.lease, settings.window),
            lease: settings.lease,
        })
    }

    /// Connects now, so that wrong settings are found at start-up.
    ///
    /// # Errors
    /// Refused credentials or a server that is too old (configuration), no server (unavailable).
    pub async fn connect(&self) -> Result<(), DedupeError> {
        self.connector.get().await.map(drop)
    }

    /// A warning for the operator if the server may evict keys when its memory is full: an evicted `done` is a repeat.
    ///
    /// # Errors
    /// As every call: the server cannot be asked.
    pub async fn policy_warning(&self) -> Result<Option<String>, DedupeError> {
        policy::warning(&self.connector).await
    }
}

impl Dedupe for RedisDedupe {
    fn claim<'a>(&'a self, keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<Vec<Claim>, DedupeError>> {
        async move {
            let mut claims = Vec::with_capacity(keys.len());
            for chunk in keys.chunks(MAX_PIPELINE) {
                let replies = self.connector.ask(&self.commands.claim(chunk)).await?;
                for reply in &replies {
                    claims.push(self.read_claim(reply)?);
                }
            }
            Ok(claims)
        }
        .boxed()
    }

    fn confirm<'a>(&'a self, keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<(), DedupeError>> {
        async move {
            for chunk in keys.chunks(MAX_PIPELINE) {
                for reply in self.connector.ask(&self.commands.confirm(chunk)).await? {
                    if reply != Value::Okay {
                        return Err(unexpected("confirm"));
                    }
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn lease(&self) -> Duration {
        self.lease
    }
}

impl RedisDedupe {
    /// What `SET NX GET` answers: nothing if the key was free, else what it holds.
    fn read_claim(&self, reply: &Value) -> Result<Claim, DedupeError> {
        match reply {
            Value::Nil => Ok(Claim::Granted),
            Value::BulkString(held) if held == DONE => Ok(Claim::Done),
            Value::BulkString(held) if held == self.commands.owner() => Ok(Claim::Granted),
            Value::BulkString(_) => Ok(Claim::Foreign),
            _ => Err(unexpected("claim")),
        }
    }
}

fn unexpected(what: &str) -> DedupeError {
    DedupeError::Unavailable(format!("an answer to {what} that Redis does not give"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(owner: &str) -> RedisSettings {
        RedisSettings::new(RedisUrl::parse("redis://localhost").expect("valid"), owner.to_owned())
    }

    #[test]
    fn an_owner_cannot_imitate_the_done_marker() {
        let dedupe = RedisDedupe::new(&settings("done")).expect("valid");
        let own = Value::BulkString(dedupe.commands.owner().to_vec());
        assert_eq!(dedupe.read_claim(&own), Ok(Claim::Granted));
        assert_eq!(dedupe.read_claim(&Value::BulkString(DONE.to_vec())), Ok(Claim::Done));
        let foreign = Value::BulkString(b"lease:other".to_vec());
        assert_eq!(dedupe.read_claim(&foreign), Ok(Claim::Foreign));
        assert_eq!(dedupe.read_claim(&Value::Nil), Ok(Claim::Granted));
        assert!(dedupe.read_claim(&Value::Int(1)).is_err());
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        assert!(RedisDedupe::new(&settings("")).is_err());
        let mut no_lease = settings("us");
        no_lease.lease = Duration::ZERO;
        assert!(RedisDedupe::new(&no_lease).is_err());
    }
}
