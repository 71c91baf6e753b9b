//! The books: which event of which row has come. Every row has one change, and every consumer that reads purchases owes one event for it.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crm_event_processors::inngest::receiver::{AcceptedEvent, Sink};

use super::records::{READERS, event_id, row_of};

#[derive(Debug, Default)]
pub(crate) struct Books(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    /// By consumer, by row.
    seen: [Vec<bool>; READERS.len()],
    balance: Balance,
}

/// How the books stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Balance {
    /// Events that came, each counted once.
    pub(crate) accepted: u64,
    /// The very same id again: the next net catches it, so a few are allowed.
    pub(crate) resent: u64,
    /// Any other id than the one that this consumer owes for this change: a second settlement.
    pub(crate) doubled: u64,
}

impl Books {
    pub(crate) fn balance(&self) -> Balance {
        self.pages(|pages| pages.balance)
    }

    /// Enters an event by its whole id: two ids of one change are two settlements, however alike they look.
    pub(crate) fn enter(&self, id: &str) {
        let owed = row_of(id).and_then(|row| {
            let consumer = READERS.into_iter().find(|consumer| id == event_id(*consumer, row))?;
            Some((consumer, row as usize))
        });
        self.pages(|Pages { seen, balance }| {
            let page = owed.and_then(|(consumer, row)| Some((seen.get_mut(consumer.index())?, row)));
            let Some((page, row)) = page else {
                balance.doubled += 1;
                return;
            };
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
        });
    }

    fn pages<T>(&self, with: impl FnOnce(&mut Pages) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for Books {
    fn accepted(&self, event: AcceptedEvent<'_>) {
        self.enter(event.id);
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            accepted,
            resent,
            doubled,
        } = self;
        write!(f, "{accepted} accepted, {doubled} doubled, {resent} resent")
    }
}
