//! Where figures come from: which code, which machine, when, how often, and whether everything that belongs to them was measured.
//!
//! Takes a look at the machine and at git; gives a line to stand under every table and drawing, and the file for the
//! figures. What is only a part of a measurement never takes the place of a whole one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use crm_event_processors::clock::{Clock as _, SystemClock};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// Short; `-dirty` if files differ from it.
    pub(crate) commit: String,
    /// When it began.
    pub(crate) time: String,
    /// Of cargo.
    pub(crate) profile: String,
    pub(crate) rounds: usize,
    pub(crate) cores: usize,
    pub(crate) model: String,
    /// How many processes wanted to run in the minute before it began: more than none disturbs it.
    pub(crate) load_before: f64,
    /// Every case in every round.
    pub(crate) complete: bool,
}

impl Origin {
    /// Before anything is measured.
    pub(crate) fn look() -> anyhow::Result<Self> {
        let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = std::fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            time: SystemClock.now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            profile: profile(&std::env::current_exe()?)
                .context("a binary that cargo did not build")?
                .to_owned(),
            rounds: 0,
            cores: std::thread::available_parallelism()?.get(),
            model: model.map_or("unknown", |(_, model)| model).to_owned(),
            load_before: load.split(' ').next().unwrap_or_default().parse()?,
            complete: false,
        })
    }

    /// What was measured in part is not drawn: nobody would see what is missing.
    pub(crate) fn check(&self, file: &Path, again: &str) -> anyhow::Result<()> {
        ensure!(
            self.complete,
            "{}: not every case was measured in every round ({self}); run `{again}` without choosing cases and let it end",
            file.display()
        );
        Ok(())
    }
}

/// Of the checkout.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        let output = git.args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { commit + "-dirty" })
}

/// The name of the profile's folder; a binary of tests or benches lies in `target/<profile>/deps`.
pub(crate) fn profile(binary: &Path) -> Option<&str> {
    let deps = binary.parent().filter(|folder| folder.ends_with("deps"))?;
    deps.parent()?.file_name()?.to_str()
}

/// Writes results; gives where. A part stays beside the whole that was measured before.
pub(crate) fn keep(folder: &Path, name: &str, json: &str, complete: bool) -> anyhow::Result<PathBuf> {
    let part = folder.join(format!("{name}-part.json"));
    std::fs::write(&part, json)?;
    if !complete {
        return Ok(part);
    }
    let whole = folder.join(format!("{name}.json"));
    std::fs::rename(part, &whole)?;
    Ok(whole)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            commit,
            time,
            profile,
            rounds,
            cores,
            model,
            load_before,
            complete,
        } = self;
        write!(
            f,
            "commit {commit}, {time}, profile {profile}, {rounds} rounds, {cores} cores, {model}, load {load_before} before"
        )?;
        if *complete { Ok(()) } else { write!(f, "; a part only") }
    }
}
