//! The judge: takes what was written to the log and what the targets did, gives violations. Of `src/progress` it uses
//! only how a frame is read.
//!
//! For each record it knows what every consumer owes: accepted events, evaluations, letters, or nothing. A position may be
//! committed only over records of which nothing is owed any more; the schedule asks at every commit. What is owed is decided
//! by the rules as they truly are, not as a member knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crm_event_processors::consumers::{self, Consumer, Decision, Effect, Rules};
use crm_event_processors::dead_letters::Queue;
use crm_event_processors::debezium::{DecimalMode, Decoded, Decoder};
use crm_event_processors::inngest::EventData;
use crm_event_processors::progress::Committed;
use crm_event_processors::progress::frame::{self, Reading};
use crm_event_processors::record::{Headers, RecordView, TopicPartition};
use crm_event_processors::rows::{self, Routed, Table};

use super::executor;
use super::world::World;

/// One thing owed.
#[derive(Clone)]
struct Debt {
    claim: String,
    key: String,
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Event,
    Tier,
    Progress,
}

enum Owed {
    Nothing,
    /// In the letters of this consumer; `None`: in those of decoding.
    Letter(Option<Consumer>),
    Effects(Vec<Debt>),
}

struct Appended {
    offset: i64,
    row: Option<(Table, String)>,
    commit_ms: i64,
    /// Streamed changes of one row have rising numbers; a snapshot row has none.
    lsn: Option<i64>,
    owed: BTreeMap<Consumer, Owed>,
}

#[derive(Default)]
struct State {
    log: BTreeMap<TopicPartition, Vec<Appended>>,
    /// Claims of which nothing is owed any more, each with why.
    done: BTreeSet<String>,
    letters: BTreeSet<(Queue, String, i32, i64)>,
    /// Announcements that the call for a claim wrote, not accepted yet.
    promised: BTreeMap<String, BTreeSet<String>>,
    accepted: BTreeSet<String>,
    /// Up to which offset everything was found in order.
    checked: BTreeMap<(TopicPartition, Consumer), i64>,
    /// By life, partition, and consumer, effect and row: the offset of what was accepted last.
    order: BTreeMap<(String, TopicPartition, String), i64>,
    known_ids: BTreeSet<String>,
}

pub(super) struct Oracle {
    world: Arc<World>,
    topics: Vec<String>,
    state: Mutex<State>,
}

