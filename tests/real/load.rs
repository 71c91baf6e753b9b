//! Row changes without end, the books over them, and an eye on the group's commitments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::progress::frame::{self, Reading};
use crm_event_processors::rows::Table;
use futures::future::join_all;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::unique;
use crate::kafka::cluster::{Cluster, FORMS, WALLET, produce, purchase, purchases};
use crate::kafka::worker::patiently;

/// Of the purchases. The two other topics have one partition each and stay empty: they count in every assignment.
pub(super) const PARTITIONS: i32 = 4;
pub(super) const ALL_PARTITIONS: usize = 6;

/// The pace of the load: it should flow through everything that happens, not outrun two cores.
const EVERY: Duration = Duration::from_millis(25);
/// How often a commitment is looked at.
const LOOK: Duration = Duration::from_millis(50);
const ANSWER: Duration = Duration::from_secs(5);

/// One change of one purchase, and where it lies.
#[derive(Debug, Clone)]
pub(super) struct Change {
    row: String,
    lsn: u32,
    partition: i32,
    offset: i64,
}

/// Produces until it is told to stop: in each round and partition one purchase of its own, and one change of a purchase
/// that changes in every round. Each purchase is another member's.
#[derive(Debug)]
pub(super) struct Load {
    count: watch::Receiver<usize>,
    stop: CancellationToken,
    task: JoinHandle<Vec<Change>>,
}

impl Load {
    pub(super) fn start(cluster: &Cluster) -> Self {
        let (producer, topic) = (cluster.producer(), cluster.topic(purchases(0)));
        let (counted, count) = watch::channel(0);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let run = unique();
        let task = tokio::spawn(async move {
            let mut changes = Vec::new();
            let mut rounds = tokio::time::interval(EVERY);
            for lsn in 1.. {
                let () = tokio::select! {
                    () = stopped.cancelled() => break,
                    _ = rounds.tick() => {}
                };
                let rows = (0..PARTITIONS).flat_map(|partition| {
                    let fresh = (partition, format!("{run}-{partition}-{lsn}"));
                    [fresh, (partition, format!("{run}-{partition}-busy"))]
                });
                let round = join_all(rows.map(async |(partition, row)| {
                    let offset = produce(&producer, &topic, partition, &purchase(&row, lsn)).await;
                    Change {
                        row,
                        lsn,
                        partition,
                        offset,
                    }
                }));
                changes.extend(round.await);
                counted.send_replace(changes.len());
            }
            changes
        });
        Self { count, stop, task }
    }

    /// Waits for so many changes more.
    pub(super) async fn goes_on(&self, more: usize) {
        let mut count = self.count.clone();
        let enough = *count.borrow() + more;
        let produced = count.wait_for(|count| *count >= enough);
        drop(patiently("more load", produced).await.expect("the load goes on"));
    }

    pub(super) async fn stop(self) -> Vec<Change> {
        self.stop.cancel();
        patiently("the last records", self.task).await.expect("produced")
    }
}

/// What came out, against what went in: `accepted` are ids in the order of acceptance, repeats included; `kills` is how
/// often somebody ended without a last commit, so that the next owner had to begin before the end. Prints the figures.
pub(super) fn balance(produced: &[Change], accepted: &[String], kills: usize) {
    let readers = Consumer::ALL
        .into_iter()
        .filter(|consumer| consumer.reads(Table::PurchaseLedger));
    for consumer in readers {
        let needed = |_: &Change| true;
        let figures = balance_of(consumer, produced, accepted, kills, needed);
        println!("{}: {figures}", consumer.name());
    }
}

