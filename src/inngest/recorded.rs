//! What a fake accepted, in order, and waiting for it.
//!
//! Takes events as they are accepted, gives them back to a test, which waits by notification. It never forgets: for
//! millions of events give the receiver another sink.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

/// One accepted event.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The id it was sent with.
    pub id: String,
    pub name: String,
    pub ts_ms: i64,
    pub data: Value,
}

/// Every accepted event in the order it was accepted, repeats included.
#[derive(Debug)]
pub struct Log {
    events: Mutex<Vec<Recorded>>,
    count: watch::Sender<usize>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            events: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }
}

impl Log {
    pub fn push(&self, event: Recorded) {
        let count = {
            let mut events = self.lock();
            events.push(event);
            events.len()
        };
        self.count.send_replace(count);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn all(&self) -> Vec<Recorded> {
        self.lock().clone()
    }

    /// The ids in the order they were accepted, repeats included.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.lock().iter().map(|event| event.id.clone()).collect()
    }

    /// How many different ids were accepted.
    #[must_use]
    pub fn distinct(&self) -> usize {
        let events = self.lock();
        let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
        ids.len()
    }

    /// Waits until that many events were accepted, repeats included.
    pub async fn wait_for(&self, count: usize) {
        self.wait_until(|events| events.len() >= count).await;
    }

    /// Waits until the events accepted so far satisfy the predicate.
    pub async fn wait_until(&self, predicate: impl Fn(&[Recorded]) -> bool) {
        // Subscribed before looking: what comes in between is not missed.
        let mut changes = self.count.subscribe();
        while !predicate(&self.lock()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> Recorded {
        Recorded {
            id: id.to_owned(),
            name: "n".to_owned(),
            ts_ms: 0,
            data: Value::Null,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_enough_was_accepted() {
        let log = Log::default();
        log.push(event("a"));
        let accept = async {
            log.push(event("b"));
            log.push(event("a"));
        };
        tokio::join!(log.wait_for(3), accept);
        assert_eq!(log.ids(), ["a", "b", "a"]);
        assert_eq!(log.distinct(), 2);
        log.wait_until(|events| events.iter().any(|event| event.id == "b"))
            .await;
    }
}
