//! Placeholder.
#[derive(Debug)]
pub struct MemoryDedupe;
