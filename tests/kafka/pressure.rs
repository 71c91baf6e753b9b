//! A target that takes nothing: memory stays within its budget, and the thread keeps polling.

use std::time::Duration;

use crm_event_processors::pipeline::Exit;
use crm_event_processors::telemetry::Status;

use super::cluster::{Raw, TOPICS, award_id, produce, purchase, purchases};
use super::worker::{Start, World, patiently};

const BUDGET: usize = 10;
const RECORDS: u32 = 120;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_budget_pauses_the_fetch_and_polling_goes_on() {
    let world = World::new(2);
    for lsn in 1..=RECORDS {
        world.purchase(i32::from(lsn % 2 == 0), &format!("p-{lsn}"), lsn).await;
    }
    let gate = world.hold_deliveries();
    let start = Start {
        max_records: BUDGET,
        ..Start::default()
    };
    let worker = world.worker_with(start).await;
    patiently("a delivery", gate.arrived()).await;
    let paused = |scrape: String| scrape.lines().any(|line| line.starts_with("crm_room_pauses_total 1"));
    let mut ticks = worker.telemetry.watch();
    // The pause, and twenty ticks behind it: two seconds in which nothing more may come in.
    let mut since_pause = 0;
    while since_pause < 20 {
        patiently("a tick", ticks.changed()).await.expect("the worker runs");
        let (records, _bytes) = worker.budget.in_use();
        assert!(records <= BUDGET, "{records} in memory");
        let (poll_age, _) = worker.telemetry.ages();
        let partitions = ticks.borrow_and_update().partitions.len();
        assert!(partitions == 0 || poll_age < Duration::from_secs(2), "{poll_age:?}");
        since_pause += u32::from(paused(worker.telemetry.scrape().expect("text")));
    }
    let received = worker
        .telemetry
        .status()
        .partitions
        .iter()
        .map(|partition| partition.outstanding)
        .sum::<usize>();
    assert_eq!(received, BUDGET, "as much as the budget allows");
    assert!(world.inngest.accepted().is_empty());

    gate.release();
    world.wait_all_committed(&[purchases(0), purchases(1)]).await;
    assert_eq!(worker.budget.in_use(), (0, 0));
    assert_eq!(worker.stop().await, Exit::Drained { unfinished: 0 });
    let mut awards = world.awards();
    awards.sort();
    let mut expected: Vec<String> = (1..=RECORDS).map(|lsn| award_id(&format!("p-{lsn}"), lsn)).collect();
    expected.sort();
    assert_eq!(awards, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_with_a_poison_record_is_paused_alone_and_goes_on_when_it_comes_home() {
    const BEHIND: u32 = 15_000;
    const ROOM: usize = 2000;
    let world = World::new(2);
    world.inngest.puzzle("currency:award:purchase_ledger:held:");
    let start = Start {
        max_records: ROOM,
        ..Start::default()
    };
    let worker = world.worker_with(start).await;
    world.purchase(0, "held", 1).await;
    let producer = world.producer();
    let records: Vec<Raw> = (2..BEHIND + 2).map(|lsn| purchase(&format!("p-{lsn}"), lsn)).collect();
    let behind = records.iter().map(|record| produce(&producer, TOPICS[0], 0, record));
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
    let mut awards = world.awards();
    assert_eq!(awards.len(), BEHIND as usize + 51);
    awards.sort_unstable();
    awards.dedup();
    assert_eq!(awards.len(), BEHIND as usize + 51, "each once");
}
