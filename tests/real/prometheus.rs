//! A real Prometheus that scrapes a worker of a test's own, and `promtool`: Debian's, unpacked by `stack/prometheus`.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command as Blocking, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use super::unique;
use super::worker::PATIENCE;

/// Prometheus tells nobody that it has scraped.
const LOOK: Duration = Duration::from_millis(200);

pub(super) struct Prometheus {
    folder: PathBuf,
    base: String,
    http: reqwest::Client,
    _process: Child,
}

/// The folder of the programs.
fn programs() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/stack/prometheus");
    let told = Blocking::new(script)
        .stdin(Stdio::null())
        .output()
        .expect("the script runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    PathBuf::from(String::from_utf8(told.stdout).expect("UTF-8").trim_end())
}

/// What `promtool check metrics` has against a scrape.
pub(super) fn lint(scrape: &str) -> String {
    let mut checking = Blocking::new(programs().join("promtool"));
    checking.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut checking = checking
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let mut input = checking.stdin.take().expect("piped");
    input.write_all(scrape.as_bytes()).expect("it reads");
    drop(input);
    let told = checking.wait_with_output().expect("it ends");
    let said = [told.stdout, told.stderr].concat();
    let said = String::from_utf8(said).expect("UTF-8");
    // It finds fault on standard error and by its exit code: neither alone.
    if told.status.success() {
        said
    } else {
        format!("{said}{}", told.status)
    }
}

impl Prometheus {
    /// Scrapes this address every second; waits until it answers.
    pub(super) async fn of(target: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("prometheus-{}", unique()));
        std::fs::create_dir(&folder).expect("a folder");
        let config = folder.join("prometheus.yaml");
        let text = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
             scrape_configs:\n  - job_name: worker\n    static_configs: [{{ targets: ['{target}'] }}]\n"
        );
        std::fs::write(&config, text).expect("a file");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = free.expect("a free port");
        let log = File::create(folder.join("log")).expect("a log file");
        let mut command = Command::new(programs().join("prometheus"));
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .kill_on_drop(true);
        let output = log.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let prometheus = Self {
            folder,
            base: format!("http://{address}"),
            http: reqwest::Client::new(),
            _process: command.spawn().expect("it starts"),
        };
        let ready = async {
            while !prometheus.is_ready().await {
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, ready).await;
        assert!(waited.is_ok(), "never ready: {}", prometheus.log());
        prometheus
    }

    async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/-/ready", self.base)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The values of a query as of now; a query that it refuses fails the test.
    pub(super) async fn values(&self, query: &str) -> Vec<f64> {
        let url = format!("{}/api/v1/query", self.base);
        let url = reqwest::Url::parse_with_params(&url, [("query", query)]).expect("an address");
        let answer = self.http.get(url).send().await.expect("an answer");
        let text = answer.text().await.expect("a body");
        let told: Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!(told["status"], "success", "{query}: {text}");
        let samples = told["data"]["result"].as_array().expect("samples");
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|value| value.parse().ok());
        samples.iter().map(|sample| value(sample).expect("a number")).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _left_behind = std::fs::remove_dir_all(&self.folder);
        }
    }
}
