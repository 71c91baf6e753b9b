//! Runs this very program under callgrind and reads what it wrote: one file for each time that a stage was left.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::stages::{CASES, RECORDS, Stage};
use super::verdict::Counted;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/instructions");

pub(crate) fn count() -> anyhow::Result<Counted> {
    let folder = Path::new(FOLDER);
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        // The counts begin at zero when a stage begins, and are written when it ends.
        .args(["--zero-before=*counted_stage", "--dump-after=*counted_stage"])
        .arg(format!("--callgrind-out-file={FOLDER}/out"))
        .arg(std::env::current_exe()?)
        .arg("count")
        .env_clear()
        .output()
        .context("valgrind does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "under valgrind it ended with {}: {said}",
        output.status
    );
    let machine = String::from_utf8(output.stdout)?.trim().to_owned();
    let mut counts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let places = CASES.iter().flat_map(|case| Stage::ALL.map(|stage| (case.name, stage)));
    for (number, (case, stage)) in (1_u32..).zip(places) {
        let dumped = folder.join(format!("out.{number}"));
        let instructions = total(&dumped)? / u64::from(RECORDS);
        std::fs::rename(
            &dumped,
            folder.join(format!("{}-{}", case.replace(' ', "-"), stage.name())),
        )?;
        counts
            .entry(case.to_owned())
            .or_default()
            .insert(stage.name().to_owned(), instructions);
    }
    Ok(Counted {
        machine,
        valgrind: version("valgrind")?,
        compiler: version("rustc")?,
        counts,
    })
}

/// All instructions of a dump.
fn total(file: &Path) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("summary: "));
    let total = line.and_then(|line| line.split(' ').next());
    Ok(total
        .with_context(|| format!("{}: no summary", file.display()))?
        .parse()?)
}

fn version(program: &str) -> anyhow::Result<String> {
    let output = Command::new(program).arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
