//! A log in memory behind the same port as Kafka: the twin for tests and simulations.
//!
//! Several members may join; the test says who owns what. It delivers from the committed position in order, honours the
//! memory budget and pauses, answers commits, and lets go of a partition only after the pipeline has answered. It knows
//! no time of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::pipeline::source::{Assigned, Command, Commit, Event, Handle};
use crate::progress::{Committed, ConsumerSet, Found, Orders, Start};
use crate::record::{BatchBuilder, Budget, Header, Headers, RecordView, TopicPartition, Topics};

/// How long a member without room or records waits before it looks again, if nothing wakes it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const BATCH_RECORDS: usize = 500;

/// Topics, partitions, records, and what the group has committed.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    topics: Topics,
    state: Arc<Mutex<State>>,
    /// Counts changes: appended records and commits.
    changes: watch::Sender<u64>,
}

/// One record as it was appended.
#[derive(Debug, Clone, Default)]
pub struct MemoryRecord {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<TopicPartition, Vec<(i64, MemoryRecord)>>,
    committed: BTreeMap<TopicPartition, Committed>,
    /// Answers of the next commits: a cause makes one fail.
    commit_failures: VecDeque<String>,
}

/// A member of the group, as the test sees it.
#[derive(Debug)]
pub struct Member {
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Assign(Vec<TopicPartition>, oneshot::Sender<()>),
    Revoke {
        partitions: Vec<TopicPartition>,
        lost: bool,
        /// Let go without the pipeline's answer.
        impatient: bool,
        done: oneshot::Sender<()>,
    },
}

