//! Commits that fail, and brokers that go away: the worker goes on by itself.

use crm_event_processors::consumers::Consumer;
use crm_event_processors::kafka::{Group, Membership, Source};
use crm_event_processors::pipeline::Exit;
use crm_event_processors::pipeline::source::{Command, Commit, Event, Failure, Handle};
use crm_event_processors::progress::Committed;
use crm_event_processors::telemetry::Status;
use futures::future::join_all;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use tokio::sync::oneshot;

use super::cluster::{Cluster, PATIENCE, TOPICS, award_id, purchases};
use super::worker::{World, join, membership, patiently, telemetry};

const DRAINED: Exit = Exit::Drained { unfinished: 0 };

/// Everything before, during and behind the trouble is delivered once.
async fn goes_on_after(trouble: impl AsyncFnOnce(&World)) {
    let world = World::new(1);
    world.purchase(0, "before", 1).await;
    let worker = world.worker().await;
    world.wait_committed(purchases(0), 1).await;
    trouble(&world).await;
    world.purchase(0, "during", 2).await;
    world.wait_for_awards(2).await;
    world.wait_committed(purchases(0), 2).await;
    world.purchase(0, "behind", 3).await;
    world.wait_committed(purchases(0), 3).await;
    assert_eq!(worker.stop().await, DRAINED);
    let expected = [("before", 1), ("during", 2), ("behind", 3)].map(|(id, lsn)| award_id(id, lsn));
    assert_eq!(world.awards(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_loading_delays_commits_and_nothing_else() {
    goes_on_after(async |world| {
        let loading = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 3];
        world.mock().request_errors(RDKafkaApiKey::OffsetCommit, &loading);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_commit_is_made_again() {
    goes_on_after(async |world| {
        let refused = [
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_COMMIT_OFFSET_SIZE,
        ];
        world.mock().request_errors(RDKafkaApiKey::OffsetCommit, &refused);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_an_old_generation_joins_again_and_sends_nothing_twice() {
    goes_on_after(async |world| {
        let fenced = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION];
        world.mock().request_errors(RDKafkaApiKey::OffsetCommit, &fenced);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_go_away_and_come_back_are_found_again() {
    let world = World::new(1);
    world.purchase(0, "before", 1).await;
    let gate = world.hold_deliveries();
    let worker = world.worker().await;
    patiently("a delivery", gate.arrived()).await;
    world.mock().broker_down(1).expect("down");
    // Finished while no commit can be made.
    gate.release();
    world.wait_for_awards(1).await;
    let finished = |status: &Status| status.partitions.iter().all(|partition| partition.outstanding == 0);
    worker.wait_until("finished without kafka", finished).await;
    world.mock().broker_up(1).expect("up");
    world.purchase(0, "behind", 2).await;
    world.wait_committed(purchases(0), 2).await;
    assert_eq!(worker.stop().await, DRAINED);
    assert_eq!(world.awards(), [award_id("before", 1), award_id("behind", 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_refuses_us_ends_the_worker_with_what_to_grant() {
    let world = World::new(1);
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 3];
    world.mock().request_errors(RDKafkaApiKey::JoinGroup, &refused);
    let exit = world.worker().await.ended().await;
    let Exit::Failed(Failure::Configuration(message)) = exit else {
        panic!("{exit:?}");
    };
    assert!(
        message.contains("Grant READ on consumer group crm-event-processors"),
        "{message}"
    );
}

/// A member of a group of its own, with the cluster's purchases assigned to it.
async fn assigned(cluster: &Cluster, group: String) -> (Handle, Source) {
    let alone = Membership {
        group: Group {
            main: group,
            is_subset: false,
            consumers: Consumer::ALL.into_iter().collect(),
        },
        topics: [TOPICS[0].into()].into(),
        ..membership(cluster.connection())
    };
    let (mut handle, source) = join(alone, telemetry()).await.expect("joins");
    let waiting = async { while !matches!(handle.events.recv().await, Some(Event::Assigned(_))) {} };
    patiently("an assignment", waiting).await;
    (handle, source)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_commit_is_never_undone_by_the_one_before_it() {
    let cluster = Cluster::start(1);
    // The client repeats both commits after a while of its own choice, in either order: one try shows nothing.
    let groups: Vec<String> = (0..6).map(|number| format!("group-{number}")).collect();
    let members = join_all(groups.iter().map(|group| assigned(&cluster, group.clone()))).await;
    for (group, (handle, source)) in groups.iter().zip(members) {
        let loading = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 2];
        cluster.mock().request_errors(RDKafkaApiKey::OffsetCommit, &loading);
        let commit = |offset| {
            vec![Commit {
                place: purchases(0),
                progress: Committed {
                    offset,
                    metadata: String::new(),
                },
            }]
        };
        let (reply, answer) = oneshot::channel();
        let close = Command::Close {
            commits: commit(2),
            reply,
        };
        for command in [Command::Commit(commit(1)), close] {
            handle.commands.send(command).await.expect("taken");
        }
        assert_eq!(patiently("the last commit", answer).await, Ok(Ok(())));
        // Or leaving would wait for its answers.
        drop(handle);
        assert!(source.left(PATIENCE).await, "the thread ends");
        assert_eq!(cluster.committed_by(group, purchases(0)), Some(2), "{group}");
    }
}
