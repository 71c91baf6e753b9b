//! A part of the topics once more, on a real broker and through the real binary: exactly what was asked for, nothing twice,
//! and the group never knows.

use rdkafka::producer::FutureRecord;
use serde_json::Value;

use super::letters::Scene;
use super::unique;
use super::worker::PATIENCE;
use crate::kafka::cluster::{purchase, purchases};
use crm_event_processors::inngest::receiver::Fault;

const MINUTE: i64 = 60_000;
const BEGIN_MS: i64 = 1_795_176_000_000;

/// A purchase that Kafka has of so many minutes after noon.
async fn at_minute(scene: &Scene, partition: i32, id: &str, lsn: u32, minute: i64) {
    let raw = purchase(&scene.id(id), lsn);
    let topic = scene.cluster.topic(purchases(partition));
    let record = FutureRecord {
        partition: Some(partition),
        key: raw.key.as_ref(),
        payload: raw.value.as_ref(),
        timestamp: Some(BEGIN_MS + minute * MINUTE),
        ..FutureRecord::to(&topic)
    };
    scene
        .cluster
        .producer()
        .send(record, PATIENCE)
        .await
        .expect("delivered");
}

async fn eight(scene: &Scene) {
    for minute in 0..4_u32 {
        for partition in 0..2 {
            let id = format!("p-{partition}-{minute}");
            at_minute(scene, partition, &id, 10 + minute, i64::from(minute)).await;
        }
    }
}

fn ids(scene: &Scene, of: &[(i32, u32)]) -> Vec<String> {
    let id = |(partition, minute): &(i32, u32)| scene.award(&format!("p-{partition}-{minute}"), 10 + minute);
    of.iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_delivers_what_lies_between_its_bounds_once_and_commits_nothing() {
    let scene = Scene::begin().await;
    eight(&scene).await;
    let by_offset = [
        "replay",
        "--consumer",
        "currency",
        "--topic",
        "purchase_ledger",
        "--partition",
        "1",
        "--from-offset",
        "1",
        "--to-offset",
        "3",
    ];
    let (code, told) = scene.json("1", &by_offset).await;
    assert_eq!(
        (code, &told["finished"], &told["records"]),
        (0, &Value::from(true), &Value::from(2))
    );
    let mut expected = ids(&scene, &[(1, 1), (1, 2)]);
    assert_eq!(scene.awards(), expected);

    // Two minutes, of both partitions, one of which was done just now.
    let by_time = [
        "replay",
        "--consumer",
        "currency",
        "--from",
        "2026-11-20T12:02:00Z",
        "--to",
        "2026-11-20T12:04:00Z",
    ];
    let (code, told) = scene.json("1", &[&by_time[..], &["--dry-run"]].concat()).await;
    assert_eq!((code, &told["left"][0]["spans"][0]["from"]), (0, &Value::from(2)));
    let (code, told) = scene.json("1", &by_time).await;
    assert_eq!((code, &told["records"]), (0, &Value::from(4)));
    assert_eq!(told["outcomes"]["duplicate"], 1);
    expected.extend(ids(&scene, &[(0, 2), (0, 3), (1, 3)]));
    expected.sort();
    assert_eq!(scene.awards(), expected);
    for place in [purchases(0), purchases(1)] {
        assert_eq!(scene.cluster.committed(place), None, "the group knows nothing of it");
    }
    // The worker itself begins at the beginning, and does only what is left.
    scene.work("1").await;
    let all: Vec<(i32, u32)> = (0..2)
        .flat_map(|partition| (0..4).map(move |minute| (partition, minute)))
        .collect();
    assert_eq!(scene.awards(), ids(&scene, &all), "each once");

    let outside = [&by_offset[..9], &["--to-offset", "99"]].concat();
    assert_eq!(scene.run("1", &outside).await.0, 64, "an offset that is not there");
    assert_eq!(
        scene.run("1", &["replay", "--consumer", "currency"]).await.0,
        64,
        "without a beginning"
    );
    let dead_letters = [
        "replay",
        "--consumer",
        "currency",
        "--from",
        "2026-11-20T12:00:00Z",
        "--old-records",
        "deadletter",
    ];
    assert_eq!(
        scene.run("1", &dead_letters).await.0,
        78,
        "it would make a letter of everything"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_was_interrupted_goes_on_where_it_ended() {
    let scene = Scene::begin().await;
    eight(&scene).await;
    let file = format!("{}/{}.replay.json", env!("CARGO_TARGET_TMPDIR"), unique());
    let whole = [
        "replay",
        "--consumer",
        "currency",
        "--from",
        "2026-11-20T12:00:00Z",
        "--resume",
        &file,
    ];
    let first = [
        "replay",
        "--consumer",
        "currency",
        "--from",
        "2026-11-20T12:00:00Z",
        "--to",
        "2026-11-20T12:01:00Z",
    ];
    assert_eq!(scene.run("1", &first).await.0, 0);
    for _ in 0..8 {
        scene.receiver.faults().push(Fault::Hang);
    }
    let seen = scene.receiver.stats().requests;
    let mut child = scene.start("1", &whole);
    scene.requests(seen + 1).await;
    let pid = child.id().expect("running").to_string();
    let sent = tokio::process::Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(sent.expect("kill runs").success());
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends");
    assert_eq!(ended.expect("waited").code(), Some(1));
    while scene.receiver.faults().next().is_some() {}
    // Another question is not gone on with.
    let other = [
        "replay",
        "--consumer",
        "tier",
        "--from",
        "2026-11-20T12:00:00Z",
        "--resume",
        &file,
    ];
    assert_eq!(scene.run("1", &other).await.0, 64);
    let (code, told) = scene.json("1", &whole).await;
    assert_eq!((code, &told["finished"]), (0, &Value::from(true)));
    let records = told["records"].as_u64().expect("a count");
    assert!(records < 8, "what was finished is not read again: {records}");
    let all: Vec<(i32, u32)> = (0..2)
        .flat_map(|partition| (0..4).map(move |minute| (partition, minute)))
        .collect();
    assert_eq!(scene.awards(), ids(&scene, &all), "each once");
    let (code, told) = scene.json("1", &whole).await;
    assert_eq!((code, &told["records"]), (0, &Value::from(0)), "nothing is left");
}
