//! Dead letters for people, on a real broker and through the real binary: a worker writes them, an operator looks at them,
//! mends the cause, sends them once more, and drops what is none of ours.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crm_event_processors::inngest::receiver::{Fault, Receiver};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::topics;
use super::worker::{Inbox, PATIENCE, Worker, receiver};
use super::{stack, unique};
use crate::kafka::cluster::{Cluster, Raw, produce, purchase, purchases};
use crate::postgres::Database;

/// Topics, a receiver and programs of one test's own.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    pub(super) inbox: Arc<Inbox>,
    pub(super) receiver: Receiver,
    /// Tests share the dedupe store.
    run: String,
    database: Option<String>,
}

/// What pays points beyond what an integer holds, for a purchase that is large.
const TOO_GENEROUS: &str = "1000000";

fn large(id: &str, lsn: u32) -> Raw {
    let raw = purchase(id, lsn);
    let value = String::from_utf8(raw.value.expect("a value")).expect("text");
    Raw {
        value: Some(value.replace("100.00", "9300000000000.00").into_bytes()),
        key: raw.key,
        headers: raw.headers,
    }
}

impl Scene {
    pub(super) async fn begin() -> Self {
        let run = unique();
        let cluster = Cluster::real(&stack("KAFKA_BOOTSTRAP_SERVERS"), &format!("letters-{run}"), 2).await;
        let inbox = Inbox::of("m-any");
        let receiver = receiver(&inbox).await;
        Self {
            cluster,
            inbox,
            receiver,
            run,
            database: None,
        }
    }

    /// A purchase that no other test has.
    pub(super) fn id(&self, id: &str) -> String {
        format!("{id}-{}", self.run)
    }

    /// The id of its award.
    pub(super) fn award(&self, id: &str, lsn: u32) -> String {
        format!("currency:award:purchase_ledger:{}:{lsn}", self.id(id))
    }

    /// The worker's settings; it reads all tables.
    pub(super) fn worker(&self, rate: &str) -> Worker {
        let mut worker = Worker::new(&self.cluster.group(), &program(rate), &self.receiver.base_url());
        worker.set("TOPIC_PREFIX", self.cluster.prefix());
        if let Some(database) = &self.database {
            worker.set("DATABASE_URL", database);
        }
        worker
    }

    pub(super) async fn produce(&self, partition: i32, record: &Raw) -> i64 {
        let topic = self.cluster.topic(purchases(partition));
        produce(&self.cluster.producer(), &topic, partition, record).await
    }

    /// The worker with this program reads all there is.
    pub(super) async fn work(&self, rate: &str) {
        let mut worker = self.worker(rate);
        worker.start().await;
        topics::wait_all_committed(&self.cluster.group(), &[self.cluster.topic(purchases(0))]).await;
        assert_eq!(worker.stop().await, 0, "{}", worker.log());
    }

