//! The pipeline with an allocator that counts: prints how often Rust's part of it asked for memory.
#![expect(clippy::print_stdout, reason = "the benchmark reads the figure there")]

mod member;

use std::alloc::System;

use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    member: member::Member,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut counted = Region::new(COUNTING);
    // What the start asks for is no record's.
    arguments.member.run(|| counted.reset())?;
    let counts = counted.change();
    println!(
        "{} {}",
        counts.allocations + counts.reallocations,
        counts.bytes_allocated
    );
    Ok(())
}
