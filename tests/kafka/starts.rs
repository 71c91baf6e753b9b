//! Where a member starts: at what is committed, else at the log's begin.

use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::dedupe::memory::MemoryStore;
use crm_event_processors::kafka::StartAt;
use crm_event_processors::pipeline::Exit;

use futures::future::join_all;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::cluster::{FORMS, Raw, WALLET, award_id, purchase, purchases};
use super::worker::{Start, World, patiently};

const DRAINED: Exit = Exit::Drained { unfinished: 0 };

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_at_what_is_committed() {
    let mut world = World::new(2);
    for lsn in 1..=20 {
        world.purchase(i32::from(lsn % 2 == 0), &format!("p-{lsn}"), lsn).await;
    }
    let worker = world.worker().await;
    world
        .wait_all_committed(&[purchases(0), purchases(1), WALLET, FORMS])
        .await;
    assert_eq!(world.awards().len(), 20);
    assert_eq!(worker.stop().await, DRAINED);

    // With nothing remembered, a record that is read again would be sent again.
    world.store = MemoryStore::default();
    for lsn in 21..=25 {
        world.purchase(i32::from(lsn % 2 == 0), &format!("p-{lsn}"), lsn).await;
    }
    let worker = world.worker().await;
    world.wait_all_committed(&[purchases(0), purchases(1)]).await;
    assert_eq!(worker.stop().await, DRAINED);
    let mut awards = world.awards();
    awards.sort();
    let mut expected: Vec<String> = (1..=25).map(|lsn| award_id(&format!("p-{lsn}"), lsn)).collect();
    expected.sort();
    assert_eq!(awards, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_shadow_starts_where_it_is_told_and_goes_on_where_it_was() {
    let mut world = World::new(1);
    let told = |start_at| Start {
        start_at: Some(start_at),
        ..Start::default()
    };
    for lsn in 1..=3 {
        world.purchase(0, &format!("p-{lsn}"), lsn).await;
    }
    let worker = world.worker_with(told(StartAt::End)).await;
    world.wait_all_committed(&[purchases(0)]).await;
    world.purchase(0, "p-4", 4).await;
    world.wait_for_awards(1).await;
    world.wait_all_committed(&[purchases(0)]).await;
    assert_eq!(worker.stop().await, DRAINED);
    // What it has committed counts, whatever it is told, and with nothing remembered.
    world.store = MemoryStore::default();
    world.purchase(0, "p-5", 5).await;
    let worker = world.worker_with(told(StartAt::Begin)).await;
    world.wait_for_awards(2).await;
    assert_eq!(worker.stop().await, DRAINED);
    assert_eq!(world.awards(), [award_id("p-4", 4), award_id("p-5", 5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_commitment_starts_at_its_begin_which_is_committed_at_once() {
    let world = World::new(3);
    // The mock keeps 5 MiB of a partition: the oldest of these are gone.
    for lsn in 1..=12 {
        let large = Raw {
            headers: vec![("padding".to_owned(), Some(vec![b'x'; 600_000]))],
            ..purchase(&format!("large-{lsn}"), lsn)
        };
        world.produce(purchases(0), &large).await;
    }
    world.purchase(1, "small", 100).await;
    let (begin, end) = world.log(purchases(0));
    assert!(begin > 0 && end == 12, "{begin}..{end}");

    let gate = world.hold_deliveries();
    let worker = world.worker().await;
    for (place, offset) in [
        (purchases(0), begin),
        (purchases(1), 0),
        (purchases(2), 0),
        (WALLET, 0),
        (FORMS, 0),
    ] {
        world.wait_committed(place, offset).await;
    }
    assert!(world.inngest.accepted().is_empty(), "before anything was finished");
    gate.release();
    world.wait_all_committed(&[purchases(0), purchases(1)]).await;
    assert_eq!(
        world.awards().len(),
        usize::try_from(end - begin + 1).expect("a length")
    );
    assert_eq!(worker.stop().await, DRAINED);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_the_next_member_reads_again_what_was_not_committed() {
    let world = World::new(1);
    let never = Duration::from_secs(3600);
    let crashing = world
        .worker_with(Start {
            commit_interval: never,
            ..Start::default()
        })
        .await;
    for (id, lsn) in [("done-1", 1), ("done-2", 2)] {
        world.purchase(0, id, lsn).await;
    }
    let confirmed = async {
        while crashing.telemetry.outcomes(Consumer::Currency, "delivered") < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    patiently("two awards delivered and confirmed", confirmed).await;
    let gate = world.hold_deliveries();
    world.purchase(0, "open", 3).await;
    patiently("the delivery that the crash interrupts", gate.arrived()).await;
    crashing.crash().await;
    gate.release();
    assert_eq!(world.committed(purchases(0)), None, "a crash commits nothing");
    assert_eq!(world.awards().len(), 2, "what was in flight ended with the process");

    let next = world.worker().await;
    world.wait_committed(purchases(0), 3).await;
    assert_eq!(next.telemetry.outcomes(Consumer::Currency, "duplicate"), 2);
    assert_eq!(next.stop().await, DRAINED);
    let expected = [("done-1", 1), ("done-2", 2), ("open", 3)].map(|(id, lsn)| award_id(id, lsn));
    assert_eq!(sorted(world.awards()), expected);
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_at_an_assignment_that_fails_in_passing_is_made_again() {
    // More often than the client repeats the request by itself, as while a broker starts.
    let troubles = [
        (
            RDKafkaApiKey::OffsetFetch,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
        ),
        (
            RDKafkaApiKey::ListOffsets,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        ),
        (
            RDKafkaApiKey::ListOffsets,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        ),
    ];
    let starts = troubles.map(async |(request, error)| {
        let world = World::new(1);
        world.purchase(0, "p", 1).await;
        let worker = world.worker().await;
        // It has asked to join, and waits; the look-ups come with the assignment.
        world.mock().request_errors(request, &[error; 8]);
        worker
            .wait_until("an assignment", |status| !status.partitions.is_empty())
            .await;
        world.wait_committed(purchases(0), 1).await;
        assert_eq!(worker.stop().await, DRAINED, "{request:?} {error:?}");
    });
    join_all(starts).await;
}
