//! Parts of topics behind the pipeline's source port: read once, from one offset to another, outside of the group.
//!
//! What the pipeline commits is no offset in Kafka here but progress: whoever replays keeps it. When everything that was
//! read is committed, it tells the pipeline to end. A thread reads, as far as the memory budget has room; a task serves the
//! pipeline. It never joins the group, and never decides what is read or how it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::bounded::{Asker, Reader, Span, Step};
use super::preflight::StartError;
use crate::pipeline::source::{Assigned, Command, Commit, Event, Failure, Handle};
use crate::progress::{ConsumerSet, Start};
use crate::record::{BatchBuilder, Budget, RecordView, TopicPartition, Topics};

const BATCH_RECORDS: usize = 500;
const BATCH_BYTES: usize = 1024 * 1024;
/// How long a read waits for a record, and how long one without room waits for some.
const WAIT: Duration = Duration::from_millis(100);

/// A topic, and what is read of it.
#[derive(Debug, Clone)]
pub struct Part {
    pub topic: String,
    pub spans: Vec<Span>,
}

/// How a record that is read goes into the pipeline.
pub trait Tape: Send + 'static {
    /// The place it has there, and how it looks there; none: it is left out. The offsets of a place must rise.
    fn turn<'a>(&mut self, record: RecordView<'a>) -> Option<(TopicPartition, RecordView<'a>)>;
}

/// Keeps how far the pipeline has come.
pub trait Progress: Send + 'static {
    /// Everything of these places below these offsets is finished. What fails is asked for once more with the next commit.
    fn done<'a>(&'a mut self, commits: &'a [Commit]) -> BoxFuture<'a, Result<(), String>>;

    /// Everything that was to be read is finished.
    fn ended(&mut self) {}
}

/// Starts to read. `starts`: of each place, the first offset there. `done` is told to end when all is finished.
///
/// # Errors
/// When the client cannot be made, or the thread cannot be started.
pub fn replay(
    asker: Asker,
    parts: Vec<Part>,
    tape: impl Tape,
    progress: impl Progress,
    frame: Frame,
) -> Result<Handle, StartError> {
    let reader = Reader::new(asker)?;
    let (event_tx, events) = mpsc::channel(frame.budget.max_records() + 1024);
    let (commands, command_rx) = mpsc::channel(1024);
    let assigned = frame.starts.iter().map(|(place, offset)| {
        let topic = frame.topics.get(usize::from(place.topic)).map_or("", AsRef::as_ref);
        Assigned {
            place: *place,
            start: Start::at(*offset, frame.readers.reading(topic)),
        }
    });
    // The queue is empty, and longer.
    let _always_taken = event_tx.try_send(Event::Assigned(assigned.collect()));
    let (ended_tx, ended) = oneshot::channel();
    let paused = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let feeder = Feeder {
        topics: Arc::clone(&frame.topics),
        budget: frame.budget,
        events: event_tx.clone(),
        paused: Arc::clone(&paused),
        stop: stop.clone(),
        sent: BTreeMap::new(),
    };
    let thread = std::thread::Builder::new().name("kafka-replay".to_owned());
    let thread = thread.spawn(move || feeder.run(&reader, parts, tape, ended_tx));
    // Nobody waits for it: it ends with its last look at whether it should.
    let _detached = thread.map_err(StartError::Thread)?;
    let server = Server {
        events: event_tx,
        commands: command_rx,
        progress,
        paused,
        places: BTreeSet::new(),
        stop,
        done: frame.done,
        committed: BTreeMap::new(),
        sent: None,
    };
    // It ends with the pipeline, whose end of the commands it holds.
    drop(tokio::spawn(server.run(ended)));
    Ok(Handle {
        topics: frame.topics,
        events,
        commands,
    })
}

/// What the pipeline is given.
#[derive(Debug)]
pub struct Frame {
    pub topics: Topics,
    /// Of each place there will be, the first offset.
    pub starts: BTreeMap<TopicPartition, i64>,
    pub readers: ConsumerSet,
    pub budget: Budget,
    /// Told when everything is finished.
    pub done: CancellationToken,
}

/// Of each place, the offset behind the last record that was given to the pipeline.
type Sent = BTreeMap<TopicPartition, i64>;

struct Feeder {
    topics: Topics,
    budget: Budget,
    events: mpsc::Sender<Event>,
    paused: Arc<AtomicUsize>,
    stop: CancellationToken,
    sent: Sent,
}

