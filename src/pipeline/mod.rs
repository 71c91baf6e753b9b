//! The front door: the way of a record.
//!
//! `fetch → decode → route → (per consumer: lane → decide → claim → deliver → confirm) → progress → commit`
//!
//! The contract: *a position is committed only after every consumer that reads the topic has finished the record:
//! delivered and confirmed, decided to do nothing, found it done, superseded by a newer state in hand, or dead-lettered
//! with the delivery report in hand.* Whatever fails in between is repeated, and repeating is harmless, because the
//! event's id is made of the row change alone.
//!
//! [`source`] fetches; `intake` decodes, routes and fans out; `lane` brings a record to its outcome; `partitions` knows
//! what may be committed; this file moves data between them, one event at a time, and never waits for a lane.

mod backoff;
mod compare;
mod delivery;
mod evaluation;
mod fit;
mod halt;
mod inbox;
mod intake;
mod item;
mod lane;
mod outcome;
mod parked;
mod partitions;
mod rules;
mod shadowing;
mod shared;
mod signal;
pub mod source;
mod standstill;
mod telling;
mod traced;
mod undertaker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consumers::Consumer;
use crate::dead_letters::Queue;
use crate::debezium::{DecimalMode, Decoder};
use crate::progress::ConsumerSet;
use crate::record::TopicPartition;
use crate::telemetry::{ConsumerStatus, Status};
use inbox::Inbox;
use intake::{Intake, Lanes};
use item::Finished;
use lane::Lane;
use parked::Limit;
use partitions::{Absence, Partitions};
use shared::Shared;
use source::{Command, Event, Failure, Handle};
use undertaker::{Dead, Undertaker};

pub use backoff::Randomness;
pub use lane::MAX_BATCH;
pub use outcome::{Disposition, Outcome};
pub use partitions::PartitionStatus;
pub use rules::{ReadRules, RuleBook};
pub use shared::{OldRecords, Ports, Replay};

/// How the pipeline runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The consumers that run, each with its number of lanes.
    pub consumers: Vec<(Consumer, usize)>,
    pub decimals: DecimalMode,
    /// How often progress is committed.
    pub commit_interval: Duration,
    /// How long a revocation waits for lanes. Well below the session timeout.
    pub revoke_deadline: Duration,
    /// How long a shutdown waits for lanes. Below the platform's kill delay.
    pub drain_deadline: Duration,
    /// The most records in memory, which bounds every queue.
    pub max_records: usize,
    /// The most bytes of records in memory.
    pub max_bytes: usize,
    /// Write dead letters however many there are, instead of halting.
    pub accept_dead_letters: bool,
}

/// How long the last commit may take; brokers that are away are not waited for.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Why the pipeline ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// Shut down. `unfinished` records were in hand at the deadline; they are read again.
    Drained {
        unfinished: usize,
    },
    Failed(Failure),
}

struct Pipeline {
    options: Options,
    source: Handle,
    shared: Arc<Shared>,
    intake: Intake,
    partitions: Partitions,
    finished: mpsc::Receiver<Vec<Finished>>,
    refused: mpsc::Receiver<String>,
    workers: JoinSet<()>,
    revoking: Option<Revoking>,
    /// The group has given us our share.
    joined: bool,
    /// Set when a shutdown has begun.
    draining: Option<Instant>,
}

/// A revocation that waits for the lanes.
struct Revoking {
    partitions: Vec<TopicPartition>,
    reply: oneshot::Sender<Vec<source::Commit>>,
    deadline: Instant,
}

/// Runs until `shutdown`, or until the source cannot go on.
pub async fn run(options: Options, source: Handle, ports: Ports, shutdown: CancellationToken) -> Exit {
    run_as(Replay::No, options, source, ports, shutdown).await
}

/// The same for records that an operator sends this way once more.
pub async fn run_as(
    replay: Replay,
    options: Options,
    source: Handle,
    ports: Ports,
    shutdown: CancellationToken,
) -> Exit {
    let mut pipeline = Pipeline::start(replay, options, source, ports);
    let mut ticks = tokio::time::interval(pipeline.options.commit_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let ended = tokio::select! {
            biased;
            () = shutdown.cancelled(), if pipeline.draining.is_none() => pipeline.begin_drain(),
            _ = ticks.tick() => pipeline.tick(),
            Some(finished) = pipeline.finished.recv() => pipeline.finish(&finished),
            event = pipeline.source.events.recv() => match event {
                Some(event) => pipeline.happened(event),
                None => Err(Failure::Fatal("the source is gone".to_owned())),
            },
            Some(cause) = pipeline.refused.recv() => Err(Failure::Configuration(cause)),
            Some(worker) = pipeline.workers.join_next() => {
                Err(Failure::Fatal(format!("a lane ended: {worker:?}")))
            }
        };
        if let Err(failure) = ended {
            return Exit::Failed(failure);
        }
        pipeline.answer_revocation();
        if pipeline.is_drained() {
            return pipeline.close().await;
        }
    }
}

