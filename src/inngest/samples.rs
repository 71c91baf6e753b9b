//! Sample events for the tests of this room.

use super::{Event, EventData};
use crate::dedupe::ClaimKey;
use crate::rows::{ChangeVersion, RowId, Table};

/// A commit time, within what Inngest allows.
pub(super) const TS_MS: i64 = 1_790_000_000_000;

pub(super) fn event(row: &str) -> Event {
    let row = RowId::new(row).expect("not empty");
    Event {
        id: ClaimKey::new("currency", "award", Table::PurchaseLedger, &row, ChangeVersion::Lsn(1)),
        ts_ms: TS_MS,
        data: EventData::Nothing,
    }
}

pub(super) fn events(rows: &[&str]) -> Vec<Event> {
    rows.iter().map(|row| event(row)).collect()
}

/// The id an event of that row is sent with.
pub(super) fn id(row: &str) -> String {
    event(row).id.to_string()
}
