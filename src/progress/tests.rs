//! The tracker by example, then against a slow oracle that keeps every record for ever.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{ConsumerSet, Partition, Seq, Start};
use crate::consumers::Consumer;

/// The readers of one topic.
fn everyone() -> ConsumerSet {
    [Consumer::Currency, Consumer::Tier, Consumer::Mission]
        .into_iter()
        .collect()
}

fn starting_at(position: i64) -> Partition {
    Partition::starting(&Start::at(position, everyone()))
}

fn received(partition: &mut Partition, offset: i64) -> Seq {
    partition.receive(offset, everyone()).expect("offsets rise").seq
}

#[test]
fn nothing_received_commits_the_start() {
    let partition = starting_at(42);
    assert_eq!(partition.committable(), 42);
    assert_eq!(partition.watermark(Consumer::Tier), 42);
}

#[test]
fn a_record_is_committed_only_after_every_consumer_finished_it() {
    let mut partition = starting_at(0);
    let seq = received(&mut partition, 0);
    partition.finish(seq, ConsumerSet::only(Consumer::Currency));
    partition.finish(seq, ConsumerSet::only(Consumer::Tier));
    assert_eq!(partition.committable(), 0);
    assert_eq!(partition.watermark(Consumer::Currency), 1);
    assert_eq!(partition.watermark(Consumer::Mission), 0);
    partition.finish(seq, ConsumerSet::only(Consumer::Mission));
    assert_eq!(partition.committable(), 1);
    assert_eq!(partition.outstanding(), 0);
}

#[test]
fn a_later_success_never_passes_an_unfinished_record() {
    let mut partition = starting_at(0);
    let held = received(&mut partition, 0);
    for offset in 1..100 {
        let seq = received(&mut partition, offset);
        partition.finish(seq, everyone());
    }
    assert_eq!(partition.committable(), 0);
    partition.finish(held, everyone());
    assert_eq!(partition.committable(), 100);
}

#[test]
fn positions_follow_the_offsets_received_over_gaps() {
    let mut partition = starting_at(5);
    let first = received(&mut partition, 7);
    let second = received(&mut partition, 20);
    assert_eq!(partition.committable(), 7, "5 and 6 do not exist; 7 is not finished");
    partition.finish(first, everyone());
    assert_eq!(partition.committable(), 20, "the next received offset, not 8");
    partition.finish(second, everyone());
    assert_eq!(partition.committable(), 21);
}

#[test]
fn a_consumer_that_ignores_a_record_has_finished_it_at_once() {
    let mut partition = starting_at(0);
    let seq = partition
        .receive(0, ConsumerSet::only(Consumer::Tier))
        .expect("in order")
        .seq;
    assert_eq!(partition.watermark(Consumer::Currency), 1);
    assert_eq!(partition.committable(), 0);
    partition.finish(seq, ConsumerSet::only(Consumer::Tier));
    assert_eq!(partition.committable(), 1);
}

#[test]
fn an_offset_below_the_position_is_refused() {
    let mut partition = starting_at(10);
    received(&mut partition, 10);
    assert!(partition.receive(10, everyone()).is_err());
    assert!(partition.receive(9, everyone()).is_err());
}

#[test]
fn work_known_to_be_done_is_skipped_and_its_watermark_kept() {
    let mut start = Start::at(10, everyone());
    start.watermarks.insert(Consumer::Currency, 12);
    let mut partition = Partition::starting(&start);
    let others: ConsumerSet = [Consumer::Tier, Consumer::Mission].into_iter().collect();
    for (offset, pending) in [(10, others), (11, others), (12, everyone())] {
        assert_eq!(
            partition.receive(offset, everyone()).expect("rises").pending,
            pending,
            "{offset}"
        );
        assert_eq!(partition.watermark(Consumer::Currency), 12, "what was done stays done");
        assert_eq!(partition.committable(), 10);
    }
}

#[test]
fn an_absent_consumer_holds_the_position_while_the_others_advance() {
    let mut start = Start::at(10, everyone());
    start.absent.insert("reward".into(), 11);
    let mut partition = Partition::starting(&start);
    for offset in 10..20 {
        let seq = received(&mut partition, offset);
        partition.finish(seq, everyone());
    }
    assert_eq!(partition.committable(), 11);
    assert_eq!(partition.watermark(Consumer::Tier), 20);
    assert_eq!(partition.outstanding(), 0, "it costs no memory");
    assert_eq!(partition.held_by().collect::<Vec<_>>(), [("reward", 11)]);
    let written: Vec<_> = partition.watermarks().into_iter().collect();
    let expected = [("currency", 20), ("mission", 20), ("reward", 11), ("tier", 20)];
    assert_eq!(written, expected.map(|(name, watermark)| (name.into(), watermark)));
}

