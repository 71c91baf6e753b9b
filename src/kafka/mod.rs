//! Stage 1, fetch, and the end of the way, commit: Kafka behind the pipeline's source port.
//!
//! One membership a process, one polling thread that never awaits and never stops polling. It copies what it fetches
//! into batches, as far as the memory budget has room; back-pressure pauses partitions. Nothing is committed that the
//! pipeline did not ask for. It never looks into a record.

mod backlog;
mod bounded;
mod client;
mod consumer;
pub mod embedded;
mod ends;
mod grants;
mod lookup;
pub mod memory;
mod preflight;
mod rebalance;
mod replaying;
mod seeding;
mod survey;

pub use backlog::Backlog;
pub use bounded::{Asker, Edge, Reader, Reading, Span, Step};
pub use client::{Connection, Logging, MAX_POLL_INTERVAL, consumer_config, producer_config};
pub use consumer::{Membership, Source, start};
pub use grants::Grant;
pub use preflight::{Right, StartError};
pub use replaying::{Frame, Part, Progress, Tape, replay};
pub use seeding::{Group, StartAt};
pub use survey::{Committed, Look, Members, Role, Seen, Settings, Survey, Topic, Trouble, Unseen, Visible};
