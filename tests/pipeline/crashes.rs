//! The process dies at every edge of the way of a record; the next one takes over. Nothing is lost, and what is sent
//! again has the same id.

use crm_event_processors::consumers::Consumer;
use crm_event_processors::dedupe::memory::{self, MemoryDedupe};
use crm_event_processors::faults::{Gate, Script};

use super::harness::{PURCHASES, Purchase, Worker, World, award_id, patiently};

/// After the crash a new worker delivers whatever is open, and everything is committed.
async fn recovers(world: &World, sent: usize) {
    assert_eq!(
        world.log.committed(PURCHASES).unwrap_or(0),
        0,
        "nothing was committed before the crash"
    );
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), vec![award_id("p-1", 10); sent]);
    assert_eq!(world.inngest.accepted().distinct(), 1, "the same id");
    worker.stop().await;
}

/// A worker whose next call of the dedupe store never comes back.
async fn held_in_the_store(world: &World, faults: fn(&MemoryDedupe) -> &Script<memory::Fault>) -> Worker {
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    let gate = Gate::default();
    faults(&worker.dedupe).push(memory::Fault::Hold(gate.clone()));
    world.purchase(&Purchase::completed("p-1", 10));
    patiently(gate.arrived()).await;
    worker
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_claim_loses_nothing() {
    let world = World::new();
    let worker = held_in_the_store(&world, MemoryDedupe::claim_faults).await;
    worker.crash().await;
    recovers(&world, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_claim_and_delivery_loses_nothing() {
    let world = World::new();
    let (worker, _gate) = world.delivery_in_flight(&[PURCHASES]).await;
    worker.crash().await;
    recovers(&world, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_acceptance_and_before_the_confirm_sends_the_same_id_again() {
    let world = World::new();
    let worker = held_in_the_store(&world, MemoryDedupe::confirm_faults).await;
    worker.crash().await;
    recovers(&world, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_the_confirm_and_before_the_commit_finds_it_done() {
    let world = World::new();
    // More refusals than ticks until the crash: nothing is committed.
    for _ in 0..50 {
        world.log.fail_next_commit("no coordinator");
    }
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("p-1", 10));
    patiently(world.inngest.accepted().wait_for(1)).await;
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.position == 1 && p.outstanding == 0))
        .await;
    worker.crash().await;
    recovers(&world, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_redis_that_forgot_everything_costs_a_repeat_and_no_loss() {
    let world = World::new();
    let worker = held_in_the_store(&world, MemoryDedupe::confirm_faults).await;
    worker.crash().await;
    world.store.flush_all();
    recovers(&world, 2).await;
}
