//! Targets that are slow or down: memory stays bounded, one consumer's trouble stops the others only at the bound, and
//! nothing is lost or doubled when it is over.

use std::time::Duration;

use crm_event_processors::cli::run::budget;
use crm_event_processors::consumers::Consumer;
use crm_event_processors::faults::Gate;
use crm_event_processors::inngest::Answer;
use crm_event_processors::inngest::memory::Fault;
use crm_event_processors::inngest::recorded::Recorded;
use crm_event_processors::pipeline::Exit;
use crm_event_processors::record::Budget;
use crm_event_processors::telemetry::http::status_json;

use super::harness::{OTHER_PURCHASES, PURCHASES, Start, Worker, World, award_id, completed, patiently};

const BOTH: [Consumer; 2] = [Consumer::Currency, Consumer::Tier];

fn down() -> Answer {
    Answer::Unavailable {
        detail: "503".to_owned(),
        retry_after: None,
    }
}

fn refused() -> Answer {
    Answer::Refused {
        status: 401,
        detail: "no such key".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_whose_target_is_down_stops_the_others_at_the_bound_and_nothing_is_lost() {
    const RECORDS: u32 = 12_000;
    const BOUND: usize = 10_000;
    let world = World::new();
    world.inngest.trouble("tier:", down());
    for lsn in 1..=RECORDS {
        world.raw(PURCHASES, &completed(&format!("p-{lsn}"), lsn));
    }
    let start = Start {
        budget: budget(&[(Consumer::Currency, 5), (Consumer::Tier, 3)]),
        ..Start::of(&BOTH)
    };
    let worker = world.worker_as(start, &[PURCHASES, OTHER_PURCHASES]).await;
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.paused))
        .await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let awards = world.awards().len();
    assert!(
        (BOUND..BOUND + 1000).contains(&awards),
        "currency ran on to the bound, and not beyond: {awards}"
    );
    world.raw(OTHER_PURCHASES, &completed("beside", 1));
    let beside = |events: &[Recorded]| events.iter().any(|event| event.id == award_id("beside", 1));
    patiently(world.inngest.accepted().wait_until(beside)).await;
    assert_eq!(world.log.committed(PURCHASES).unwrap_or(0), 0);
    assert_eq!(world.accepted("loyalty/tier.evaluation_requested").len(), 0);

    world.inngest.relent();
    world.all_committed(PURCHASES).await;
    let mut awards = world.awards();
    awards.sort_unstable();
    awards.dedup();
    assert_eq!(
        (awards.len(), world.awards().len()),
        (RECORDS as usize + 1, RECORDS as usize + 1)
    );
    let tier = |outcome| worker.telemetry.outcomes(Consumer::Tier, outcome);
    assert_eq!(tier("delivered") + tier("superseded"), u64::from(RECORDS) + 1);
    let evaluations = world.accepted("loyalty/tier.evaluation_requested");
    assert_eq!(evaluations.len() as u64, tier("delivered"), "none twice");
    assert_eq!(world.dead_letters.letters(), []);
    assert_eq!(worker.budget.in_use(), (0, 0));
    assert_eq!(worker.stop().await, Exit::Drained { unfinished: 0 });
}