impl Oracle {
    pub(super) fn new(world: Arc<World>, topics: Vec<String>) -> Self {
        Self {
            world,
            topics,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record is in the log: from now on it is owed.
    pub(super) fn appended(&self, place: TopicPartition, offset: i64, value: &str, rules: &Rules) {
        let topic = self.topics.get(usize::from(place.topic)).cloned().unwrap_or_default();
        let view = RecordView {
            topic: &topic,
            partition: place.partition,
            offset,
            timestamp_ms: None,
            key: None,
            value: Some(value.as_bytes()),
            headers: Headers::default(),
        };
        let table = topic.rsplit('.').next().and_then(Table::from_name);
        let readers = Consumer::ALL
            .into_iter()
            .filter(|consumer| table.is_some_and(|table| consumer.reads(table)));
        let routed = match Decoder::default().decode(&view) {
            Ok(Decoded::Change(change)) => rows::route(&topic, &change, DecimalMode::Text).ok(),
            Ok(Decoded::Control(_)) | Err(_) => None,
        };
        let state = &mut *self.state();
        let mut appended = Appended {
            offset,
            row: None,
            commit_ms: 0,
            lsn: None,
            owed: BTreeMap::new(),
        };
        if let Some(Routed::Row(change)) = routed {
            appended.row = Some((change.row.table(), change.row.id().as_str().to_owned()));
            appended.commit_ms = change.commit_ms;
            appended.lsn = match change.version {
                crm_event_processors::rows::ChangeVersion::Lsn(lsn) => Some(lsn),
                _ => None,
            };
            for consumer in readers {
                let owed = match consumers::decide(consumer, &change, rules, jiff::Timestamp::UNIX_EPOCH) {
                    Decision::Ignore(_) => Owed::Nothing,
                    Decision::Refuse(_) | Decision::RefuseIfKnown(..) => Owed::Letter(Some(consumer)),
                    Decision::Deliver(effects) => Owed::Effects(effects.iter().map(Debt::of).collect()),
                };
                if let Owed::Effects(debts) = &owed {
                    state.known_ids.extend(debts.iter().map(|debt| debt.claim.clone()));
                }
                appended.owed.insert(consumer, owed);
            }
        } else {
            appended.owed = readers.map(|consumer| (consumer, Owed::Letter(None))).collect();
        }
        state.log.entry(place).or_default().push(appended);
    }

    /// Inngest has accepted this id.
    pub(super) fn accepted(&self, id: &str, by: Option<(&str, &BTreeSet<TopicPartition>)>) {
        let state = &mut *self.state();
        state.accepted.insert(id.to_owned());
        for promised in state.promised.values_mut() {
            promised.remove(id);
        }
        // SPEC sections 2 and 8: marked heals are neither doubled nor in order. Announcements have ids of the database's own.
        let is_marked = id.contains("#h");
        let is_announced = id.contains(":upgraded:") || id.contains(":review:") || id.contains(":evaluated:");
        if is_marked || is_announced {
            return;
        }
        if !state.known_ids.contains(id) {
            self.world
                .violated(format!("{id} was accepted, and no change of the log has this id"));
        }
        state.done.insert(id.to_owned());
        if let Some((life, owned)) = by {
            state.judge_order(&self.world, id, life, owned);
        }
    }

    /// An event that alone got an answer nobody understands. An announcement stays in the database then, and is the
    /// reconciler's (SPEC section 5, effects: one that nobody sends); at the end it must have been announced all the same.
    pub(super) fn left_to_the_reconciler(&self, event: &[u8]) {
        let event: serde_json::Value = serde_json::from_slice(event).unwrap_or_default();
        let id = event.get("id").and_then(serde_json::Value::as_str).unwrap_or_default();
        for promised in self.state().promised.values_mut() {
            promised.remove(id);
        }
    }

    /// The database says that nothing is to be done.
    pub(super) fn settled(&self, claim: &str) {
        self.state().done.insert(claim.to_owned());
    }

    /// The database has evaluated these claims; what it wrote down because of them is still to be accepted.
    pub(super) fn evaluated(&self, claims: &[String], wrote: &[String]) {
        let state = &mut *self.state();
        self.world.tell(format_args!("evaluated {claims:?} wrote {wrote:?}"));
        for claim in claims {
            let is_new = state.done.insert(claim.clone());
            if !is_new && state.promised.get(claim).is_none_or(BTreeSet::is_empty) {
                // A repetition: what is written now is because of others.
                continue;
            }
            let open = wrote.iter().filter(|id| !state.accepted.contains(*id)).cloned();
            state.promised.entry(claim.clone()).or_default().extend(open);
        }
    }

    /// A letter is written: of what is wrong with the record itself, never of an outage.
    pub(super) fn buried(&self, queue: Queue, topic: &str, partition: i32, offset: i64) {
        let state = &mut *self.state();
        let letter = (queue, topic.to_owned(), partition, offset);
        if !state.deserves(&self.topics, &letter) {
            self.world
                .violated(format!("{letter:?} is in the letters, and nothing is wrong with it"));
        }
        state.letters.insert(letter);
    }

    /// This is about to be what the group has committed.
    pub(super) fn committed(&self, place: TopicPartition, committed: &Committed) {
        let watermarks = match frame::read(&committed.metadata) {
            Reading::Frame(watermarks) => watermarks,
            other => {
                self.world
                    .violated(format!("{place:?} committed with a frame that says {other:?}"));
                return;
            }
        };
        let table = self
            .topics
            .get(usize::from(place.topic))
            .and_then(|topic| topic.rsplit('.').next());
        let table = table.and_then(Table::from_name);
        for consumer in Consumer::ALL
            .into_iter()
            .filter(|one| table.is_some_and(|table| one.reads(table)))
        {
            let watermark = watermarks.get(consumer.name()).copied().unwrap_or(0);
            self.check(place, consumer, committed.offset.max(watermark));
        }
    }

    fn check(&self, place: TopicPartition, consumer: Consumer, below: i64) {
        let state = &mut *self.state();
        let from = state.checked.get(&(place, consumer)).copied().unwrap_or(0);
        if below <= from {
            return;
        }
        let topic = self.topics.get(usize::from(place.topic)).map_or("", String::as_str);
        let log = state.log.get(&place).map_or(&[][..], Vec::as_slice);
        for (index, record) in log.iter().enumerate() {
            if record.offset < from || record.offset >= below {
                continue;
            }
            if let Some(open) = state.open(log, index, consumer, topic, place.partition) {
                let (name, offset) = (consumer.name(), record.offset);
                self.world.violated(format!(
                    "{topic}/{} is committed to {below} for {name}, which owes {open} of offset {offset}",
                    place.partition
                ));
            }
        }
        state.checked.insert((place, consumer), below);
    }

    /// What nobody has finished.
    pub(super) fn unfinished(&self) -> Vec<String> {
        let state = self.state();
        let mut open = Vec::new();
        for (place, log) in &state.log {
            let topic = self.topics.get(usize::from(place.topic)).map_or("", String::as_str);
            for (index, record) in log.iter().enumerate() {
                for consumer in record.owed.keys() {
                    if let Some(debt) = state.open(log, index, *consumer, topic, place.partition) {
                        open.push(format!(
                            "{} owes {debt} of {topic}/{}@{}",
                            consumer.name(),
                            place.partition,
                            record.offset
                        ));
                    }
                }
            }
        }
        open
    }

    /// Records in the log.
    pub(super) fn records(&self) -> usize {
        self.state().log.values().map(Vec::len).sum()
    }
}

impl Debt {
    fn of(effect: &Effect) -> Self {
        let way = match &effect.event.data {
            EventData::TierEvaluationRequested(_) => Way::Tier,
            EventData::MissionEvaluationRequested(_) => Way::Progress,
            _ => Way::Event,
        };
        Self {
            claim: effect.claim.as_str().to_owned(),
            key: effect.key.as_str().to_owned(),
            way,
        }
    }
}

impl Debt {
    fn is_wrong_for_ever(&self) -> bool {
        self.key.strip_prefix("award:").is_some_and(executor::is_wrong_for_ever)
    }
}

impl State {
    /// What this consumer still owes of a record.
    fn open(&self, log: &[Appended], index: usize, consumer: Consumer, topic: &str, partition: i32) -> Option<String> {
        let record = log.get(index)?;
        let has_letter = |queue| {
            self.letters
                .contains(&(queue, topic.to_owned(), partition, record.offset))
        };
        match record.owed.get(&consumer)? {
            Owed::Nothing => None,
            Owed::Letter(None) => (!has_letter(Queue::Decode)).then(|| "a letter of what cannot be decoded".to_owned()),
            Owed::Letter(Some(of)) => (!has_letter(Queue::Consumer(*of))).then(|| "a letter".to_owned()),
            Owed::Effects(_) if has_letter(Queue::Consumer(consumer)) => None,
            Owed::Effects(debts) => debts
                .iter()
                .find(|debt| !self.is_paid(debt) && !self.is_superseded(debt, log, index, consumer))
                .map(|debt| debt.claim.clone()),
        }
    }

    fn is_paid(&self, debt: &Debt) -> bool {
        self.done.contains(&debt.claim) && self.promised.get(&debt.claim).is_none_or(BTreeSet::is_empty)
    }

    /// Whether a newer state of the same row was brought to the same fact. SPEC section 3, lane: of state-like effects only
    /// the newest in hand is delivered; with a database awards, grants, codes and progress are. What triggers an evaluation
    /// is claimed each by its own key (section 5).
    fn is_superseded(&self, debt: &Debt, log: &[Appended], index: usize, consumer: Consumer) -> bool {
        let Some(record) = log.get(index) else { return false };
        if debt.way == Way::Tier {
            return false;
        }
        let newer = log.iter().skip(index + 1).filter(|later| {
            later.row == record.row
                && later.commit_ms >= record.commit_ms
                && match (record.lsn, later.lsn) {
                    (Some(lsn), Some(later)) => later > lsn,
                    _ => true,
                }
        });
        let paid = |later: &Appended| match later.owed.get(&consumer) {
            Some(Owed::Effects(debts)) => debts.iter().any(|other| other.key == debt.key && self.is_paid(other)),
            _ => false,
        };
        newer.into_iter().any(paid)
    }

    /// Whether the record can never be processed by whoever wrote the letter.
    fn deserves(&self, topics: &[String], (queue, topic, partition, offset): &(Queue, String, i32, i64)) -> bool {
        let place = |place: &TopicPartition| {
            place.partition == *partition && topics.get(usize::from(place.topic)) == Some(topic)
        };
        let log = self.log.iter().find(|(of, _)| place(of)).map(|(_, log)| log);
        let record = log.and_then(|log| log.iter().find(|record| record.offset == *offset));
        record.is_some_and(|record| match queue {
            Queue::Decode => record.owed.values().all(|owed| matches!(owed, Owed::Letter(None))),
            Queue::Consumer(consumer) => match record.owed.get(consumer) {
                Some(Owed::Letter(of)) => *of == Some(*consumer),
                Some(Owed::Effects(debts)) => debts.iter().any(Debt::is_wrong_for_ever),
                Some(Owed::Nothing) | None => false,
            },
        })
    }

    /// Of one row, one member of the group delivers in the order of the log.
    fn judge_order(&mut self, world: &World, id: &str, life: &str, owned: &BTreeSet<TopicPartition>) {
        let mut place_of = None;
        for place in owned {
            let log = self.log.get(place).map_or(&[][..], Vec::as_slice);
            let has = |record: &&Appended| {
                record
                    .owed
                    .values()
                    .any(|owed| matches!(owed, Owed::Effects(debts) if debts.iter().any(|debt| debt.claim == id)))
            };
            let offsets: Vec<i64> = log.iter().filter(has).map(|record| record.offset).collect();
            if !offsets.is_empty() {
                place_of = Some((*place, offsets));
                break;
            }
        }
        // Of a partition that was taken away: whoever has it now may have sent newer ones.
        let Some((place, offsets)) = place_of else { return };
        let stem = id.rsplit_once(':').map_or(id, |(stem, _)| stem).to_owned();
        let last = self.order.entry((life.to_owned(), place, stem)).or_insert(-1);
        match offsets.iter().find(|offset| **offset >= *last) {
            Some(offset) => *last = *offset,
            None => world.violated(format!("{id} of offsets {offsets:?} was accepted behind offset {last}")),
        }
    }
}

impl Oracle {
    /// A new assignment reads again from what is committed.
    pub(super) fn assigned(&self, life: &str, places: &[TopicPartition]) {
        self.state()
            .order
            .retain(|(of, place, _), _| of != life || !places.contains(place));
    }
}
