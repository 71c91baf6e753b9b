//! Progress in the commit metadata on a real broker, which limits its size and checks who may commit.

use crate::kafka::cluster::Cluster;
use crate::kafka::consumer_sets::{
    a_subset_is_seeded_and_the_main_group_refused, the_third_consumer_loses_nothing_in_a_deploy_and_its_roll_back,
};
use crate::kafka::worker::World;

use super::{stack, unique};

async fn world() -> World {
    let prefix = format!("sets-{}", unique());
    World::on(Cluster::real(&stack("KAFKA_BOOTSTRAP_SERVERS"), &prefix, 1).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_broker_a_deploy_to_a_third_consumer_and_its_roll_back_lose_nothing() {
    the_third_consumer_loses_nothing_in_a_deploy_and_its_roll_back(world().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_broker_a_subset_is_seeded_and_the_main_group_refused() {
    a_subset_is_seeded_and_the_main_group_refused(world().await).await;
}
