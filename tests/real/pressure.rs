//! The pause of one partition, on a broker that keeps its log: the mock forgets what the test needs.

use crm_event_processors::consumers::Consumer;
use crm_event_processors::pipeline::Exit;
use crm_event_processors::telemetry::Status;

use crate::kafka::cluster::{Cluster, Raw, produce, purchase, purchases};
use crate::kafka::worker::{Start, World};

use super::{stack, unique};

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_with_a_poison_record_is_paused_alone_and_goes_on_when_it_comes_home() {
    const BEHIND: u32 = 15_000;
    const ROOM: usize = 2000;
    let prefix = format!("pressure-{}", unique());
    let world = World::on(Cluster::real(&stack("KAFKA_BOOTSTRAP_SERVERS"), &prefix, 2).await);
    world.inngest.puzzle("currency:award:purchase_ledger:held:");
    let start = Start {
        max_records: ROOM,
        ..Start::default()
    };
    let worker = world.worker_with(start).await;
    world.purchase(0, "held", 1).await;
    let (producer, topic) = (world.producer(), world.topic(purchases(0)));
    let records: Vec<Raw> = (2..BEHIND + 2).map(|lsn| purchase(&format!("p-{lsn}"), lsn)).collect();
    let behind = records.iter().map(|record| produce(&producer, &topic, 0, record));
    futures::future::join_all(behind).await;
    let state = |status: &Status, partition| {
        let mut partitions = status.partitions.iter();
        let found = partitions.find(|p| p.place == purchases(partition));
        found.map_or((0, false), |p| (p.outstanding, p.paused))
    };
    worker.wait_until("the pause", |status| state(status, 0).1).await;
    for lsn in 1..=50 {
        world.purchase(1, &format!("other-{lsn}"), lsn).await;
    }
    world.wait_committed(purchases(1), 50).await;
    let (outstanding, paused) = state(&worker.telemetry.status(), 0);
    // What was fetched before the pause reached the client comes on top.
    assert!(paused && outstanding <= 10_000 + ROOM, "{outstanding} of one partition");
    assert_eq!(world.committed(purchases(0)).unwrap_or(0), 0);

    world.inngest.relent();
    world.wait_all_committed(&[purchases(0), purchases(1)]).await;
    assert_eq!(worker.stop().await, Exit::Drained { unfinished: 0 });
    let mut awards = world.accepted_of(Consumer::Currency);
    assert_eq!(awards.len(), BEHIND as usize + 51);
    awards.sort_unstable();
    awards.dedup();
    assert_eq!(awards.len(), BEHIND as usize + 51, "each once");
}
