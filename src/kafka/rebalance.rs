//! The client's callbacks: assignments with explicit starts, revocations that wait for the pipeline.
//!
//! They run on the polling thread, inside `poll`. Everything is told to the pipeline in the order in which it happens:
//! the open batch goes out before a revocation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{mpsc, oneshot};

use super::client::log;
use super::consumer::Order;
use super::grants::{self, Grant};
use super::lookup::{LookedUp, look_up_patiently};
use crate::pipeline::source::{Assigned, Commit, Event, Failure};
use crate::progress::frame::{self, Reading};
use crate::progress::{ConsumerSet, Found, Halt, Notice, Orders, Start};
use crate::record::{BatchBuilder, Budget, TopicPartition, Topics};
use crate::telemetry::{Group, Halted, Telemetry};

/// How long the last commit before a revocation may take. Whoever comes next reads again what is not committed.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Context {
    pub(super) topics: Topics,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) telemetry: std::sync::Arc<Telemetry>,
    pub(super) budget: Budget,
    /// How long a revocation waits for the pipeline: its own deadline and a little more.
    pub(super) revoke_timeout: Duration,
    /// The consumers that run in this process.
    pub(super) consumers: ConsumerSet,
    pub(super) orders: Orders,
    /// The group's name, for errors.
    pub(super) group: String,
    /// Where partitions start that the group has not committed yet, other than at their log's begin.
    pub(super) seeds: OnceLock<BTreeMap<TopicPartition, Start>>,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Fetched, and not yet sent to the pipeline.
    pub(super) open: Option<BatchBuilder>,
    pub(super) assigned: BTreeSet<TopicPartition>,
    /// Not consumed until an operator decides: their committed offset lies outside the log.
    pub(super) halted: BTreeMap<TopicPartition, Halted>,
    /// Paused because the pipeline asked for it.
    pub(super) held: BTreeSet<TopicPartition>,
    /// Everything is paused until memory is free again.
    pub(super) short_of_room: bool,
    /// Something was assigned: whatever was paused for want of room must be paused anew.
    pub(super) reassigned: bool,
    /// To the committing thread, until the end.
    pub(super) orders: Option<SyncSender<Order>>,
    pub(super) last_error: Option<(Option<RDKafkaErrorCode>, String)>,
    /// An event could not be told: the thread ends.
    pub(super) broken: bool,
}

