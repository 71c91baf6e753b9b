//! Parse, run, exit code.
#![forbid(unsafe_code)]

/// As fast as any here, with the least memory: docs/performance.md. Records are made on one thread and dropped on another, which the
/// system's allocator takes a fifth more CPU for.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    crm_event_processors::cli::main()
}
