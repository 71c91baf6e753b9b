//! What is wrong is said at the start, with what to do about it.

use crm_event_processors::kafka::{Membership, StartError};
use rdkafka::types::RDKafkaRespErr;

use super::cluster::{Cluster, TOPICS, connection_to};
use super::worker::{join, membership, telemetry};

#[tokio::test(flavor = "multi_thread")]
async fn missing_topics_are_named_all_at_once() {
    let cluster = Cluster::start(1);
    let mut wanted = membership(cluster.connection());
    wanted.topics = [TOPICS[0].into(), "crm.public.no_such_table".into()].into();
    wanted.needed.push("crm.dlq.no_such_consumer".to_owned());
    let error = join(wanted, telemetry()).await.expect_err("refused");
    let StartError::MissingTopics { topics } = &error else {
        panic!("{error}");
    };
    assert_eq!(*topics, ["crm.public.no_such_table", "crm.dlq.no_such_consumer"]);
    assert!(error.to_string().contains("check TOPIC_PREFIX"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_may_not_be_read_is_named_with_the_grant() {
    let cluster = Cluster::start(1);
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.mock().topic_error(TOPICS[1], refused).expect("set");
    let error = join(membership(cluster.connection()), telemetry())
        .await
        .expect_err("refused");
    assert!(matches!(error, StartError::Refused { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains(TOPICS[1]) && message.contains("--operations read"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_is_named() {
    // Bound and kept, so that nobody else listens there.
    let silent = tokio::net::TcpSocket::new_v4().expect("a socket");
    silent.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let servers = silent.local_addr().expect("an address").to_string();
    let nobody: Membership = membership(connection_to(&servers));
    let error = join(nobody, telemetry()).await.expect_err("nobody is there");
    assert!(matches!(error, StartError::Unreachable { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains(&servers) && message.contains("KAFKA_BOOTSTRAP_SERVERS"),
        "{message}"
    );
}