impl Context {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the pipeline. The queue has room for every record of the budget, so it is never full; if it were, an event
    /// would be lost, and the thread ends rather than go on.
    pub(super) fn tell(&self, event: Event) {
        match self.events.try_send(event) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => tracing::debug!("the pipeline takes no events any more"),
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::error!("the event queue is full: the memory budget is not kept");
                self.state().broken = true;
            }
        }
    }

    /// Sends what has been fetched so far.
    pub(super) fn flush(&self) {
        let open = self.state().open.take();
        if let Some(builder) = open.filter(|builder| !builder.is_empty()) {
            self.tell(Event::Batch(builder.finish()));
        }
    }

    pub(super) fn place(&self, topic: &str, partition: i32) -> Option<TopicPartition> {
        let topic = self.topics.iter().position(|known| known.as_ref() == topic)?;
        Some(TopicPartition {
            topic: u16::try_from(topic).ok()?,
            partition,
        })
    }

    pub(super) fn list<'a>(&self, commits: impl IntoIterator<Item = &'a Commit>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for commit in commits {
            if let Some(topic) = self.topics.get(usize::from(commit.place.topic)) {
                let partition = commit.place.partition;
                let added = list.add_partition_offset(topic, partition, Offset::Offset(commit.progress.offset));
                if let Err(error) = added {
                    tracing::error!(%error, ?commit, "offset cannot be committed");
                }
                if let Some(mut element) = list.find_partition(topic, partition) {
                    element.set_metadata(&commit.progress.metadata);
                }
            }
        }
        list
    }

    pub(super) fn partitions<'a>(&self, places: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for place in places {
            if let Some(topic) = self.topics.get(usize::from(place.topic)) {
                list.add_partition(topic, place.partition);
            }
        }
        list
    }

    /// Whether memory is used up and everything is paused.
    pub(super) fn short_of_room(&self, short: bool) {
        self.state().short_of_room = short;
        self.telemetry.short_of_room(short);
    }

    fn places(&self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        list.elements()
            .iter()
            .filter_map(|element| self.place(element.topic(), element.partition()))
            .collect()
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        let mut starts = TopicPartitionList::new();
        let mut unknown: BTreeSet<&str> = self.orders.dropped.iter().map(String::as_str).collect();
        let (mut assigned, mut halted) = (Vec::new(), BTreeMap::new());
        for LookedUp {
            topic,
            partition,
            found,
        } in look_up_patiently(&self.runtime, consumer, list)?
        {
            let Some(place) = self.place(&topic, partition) else {
                continue;
            };
            if let Some(committed) = &found.committed
                && let Reading::Frame(marks) = frame::read(&committed.metadata)
            {
                unknown.retain(|name| !marks.contains_key(*name));
            }
            match self.start(place, &topic, &found) {
                Ok(start) => {
                    starts.add_partition_offset(&topic, partition, Offset::Offset(start.position))?;
                    assigned.push(Assigned { place, start });
                }
                Err(halt) => {
                    tracing::error!(topic, partition, reason = %halt, "partition halted");
                    let committed = found.committed.map_or(found.begin, |committed| committed.offset);
                    let unread_from = if committed > found.end { found.begin } else { committed };
                    let reason = halt.to_string();
                    halted.insert(
                        place,
                        Halted {
                            committed,
                            unread_from,
                            reason,
                        },
                    );
                    self.telemetry.log_ends([(place, found.end)]);
                    // A fetch may leave before the pause below takes hold. From a position outside of the log it would
                    // fail, and end the process; from the end it brings nothing that the pipeline would take.
                    starts.add_partition_offset(&topic, partition, Offset::Offset(found.end))?;
                }
            }
        }
        let is_given_nothing = assigned.is_empty() && halted.is_empty();
        if !unknown.is_empty() && !is_given_nothing {
            tracing::warn!(names = ?unknown, "--drop-consumer: no partition assigned now knows them");
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&starts)?,
            RebalanceProtocol::None | RebalanceProtocol::Eager => consumer.assign(&starts)?,
        }
        // A pause of an earlier assignment would survive in the client.
        consumer.resume(&self.partitions(assigned.iter().map(|assigned| &assigned.place)))?;
        consumer.pause(&self.partitions(halted.keys()))?;
        {
            let mut state = self.state();
            state.assigned.extend(assigned.iter().map(|assigned| assigned.place));
            for assigned in &assigned {
                state.held.remove(&assigned.place);
            }
            state.halted.extend(halted.clone());
            state.reassigned = true;
            self.telemetry.halted(state.halted.clone());
        }
        tracing::info!(
            partitions = assigned.len(),
            halted = halted.len(),
            "partitions assigned"
        );
        self.tell(Event::Assigned(assigned));
        Ok(())
    }

    fn start(&self, place: TopicPartition, topic: &str, found: &Found) -> Result<Start, Halt> {
        if let (None, Some(seed)) = (&found.committed, self.seeds.get().and_then(|seeds| seeds.get(&place))) {
            return Ok(seed.clone());
        }
        let (start, notices) = Start::decide(found, self.consumers.reading(topic), &self.orders)?;
        let partition = place.partition;
        for notice in notices {
            match notice {
                Notice::New(_) | Notice::Absent { .. } => tracing::info!(topic, partition, "{notice}"),
                Notice::Ignored(_) | Notice::Dropped { .. } | Notice::GapAccepted { .. } => {
                    tracing::warn!(topic, partition, "{notice}");
                }
            }
        }
        Ok(start)
    }

    /// Has the committing thread make the last commit before partitions go, behind the one that is under way.
    fn commit_last(&self, commits: Vec<Commit>) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let orders = self.state().orders.clone();
        let sent = orders.is_some_and(|orders| orders.try_send(Order::Last { commits, reply }).is_ok());
        if !sent {
            return Err("no commit can be made now".to_owned());
        }
        let waited = self
            .runtime
            .block_on(async { tokio::time::timeout(COMMIT_PATIENCE, answer).await });
        match waited {
            Ok(Ok(ended)) => ended,
            Ok(Err(_gone)) => Err("the committing thread is gone".to_owned()),
            Err(_elapsed) => Err("no answer in time".to_owned()),
        }
    }

    /// Whether an error with this code means that an operator must act.
    pub(super) fn refuses(&self, code: RDKafkaErrorCode) -> bool {
        let last = self.state().last_error.clone();
        let reason = last.map(|(_, reason)| reason).unwrap_or_default();
        grants::is_authorization(code) || grants::is_authentication(code, &reason)
    }

    /// What an operator has to do about it. The client does not say which topic it was.
    pub(super) fn refusal(&self, code: RDKafkaErrorCode) -> Failure {
        let mend = match code {
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                let topics = self.topics.iter().map(|topic| Grant::Read(topic.to_string()));
                Grant::mend(&topics.collect::<Vec<_>>())
            }
            RDKafkaErrorCode::GroupAuthorizationFailed => Grant::mend(&[Grant::Join(self.group.clone())]),
            RDKafkaErrorCode::ClusterAuthorizationFailed => "Grant DESCRIBE on the cluster".to_owned(),
            _ => grants::MEND_KEY.to_owned(),
        };
        let last = self.state().last_error.clone();
        let reason = last.map_or_else(|| code.to_string(), |(_, reason)| reason);
        Failure::Configuration(format!("kafka refuses us: {reason}. {mend}"))
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        let partitions = self.places(list);
        let lost = consumer.assignment_lost();
        self.flush();
        let (reply, answer) = oneshot::channel();
        self.tell(Event::Revoked {
            partitions: partitions.clone(),
            lost,
            reply,
        });
        // No answer within the time, or no pipeline any more: nothing is committed, everything is read again.
        let waited = self
            .runtime
            .block_on(async { tokio::time::timeout(self.revoke_timeout, answer).await });
        let commits = waited.ok().and_then(Result::ok).unwrap_or_default();
        let count = commits.len();
        if !lost
            && !commits.is_empty()
            && let Err(error) = self.commit_last(commits)
        {
            tracing::warn!(error, "commit at revocation failed; the records are read again");
        }
        tracing::info!(
            partitions = partitions.len(),
            lost,
            committed = count,
            "partitions revoked"
        );
        {
            let mut state = self.state();
            for place in &partitions {
                state.assigned.remove(place);
                state.held.remove(place);
                state.halted.remove(place);
            }
            self.telemetry.halted(state.halted.clone());
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            RebalanceProtocol::None | RebalanceProtocol::Eager => consumer.unassign(),
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka consumer");
        self.state().last_error = Some((error.rdkafka_error_code(), format!("{error}: {reason}")));
    }

    fn stats(&self, statistics: Statistics) {
        let mut ends = Vec::new();
        for (topic, statistics) in &statistics.topics {
            for (partition, statistics) in &statistics.partitions {
                if let Some(place) = self.place(topic, *partition)
                    && statistics.ls_offset >= 0
                {
                    ends.push((place, statistics.ls_offset));
                }
            }
        }
        self.telemetry.log_ends(ends);
        if let Some(group) = statistics.cgrp {
            let (rebalances, reason) = (group.rebalance_cnt, group.rebalance_reason);
            if self.telemetry.group(Group {
                rebalances,
                reason: reason.clone(),
            }) {
                tracing::info!(rebalances, reason, "the group has rebalanced");
            }
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let (kind, done) = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => ("assign", self.assign(consumer, list)),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS if consumer.assignment_lost() => {
                ("lost", self.revoke(consumer, list))
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => ("revoke", self.revoke(consumer, list)),
            other => ("error", Err(KafkaError::Rebalance(other.into()))),
        };
        self.telemetry.rebalanced(kind);
        if let Err(error) = done {
            if let Some(code) = error.rdkafka_error_code().filter(|code| self.refuses(*code)) {
                self.tell(Event::Failed(self.refusal(code)));
                return;
            }
            // Half an assignment cannot be repaired from here; a new process starts from what is committed.
            self.tell(Event::Failed(Failure::Fatal(format!(
                "rebalance ({kind}) failed: {error}"
            ))));
        }
    }
}
