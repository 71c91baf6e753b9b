//! A picture of the pipeline, published at every tick.

use crate::consumers::Consumer;
use crate::pipeline::PartitionStatus;
use crate::record::Topics;

/// How things stand.
#[derive(Debug, Clone)]
pub struct Status {
    /// When the pipeline last ticked, ms since the epoch.
    pub ticked_ms: i64,
    pub topics: Topics,
    pub partitions: Vec<PartitionStatus>,
    pub consumers: Vec<ConsumerStatus>,
    /// The group has given this member its share, which may be nothing.
    pub joined: bool,
    /// A shutdown has begun.
    pub draining: bool,
}

/// One logical consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerStatus {
    pub consumer: Consumer,
    pub lanes: usize,
    /// Why it waits for an operator, if it does.
    pub standing_still: Option<String>,
    /// Why it is halted until an operator acts, if it is: too many dead letters.
    pub halted: Option<String>,
}

impl Status {
    /// Before the first tick.
    #[must_use]
    pub fn starting() -> Self {
        let topics = Topics::from(Vec::new());
        Self {
            ticked_ms: 0,
            topics,
            partitions: Vec::new(),
            consumers: Vec::new(),
            joined: false,
            draining: false,
        }
    }
}
