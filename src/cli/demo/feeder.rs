//! The thread that plays the connector: writes the workload to Kafka, never too far ahead of the group.
//!
//! Takes a workload and a feed; tells how far it is, and how far the group is. It stops in the middle until the group has
//! committed everything and it is told to go on, so that the crash always falls behind half of the events. Every label is
//! in the books before its record is in Kafka. It ends when everything is committed, or when nobody listens any more.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::checker::Books;
use super::label::Ledger;
use super::workload::{Step, Workload};
use crate::clock::SharedClock;
use crate::kafka::embedded::{Feed, FeedError};

/// How far things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) phase: Phase,
    /// Records in Kafka.
    pub(super) produced: u64,
    /// Records behind the group's committed positions.
    pub(super) committed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    FirstHalf,
    /// Half of the events are committed; waiting for the word.
    Middle,
    SecondHalf,
    Done,
}

/// The running thread, as the demo sees it. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Feeder {
    pub(super) reached: watch::Receiver<Reached>,
    go: Sender<()>,
    thread: std::thread::JoinHandle<Result<(), FeedError>>,
}

pub(super) struct Script {
    pub(super) workload: Workload,
    pub(super) feed: Feed,
    pub(super) books: Arc<Mutex<Books>>,
    pub(super) clock: SharedClock,
    pub(super) length: u64,
    pub(super) prefix: &'static str,
    pub(super) partitions: i32,
}

/// How often the group's position is looked up while there is nothing else to do.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

impl Feeder {
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(script: Script) -> std::io::Result<Self> {
        let (reached_tx, reached) = watch::channel(Reached {
            phase: Phase::FirstHalf,
            produced: 0,
            committed: 0,
        });
        let (go, orders) = channel();
        let running = Running {
            script,
            reached: reached_tx,
            orders,
        };
        let thread = std::thread::Builder::new()
            .name("feeder".to_owned())
            .spawn(move || running.run())?;
        Ok(Self { reached, go, thread })
    }

    /// On with the second half.
    pub(super) fn go_on(&self) {
        // The thread is gone only after an error, which `ended` gives.
        let _gone = self.go.send(());
    }

    /// Ends the thread; gives what went wrong in it.
    pub(super) fn ended(self) -> Result<(), FeedError> {
        drop(self.go);
        self.thread.join().unwrap_or(Ok(()))
    }
}

struct Running {
    script: Script,
    reached: watch::Sender<Reached>,
    orders: Receiver<()>,
}

/// Nobody listens any more.
struct Stopped;

impl Running {
    fn run(mut self) -> Result<(), FeedError> {
        let half = self.script.length / 2;
        let mut given = 0;
        loop {
            if given == half && !self.settle(Phase::Middle)? {
                return Ok(());
            }
            let Some(step) = self.script.workload.step(self.script.clock.now_ms()) else {
                break;
            };
            given += 1;
            if !self.give(&step)? {
                return Ok(());
            }
        }
        self.settle(Phase::Done).map(|_stopped| ())
    }

    /// Writes one record when it is safe to. False when nobody listens any more.
    fn give(&mut self, step: &Step) -> Result<bool, FeedError> {
        let topic = step.ledger as usize;
        let partition = self.partition_of(&step.key);
        let value = step.value.as_deref().map(str::as_bytes);
        let bytes = step.key.len() + value.map_or(0, <[u8]>::len);
        while !self.script.feed.has_room(topic, partition, bytes) {
            self.look()?;
            if !self.script.feed.has_room(topic, partition, bytes) && self.wait().is_err() {
                return Ok(false);
            }
        }
        let offset = self
            .script
            .feed
            .next_offset(topic, partition)
            .ok_or(FeedError::NoSuchPartition)?;
        let place = (topic_name(self.script.prefix, step.ledger), partition, offset);
        self.script
            .books
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .produced(&step.label, &place);
        self.script.feed.send(topic, partition, step.key.as_bytes(), value)?;
        if self.script.feed.produced().is_multiple_of(5_000) {
            self.look()?;
        }
        Ok(true)
    }

    /// Waits until the group has committed everything so far, then for the word. False when nobody listens any more.
    fn settle(&mut self, phase: Phase) -> Result<bool, FeedError> {
        loop {
            self.look()?;
            if self.script.feed.committed() == self.script.feed.produced() {
                break;
            }
            if self.wait().is_err() {
                return Ok(false);
            }
        }
        self.reached.send_modify(|reached| reached.phase = phase);
        let go_on = phase == Phase::Done || self.orders.recv().is_ok();
        if phase == Phase::Middle {
            self.reached.send_modify(|reached| reached.phase = Phase::SecondHalf);
        }
        Ok(go_on)
    }

    fn look(&mut self) -> Result<(), FeedError> {
        self.script.feed.refresh()?;
        let (produced, committed) = (self.script.feed.produced(), self.script.feed.committed());
        self.reached.send_if_modified(|reached| {
            let moved = (reached.produced, reached.committed) != (produced, committed);
            *reached = Reached {
                produced,
                committed,
                ..*reached
            };
            moved
        });
        Ok(())
    }

    fn wait(&self) -> Result<(), Stopped> {
        match self.orders.recv_timeout(LOOK_AGAIN) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }

    /// By the key, as every producer does: the changes of a row stay in order.
    fn partition_of(&self, key: &str) -> i32 {
        let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        i32::try_from(hash >> 1).unwrap_or(0) % self.script.partitions
    }
}

pub(super) fn topic_name(prefix: &str, ledger: Ledger) -> String {
    format!("{prefix}.public.{}", ledger.table())
}
