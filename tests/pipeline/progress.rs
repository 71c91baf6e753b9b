//! Progress that outlives a worker: what each consumer has done.

use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::dedupe::memory::MemoryStore;
use crm_event_processors::faults::Gate;
use crm_event_processors::inngest::memory::Fault;
use crm_event_processors::pipeline::Exit;

use super::harness::{PURCHASES, Purchase, World, award_id, patiently};

/// Waits until the metadata of the commitment begins so.
async fn wait_metadata(world: &World, begin: &str) {
    let metadata = || world.log.metadata(PURCHASES).unwrap_or_default();
    patiently(async {
        while !metadata().starts_with(begin) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_a_consumer_that_was_ahead_does_nothing_again() {
    let mut world = World::new();
    let currency = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    for (id, lsn) in [("p-1", 1), ("p-2", 2), ("p-3", 3)] {
        world.purchase(&Purchase::completed(id, lsn));
    }
    world.all_committed(PURCHASES).await;
    currency.crash().await;
    // Mission, new at 3, is stuck with p-4; currency is done with it, and says so in the metadata.
    let gate = Gate::default();
    let worker = world.worker_of(&[Consumer::Mission], &[PURCHASES]).await;
    wait_metadata(&world, "crm/1;currency=3,mission=3;").await;
    world.inngest.faults().push(Fault::Hold(gate.clone()));
    world.purchase(&Purchase::completed("p-4", 4));
    patiently(gate.arrived()).await;
    worker.crash().await;
    let currency = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    wait_metadata(&world, "crm/1;currency=4,mission=3;").await;
    currency.crash().await;

    world.store = MemoryStore::default();
    let both = world
        .worker_of(&[Consumer::Currency, Consumer::Mission], &[PURCHASES])
        .await;
    world.all_committed(PURCHASES).await;
    let expected: Vec<String> = (1..=4).map(|lsn| award_id(&format!("p-{lsn}"), lsn)).collect();
    assert_eq!(
        world.awards(),
        expected,
        "each once, though the dedupe store forgot them"
    );
    assert_eq!(
        world.accepted("loyalty/mission.evaluation_requested"),
        ["mission:evaluation:purchase_ledger:p-4:4"]
    );
    assert_eq!(both.stop().await, Exit::Drained { unfinished: 0 });
}
