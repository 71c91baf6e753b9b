//! The parts: two workers, a broker, Redis and PostgreSQL, each a real process that can be broken and comes back.
//!
//! Takes commands and signals; gives processes with logs of their own. It never decides when.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::plan::Part;
use crate::member::SESSION_TIMEOUT_MS;
use crate::rig::{PATIENCE, folder};

/// A process, and how it is started.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    /// PostgreSQL is never killed hard, which would leave its children behind.
    gentle: bool,
    child: Option<Child>,
}

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Ground {
    /// Data of the servers; removed at the end.
    data: PathBuf,
    pub(crate) broker: u16,
    pub(crate) redis: u16,
    pub(crate) postgres: u16,
}

pub(crate) const GROUP: &str = "chaos";
pub(crate) const PREFIX: &str = "chaos";
/// Short, so that Redis forgets during the run what it would forget in production.
const WINDOW_SECS: &str = "30";
/// Its number on Linux.
const SIGTERM: u32 = 15;
const LOOK: Duration = Duration::from_millis(5);

impl Process {
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder())?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        self.child = Some(
            command
                .spawn()
                .with_context(|| format!("{} does not start", self.name))?,
        );
        Ok(())
    }

    pub(crate) fn log(&self) -> PathBuf {
        folder().join(format!("chaos-{}.log", self.name))
    }

    pub(crate) fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.child.as_ref().and_then(Child::id);
        let pid = pid.with_context(|| format!("{} is not running", self.name))?;
        send(signal, pid)
    }

    /// Sends the signal and waits for the end.
    pub(crate) async fn end(&mut self, signal: &str) -> anyhow::Result<ExitStatus> {
        self.signal(signal)?;
        let mut child = self.child.take().context("running")?;
        match timeout(PATIENCE, child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_too_long) => {
                let name = &self.name;
                child.start_kill()?;
                bail!("{name} does not end within {PATIENCE:?}")
            }
        }
    }

    /// Waits until SIGTERM comes to the process's own handler, or the process is gone: in its first moments a signal simply
    /// ends it, as it would anybody.
    pub(crate) async fn heeds_term(&self) -> anyhow::Result<()> {
        let pid = self.child.as_ref().and_then(Child::id);
        let status = format!("/proc/{}/status", pid.context("running")?);
        let heeded = async {
            while std::fs::read_to_string(&status).is_ok_and(|status| !catches_term(&status)) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let heeded = timeout(PATIENCE, heeded).await;
        heeded.with_context(|| format!("{} never heeds SIGTERM", self.name))
    }

    /// How it ended, if it did so by itself.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }
}

/// Whether a process with this status catches SIGTERM, or is dead and only not waited for.
fn catches_term(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let caught = field("SigCgt:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let is_dead = field("State:").is_some_and(|state| state.starts_with(['Z', 'X']));
    is_dead || caught.is_none_or(|mask| mask & (1 << (SIGTERM - 1)) != 0)
}

fn send(signal: &str, pid: u32) -> anyhow::Result<()> {
    let sent = std::process::Command::new("kill")
        .args(["-s", signal, &pid.to_string()])
        .status()?;
    ensure!(sent.success(), "{pid} is gone");
    Ok(())
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = self.child.as_ref().and_then(Child::id) {
            let signal = if self.gentle { "QUIT" } else { "KILL" };
            let _gone_already = send(signal, pid);
        }
    }
}

impl Ground {
    /// Free ports, and a folder that PostgreSQL's user can reach.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let data = std::env::temp_dir().join(format!("crm-chaos-{:016x}", fastrand::u64(..)));
        for folder in [&data, &data.join("broker"), &data.join("postgres")] {
            std::fs::create_dir(folder)?;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
        }
        let first = free_ports()?;
        Ok(Self {
            data,
            broker: first,
            redis: first + 3,
            postgres: first + 4,
        })
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.broker)
    }

    pub(crate) fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.redis)
    }

    /// As this role; each has its own name as its password.
    pub(crate) fn database_url(&self, role: &str) -> String {
        format!("postgres://{role}:{role}@127.0.0.1:{}/postgres", self.postgres)
    }

    pub(crate) fn server(&self, part: Part) -> anyhow::Result<Process> {
        let script = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("stack").join(name);
        let data = |name: &str| self.data.join(name).display().to_string();
        let (program, arguments) = match part {
            Part::Broker => (script("broker"), vec![data("broker"), self.broker.to_string()]),
            Part::Postgres => (script("database"), vec![data("postgres"), self.postgres.to_string()]),
            Part::Redis => {
                let port = self.redis.to_string();
                let arguments = [
                    "--port",
                    &port,
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ];
                let policy = ["--maxmemory-policy", "noeviction"];
                let arguments = arguments.into_iter().chain(policy).map(str::to_owned);
                (PathBuf::from("redis-server"), arguments.collect())
            }
            Part::First | Part::Second | Part::Receiver => bail!("{part} is no server"),
        };
        Process::new(part, program, arguments)
    }

    pub(crate) fn worker(&self, part: Part, inngest: &str) -> anyhow::Result<Process> {
        let (bootstrap, redis, database) = (self.bootstrap(), self.redis_url(), self.database_url("chaos_worker"));
        let session = SESSION_TIMEOUT_MS.to_string();
        let arguments = [
            "run",
            "--kafka-bootstrap-servers",
            &bootstrap,
            "--redis-url",
            &redis,
            "--database-url",
            &database,
            "--inngest-dev",
            "1",
            "--inngest-base-url",
            inngest,
            "--topic-prefix",
            PREFIX,
            "--consumer-group-id",
            GROUP,
            "--ledger-effective-from",
            "1970-01-01T00:00:00Z",
            "--dedup-window-secs",
            WINDOW_SECS,
            "--kafka-session-timeout-ms",
            &session,
            "--http-addr",
            "off",
            "--rust-log",
            "warn",
            "--log-format",
            "text",
        ];
        let arguments = arguments.map(str::to_owned).into();
        Process::new(part, binary(), arguments)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.data);
    }
}

impl Process {
    /// With an empty log.
    fn new(part: Part, program: PathBuf, arguments: Vec<String>) -> anyhow::Result<Self> {
        let process = Self {
            name: part.to_string(),
            program,
            arguments,
            gentle: part == Part::Postgres,
            child: None,
        };
        std::fs::create_dir_all(folder())?;
        File::create(process.log())?;
        Ok(process)
    }
}

/// The real one.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_crm-event-processors"))
}

/// Waits until something listens there.
pub(crate) async fn listens(port: u16) -> anyhow::Result<()> {
    let asking = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answered = timeout(PATIENCE, asking).await;
    answered.with_context(|| format!("nothing listens on port {port}"))
}

/// The first of five free ports in a row, below those that Linux gives to outgoing connections.
fn free_ports() -> anyhow::Result<u16> {
    let all_free = |first: &u16| (*first..first + 5).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(20_000..29_000)).take(1_000);
    candidates.find(all_free).context("no free ports")
}