impl Feeder {
    fn run(mut self, reader: &Reader, parts: Vec<Part>, mut tape: impl Tape, ended: oneshot::Sender<Sent>) {
        for part in parts {
            match self.feed(reader, &part, &mut tape) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let failure = match &error {
                        StartError::Refused { .. } => Failure::Configuration(error.to_string()),
                        _ => Failure::Fatal(error.to_string()),
                    };
                    self.tell(Event::Failed(failure));
                    return;
                }
            }
        }
        let _nobody_waits = ended.send(self.sent);
    }

    /// False when nothing more is wanted.
    fn feed(&mut self, reader: &Reader, part: &Part, tape: &mut impl Tape) -> Result<bool, StartError> {
        let mut reading = reader.read(&part.topic, &part.spans)?;
        let mut open = BatchBuilder::new(Arc::clone(&self.topics), self.budget.clone());
        while !self.stop.is_cancelled() && !self.events.is_closed() {
            let must_wait = self.paused.load(Ordering::Acquire) > 0 || self.budget.room() == 0;
            if must_wait || open.len() >= BATCH_RECORDS || open.bytes() >= BATCH_BYTES {
                self.flush(&mut open);
            }
            if must_wait {
                // A pause ends without a sign; it is looked for again after this wait.
                let _room = self.budget.wait_for_room(WAIT);
                if self.paused.load(Ordering::Acquire) > 0 {
                    std::thread::park_timeout(WAIT);
                }
                continue;
            }
            let wait = if open.is_empty() { WAIT } else { Duration::ZERO };
            let step = reading.next(wait, |record| {
                let offset = record.offset;
                if let Some((place, record)) = tape.turn(record) {
                    open.push(place, &record);
                    self.sent.insert(place, offset + 1);
                }
            })?;
            match step {
                Step::Record(()) => {}
                Step::Waiting => self.flush(&mut open),
                Step::End => {
                    self.flush(&mut open);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn flush(&self, open: &mut BatchBuilder) {
        if !open.is_empty() {
            let next = BatchBuilder::new(Arc::clone(&self.topics), self.budget.clone());
            self.tell(Event::Batch(std::mem::replace(open, next).finish()));
        }
    }

    fn tell(&self, event: Event) {
        // The queue is as long as the budget: it is refused only by a pipeline that is gone.
        if self.events.try_send(event).is_err() {
            tracing::debug!("the pipeline takes no events any more");
        }
    }
}

struct Server<P> {
    events: mpsc::Sender<Event>,
    commands: mpsc::Receiver<Command>,
    progress: P,
    paused: Arc<AtomicUsize>,
    places: BTreeSet<TopicPartition>,
    stop: CancellationToken,
    done: CancellationToken,
    committed: BTreeMap<TopicPartition, i64>,
    /// Known when everything was read.
    sent: Option<Sent>,
}

impl<P: Progress> Server<P> {
    async fn run(mut self, ended: oneshot::Receiver<Sent>) {
        // Whatever ends this, the thread need read no more.
        let _stop = self.stop.clone().drop_guard();
        let mut ended = Some(ended);
        loop {
            let end = async {
                match ended.as_mut() {
                    Some(ended) => ended.await.ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => if !self.serve(command).await { return },
                    None => return,
                },
                sent = end => {
                    ended = None;
                    self.sent = sent;
                }
            }
            let is_done = |sent: &Sent| {
                sent.iter()
                    .all(|(place, behind)| self.committed.get(place).is_some_and(|committed| committed >= behind))
            };
            if self.sent.as_ref().is_some_and(is_done) && !self.done.is_cancelled() {
                self.progress.ended();
                self.done.cancel();
            }
        }
    }

    async fn serve(&mut self, command: Command) -> bool {
        match command {
            Command::Commit(offsets) => {
                let error = self.commit(&offsets).await.err();
                let _gone = self.events.send(Event::Committed { offsets, error }).await;
            }
            Command::Pause(places) => self.places.extend(places),
            Command::Resume(places) => self.places.retain(|place| !places.contains(place)),
            Command::StopFetching => self.stop.cancel(),
            Command::Close { commits, reply } => {
                let _nobody_waits = reply.send(self.commit(&commits).await);
                return false;
            }
        }
        self.paused.store(self.places.len(), Ordering::Release);
        true
    }

    async fn commit(&mut self, commits: &[Commit]) -> Result<(), String> {
        self.progress.done(commits).await?;
        let committed = commits.iter().map(|commit| (commit.place, commit.progress.offset));
        self.committed.extend(committed);
        Ok(())
    }
}
