//! Parse, run, exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// A third of the worker's time was the system's allocator: records are made on one thread and dropped on another. Without
/// huge pages, which took half as much memory again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    crm_event_processors::cli::main()
}
