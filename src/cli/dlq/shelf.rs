//! The letters of one queue on their way through the pipeline: how each goes in, and what became of it.
//!
//! Takes the letters that were chosen, gives them to the pipeline as the records they were, and marks each when it is
//! finished. One that is dead once more stays the letter it is: nothing is written about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use indicatif::ProgressBar;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::consumers::Consumer;
use crate::dead_letters::filed::{Fate, Mark, Place, Provenance, original};
use crate::dead_letters::{DeadLetters, KafkaDeadLetters, Letter, Queue, WriteError};
use crate::debezium::{DecimalMode, Decoded, Decoder};
use crate::kafka::{Progress, Tape};
use crate::pipeline::source::Commit;
use crate::postgres::{Ledger, LedgerError};
use crate::progress::ConsumerSet;
use crate::record::{RecordView, TopicPartition, Topics};
use crate::rows::{self, Routed, Row};

/// A letter's partition and offset in its queue.
type Spot = (i32, i64);

/// Shared by everybody who handles them.
#[derive(Clone)]
pub(super) struct Shelf(Arc<Mutex<State>>);

struct State {
    queue: Queue,
    cases: BTreeMap<Spot, Case>,
    /// Why what is done cannot be written down, if waiting does not help.
    refused: Option<String>,
}

struct Case {
    provenance: Provenance,
    /// The record's topic, by its place among the topics of this replay.
    topic: u16,
    /// What the database knows of as dead.
    row: Option<Row>,
    ended: Option<Ended>,
}

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Marked,
    /// It is a letter still, and why now.
    StillDead {
        reason: String,
        detail: String,
    },
}

impl Shelf {
    /// The letters of one queue, and the topics their records are of.
    pub(super) fn of(queue: Queue, letters: &BTreeMap<Place, Provenance>) -> (Self, Topics) {
        let names: BTreeSet<&str> = letters.values().map(|letter| letter.topic.as_str()).collect();
        let topics: Topics = names.into_iter().map(Box::from).collect();
        let mut cases = BTreeMap::new();
        for (place, provenance) in letters {
            let topic = topics.iter().position(|topic| **topic == *provenance.topic);
            // A letter says its topic itself; there are no more topics than a broker has.
            let Some(topic) = topic.and_then(|topic| u16::try_from(topic).ok()) else {
                continue;
            };
            let case = Case {
                provenance: provenance.clone(),
                topic,
                row: None,
                ended: misplaced(queue, &provenance.topic),
            };
            cases.insert((place.partition, place.offset), case);
        }
        let state = State {
            queue,
            cases,
            refused: None,
        };
        (Self(Arc::new(Mutex::new(state))), topics)
    }

    /// Of each place that the pipeline will see, the first offset.
    pub(super) fn starts(&self) -> BTreeMap<TopicPartition, i64> {
        let mut starts = BTreeMap::new();
        for ((partition, offset), case) in &self.state().cases {
            let (topic, partition) = (case.topic, *partition);
            starts.entry(TopicPartition { topic, partition }).or_insert(*offset);
        }
        starts
    }

    /// What became of each; `None`: it was not finished.
    pub(super) fn ended(&self) -> BTreeMap<Place, Option<Ended>> {
        let state = self.state();
        let queue = state.queue;
        let of = |(spot, case): (&Spot, &Case)| {
            let (partition, offset) = *spot;
            let place = Place {
                queue,
                partition,
                offset,
            };
            (place, case.ended.clone())
        };
        state.cases.iter().map(of).collect()
    }

