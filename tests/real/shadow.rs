//! A shadow beside a worker on a real broker: it reads everything the worker reads, sends nothing, and leaves the worker's
//! group alone; whoever compares the two finds what one of them did not do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crm_event_processors::record::TopicPartition;
use serde_json::{Value, json};
use tokio::process::Command;

use super::worker::{Inbox, PATIENCE, Worker, receiver};
use super::{stack, unique};
use crate::kafka::cluster::{Cluster, purchases};

const PROGRAM: &str = crm_event_processors::loyalty::DEMO_PROGRAM;
const PLACES: [TopicPartition; 2] = [purchases(0), purchases(1)];

async fn produce(cluster: &Cluster, lsns: std::ops::Range<u32>) {
    for lsn in lsns {
        let partition = i32::try_from(lsn % 2).expect("small");
        cluster.purchase(partition, &format!("p-{lsn}"), lsn).await;
    }
}

/// Waits until another group has committed everything.
async fn all_committed_by(cluster: &Cluster, group: &str) {
    for place in PLACES {
        let end = cluster.log(place).1;
        let asking = async {
            while cluster.committed_by(group, place) != Some(end) {
                // Brokers push no commits.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, asking).await;
        assert!(waited.is_ok(), "{group} never came to {end} of {place:?}");
    }
}

/// The award ids that would be sent, and how many lines there are.
fn awards(file: &Path) -> (BTreeSet<String>, usize) {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("whole"))
        .collect();
    let would = lines
        .iter()
        .filter(|line| line["consumer"] == "currency" && line["outcome"] == "deliver");
    let ids = would.map(|line| line["id"].as_str().expect("an id").to_owned());
    (ids.collect(), lines.len())
}

/// Exit code and what it prints.
async fn reconcile(file: &Path, sent: &Path) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .args(["reconcile", "--format", "json", "--shadow"])
        .arg(file)
        .arg("--against")
        .arg(sent)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the binary runs");
    let found = serde_json::from_slice(&output.stdout);
    let found = found.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_beside_a_worker_decides_the_same_sends_nothing_and_leaves_its_group_alone() {
    let prefix = format!("shadow-{}", unique());
    let cluster = Cluster::real(&stack("KAFKA_BOOTSTRAP_SERVERS"), &prefix, 2).await;
    let (inbox, group) = (Inbox::of("m-any"), cluster.group());
    let receiver = receiver(&inbox).await;
    let mut worker = Worker::new(&group, PROGRAM, &receiver.base_url());
    worker.set("TOPIC_PREFIX", &prefix);
    produce(&cluster, 1..401).await;
    worker.start().await;
    cluster.wait_all_committed(&PLACES).await;

    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{prefix}.jsonl"));
    let out: &'static str = file.display().to_string().leak();
    let mut shadow = Worker::new(&format!("{group}-its-files"), PROGRAM, "http://127.0.0.1:9");
    shadow.set("TOPIC_PREFIX", &prefix);
    shadow.set("CONSUMER_GROUP_ID", &group);
    shadow.is_missed_soon();
    shadow.unset("REDIS_URL");
    shadow.unset("INNGEST_DEV");
    shadow.arguments = vec!["--shadow", "--shadow-out", out];
    shadow.spawn();
    // Killed as soon as it has written something, in the middle or not.
    let writing = async {
        while std::fs::metadata(&file).map_or(0, |file| file.len()) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, writing).await.expect("it writes");
    shadow.kill().await;
    shadow.start().await;
    let shadows = format!("{group}-shadow");
    all_committed_by(&cluster, &shadows).await;
    // Side by side.
    produce(&cluster, 401..501).await;
    all_committed_by(&cluster, &shadows).await;
    cluster.wait_all_committed(&PLACES).await;
    let (_, metrics) = shadow.get("metrics").await.expect("an answer");
    assert!(metrics.contains(r#"outcome="shadowed""#), "{metrics}");
    assert_eq!(shadow.get("readyz").await.expect("an answer").0, 200);

    // Without the worker nobody commits in its group.
    assert_eq!(worker.stop().await, 0);
    let before = PLACES.map(|place| (cluster.committed(place), cluster.metadata(place)));
    produce(&cluster, 501..601).await;
    all_committed_by(&cluster, &shadows).await;
    assert_eq!(shadow.stop().await, 0);
    let after = PLACES.map(|place| (cluster.committed(place), cluster.metadata(place)));
    assert_eq!(after, before, "the worker's group is where the worker left it");
    worker.start().await;
    cluster.wait_all_committed(&PLACES).await;
    assert_eq!(worker.stop().await, 0);

    let sent: Vec<_> = inbox.all();
    let is_award = |id: &&str| id.starts_with("currency:");
    let ids: BTreeSet<String> = sent
        .iter()
        .map(|event| event.id.as_str())
        .filter(is_award)
        .map(str::to_owned)
        .collect();
    let (would, _) = awards(&file);
    assert_eq!(would.len(), 600);
    assert_eq!(would, ids);

    let list = file.with_extension("sent");
    let write = |events: &[Value]| {
        let text: String = events.iter().map(|event| format!("{event}\n")).collect();
        std::fs::write(&list, text).expect("written");
    };
    let mut events: Vec<Value> = sent
        .iter()
        .map(|event| json!({"id": event.id, "name": event.name, "ts": event.ts_ms, "data": event.data}))
        .collect();
    write(&events);
    let (code, comparison) = reconcile(&file, &list).await;
    assert_eq!(
        (code, comparison["agree"].as_i64()),
        (Some(0), Some(600)),
        "{comparison}"
    );
    events.retain(|event| event["data"]["effect_key"] != "award:p-77");
    write(&events);
    let (code, comparison) = reconcile(&file, &list).await;
    assert_eq!(code, Some(1));
    assert_eq!(comparison["findings"][0]["kind"], "only_shadow", "{comparison}");
    assert_eq!(comparison["findings"][0]["subject"], "award:p-77");
}
