//! `make instructions`: how many instructions a record costs in the pure stages, counted by callgrind.
//!
//! Takes the committed counts; says where a stage has become dearer, and exits 1 then. It runs itself once more under
//! valgrind, which executes the same instructions on a busy machine and on a quiet one. It measures no time.
#![expect(clippy::print_stdout, reason = "a benchmark talks to people")]

mod callgrind;
#[path = "../rig/records.rs"]
#[expect(
    dead_code,
    reason = "only one record of the benchmark and its program are needed here"
)]
mod records;
mod stages;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use comfy_table::{Table, presets::ASCII_MARKDOWN};

use stages::Stage;
use verdict::{Counted, Verdict};

/// As the worker's: what an allocation costs is in the counts.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
#[command(name = "instructions")]
struct Arguments {
    /// Given by cargo to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    /// Write the counts down as those that hold from now on.
    #[arg(long)]
    accept: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What runs under valgrind.
    #[command(hide = true)]
    Count,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Command::Count) = arguments.command {
        stages::run()?;
        return Ok(ExitCode::SUCCESS);
    }
    let counted = callgrind::count()?;
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json"));
    if arguments.accept {
        let mut json = serde_json::to_string_pretty(&counted)?;
        json.push('\n');
        std::fs::write(&file, json)?;
        println!("{}\n\naccepted: {}", table(&counted, None), file.display());
        return Ok(ExitCode::SUCCESS);
    }
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let committed: Counted = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    println!("{}\n", table(&counted, Some(&committed)));
    let verdict = Verdict::of(&committed, &counted)?;
    println!("{verdict}");
    Ok(if verdict.is_dearer() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Instructions a record, and what they were where that is not the same.
fn table(counted: &Counted, committed: Option<&Counted>) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN);
    let stages = Stage::ALL.map(Stage::name);
    table.set_header(["instructions a record"].into_iter().chain(stages));
    for (case, counts) in &counted.counts {
        let cell = |stage: &str| {
            let Some(now) = counts.get(stage) else {
                return "-".to_owned();
            };
            let before = committed.and_then(|committed| committed.counts.get(case)?.get(stage));
            match before.filter(|before| *before != now) {
                Some(before) => format!("{now} ({:+.1} %)", verdict::percent(*before, *now)),
                None => now.to_string(),
            }
        };
        table.add_row([case.clone()].into_iter().chain(stages.map(cell)));
    }
    table
}
