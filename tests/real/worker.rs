//! The worker binary as a child process, and the receiver it sends to.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crm_event_processors::clock::{Clock as _, SystemClock};
use crm_event_processors::inngest::receiver::{AcceptedEvent, Receiver, ReceiverSettings, Sink};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::stack;

/// Longer than anything takes on a busy machine; reaching it means that something never came.
pub(super) use crate::PATIENCE;

/// What the receiver accepted, and when.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) ts_ms: i64,
    pub(super) data: Value,
    pub(super) at_ms: i64,
}

/// Keeps the accepted events of one merchant: others belong to other tests.
#[derive(Debug)]
pub(super) struct Inbox {
    merchant: String,
    events: Mutex<Vec<Accepted>>,
    count: watch::Sender<usize>,
}

impl Sink for Inbox {
    fn accepted(&self, event: AcceptedEvent<'_>) {
        let data: Value = serde_json::from_str(event.data).expect("the receiver has parsed it");
        // An award says it in its basis.
        let is_of_ours = |said: &Value| said["merchant_id"] == self.merchant.as_str();
        if !is_of_ours(&data) && !is_of_ours(&data["basis"]) {
            return;
        }
        let mut events = self.events.lock().expect("not poisoned");
        events.push(Accepted {
            id: event.id.to_owned(),
            name: event.name.to_owned(),
            ts_ms: event.ts_ms,
            data,
            at_ms: SystemClock.now_ms(),
        });
        self.count.send_replace(events.len());
    }
}

impl Inbox {
    pub(super) fn of(merchant: &str) -> Arc<Self> {
        let count = watch::Sender::new(0);
        Arc::new(Self {
            merchant: merchant.to_owned(),
            events: Mutex::default(),
            count,
        })
    }

    pub(super) fn all(&self) -> Vec<Accepted> {
        self.events.lock().expect("not poisoned").clone()
    }

    /// Waits until the accepted events satisfy the predicate.
    pub(super) async fn wait_until(&self, what: &str, predicate: impl Fn(&[Accepted]) -> bool) {
        let mut count = self.count.subscribe();
        let seen = async {
            while !predicate(&self.all()) {
                count.changed().await.expect("the inbox lives");
            }
        };
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            let ids: Vec<String> = self.all().into_iter().map(|event| event.id).collect();
            panic!("never came: {what}; accepted so far: {ids:#?}");
        }
    }
}

pub(super) async fn receiver(inbox: &Arc<Inbox>) -> Receiver {
    let sink: Arc<dyn Sink> = Arc::clone(inbox) as _;
    Receiver::start(ReceiverSettings::default(), sink, Arc::new(SystemClock))
        .await
        .expect("a free port")
}

/// The binary with its settings; started, killed and started again.
pub(super) struct Worker {
    /// Flags besides the variables.
    pub(super) arguments: Vec<&'static str>,
    variables: Vec<(&'static str, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Worker {
    /// For one group, one program file, one receiver.
    pub(super) fn new(group: &str, program: &str, inngest: &str) -> Self {
        crm_event_processors::tls::install_provider();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let program_file = folder.join(format!("{group}.program.json"));
        std::fs::write(&program_file, program).expect("a program file");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("a free port")
            .port();
        let variables = vec![
            ("KAFKA_BOOTSTRAP_SERVERS", stack("KAFKA_BOOTSTRAP_SERVERS")),
            ("CONSUMER_GROUP_ID", group.to_owned()),
            ("LEDGER_EFFECTIVE_FROM", "2020-01-01T00:00:00Z".to_owned()),
            ("REDIS_URL", stack("REDIS_URL")),
            ("INNGEST_DEV", inngest.to_owned()),
            ("PROGRAM_FILE", program_file.display().to_string()),
            ("HTTP_ADDR", format!("127.0.0.1:{port}")),
            ("LOG_FORMAT", "text".to_owned()),
            // Whoever needs it looks more often.
            ("SOURCE_POLL_SECS", "0".to_owned()),
        ];
        Self {
            variables,
            arguments: Vec::new(),
            log: folder.join(format!("{group}.log")),
            child: None,
        }
    }

    pub(super) fn set(&mut self, name: &'static str, value: &str) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_owned()));
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.variables.iter().map(|(name, value)| (*name, value.as_str()))
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.variables.retain(|(known, _)| *known != name);
    }

    /// The least the broker allows: the partitions of a member that was killed come back soon. A machine that stalls for as
    /// long takes those of a living one away.
    pub(super) fn is_missed_soon(&mut self) {
        self.set("KAFKA_SESSION_TIMEOUT_MS", "6000");
    }

    /// Starts it and waits until it owns partitions.
    pub(super) async fn start(&mut self) {
        self.spawn();
        let ready = async {
            while self
                .status()
                .await
                .is_none_or(|status| status["partitions"][0].is_null())
            {
                let child = self.child.as_mut().expect("running");
                if let Some(ended) = child.try_wait().expect("asked") {
                    panic!("the worker ended with {ended}; its log:\n{}", self.log());
                }
                // Another process: there is no event to wait for, only its endpoint to ask.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, ready).await.is_err() {
            panic!("the worker never became ready; its log:\n{}", self.log());
        }
    }

    pub(super) fn spawn(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"));
        command.arg("run").args(&self.arguments).env_clear().kill_on_drop(true);
        command.envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    /// The partitions it owns, and how many records of them are not finished; nobody must have stopped the process.
    pub(super) async fn share(&self) -> (usize, u64) {
        let Some(status) = self.status().await else {
            return (0, 0);
        };
        let partitions = status["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let outstanding = |partition: &Value| partition["outstanding"].as_u64().expect("a count");
        (partitions.len(), partitions.iter().map(outstanding).sum())
    }

    /// What `/statusz` says, if anybody answers.
    pub(super) async fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.get("statusz").await?.1).ok()
    }

    /// Status and body of an endpoint.
    pub(super) async fn get(&self, endpoint: &str) -> Option<(u16, String)> {
        let (_, address) = self.variables.iter().find(|(name, _)| *name == "HTTP_ADDR")?;
        let response = reqwest::get(format!("http://{address}/{endpoint}")).await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    /// kill -9.
    pub(super) async fn kill(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().await.expect("killed");
    }

    /// SIGTERM, and the exit code.
    pub(super) async fn stop(&mut self) -> i32 {
        self.signal("TERM").await;
        self.ends().await
    }

    /// Any signal; the process stays ours.
    pub(super) async fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("running");
        let pid = child.id().expect("running").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().await;
        assert!(sent.expect("kill runs").success());
    }

    /// The exit code of a worker that ends by itself.
    pub(super) async fn ends(&mut self) -> i32 {
        let mut child = self.child.take().expect("running");
        self.code(&mut child).await
    }

    async fn code(&self, child: &mut Child) -> i32 {
        match tokio::time::timeout(PATIENCE, child.wait()).await {
            Ok(ended) => {
                let ended = ended.expect("waited");
                let code = ended.code();
                code.unwrap_or_else(|| panic!("{ended}; its log:\n{}", self.log()))
            }
            Err(_) => panic!("the worker does not end; its log:\n{}", self.log()),
        }
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
