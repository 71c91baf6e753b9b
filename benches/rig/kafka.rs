//! A real broker of our own, on free ports, its data in a folder that goes with it. The mock waits as long as a fetch may
//! whenever there is nothing to fetch, even if something comes meanwhile; a real broker answers at once. And it trims
//! nothing.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tokio::runtime::Runtime;

use super::PATIENCE;
use super::process::Process;
use super::records::Log;

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A shell watches over the broker and ends it when its own input is closed, by us or by our death, and removes its data.
/// Nothing of them is worth a farewell. It outlives the Ctrl-C that everything in the terminal gets: a broker that a shell started
/// in the background ignores that, and would stay.
const WATCH: &str = r#"trap '' HUP INT TERM; "$1" "$2" "$3" & echo $!; read -r _; kill -9 $!; wait; rm -rf "$2""#;
/// Where there is room for some gigabytes: what is temporary is often kept in memory, which is measured here.
const DATA: &str = "/var/tmp";

#[derive(Debug)]
pub(crate) struct Broker {
    _process: Process,
    port: u16,
}

impl Broker {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let data = Path::new(DATA).join(format!("crm-curves-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&data)?;
        let port = free_ports()?;
        let mut command = Command::new("sh");
        command.args(["-c", WATCH, "kafka"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("stack/broker"));
        command.arg(&data).arg(port.to_string());
        let mut process = Process::start("kafka", command)?;
        // The script becomes the broker: its pid stays.
        let pid = process.line()?.parse().context("the pid of the broker")?;
        process.measure(pid);
        let (begun, mut said) = (Instant::now(), None);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(
                begun.elapsed() < PATIENCE,
                "the broker does not listen; it said last: {}",
                said.unwrap_or_default()
            );
            // Ends early with each of its lines, and if it dies.
            said = process.line_within(LOOK_AGAIN)?.or(said);
        }
        Ok(Self {
            _process: process,
            port,
        })
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn make_topics(&self, runtime: &Runtime, log: &Log) -> anyhow::Result<()> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let names = log.topics();
        let topic = |(name, partitions)| NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|(name, partitions)| topic((name, *partitions)))
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for created in runtime.block_on(admin.create_topics(&topics, &options))? {
            created.map_err(|(topic, error)| anyhow::anyhow!("{topic}: {error}"))?;
        }
        Ok(())
    }
}

/// The first of three free ports in a row, below those that Linux gives to outgoing connections.
fn free_ports() -> anyhow::Result<u16> {
    let all_free = |first: &u16| (*first..first + 3).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(20_000..29_000)).take(1_000);
    candidates.find(all_free).context("no free ports")
}