/// The books of one consumer, who needed those changes.
pub(super) fn balance_of(
    consumer: Consumer,
    produced: &[Change],
    accepted: &[String],
    kills: usize,
    needed: impl Fn(&Change) -> bool,
) -> String {
    let effect = if consumer == Consumer::Currency {
        "award"
    } else {
        "evaluation"
    };
    let id = |change: &Change| {
        format!(
            "{}:{effect}:purchase_ledger:{}:{}",
            consumer.name(),
            change.row,
            change.lsn
        )
    };
    let changes: BTreeMap<String, &Change> = produced.iter().map(|change| (id(change), change)).collect();
    let prefix = format!("{}:", consumer.name());
    let mut order: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let (mut distinct, mut resent) = (BTreeSet::new(), 0);
    for id in accepted.iter().filter(|id| id.starts_with(&prefix)) {
        let Some(change) = changes.get(id) else {
            panic!("accepted, and never produced: {id}");
        };
        order.entry(&change.row).or_default().push(change.lsn);
        resent += usize::from(!distinct.insert(id));
    }
    let mut newest: BTreeMap<&str, u32> = BTreeMap::new();
    for change in produced.iter().filter(|change| needed(change)) {
        newest.insert(&change.row, change.lsn);
    }
    let lost: Vec<&String> = changes
        .iter()
        .filter(|(_, change)| needed(change))
        // An award and a tier evaluation of an older state may be superseded by a newer one of the same batch.
        .filter(|(_, change)| consumer == Consumer::Mission || newest[change.row.as_str()] == change.lsn)
        .map(|(id, _)| id)
        .filter(|id| !distinct.contains(id))
        .collect();
    assert!(lost.is_empty(), "never accepted: {lost:#?}");
    for (row, lsns) in order {
        let backwards = lsns.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!(backwards <= kills, "{} out of order: {row}: {lsns:?}", consumer.name());
    }
    let (produced, distinct) = (changes.len(), distinct.len());
    format!("{produced} changes, {distinct} accepted, {resent} resent, nothing lost, nothing doubled")
}

/// Looks at the group's commitments of the purchases all the time. They must never go back, and neither must a watermark
/// in their metadata, nor vanish.
#[derive(Debug)]
pub(super) struct Commitments {
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    looks: usize,
    committed: BTreeMap<i32, i64>,
    marks: BTreeMap<(i32, Box<str>), i64>,
    /// The first watermark of each consumer in each partition.
    first: BTreeMap<(i32, Box<str>), i64>,
    backwards: Vec<String>,
}

