//! One record that cannot be brought home: it is set aside, and what does not have to wait for it goes on.

use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::faults::Gate;
use crm_event_processors::inngest::memory::Fault;
use crm_event_processors::pipeline::Exit;
use crm_event_processors::telemetry::Status;

use super::harness::{OTHER_PURCHASES, PURCHASES, Purchase, Start, Worker, World, award_id, completed, patiently};

const MISSION: &str = "loyalty/mission.evaluation_requested";

/// A mission worker of one lane: every row of these tests is in it, and every change matters.
fn one_lane() -> Start {
    Start {
        consumers: vec![(Consumer::Mission, 1)],
        ..Start::of(&[])
    }
}

fn mission_id(purchase: &str, lsn: u32) -> String {
    format!("mission:evaluation:purchase_ledger:{purchase}:{lsn}")
}

/// A refund of part of a purchase.
fn refund(id: &'static str, lsn: u32) -> Purchase {
    Purchase {
        refunded: "40.00",
        ..Purchase::update(id, "partially_refunded", lsn)
    }
}

/// A worker that has set p-1 aside, because nobody knows the answer to it.
async fn with_a_puzzle(world: &World) -> Worker {
    world.inngest.puzzle(&mission_id("p-1", 10));
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker_as(one_lane(), &[PURCHASES, OTHER_PURCHASES]).await;
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.outstanding > 0))
        .await;
    worker
}

