//! The source on its own: every commit is answered.

use std::sync::Arc;
use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::kafka::embedded::{EmbeddedKafka, Feed};
use crm_event_processors::kafka::{self, Group, Membership};
use crm_event_processors::pipeline::source::{Command, Commit, Event, Handle};
use crm_event_processors::progress::{Committed, Orders};
use crm_event_processors::record::{Budget, TopicPartition};
use crm_event_processors::telemetry::Telemetry;

use crate::PATIENCE;

const TOPIC: &str = "crm.public.purchase_ledger";
const PLACE: TopicPartition = TopicPartition { topic: 0, partition: 0 };

async fn next(handle: &mut Handle) -> Event {
    let event = tokio::time::timeout(PATIENCE, handle.events.recv()).await;
    event.expect("something happens").expect("the source runs")
}

async fn answer(handle: &mut Handle) -> (Vec<Commit>, Option<String>) {
    loop {
        if let Event::Committed { offsets, error } = next(handle).await {
            return (offsets, error);
        }
    }
}

// The client's own asynchronous commit is never answered: a worker that waits for it commits once and never again.
#[tokio::test(flavor = "multi_thread")]
async fn every_commit_is_answered_and_reaches_the_group() {
    let topics = [(TOPIC.to_owned(), 1)];
    let kafka = EmbeddedKafka::start(&topics).expect("a cluster");
    let mut feed = Feed::new(&kafka.connection(), "group", &topics).expect("clients");
    for _ in 0..3 {
        feed.send(0, 0, b"key", Some(b"value")).expect("taken");
    }
    let membership = Membership {
        connection: kafka.connection(),
        group: Group {
            main: "group".to_owned(),
            is_subset: false,
            consumers: Consumer::ALL.into_iter().collect(),
        },
        topics: [TOPIC.into()].into(),
        needed: Vec::new(),
        session_timeout_ms: 10_000,
        revoke_deadline: Duration::from_secs(1),
        orders: Orders::default(),
        start_at: None,
        budget: Budget::new(100, 1_000_000),
    };
    let telemetry = Arc::new(Telemetry::new().expect("instruments"));
    let runtime = tokio::runtime::Handle::current();
    let started = tokio::task::spawn_blocking(move || kafka::start(membership, runtime, telemetry)).await;
    let (mut handle, source) = started.expect("no panic").expect("joins");
    while !matches!(next(&mut handle).await, Event::Batch(_)) {}
    for offset in 1..=3 {
        let progress = Committed {
            offset,
            metadata: String::new(),
        };
        let commits = vec![Commit { place: PLACE, progress }];
        handle
            .commands
            .send(Command::Commit(commits.clone()))
            .await
            .expect("runs");
        assert_eq!(answer(&mut handle).await, (commits, None));
        feed.refresh().expect("an answer");
        assert_eq!(feed.committed(), offset.unsigned_abs());
    }
    drop(handle);
    assert!(source.left(PATIENCE).await);
}
