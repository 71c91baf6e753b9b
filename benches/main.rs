//! `make bench`, `make curves`, `make soak` and `make chaos`: what the worker reaches on this machine, and whether it holds for long and
//! whatever breaks.
//!
//! Takes the arguments of either; gives a table, or JSON. Broker and receiver are in this process, the worker measured is
//! a process of its own. Nothing here is a test: a figure that is missed fails nothing.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to people")]

mod chaos;
mod curves;
mod member;
mod plots;
mod ratios;
mod rig;
mod soak;

use clap::{Parser, Subcommand};

/// As the worker's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Given by cargo to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure every case, one after the other, round after round.
    Ratios(ratios::Options),
    /// Measure what grows with what, how long a record takes, and how a worker starts and ends.
    Curves(curves::Options),
    /// Run the worker under load and disturbances; say whether memory, handles and books hold.
    Soak(soak::Options),
    /// Break everything that two workers need, under load; say whether anything was lost or doubled.
    Chaos(chaos::Options),
    /// Draw what was measured.
    Plots(plots::Options),
    /// One case: read a log with the bare client.
    #[command(hide = true)]
    Read(ratios::read::Reader),
    /// One case: the pipeline with dedupe in memory.
    #[command(hide = true)]
    Member(member::Member),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Ratios(options) => ratios::run(&options),
        Command::Curves(options) => curves::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Chaos(options) => chaos::run(&options),
        Command::Plots(options) => plots::run(&options),
        Command::Read(reader) => reader.run(),
        Command::Member(member) => member.run(|| {}),
    }
}