    /// A command with the worker's settings.
    pub(super) fn command(&self, rate: &str, arguments: &[&str]) -> Command {
        let worker = self.worker(rate);
        let mut command = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"));
        command.args(arguments).env_clear().kill_on_drop(true);
        command.envs(worker.variables().filter(|(name, _)| *name != "HTTP_ADDR"));
        command.env("USER", "the operator").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Its exit code and what it prints.
    pub(super) async fn run(&self, rate: &str, arguments: &[&str]) -> (i32, String) {
        let ended = tokio::time::timeout(PATIENCE, self.command(rate, arguments).output()).await;
        let Output { status, stdout, stderr } = ended.expect("it ends").expect("it starts");
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        println!("{arguments:?}: {status}\n{stdout}{stderr}");
        (status.code().expect("no signal"), stdout.into_owned())
    }

    pub(super) async fn json(&self, rate: &str, arguments: &[&str]) -> (i32, Value) {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
        let (code, text) = self.run(rate, &arguments).await;
        (code, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(super) fn start(&self, rate: &str, arguments: &[&str]) -> Child {
        self.command(rate, arguments).spawn().expect("it starts")
    }

    /// The accepted awards, sorted, repeats included.
    pub(super) fn awards(&self) -> Vec<String> {
        let events = self.inbox.all().into_iter();
        let awards = events.filter(|event| event.name == "loyalty/award.scheduled");
        let mut ids: Vec<String> = awards.map(|event| event.id).collect();
        ids.sort();
        ids
    }

    async fn open(&self) -> Vec<(String, String)> {
        let (code, list) = self.json("1", &["dlq", "list", "--each"]).await;
        assert_eq!(code, 0);
        let each = list["each"].as_array().cloned().unwrap_or_default();
        assert_eq!(list["letters"], each.len());
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        each.iter()
            .map(|one| (text(&one["place"]), text(&one["reason"])))
            .collect()
    }

    /// Waits for another process: there is no event to wait for.
    pub(super) async fn requests(&self, count: u64) {
        let came = async {
            while self.receiver.stats().requests < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, came).await.expect("requests come");
    }
}

fn program(rate: &str) -> String {
    format!(
        r#"{{"programs": [{{"merchant_id": "m-any", "time_zone": "UTC", "versions": [{{
            "rev": 1, "effective_from": "2020-01-01",
            "currency": {{"rate": "{rate}", "rounding": "floor", "minimum": "1", "activation": {{"kind": "immediate"}}}},
            "refund_policy": "only_pending"}}]}}]}}"#
    )
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(place, reason): &(&str, &str)| ((*place).to_owned(), (*reason).to_owned());
    expected.iter().map(owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_listed_shown_and_replayed_when_its_cause_is_mended_and_another_is_dropped() {
    let scene = Scene::begin().await;
    scene.produce(0, &large(&scene.id("p-1"), 10)).await;
    let broken = Raw {
        value: Some(b"{".to_vec()),
        ..purchase(&scene.id("p-2"), 11)
    };
    scene.produce(0, &broken).await;
    scene.work(TOO_GENEROUS).await;
    let (overflow, not_json) = ("currency/0/0", "decode/0/0");
    let both = pairs(&[(not_json, "not_json"), (overflow, "points_overflow")]);
    assert_eq!(scene.open().await, both);

    let (code, shown) = scene.run("1", &["dlq", "show", overflow]).await;
    assert_eq!(code, 0);
    for part in [
        "points_overflow",
        "became    open",
        "purchase_ledger/0/0",
        scene.id("p-1").as_str(),
        "deliver",
    ] {
        assert!(shown.contains(part), "{part} is in {shown}");
    }
    // While the cause is not mended it stays the letter it is, and no other is written.
    let (code, told) = scene
        .json(TOO_GENEROUS, &["dlq", "replay", "--consumer", "currency"])
        .await;
    assert_eq!((code, &told["letters"][0]["outcome"]), (1, &Value::from("still_dead")));
    let (code, told) = scene.json("1", &["dlq", "replay", overflow, "--dry-run"]).await;
    assert_eq!(
        (code, &told["letters"][0]["outcome"]),
        (0, &Value::from("would_deliver"))
    );
    assert_eq!((scene.open().await, scene.awards()), (both, Vec::new()));

    let (code, told) = scene.json("1", &["dlq", "replay", "--reason", "points_overflow"]).await;
    assert_eq!((code, &told["replayed"]), (0, &Value::from(1)));
    assert_eq!(
        scene.awards(),
        [scene.award("p-1", 10)],
        "under the id of the normal way"
    );
    assert_eq!(scene.open().await, pairs(&[(not_json, "not_json")]));
    // What is not said is not meant, and what is done is not done again.
    assert_eq!(scene.run("1", &["dlq", "replay"]).await.0, 64);
    assert_eq!(scene.json("1", &["dlq", "replay", overflow]).await.1["replayed"], 0);
    assert_eq!(
        scene.run("1", &["dlq", "drop", not_json]).await.0,
        64,
        "without a reason"
    );
    assert_eq!(
        scene
            .run("1", &["dlq", "drop", not_json, "--because", "a test wrote it"])
            .await
            .0,
        0
    );
    assert_eq!(scene.open().await, []);
    let (_, list) = scene.json("1", &["dlq", "list", "--handled"]).await;
    let told = |of: usize, field: &str| list["handled"][of]["mark"][field].as_str().map(str::to_owned);
    let marks = [0, 1].map(|of| ["fate", "by", "because"].map(|field| told(of, field).expect("a mark")));
    assert_eq!(
        marks,
        [
            ["dropped", "the operator", "a test wrote it"],
            ["replayed", "the operator", "replayed"]
        ]
    );
    assert_eq!(scene.awards().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_killed_between_delivery_and_mark_leaves_the_letter_and_repeats_its_id() {
    let scene = Scene::begin().await;
    scene.produce(0, &large(&scene.id("p-1"), 10)).await;
    scene.work(TOO_GENEROUS).await;
    // Accepted, and the worker does not know: it asks again and gets no answer any more.
    scene.receiver.faults().push(Fault::AcceptThenDrop);
    scene.receiver.faults().push(Fault::Hang);
    let seen = scene.receiver.stats().requests;
    let mut child = scene.start("1", &["dlq", "replay", "currency/0/0"]);
    scene.requests(seen + 2).await;
    child.kill().await.expect("killed");
    assert_eq!(scene.awards(), [scene.award("p-1", 10)]);
    assert_eq!(
        scene.open().await,
        pairs(&[("currency/0/0", "points_overflow")]),
        "not marked"
    );
    let (code, told) = scene.json("1", &["dlq", "replay", "currency/0/0"]).await;
    assert_eq!((code, &told["replayed"]), (0, &Value::from(1)));
    assert_eq!(
        scene.awards(),
        [scene.award("p-1", 10), scene.award("p-1", 10)],
        "resent, not doubled"
    );
    assert_eq!(scene.open().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_could_read_is_replayed_to_every_consumer_and_what_is_forced_has_an_id_of_its_own() {
    let scene = Scene::begin().await;
    for (id, lsn) in [("p-1", 10), ("p-2", 11)] {
        scene.produce(0, &purchase(&scene.id(id), lsn)).await;
    }
    let mut worker = scene.worker("1");
    worker.set("DECIMAL_MODE", "precise:2");
    worker.start().await;
    topics::wait_all_committed(&scene.cluster.group(), &[scene.cluster.topic(purchases(0))]).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    let open: Vec<String> = scene.open().await.into_iter().map(|(place, _)| place).collect();
    assert_eq!(open, ["decode/0/0", "decode/0/1"]);
    let (code, _) = scene.json("1", &["dlq", "replay", "decode/0/0"]).await;
    assert_eq!((code, scene.awards()), (0, vec![scene.award("p-1", 10)]));
    let (code, told) = scene
        .json("1", &["dlq", "replay", "--consumer", "decode", "--force=7"])
        .await;
    assert_eq!((code, &told["nonce"]), (0, &Value::from("7")));
    assert_eq!(
        scene.awards(),
        [scene.award("p-1", 10), format!("{}#f7", scene.award("p-2", 11))]
    );
    assert_eq!(scene.open().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_database_a_replayed_letter_is_dead_no_more_and_a_dropped_one_stays_dead() {
    let database = Database::new().await;
    let mut scene = Scene::begin().await;
    scene.database = Some(database.url());
    // As some applications have it: what is large enough to pay too much.
    let wide = "alter table purchase_ledger alter column final_amount type numeric(20, 2)";
    database.own.run(wide).await;
    for (id, lsn) in [("p-1", 10), ("p-2", 11)] {
        let id = scene.id(id);
        let row = format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, refunded_amount, status, earn_currency, \
             created_at) values ('{id}', 'u-{id}', 'm-any', 9300000000000.00, 0, 'completed', true, '2026-11-20T11:00:00Z')"
        );
        database.own.run(&row).await;
        scene.produce(0, &large(&id, lsn)).await;
        // One after the other: letters of two lanes have no order.
        scene.work(TOO_GENEROUS).await;
    }
    let states = || async {
        let (first, second) = (scene.id("p-1"), scene.id("p-2"));
        let mut states = Vec::new();
        for id in [first, second] {
            let effect = database.own.effect(&format!("award:{id}")).await;
            states.push(effect["state"].as_str().unwrap_or("none").to_owned());
        }
        states
    };
    assert_eq!(states().await, ["dead", "dead"]);
    assert_eq!(scene.run("1", &["dlq", "replay", "currency/0/0"]).await.0, 0);
    assert_eq!(scene.awards(), [scene.award("p-1", 10)]);
    let why = ["dlq", "drop", "currency/0/1", "--because", "owed by hand"];
    assert_eq!(scene.run("1", &why).await.0, 0);
    // No workflow runs here that would have applied it: it is missing, and the reconciler's.
    assert_eq!(states().await, ["missing", "dead"]);
    assert_eq!(scene.open().await, []);
    database.done().await;
}