#[test]
fn watermarks_do_not_count_when_the_first_record_lies_below_the_start() {
    let mut start = Start::at(10, everyone());
    start.watermarks.insert(Consumer::Currency, 12);
    start.absent.insert("reward".into(), 30);
    let mut partition = Partition::starting(&start);
    assert_eq!(
        partition.receive(4, everyone()).expect("a log cut short").pending,
        everyone()
    );
    assert_eq!(partition.receive(11, everyone()).expect("rises").pending, everyone());
    assert_eq!(
        (partition.committable(), partition.watermark(Consumer::Currency)),
        (4, 4)
    );
    assert_eq!(
        partition.watermarks().get("reward"),
        Some(&4),
        "the absent one reads the cut log anew as well"
    );
}

/// Keeps everything, searches everything.
struct Oracle {
    start: i64,
    readers: Vec<Consumer>,
    floors: BTreeMap<Consumer, i64>,
    absent: Option<i64>,
    records: Vec<(i64, Vec<Consumer>)>,
}

impl Oracle {
    fn watermark(&self, consumer: Consumer) -> i64 {
        let unfinished = self
            .records
            .iter()
            .find(|(_, pending)| pending.contains(&consumer))
            .map(|(offset, _)| *offset);
        let reached = unfinished.unwrap_or_else(|| self.records.last().map_or(self.start, |(offset, _)| offset + 1));
        reached.max(self.floors[&consumer])
    }

    /// Nobody has to do again what is known to be done.
    fn receive(&mut self, offset: i64, pending: &[Consumer]) {
        let pending = pending.iter().filter(|consumer| self.floors[consumer] <= offset);
        let pending = pending.copied().collect();
        self.records.push((offset, pending));
    }

    fn committable(&self) -> i64 {
        self.readers
            .iter()
            .map(|consumer| self.watermark(*consumer))
            .chain(self.absent)
            .min()
            .unwrap_or(self.start)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Receive {
        gap: i64,
        pending: Vec<Consumer>,
    },
    Finish {
        which: prop::sample::Index,
        consumer: Consumer,
    },
}

fn steps(readers: Vec<Consumer>) -> impl Strategy<Value = Vec<Step>> {
    let count = readers.len();
    let pending = prop::sample::subsequence(readers.clone(), 0..=count);
    let receive = (0..4i64, pending).prop_map(|(gap, pending)| Step::Receive { gap, pending });
    let finish = (any::<prop::sample::Index>(), prop::sample::select(readers))
        .prop_map(|(which, consumer)| Step::Finish { which, consumer });
    prop::collection::vec(prop_oneof![2 => receive, 3 => finish], 0..200)
}

fn readers_and_steps() -> impl Strategy<Value = (Vec<Consumer>, Vec<Step>)> {
    prop::sample::subsequence(Consumer::ALL.to_vec(), 1..=Consumer::ALL.len())
        .prop_flat_map(|readers| (Just(readers.clone()), steps(readers)))
}

proptest! {
    #[test]
    fn the_tracker_agrees_with_the_oracle_and_never_goes_back(
        (readers, steps) in readers_and_steps(),
        ahead in prop::collection::vec(0..40i64, Consumer::ALL.len()),
        absent in prop::option::of(1000..1100i64),
    ) {
        let floors: BTreeMap<_, _> = readers.iter().zip(ahead).map(|(reader, ahead)| (*reader, 1000 + ahead)).collect();
        let start = floors.values().copied().min().expect("at least one reader");
        let mut partition = Partition::starting(&Start {
            position: start,
            watermarks: floors.clone(),
            absent: absent.map(|absent| ("absent".into(), absent)).into_iter().collect(),
            committed: None,
        });
        let mut oracle = Oracle { start, readers: readers.clone(), floors, absent, records: Vec::new() };
        let mut seqs = Vec::new();
        let mut last = oracle.committable();
        for step in steps {
            match step {
                Step::Receive { gap, pending } => {
                    let offset = partition.position() + gap;
                    let received = partition.receive(offset, pending.iter().copied().collect()).expect("rises");
                    oracle.receive(offset, &pending);
                    let due: ConsumerSet = oracle.records.last().expect("just received").1.iter().copied().collect();
                    prop_assert_eq!(received.pending, due);
                    seqs.push(received.seq);
                }
                Step::Finish { which, consumer } if !seqs.is_empty() => {
                    let index = which.index(seqs.len());
                    partition.finish(seqs[index], ConsumerSet::only(consumer));
                    oracle.records[index].1.retain(|pending| *pending != consumer);
                }
                Step::Finish { .. } => {}
            }
            // With gaps, "everything below is finished" holds for both numbers between two received offsets; the
            // tracker answers the next received offset, as the oracle does.
            for consumer in &readers {
                prop_assert_eq!(partition.watermark(*consumer), oracle.watermark(*consumer));
            }
            prop_assert_eq!(partition.committable(), oracle.committable());
            prop_assert!(partition.committable() >= last, "a committable position never goes back");
            last = partition.committable();
        }
    }
}
