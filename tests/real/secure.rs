//! Through `SASL_SSL`, as on Confluent Cloud: our own authority, a user with a password, and no more grants than
//! `docs/confluent-cloud.md` names. Then every one of them missing.

use std::time::Instant;

use crm_event_processors::dead_letters::Queue;
use crm_event_processors::inngest::receiver::Fault;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio_postgres::NoTls;

use super::grants::{Right, may_no_longer, may_only};
use super::topics::{self, LEDGERS, PURCHASES, WALLET};
use super::worker::{Accepted, Inbox, PATIENCE, Worker, receiver};
use super::{stack, unique};

const PROGRAM: &str = crm_event_processors::loyalty::DEMO_PROGRAM;
const NOBODY: &str = "http://127.0.0.1:9";
const CURRENCY_LETTERS: &str = "crm.dlq.currency";

const LETTERS: [&str; 6] = [
    "crm.dlq.decode",
    CURRENCY_LETTERS,
    "crm.dlq.tier",
    "crm.dlq.mission",
    "crm.dlq.reward",
    "crm.dlq.marketplace",
];

/// Exactly what the document says.
fn documented(group: &str) -> Vec<Right<'_>> {
    let mut rights = vec![Right::Join(group)];
    rights.extend(LEDGERS.map(Right::Read));
    rights.extend(LETTERS.map(Right::Write));
    rights
}

/// A worker that comes in through `SASL_SSL`.
fn worker(user: &str, group: &str, program: &str, inngest: &str) -> Worker {
    let mut worker = Worker::new(group, program, inngest);
    worker.set("KAFKA_BOOTSTRAP_SERVERS", &stack("KAFKA_SASL_BOOTSTRAP_SERVERS"));
    worker.set("KAFKA_API_KEY", user);
    worker.set("KAFKA_API_SECRET", &stack("KAFKA_SASL_PASSWORD"));
    worker.set("KAFKA_CA_FILE", &stack("KAFKA_SASL_CA_FILE"));
    worker
}

/// A group of this test run, for a worker that shall not get far.
fn group() -> String {
    format!("secure-{}", unique())
}

/// Runs it to its end, again if nobody answered it in time; gives its log, which must not hold the password.
async fn ends_with(mut worker: Worker, code: i32) -> String {
    let begun = Instant::now();
    let (ended, log) = loop {
        worker.spawn();
        let (ended, log) = (worker.ends().await, worker.log());
        let is_late = ended == 69 && log.contains("no kafka broker of");
        if ended == code || !is_late || begun.elapsed() > PATIENCE {
            break (ended, log);
        }
    };
    assert_eq!(ended, code, "{log}");
    assert!(
        !log.contains(&stack("KAFKA_SASL_PASSWORD")),
        "the password is in the log"
    );
    log
}

/// A worker whose user lacks one grant ends with 78 and names it, with the command that gives it.
async fn is_refused(user: &str, group: &str, rights: &[Right<'_>], lacks: &str, command: &str) {
    may_only(user, rights).await;
    let log = ends_with(worker(user, group, PROGRAM, NOBODY), 78).await;
    assert!(log.contains(lacks), "`{lacks}` is not in: {log}");
    assert!(log.contains(command), "`{command}` is not in: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_documented_grants_a_change_goes_the_whole_way_through_tls_and_so_does_a_dead_letter() {
    let run = unique();
    let (merchant, group) = (format!("m-{run}"), format!("secure-{run}"));
    may_only("sound", &documented(&group)).await;
    let (database, connection) = tokio_postgres::connect(&stack("POSTGRES_URL"), NoTls)
        .await
        .expect("a database");
    tokio::spawn(connection);
    let program = format!(
        r#"{{"programs": [{{"merchant_id": "{merchant}", "time_zone": "UTC", "versions": [{{
            "rev": 1, "effective_from": "2020-01-01",
            "currency": {{"rate": "1", "rounding": "floor", "minimum": "1", "activation": {{"kind": "immediate"}}}},
            "missions": [], "refund_policy": "only_pending"}}]}}]}}"#
    );
    let inbox = Inbox::of(&merchant);
    let receiver = receiver(&inbox).await;
    let mut worker = worker("sound", &group, &program, &receiver.base_url());
    worker.start().await;
    let purchase = |id: &str| {
        format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
             values ('{merchant}-{id}', 'u', '{merchant}', 2.00, 'completed', true, now())"
        )
    };
    let awards = |events: &[Accepted]| {
        let awards = events.iter().filter(|event| event.name == "loyalty/award.scheduled");
        awards
            .map(|event| event.data["purchase_id"].clone())
            .collect::<Vec<_>>()
    };
    let delivered = [format!("{merchant}-delivered")];
    database.batch_execute(&purchase("delivered")).await.expect("inserted");
    inbox
        .wait_until("the award", |events| awards(events) == delivered)
        .await;
    receiver.faults().push(Fault::status(400, "not this one"));
    database.batch_execute(&purchase("rejected")).await.expect("inserted");
    let letters = topics::wait_changes(CURRENCY_LETTERS, &merchant).await;
    let rows: Vec<&str> = letters.iter().map(|letter| letter.row.as_str()).collect();
    assert_eq!(rows, [format!("{merchant}-rejected")], "one dead letter");
    topics::wait_all_committed(&group, &LEDGERS).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    assert_eq!(awards(&inbox.all()), delivered);
}

