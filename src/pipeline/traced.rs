//! The trace of a lane's batch: takes the records, gives the span that everything done with them belongs to.

use std::collections::BTreeSet;

use super::item::Item;
use super::lane::Lane;
use crate::telemetry::{BatchSpan, Stage, StageSpan};
use crate::traceparent::{self, TraceParent};

impl Lane {
    /// `None` if this batch is not traced: then nothing is looked at.
    pub(super) fn begin_trace(&self, items: &[Item]) -> Option<BatchSpan> {
        let first = items.first()?;
        let batch = self.shared.ports.telemetry.traces().batch(self.consumer, items.len())?;
        let place = first.ticket.place;
        if items.iter().all(|item| item.ticket.place.topic == place.topic) {
            let is_one = items.iter().all(|item| item.ticket.place == place);
            first.received.record.with(|view| {
                batch.came_from(view.topic, is_one.then_some(view.partition));
            });
        }
        let mut linked = BTreeSet::new();
        for item in items {
            let context = item.received.record.with(|view| {
                let header = view.headers.get(traceparent::KEY)?;
                TraceParent::parse(header.value?)
            });
            // A transaction of many rows is linked once.
            if let Some(context) = context.filter(|context| linked.insert(*context)) {
                batch.link(context);
            }
        }
        Some(batch)
    }

    /// A stage of the batch that is traced now.
    pub(super) fn stage(&self, stage: Stage, records: usize) -> Option<StageSpan> {
        let batch = self.batch.as_ref().filter(|_| records > 0)?;
        Some(batch.stage(stage, records))
    }
}