impl MemoryLog {
    #[must_use]
    pub fn new(topics: &[&str]) -> Self {
        let topics = topics.iter().map(|topic| (*topic).into()).collect();
        Self {
            topics,
            state: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Appends at the next offset, leaving `gap` offsets out, as transaction markers do.
    pub fn append(&self, place: TopicPartition, record: MemoryRecord, gap: i64) -> i64 {
        let mut state = self.state();
        let log = state.logs.entry(place).or_default();
        let offset = log.last().map_or(0, |(offset, _)| offset + 1) + gap;
        log.push((offset, record));
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
        offset
    }

    /// The metadata of the group's commitment.
    #[must_use]
    pub fn metadata(&self, place: TopicPartition) -> Option<String> {
        self.state()
            .committed
            .get(&place)
            .map(|committed| committed.metadata.clone())
    }

    /// The group's committed offset.
    #[must_use]
    pub fn committed(&self, place: TopicPartition) -> Option<i64> {
        self.state().committed.get(&place).map(|committed| committed.offset)
    }

    /// Waits until everything appended to the partition so far is committed.
    pub async fn wait_all_committed(&self, place: TopicPartition) {
        let end = self
            .state()
            .logs
            .get(&place)
            .and_then(|log| log.last())
            .map_or(0, |(offset, _)| offset + 1);
        let mut changes = self.changes.subscribe();
        while self.committed(place) != Some(end) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The next commit fails.
    pub fn fail_next_commit(&self, cause: &str) {
        self.state().commit_failures.push_back(cause.to_owned());
    }

    /// A new member, which owns nothing yet. It is gone when the handle is dropped.
    #[must_use]
    pub fn join(&self, budget: Budget, consumers: ConsumerSet) -> (Handle, Member) {
        let (event_tx, events) = mpsc::channel(100_000);
        let (commands, command_rx) = mpsc::channel(1024);
        let (orders, order_rx) = mpsc::channel(16);
        let server = Server {
            log: self.clone(),
            consumers,
            budget,
            events: event_tx,
            commands: command_rx,
            orders: order_rx,
            positions: BTreeMap::new(),
            paused: BTreeSet::new(),
            stopped: false,
        };
        tokio::spawn(server.run());
        (
            Handle {
                topics: Arc::clone(&self.topics),
                events,
                commands,
            },
            Member { orders },
        )
    }

    fn commit(&self, commits: &[Commit]) -> Option<String> {
        let mut state = self.state();
        if let Some(cause) = state.commit_failures.pop_front() {
            return Some(cause);
        }
        for commit in commits {
            state.committed.insert(commit.place, commit.progress.clone());
        }
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
        None
    }

    /// Where a member of these consumers starts; `None` where it would have to halt.
    fn start(&self, place: TopicPartition, consumers: ConsumerSet) -> Option<Start> {
        let state = self.state();
        let end = state
            .logs
            .get(&place)
            .and_then(|log| log.last())
            .map_or(0, |(offset, _)| offset + 1);
        let committed = state.committed.get(&place).cloned();
        let found = Found {
            committed,
            begin: 0,
            end,
        };
        let readers = consumers.reading(self.topics.get(usize::from(place.topic))?);
        Start::decide(&found, readers, &Orders::default())
            .ok()
            .map(|(start, _notices)| start)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Gives the member these partitions, starting at what is committed.
    pub async fn assign(&self, partitions: &[TopicPartition]) {
        let (done, assigned) = oneshot::channel();
        if self.orders.send(Order::Assign(partitions.to_vec(), done)).await.is_ok() {
            let _gone = assigned.await;
        }
    }

    /// Takes partitions away, after the pipeline has answered; `lost`: without its answer counting.
    pub async fn revoke(&self, partitions: &[TopicPartition], lost: bool) {
        self.take_away(partitions, lost, false).await;
    }

    /// Takes partitions away without waiting for the pipeline's answer, as Kafka's polling thread does when its patience is
    /// over. Nothing is committed.
    pub async fn revoke_impatiently(&self, partitions: &[TopicPartition]) {
        self.take_away(partitions, false, true).await;
    }

    async fn take_away(&self, partitions: &[TopicPartition], lost: bool, impatient: bool) {
        let (done, revoked) = oneshot::channel();
        let order = Order::Revoke {
            partitions: partitions.to_vec(),
            lost,
            impatient,
            done,
        };
        if self.orders.send(order).await.is_ok() {
            let _gone = revoked.await;
        }
    }
}

struct Server {
    log: MemoryLog,
    consumers: ConsumerSet,
    budget: Budget,
    events: mpsc::Sender<Event>,
    commands: mpsc::Receiver<Command>,
    orders: mpsc::Receiver<Order>,
    positions: BTreeMap<TopicPartition, i64>,
    paused: BTreeSet<TopicPartition>,
    stopped: bool,
}

impl Server {
    async fn run(mut self) {
        let mut changes = self.log.changes.subscribe();
        loop {
            self.deliver();
            tokio::select! {
                biased;
                () = self.events.closed() => return,
                command = self.commands.recv() => match command {
                    Some(command) => if !self.serve(command) { return },
                    None => return,
                },
                Some(order) = self.orders.recv() => self.obey(order).await,
                _ = changes.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => self.budget.none_came(),
            }
        }
    }

    /// Sends what there is, as far as there is room.
    fn deliver(&mut self) {
        if self.stopped {
            return;
        }
        let log = self.log.clone();
        let state = log.state();
        let mut builder = BatchBuilder::new(Arc::clone(&log.topics), self.budget.clone());
        let room = self.budget.room().min(BATCH_RECORDS);
        for (place, position) in &mut self.positions {
            if self.paused.contains(place) {
                continue;
            }
            let records = state.logs.get(place).map_or(&[][..], Vec::as_slice);
            let unread = records.partition_point(|(offset, _)| *offset < *position);
            for (offset, record) in records.iter().skip(unread) {
                if builder.len() >= room || self.budget.is_full() {
                    break;
                }
                push(&mut builder, &log.topics, *place, *offset, record);
                *position = offset + 1;
            }
        }
        drop(state);
        if !builder.is_empty() {
            self.tell(Event::Batch(builder.finish()));
        }
    }

    fn serve(&mut self, command: Command) -> bool {
        match command {
            Command::Commit(offsets) => {
                let error = self.log.commit(&offsets);
                self.tell(Event::Committed { offsets, error });
            }
            Command::Pause(places) => self.paused.extend(places),
            Command::Resume(places) => self.paused.retain(|place| !places.contains(place)),
            Command::StopFetching => self.stopped = true,
            Command::Close { commits, reply } => {
                let answer = self.log.commit(&commits).map_or(Ok(()), Err);
                let _nobody_waits = reply.send(answer);
                return false;
            }
        }
        true
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Assign(partitions, done) => {
                let assigned = partitions.into_iter().filter_map(|place| {
                    let start = self.log.start(place, self.consumers)?;
                    Some(Assigned { place, start })
                });
                let assigned: Vec<Assigned> = assigned.collect();
                let positions = assigned
                    .iter()
                    .map(|assigned| (assigned.place, assigned.start.position));
                self.positions.extend(positions);
                self.tell(Event::Assigned(assigned));
                let _nobody_waits = done.send(());
            }
            Order::Revoke {
                partitions,
                lost,
                impatient,
                done,
            } => {
                let (reply, answer) = oneshot::channel();
                self.tell(Event::Revoked {
                    partitions: partitions.clone(),
                    lost,
                    reply,
                });
                let commits = if impatient {
                    drop(answer);
                    Vec::new()
                } else {
                    answer.await.unwrap_or_default()
                };
                if !lost {
                    let _refused = self.log.commit(&commits);
                }
                for place in &partitions {
                    self.positions.remove(place);
                    self.paused.remove(place);
                }
                let _nobody_waits = done.send(());
            }
        }
    }

    fn tell(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            tracing::debug!("the pipeline takes no events any more");
        }
    }
}

fn push(builder: &mut BatchBuilder, topics: &Topics, place: TopicPartition, offset: i64, record: &MemoryRecord) {
    let headers: Vec<Header<'_>> = record
        .headers
        .iter()
        .map(|(name, value)| Header {
            name,
            value: value.as_deref(),
        })
        .collect();
    let view = RecordView {
        topic: topics.get(usize::from(place.topic)).map_or("", AsRef::as_ref),
        partition: place.partition,
        offset,
        timestamp_ms: None,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: Headers(&headers),
    };
    builder.push(place, &view);
}