impl Commitments {
    pub(super) fn watch(cluster: &Cluster) -> Self {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.connection().bootstrap_servers)
            .set("group.id", cluster.group())
            .create()
            .expect("a consumer");
        let (client, topic) = (Arc::new(client), cluster.topic(purchases(0)));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = CancellationToken::new();
        let (stopped, noted) = (stop.clone(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                let (client, topic) = (Arc::clone(&client), topic.clone());
                let asked = tokio::task::spawn_blocking(move || {
                    let mut wanted = TopicPartitionList::new();
                    wanted.add_partition_range(&topic, 0, PARTITIONS - 1);
                    client.committed_offsets(wanted, ANSWER)
                });
                // No answer is none: some tests take the broker away.
                if let Ok(commitments) = asked.await.expect("no panic") {
                    noted.lock().expect("not poisoned").note(&commitments);
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { seen, stop, task }
    }

    /// The committed offsets together.
    pub(super) fn sum(&self) -> i64 {
        self.seen.lock().expect("not poisoned").committed.values().sum()
    }

    /// Waits until they have grown together by so much.
    pub(super) async fn advance(&self, by: i64) {
        let enough = self.sum() + by;
        let asking = async {
            while self.sum() < enough {
                tokio::time::sleep(LOOK).await;
            }
        };
        patiently("commits that advance", asking).await;
    }

    /// Ends the watch; gives the first watermark that each consumer had in each partition.
    pub(super) async fn end(self) -> BTreeMap<(i32, Box<str>), i64> {
        self.stop.cancel();
        patiently("the last look", self.task).await.expect("looked");
        let seen = self.seen.lock().expect("not poisoned");
        assert!(seen.backwards.is_empty(), "{:#?}", seen.backwards);
        println!("commitments never went back in {} looks", seen.looks);
        seen.first.clone()
    }
}

impl Seen {
    fn note(&mut self, commitments: &TopicPartitionList) {
        self.looks += 1;
        for element in commitments.elements() {
            let Offset::Offset(offset) = element.offset() else {
                continue;
            };
            let partition = element.partition();
            let before = self.committed.insert(partition, offset).unwrap_or(0);
            if offset < before {
                self.backwards
                    .push(format!("{partition}: committed {before}, then {offset}"));
            }
            let marks = match frame::read(element.metadata()) {
                Reading::Frame(marks) => marks,
                other => panic!("{partition}: no frame: {other:?}"),
            };
            for consumer in Consumer::ALL {
                let key = (partition, consumer.name().into());
                match (self.marks.get(&key).copied(), marks.get(consumer.name()).copied()) {
                    (None, None) => {}
                    (before, Some(mark)) if mark >= before.unwrap_or(0) => {
                        self.first.entry(key.clone()).or_insert(mark);
                        self.marks.insert(key, mark);
                    }
                    (before, now) => {
                        let name = consumer.name();
                        self.backwards
                            .push(format!("{partition}: {name} at {before:?}, then {now:?}"));
                    }
                }
            }
        }
    }
}

/// Everything produced is committed.
pub(super) async fn all_committed(cluster: &Cluster) {
    let mut places: Vec<_> = (0..PARTITIONS).map(purchases).collect();
    places.extend([WALLET, FORMS]);
    cluster.wait_all_committed(&places).await;
}

impl Change {
    /// Whether it lies at this offset of its partition or behind it.
    pub(super) fn is_from(&self, starts: &BTreeMap<i32, i64>) -> bool {
        starts.get(&self.partition).is_some_and(|start| self.offset >= *start)
    }
}

/// A check that could not fail would prove nothing.
mod books {
    use super::*;

    fn change(row: &str, lsn: u32) -> Change {
        Change {
            row: row.to_owned(),
            lsn,
            partition: 0,
            offset: i64::from(lsn),
        }
    }

    fn missions(rows: &[(&str, u32)]) -> Vec<String> {
        let id = |(row, lsn): &(&str, u32)| format!("mission:evaluation:purchase_ledger:{row}:{lsn}");
        rows.iter().map(id).collect()
    }

    fn figures(produced: &[(&str, u32)], accepted: &[(&str, u32)], kills: usize) -> Option<String> {
        let produced: Vec<Change> = produced.iter().map(|(row, lsn)| change(row, *lsn)).collect();
        let accepted = missions(accepted);
        std::panic::catch_unwind(|| balance_of(Consumer::Mission, &produced, &accepted, kills, |_| true)).ok()
    }

    #[test]
    fn the_books_notice_what_is_lost_unknown_or_out_of_order_and_count_what_is_resent() {
        let produced = [("a", 1), ("a", 2), ("b", 3)];
        let resent = figures(&produced, &[("a", 1), ("b", 3), ("a", 2), ("a", 2)], 0);
        assert!(resent.expect("balanced").contains("3 accepted, 1 resent"));
        assert_eq!(figures(&produced, &[("a", 1), ("a", 2)], 0), None, "b is lost");
        assert_eq!(
            figures(&produced[..2], &[("a", 1), ("a", 2), ("a", 7)], 0),
            None,
            "a second id"
        );
        let back = [("a", 2), ("a", 1), ("a", 2), ("b", 3)];
        assert_eq!(figures(&produced, &back, 0), None, "out of order");
        assert!(figures(&produced, &back, 1).is_some(), "somebody was killed");
    }

    #[test]
    fn a_commitment_that_goes_back_is_noticed_and_so_is_a_watermark_that_vanishes() {
        let commitment = |offset: i64, marks: &[(&str, i64)]| {
            let marks = marks.iter().map(|(name, mark)| ((*name).into(), *mark)).collect();
            let mut list = TopicPartitionList::new();
            list.add_partition_offset("t", 0, Offset::Offset(offset))
                .expect("an offset");
            list.find_partition("t", 0)
                .expect("just added")
                .set_metadata(frame::write(&marks));
            list
        };
        for (second, complaints) in [
            (commitment(5, &[("currency", 6), ("tier", 5)]), 0),
            (commitment(4, &[("currency", 6), ("tier", 5)]), 1),
            (commitment(5, &[("currency", 5), ("tier", 5)]), 1),
            (commitment(5, &[("currency", 6)]), 1),
        ] {
            let mut seen = Seen::default();
            seen.note(&commitment(5, &[("currency", 6), ("tier", 5)]));
            seen.note(&second);
            assert_eq!(seen.backwards.len(), complaints, "{:?}", seen.backwards);
        }
    }
}
