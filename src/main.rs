//! Parse, run, exit code.
#![forbid(unsafe_code)]

/// A third of the worker's time was the system's allocator: records are made on one thread and dropped on another. Without
/// huge pages, which took half as much memory again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    crm_event_processors::cli::main()
}
