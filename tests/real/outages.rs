//! Processes that stand still and brokers that are gone: who takes over, who may commit, and what is left afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crm_event_processors::faults::Gate;
use crm_event_processors::inngest::receiver::Fault;
use crm_event_processors::loyalty::DEMO_PROGRAM;
use crm_event_processors::pipeline::Exit;
use crm_event_processors::rows::Table;

use super::broker::Broker;
use super::load::{Commitments, Load, PARTITIONS, all_committed, balance};
use super::members::share_and_work;
use super::worker::{Inbox, Worker, receiver};
use super::{stack, unique};
use crate::kafka::cluster::Cluster;
use crate::kafka::worker::{World, patiently};

/// The merchant of all purchases here.
const MERCHANT: &str = "m-any";
/// When the platform kills (`render.yaml`). With nothing in hand it takes 7 s at most, the last commit 5 and leaving 2; the rest is a
/// busy machine's.
const END: Duration = Duration::from_secs(60);
/// What a process alone owns: the purchases' partitions, and one of each other ledger.
const OWNED: usize = PARTITIONS as usize + Table::ALL.len() - 1;

/// Whether it is the share of one of two.
const fn is_half(partitions: usize) -> bool {
    partitions == OWNED / 2 || partitions == OWNED.div_ceil(2)
}

/// A process in the cluster's group.
fn process(cluster: &Cluster, inngest: &str) -> Worker {
    let mut worker = Worker::new(&cluster.group(), DEMO_PROGRAM, inngest);
    worker.set("KAFKA_BOOTSTRAP_SERVERS", &cluster.connection().bootstrap_servers);
    worker.set("TOPIC_PREFIX", cluster.prefix());
    worker.is_missed_soon();
    worker
}

/// Waits until a process owns so many partitions. Its endpoint is all there is to ask.
async fn owns(worker: &Worker, partitions: impl Fn(usize) -> bool) {
    let asking = async {
        while !partitions(worker.share().await.0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    patiently("its share", asking).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_loses_its_partitions_and_commits_nothing_over_the_new_owners_progress() {
    let prefix = format!("stopped-{}", unique());
    let cluster = Cluster::real(&stack("KAFKA_BOOTSTRAP_SERVERS"), &prefix, PARTITIONS).await;
    let inbox = Inbox::of(MERCHANT);
    let receiver = receiver(&inbox).await;
    let mut stopped = process(&cluster, &receiver.base_url());
    stopped.set("LOG_FORMAT", "json");
    let mut other = process(&cluster, &receiver.base_url());
    let load = Load::start(&cluster);
    let commitments = Commitments::watch(&cluster);
    stopped.start().await;
    other.start().await;
    owns(&other, is_half).await;
    owns(&stopped, is_half).await;
    load.goes_on(100).await;

    // In the middle of its work: with records in hand, requests and commits under way.
    stopped.signal("STOP").await;
    owns(&other, |partitions| partitions == OWNED).await;
    // The new owner has gone on: everything that was there when it took over is committed, and more.
    load.goes_on(400).await;
    commitments.advance(400).await;
    stopped.signal("CONT").await;
    // It finds that it was thrown out, and joins again.
    owns(&other, |partitions| partitions < OWNED).await;
    owns(&stopped, is_half).await;
    commitments.advance(200).await;

    let produced = load.stop().await;
    all_committed(&cluster).await;
    for worker in [&mut stopped, &mut other] {
        assert_eq!(worker.stop().await, 0, "{}", worker.log());
    }
    commitments.end().await;
    let accepted: Vec<String> = inbox.all().into_iter().map(|event| event.id).collect();
    // What hung in a request of the stopped process may arrive late, once.
    balance(&produced, &accepted, 1);
    assert!(stopped.log().contains(r#""lost":true"#), "{}", stopped.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_go_on_by_themselves_when_the_broker_comes_back() {
    let mut broker = Broker::start();
    let cluster = Cluster::real(&broker.servers(), &format!("restart-{}", unique()), PARTITIONS).await;
    let world = World::on(cluster);
    let load = Load::start(&world);
    let commitments = Commitments::watch(&world);
    let (first, second) = (world.worker().await, world.worker().await);
    share_and_work(&[&first, &second]).await;
    broker.kill().await;
    // Inngest is there: what was fetched is brought to its end without Kafka.
    for worker in [&first, &second] {
        worker
            .wait_until("nothing in hand", |status| {
                status.partitions.iter().all(|partition| partition.outstanding == 0)
            })
            .await;
    }
    broker.come_back();
    share_and_work(&[&first, &second]).await;
    let produced = load.stop().await;
    all_committed(&world).await;
    for worker in [first, second] {
        assert_eq!(worker.stop().await, Exit::Drained { unfinished: 0 });
    }
    commitments.end().await;
    balance(&produced, &world.inngest.accepted().ids(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_told_to_end_while_the_broker_is_away_ends_in_time_and_nothing_is_lost() {
    let mut broker = Broker::start();
    let cluster = Cluster::real(&broker.servers(), &format!("away-{}", unique()), PARTITIONS).await;
    let inbox = Inbox::of(MERCHANT);
    let receiver = receiver(&inbox).await;
    let mut worker = process(&cluster, &receiver.base_url());
    worker.start().await;
    let run = unique();
    cluster.purchase(0, &format!("{run}-committed"), 1).await;
    cluster.wait_committed(crate::kafka::cluster::purchases(0), 1).await;

    // Its award stands before the gate; it is finished while no commit can be made.
    let gate = Gate::default();
    // Three consumers send; whoever comes first waits, and all the others do.
    for _ in 0..3 {
        receiver.faults().push(Fault::Hold(gate.clone()));
    }
    cluster.purchase(0, &format!("{run}-finished"), 2).await;
    patiently("a request", gate.arrived()).await;
    broker.kill().await;
    gate.release();
    inbox
        .wait_until("all of both", |events| {
            events.iter().map(|event| &event.id).collect::<BTreeSet<_>>().len() == 6
        })
        .await;
    let finishing = async {
        while worker.share().await.1 > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    patiently("nothing in hand", finishing).await;
    let began = Instant::now();
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    assert!(began.elapsed() < END, "{:?}: {}", began.elapsed(), worker.log());
    println!("ended without a broker in {:?}", began.elapsed());

    broker.come_back();
    cluster.purchase(0, &format!("{run}-behind"), 3).await;
    worker.start().await;
    all_committed(&cluster).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    let ids: BTreeSet<String> = inbox.all().into_iter().map(|event| event.id).collect();
    let mut expected = BTreeSet::new();
    for (row, lsn) in [("committed", 1), ("finished", 2), ("behind", 3)] {
        for effect in ["currency:award", "tier:evaluation", "mission:evaluation"] {
            expected.insert(format!("{effect}:purchase_ledger:{run}-{row}:{lsn}"));
        }
    }
    assert_eq!(ids, expected, "each change once, by its id");
}
