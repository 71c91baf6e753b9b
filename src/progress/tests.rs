//! The tracker by example, then against a slow oracle that keeps every record for ever.

use proptest::prelude::*;

use super::{ConsumerSet, Partition, Seq};
use crate::consumers::Consumer;

fn everyone() -> ConsumerSet {
    Consumer::ALL.into_iter().collect()
}

fn received(partition: &mut Partition, offset: i64) -> Seq {
    partition.receive(offset, everyone()).expect("offsets rise")
}

#[test]
fn nothing_received_commits_the_start() {
    let partition = Partition::starting_at(42, everyone());
    assert_eq!(partition.committable(), 42);
    assert_eq!(partition.watermark(Consumer::Tier), 42);
}

#[test]
fn a_record_is_committed_only_after_every_consumer_finished_it() {
    let mut partition = Partition::starting_at(0, everyone());
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
    let mut partition = Partition::starting_at(0, everyone());
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
    let mut partition = Partition::starting_at(5, everyone());
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
    let mut partition = Partition::starting_at(0, everyone());
    let seq = partition
        .receive(0, ConsumerSet::only(Consumer::Tier))
        .expect("in order");
    assert_eq!(partition.watermark(Consumer::Currency), 1);
    assert_eq!(partition.committable(), 0);
    partition.finish(seq, ConsumerSet::only(Consumer::Tier));
    assert_eq!(partition.committable(), 1);
}

#[test]
fn an_offset_below_the_position_is_refused() {
    let mut partition = Partition::starting_at(10, everyone());
    assert!(partition.receive(9, everyone()).is_err());
    received(&mut partition, 10);
    assert!(partition.receive(10, everyone()).is_err());
}

/// Keeps everything, searches everything.
struct Oracle {
    start: i64,
    readers: Vec<Consumer>,
    records: Vec<(i64, Vec<Consumer>)>,
}

impl Oracle {
    fn watermark(&self, consumer: Consumer) -> i64 {
        let unfinished = self
            .records
            .iter()
            .find(|(_, pending)| pending.contains(&consumer))
            .map(|(offset, _)| *offset);
        unfinished.unwrap_or_else(|| self.records.last().map_or(self.start, |(offset, _)| offset + 1))
    }

    fn committable(&self) -> i64 {
        self.readers
            .iter()
            .map(|consumer| self.watermark(*consumer))
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
    fn the_tracker_agrees_with_the_oracle_and_never_goes_back((readers, steps) in readers_and_steps(), start in 0..1000i64) {
        let mut partition = Partition::starting_at(start, readers.iter().copied().collect());
        let mut oracle = Oracle { start, readers: readers.clone(), records: Vec::new() };
        let mut seqs = Vec::new();
        let mut last = start;
        for step in steps {
            match step {
                Step::Receive { gap, pending } => {
                    let offset = partition.position() + gap;
                    seqs.push(partition.receive(offset, pending.iter().copied().collect()).expect("rises"));
                    oracle.records.push((offset, pending));
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
