//! Decode, route and fan out: takes a fetched batch, gives every record to the lanes that have to see it.
//!
//! A record is decoded once, whoever reads it. What cannot be decoded or routed goes to the undertaker, once. It does no
//! I/O and never waits.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::item::{Item, Received};
use super::outcome::Outcome;
use super::partitions::Partitions;
use super::shared::Shared;
use super::undertaker::{Body, Cause, Dead};
use crate::consumers::Consumer;
use crate::dead_letters::Queue;
use crate::debezium::{DecimalMode, Decoded, Decoder};
use crate::progress::ConsumerSet;
use crate::record::{Batch, RecordView, UNREADABLE_HEADERS};
use crate::rows::{self, RowChange};

/// What a record turned out to be.
#[expect(
    clippy::large_enum_variant,
    reason = "a row change is moved once into its place; a box would cost an allocation a record"
)]
enum Read {
    Row(RowChange),
    /// Nothing for anybody.
    Nothing,
    Dead(Cause),
}

/// The lanes of one consumer, by lane number.
pub(super) struct Lanes {
    pub(super) consumer: Consumer,
    pub(super) inboxes: Vec<mpsc::Sender<Vec<Item>>>,
}

pub(super) struct Intake {
    pub(super) decoder: Decoder,
    pub(super) decimals: DecimalMode,
    pub(super) lanes: Vec<Lanes>,
    pub(super) undertaker: mpsc::Sender<Dead>,
    pub(super) shared: Arc<Shared>,
}

/// A lane or the undertaker is gone, or its queue is fuller than the memory budget allows: the pipeline is broken.
#[derive(Debug, thiserror::Error)]
#[error("a lane of {0} does not take records any more")]
pub(super) struct LaneGone(&'static str);

impl Intake {
    /// Registers every record of the batch and hands it on. Records of partitions that are not ours are dropped: their
    /// new owner reads them.
    pub(super) fn take(&mut self, batch: Batch, partitions: &mut Partitions) -> Result<(), LaneGone> {
        let mut decoded = 0;
        let at = Instant::now();
        let mut parcels: Vec<Vec<Vec<Item>>> = self
            .lanes
            .iter()
            .map(|lanes| lanes.inboxes.iter().map(|_| Vec::new()).collect())
            .collect();
        for record in batch {
            let read = record.with(|view| self.read(&view));
            let (place, offset) = record.place();
            let pending = match &read {
                Read::Row(change) => self.readers_of(change),
                Read::Dead(_) => record.with(|view| self.everybody().reading(view.topic)),
                Read::Nothing => ConsumerSet::EMPTY,
            };
            let Some((ticket, pending)) = partitions.receive(place, offset, pending) else {
                continue;
            };
            match read {
                // On a topic that nobody here reads.
                Read::Dead(_) if pending.is_empty() => {}
                Read::Row(change) => {
                    decoded += 1;
                    let received = Arc::new(Received { change, record, at });
                    for (lanes, parcels) in self.lanes.iter().zip(&mut parcels) {
                        if !pending.contains(lanes.consumer) {
                            continue;
                        }
                        let lane = lane_of(lanes.consumer.lane_key(&received.change), parcels.len());
                        if let Some(parcel) = parcels.get_mut(lane) {
                            parcel.push(Item {
                                received: Arc::clone(&received),
                                ticket: ticket.clone(),
                            });
                        }
                    }
                }
                Read::Dead(cause) => {
                    let sent = self.undertaker.try_send(Dead {
                        body: Body::Undecoded(record),
                        ticket,
                        cause,
                        tell: None,
                        logged: tracing::Span::none(),
                    });
                    sent.map_err(|_closed_or_full| LaneGone("the undertaker"))?;
                }
                // Neither well nor badly decoded: heartbeats must not outweigh rows of which every one fails.
                Read::Nothing => {
                    let telemetry = &self.shared.ports.telemetry;
                    telemetry.finished(None, Outcome::Control.label(), 1);
                }
            }
        }
        self.shared.halts.ended(Queue::Decode, decoded);
        for (lanes, parcels) in self.lanes.iter().zip(parcels) {
            for (inbox, parcel) in lanes.inboxes.iter().zip(parcels) {
                if !parcel.is_empty() {
                    inbox
                        .try_send(parcel)
                        .map_err(|_closed_or_full| LaneGone(lanes.consumer.name()))?;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, view: &RecordView<'_>) -> Read {
        if view.headers.get(UNREADABLE_HEADERS).is_some() {
            let detail = "a header's name is not UTF-8; the headers are lost".to_owned();
            return Read::Dead(Cause::new("unreadable_headers", detail));
        }
        let change = match self.decoder.decode(view) {
            Ok(Decoded::Change(change)) => change,
            Ok(Decoded::Control(_)) => return Read::Nothing,
            Err(error) => {
                return Read::Dead(Cause::new(error.reason(), error.to_string()));
            }
        };
        match rows::route(view.topic, &change, self.decimals) {
            Ok(rows::Routed::Row(change)) => Read::Row(change),
            Ok(rows::Routed::Unread { .. }) => Read::Nothing,
            Err(error) => Read::Dead(Cause {
                policy: error.is_policy(),
                ..Cause::new(error.reason(), error.to_string())
            }),
        }
    }

    fn readers_of(&self, change: &RowChange) -> ConsumerSet {
        let table = change.row.table();
        self.lanes
            .iter()
            .map(|lanes| lanes.consumer)
            .filter(|consumer| consumer.reads(table))
            .collect()
    }

    fn everybody(&self) -> ConsumerSet {
        self.lanes.iter().map(|lanes| lanes.consumer).collect()
    }
}

/// Spreads keys evenly over the lanes.
fn lane_of(key: u64, lanes: usize) -> usize {
    let lanes = u64::try_from(lanes).unwrap_or(1).max(1);
    usize::try_from(key % lanes).unwrap_or(0)
}
