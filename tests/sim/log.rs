//! The simulated Kafka: takes records and commits, gives each member what it owns, batch by batch, as the schedule says.
//!
//! Not `kafka::memory::MemoryLog`: there the log delivers by itself; here the seed decides every fetch, and every commit passes
//! the faults and the oracle. Who does not own a partition cannot commit it. It never looks into a record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crm_event_processors::consumers::Consumer;
use crm_event_processors::pipeline::source::{Assigned, Command, Commit, Event, Handle};
use crm_event_processors::progress::frame;
use crm_event_processors::progress::{Committed, ConsumerSet, Found, Orders, Start};
use crm_event_processors::record::{BatchBuilder, Budget, Headers, RecordView, TopicPartition, Topics};
use tokio::sync::{mpsc, oneshot};

use super::oracle::Oracle;
use super::world::{COMMIT, LAST_COMMIT, Life, Port, World};

struct Entry {
    offset: i64,
    value: String,
    at_ms: i64,
}

#[derive(Default)]
struct State {
    log: BTreeMap<TopicPartition, Vec<Entry>>,
    committed: BTreeMap<TopicPartition, Committed>,
    /// Who has it, and since which assignment.
    owners: BTreeMap<TopicPartition, (String, u64)>,
    assignments: u64,
    positions: BTreeMap<TopicPartition, i64>,
    paused: BTreeSet<TopicPartition>,
}

pub(super) struct Log {
    pub(super) world: Arc<World>,
    pub(super) oracle: Arc<Oracle>,
    pub(super) topics: Topics,
    state: Mutex<State>,
}

/// A member's end of the log.
pub(super) struct Membership {
    pub(super) life: Arc<Life>,
    pub(super) consumers: ConsumerSet,
    pub(super) budget: Budget,
    events: mpsc::Sender<Event>,
}

/// How partitions are taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Revocation {
    Patient,
    Impatient,
    Lost,
}

impl Log {
    pub(super) fn new(world: Arc<World>, oracle: Arc<Oracle>, topics: &[String], partitions: i32) -> Self {
        let mut state = State::default();
        for (topic, name) in topics.iter().enumerate() {
            for partition in 0..partitions {
                let topic = u16::try_from(topic).unwrap_or(0);
                let place = TopicPartition { topic, partition };
                state.log.insert(place, Vec::new());
                // The group has been here before, with all its consumers: one that no frame names is new, and begins
                // where the others are.
                let readers = Consumer::ALL.into_iter().collect::<ConsumerSet>().reading(name);
                let watermarks = readers.iter().map(|reader| (reader.name().into(), 0)).collect();
                let metadata = frame::write(&watermarks);
                state.committed.insert(place, Committed { offset: 0, metadata });
            }
        }
        Self {
            world,
            oracle,
            topics: topics.iter().map(|topic| topic.as_str().into()).collect(),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn append(&self, place: TopicPartition, value: String, gap: i64) -> i64 {
        let at_ms = self.world.now_ms();
        let mut state = self.state();
        let log = state.log.entry(place).or_default();
        let offset = log.last().map_or(0, |entry| entry.offset + 1) + gap;
        log.push(Entry { offset, value, at_ms });
        offset
    }

    pub(super) fn join(self: &Arc<Self>, life: &Arc<Life>, consumers: ConsumerSet) -> (Handle, Membership) {
        let (event_tx, events) = mpsc::channel(10_000);
        let (commands, command_rx) = mpsc::channel(1024);
        let member = Membership {
            life: Arc::clone(life),
            consumers,
            budget: Budget::new(1000, 10_000_000),
            events: event_tx.clone(),
        };
        let log = Arc::clone(self);
        tokio::spawn(log.serve(Arc::clone(life), command_rx, event_tx));
        let topics = Arc::clone(&self.topics);
        (
            Handle {
                topics,
                events,
                commands,
            },
            member,
        )
    }

    async fn serve(
        self: Arc<Self>,
        life: Arc<Life>,
        mut commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Commit(offsets) => {
                    let error = self.commit(&life, &offsets, &COMMIT).await.err();
                    let _gone = events.try_send(Event::Committed { offsets, error });
                }
                Command::Pause(places) => self.state().paused.extend(places),
                Command::Resume(places) => self.state().paused.retain(|place| !places.contains(place)),
                Command::StopFetching => {}
                Command::Close { commits, reply } => {
                    let answer = self.commit(&life, &commits, &LAST_COMMIT).await;
                    self.forget(&life.name);
                    let _gone = reply.send(answer);
                    return;
                }
            }
        }
    }

    async fn commit(&self, life: &Life, commits: &[Commit], port: &Port) -> Result<(), String> {
        let done = self.world.around(life, port, || {
            let mut state = self.state();
            for commit in commits {
                let Commit { place, progress } = commit;
                if state.owners.get(place).is_none_or(|(owner, _)| *owner != life.name) {
                    return Err("illegal generation".to_owned());
                }
                self.world.tell(format_args!(
                    "{} commits {place:?} {} {}",
                    life.name, progress.offset, progress.metadata
                ));
                self.oracle.committed(*place, progress);
                state.committed.insert(*place, progress.clone());
            }
            Ok(())
        });
        match done.await {
            Ok(answer) => answer,
            Err(trouble) => Err(format!("{trouble:?}")),
        }
    }

