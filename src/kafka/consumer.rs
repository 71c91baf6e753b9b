//! The polling thread: polls, fills batches, serves commands. Beside it a thread that only commits.
//!
//! The client reports the end of an asynchronous commit only for commits of its own making, never for ours (librdkafka
//! 2.12, `rd_kafka_cgrp_propagate_commit_result`). A synchronous commit does report, but it may block for a session
//! while the member rejoins, and the polling thread must never stop. So commits have a thread of their own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, TrySendError};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::client::{Connection, consumer_config};
use super::ends;
use super::preflight::{self, Preflight, StartError};
use super::rebalance::{Context, State};
use super::seeding::{self, Group, StartAt};
use crate::pipeline::source::{Command, Commit, Event, Failure, Handle};
use crate::progress::Orders;
use crate::record::{BatchBuilder, Budget, Header, Headers, RecordView, Topics, UNREADABLE_HEADERS};
use crate::telemetry::Telemetry;

/// The most records and bytes of one batch.
const BATCH_RECORDS: usize = 500;
const BATCH_BYTES: usize = 1024 * 1024;
/// How long an idle poll waits; also how late a command may be served.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// How long the thread waits for room before it pauses its partitions: a pause throws the prefetch away.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// Whoever does not answer for so long sends no records either.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// How to be a member of the group.
#[derive(Debug, Clone)]
pub struct Membership {
    pub connection: Connection,
    pub group: Group,
    pub topics: Topics,
    /// Topics that must exist besides: the dead letters.
    pub needed: Vec<String>,
    pub session_timeout_ms: u32,
    pub revoke_deadline: Duration,
    /// What the operator said about gaps and about consumers that are gone.
    pub orders: Orders,
    /// Where a subset's group starts that the main group knows nothing of.
    pub start_at: Option<StartAt>,
    /// Also how many batches of one record the event queue has room for.
    pub budget: Budget,
}

/// The running thread.
#[derive(Debug)]
pub struct Source {
    thread: std::thread::JoinHandle<()>,
}

impl Source {
    /// Waits until the client has left the group, at most `limit`. A client whose brokers are away is not waited for.
    pub async fn left(self, limit: Duration) -> bool {
        let gone = tokio::task::spawn_blocking(move || self.thread.join().is_ok());
        tokio::time::timeout(limit, gone).await.is_ok()
    }
}

/// Checks that brokers and topics are there, joins the group, and starts the thread. Blocks while it checks.
///
/// # Errors
/// When the client cannot be made, no broker answers, or a topic is missing: see [`StartError`].
pub fn start(
    membership: Membership,
    runtime: tokio::runtime::Handle,
    telemetry: Arc<Telemetry>,
) -> Result<(Handle, Source), StartError> {
    let Membership {
        connection,
        group,
        topics,
        needed,
        session_timeout_ms,
        budget,
        ..
    } = membership;
    // Every batch holds at least one record; the rest is room for assignments and answers.
    let (event_tx, events) = mpsc::channel(budget.max_records() + 1024);
    let (commands, command_rx) = mpsc::channel(1024);
    let name = group.name();
    let context = Context {
        topics: Arc::clone(&topics),
        events: event_tx,
        runtime,
        telemetry,
        budget,
        revoke_timeout: membership.revoke_deadline + Duration::from_secs(2),
        consumers: group.consumers,
        orders: membership.orders,
        group: name.clone(),
        seeds: OnceLock::new(),
        state: Mutex::new(State::default()),
    };
    let config = consumer_config(&connection, &name, session_timeout_ms);
    let consumer: BaseConsumer<Context> = config.create_with_context(context).map_err(StartError::Client)?;
    let consumer = Arc::new(consumer);
    let subscribed: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
    preflight::check(
        &consumer,
        &Preflight {
            connection: &connection,
            group: &name,
            sources: subscribed.iter().map(|topic| (*topic).to_owned()).collect(),
            dead_letters: needed,
        },
    )?;
    let seeds = seeding::seeds(&consumer, &connection, &group, membership.start_at)?;
    // Nobody else sets it, and nobody reads it before there is an assignment.
    consumer.context().seeds.get_or_init(|| seeds);
    consumer.subscribe(&subscribed).map_err(StartError::Client)?;
    // At most one commit is under way; the pipeline waits for its answer before it sends the next.
    let (orders, order_rx) = std::sync::mpsc::sync_channel(1);
    consumer.context().state().orders = Some(orders.clone());
    let committing = Arc::clone(&consumer);
    let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let committer = named("kafka-commit").spawn(move || commit_each(&committing, &order_rx));
    let committer = committer.map_err(StartError::Thread)?;
    let poller = Poller {
        consumer,
        commands: command_rx,
        orders,
        short_of_room: false,
        stopped: false,
    };
    // From here on its age counts, whether it ever goes round or not.
    poller.consumer.context().telemetry.polled();
    let thread = named("kafka-poll").spawn(move || poller.run(committer));
    let thread = thread.map_err(StartError::Thread)?;
    Ok((
        Handle {
            topics,
            events,
            commands,
        },
        Source { thread },
    ))
}

