//! How the real worker is started.

use std::path::PathBuf;
use std::process::Command;

use crm_event_processors::consumers::Consumer;

use super::folder;
use super::process::{Process, bound_to_us};
use super::records::PROGRAM;
use crate::member::SESSION_TIMEOUT_MS;

/// Where a worker finds everything.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Which binary it is.
    pub(crate) worker: PathBuf,
    pub(crate) brokers: String,
    pub(crate) redis: String,
    pub(crate) inngest: String,
    pub(crate) prefix: String,
    /// A group that nobody was in before starts at the log's begin.
    pub(crate) group: String,
}

/// The worker that cargo builds with the benches: its dependencies have the features that tests ask for, as a shipped one's have not.
pub(crate) fn built_with_benches() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_crm-event-processors"))
}

/// The real binary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Real<'a> {
    /// As `--consumers` takes them.
    pub(crate) consumers: &'a str,
    pub(crate) lanes: u32,
    pub(crate) window_secs: u32,
    /// Where metrics and traces are pushed to, and which part of the batches.
    pub(crate) push: Option<(&'a str, &'a str)>,
}

impl Real<'_> {
    pub(crate) fn start(&self, name: &str, surroundings: &Surroundings) -> anyhow::Result<Process> {
        let mut command = self.command(surroundings)?;
        command.args(["--rust-log", "warn", "--log-format", "text"]);
        Process::start(name, command)
    }

    /// Everything but what it logs.
    pub(crate) fn command(&self, surroundings: &Surroundings) -> anyhow::Result<Command> {
        std::fs::create_dir_all(folder())?;
        let program = folder().join("program.json");
        std::fs::write(&program, PROGRAM)?;
        let Self {
            consumers,
            lanes,
            window_secs,
            push,
        } = self;
        let Surroundings {
            worker,
            brokers,
            redis,
            inngest,
            prefix,
            group,
        } = surroundings;
        let mut command = bound_to_us(worker);
        command.arg("run").env_clear();
        command.arg("--program-file").arg(program);
        command.args(["--kafka-bootstrap-servers", brokers, "--redis-url", redis]);
        command.args(["--inngest-dev", "1", "--inngest-base-url", inngest]);
        command.args(["--topic-prefix", prefix, "--consumer-group-id", group]);
        command.args([
            "--consumers",
            consumers,
            "--dedup-window-secs",
            &window_secs.to_string(),
        ]);
        command.args(["--ledger-effective-from", "1970-01-01T00:00:00Z"]);
        if consumers.split(',').count() < Consumer::ALL.len() {
            command.args(["--start-at", "begin"]);
        }
        for consumer in Consumer::ALL.map(Consumer::name) {
            command.args([format!("--{consumer}-concurrency"), lanes.to_string()]);
        }
        command.args(["--kafka-session-timeout-ms", &SESSION_TIMEOUT_MS.to_string()]);
        command.args(["--http-addr", "off"]);
        // A look at everything around it is no work of a record.
        command.args(["--source-poll-secs", "0"]);
        if let Some((url, ratio)) = push {
            command.args([
                "--otel-exporter-otlp-endpoint",
                url,
                "--otel-metric-export-interval",
                "1000",
            ]);
            command.args([
                "--otel-traces-sampler",
                "traceidratio",
                "--otel-traces-sampler-arg",
                ratio,
            ]);
        }
        Ok(command)
    }
}
