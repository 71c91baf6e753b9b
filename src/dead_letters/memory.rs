//! The fake dead-letter topic: keeps letters, fails on command.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{DeadLetters, Letter, Queue, WriteError, provenance};

/// A letter as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLetter {
    pub queue: Queue,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// The record's own headers, then the provenance.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub reason: &'static str,
}

/// Letters in memory; `fail_next`, `close` and `limit` script refusals.
#[derive(Debug, Default)]
pub struct MemoryDeadLetters {
    state: Mutex<State>,
    written: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct State {
    letters: Vec<StoredLetter>,
    failures: VecDeque<String>,
    closed: Option<String>,
    /// The longest value it takes.
    max_bytes: Option<usize>,
}

impl MemoryDeadLetters {
    /// The next write fails with this cause.
    pub fn fail_next(&self, cause: &str) {
        self.state().failures.push_back(cause.to_owned());
    }

    /// From now on every write fails with this cause, until [`MemoryDeadLetters::open`].
    pub fn close(&self, cause: &str) {
        self.state().closed = Some(cause.to_owned());
    }

    pub fn open(&self) {
        self.state().closed = None;
    }

    /// From now on letters whose value is longer are refused; `None`: all are taken.
    pub fn limit(&self, max_bytes: Option<usize>) {
        self.state().max_bytes = max_bytes;
    }

    #[must_use]
    pub fn letters(&self) -> Vec<StoredLetter> {
        self.state().letters.clone()
    }

    /// Waits until `count` letters have been written.
    pub async fn wait_for(&self, count: usize) {
        loop {
            let written = self.written.notified();
            if self.state().letters.len() >= count {
                return;
            }
            written.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeadLetters for MemoryDeadLetters {
    fn write<'a>(&'a self, letter: &'a Letter<'a>) -> BoxFuture<'a, Result<(), WriteError>> {
        async move {
            let (failure, max_bytes) = {
                let mut state = self.state();
                let failure = state.failures.pop_front().or_else(|| state.closed.clone());
                (failure, state.max_bytes)
            };
            if let Some(cause) = failure {
                return Err(WriteError::Unavailable {
                    topic: letter.queue.name().to_owned(),
                    cause,
                });
            }
            let bytes = letter.record.with(|record| record.value.map_or(0, <[u8]>::len));
            if max_bytes.is_some_and(|most| bytes > most) {
                return Err(WriteError::TooLarge {
                    topic: letter.queue.name().to_owned(),
                    bytes,
                });
            }
            let stored = letter.record.with(|record| {
                let own = record
                    .headers
                    .0
                    .iter()
                    .map(|h| (h.name.to_owned(), h.value.map(<[u8]>::to_vec)));
                let ours = provenance(letter, 0)
                    .into_iter()
                    .map(|(n, v)| (n.to_owned(), Some(v.into_bytes())));
                StoredLetter {
                    queue: letter.queue,
                    topic: record.topic.to_owned(),
                    partition: record.partition,
                    offset: record.offset,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: own.chain(ours).collect(),
                    reason: letter.reason,
                }
            });
            self.state().letters.push(stored);
            self.written.notify_waiters();
            Ok(())
        }
        .boxed()
    }
}
