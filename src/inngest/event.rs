//! The events promised to the workflows, each with a JSON Schema in `schemas/inngest/`. Pure.

use crate::dedupe::ClaimKey;

/// One event as the event API takes it: `{"id", "name", "ts", "v", "data"}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: ClaimKey,
    /// Commit time, ms; the client clamps it to now when it sends.
    pub ts_ms: i64,
    pub data: EventData,
}

/// Placeholder, filled in with the events of the three consumers.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum EventData {
    Nothing,
}

impl Event {
    /// Placeholder until the real events land.
    pub fn write_json(&self, now_ms: i64, out: &mut Vec<u8>) {
        use std::io::Write as _;
        let (id, ts) = (serde_json::json!(self.id.as_str()), self.ts_ms.min(now_ms));
        // Writing to a Vec cannot fail.
        let _infallible = write!(
            out,
            r#"{{"id":{id},"name":"loyalty/placeholder","ts":{ts},"v":"1","data":{{}}}}"#
        );
    }
}
