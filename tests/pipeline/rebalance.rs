//! Partitions come and go while records are in flight.

use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::inngest::Answer;
use crm_event_processors::inngest::memory::Fault;

use super::harness::{OTHER_PURCHASES, PURCHASES, Purchase, World, award_id, patiently};

#[tokio::test(start_paused = true)]
async fn a_revocation_waits_for_the_delivery_in_flight_and_commits_it() {
    let world = World::new();
    let (worker, gate) = world.delivery_in_flight(&[PURCHASES]).await;
    let (revoked, ()) = tokio::join!(worker.member.revoke(&[PURCHASES], false), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        gate.release();
    });
    let () = revoked;
    assert_eq!(world.log.committed(PURCHASES), Some(1));
    let next = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("p-2", 20));
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 10), award_id("p-2", 20)]);
    worker.stop().await;
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_outlives_the_deadline_is_not_committed_and_its_late_end_is_ignored() {
    let world = World::new();
    let (worker, gate) = world.delivery_in_flight(&[PURCHASES, OTHER_PURCHASES]).await;
    let began = tokio::time::Instant::now();
    worker.member.revoke(&[PURCHASES], false).await;
    assert!(began.elapsed() >= Duration::from_secs(8));
    assert_ne!(world.log.committed(PURCHASES), Some(1));
    // The first owner's answer arrives while the second already works: both send the same id, one commits.
    let next = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    gate.release();
    patiently(world.inngest.accepted().wait_for(2)).await;
    assert_eq!(world.inngest.accepted().distinct(), 1);
    assert_eq!(
        worker.telemetry.outcomes(Consumer::Currency, "delivered"),
        0,
        "late ends are not counted"
    );
    worker.stop().await;
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_assignment_commits_nothing_and_its_queued_records_are_not_sent() {
    let world = World::new();
    let down = || {
        Fault::Answer(Answer::Unavailable {
            detail: "503".to_owned(),
            retry_after: None,
        })
    };
    for _ in 0..3 {
        world.inngest.faults().push(down());
    }
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("p-1", 10));
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.outstanding == 1))
        .await;
    worker.member.revoke(&[PURCHASES], true).await;
    assert_eq!(world.log.committed(PURCHASES).unwrap_or(0), 0);
    assert_eq!(
        worker.stop().await,
        crm_event_processors::pipeline::Exit::Drained { unfinished: 0 }
    );
    assert_eq!(world.awards(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn partitions_that_stay_are_not_disturbed_by_those_that_go() {
    let world = World::new();
    let worker = world
        .worker_of(&[Consumer::Currency], &[PURCHASES, OTHER_PURCHASES])
        .await;
    worker.member.revoke(&[PURCHASES], false).await;
    let value = Purchase::completed("p-9", 90).envelope();
    world.raw(OTHER_PURCHASES, &value);
    world.all_committed(OTHER_PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-9", 90)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_back_starts_at_what_is_committed() {
    let world = World::new();
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("p-1", 10));
    world.all_committed(PURCHASES).await;
    worker.member.revoke(&[PURCHASES], false).await;
    world.purchase(&Purchase::completed("p-2", 20));
    worker.member.assign(&[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 10), award_id("p-2", 20)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_nobody_waits_for_any_more_does_not_end_the_assignment_behind_it() {
    let world = World::new();
    let (worker, gate) = world.delivery_in_flight(&[PURCHASES]).await;
    worker.member.revoke_impatiently(&[PURCHASES]).await;
    worker.member.assign(&[PURCHASES]).await;
    // Longer than the deadline of the revocation.
    tokio::time::sleep(Duration::from_secs(10)).await;
    gate.release();
    world.purchase(&Purchase::completed("p-2", 20));
    world.all_committed(PURCHASES).await;
    let mut awards = world.awards();
    awards.dedup();
    assert_eq!(awards, [award_id("p-1", 10), award_id("p-2", 20)]);
    worker.stop().await;
}
