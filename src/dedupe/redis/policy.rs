//! Start-up check: will this server throw our keys away when its memory is full?
//!
//! Takes a connection, gives a warning in words, or none. It never changes the server's settings.

use redis::{Pipeline, Value};

use super::connection::{Connector, info_field};
use crate::dedupe::DedupeError;

pub(super) async fn warning(connector: &Connector) -> Result<Option<String>, DedupeError> {
    Ok(judge(policy(connector).await?.as_deref()))
}

/// The `maxmemory-policy`, if the server tells it.
pub(super) async fn policy(connector: &Connector) -> Result<Option<String>, DedupeError> {
    let policy = match ask(connector, &["CONFIG", "GET", "maxmemory-policy"]).await? {
        Some(reply) => config_value(&reply),
        None => None,
    };
    // Managed services often deny CONFIG; INFO says the same.
    Ok(match policy {
        Some(policy) => Some(policy),
        None => ask(connector, &["INFO", "memory"])
            .await?
            .and_then(|reply| info_field(&reply, "maxmemory_policy").map(str::to_owned)),
    })
}

fn judge(policy: Option<&str>) -> Option<String> {
    match policy {
        Some("noeviction") => None,
        Some(policy) => Some(format!(
            "Redis may evict dedupe keys (maxmemory-policy {policy}): set noeviction, or give dedupe a Redis of its own"
        )),
        None => Some("Redis does not tell its maxmemory-policy: make sure that it is noeviction".to_owned()),
    }
}

/// One command; a refusal by the server is no answer, a broken connection is an error.
pub(super) async fn ask(connector: &Connector, command: &[&str]) -> Result<Option<Value>, DedupeError> {
    let mut pipeline = Pipeline::new();
    if let [name, arguments @ ..] = command {
        pipeline.cmd(name).arg(arguments);
    }
    let replies = connector.raw(&pipeline).await?;
    Ok(replies.ok().and_then(|replies| replies.into_iter().next()))
}

fn config_value(reply: &Value) -> Option<String> {
    match reply {
        Value::Array(pair) => match pair.as_slice() {
            [_, Value::BulkString(value)] => std::str::from_utf8(value).ok().map(str::to_owned),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_noeviction_is_safe() {
        assert_eq!(judge(Some("noeviction")), None);
        for policy in ["allkeys-lru", "volatile-ttl", "volatile-lru", "allkeys-random"] {
            assert!(judge(Some(policy)).is_some_and(|text| text.contains(policy)));
        }
        assert!(judge(None).is_some());
    }
}