#[tokio::test]
async fn a_certificate_of_an_authority_that_is_not_ours_is_refused_and_the_setting_named() {
    let mut stranger = worker("sound", &group(), PROGRAM, NOBODY);
    stranger.set("KAFKA_CA_FILE", "");
    let log = ends_with(stranger, 78).await;
    assert!(
        log.contains("certificate verify failed") && log.contains("Set KAFKA_CA_FILE"),
        "{log}"
    );
}

#[tokio::test]
async fn a_ca_file_that_is_none_is_named() {
    for file in ["/nowhere/ca.pem", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
        let mut wrong = worker("sound", &group(), PROGRAM, NOBODY);
        wrong.set("KAFKA_CA_FILE", file);
        let log = ends_with(wrong, 78).await;
        assert!(log.contains("Check KAFKA_CA_FILE"), "{log}");
    }
}

#[tokio::test]
async fn a_client_without_tls_at_a_port_with_it_is_told_of_the_protocol() {
    let mut plain = Worker::new(&group(), PROGRAM, NOBODY);
    plain.set("KAFKA_BOOTSTRAP_SERVERS", &stack("KAFKA_SASL_BOOTSTRAP_SERVERS"));
    let log = ends_with(plain, 69).await;
    assert!(log.contains("speaks PLAINTEXT (KAFKA_SECURITY_PROTOCOL)"), "{log}");
}

#[tokio::test]
async fn a_client_with_tls_at_a_port_without_it_is_told_of_the_protocol() {
    let mut tls = worker("sound", &group(), PROGRAM, NOBODY);
    tls.set("KAFKA_BOOTSTRAP_SERVERS", &stack("KAFKA_BOOTSTRAP_SERVERS"));
    let log = ends_with(tls, 69).await;
    assert!(log.contains("speaks SASL_SSL (KAFKA_SECURITY_PROTOCOL)"), "{log}");
}

#[tokio::test]
async fn a_wrong_password_is_told_as_such() {
    let mut wrong = worker("sound", &group(), PROGRAM, NOBODY);
    wrong.set("KAFKA_API_SECRET", "sentinel-secret");
    let log = ends_with(wrong, 78).await;
    assert!(
        log.contains("Authentication failed") && log.contains("KAFKA_API_SECRET"),
        "{log}"
    );
    assert!(!log.contains("sentinel-secret"), "{log}");
}

#[tokio::test]
async fn a_topic_without_any_grant_is_named_with_the_grant() {
    let group = group();
    let mut rights = documented(&group);
    rights.retain(|right| !matches!(right, Right::Read(PURCHASES)));
    let command = "--operations read --topic crm.public.purchase_ledger";
    is_refused(
        "no-describe",
        &group,
        &rights,
        "READ on topic crm.public.purchase_ledger",
        command,
    )
    .await;
}

#[tokio::test]
async fn a_topic_that_may_be_seen_and_not_read_is_named_with_the_grant() {
    let group = group();
    let mut rights = documented(&group);
    rights.retain(|right| !matches!(right, Right::Read(WALLET)));
    rights.push(Right::Describe(WALLET));
    let command = "--operations read --topic crm.public.wallet_ledger";
    is_refused(
        "no-read",
        &group,
        &rights,
        "READ on topic crm.public.wallet_ledger",
        command,
    )
    .await;
}

