//! Progress in the commit metadata on a real broker, which limits its size and checks who may commit.

use crate::kafka::cluster::Cluster;
use crate::kafka::worker::World;
use crate::kafka::{consumer_sets, halts};

use super::{stack, unique};

async fn world(partitions: i32) -> World {
    let prefix = format!("sets-{}", unique());
    World::on(Cluster::real(&stack("KAFKA_BOOTSTRAP_SERVERS"), &prefix, partitions).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_broker_a_deploy_to_a_third_consumer_and_its_roll_back_lose_nothing() {
    consumer_sets::the_third_consumer_loses_nothing_in_a_deploy_and_its_roll_back(world(1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_broker_a_subset_is_seeded_and_the_main_group_refused() {
    consumer_sets::a_subset_is_seeded_and_the_main_group_refused(world(1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_broker_a_dropped_consumer_holds_nothing_any_more() {
    consumer_sets::what_a_dropped_consumer_held_is_free(world(1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_broker_damaged_metadata_is_ignored_and_a_frame_of_a_later_version_halts() {
    consumer_sets::damage_is_ignored_and_a_later_version_halts(world(2).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_broker_a_commitment_outside_the_log_halts_until_the_gap_is_accepted() {
    halts::a_commitment_outside_the_log_halts_and_the_gap_is_accepted(world(2).await).await;
}
