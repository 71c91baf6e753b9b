//! The last good rules in Redis: for a start while the database is away.
//!
//! Takes and gives the programs as they were written, and the cut-off, under a key of the database's own: a Redis may keep
//! those of several. It is a copy that may be lost: nothing waits for it,
//! and every failure is a text for the log.

use std::time::Duration;

use jiff::Timestamp;
use redis::{Pipeline, Value};
use serde_json::value::RawValue;

use super::DatabaseUrl;
use crate::dedupe::RedisUrl;
use crate::dedupe::redis::Connector;

/// Where the last good rules are kept.
#[derive(Debug)]
pub struct RulesCache {
    connector: Connector,
    key: String,
}

/// A program file with the cut-off beside it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Snapshot {
    pub(super) effective_from: Timestamp,
    /// What `program.schema.json` says of `programs`.
    pub(super) programs: Vec<Box<RawValue>>,
}

/// All programs of all merchants may be some megabytes.
const TIMEOUT: Duration = Duration::from_secs(5);

impl RulesCache {
    /// For the programs of this database. Opens no connection yet.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn new(url: &RedisUrl, database: &DatabaseUrl) -> Result<Self, String> {
        let connector = Connector::new(url, TIMEOUT).map_err(|error| error.to_string())?;
        let key = format!("crm:programs:{:016x}", database.fingerprint());
        Ok(Self { connector, key })
    }

    pub(super) async fn save(&self, snapshot: &Snapshot) -> Result<(), String> {
        let text = serde_json::to_string(snapshot).map_err(|error| error.to_string())?;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SET").arg(&self.key).arg(text);
        let asked = self.connector.ask(&pipeline).await;
        asked.map(drop).map_err(|error| error.to_string())
    }

    /// `None` if nothing was ever saved.
    pub(super) async fn load(&self) -> Result<Option<Snapshot>, String> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("GET").arg(&self.key);
        let asked = self.connector.ask(&pipeline).await;
        match asked.map_err(|error| error.to_string())?.first() {
            Some(Value::BulkString(bytes)) => {
                let read = serde_json::from_slice(bytes);
                // The parser's own words may quote the programs; its place is enough.
                read.map(Some).map_err(|error| {
                    let (line, column) = (error.line(), error.column());
                    format!("{} is damaged at line {line}, column {column}", self.key)
                })
            }
            Some(Value::Nil) | None => Ok(None),
            Some(_) => Err(format!("{} is no text", self.key)),
        }
    }
}
