//! How long a scrape takes, of a worker that has much to tell.

use std::time::Instant;

use anyhow::ensure;
use crm_event_processors::consumers::Consumer;
use crm_event_processors::pipeline::PartitionStatus;
use crm_event_processors::record::TopicPartition;
use crm_event_processors::telemetry::{ConsumerStatus, Status, Telemetry};

const PARTITIONS: i32 = 48;
const SCRAPES: usize = 50;

/// Milliseconds of each of some scrapes: all consumers on 48 partitions, and of everything that is counted something.
pub(super) fn milliseconds() -> anyhow::Result<Vec<f64>> {
    let telemetry = Telemetry::new()?;
    telemetry.publish(status());
    for consumer in Consumer::ALL {
        telemetry.finished(Some(consumer), "delivered", 1);
        telemetry.accepted(consumer, std::time::Duration::from_millis(40));
    }
    let mut took = Vec::new();
    for _ in 0..SCRAPES {
        let begun = Instant::now();
        let text = telemetry.scrape()?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        let lags = text
            .lines()
            .filter(|line| line.starts_with("crm_consumer_lag{"))
            .count();
        ensure!(lags == Consumer::ALL.len() * 48, "{lags} lags");
    }
    Ok(took)
}

fn status() -> Status {
    let partition = |partition| PartitionStatus {
        place: TopicPartition { topic: 0, partition },
        committed: Some(40),
        position: 100,
        outstanding: 60,
        paused: false,
        watermarks: Consumer::ALL.map(|consumer| (consumer, 40)).to_vec(),
        absent: Vec::new(),
    };
    let consumer = |consumer| ConsumerStatus {
        consumer,
        lanes: 8,
        standing_still: None,
        halted: None,
    };
    Status {
        ticked_ms: 1,
        topics: vec![Box::from("crm.public.purchase_ledger")].into(),
        partitions: (0..PARTITIONS).map(partition).collect(),
        consumers: Consumer::ALL.map(consumer).to_vec(),
        joined: true,
        draining: false,
    }
}
