//! The instructions of a process, as the processor counts them: `perf stat` beside it. Where two runs of one thing differ by a
//! tenth in time, they differ by a hundredth in instructions.
//!
//! Gives nothing where there is no `perf`, or where the machine shows its counters to nobody: many virtual ones do not.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::folder;
use super::process::bound_to_us;

/// Ends with the process that it counts.
#[derive(Debug)]
pub(crate) struct Counter {
    perf: Child,
    told: PathBuf,
}

impl Counter {
    /// All threads of that process, those to come as well.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let told = folder().join(format!("{pid}.instructions"));
        let mut perf = bound_to_us("perf");
        perf.args(["stat", "-x", ",", "-e", "instructions", "-p", &pid.to_string(), "-o"]);
        perf.arg(&told)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let perf = perf.spawn().ok()?;
        Some(Self { perf, told })
    }

    /// Up to the end of that process, which has to have ended.
    pub(crate) fn counted(mut self) -> Option<u64> {
        self.perf.wait().ok()?;
        let text = std::fs::read_to_string(&self.told).ok()?;
        let _removed = std::fs::remove_file(&self.told);
        // `12255949496,,instructions,1625167971,100.00,,`, or `<not supported>` in the first place.
        text.lines().find_map(|line| line.split_once(',')?.0.parse().ok())
    }
}
