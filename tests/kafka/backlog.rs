//! How far a group has come, asked by somebody who is no member. The mock knows no times of records: to it everything is old.

use crm_event_processors::kafka::Backlog;
use crm_event_processors::reconcile::Progress as _;

use super::cluster::{Cluster, NOW_MS, WALLET, purchases};

#[tokio::test]
async fn a_group_is_behind_until_every_partition_of_its_topics_is_committed() {
    let cluster = Cluster::start(2);
    let backlog = Backlog {
        connection: cluster.connection(),
        group: cluster.group(),
        topics: vec![cluster.topic(purchases(0)), cluster.topic(WALLET)],
    };
    let behind = async || backlog.behind(NOW_MS).await;
    assert_eq!(behind().await, Ok(None), "nothing was ever written");
    for partition in [0, 1, 1] {
        cluster.purchase(partition, "p", 1).await;
    }
    let first = format!("{}/0", cluster.topic(purchases(0)));
    let second = format!("{}/1", cluster.topic(purchases(0)));
    assert_eq!(behind().await, Ok(Some(first)), "nothing was ever committed");
    cluster.commit(purchases(0), 1, "");
    cluster.commit(purchases(1), 1, "");
    assert_eq!(behind().await, Ok(Some(second)));
    cluster.commit(purchases(1), 2, "");
    assert_eq!(behind().await, Ok(None));
}
