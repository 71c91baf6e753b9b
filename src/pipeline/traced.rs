//! The trace of a lane's batch: takes the records, gives the span that everything done with them belongs to.

use std::collections::BTreeSet;

use super::item::Item;
use super::lane::Lane;
use super::outcome::Disposition;
use crate::telemetry::{BatchSpan, MAX_LINKS, Stage, StageSpan};
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
        // A transaction of many rows is linked once; its rows come one behind the other.
        let (mut linked, mut last) = (BTreeSet::new(), None);
        let mut free = MAX_LINKS;
        for item in items {
            let context = item.received.record.with(|view| {
                let header = view.headers.get(traceparent::KEY)?;
                TraceParent::parse(header.value?)
            });
            if context == last {
                continue;
            }
            last = context;
            if let Some(context) = context.filter(|context| linked.insert(*context)) {
                batch.link(context);
                free -= 1;
            }
            if free == 0 {
                break;
            }
        }
        Some(batch)
    }

    /// A stage of the batch that is traced now.
    pub(super) fn stage(&self, stage: Stage, members: usize) -> Option<StageSpan> {
        let batch = self.batch.as_ref().filter(|_| members > 0)?;
        Some(batch.stage(stage, members))
    }
}

/// Says in its span what a stage met.
pub(super) fn met(stage: &mut Option<StageSpan>, disposition: &Disposition) {
    if let (Some(stage), Some(failure)) = (stage, disposition.failure()) {
        stage.failed(failure);
    }
}