    /// Whoever had it is gone.
    pub(super) fn forget(&self, life: &str) {
        self.state().owners.retain(|_, (owner, _)| owner != life);
    }

    /// What it has, each with the number of the assignment.
    pub(super) fn owned(&self, life: &str) -> BTreeMap<TopicPartition, u64> {
        let state = self.state();
        let owned = state.owners.iter().filter(|(_, (owner, _))| owner == life);
        owned.map(|(place, (_, assignment))| (*place, *assignment)).collect()
    }

    pub(super) fn orphans(&self) -> Vec<TopicPartition> {
        let state = self.state();
        state
            .log
            .keys()
            .filter(|place| !state.owners.contains_key(place))
            .copied()
            .collect()
    }

    pub(super) fn assign(&self, member: &Membership, places: &[TopicPartition]) {
        let state = &mut *self.state();
        state.assignments += 1;
        let mut assigned = Vec::new();
        for place in places {
            let end = state
                .log
                .get(place)
                .and_then(|log| log.last())
                .map_or(0, |entry| entry.offset + 1);
            let found = Found {
                committed: state.committed.get(place).cloned(),
                begin: 0,
                end,
            };
            let topic = self.topics.get(usize::from(place.topic)).map_or("", AsRef::as_ref);
            match Start::decide(&found, member.consumers.reading(topic), &Orders::default()) {
                Ok((start, _)) => {
                    let owner = (member.life.name.clone(), state.assignments);
                    state.owners.insert(*place, owner);
                    state.positions.insert(*place, start.position);
                    state.paused.remove(place);
                    assigned.push(Assigned { place: *place, start });
                }
                Err(halt) => self.world.violated(format!("{place:?} cannot be assigned: {halt}")),
            }
        }
        self.oracle.assigned(&member.life.name, places);
        self.world.tell(format_args!("{} gets {places:?}", member.life.name));
        let _gone = member.events.try_send(Event::Assigned(assigned));
    }

    /// Takes partitions away and says whether the member answered.
    pub(super) async fn revoke(&self, member: &Membership, places: &[TopicPartition], how: Revocation) {
        let (reply, answer) = oneshot::channel();
        let partitions = places.to_vec();
        self.world
            .tell(format_args!("{} loses {places:?} {how:?}", member.life.name));
        let lost = how == Revocation::Lost;
        if lost {
            // The group has given them away already.
            self.state().owners.retain(|place, _| !places.contains(place));
        }
        let _gone = member.events.try_send(Event::Revoked {
            partitions,
            lost,
            reply,
        });
        match how {
            Revocation::Impatient => drop(answer),
            Revocation::Lost => drop(answer.await),
            Revocation::Patient => {
                if let Ok(commits) = answer.await {
                    let _the_next_owner_reads_them_again = self.commit(&member.life, &commits, &LAST_COMMIT).await;
                }
            }
        }
        self.state()
            .owners
            .retain(|place, (owner, _)| !(places.contains(place) && *owner == member.life.name));
    }

    /// What a member gets at once: so many records at most.
    pub(super) fn fetch(&self, member: &Membership, most: usize) {
        let state = &mut *self.state();
        let mut builder = BatchBuilder::new(Arc::clone(&self.topics), member.budget.clone());
        let room = most.min(member.budget.room());
        for (place, (owner, _)) in &state.owners {
            if *owner != member.life.name || state.paused.contains(place) {
                continue;
            }
            let position = state.positions.entry(*place).or_default();
            let log = state.log.get(place).map_or(&[][..], Vec::as_slice);
            for entry in log.iter().filter(|entry| entry.offset >= *position).collect::<Vec<_>>() {
                if builder.len() >= room || member.budget.is_full() {
                    break;
                }
                let view = RecordView {
                    topic: self.topics.get(usize::from(place.topic)).map_or("", AsRef::as_ref),
                    partition: place.partition,
                    offset: entry.offset,
                    timestamp_ms: None,
                    key: None,
                    value: Some(entry.value.as_bytes()),
                    headers: Headers::default(),
                };
                builder.push(*place, &view);
                *position = entry.offset + 1;
            }
        }
        if !builder.is_empty() {
            self.world
                .tell(format_args!("{} fetches {}", member.life.name, builder.len()));
            let _gone = member.events.try_send(Event::Batch(builder.finish()));
        }
    }

    /// Partitions that are not committed to their end.
    pub(super) fn behind(&self) -> Vec<TopicPartition> {
        let state = self.state();
        let is_behind = |(place, log): &(&TopicPartition, &Vec<Entry>)| {
            let end = log.last().map_or(0, |entry| entry.offset + 1);
            state.committed.get(place).map_or(0, |committed| committed.offset) < end
        };
        state.log.iter().filter(is_behind).map(|(place, _)| *place).collect()
    }

    /// A partition with a record of that time or older that is not committed.
    pub(super) fn behind_time(&self, time_ms: i64) -> Option<String> {
        let state = self.state();
        let is_behind = |(place, log): &(&TopicPartition, &Vec<Entry>)| {
            let committed = state.committed.get(place).map_or(0, |committed| committed.offset);
            log.iter()
                .any(|entry| entry.offset >= committed && entry.at_ms <= time_ms)
        };
        state.log.iter().find(is_behind).map(|(place, _)| format!("{place:?}"))
    }
}
