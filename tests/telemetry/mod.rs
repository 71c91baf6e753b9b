//! What operators see and what guards the loops, on a worker with fakes: the push to a collector in this process, the
//! watchdog over a pipeline that is blocked on purpose; the console over HTTP, `status` on a terminal.

mod console;
pub(crate) mod push;
mod terminal;
mod watchdog;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::pipeline::PartitionStatus;
use crm_event_processors::record::TopicPartition;
use crm_event_processors::telemetry::{ConsumerStatus, Status, Telemetry};

/// One partition in which tier is 60 records behind mission.
pub(super) fn publish_something(telemetry: &Telemetry) {
    let marks = [(Consumer::Tier, 40), (Consumer::Mission, 100)];
    let partition = PartitionStatus {
        place: TopicPartition { topic: 0, partition: 0 },
        committed: Some(40),
        position: 100,
        outstanding: 60,
        paused: true,
        watermarks: marks.to_vec(),
        absent: Vec::new(),
    };
    let consumer = |(consumer, _)| ConsumerStatus {
        consumer,
        lanes: 1,
        standing_still: None,
        halted: None,
    };
    telemetry.publish(Status {
        ticked_ms: 1,
        topics: vec![Box::from("crm.public.purchase_ledger")].into(),
        partitions: vec![partition],
        consumers: marks.map(consumer).to_vec(),
        joined: true,
        draining: false,
    });
}
