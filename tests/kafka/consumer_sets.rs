//! Who runs in the group, and where everybody goes on: consumers that come and go, and subsets with a group of their own.

use crm_event_processors::consumers::Consumer;
use crm_event_processors::dedupe::memory::MemoryStore;
use crm_event_processors::kafka::{StartAt, StartError};
use crm_event_processors::pipeline::Exit;
use crm_event_processors::progress::Orders;
use crm_event_processors::progress::frame::{self, Reading, Watermarks};
use crm_event_processors::record::TopicPartition;

use super::cluster::purchases;
use super::worker::{Start, World, patiently};

const DRAINED: Exit = Exit::Drained { unfinished: 0 };
const PLACE: TopicPartition = purchases(0);

fn of(consumers: &[Consumer]) -> Start {
    Start {
        consumers: consumers.to_vec(),
        ..Start::default()
    }
}

fn subset(consumers: &[Consumer]) -> Start {
    Start {
        is_subset: true,
        ..of(consumers)
    }
}

fn marks(entries: &[(&str, i64)]) -> Watermarks {
    entries.iter().map(|(name, mark)| ((*name).into(), *mark)).collect()
}

/// Waits until the group's metadata of the partition says this.
async fn wait_marks(world: &World, entries: &[(&str, i64)]) {
    let expected = Reading::Frame(marks(entries));
    let asking = async {
        while world.metadata(PLACE).map(|metadata| frame::read(&metadata)) != Some(expected.clone()) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    patiently(&format!("metadata {entries:?}"), asking).await;
}

/// Waits until what another group has committed is like this.
async fn wait_committed_by(world: &World, group: &str, wanted: impl Fn(Option<i64>) -> bool) {
    let asking = async {
        while !wanted(world.committed_by(group, PLACE)) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    patiently(&format!("a commit of {group}"), asking).await;
}

async fn purchases_of(world: &World, ids: std::ops::RangeInclusive<u32>) {
    for lsn in ids {
        world.purchase(0, &format!("p-{lsn}"), lsn).await;
    }
}

fn ids(consumer: Consumer, effect: &str, of: std::ops::RangeInclusive<u32>) -> Vec<String> {
    of.map(|lsn| format!("{}:{effect}:purchase_ledger:p-{lsn}:{lsn}", consumer.name()))
        .collect()
}

/// Two consumers, then three, back to two, and three again: nothing remembered by the dedupe store in between, so that
/// whatever is done twice shows.
pub(crate) async fn the_third_consumer_loses_nothing_in_a_deploy_and_its_roll_back(mut world: World) {
    let two = of(&[Consumer::Currency, Consumer::Tier]);
    purchases_of(&world, 1..=3).await;
    let old = world.worker_with(two.clone()).await;
    wait_marks(&world, &[("currency", 3), ("tier", 3)]).await;
    assert_eq!(old.stop().await, DRAINED);

    // The deploy. Mission is new: it starts at the committed offset.
    world.store = MemoryStore::default();
    let new = world.worker().await;
    purchases_of(&world, 4..=4).await;
    wait_marks(&world, &[("currency", 4), ("mission", 4), ("tier", 4)]).await;
    assert_eq!(new.stop().await, DRAINED);

    // The roll-back. Mission's watermark is carried forward and holds the committed offset; the others advance, also over
    // a restart.
    for next in [6, 8] {
        world.store = MemoryStore::default();
        let old = world.worker_with(two.clone()).await;
        purchases_of(&world, next - 1..=next).await;
        wait_marks(
            &world,
            &[("currency", next.into()), ("mission", 4), ("tier", next.into())],
        )
        .await;
        assert_eq!(world.committed(PLACE), Some(4));
        assert_eq!(
            old.telemetry
                .status()
                .partitions
                .iter()
                .filter(|one| !one.absent.is_empty())
                .count(),
            1
        );
        assert_eq!(old.stop().await, DRAINED);
    }

    // The deploy again: mission does what it has not done, the others do nothing again.
    world.store = MemoryStore::default();
    let new = world.worker().await;
    wait_marks(&world, &[("currency", 8), ("mission", 8), ("tier", 8)]).await;
    assert_eq!(new.stop().await, DRAINED);
    assert_eq!(
        world.accepted_of(Consumer::Currency),
        ids(Consumer::Currency, "award", 1..=8)
    );
    let missions = world.accepted_of(Consumer::Mission);
    let expected = ids(Consumer::Mission, "evaluation", 4..=8);
    assert_eq!(missions, expected, "from its first committed offset on, each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_from_two_to_three_consumers_and_its_roll_back_lose_nothing_for_the_third() {
    the_third_consumer_loses_nothing_in_a_deploy_and_its_roll_back(World::new(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_consumer_holds_nothing_any_more() {
    what_a_dropped_consumer_held_is_free(World::new(1)).await;
}

pub(crate) async fn what_a_dropped_consumer_held_is_free(world: World) {
    purchases_of(&world, 1..=3).await;
    let metadata = frame::write(&marks(&[("currency", 2), ("mission", 2), ("reward", 1), ("tier", 2)]));
    world.commit(PLACE, 1, &metadata);
    let worker = world.worker().await;
    wait_marks(&world, &[("currency", 3), ("mission", 3), ("reward", 1), ("tier", 3)]).await;
    assert_eq!(worker.stop().await, DRAINED);
    assert_eq!(world.committed(PLACE), Some(1), "reward may come back");

    let orders = Orders {
        dropped: vec!["reward".to_owned()],
        ..Orders::default()
    };
    let worker = world
        .worker_with(Start {
            orders,
            ..Start::default()
        })
        .await;
    wait_marks(&world, &[("currency", 3), ("mission", 3), ("tier", 3)]).await;
    assert_eq!(world.committed(PLACE), Some(3));
    assert_eq!(worker.stop().await, DRAINED);
    assert_eq!(
        world.accepted_of(Consumer::Currency),
        ids(Consumer::Currency, "award", 3..=3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_metadata_is_ignored_and_a_frame_of_a_later_version_halts() {
    damage_is_ignored_and_a_later_version_halts(World::new(2)).await;
}

pub(crate) async fn damage_is_ignored_and_a_later_version_halts(world: World) {
    for (partition, lsn) in [(0, 1), (1, 2), (0, 3), (1, 4)] {
        world.purchase(partition, &format!("p-{lsn}"), lsn).await;
    }
    world.commit(purchases(0), 0, "crm/1;currency=2,mission=2,tier=2;00000000");
    let later = "crm/2;";
    world.commit(
        purchases(1),
        0,
        &format!("{later};{:08x}", crc32fast::hash(later.as_bytes())),
    );
    let worker = world.worker().await;
    world.wait_committed(purchases(0), 2).await;
    assert_eq!(worker.telemetry.halted_partitions().len(), 1);
    assert_eq!(worker.stop().await, DRAINED);
    assert_eq!(world.committed(purchases(1)), Some(0), "left as it was");
    let expected: Vec<String> = [1, 3]
        .map(|lsn| ids(Consumer::Currency, "award", lsn..=lsn).concat())
        .to_vec();
    assert_eq!(world.accepted_of(Consumer::Currency), expected);
}

/// A subset goes on where the main group's metadata says, and the main group does not start any more.
pub(crate) async fn a_subset_is_seeded_and_the_main_group_refused(world: World) {
    purchases_of(&world, 1..=4).await;
    let refused = world
        .try_worker(subset(&[Consumer::Tier]))
        .await
        .expect_err("nothing to start from");
    assert!(matches!(refused, StartError::Unseeded { .. }), "{refused}");
    let message = refused.to_string();
    assert!(
        message.contains("--start-at") && message.contains(&world.topic(PLACE)),
        "{message}"
    );

    // The main group has done everything up to 2, mission up to 3.
    for place in [PLACE, super::cluster::WALLET, super::cluster::FORMS] {
        let done = if place == PLACE { 2 } else { 0 };
        let entries = [
            ("currency", done),
            ("mission", if place == PLACE { 3 } else { 0 }),
            ("tier", done),
        ];
        world.commit(place, done, &frame::write(&marks(&entries)));
    }
    let worker = world.worker_with(subset(&[Consumer::Mission])).await;
    let group = format!("{}-mission", world.group());
    wait_committed_by(&world, &group, |committed| committed == Some(4)).await;
    assert_eq!(worker.stop().await, DRAINED);
    assert_eq!(
        world.accepted_of(Consumer::Mission),
        ids(Consumer::Mission, "evaluation", 4..=4)
    );
    assert_eq!(world.committed(PLACE), Some(2), "the main group's is left alone");

    // Its own commitment counts from now on; and what is in two groups is refused.
    let again = world.worker_with(subset(&[Consumer::Mission])).await;
    assert_eq!(again.stop().await, DRAINED);
    for overlapping in [Start::default(), subset(&[Consumer::Tier, Consumer::Mission])] {
        let refused = world
            .try_worker(overlapping)
            .await
            .expect_err("mission works elsewhere");
        assert!(
            matches!(&refused, StartError::WorksElsewhere { rival, .. } if *rival == group),
            "{refused}"
        );
    }
    let rest = world.worker_with(subset(&[Consumer::Currency, Consumer::Tier])).await;
    assert_eq!(rest.stop().await, DRAINED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subset_is_seeded_from_the_main_group_which_is_refused_from_then_on() {
    a_subset_is_seeded_and_the_main_group_refused(World::new(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subset_without_a_seed_starts_where_it_is_told() {
    for (consumer, start_at, position) in [
        (Consumer::Tier, StartAt::End, 3),
        (Consumer::Mission, StartAt::Begin, 0),
        // Later than every record.
        (
            Consumer::Currency,
            StartAt::Time("2100-01-01T00:00:00Z".parse().expect("a time")),
            3,
        ),
    ] {
        let world = World::new(1);
        purchases_of(&world, 1..=3).await;
        let gate = world.hold_deliveries();
        let start = Start {
            start_at: Some(start_at),
            ..subset(&[consumer])
        };
        let worker = world.worker_with(start).await;
        let group = format!("{}-{}", world.group(), consumer.name());
        wait_committed_by(&world, &group, |committed| committed.is_some()).await;
        assert_eq!(world.committed_by(&group, PLACE), Some(position), "{start_at:?}");
        worker.crash().await;
        gate.release();
    }
}
