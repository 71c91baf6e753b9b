//! A Redis of our own, on a free port, without persistence. Not the stack's: a benchmark empties it between cases.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::PATIENCE;
use super::process::Process;

/// A shell watches over the server and ends it when its own input is closed: by us, or by our death. It outlives the Ctrl-C that
/// everything in the terminal gets.
const WATCH: &str = r#"trap '' HUP INT TERM; redis-server "$@" >/dev/null & echo $!; read -r _; kill -9 $!; wait"#;
/// How often a server that starts is asked whether it is there.
const ASK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) process: Process,
    port: u16,
}

impl Redis {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("sh");
        command.args(["-c", WATCH, "redis", "--port", &port.to_string()]);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--maxmemory-policy", "noeviction"]);
        let mut process = Process::start("redis", command)?;
        let pid = process.line()?.parse().context("the pid of redis-server")?;
        process.measure(pid);
        let redis = Self { process, port };
        let begun = Instant::now();
        while redis.empty().is_err() {
            ensure!(begun.elapsed() < PATIENCE, "redis-server does not answer");
            // It says nothing when it is ready: the time it is given ends early only if it dies.
            redis.process.line_within(ASK_AGAIN)?;
        }
        Ok(redis)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Forgets every key.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(b"FLUSHALL SYNC\r\n")?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer)?;
        ensure!(&answer == b"+OK\r\n", "redis-server does not forget");
        Ok(())
    }
}
