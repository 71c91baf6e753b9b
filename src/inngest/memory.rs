//! Placeholder.
#[derive(Debug)]
pub struct MemoryDeliver;
