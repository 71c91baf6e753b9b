//! A committed offset outside of its log: records are missing, and somebody has to know before work goes on.

use std::net::SocketAddr;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::pipeline::Exit;
use crm_event_processors::progress::Orders;
use crm_event_processors::telemetry::http;
use crm_event_processors::telemetry::reach::Reach;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::cluster::{award_id, purchases};
use super::worker::{Start, Worker, World};

const DRAINED: Exit = Exit::Drained { unfinished: 0 };
const BEYOND_THE_END: i64 = 100;

async fn readiness(worker: &Worker) -> String {
    let stop = CancellationToken::new();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let served = http::serve(
        any,
        http::routes(worker.telemetry.clone(), Reach::of(any)),
        stop.child_token(),
    )
    .await;
    let (address, _task) = served.expect("bound");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let request = b"GET /readyz HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    stop.cancel();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commitment_outside_the_log_halts_its_partition_until_the_gap_is_accepted() {
    a_commitment_outside_the_log_halts_and_the_gap_is_accepted(World::new(2)).await;
}

pub(crate) async fn a_commitment_outside_the_log_halts_and_the_gap_is_accepted(world: World) {
    for (partition, id, lsn) in [(0, "behind-the-gap", 1), (1, "sound", 2)] {
        world.purchase(partition, id, lsn).await;
    }
    world.commit(purchases(0), BEYOND_THE_END, "");

    let worker = world.worker().await;
    world.wait_committed(purchases(1), 1).await;
    // Behind the first, so that the halted partition has had its chance.
    world.purchase(0, "more-behind-the-gap", 3).await;
    world.purchase(1, "sound-too", 4).await;
    world.wait_committed(purchases(1), 2).await;
    assert_eq!(worker.telemetry.halted_partitions().len(), 1);
    // It lags all the same, from the log's begin, and grows with what comes in: nobody fetches it, so somebody has to ask.
    let lag = |worker: &Worker| -> i64 {
        let lags = worker.telemetry.lags().into_iter();
        let of_it = lags.filter(|(consumer, place, _)| (*consumer, *place) == (Consumer::Currency, purchases(0)));
        of_it.map(|(.., lag)| lag).sum()
    };
    worker.wait_until("a lag of 2", |_| lag(&worker) == 2).await;
    let answer = readiness(&worker).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("purchase_ledger/0 halted: the committed offset 100 lies outside the log"),
        "{answer}"
    );
    assert_eq!(world.committed(purchases(0)), Some(BEYOND_THE_END), "left as it was");
    assert_eq!(worker.stop().await, DRAINED);
    assert_eq!(world.awards(), [award_id("sound", 2), award_id("sound-too", 4)]);
    assert_eq!(world.committed(purchases(0)), Some(BEYOND_THE_END), "left as it was");

    let start = Start {
        orders: Orders {
            accept_gap: true,
            dropped: Vec::new(),
        },
        ..Start::default()
    };
    let worker = world.worker_with(start).await;
    world.wait_committed(purchases(0), 2).await;
    assert_eq!(worker.telemetry.halted_partitions().len(), 0);
    assert!(readiness(&worker).await.starts_with("HTTP/1.1 200"));
    assert_eq!(worker.stop().await, DRAINED);
    let mut behind = world.awards().split_off(2);
    behind.sort();
    assert_eq!(
        behind,
        [award_id("behind-the-gap", 1), award_id("more-behind-the-gap", 3)]
    );
}
