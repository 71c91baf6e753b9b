//! Placeholder.
#[derive(Debug)]
pub struct RedisDedupe;
