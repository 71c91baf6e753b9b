//! A child process: its lines, its end, and what `/proc` says of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{PATIENCE, folder};

/// Linux tells CPU time in hundredths of a second, whatever the kernel's own tick is.
const TICK: Duration = Duration::from_millis(10);

/// A command whose process is killed when this one ends, however it ends. The kernel goes by the thread that starts it, which
/// has to be the first one.
pub(crate) fn bound_to_us(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    // It becomes the program: the pid stays, and with it what is read of its CPU and memory.
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Whose CPU and memory are read; the child itself, but for a server that a shell watches over.
    pid: u32,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Standard output is read line by line, standard error goes to a log file of that name.
    pub(crate) fn start(name: &str, mut command: Command) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder())?;
        let log = folder().join(format!("{name}.log"));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        let mut child = command.spawn().with_context(|| format!("{name} does not start"))?;
        let output = child.stdout.take().context("standard output is piped")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            pid: child.id(),
            input: child.stdin.take(),
            child,
            lines,
            log,
        })
    }

    /// This very program in another role.
    pub(crate) fn role(name: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = bound_to_us(std::env::current_exe()?);
        command.args(arguments);
        Self::start(name, command)
    }

    /// What is measured is another process than the child.
    pub(crate) fn measure(&mut self, pid: u32) {
        self.pid = pid;
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Closes its standard input, which ends our own roles and the shell that watches over Redis.
    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// The next line of its output.
    pub(crate) fn line(&self) -> anyhow::Result<String> {
        self.line_within(PATIENCE)?
            .with_context(|| format!("{} has said nothing for {PATIENCE:?}{}", self.name, self.last_words()))
    }

    /// The next line, or nothing when the time is over.
    pub(crate) fn line_within(&self, limit: Duration) -> anyhow::Result<Option<String>> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("{} ended{}", self.name, self.last_words()),
        }
    }

    /// What somebody else notices while this process runs; an error if it ends. `None` when the time is over.
    pub(crate) fn until(&self, notices: &Receiver<Instant>, limit: Duration) -> anyhow::Result<Option<Instant>> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            match notices.recv_timeout(Duration::from_millis(500)) {
                Ok(at) => return Ok(Some(at)),
                Err(RecvTimeoutError::Timeout) => {
                    self.line_within(Duration::ZERO)?;
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the receiver is gone"),
            }
        }
        Ok(None)
    }

    /// SIGTERM; it has to end with code 0.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.terminate()?;
        self.ended()
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        let sent = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        anyhow::ensure!(sent.success(), "{} is gone{}", self.name, self.last_words());
        Ok(())
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end, which has to be one with code 0.
    pub(crate) fn ended(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        // Its output ends with it: waiting for that is waiting for an event.
        while begun.elapsed() < PATIENCE {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(_said) => {}
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let code = self.child.wait()?;
                    anyhow::ensure!(code.success(), "{} ended with {code}{}", self.name, self.last_words());
                    return Ok(());
                }
            }
        }
        bail!("{} does not end{}", self.name, self.last_words())
    }

    /// The end of its log, for an error.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default();
        format!("; the end of {}:\n{}", self.log.display(), last.join("\n"))
    }

    /// CPU time so far, user and system.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(&self.pid.to_string())
    }

    /// The most memory it ever had resident, in KiB.
    pub(crate) fn peak_resident_kib(&self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    pub(crate) fn open_files(&self) -> anyhow::Result<u64> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid))?.count() as u64)
    }

    fn status(&self, field: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|rest| rest.split_ascii_whitespace().next());
        Ok(kib.with_context(|| format!("{} of {}", field, self.name))?.parse()?)
    }
}

/// CPU time of this very process.
pub(crate) fn own_cpu() -> anyhow::Result<Duration> {
    cpu("self")
}

fn cpu(process: &str) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in brackets may hold anything; the fields are counted behind it.
    let (_, fields) = stat.rsplit_once(')').context("a stat line")?;
    let ticks = |index| -> anyhow::Result<u32> {
        let field = fields.split_ascii_whitespace().nth(index);
        Ok(field.context("a shorter stat line than expected")?.parse()?)
    };
    Ok(TICK * (ticks(11)? + ticks(12)?))
}

impl Drop for Process {
    fn drop(&mut self) {
        // The shell that watches over Redis ends it when its input is closed.
        self.input = None;
        let own = self.pid == self.child.id();
        if own {
            let _gone_already = self.child.kill();
        }
        let _reaped = self.child.wait();
    }
}
