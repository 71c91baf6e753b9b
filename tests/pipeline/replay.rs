//! What an operator sends the normal way once more: everything counts as old, and what is forced has ids of its own.

use crm_event_processors::consumers::Consumer;
use crm_event_processors::dedupe::memory::MemoryStore;
use crm_event_processors::pipeline::{OldRecords, Replay};

use super::harness::{OTHER_PURCHASES, PURCHASES, Purchase, Start, Worker, World, award_id, completed};

async fn currency(world: &World, replay: Replay) -> Worker {
    let start = Start {
        replay,
        ..Start::of(&[Consumer::Currency])
    };
    world.worker_as(start, &[PURCHASES]).await
}

#[tokio::test(start_paused = true)]
async fn what_proves_itself_is_compared_in_a_replay_and_only_what_is_not_settled_is_delivered() {
    let (mut world, ledger) = World::with_ledger();
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = currency(&world, Replay::Again).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 10)], "nothing was known of it");
    assert_eq!(ledger.calls("compare_effects"), 1);
    worker.stop().await;
    ledger.settle_what_was_asked();
    // When every short window has lapsed: another store.
    world.store = MemoryStore::default();
    world.purchase(&Purchase::completed("p-1", 10));
    world.raw(PURCHASES, &completed("p-2", 11));
    let worker = currency(&world, Replay::Again).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(
        world.awards(),
        [award_id("p-1", 10), award_id("p-2", 11)],
        "the same ids as in the normal way"
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_forced_is_delivered_whatever_was_done_and_once_for_one_nonce() {
    let (world, ledger) = World::with_ledger();
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = currency(&world, Replay::Again).await;
    world.all_committed(PURCHASES).await;
    worker.stop().await;
    ledger.settle_what_was_asked();
    for _ in 0..2 {
        world.purchase(&Purchase::completed("p-1", 10));
        let worker = currency(&world, Replay::Forced("f7".to_owned())).await;
        world.all_committed(PURCHASES).await;
        worker.stop().await;
    }
    let forced = format!("{}#f7", award_id("p-1", 10));
    assert_eq!(world.awards(), [award_id("p-1", 10), forced]);
}

#[tokio::test(start_paused = true)]
async fn a_forced_replay_leaves_the_cut_off_in_force() {
    let (mut world, _ledger) = World::with_ledger();
    world.effective_from = Some("2026-11-20T11:30:00Z".parse().expect("a time"));
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = currency(&world, Replay::Forced("f7".to_owned())).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [""; 0]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_policy_set_aside_may_be_forced_and_nothing_else_replays_it() {
    let mut world = World::new();
    world.old_records = OldRecords::DeadLetter;
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = currency(&world, Replay::Again).await;
    world.all_committed(PURCHASES).await;
    worker.stop().await;
    let letters = world.dead_letters.letters();
    assert_eq!(
        letters.iter().map(|letter| letter.reason).collect::<Vec<_>>(),
        ["needs_effects_check"]
    );
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = currency(&world, Replay::Forced("f7".to_owned())).await;
    world.all_committed(PURCHASES).await;
    worker.stop().await;
    assert_eq!(world.awards(), [format!("{}#f7", award_id("p-1", 10))]);
    assert_eq!(world.log.committed(OTHER_PURCHASES), None);
}
