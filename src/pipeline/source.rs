//! The port between the pipeline and whoever fetches: Kafka's polling thread, or a simulated log.
//!
//! Two channels. The source sends [`Event`]s in the order in which they happened: what was assigned before its records,
//! every record before the revocation of its partition. The pipeline sends [`Command`]s. Neither side ever blocks on the
//! other, but for one case: while [`Event::Revoked`] is unanswered the source delivers nothing.

use tokio::sync::{mpsc, oneshot};

use crate::progress::{Committed, Start};
use crate::record::{Batch, TopicPartition, Topics};

/// The pipeline's end.
#[derive(Debug)]
pub struct Handle {
    pub topics: Topics,
    pub events: mpsc::Receiver<Event>,
    pub commands: mpsc::Sender<Command>,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    Assigned(Vec<Assigned>),
    Batch(Batch),
    /// Partitions are being taken away. The source waits for the answer: what to commit before it lets go.
    /// `lost` means that it is too late to commit anything.
    Revoked {
        partitions: Vec<TopicPartition>,
        lost: bool,
        reply: oneshot::Sender<Vec<Commit>>,
    },
    /// The answer to [`Command::Commit`].
    Committed {
        offsets: Vec<Commit>,
        error: Option<String>,
    },
    /// The source cannot go on.
    Failed(Failure),
}

/// A partition that is ours from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    pub place: TopicPartition,
    pub start: Start,
}

/// A position to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub place: TopicPartition,
    /// The next offset to read, and the frame with everybody's watermarks.
    pub progress: Committed,
}

/// What the pipeline wants.
#[derive(Debug)]
pub enum Command {
    /// Commit without waiting; answered by [`Event::Committed`]. At most one is under way.
    Commit(Vec<Commit>),
    /// Fetch nothing of these partitions until resumed. An assignment always starts resumed.
    Pause(Vec<TopicPartition>),
    Resume(Vec<TopicPartition>),
    /// Fetch nothing any more; keep the membership.
    StopFetching,
    /// Commit, wait for the answer, leave the group. The last command.
    Close {
        commits: Vec<Commit>,
        reply: oneshot::Sender<Result<(), String>>,
    },
}

/// Why a source cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Authorization, authentication, a topic that does not exist: an operator must act.
    #[error("{0}")]
    Configuration(String),
    /// The client is in a state it cannot leave: only a new process helps.
    #[error("{0}")]
    Fatal(String),
}
