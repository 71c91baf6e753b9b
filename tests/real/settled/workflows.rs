//! The workflows as they are deployed over HTTP, on the pinned Node, and the executor double that calls them.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::House;
use crate::real::worker::PATIENCE;

pub(crate) struct Workflows {
    /// Where events are sent to.
    pub(crate) url: String,
    http: reqwest::Client,
    _executor: Child,
    _service: Child,
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/workflows"))
}

/// The path of Node; the modules are installed at the first call.
async fn node() -> &'static str {
    static NODE: OnceCell<String> = OnceCell::const_new();
    let install = async || {
        let ran = Command::new(folder().join("install"))
            .output()
            .await
            .expect("the script runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).expect("a path").trim().to_owned()
    };
    NODE.get_or_init(install).await
}

impl Workflows {
    /// Both run and know each other; the house's database follows the executor's clock.
    pub(super) async fn start(house: &House) -> Self {
        crm_event_processors::tls::install_provider();
        let log = |name: &str| {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.{name}.log", house.name));
            Stdio::from(std::fs::File::create(path).expect("a log file"))
        };
        let mut executor = Command::new(node().await);
        executor.arg(folder().join("executor/main.ts"));
        executor.args(["--port", "0", "--database-url", &house.url()]);
        executor
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log("executor"))
            .kill_on_drop(true);
        let mut executor = executor.spawn().expect("Node starts");
        let mut lines = BufReader::new(executor.stdout.take().expect("piped")).lines();
        let first = tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .expect("its address");
        let url = first.expect("readable").expect("the executor runs; see its log");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = free.expect("a free port").to_string();
        let mut service = Command::new(node().await);
        service.arg(folder().join("src/main.ts")).env_clear();
        service.envs([
            ("MODE", "http"),
            ("HTTP_ADDR", &address),
            ("INNGEST_DEV", &url),
            ("DATABASE_URL", &house.url_of("workflows")),
        ]);
        service
            .stdin(Stdio::null())
            .stdout(log("workflows"))
            .stderr(log("workflows-errors"))
            .kill_on_drop(true);
        let service = service.spawn().expect("Node starts");
        let workflows = Self {
            url,
            http: reqwest::Client::new(),
            _executor: executor,
            _service: service,
        };
        let ready = async {
            let served = async || reqwest::get(format!("http://{address}/readyz")).await;
            while !served().await.is_ok_and(|answer| answer.status().is_success()) {
                tokio::time::sleep(super::LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready)
            .await
            .expect("the workflows serve");
        workflows
            .post("sync", &json!({"url": format!("http://{address}/api/inngest")}))
            .await;
        workflows
    }

    async fn post(&self, what: &str, body: &Value) -> Value {
        let request = self
            .http
            .post(format!("{}/{what}", self.url))
            .header("Content-Type", "application/json");
        self.answer(what, request.body(body.to_string())).await
    }

    async fn get(&self, what: &str) -> Value {
        self.answer(what, self.http.get(format!("{}/{what}", self.url))).await
    }

    async fn answer(&self, what: &str, request: reqwest::RequestBuilder) -> Value {
        let answer = tokio::time::timeout(PATIENCE, request.send()).await;
        let answer = answer
            .unwrap_or_else(|_| panic!("no answer: {what}"))
            .expect("the executor answers");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{what}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what}: {error}: {text}"))
    }

    /// Whether events are taken and start nothing, also later.
    pub(super) async fn accept_only(&self, so: bool) {
        self.post("settings", &json!({"accept_only": so})).await;
    }

    /// Moves both clocks on; returns when nothing can run any more.
    pub(super) async fn advance_days(&self, days: u64) {
        self.advance_minutes(days * 24 * 60).await;
    }

    pub(super) async fn advance_minutes(&self, minutes: u64) {
        self.post("clock/advance", &json!({"ms": minutes * 60_000})).await;
    }

    /// To an instant, RFC 3339.
    pub(super) async fn advance_to(&self, at: &str) {
        self.post("clock/advance", &json!({"to": at})).await;
    }

    /// Waits until nothing can run unless the clock moves.
    pub(super) async fn idle(&self) {
        self.get("idle").await;
    }

    pub(super) async fn events(&self) -> Vec<Value> {
        self.get("events").await.as_array().expect("a list").clone()
    }

    /// The events of this name.
    pub(super) async fn named(&self, name: &str) -> Vec<Value> {
        self.events()
            .await
            .into_iter()
            .filter(|event| event["name"] == name)
            .collect()
    }

    /// Every run that came to an end that is none.
    pub(super) async fn failed(&self) -> Vec<Value> {
        let runs = self.get("runs").await;
        let failed = |run: &&Value| {
            run["status"]
                .as_str()
                .is_some_and(|status| status.eq_ignore_ascii_case("failed"))
        };
        runs.as_array()
            .expect("a list")
            .iter()
            .filter(failed)
            .cloned()
            .collect()
    }
}