impl Pipeline {
    fn start(replay: Replay, options: Options, source: Handle, ports: Ports) -> Self {
        let (finished_tx, finished) = mpsc::channel(1024);
        let (refused_tx, refused) = mpsc::channel(1);
        let shared = Arc::new(Shared::new(replay, ports, options.accept_dead_letters, refused_tx));
        let mut workers = JoinSet::new();
        let mut undertaker = |queue, consumers| {
            let (letters_tx, letters) = mpsc::channel::<Dead>(options.max_records);
            let (finished, shared) = (finished_tx.clone(), Arc::clone(&shared));
            let undertaker = Undertaker {
                queue,
                consumers,
                finished,
                shared,
            };
            workers.spawn(undertaker.run(letters));
            letters_tx
        };
        let readers: ConsumerSet = options.consumers.iter().map(|(consumer, _)| *consumer).collect();
        let undecodable = undertaker(Queue::Decode, readers);
        let letters: Vec<_> = options
            .consumers
            .iter()
            .map(|(consumer, _)| undertaker(Queue::Consumer(*consumer), ConsumerSet::only(*consumer)))
            .collect();
        let all_lanes = options.consumers.iter().map(|(_, count)| count).sum();
        let limit = Limit::of_each(all_lanes, options.max_records, options.max_bytes);
        let mut lanes = Vec::new();
        for ((consumer, count), letters) in options.consumers.iter().zip(letters) {
            let mut inboxes = Vec::new();
            for _ in 0..*count {
                let (inbox_tx, inbox) = mpsc::channel(options.max_records);
                let lane = Lane::new(
                    *consumer,
                    letters.clone(),
                    finished_tx.clone(),
                    Arc::clone(&shared),
                    limit,
                );
                workers.spawn(lane.run(Inbox::new(inbox, shared.fence.watch())));
                inboxes.push(inbox_tx);
            }
            lanes.push(Lanes {
                consumer: *consumer,
                inboxes,
            });
        }
        let partitions = Partitions::none();
        let intake = Intake {
            decoder: Decoder::default(),
            decimals: options.decimals,
            lanes,
            undertaker: undecodable,
            shared: Arc::clone(&shared),
        };
        Self {
            options,
            source,
            shared,
            intake,
            partitions,
            finished,
            refused,
            workers,
            revoking: None,
            joined: false,
            draining: None,
        }
    }

    fn happened(&mut self, event: Event) -> Result<(), Failure> {
        if matches!(event, Event::Assigned(_) | Event::Revoked { .. }) {
            // A source that did not wait for our answer has let go already: what it assigns next must not be forgotten
            // in the name of the old revocation.
            if let Some(revoking) = self.revoking.take_if(|revoking| revoking.reply.is_closed()) {
                self.forget(&revoking.partitions);
            }
        }
        match event {
            Event::Assigned(assigned) => {
                self.joined = true;
                self.partitions.assign(assigned);
            }
            // Once a shutdown has begun nothing new is begun; what is not received is not committed.
            Event::Batch(_) if self.draining.is_some() => {}
            Event::Batch(batch) => {
                self.shared.ports.telemetry.received(batch.len());
                let taken = self.intake.take(batch, &mut self.partitions);
                taken.map_err(|gone| Failure::Fatal(gone.to_string()))?;
                self.control_flow();
            }
            Event::Revoked {
                partitions,
                lost: true,
                reply,
            } => {
                self.forget(&partitions);
                let _nobody_waits = reply.send(Vec::new());
            }
            Event::Revoked {
                partitions,
                lost: false,
                reply,
            } => {
                let deadline = Instant::now() + self.options.revoke_deadline;
                self.revoking = Some(Revoking {
                    partitions,
                    reply,
                    deadline,
                });
            }
            Event::Committed { offsets, error } => {
                self.partitions.committed(offsets, error.is_none());
                self.shared.ports.telemetry.committed(error.is_none());
                if let Some(error) = error {
                    tracing::warn!(error, "commit failed; it is repeated");
                }
            }
            Event::Failed(failure) => return Err(failure),
        }
        Ok(())
    }

