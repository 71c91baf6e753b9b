//! A target that takes nothing: memory stays within its budget, and the thread keeps polling.

use std::time::{Duration, Instant};

use crm_event_processors::pipeline::Exit;

use super::cluster::{award_id, purchases};
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
        let tick = Instant::now();
        let polled = async {
            loop {
                // First, so that only a poll behind the tick counts.
                let since = tick.elapsed();
                if worker.telemetry.ages().0 < since {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        patiently("another poll", polled).await;
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
