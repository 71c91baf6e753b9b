//! Decisions in memory, for tests: the port without a file. It fails when a test scripts it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::{Decisions, Line, WriteError};
use crate::faults::{Gate, Script};

/// Keeps every line.
#[derive(Debug, Default)]
pub struct MemoryDecisions {
    written: Mutex<Vec<u8>>,
    faults: Script<Fault>,
    came: Notify,
}

/// What one write meets.
#[derive(Debug)]
pub enum Fault {
    /// This error, nothing written.
    Error(WriteError),
    /// Written, but the answer is lost.
    WriteThenFail,
    /// Stops before it writes, until the test releases the gate.
    Hold(Gate),
}

impl MemoryDecisions {
    /// What the next writes meet.
    #[must_use]
    pub fn faults(&self) -> &Script<Fault> {
        &self.faults
    }

    /// Everything written so far, as bytes.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.written()).into_owned()
    }

    /// The same, read back; `None` for a line that is none.
    #[must_use]
    pub fn lines(&self) -> Vec<Option<Line<'static>>> {
        let text = self.text();
        text.lines().map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until so many lines are written.
    pub async fn wait_for(&self, lines: usize) {
        loop {
            let came = self.came.notified();
            if self.lines().len() >= lines {
                return;
            }
            came.await;
        }
    }

    fn written(&self) -> MutexGuard<'_, Vec<u8>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Decisions for MemoryDecisions {
    fn write<'a>(&'a self, lines: &'a [u8]) -> BoxFuture<'a, Result<(), WriteError>> {
        async move {
            let mut is_lost = false;
            match self.faults.next() {
                None => {}
                Some(Fault::Error(error)) => return Err(error),
                Some(Fault::WriteThenFail) => is_lost = true,
                Some(Fault::Hold(gate)) => gate.pass().await,
            }
            self.written().extend_from_slice(lines);
            self.came.notify_waiters();
            if is_lost {
                return Err(WriteError::Unavailable("the answer was lost".to_owned()));
            }
            Ok(())
        }
        .boxed()
    }
}