    fn finish(&mut self, finished: &[Finished]) -> Result<(), Failure> {
        // Counted once a message, not once a record: most records of a batch end alike.
        let mut counts: Vec<(Consumer, &'static str, u64)> = Vec::new();
        for finished in finished {
            // A late outcome belongs to a partition that has another owner by now, who counts it himself.
            if let Some(consumers) = self.partitions.finish(finished) {
                let outcome = finished.outcome.label();
                for consumer in consumers.iter() {
                    let same = |count: &&mut (Consumer, &str, u64)| (count.0, count.1) == (consumer, outcome);
                    match counts.iter_mut().find(same) {
                        Some((_, _, records)) => *records += 1,
                        None => counts.push((consumer, outcome, 1)),
                    }
                }
            }
        }
        for (consumer, outcome, records) in counts {
            self.shared.ports.telemetry.finished(Some(consumer), outcome, records);
        }
        self.control_flow();
        Ok(())
    }

    /// Commits what has moved and says how things stand.
    fn tick(&mut self) -> Result<(), Failure> {
        // While a revocation waits, its own commit is about to come: one behind the other never goes backwards.
        if self.revoking.is_none() {
            let commits = self.partitions.begin_commit();
            if !commits.is_empty() && self.source.commands.try_send(Command::Commit(commits)).is_err() {
                self.partitions.committed(Vec::new(), false);
            }
        }
        for Absence { place, held_by } in self.partitions.long_absences() {
            let topic = self
                .source
                .topics
                .get(usize::from(place.topic))
                .map_or("", AsRef::as_ref);
            let partition = place.partition;
            tracing::error!(
                topic,
                partition,
                ?held_by,
                "the committed offset waits for consumers that do not run here; \
                             run them, or give up what they have not read with --drop-consumer"
            );
        }
        // Looked at with every tick, not only when partitions go: a probe that was in flight then may be refused later.
        for (consumer, _) in &self.options.consumers {
            if self.partitions.is_idle(*consumer) {
                self.shared.standstills.forget(*consumer);
            }
        }
        let consumers = self.options.consumers.iter().map(|(consumer, lanes)| ConsumerStatus {
            consumer: *consumer,
            lanes: *lanes,
            standing_still: self.shared.standstills.reason(*consumer),
            halted: self.shared.halts.reason(*consumer),
        });
        let partitions = self.partitions.status();
        let draining = self.draining.is_some();
        let topics = Arc::clone(&self.source.topics);
        let now_ms = self.shared.ports.clock.now_ms();
        let status = Status {
            ticked_ms: now_ms,
            topics,
            partitions,
            consumers: consumers.collect(),
            joined: self.joined,
            draining,
        };
        self.shared.ports.telemetry.publish(status);
        Ok(())
    }

    fn control_flow(&mut self) {
        let (pause, resume) = self.partitions.flow();
        for (partitions, command) in [(pause, Command::Pause as fn(_) -> _), (resume, Command::Resume)] {
            if !partitions.is_empty() && self.source.commands.try_send(command(partitions)).is_err() {
                tracing::warn!("the source does not take commands");
            }
        }
    }

    /// Lets partitions go when nothing of them is in hand any more, or when waiting longer would cost the membership.
    fn answer_revocation(&mut self) {
        let Some(revoking) = self.revoking.take() else { return };
        let unfinished = self.partitions.outstanding(Some(&revoking.partitions));
        if unfinished > 0 && Instant::now() < revoking.deadline && !revoking.reply.is_closed() {
            self.revoking = Some(revoking);
            return;
        }
        if unfinished > 0 {
            tracing::warn!(
                unfinished,
                "revocation deadline: unfinished records go to the next owner"
            );
        }
        let commits = self.partitions.final_commits(Some(&revoking.partitions));
        self.forget(&revoking.partitions);
        let _nobody_waits = revoking.reply.send(commits);
    }

    /// Ends the epochs of these partitions and wakes whoever waits on their behalf.
    fn forget(&mut self, partitions: &[TopicPartition]) {
        self.partitions.revoke(partitions);
        self.shared.fence.modify(|fence| *fence += 1);
    }

    fn begin_drain(&mut self) -> Result<(), Failure> {
        tracing::info!(outstanding = self.partitions.outstanding(None), "draining");
        self.draining = Some(Instant::now() + self.options.drain_deadline);
        let _closing_anyway = self.source.commands.try_send(Command::StopFetching);
        Ok(())
    }

    fn is_drained(&self) -> bool {
        let over = |deadline| self.partitions.outstanding(None) == 0 || Instant::now() >= deadline;
        self.draining.is_some_and(over) && self.revoking.is_none()
    }

    /// The last commit, and out of the group.
    async fn close(mut self) -> Exit {
        let unfinished = self.partitions.outstanding(None);
        let commits = self.partitions.final_commits(None);
        self.workers.abort_all();
        let (reply, mut closed) = oneshot::channel();
        if self
            .source
            .commands
            .send(Command::Close { commits, reply })
            .await
            .is_ok()
        {
            let deadline = tokio::time::sleep(CLOSE_DEADLINE);
            tokio::pin!(deadline);
            // The source may be giving partitions back at this moment: it is answered, or it would wait for us.
            loop {
                tokio::select! {
                    biased;
                    () = &mut deadline => {
                        tracing::warn!("no answer to the last commit: its records may be read again");
                        break;
                    }
                    answer = &mut closed => {
                        if let Ok(Err(error)) = answer {
                            tracing::warn!(error, "the last commit failed; its records are read again");
                        }
                        break;
                    }
                    event = self.source.events.recv() => match event {
                        Some(Event::Revoked { partitions, lost, reply }) => {
                            let commits = if lost { Vec::new() } else { self.partitions.final_commits(Some(&partitions)) };
                            self.partitions.revoke(&partitions);
                            let _nobody_waits = reply.send(commits);
                        }
                        Some(_) => {}
                        None => break,
                    }
                }
            }
        }
        Exit::Drained { unfinished }
    }
}
