//! Who hears of accepted events.

use std::fmt::Debug;

use crate::inngest::recorded::{Log, Recorded};

/// One accepted event, borrowed from the request's body.
#[derive(Debug, Clone, Copy)]
pub struct AcceptedEvent<'a> {
    /// The receiver's own id, as in the answer.
    pub internal_id: &'a str,
    /// The id it was sent with; the internal one if it had none.
    pub id: &'a str,
    pub name: &'a str,
    pub ts_ms: i64,
    pub v: Option<&'a str>,
    /// JSON text of an object, without `_inngest`.
    pub data: &'a str,
    /// Whether this id was accepted before.
    pub resent: bool,
}

/// Takes accepted events: called in order within a request, before the request is answered, from many connections at
/// once. It must not block.
pub trait Sink: Send + Sync + Debug {
    fn accepted(&self, event: AcceptedEvent<'_>);
}

/// Keeps everything, for tests.
#[derive(Debug, Default)]
pub struct Recorder(Log);

impl Recorder {
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0
    }
}

impl Sink for Recorder {
    fn accepted(&self, event: AcceptedEvent<'_>) {
        self.0.push(Recorded {
            id: event.id.to_owned(),
            name: event.name.to_owned(),
            ts_ms: event.ts_ms,
            // The intake has parsed it as an object; anything else would show as null in a test.
            data: serde_json::from_str(event.data).unwrap_or_default(),
        });
    }
}
