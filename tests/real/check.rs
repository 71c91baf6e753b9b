//! `check`: the real binary looks at the real stack. What is well is well, what is not is named, and its exit code says which.
//!
//! The faults of a connector, a slot and a publication are in `settled/faults.rs`, on parts of their own.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::grants::{Right, may_only};
use super::topics::LEDGERS;
use super::worker::{Inbox, PATIENCE, Worker, receiver};
use super::{stack, unique};

const PROGRAM: &str = crm_event_processors::loyalty::DEMO_PROGRAM;
const NOBODY: &str = "127.0.0.1:9";

/// What `check` told.
pub(super) struct Told {
    pub(super) code: i32,
    pub(super) took: Duration,
    pub(super) text: String,
    findings: Vec<Value>,
}

impl Told {
    /// The severity of an id: the worst, if it is told several times.
    fn severity(&self, id: &str) -> &str {
        self.finding(id)["severity"].as_str().expect("a severity")
    }

    pub(super) fn finding(&self, id: &str) -> &Value {
        self.worst(id)
            .unwrap_or_else(|| panic!("nothing is said of {id}: {}", self.text))
    }

    /// Whether that is said of an id.
    pub(super) fn says(&self, id: &str, field: &str, wanted: &str) -> bool {
        self.worst(id).is_some_and(|finding| finding[field] == wanted)
    }

    fn worst(&self, id: &str) -> Option<&Value> {
        const WORST: [&str; 4] = ["failed", "warning", "not_verifiable", "ok"];
        let of_id = self.findings.iter().filter(|finding| finding["id"] == id);
        of_id.min_by_key(|finding| WORST.iter().position(|severity| finding["severity"] == *severity))
    }

    pub(super) fn failed(&self) -> Vec<&str> {
        let failed = self.findings.iter().filter(|finding| finding["severity"] == "failed");
        let mut ids: Vec<&str> = failed.map(|finding| finding["id"].as_str().expect("an id")).collect();
        ids.dedup();
        ids
    }
}

/// Runs the binary with a worker's variables.
async fn check(worker: &Worker, arguments: &[&str]) -> Told {
    let mut command = command(worker);
    let begun = Instant::now();
    let output = command
        .args(["--format", "json"])
        .args(arguments)
        .output()
        .await
        .expect("the binary runs");
    let took = begun.elapsed();
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("no report: {error}: {text} {}", String::from_utf8_lossy(&output.stderr));
    });
    assert!(!text.contains("sentinel"), "a secret is in: {text}");
    Told {
        code: output.status.code().expect("not killed"),
        took,
        findings: report["findings"].as_array().expect("findings").clone(),
        text,
    }
}

/// Asks again until one report says all of that: what was done a moment ago may not be there yet, and on a busy machine an
/// answer may come too late to be one.
pub(super) async fn until(worker: &Worker, arguments: &[&str], wanted: impl Fn(&Told) -> bool) -> Told {
    let begun = Instant::now();
    loop {
        let told = check(worker, arguments).await;
        if wanted(&told) {
            return told;
        }
        let (failed, code) = (told.failed(), told.code);
        assert!(
            begun.elapsed() < PATIENCE,
            "{arguments:?} never told it; at last {failed:?} with {code}: {}",
            told.text
        );
    }
}

/// The same, until just these fail, with this code.
async fn until_just(worker: &Worker, arguments: &[&str], failed: &[&str], code: i32) -> Told {
    until(worker, arguments, |told| told.failed() == failed && told.code == code).await
}

fn command(worker: &Worker) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"));
    command
        .arg("check")
        .env_clear()
        .envs(worker.variables())
        .kill_on_drop(true);
    command.stdin(Stdio::null());
    command
}

