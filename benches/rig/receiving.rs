//! The receiver of a case: when the head of its events and when the last one had arrived, and which ids.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver as Notices, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use crm_event_processors::clock::SystemClock;
use crm_event_processors::inngest::receiver::{AcceptedEvent, Receiver, ReceiverSettings, Sink, Stats};

use super::PATIENCE;
use super::ids::Difference;
use super::process::Process;

/// Takes the events of one case.
pub(crate) struct Receiving {
    receiver: Receiver,
    notices: Notices<Instant>,
    tally: Arc<Tally>,
    owed: Vec<String>,
}

/// Tells the time when the head is there, and when everything is.
#[derive(Debug)]
struct Tally {
    head: u64,
    expected: u64,
    accepted: AtomicU64,
    /// A line for each: compared only when the case is over, so that nobody waits for it.
    ids: Mutex<String>,
    notices: Sender<Instant>,
}

impl Tally {
    fn ids(&self) -> MutexGuard<'_, String> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Tally {
    fn accepted(&self, event: AcceptedEvent<'_>) {
        let mut ids = self.ids();
        ids.push_str(event.id);
        ids.push('\n');
        drop(ids);
        let accepted = self.accepted.fetch_add(1, Ordering::AcqRel) + 1;
        if accepted == self.head || accepted == self.expected {
            // Nobody listens any more: the case is over.
            let _gone = self.notices.send(Instant::now());
        }
    }
}

impl Receiving {
    /// `owed` are the ids that have to come, each once. There are two notices: when so many are there, and when all are.
    pub(crate) async fn start(latency: Duration, owed: Vec<String>, head: u64) -> anyhow::Result<Self> {
        ensure!(head > 0 && head < owed.len() as u64, "the head must not be everything");
        let (sender, notices) = channel();
        let room = owed.iter().map(|id| id.len() + 1).sum();
        let tally = Arc::new(Tally {
            head,
            expected: owed.len() as u64,
            accepted: AtomicU64::new(0),
            ids: Mutex::new(String::with_capacity(room)),
            notices: sender,
        });
        let settings = ReceiverSettings {
            latency,
            ..ReceiverSettings::default()
        };
        let receiver = Receiver::start(settings, Arc::clone(&tally) as _, Arc::new(SystemClock)).await?;
        Ok(Self {
            receiver,
            notices,
            tally,
            owed,
        })
    }

    pub(crate) fn url(&self) -> String {
        self.receiver.base_url()
    }

    /// Waits for the next notice; ends early if the worker does.
    pub(crate) fn notice(&self, worker: &Process) -> anyhow::Result<Instant> {
        if let Some(at) = worker.until(&self.notices, PATIENCE)? {
            return Ok(at);
        }
        bail!("after {PATIENCE:?}: {}", self.difference())
    }

    fn difference(&self) -> Difference {
        Difference::of(&self.owed, &self.tally.ids())
    }

    /// Every owed id once, and nothing else, when nobody sends any more; gives what it took.
    pub(crate) async fn end(self) -> anyhow::Result<Stats> {
        let Self {
            receiver, tally, owed, ..
        } = self;
        let stats = receiver.stats();
        receiver.stop().await;
        let difference = Difference::of(&owed, &tally.ids());
        ensure!(difference.is_none(), "of {} events: {difference}", owed.len());
        Ok(stats)
    }
}
