//! SIGTERM while the brokers are away: the process must not hang.

use crm_event_processors::pipeline::Exit;

use super::cluster::{PATIENCE, award_id, purchases};
use super::process::Process;
use super::worker::{World, patiently};

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_without_brokers_ends_within_its_deadlines() {
    let world = World::new(1);
    world.purchase(0, "finished-without-brokers", 1).await;
    let gate = world.hold_deliveries();
    let worker = world.worker().await;
    world.wait_committed(purchases(0), 0).await;
    patiently("a delivery", gate.arrived()).await;
    world.mock().broker_down(1).expect("down");
    gate.release();
    worker
        .wait_until("finished", |status| {
            status.partitions.iter().all(|partition| partition.outstanding == 0)
        })
        .await;
    let (exit, source) = worker.stop_and_stay().await;
    assert_eq!(exit, Exit::Drained { unfinished: 0 });

    assert_eq!(world.awards(), [award_id("finished-without-brokers", 1)]);

    // A process would end here. The client that this test leaves behind goes only when it is answered, and its last
    // commit may still arrive: of what was finished, and of nothing more.
    world.mock().broker_up(1).expect("up");
    assert!(source.left(PATIENCE).await, "with brokers it leaves");
    let committed = world.committed(purchases(0));
    assert!(matches!(committed, Some(0 | 1)), "{committed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_before_it_has_joined_ends_with_0() {
    // Takes connections, and never says anything.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    let mut worker = Process::start("stopped", &address, &[]);
    // The last thing before it turns to Kafka.
    worker.says("dedupe store").await;
    worker.terminate();
    assert_eq!(worker.ended().await, Some(0), "{}", worker.log);
}
