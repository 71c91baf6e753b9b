//! When each row was to be written, and how long after that its events were accepted.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver as Notices, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use crm_event_processors::inngest::receiver::{AcceptedEvent, Sink};

use crate::rig::PATIENCE;
use crate::rig::process::Process;
use crate::rig::records::{READERS, row_of};

/// More rows than a round writes.
const ROWS: u32 = 2_000_000;

#[derive(Debug)]
pub(crate) struct Stamps {
    epoch: Instant,
    /// The first row of this round.
    first: u32,
    readers: u64,
    /// Since the epoch, by row.
    due_ns: Box<[AtomicU64]>,
    /// And one more, by row and reader; 0 is not accepted yet.
    took_us: Box<[AtomicU32]>,
    accepted: AtomicU64,
    /// Somebody waits for so many.
    wanted: AtomicU64,
    reached: Sender<()>,
}

impl Sink for Stamps {
    fn accepted(&self, event: AcceptedEvent<'_>) {
        let now = self.now();
        let reader = READERS
            .iter()
            .position(|reader| event.id.split(':').next() == Some(reader.name()));
        let place = row_of(event.id).zip(reader).and_then(|(row, reader)| {
            let row = row.checked_sub(self.first)?;
            let due = Duration::from_nanos(self.due_ns.get(row as usize)?.load(Ordering::Acquire));
            Some((self.took_us.get(self.place(row, reader as u64))?, due))
        });
        if let Some((took, due)) = place {
            let micros = u32::try_from(now.saturating_sub(due).as_micros()).unwrap_or(u32::MAX - 1);
            took.store(micros + 1, Ordering::Release);
        }
        let accepted = self.accepted.fetch_add(1, Ordering::AcqRel) + 1;
        if accepted == self.wanted.load(Ordering::Acquire) {
            // Nobody waits any more.
            let _gone = self.reached.send(());
        }
    }
}

impl Stamps {
    pub(crate) fn new(first: u32, readers: u64) -> (Arc<Self>, Notices<()>) {
        let (reached, notices) = channel();
        let slots = u64::from(ROWS) * readers;
        let stamps = Self {
            epoch: Instant::now(),
            first,
            readers,
            due_ns: (0..ROWS).map(|_| AtomicU64::new(0)).collect(),
            took_us: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            accepted: AtomicU64::new(0),
            wanted: AtomicU64::new(u64::MAX),
            reached,
        };
        (Arc::new(stamps), notices)
    }

    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn place(&self, row: u32, reader: u64) -> usize {
        (u64::from(row) * self.readers + reader) as usize
    }

    /// Before it is written.
    pub(crate) fn is_due(&self, row: u32, due: Duration) -> anyhow::Result<()> {
        let slot = self.due_ns.get((row - self.first) as usize);
        let slot = slot.context("more rows than there is room for")?;
        slot.store(u64::try_from(due.as_nanos())?, Ordering::Release);
        Ok(())
    }

    /// Rows of which every event was accepted, if they are accepted in order.
    pub(crate) fn accepted_rows(&self) -> f64 {
        self.accepted.load(Ordering::Acquire) as f64 / self.readers as f64
    }

    /// Waits until everything up to this row was accepted.
    pub(crate) fn wait(&self, notices: &Notices<()>, end: u32, worker: &Process) -> anyhow::Result<()> {
        let wanted = u64::from(end - self.first) * self.readers;
        self.wanted.store(wanted, Ordering::Release);
        let begun = Instant::now();
        while self.accepted.load(Ordering::Acquire) < wanted {
            if notices.recv_timeout(Duration::from_millis(200)).is_err() {
                worker.line_within(Duration::ZERO)?;
            }
            if begun.elapsed() > PATIENCE {
                let accepted = self.accepted.load(Ordering::Acquire);
                bail!("only {accepted} of {wanted} events after {PATIENCE:?}");
            }
        }
        Ok(())
    }

    /// How long each event of these rows took, sorted, in microseconds. Each must have come.
    pub(crate) fn took_us(&self, rows: Range<u32>) -> anyhow::Result<Vec<u32>> {
        let places = self.place(rows.start - self.first, 0)..self.place(rows.end - self.first, 0);
        let slots = self.took_us.get(places).context("rows of this round")?;
        let mut took = Vec::with_capacity(slots.len());
        for slot in slots {
            let micros = slot.load(Ordering::Acquire);
            ensure!(micros > 0, "an event never came, and another one came twice");
            took.push(micros - 1);
        }
        took.sort_unstable();
        Ok(took)
    }
}
