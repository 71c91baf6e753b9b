//! The books: which event of which row has come. Every row has one change, and every consumer owes one event for it.

use std::sync::{Mutex, PoisonError};

use crm_event_processors::consumers::Consumer;
use crm_event_processors::inngest::receiver::{AcceptedEvent, Sink};

use crate::rig::records::{change_id, row_of};

#[derive(Debug, Default)]
pub(crate) struct Books(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    /// By consumer, by row.
    seen: [Vec<bool>; Consumer::ALL.len()],
    balance: Balance,
}

/// How the books stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Balance {
    /// Events that came, each counted once.
    pub(crate) accepted: u64,
    /// The same id again: allowed, the next net catches it.
    pub(crate) resent: u64,
    /// Another id than the one this change must have, or no change of ours: a second settlement.
    pub(crate) doubled: u64,
}

impl Books {
    pub(crate) fn balance(&self) -> Balance {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).balance
    }
}

impl Sink for Books {
    fn accepted(&self, event: AcceptedEvent<'_>) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Pages { seen, balance } = &mut *pages;
        let consumer = Consumer::ALL
            .iter()
            .position(|consumer| event.id.split(':').next() == Some(consumer.name()));
        let row = row_of(event.id).filter(|row| event.id.ends_with(&change_id(*row)));
        let (Some(page), Some(row)) = (consumer.and_then(|consumer| seen.get_mut(consumer)), row) else {
            balance.doubled += 1;
            return;
        };
        let row = row as usize;
        if page.len() <= row {
            page.resize(row + 1, false);
        }
        match page.get_mut(row) {
            Some(known) if *known => balance.resent += 1,
            Some(new) => {
                *new = true;
                balance.accepted += 1;
            }
            None => balance.doubled += 1,
        }
    }
}