#[tokio::test(start_paused = true)]
async fn one_poison_record_holds_its_partition_and_neither_its_lane_nor_the_other_partitions() {
    const OTHERS: u32 = 9000;
    let world = World::new();
    let worker = with_a_puzzle(&world).await;
    for lsn in 1..=OTHERS {
        world.raw(PURCHASES, &completed(&format!("beside-{lsn}"), lsn));
    }
    for lsn in 1..=10 {
        world.raw(OTHER_PURCHASES, &completed(&format!("other-{lsn}"), lsn));
    }
    world.all_committed(OTHER_PURCHASES).await;
    patiently(world.inngest.accepted().wait_for(OTHERS as usize + 10)).await;
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.outstanding == OTHERS as usize + 1))
        .await;
    assert_eq!(world.log.committed(PURCHASES).unwrap_or(0), 0, "its watermark holds");
    assert_eq!(worker.budget.in_use().0, 1, "only the poison is in memory");

    // Others got through meanwhile, so that in the end it is dead, and everything is committed.
    world.all_committed(PURCHASES).await;
    let letters = world.dead_letters.letters();
    assert_eq!((letters.len(), letters[0].offset), (1, 0));
    assert_eq!(letters[0].reason, "unknown_answer");
    assert_eq!(world.inngest.accepted().distinct(), OTHERS as usize + 10);
    assert_eq!(world.inngest.accepted().len(), OTHERS as usize + 10, "none twice");
    assert_eq!(worker.budget.in_use(), (0, 0));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn behind_a_poison_record_its_partition_stops_at_the_bound_and_the_others_do_not() {
    let world = World::new();
    let worker = with_a_puzzle(&world).await;
    for lsn in 1..=11_000 {
        world.raw(PURCHASES, &completed(&format!("beside-{lsn}"), lsn));
    }
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.paused))
        .await;
    world.raw(OTHER_PURCHASES, &completed("other", 1));
    world.all_committed(OTHER_PURCHASES).await;
    let outstanding = |worker: &Worker| worker.telemetry.status().partitions[0].outstanding;
    assert!((10_000..11_000).contains(&outstanding(&worker)));
    world.inngest.relent();
    world.all_committed(PURCHASES).await;
    assert_eq!(world.inngest.accepted().distinct(), 11_002);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn later_changes_of_its_row_wait_behind_it_and_go_out_in_order() {
    let world = World::new();
    let worker = with_a_puzzle(&world).await;
    for (lsn, others) in [(20, "p-2"), (30, "p-3"), (40, "p-4")] {
        world.purchase(&refund("p-1", lsn));
        world.purchase(&Purchase::completed(others, lsn));
        patiently(
            world
                .inngest
                .accepted()
                .wait_until(|sent| sent.iter().any(|e| e.id == mission_id(others, lsn))),
        )
        .await;
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    let others = [("p-2", 20), ("p-3", 30), ("p-4", 40)].map(|(id, lsn)| mission_id(id, lsn));
    assert_eq!(world.accepted(MISSION), others, "the row waits, the others go on");
    world.inngest.relent();
    world.all_committed(PURCHASES).await;
    let row = [10, 20, 30, 40].map(|lsn| mission_id("p-1", lsn));
    assert_eq!(world.accepted(MISSION), [others.as_slice(), row.as_slice()].concat());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_row_of_the_same_fact_waits_as_well() {
    let world = World::new();
    world.inngest.poison("tier:evaluation:purchase_ledger:p-1:");
    world.dead_letters.close("no leader");
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker_of(&[Consumer::Tier], &[PURCHASES]).await;
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.outstanding == 1))
        .await;
    // Of the same member: one evaluation is for both.
    world.purchase(&Purchase::completed("p-2", 20));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.inngest.accepted().len(), 0);
    world.dead_letters.open();
    world.all_committed(PURCHASES).await;
    let sent = world.accepted("loyalty/tier.evaluation_requested");
    assert_eq!(sent, ["tier:evaluation:purchase_ledger:p-2:20"]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repetition_of_a_change_that_is_set_aside_waits_and_is_found_done() {
    let world = World::new();
    world.purchase(&Purchase::completed("p-1", 10));
    // The connector repeats itself at once, within the batch.
    let worker = with_a_puzzle(&world).await;
    world.purchase(&Purchase::completed("p-1", 10));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(
        worker.telemetry.outcomes(Consumer::Mission, "duplicate"),
        0,
        "nothing is known yet"
    );
    world.inngest.relent();
    world.all_committed(PURCHASES).await;
    assert_eq!(world.accepted(MISSION), [mission_id("p-1", 10)]);
    assert_eq!(worker.telemetry.outcomes(Consumer::Mission, "duplicate"), 2);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_cannot_be_written_keeps_its_row_and_nobody_else_waiting() {
    let world = World::new();
    world.dead_letters.close("no leader");
    world.inngest.poison(&mission_id("p-1", 10));
    world.purchase(&Purchase::completed("p-1", 10));
    let worker = world.worker_as(one_lane(), &[PURCHASES, OTHER_PURCHASES]).await;
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.outstanding == 1))
        .await;
    world.purchase(&refund("p-1", 20));
    world.purchase(&Purchase::completed("p-2", 30));
    world.raw(OTHER_PURCHASES, &completed("other", 40));
    world.all_committed(OTHER_PURCHASES).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(
        world.accepted(MISSION),
        [mission_id("p-2", 30), mission_id("other", 40)]
    );
    assert_eq!(world.log.committed(PURCHASES).unwrap_or(0), 0);

    world.dead_letters.open();
    world.all_committed(PURCHASES).await;
    assert_eq!(world.accepted(MISSION).last(), Some(&mission_id("p-1", 20)));
    assert_eq!(world.dead_letters.letters().len(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn letters_that_are_too_large_keep_no_other_waiting_however_many_they_are() {
    let world = World::new();
    world.dead_letters.limit(Some(1000));
    for _ in 0..80 {
        world.raw(PURCHASES, &"x".repeat(1001));
    }
    world.raw(OTHER_PURCHASES, "small poison");
    let worker = world.worker_as(one_lane(), &[PURCHASES, OTHER_PURCHASES]).await;
    world.all_committed(OTHER_PURCHASES).await;
    assert_eq!(world.dead_letters.letters().len(), 1);
    assert_eq!(world.log.committed(PURCHASES).unwrap_or(0), 0);
    // An operator raises the limit.
    world.dead_letters.limit(None);
    world.all_committed(PURCHASES).await;
    assert_eq!(world.dead_letters.letters().len(), 81);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_too_large_for_any_request_does_not_make_the_batches_behind_it_small() {
    let world = World::new();
    let worker = world.worker_as(one_lane(), &[PURCHASES]).await;
    for batch in ["first", "second"] {
        world.raw(PURCHASES, &completed(&format!("{batch}-begin"), 1));
        if batch == "first" {
            world.raw(PURCHASES, &completed(&"large".repeat(50_000), 1));
        }
        for number in 0..20 {
            world.raw(PURCHASES, &completed(&format!("{batch}-{number}"), 1));
        }
        world.all_committed(PURCHASES).await;
    }
    assert_eq!(world.dead_letters.letters()[0].reason, "event_too_large");
    assert_eq!(world.inngest.accepted().len(), 42);
    assert_eq!(
        world.inngest.requests(),
        3,
        "two around the large one, one of all that came next"
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn dead_records_of_a_partition_that_went_give_their_room_back_behind_letters_that_wait() {
    let world = World::new();
    world.dead_letters.limit(Some(1000));
    for _ in 0..80 {
        world.raw(PURCHASES, &"x".repeat(1001));
    }
    for _ in 0..10 {
        world.raw(OTHER_PURCHASES, &"y".repeat(1001));
    }
    let worker = world.worker_as(one_lane(), &[PURCHASES, OTHER_PURCHASES]).await;
    let outstanding = |status: &Status| status.partitions.iter().map(|p| p.outstanding).sum::<usize>();
    worker.wait_until(|status| outstanding(status) == 90).await;
    worker.member.revoke(&[OTHER_PURCHASES], true).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(worker.budget.in_use().0, 80, "only what is still ours");
    worker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_does_not_wait_for_the_letter_of_a_later_one_of_its_row() {
    let world = World::new();
    world.dead_letters.close("no leader");
    world.purchase(&Purchase::completed("p-1", 10));
    world.purchase(&Purchase {
        refunded: "-1.00",
        ..Purchase::update("p-1", "partially_refunded", 20)
    });
    world.purchase(&Purchase::update("p-1", "completed", 30));
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.awards(), [award_id("p-1", 10)], "the one behind it waits");
    world.dead_letters.open();
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [10, 30].map(|lsn| award_id("p-1", lsn)));
    assert_eq!(world.dead_letters.letters()[0].reason, "negative_refund");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_state_before_a_rejected_one_is_delivered_only_after_its_letter() {
    let world = World::new();
    world.dead_letters.close("no leader");
    world.inngest.poison("p-1:20");
    world.purchase(&Purchase::completed("p-1", 10));
    world.purchase(&Purchase::update("p-1", "completed", 20));
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.awards(), Vec::<String>::new());
    world.dead_letters.open();
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 10)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_set_aside_goes_with_its_partition_and_is_not_sent_any_more() {
    let world = World::new();
    let worker = with_a_puzzle(&world).await;
    world.purchase(&refund("p-1", 20));
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.outstanding == 2))
        .await;
    let began = tokio::time::Instant::now();
    worker.member.revoke(&[PURCHASES], false).await;
    assert!(began.elapsed() >= Duration::from_secs(8), "it might have come home");
    assert_eq!(world.log.committed(PURCHASES).unwrap_or(0), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(worker.budget.in_use(), (0, 0), "nothing of it is kept");

    world.inngest.relent();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.accepted(MISSION), Vec::<String>::new(), "it has another owner");
    let next = world.worker_as(one_lane(), &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.accepted(MISSION), [10, 20].map(|lsn| mission_id("p-1", lsn)));
    assert_eq!(worker.stop().await, Exit::Drained { unfinished: 0 });
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_set_aside_goes_as_soon_as_a_lane_that_was_busy_is_free() {
    let world = World::new();
    let worker = with_a_puzzle(&world).await;
    // By now it is tried about once a minute.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let gate = Gate::default();
    world.inngest.faults().push(Fault::Hold(gate.clone()));
    world.raw(OTHER_PURCHASES, &completed("other", 1));
    patiently(gate.arrived()).await;
    worker.member.revoke(&[PURCHASES], true).await;
    gate.release();
    world.all_committed(OTHER_PURCHASES).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.accepted(MISSION), [mission_id("other", 1)]);
    assert_eq!(worker.budget.in_use(), (0, 0), "nothing of it is kept");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_what_is_set_aside_to_the_next_owner() {
    let world = World::new();
    let worker = with_a_puzzle(&world).await;
    world.purchase(&refund("p-1", 20));
    world.purchase(&Purchase::completed("p-2", 30));
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.outstanding == 3))
        .await;
    patiently(world.inngest.accepted().wait_for(1)).await;
    let began = tokio::time::Instant::now();
    assert_eq!(worker.stop().await, Exit::Drained { unfinished: 3 });
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(world.log.committed(PURCHASES).unwrap_or(0), 0);
    world.inngest.relent();
    let next = world.worker_as(one_lane(), &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    let mut sent = world.accepted(MISSION);
    sent.dedup();
    assert_eq!(
        sent,
        [("p-2", 30), ("p-1", 10), ("p-1", 20)].map(|(id, lsn)| mission_id(id, lsn))
    );
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_sets_aside_no_more_than_its_share_and_recovers() {
    let world = World::new();
    world.inngest.puzzle("mission:");
    for lsn in 1..=3000 {
        world.raw(PURCHASES, &completed(&format!("p-{lsn}"), lsn));
    }
    let worker = world.worker_as(one_lane(), &[PURCHASES]).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let settled = world.inngest.requests();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let asked = world.inngest.requests() - settled;
    assert!(
        (90..=210).contains(&asked),
        "ten at a time, about once a minute: {asked}"
    );
    assert!(settled < 2000, "no new batch while the share is used up: {settled}");
    assert!(worker.budget.in_use().0 <= 1000);
    world.inngest.relent();
    world.all_committed(PURCHASES).await;
    assert_eq!(
        (world.inngest.accepted().len(), world.inngest.accepted().distinct()),
        (3000, 3000)
    );
    assert_eq!(
        world.dead_letters.letters(),
        [],
        "nothing else got through meanwhile: no attempt counted"
    );
    worker.stop().await;
}
