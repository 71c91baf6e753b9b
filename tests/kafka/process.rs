//! The real binary as a child process, with an Inngest and a Redis that are not there.

use std::process::Stdio;

use crm_event_processors::loyalty::DEMO_PROGRAM;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::worker::patiently;

pub(super) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    /// What it has logged so far.
    pub(super) log: String,
}

impl Process {
    /// `name` is for the files of this test alone.
    pub(super) fn start(name: &str, brokers: &str, more: &[(&str, &str)]) -> Self {
        let program_file = format!("{}/{name}.program.json", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&program_file, DEMO_PROGRAM).expect("a program file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
            .arg("run")
            .env_clear()
            .env("KAFKA_BOOTSTRAP_SERVERS", brokers)
            .env("REDIS_URL", "redis://127.0.0.1:9")
            .env("INNGEST_DEV", "http://127.0.0.1:9")
            .env("PROGRAM_FILE", program_file)
            .env("LEDGER_EFFECTIVE_FROM", "2020-01-01T00:00:00Z")
            .env("HTTP_ADDR", "off")
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let log = String::new();
        Self { child, lines, log }
    }

    /// Waits until it has logged this.
    pub(super) async fn says(&mut self, words: &str) {
        let (lines, log) = (&mut self.lines, &mut self.log);
        let saying = async {
            while !log.contains(words) {
                let line = lines.next_line().await.expect("readable");
                log.push_str(&line.unwrap_or_else(|| panic!("the worker ended: {log}")));
            }
        };
        patiently(words, saying).await;
    }

    pub(super) fn terminate(&self) {
        let pid = self.child.id().expect("running").to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// The exit code; the log is whole then.
    pub(super) async fn ended(&mut self) -> Option<i32> {
        let (lines, log) = (&mut self.lines, &mut self.log);
        let rest = async {
            while let Some(line) = lines.next_line().await.expect("readable") {
                log.push_str(&line);
            }
        };
        patiently("the end of the log", rest).await;
        patiently("the end", self.child.wait()).await.expect("waited").code()
    }
}
