//! Workers that are broken on purpose, to prove that the books notice. Wrappers around ports; the pipeline is untouched.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::consumers::Consumer;
use crate::dedupe::{Claim, ClaimKey, Dedupe, DedupeError};
use crate::inngest::{Answer, Deliver, EventBatch, Limits};
use crate::pipeline::source::{Command, Commit, Event, Handle};
use crate::progress::Committed;
use crate::record::{Batch, TopicPartition};

/// How the worker is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sabotage {
    /// Commits a batch when it is received: the crash loses what was in flight.
    CommitEarly,
    /// Remembers nothing and makes ids from the delivery instead of the change: repetitions are doubled.
    NoDedupe,
    /// Swallows one event and says that it was accepted.
    DropOne,
}

/// Puts a committer between source and pipeline that does not wait for outcomes.
pub(super) fn commit_early(handle: Handle, capacity: usize) -> Handle {
    let Handle {
        topics,
        mut events,
        commands,
    } = handle;
    let (event_tx, forwarded) = mpsc::channel(capacity);
    let (command_tx, mut wanted) = mpsc::channel(1024);
    let mut early = Early::default();
    tokio::spawn(async move {
        loop {
            let sent = tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Batch(batch)) => {
                        early.received(&batch);
                        event_tx.send(Event::Batch(batch)).await.is_ok()
                    }
                    // The answer to a commit of ours.
                    Some(Event::Committed { offsets, error }) => {
                        early.answered(&offsets, error.is_none());
                        true
                    }
                    Some(event) => event_tx.send(event).await.is_ok(),
                    None => false,
                },
                command = wanted.recv() => match command {
                    // The pipeline's own commits come too late to matter: they are answered, not made.
                    Some(Command::Commit(offsets)) => {
                        event_tx.send(Event::Committed { offsets, error: None }).await.is_ok()
                    }
                    Some(command) => commands.send(command).await.is_ok(),
                    None => false,
                },
            };
            let committed = match early.next() {
                Some(commits) => commands.send(Command::Commit(commits)).await.is_ok(),
                None => true,
            };
            if !sent || !committed {
                break;
            }
        }
    });
    Handle {
        topics,
        events: forwarded,
        commands: command_tx,
    }
}

/// Positions behind everything received; one commit at a time.
#[derive(Debug, Default)]
struct Early {
    uncommitted: BTreeMap<TopicPartition, i64>,
    under_way: bool,
}

impl Early {
    fn received(&mut self, batch: &Batch) {
        for (place, offset) in batch.places() {
            self.note(place, offset + 1);
        }
    }

    fn answered(&mut self, offsets: &[Commit], confirmed: bool) {
        self.under_way = false;
        for commit in offsets.iter().filter(|_| !confirmed) {
            self.note(commit.place, commit.progress.offset);
        }
    }

    fn next(&mut self) -> Option<Vec<Commit>> {
        if self.under_way || self.uncommitted.is_empty() {
            return None;
        }
        self.under_way = true;
        let positions = std::mem::take(&mut self.uncommitted).into_iter();
        let commit = |(place, offset)| Commit {
            place,
            progress: Committed {
                offset,
                metadata: String::new(),
            },
        };
        Some(positions.map(commit).collect())
    }

    fn note(&mut self, place: TopicPartition, position: i64) {
        let noted = self.uncommitted.entry(place).or_default();
        *noted = position.max(*noted);
    }
}

/// A dedupe store that knows nothing.
#[derive(Debug)]
pub(super) struct Forgetful;

impl Dedupe for Forgetful {
    fn claim<'a>(&'a self, keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<Vec<Claim>, DedupeError>> {
        async move { Ok(vec![Claim::Granted; keys.len()]) }.boxed()
    }

    fn confirm<'a>(&'a self, _keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<(), DedupeError>> {
        async move { Ok(()) }.boxed()
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// Gives every delivery an id of its own, as a worker does that builds ids from what it received rather than from what
/// happened.
pub(super) struct FreshIds {
    pub(super) inner: Arc<dyn Deliver>,
    pub(super) given: Arc<AtomicU64>,
}

impl Deliver for FreshIds {
    fn permit(&self) -> BoxFuture<'_, ()> {
        self.inner.permit()
    }

    fn send<'a>(&'a self, batch: &'a EventBatch, events: Range<usize>) -> BoxFuture<'a, Answer> {
        async move {
            let mut renamed = EventBatch::default();
            for event in events.map(|index| batch.event(index)) {
                let given = self.given.fetch_add(1, Ordering::Relaxed);
                // The id is an event's first field.
                let rest = event.strip_prefix(b"{\"id\":\"").unwrap_or_default();
                renamed.push_json(&[format!("{{\"id\":\"{given}:").as_bytes(), rest].concat());
            }
            self.inner.send(&renamed, 0..renamed.len()).await
        }
        .boxed()
    }

    fn limits(&self) -> Limits {
        // The longer ids need room.
        let Limits { max_events, max_bytes } = self.inner.limits();
        Limits {
            max_events,
            max_bytes: max_bytes - max_events * 24,
        }
    }
}

/// Swallows the first event of one consumer; for awards and grants, also every later one of that row, which would make up for
/// it.
pub(super) struct Swallowing {
    pub(super) inner: Arc<dyn Deliver>,
    pub(super) of: Consumer,
    /// What the swallowed ids begin with. Survives the crash, as a bug in the code would.
    pub(super) swallowed: Arc<Mutex<Option<String>>>,
}

impl Swallowing {
    fn swallows(&self, event: &[u8]) -> bool {
        #[derive(serde::Deserialize)]
        struct Id<'a> {
            id: &'a str,
        }
        let Ok(Id { id }) = serde_json::from_slice(event) else {
            return false;
        };
        if !id.starts_with(self.of.name()) {
            return false;
        }
        let row = match self.of {
            Consumer::Currency | Consumer::Reward => id.rsplit_once(':').map_or(id, |(row, _change)| row),
            Consumer::Tier | Consumer::Mission | Consumer::Marketplace => id,
        };
        let mut swallowed = self.swallowed.lock().unwrap_or_else(PoisonError::into_inner);
        swallowed.get_or_insert_with(|| row.to_owned()) == row
    }
}

impl Deliver for Swallowing {
    fn permit(&self) -> BoxFuture<'_, ()> {
        self.inner.permit()
    }

    fn send<'a>(&'a self, batch: &'a EventBatch, events: Range<usize>) -> BoxFuture<'a, Answer> {
        async move {
            let mut kept = EventBatch::default();
            for event in events
                .map(|index| batch.event(index))
                .filter(|event| !self.swallows(event))
            {
                kept.push_json(event);
            }
            if kept.is_empty() {
                Answer::Accepted
            } else {
                self.inner.send(&kept, 0..kept.len()).await
            }
        }
        .boxed()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}