/// A worker of the stack's own topics in a group of this test.
fn worker(inngest: &str) -> Worker {
    Worker::new(&format!("check-{}", unique()), PROGRAM, inngest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_healthy_stack_nothing_fails_and_a_deploy_is_let_through() {
    let inbox = Inbox::of("nobody");
    let receiver = receiver(&inbox).await;
    let mut worker = worker(&receiver.base_url());
    worker.start().await;
    worker.set("DATABASE_URL", &stack("POSTGRES_URL"));
    worker.set("CONNECT_URL", &stack("CONNECT_URL"));
    let looked_at = [
        "kafka.auth",
        "topic.missing",
        "topic.retention",
        "group.empty",
        "connector.task-failed",
        "connector.config",
        "publication.table-missing",
        "slot.lost",
        "slot.lsn-gone",
        "slot.inactive",
        "schema.behind",
        "role.missing",
        "redis.auth",
        "redis.evicts",
        "inngest.key",
        "clock.skew",
    ];
    let told = until(&worker, &["--send-test-event"], |told| {
        let all_ok = looked_at.iter().all(|id| told.says(id, "severity", "ok"));
        all_ok && told.failed().is_empty() && told.code == 0
    })
    .await;
    println!("healthy: {:.1?}", told.took);
    until_just(&worker, &["--pre-deploy"], &[], 0).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
}

#[tokio::test]
async fn a_worker_that_does_not_run_is_found_and_stops_no_deploy() {
    let worker = worker(&format!("http://{NOBODY}"));
    let told = until_just(&worker, &["--only", "group"], &["group.empty"], 1).await;
    println!("worker not running: group.empty in {:.1?}", told.took);
    until(&worker, &["--pre-deploy", "--only", "group"], |told| {
        told.says("group.empty", "severity", "warning") && told.code == 0
    })
    .await;
}

#[tokio::test]
async fn a_grant_that_is_missing_is_found_and_stops_a_deploy() {
    let mut worker = worker(&format!("http://{NOBODY}"));
    worker.set("KAFKA_BOOTSTRAP_SERVERS", &stack("KAFKA_SASL_BOOTSTRAP_SERVERS"));
    worker.set("KAFKA_API_KEY", "checked");
    worker.set("KAFKA_API_SECRET", &stack("KAFKA_SASL_PASSWORD"));
    worker.set("KAFKA_CA_FILE", &stack("KAFKA_SASL_CA_FILE"));
    let group = worker
        .variables()
        .find(|(name, _)| *name == "CONSUMER_GROUP_ID")
        .expect("a group")
        .1
        .to_owned();
    let letters =
        ["decode", "currency", "tier", "mission", "reward", "marketplace"].map(|queue| format!("crm.dlq.{queue}"));
    let all: Vec<Right<'_>> = LEDGERS
        .into_iter()
        .map(Right::Read)
        .chain(letters.iter().map(|topic| Right::Write(topic)))
        .chain([Right::Join(&group)])
        .collect();
    let codes = "crm.public.codes";
    for (lacks, besides, id, command) in [
        (
            codes,
            None,
            "topic.unreadable",
            "--operations read --topic crm.public.codes",
        ),
        (
            codes,
            Some(Right::Describe(codes)),
            "topic.unreadable",
            "--operations read --topic crm.public.codes",
        ),
        (
            "crm.dlq.tier",
            Some(Right::Describe("crm.dlq.tier")),
            "dlq.unwritable",
            "--operations write --topic crm.dlq.tier",
        ),
        (
            group.as_str(),
            None,
            "group.unreadable",
            "--operations read --consumer-group check-",
        ),
    ] {
        let is_it = |right: &Right<'_>| matches!(right, Right::Read(name) | Right::Write(name) | Right::Join(name) if *name == lacks);
        let rights: Vec<Right<'_>> = all
            .iter()
            .filter(|right| !is_it(right))
            .copied()
            .chain(besides)
            .collect();
        may_only("checked", &rights).await;
        let told = until_just(&worker, &["--pre-deploy", "--only", "kafka,group"], &[id], 1).await;
        let fix = told.finding(id)["fix"].as_str().expect("a fix");
        assert!(fix.contains(command), "{fix}");
        println!("{id} without a grant on {lacks}: {:.1?}", told.took);
    }
    may_only("checked", &all).await;
    until_just(&worker, &["--pre-deploy", "--only", "kafka,group"], &[], 0).await;
    worker.set("KAFKA_API_SECRET", "sentinel-secret");
    let told = until_just(&worker, &["--only", "kafka,group"], &["kafka.auth"], 1).await;
    assert_eq!(told.finding("group.empty")["what"], "kafka.auth first");
    worker.set("KAFKA_CA_FILE", "");
    until(&worker, &["--only", "kafka"], |told| told.failed() == ["kafka.tls"]).await;
}

#[tokio::test]
async fn settings_that_cannot_be_used_end_with_78_and_what_is_sound_is_looked_at() {
    let mut worker = worker(&format!("http://{NOBODY}"));
    worker.set("REDIS_URL", "http://:sentinel-secret@nowhere");
    worker.set("PROGRAM_FILE", "/nowhere/programs.json");
    // Kafka is looked at.
    let told = until(&worker, &["--only", "kafka,redis"], |told| {
        told.says("topic.missing", "severity", "ok")
    })
    .await;
    assert_eq!(told.code, 78, "{}", told.text);
    assert_eq!(told.severity("configuration.invalid"), "failed");
    assert_eq!(told.severity("configuration.program"), "failed");
    assert_eq!(told.finding("redis.auth")["what"], "configuration.invalid first");
    let output = command(&worker)
        .args(["--only", "weather"])
        .output()
        .await
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(64));
}

#[tokio::test]
async fn where_nobody_answers_each_is_named_within_seconds_and_the_end_is_69() {
    let mut worker = worker(&format!("http://{NOBODY}"));
    worker.set("KAFKA_BOOTSTRAP_SERVERS", NOBODY);
    worker.set("REDIS_URL", &format!("redis://:sentinel-secret@{NOBODY}"));
    worker.set("DATABASE_URL", &format!("postgres://crm:sentinel-secret@{NOBODY}/crm"));
    worker.set("CONNECT_URL", &format!("http://{NOBODY}"));
    let silent = [
        "kafka.unreachable",
        "connector.unreachable",
        "postgres.unreachable",
        "redis.unreachable",
        "inngest.unreachable",
    ];
    let told = until_just(&worker, &[], &silent, 69).await;
    println!("nobody answers: {:.1?}", told.took);
    worker.set("KAFKA_BOOTSTRAP_SERVERS", "nobody.invalid:9092");
    until(&worker, &["--only", "kafka"], |told| told.failed() == ["kafka.dns"]).await;
}

/// A `check` that looks again and again.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(worker: &Worker) -> Self {
        let mut command = command(worker);
        command.args(["--only", "group", "--watch", "1"]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// Reads up to a line with this.
    async fn until(&mut self, wanted: &str) {
        let told = async {
            loop {
                let line = self.lines.next_line().await.expect("readable").expect("it goes on");
                if line.contains(wanted) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect(wanted);
    }

    /// SIGTERM, and the exit code.
    async fn ends(&mut self) -> Option<i32> {
        let pid = self.child.id().expect("running").to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(sent.expect("kill runs").success());
        self.child.wait().await.expect("waited").code()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_is_told_of_what_changes() {
    let mut worker = worker(&format!("http://{NOBODY}"));
    let mut watching = Watching::start(&worker);
    watching.until("group.empty: nobody").await;
    worker.start().await;
    watching.until("(was failed)").await;
    watching.until("ok             group.empty").await;
    let begun = Instant::now();
    let mut code = watching.ends().await;
    // As the last look was, which on a busy machine may have found nobody once more.
    while code != Some(0) && begun.elapsed() < PATIENCE {
        watching = Watching::start(&worker);
        watching.until("looking again every").await;
        code = watching.ends().await;
    }
    assert_eq!(code, Some(0), "as the last look was");
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
}