#[tokio::test]
async fn a_group_without_any_grant_is_named_with_the_grant() {
    let group = group();
    let mut rights = documented(&group);
    rights.retain(|right| !matches!(right, Right::Join(_)));
    let command = format!("--operations read --consumer-group {group}");
    is_refused(
        "no-group",
        &group,
        &rights,
        &format!("READ on consumer group {group}"),
        &command,
    )
    .await;
}

#[tokio::test]
async fn a_group_that_may_be_seen_and_not_joined_is_named_with_the_grant() {
    let group = group();
    let mut rights = documented(&group);
    rights.retain(|right| !matches!(right, Right::Join(_)));
    rights.push(Right::DescribeGroup(&group));
    let command = format!("--operations read --consumer-group {group}");
    is_refused(
        "no-join",
        &group,
        &rights,
        &format!("READ on consumer group {group}"),
        &command,
    )
    .await;
}

#[tokio::test]
async fn dead_letter_topics_that_may_be_seen_and_not_written_are_all_named_with_the_grant() {
    let group = group();
    let mut rights = documented(&group);
    rights.retain(|right| !matches!(right, Right::Write(CURRENCY_LETTERS | "crm.dlq.tier")));
    rights.push(Right::Describe(CURRENCY_LETTERS));
    // The one that may not even be seen is found first.
    let lacks = "WRITE on topic crm.dlq.tier, WRITE on topic crm.dlq.currency";
    let command = "--operations write --topic crm.dlq.currency";
    is_refused("no-dead-letter", &group, &rights, lacks, command).await;
}

/// Topics of its own, so that nobody else writes there.
async fn own_topics(prefix: &str) -> (Vec<String>, Vec<String>) {
    let sources = LEDGERS.map(|topic| topic.replacen("crm", prefix, 1));
    let letters = Queue::ALL.map(|queue| queue.topic(prefix));
    let admin: AdminClient<DefaultClientContext> = open().create().expect("a client");
    let new = |topic| NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    let topics: Vec<NewTopic<'_>> = sources.iter().chain(&letters).map(|topic| new(topic)).collect();
    let made = admin
        .create_topics(&topics, &AdminOptions::new())
        .await
        .expect("answered");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    topics::wait_led(&[&sources[..], &letters].concat()).await;
    (sources.to_vec(), letters.to_vec())
}

/// The listener that lets everybody do everything.
fn open() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", stack("KAFKA_BOOTSTRAP_SERVERS"));
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_whether_dead_letters_may_be_written_writes_none_and_a_grant_that_goes_later_ends_the_worker() {
    let run = unique();
    let (prefix, group) = (format!("s{run}"), format!("secure-{run}"));
    let (sources, letters) = own_topics(&prefix).await;
    let reads = sources.iter().map(|topic| Right::Read(topic));
    let writes = letters.iter().map(|topic| Right::Write(topic));
    let rights: Vec<Right<'_>> = reads.chain(writes).chain([Right::Join(&group)]).collect();
    may_only("revoked", &rights).await;
    let mut worker = worker("revoked", &group, PROGRAM, NOBODY);
    worker.set("TOPIC_PREFIX", &prefix);
    let begun = Instant::now();
    let mut read = 0;
    worker.start().await;
    // Of each right it is told, in time.
    while worker.log()[read..].contains("not known whether") {
        assert!(begun.elapsed() < PATIENCE, "{}", worker.log());
        read = worker.log().len();
        assert_eq!(worker.stop().await, 0, "{}", worker.log());
        worker.start().await;
    }
    for topic in &letters {
        assert_eq!(topics::len(topic), 0, "{topic}");
    }

    let writes: Vec<Right<'_>> = letters.iter().map(|topic| Right::Write(topic)).collect();
    may_no_longer("revoked", &writes).await;
    let producer: FutureProducer = open().create().expect("a client");
    let poison = FutureRecord::to(&sources[0]).key("key").payload("no JSON");
    producer.send(poison, PATIENCE).await.expect("written");
    assert_eq!(worker.ends().await, 78, "{}", worker.log());
    let log = worker.log();
    for said in [
        format!("WRITE on topic {prefix}.dlq.decode"),
        format!("--operations write --topic {prefix}.dlq.decode"),
    ] {
        assert!(log.contains(&said), "`{said}` is not in: {log}");
    }
    for topic in &letters {
        assert_eq!(topics::len(topic), 0, "{topic}");
    }
}
