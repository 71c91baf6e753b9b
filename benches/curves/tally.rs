//! The receiver of a case that reads a whole log: tells when so many changes were covered, and whether every one was, once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver as Notices, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{bail, ensure};
use crm_event_processors::clock::SystemClock;
use crm_event_processors::inngest::receiver::{AcceptedEvent, Receiver, ReceiverSettings, Sink, Stats};
use tokio::runtime::Runtime;

use crate::rig::ids::Difference;
use crate::rig::process::Process;
use crate::rig::{PATIENCE, covered};

pub(crate) struct Taking {
    receiver: Receiver,
    tally: Arc<Tally>,
    notices: Notices<Instant>,
}

#[derive(Debug)]
struct Tally {
    covered: AtomicU64,
    /// Of each event a line, read when the case is over.
    lines: Mutex<String>,
    marks: Vec<u64>,
    notices: Sender<Instant>,
}

impl Sink for Tally {
    fn accepted(&self, event: AcceptedEvent<'_>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        covered::keep(&mut lines, event.id, event.name, event.data);
        drop(lines);
        let covers = covered::count(event.name, event.data);
        let before = self.covered.fetch_add(covers, Ordering::AcqRel);
        for mark in &self.marks {
            if before < *mark && before + covers >= *mark {
                // Nobody listens any more: the case is over.
                let _gone = self.notices.send(Instant::now());
            }
        }
    }
}

impl Taking {
    /// Notices come when so many changes are covered.
    pub(crate) fn start(runtime: &Runtime, marks: Vec<u64>) -> anyhow::Result<Self> {
        let (sender, notices) = channel();
        let tally = Arc::new(Tally {
            covered: AtomicU64::new(0),
            lines: Mutex::default(),
            marks,
            notices: sender,
        });
        let sink: Arc<dyn Sink> = Arc::clone(&tally) as _;
        let starting = Receiver::start(ReceiverSettings::default(), sink, Arc::new(SystemClock));
        let receiver = runtime.block_on(starting)?;
        Ok(Self {
            receiver,
            tally,
            notices,
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
        let covered = self.tally.covered.load(Ordering::Acquire);
        bail!("only {covered} changes are covered after {PATIENCE:?}")
    }

    /// Every change that is owed was covered once, no other one was, and no event came twice.
    pub(crate) fn end(self, runtime: &Runtime, owed: &[String]) -> anyhow::Result<()> {
        let Stats { resent, .. } = self.receiver.stats();
        runtime.block_on(self.receiver.stop());
        let lines = self.tally.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let difference = Difference::of(owed, &covered::ids(&lines)?);
        ensure!(
            difference.is_none() && resent == 0,
            "of {} changes: {difference}; {resent} events again",
            owed.len()
        );
        Ok(())
    }
}
