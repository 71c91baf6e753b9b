//! Members that come and go on a real broker while records flow: the library's worker, several in this process.
//!
//! A platform lets the old and the new instances of a deploy run side by side for a minute. These tests wait until both
//! have worked instead: it is the work that shows something, not the time.

use std::collections::BTreeMap;
use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::pipeline::Exit;

use super::load::{ALL_PARTITIONS, Commitments, Load, all_committed, balance, balance_of};
use super::{stack, unique};
use crate::kafka::cluster::Cluster;
use crate::kafka::worker::{Start, Worker, World, patiently};

const DRAINED: Exit = Exit::Drained { unfinished: 0 };
const PARTITIONS: i32 = super::load::PARTITIONS;
/// How many awards show that a member works.
const SOME: u64 = 20;

async fn world() -> World {
    let prefix = format!("members-{}", unique());
    World::on(Cluster::real(&stack("KAFKA_BOOTSTRAP_SERVERS"), &prefix, PARTITIONS).await)
}

/// Waits until these members share all partitions evenly, and then until each has done something.
pub(super) async fn share_and_work(members: &[&Worker]) {
    let share = ALL_PARTITIONS / members.len();
    let sharing = async {
        loop {
            let shares = members.iter().map(|member| member.telemetry.status().partitions.len());
            let shares: Vec<usize> = shares.collect();
            if shares.iter().sum::<usize>() == ALL_PARTITIONS && shares.iter().all(|mine| *mine >= share) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    patiently("an even share", sharing).await;
    // Whoever holds none of the purchases has nothing to do.
    let busy = members.iter().filter(|member| {
        let status = member.telemetry.status();
        status.partitions.iter().any(|partition| partition.place.topic == 0)
    });
    for member in busy {
        works(member).await;
    }
}

async fn works(member: &Worker) {
    let done = || {
        let outcomes = ["delivered", "superseded", "duplicate"].into_iter();
        let done = outcomes.map(|outcome| member.telemetry.outcomes(Consumer::Currency, outcome));
        done.sum::<u64>()
    };
    let enough = done() + SOME;
    member.wait_until("it works", |_| done() >= enough).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_up_to_three_members_join_and_leave_under_load_nothing_is_lost_or_doubled() {
    let world = world().await;
    let load = Load::start(&world);
    let commitments = Commitments::watch(&world);
    let first = world.worker().await;
    share_and_work(&[&first]).await;
    let second = world.worker().await;
    share_and_work(&[&first, &second]).await;
    let third = world.worker().await;
    share_and_work(&[&first, &second, &third]).await;
    assert_eq!(first.stop().await, DRAINED);
    share_and_work(&[&second, &third]).await;
    // Without a last commit: what it had accepted and not committed is met again, and found done or sent with its id.
    third.crash().await;
    let (fourth, fifth) = (world.worker().await, world.worker().await);
    share_and_work(&[&second, &fourth, &fifth]).await;
    // Two at once.
    let (second, fifth) = tokio::join!(second.stop(), fifth.stop());
    assert_eq!([second, fifth], [DRAINED; 2]);
    share_and_work(&[&fourth]).await;
    let produced = load.stop().await;
    all_committed(&world).await;
    assert_eq!(fourth.stop().await, DRAINED);
    commitments.end().await;
    balance(&produced, &world.inngest.accepted().ids(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_whose_old_and_new_members_overlap_loses_nothing_for_anybody() {
    let world = world().await;
    let two = Start {
        consumers: vec![Consumer::Currency, Consumer::Tier],
        ..Start::default()
    };
    let load = Load::start(&world);
    let commitments = Commitments::watch(&world);
    let old = [world.worker_with(two.clone()).await, world.worker_with(two).await];
    share_and_work(&[&old[0], &old[1]]).await;

    // The overlap: partitions go to new members and back to old ones, which must carry the third consumer's watermark.
    let [old_first, old_second] = old;
    let new_first = world.worker().await;
    share_and_work(&[&old_first, &old_second, &new_first]).await;
    let new_second = world.worker().await;
    let everybody = [&old_first, &old_second, &new_first, &new_second];
    share_and_work(&everybody).await;
    assert_eq!(
        new_second.stop().await,
        DRAINED,
        "what it had goes back to the old ones, some of it"
    );
    share_and_work(&[&old_first, &old_second, &new_first]).await;
    let new_second = world.worker().await;
    share_and_work(&[&old_first, &old_second, &new_first, &new_second]).await;

    for old in [old_first, old_second] {
        assert_eq!(old.stop().await, DRAINED);
    }
    share_and_work(&[&new_first, &new_second]).await;
    let produced = load.stop().await;
    all_committed(&world).await;
    for new in [new_first, new_second] {
        assert_eq!(new.stop().await, DRAINED);
    }
    let first = commitments.end().await;
    let accepted = world.inngest.accepted().ids();
    for consumer in [Consumer::Currency, Consumer::Tier] {
        println!(
            "{}: {}",
            consumer.name(),
            balance_of(consumer, &produced, &accepted, 0, |_| true)
        );
    }
    // The third consumer began where the commitment stood when a new member first had the partition.
    let of_mission = first
        .into_iter()
        .filter(|((_, name), _)| **name == *Consumer::Mission.name());
    let starts: BTreeMap<i32, i64> = of_mission.map(|((partition, _), mark)| (partition, mark)).collect();
    assert_eq!(starts.len(), 4, "it has begun everywhere");
    assert!(
        starts.values().any(|start| *start > 0),
        "and not at the logs' begin: {starts:?}"
    );
    let figures = balance_of(Consumer::Mission, &produced, &accepted, 0, |change| {
        change.is_from(&starts)
    });
    println!("mission, from {starts:?}: {figures}");
}

/// The value of a counter, over all label sets that contain this text.
fn counted(member: &Worker, name: &str, label: &str) -> u64 {
    let text = member.telemetry.scrape().expect("encoded");
    let samples: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
        .collect();
    assert!(!samples.is_empty(), "no {name} with {label} in {text}");
    let value = |line: &&str| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok());
    samples.iter().map(|line| value(line).expect("a count")).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_steady_state_no_rebalance_happens_however_often_is_committed() {
    let world = world().await;
    let load = Load::start(&world);
    let (first, second) = (world.worker().await, world.worker().await);
    let members = [&first, &second];
    share_and_work(&members).await;
    let rebalances = || members.map(|member| counted(member, "crm_rebalances", "kind"));
    let confirmed = || members.map(|member| counted(member, "crm_offset_commits", "confirmed"));
    let (before, begun) = (rebalances(), confirmed());
    // A commit every 100 ms: so many take longer than a session, with many heartbeats.
    let committing = async {
        loop {
            let since: Vec<u64> = confirmed().iter().zip(begun).map(|(now, begun)| now - begun).collect();
            if since.iter().all(|commits| *commits >= 150) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    patiently("that many commits of each", committing).await;
    assert_eq!(rebalances(), before, "flat");
    load.stop().await;
    all_committed(&world).await;
    for member in [first, second] {
        assert_eq!(member.stop().await, DRAINED);
    }
}
