//! A Redis of our own, on a free port, without persistence. Not the stack's: a benchmark empties it between cases.

use std::fmt::Write as _;
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
/// From one number to before another.
const OTHERS: &str = "for i = ARGV[1], ARGV[2] - 1 do \
     redis.call('SET', string.format('others:award:purchase_ledger:00000000-0000-4000-8000-%012d:1', i), 'done', 'PX', 3600000) \
     end return redis.status_reply('OK')";
/// So that none of them holds up the server for long.
const OTHERS_A_SCRIPT: u32 = 50_000;
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
        self.tell(&["FLUSHALL", "SYNC"])
    }

    /// Forgets every key, and knows as many others instead, of our length and with a time to live, as a server that has been
    /// in use for long.
    pub(crate) fn hold_others(&self, keys: u32) -> anyhow::Result<()> {
        self.empty()?;
        for first in (0..keys).step_by(OTHERS_A_SCRIPT as usize) {
            let end = keys.min(first + OTHERS_A_SCRIPT);
            self.tell(&["EVAL", OTHERS, "0", &first.to_string(), &end.to_string()])?;
        }
        Ok(())
    }

    fn tell(&self, command: &[&str]) -> anyhow::Result<()> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let mut request = format!("*{}\r\n", command.len());
        for part in command {
            write!(request, "${}\r\n{part}\r\n", part.len())?;
        }
        connection.write_all(request.as_bytes())?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer)?;
        ensure!(&answer == b"+OK\r\n", "redis-server does not do what it is told");
        Ok(())
    }
}
