//! What else does the same job: how each is started, and what it calls the event of a row. `benches/install peers` puts
//! everything they need into one folder.

use std::path::Path;

use super::process::{Process, bound_to_us};
use super::workers::Surroundings;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The worker that this one replaces, in the way it was written.
    OldWorker,
    /// The same packages, made fast.
    TunedKafkaJs,
    /// A pipeline of the Redpanda Connect family.
    Bento,
}

/// It logs to its output: to the log with that. Our end of the pipe stays open in it, and tells of its end.
const KEEP_LOG: &str = r#"exec "$0" "$@" 3>&1 >&2"#;
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");

impl Peer {
    /// All of them give a purchase one event, whatever happens to it later.
    pub(crate) fn event_id(row: u32) -> String {
        format!("award-p-{row:08}")
    }

    pub(crate) fn start(self, installed: &Path, surroundings: &Surroundings) -> anyhow::Result<Process> {
        let node = |folder: &str| {
            let mut command = bound_to_us(installed.join("node"));
            command.arg(format!("{PEERS}/{folder}/worker.js"));
            command.env("NODE_PATH", installed.join("node_modules"));
            command.env("NODE_ENV", "production");
            command
        };
        let (name, mut command) = match self {
            Self::OldWorker => ("old-worker", node("old-worker")),
            Self::TunedKafkaJs => ("tuned-kafkajs", node("tuned-kafkajs")),
            Self::Bento => {
                let mut command = bound_to_us("sh");
                command.args(["-c", KEEP_LOG]);
                command.arg(installed.join("bento"));
                command.args(["run", &format!("{PEERS}/bento/pipeline.yaml")]);
                ("bento", command)
            }
        };
        command.env("KAFKA_BROKERS", &surroundings.brokers);
        command.env("KAFKA_GROUP", &surroundings.group);
        command.env("TOPIC", format!("{}.public.purchase_ledger", surroundings.prefix));
        command.env("REDIS_URL", &surroundings.redis);
        command.env("INNGEST_URL", format!("{}/e/dev", surroundings.inngest));
        Process::start(name, command)
    }
}