    pub(super) fn refused(&self) -> Option<String> {
        self.state().refused.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives letters to the pipeline as the records they were.
pub(super) struct Opener {
    pub(super) shelf: Shelf,
    pub(super) decoder: Decoder,
    pub(super) decimals: DecimalMode,
}

impl Tape for Opener {
    fn turn<'a>(&mut self, letter: RecordView<'a>) -> Option<(TopicPartition, RecordView<'a>)> {
        let mut state = self.shelf.state();
        let queue = state.queue;
        let case = state.cases.get_mut(&(letter.partition, letter.offset))?;
        if case.ended.is_some() {
            return None;
        }
        let record = original(&letter, &case.provenance);
        if let Queue::Consumer(_) = queue {
            let topic = case.provenance.topic.clone();
            let own = RecordView {
                topic: &topic,
                ..record
            };
            case.row = row(&mut self.decoder, &own, self.decimals);
        }
        let place = TopicPartition {
            topic: case.topic,
            partition: letter.partition,
        };
        Some((place, record))
    }
}

fn row(decoder: &mut Decoder, record: &RecordView<'_>, decimals: DecimalMode) -> Option<Row> {
    let Ok(Decoded::Change(change)) = decoder.decode(record) else {
        return None;
    };
    match rows::route(record.topic, &change, decimals) {
        Ok(Routed::Row(change)) => Some(change.row),
        Ok(Routed::Unread { .. }) | Err(_) => None,
    }
}

/// A letter of a topic that its consumer does not read: no worker wrote it, and the pipeline would find nothing to do.
fn misplaced(queue: Queue, topic: &str) -> Option<Ended> {
    let readers = match queue {
        Queue::Decode => Consumer::ALL.into_iter().collect::<ConsumerSet>(),
        Queue::Consumer(consumer) => ConsumerSet::only(consumer),
    };
    readers.reading(topic).is_empty().then(|| Ended::StillDead {
        reason: "misplaced".to_owned(),
        detail: format!("{} does not read topic {topic}", queue.name()),
    })
}

impl DeadLetters for Shelf {
    /// The letter is there already.
    fn write<'a>(&'a self, letter: &'a Letter<'a>) -> BoxFuture<'a, Result<(), WriteError>> {
        let (place, offset) = letter.record.place();
        if let Some(case) = self.state().cases.get_mut(&(place.partition, offset)) {
            case.ended = Some(Ended::StillDead {
                reason: letter.reason.to_owned(),
                detail: letter.detail.to_owned(),
            });
        }
        futures::future::ready(Ok(())).boxed()
    }
}

/// Marks what is finished.
pub(super) struct Marker {
    pub(super) shelf: Shelf,
    pub(super) letters: Arc<KafkaDeadLetters>,
    pub(super) ledger: Option<Arc<dyn Ledger>>,
    pub(super) clock: SharedClock,
    pub(super) fate: Fate,
    pub(super) because: String,
    pub(super) by: String,
    pub(super) bar: ProgressBar,
    /// Ends the replay.
    pub(super) stop: CancellationToken,
}

impl Progress for Marker {
    fn done<'a>(&'a mut self, commits: &'a [Commit]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            for (queue, (partition, offset), row) in self.finished(commits) {
                if let (Some(ledger), Queue::Consumer(consumer), Some(row)) = (&self.ledger, queue, &row) {
                    self.lift(ledger.as_ref(), consumer, row).await?;
                }
                let mark = Mark {
                    offset,
                    fate: self.fate,
                    because: self.because.clone(),
                    by: self.by.clone(),
                    at_ms: self.clock.now_ms(),
                };
                if let Err(error) = self.letters.mark(queue, partition, &mark).await {
                    if let WriteError::Refused { .. } | WriteError::TooLarge { .. } = error {
                        self.refuse(error.to_string());
                    }
                    return Err(error.to_string());
                }
                if let Some(case) = self.shelf.state().cases.get_mut(&(partition, offset)) {
                    case.ended = Some(Ended::Marked);
                }
                self.bar.inc(1);
            }
            Ok(())
        }
        .boxed()
    }
}

impl Marker {
    /// What is below these offsets, neither marked nor dead once more.
    fn finished(&self, commits: &[Commit]) -> Vec<(Queue, Spot, Option<Row>)> {
        let state = self.shelf.state();
        let is_finished = |(partition, offset): &Spot, case: &Case| {
            let is_below = |commit: &Commit| {
                let place = commit.place;
                place.topic == case.topic && place.partition == *partition && *offset < commit.progress.offset
            };
            case.ended.is_none() && commits.iter().any(is_below)
        };
        let cases = state.cases.iter().filter(|(spot, case)| is_finished(spot, case));
        cases
            .map(|(spot, case)| (state.queue, *spot, case.row.clone()))
            .collect()
    }

    async fn lift(&self, ledger: &dyn Ledger, consumer: Consumer, row: &Row) -> Result<(), String> {
        match ledger.lift(consumer, row).await {
            Ok(()) => Ok(()),
            Err(error @ LedgerError::Unavailable(_)) => Err(error.to_string()),
            Err(error) => {
                self.refuse(error.to_string());
                Err(error.to_string())
            }
        }
    }

    /// Waiting does not help.
    fn refuse(&self, why: String) {
        self.shelf.state().refused = Some(why);
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_of_a_topic_that_its_consumer_does_not_read_is_not_sent_anywhere() {
        let currency = Queue::Consumer(Consumer::Currency);
        assert_eq!(misplaced(currency, "crm.public.purchase_ledger"), None);
        assert!(misplaced(currency, "crm.public.codes").is_some());
        assert_eq!(misplaced(Queue::Decode, "crm.public.codes"), None);
        // A topic that is not called after a table may hold anything.
        assert_eq!(misplaced(currency, "anything"), None);
    }
}
