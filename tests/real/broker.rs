//! A broker that one test has for itself, to take it away: the stack's Kafka on other ports and data of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::unique;

pub(super) struct Broker {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Broker {
    pub(super) fn start() -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("broker-{}", unique()));
        std::fs::create_dir(&folder).expect("a folder");
        let mut broker = Self {
            folder,
            port: free_ports(),
            process: None,
        };
        broker.come_back();
        broker
    }

    pub(super) fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// kill -9.
    pub(super) async fn kill(&mut self) {
        let mut process = self.process.take().expect("running");
        process.kill().await.expect("killed");
    }

    /// On the same port and data. Whoever needs it waits for it: that is what the clients can do.
    pub(super) fn come_back(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("broker.log"))
            .expect("a log file");
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/stack/broker"));
        command.arg(&self.folder).arg(self.port.to_string()).kill_on_drop(true);
        let output = log.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        self.process = Some(command.spawn().expect("the script starts"));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _gone_already = process.start_kill();
        }
        let _left_behind = std::fs::remove_dir_all(&self.folder);
    }
}

/// The first of three free ports in a row, below those that Linux gives to outgoing connections: a client that tries a
/// closed port of that range often enough ends up connected to itself.
fn free_ports() -> u16 {
    let all_free = |first: &u16| (*first..first + 3).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(20_000..29_000));
    candidates.find(all_free).expect("some are free")
}