/// What the committing thread is to do.
#[derive(Debug)]
pub(super) enum Order {
    Commit(Vec<Commit>),
    /// The last commit before these partitions go. It waits for the one under way: that one may be repeated by the
    /// client, and would take the group back behind it.
    Last {
        commits: Vec<Commit>,
        reply: oneshot::Sender<Result<(), String>>,
    },
}

/// Commits what it is given, one after the other, and tells the pipeline how each ended. In between it looks where the logs
/// end that nobody fetches from.
fn commit_each(consumer: &BaseConsumer<Context>, orders: &std::sync::mpsc::Receiver<Order>) {
    let mut look = Instant::now() + ends::EVERY;
    loop {
        match orders.recv_timeout(look.saturating_duration_since(Instant::now())) {
            Ok(Order::Commit(offsets)) => {
                let error = commit(consumer, &offsets).err();
                consumer.context().tell(Event::Committed { offsets, error });
            }
            Ok(Order::Last { commits, reply }) => {
                let _nobody_waits = reply.send(commit(consumer, &commits));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= look {
            ends::look(consumer);
            look = Instant::now() + ends::EVERY;
        }
    }
}

/// Waits for the group's answer. Partitions that were taken away meanwhile are left out: their last commit was made when
/// they went.
fn commit(consumer: &BaseConsumer<Context>, commits: &[Commit]) -> Result<(), String> {
    let context = consumer.context();
    let list = {
        let state = context.state();
        context.list(commits.iter().filter(|commit| state.assigned.contains(&commit.place)))
    };
    if list.count() == 0 {
        return Ok(());
    }
    let committed = consumer.commit(&list, CommitMode::Sync);
    committed.map_err(|error| error.to_string())
}

struct Poller {
    consumer: Arc<BaseConsumer<Context>>,
    commands: mpsc::Receiver<Command>,
    orders: std::sync::mpsc::SyncSender<Order>,
    /// Everything is paused until memory is free again.
    short_of_room: bool,
    /// The pipeline wants nothing more.
    stopped: bool,
}

impl Poller {
    fn run(mut self, committer: std::thread::JoinHandle<()>) {
        while self.serve_commands() {
            let room = self.room();
            self.fetch(room);
            self.consumer.context().telemetry.polled();
        }
        // Leaving the group, and a commit under way, may take as long as a session if the brokers are away; nobody
        // waits for it.
        drop(self.orders);
        self.consumer.context().state().orders = None;
        if committer.join().is_err() {
            tracing::error!("the committing thread ended in a panic");
        }
        self.consumer.unsubscribe();
    }

    /// False when the thread has to end.
    fn serve_commands(&mut self) -> bool {
        loop {
            let context = self.consumer.context();
            let served = match self.commands.try_recv() {
                Err(mpsc::error::TryRecvError::Empty) => return !context.events.is_closed() && !context.state().broken,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
                Ok(Command::Commit(commits)) => {
                    match self.orders.try_send(Order::Commit(commits)) {
                        Err(TrySendError::Full(Order::Commit(offsets))) => {
                            let error = Some("a commit is under way".to_owned());
                            context.tell(Event::Committed { offsets, error });
                        }
                        Err(TrySendError::Disconnected(_)) => {
                            let gone = "the committing thread is gone".to_owned();
                            context.tell(Event::Failed(Failure::Fatal(gone)));
                        }
                        Ok(()) | Err(TrySendError::Full(Order::Last { .. })) => {}
                    }
                    Ok(())
                }
                Ok(Command::Pause(places)) => {
                    context.state().held.extend(&places);
                    self.consumer.pause(&context.partitions(&places))
                }
                Ok(Command::Resume(places)) => {
                    context.state().held.retain(|place| !places.contains(place));
                    if self.short_of_room || self.stopped {
                        Ok(())
                    } else {
                        self.resume(context.partitions(&places))
                    }
                }
                Ok(Command::StopFetching) => {
                    self.stopped = true;
                    self.pause_all()
                }
                Ok(Command::Close { commits, reply }) => {
                    // Refused only by a thread that is gone: whoever waits learns it from the reply.
                    let _taken = self.orders.send(Order::Last { commits, reply });
                    return false;
                }
            };
            if let Err(error) = served {
                tracing::warn!(%error, "command not carried out by the kafka client");
            }
        }
    }

    /// How many records may be fetched now. Pauses everything when memory is used up, resumes when half is free.
    fn room(&mut self) -> usize {
        let context = self.consumer.context();
        let reassigned = std::mem::take(&mut context.state().reassigned);
        if reassigned && (self.short_of_room || self.stopped) {
            // New partitions start resumed.
            self.log_failure(self.pause_all());
        }
        if self.short_of_room && !self.stopped && context.budget.is_relaxed() {
            self.short_of_room = false;
            context.short_of_room(false);
            let wanted = {
                let state = context.state();
                let held = |place: &&_| !state.held.contains(*place) && !state.halted.contains_key(*place);
                context.partitions(state.assigned.iter().filter(held))
            };
            self.log_failure(self.resume(wanted));
        }
        let room = context.budget.room();
        if room > 0 || self.short_of_room || self.stopped {
            return room;
        }
        let room = context.budget.wait_for_room(ROOM_WAIT);
        if room == 0 {
            self.short_of_room = true;
            context.short_of_room(true);
            self.log_failure(self.pause_all());
        }
        room
    }

    /// The client's thread for a broker is not woken by this (librdkafka 2.12): without anything else to do there, it would sleep
    /// for up to a second before it fetches. Any request wakes it. Its answer takes no longer than the first records.
    fn resume(&self, mut places: TopicPartitionList) -> Result<(), KafkaError> {
        self.consumer.resume(&places)?;
        places.set_all_offsets(Offset::End)?;
        if let Err(error) = self.consumer.offsets_for_times(places, WAKE_TIMEOUT) {
            tracing::debug!(%error, "no answer from the brokers of resumed partitions");
        }
        Ok(())
    }

    fn pause_all(&self) -> Result<(), KafkaError> {
        let context = self.consumer.context();
        let assigned = context.partitions(&context.state().assigned);
        self.consumer.pause(&assigned)
    }

    fn log_failure(&self, result: Result<(), KafkaError>) {
        if let Err(error) = result {
            tracing::warn!(%error, "pause or resume failed");
        }
    }

    /// Takes what is there, waiting only for the first record, and sends it on.
    fn fetch(&self, room: usize) {
        let context = self.consumer.context();
        let most = room.min(BATCH_RECORDS);
        let mut taken = 0;
        let mut timeout = IDLE_POLL;
        loop {
            // Polling with no room serves callbacks only: everything is paused then.
            match self.consumer.poll(timeout) {
                None => break,
                Some(Ok(message)) => {
                    taken += 1;
                    if self.copy(&message) >= BATCH_BYTES || context.budget.is_full() {
                        break;
                    }
                }
                Some(Err(error)) => self.failed(&error),
            }
            if taken >= most {
                break;
            }
            timeout = Duration::ZERO;
        }
        context.flush();
    }

    /// Copies a message into the open batch; gives the batch's bytes.
    fn copy(&self, message: &BorrowedMessage<'_>) -> usize {
        let context = self.consumer.context();
        let Some(place) = context.place(message.topic(), message.partition()) else {
            return 0;
        };
        // The client library panics on a header name that is not UTF-8. The record goes on without its headers, and
        // says so: it cannot be decoded, and lands in the dead letters.
        let headers = catch_unwind(AssertUnwindSafe(|| headers_of(message))).unwrap_or_else(|_panic| {
            vec![Header {
                name: UNREADABLE_HEADERS,
                value: None,
            }]
        });
        let record = RecordView {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            headers: Headers(&headers),
        };
        let mut state = context.state();
        let open = state
            .open
            .get_or_insert_with(|| BatchBuilder::new(Arc::clone(&context.topics), context.budget.clone()));
        open.push(place, &record);
        open.bytes()
    }

    fn failed(&self, error: &KafkaError) {
        let context = self.consumer.context();
        match error.rdkafka_error_code() {
            Some(code) if context.refuses(code) => context.tell(Event::Failed(context.refusal(code))),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                context.tell(Event::Failed(Failure::Fatal(format!(
                    "fatal kafka client error: {error}"
                ))));
            }
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                // Which partition it is, the client does not say; the next start finds it, names the gap and halts it.
                let message = format!("a position fell out of its log while we ran: {error}");
                context.tell(Event::Failed(Failure::Fatal(message)));
            }
            // Brokers away, an interval exceeded, a topic in trouble: the client goes on by itself.
            _ => tracing::warn!(%error, "kafka consumer: going on"),
        }
    }
}

pub(super) fn headers_of<'a>(message: &'a BorrowedMessage<'_>) -> Vec<Header<'a>> {
    let Some(headers) = message.headers() else {
        return Vec::new();
    };
    headers
        .iter()
        .map(|header| Header {
            name: header.key,
            value: header.value,
        })
        .collect()
}
