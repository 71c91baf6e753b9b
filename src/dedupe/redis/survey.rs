//! A look at the dedupe store, for somebody who stands by: takes an address, gives what the server says of itself.
//!
//! It sets one key, for a second: only that shows that claims are taken. What the account may not ask is told as not known.

use std::time::Duration;

use redis::Pipeline;

use super::RedisUrl;
use super::connection::{Connector, info_field};
use super::policy::{ask, policy};
use crate::dedupe::DedupeError;

/// What was seen. What is `None` the server did not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub policy: Option<String>,
    pub used_bytes: Option<i64>,
    /// 0: without limit.
    pub limit_bytes: Option<i64>,
    /// Keys that were thrown away to make room.
    pub evicted: Option<i64>,
    pub keys: Option<i64>,
    pub may_write: Result<(), DedupeError>,
}

/// Of no change: those name a consumer first.
const PROBE: &str = "crm-event-processors:check";

/// # Errors
/// The server is away, refuses us, or is too old.
pub async fn survey(url: &RedisUrl, response_timeout: Duration) -> Result<Seen, DedupeError> {
    let connector = Connector::new(url, response_timeout)?;
    connector.get().await?;
    let memory = ask(&connector, &["INFO", "memory"]).await?;
    let stats = ask(&connector, &["INFO", "stats"]).await?;
    let number = |reply: &Option<redis::Value>, name: &str| info_field(reply.as_ref()?, name)?.parse().ok();
    let keys = match ask(&connector, &["DBSIZE"]).await? {
        Some(redis::Value::Int(keys)) => Some(keys),
        _ => None,
    };
    let mut probe = Pipeline::new();
    probe.cmd("SET").arg(&[PROBE, "1", "NX", "GET", "PX", "1000"]);
    Ok(Seen {
        policy: policy(&connector).await?,
        used_bytes: number(&memory, "used_memory"),
        limit_bytes: number(&memory, "maxmemory"),
        evicted: number(&stats, "evicted_keys"),
        keys,
        may_write: connector.ask(&probe).await.map(drop),
    })
}
