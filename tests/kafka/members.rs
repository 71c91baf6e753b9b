//! Two members: partitions move while records flow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::pipeline::Exit;
use tokio_util::sync::CancellationToken;

use super::cluster::{TOPICS, award_id, produce, purchase, purchases};
use super::worker::{Start, World, patiently};

const PARTITIONS: i32 = 4;
/// The purchases, each with many changes.
const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// The changes of each purchase that were awarded, in the order of acceptance.
fn awarded(ids: &[String]) -> BTreeMap<String, Vec<u32>> {
    let mut changes: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for id in ids {
        let mut parts = id.rsplit(':');
        let lsn = parts.next().and_then(|lsn| lsn.parse().ok()).expect("a change");
        changes
            .entry(parts.next().expect("a purchase").to_owned())
            .or_default()
            .push(lsn);
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_partitions_move_to_a_second_member_and_on_when_the_first_leaves() {
    let world = World::new(PARTITIONS);
    let enough = CancellationToken::new();
    let (producer, stop) = (world.producer(), enough.clone());
    let load = tokio::spawn(async move {
        let mut lsn = 0;
        while !stop.is_cancelled() {
            lsn += 1;
            for (partition, id) in (0..PARTITIONS).cycle().zip(IDS) {
                produce(&producer, TOPICS[0], partition, &purchase(id, lsn)).await;
            }
        }
        lsn
    });
    let first = world.worker().await;
    world.wait_for_awards(IDS.len()).await;
    let second = world.worker().await;
    // Six partitions in all; both work, and the first keeps some throughout.
    second
        .wait_until("some partitions moved", |status| status.partitions.len() == 3)
        .await;
    first
        .wait_until("and some stayed", |status| status.partitions.len() == 3)
        .await;
    assert_eq!(
        first.stop().await,
        Exit::Drained { unfinished: 0 },
        "what was in hand is finished"
    );
    second
        .wait_until("all are the second's", |status| status.partitions.len() == 6)
        .await;
    enough.cancel();
    let last = load.await.expect("produced");
    let all: Vec<_> = (0..PARTITIONS).map(purchases).collect();
    world.wait_all_committed(&all).await;
    assert_eq!(second.stop().await, Exit::Drained { unfinished: 0 });

    let ids = world.awards();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "nothing twice");
    let awarded = awarded(&ids);
    for id in IDS {
        let changes = &awarded[id];
        // An older change of the same batch is superseded; the last of all never is.
        assert!(changes.is_sorted(), "{id}: in order: {changes:?}");
        assert_eq!(changes.last(), Some(&last), "{id}: to its end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_ends_after_its_partition_was_taken_away_is_not_committed() {
    let world = World::new(2);
    let start = Start {
        // Less than the delivery takes: it is not waited for.
        revoke_deadline: Duration::from_millis(100),
        ..Start::default()
    };
    // The currency consumer reads both partitions; its lanes stand before the gate.
    let gate = world.hold_deliveries();
    let first = world.worker_with(start.clone()).await;
    for (partition, id, lsn) in [(0, "a", 1), (1, "b", 2)] {
        world.purchase(partition, id, lsn).await;
    }
    patiently("a delivery", gate.arrived()).await;
    first
        .wait_until("both in hand", |status| {
            status
                .partitions
                .iter()
                .map(|partition| partition.outstanding)
                .sum::<usize>()
                == 2
        })
        .await;
    let second = world.worker_with(start).await;
    second
        .wait_until("a partition moved", |status| !status.partitions.is_empty())
        .await;
    // The first has given up on its delivery, and the second waits for its lease, or stands before the same gate.
    assert_eq!(
        [0, 1].map(|partition| world.committed(purchases(partition))),
        [Some(0); 2]
    );
    gate.release();
    for partition in [0, 1] {
        world.wait_committed(purchases(partition), 1).await;
    }
    let counted = [&first, &second].map(|worker| {
        let outcomes = ["delivered", "duplicate"].into_iter();
        outcomes
            .map(|outcome| worker.telemetry.outcomes(Consumer::Currency, outcome))
            .sum::<u64>()
    });
    assert_eq!(counted, [1, 1], "each by its owner, and nothing by who came late");
    for worker in [first, second] {
        assert_eq!(worker.stop().await, Exit::Drained { unfinished: 0 });
    }
    let accepted: BTreeSet<String> = world.awards().into_iter().collect();
    assert_eq!(accepted, [award_id("a", 1), award_id("b", 2)].into());
}