#[tokio::test(start_paused = true)]
async fn large_records_are_bounded_by_their_bytes() {
    const MAX_BYTES: usize = 1_000_000;
    const LARGE: usize = 50_000;
    let world = World::new();
    let gate = Gate::default();
    for _ in 0..100 {
        world.inngest.faults().push(Fault::Hold(gate.clone()));
    }
    let padding = format!(r#"{{"padding":"{}","id":"#, "x".repeat(LARGE));
    for lsn in 1..=100 {
        let large = completed(&format!("p-{lsn}"), lsn).replacen(r#"{"id":"#, &padding, 1);
        world.raw(PURCHASES, &large);
    }
    let start = Start {
        budget: Budget::new(1000, MAX_BYTES),
        ..Start::of(&[Consumer::Currency])
    };
    let worker = world.worker_as(start, &[PURCHASES]).await;
    patiently(gate.arrived()).await;
    let mut most = 0;
    let mut ticks = worker.telemetry.watch();
    for _ in 0..20 {
        ticks.changed().await.expect("the worker runs");
        most = most.max(worker.budget.in_use().1);
    }
    assert!(most > MAX_BYTES - 2 * LARGE, "{most} bytes: the room is used");
    assert!(most < MAX_BYTES + 2 * LARGE, "{most} bytes: one record may overshoot");
    gate.release();
    world.all_committed(PURCHASES).await;
    assert_eq!(world.awards().len(), 100);
    assert_eq!(worker.budget.in_use(), (0, 0));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_of_partitions_that_went_gives_its_room_back_though_its_lane_is_stuck() {
    let world = World::new();
    world.inngest.trouble("currency:", down());
    world.raw(OTHER_PURCHASES, &completed("stays", 1));
    let start = Start {
        consumers: vec![(Consumer::Currency, 1)],
        ..Start::of(&[])
    };
    let worker = world.worker_as(start, &[PURCHASES, OTHER_PURCHASES]).await;
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.outstanding == 1))
        .await;
    // The lane has that one in hand, and waits for the target.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for lsn in 1..=900 {
        world.raw(PURCHASES, &completed(&format!("p-{lsn}"), lsn));
    }
    worker
        .wait_until(|status| status.partitions.iter().any(|p| p.outstanding == 900))
        .await;
    worker.member.revoke(&[PURCHASES], false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(worker.budget.in_use().0, 1, "only what is still ours");
    world.inngest.relent();
    world.all_committed(OTHER_PURCHASES).await;
    assert_eq!(world.awards(), [award_id("stays", 1)]);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_stops_one_consumer_in_place_and_it_goes_on_when_the_key_is_mended() {
    let world = World::new();
    world.inngest.trouble("tier:", refused());
    for lsn in 1..=50 {
        world.raw(PURCHASES, &completed(&format!("p-{lsn}"), lsn));
    }
    let worker = world.worker_of(&BOTH, &[PURCHASES]).await;
    worker
        .wait_until(|status| {
            let mut consumers = status.consumers.iter();
            consumers.any(|c| c.consumer == Consumer::Tier && c.standing_still.is_some())
        })
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.awards().len(), 50, "the others go on");
    let before = world.inngest.requests();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let probes = world.inngest.requests() - before;
    assert!((9..=11).contains(&probes), "one probe a minute: {probes}");
    let still = |consumer| {
        let status = worker.telemetry.status();
        let mut consumers = status.consumers.iter();
        consumers.any(|c| c.consumer == consumer && c.standing_still.is_some())
    };
    assert!(still(Consumer::Tier) && !still(Consumer::Currency));
    assert_eq!(world.log.committed(PURCHASES).unwrap_or(0), 0);

    world.inngest.relent();
    let mended = tokio::time::Instant::now();
    world.all_committed(PURCHASES).await;
    assert!(mended.elapsed() < Duration::from_secs(62), "{:?}", mended.elapsed());
    worker
        .wait_until(|status| status.consumers.iter().all(|c| c.standing_still.is_none()))
        .await;
    assert_eq!(world.awards().len(), 50, "none twice");
    assert_eq!(world.dead_letters.letters(), [], "nothing is wrong with the records");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_standstill_ends_when_what_was_refused_goes_with_its_partitions() {
    let world = World::new();
    world.inngest.trouble("tier:", refused());
    world.raw(PURCHASES, &completed("p-1", 1));
    let worker = world.worker_of(&BOTH, &[PURCHASES]).await;
    let is_ready = |worker: &Worker| status_json(&worker.telemetry)["ready"] == true;
    for _ in 0..2 {
        worker
            .wait_until(|status| status.consumers.iter().any(|c| c.standing_still.is_some()))
            .await;
        assert!(!is_ready(&worker));
        worker.member.revoke(&[PURCHASES], false).await;
        worker
            .wait_until(|status| status.consumers.iter().all(|c| c.standing_still.is_none()))
            .await;
        assert!(is_ready(&worker), "nobody would ever probe");
        // Whoever gets it next finds out anew.
        worker.member.assign(&[PURCHASES]).await;
    }
    world.inngest.relent();
    world.all_committed(PURCHASES).await;
    worker.stop().await;
}
