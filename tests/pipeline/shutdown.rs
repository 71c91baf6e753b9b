//! SIGTERM: drain, last commit, out.

use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::inngest::Answer;
use crm_event_processors::inngest::memory::Fault;
use crm_event_processors::pipeline::Exit;

use super::harness::{PURCHASES, Purchase, World, award_id};

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_is_in_flight_and_commits_it() {
    let world = World::new();
    let (worker, gate) = world.delivery_in_flight(&[PURCHASES]).await;
    worker.begin_stop();
    tokio::time::sleep(Duration::from_secs(5)).await;
    gate.release();
    assert_eq!(worker.ended().await, Exit::Drained { unfinished: 0 });
    assert_eq!(world.log.committed(PURCHASES), Some(1));
    assert_eq!(world.awards(), [award_id("p-1", 10)]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_and_what_is_open_is_read_again() {
    let world = World::new();
    for _ in 0..100 {
        let down = Answer::Unavailable {
            detail: "503".to_owned(),
            retry_after: None,
        };
        world.inngest.faults().push(Fault::Answer(down));
    }
    let worker = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.purchase(&Purchase::completed("p-1", 10));
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.outstanding == 1))
        .await;
    let began = tokio::time::Instant::now();
    assert_eq!(worker.stop().await, Exit::Drained { unfinished: 1 });
    assert!(began.elapsed() >= Duration::from_secs(25) && began.elapsed() < Duration::from_secs(30));
    assert_ne!(world.log.committed(PURCHASES), Some(1));
}

#[tokio::test(start_paused = true)]
async fn records_that_arrive_during_a_drain_are_left_for_the_next_owner() {
    let world = World::new();
    let (worker, gate) = world.delivery_in_flight(&[PURCHASES]).await;
    worker.begin_stop();
    tokio::task::yield_now().await;
    world.purchase(&Purchase::completed("p-2", 20));
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.release();
    assert_eq!(worker.ended().await, Exit::Drained { unfinished: 0 });
    assert_eq!(world.log.committed(PURCHASES), Some(1), "the second was not begun");
    let next = world.worker_of(&[Consumer::Currency], &[PURCHASES]).await;
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards(), [award_id("p-1", 10), award_id("p-2", 20)]);
    next.stop().await;
}
