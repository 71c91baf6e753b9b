//! What is read when somebody looks: lag, skew, pauses, ages.
//!
//! Takes what was last published, gives numbers. It never asks the pipeline or the client, so a scrape disturbs nobody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tokio::sync::watch;
use tokio::time::Instant;

use super::lately::Lately;
use super::names;
use super::recent::Recent;
use super::status::{Group, Halted, Status, skew};
use crate::clock::{Clock as _, SystemClock};
use crate::consumers::Consumer;
use crate::progress::ConsumerSet;
use crate::record::TopicPartition;

/// The state behind the instruments.
pub(super) struct Observed {
    /// Monotonic: an age must not jump with the time of day.
    started: Instant,
    /// The same by the time of day, for whoever counts starts.
    began_s: i64,
    pub(super) status: watch::Sender<Arc<Status>>,
    pub(super) lately: Lately,
    pub(super) recent: Recent,
    in_flight: [AtomicU64; Consumer::ALL.len()],
    short_of_room: AtomicBool,
    /// When the loops last went round, in ms since `started`.
    polled: AtomicU64,
    ticked: AtomicU64,
    /// When a record last ended, in the same way; and when there was last nothing to wait for.
    ended: AtomicU64,
    quiet: AtomicU64,
    slow: Mutex<Slow>,
}

/// What changes seldom.
#[derive(Debug, Default)]
pub(super) struct Slow {
    log_ends: BTreeMap<TopicPartition, i64>,
    pub(super) halted: BTreeMap<TopicPartition, Halted>,
    pub(super) group: Group,
    /// What the start is at.
    pub(super) beginning: String,
    /// Partitions with something uncommitted: their committed offset, and since when nothing is confirmed of them.
    uncommitted: BTreeMap<TopicPartition, (Option<i64>, Instant)>,
}

impl Observed {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            began_s: SystemClock.now().as_second(),
            status: watch::Sender::new(Arc::new(Status::starting())),
            lately: Lately::default(),
            recent: Recent::default(),
            in_flight: Default::default(),
            short_of_room: AtomicBool::new(false),
            polled: AtomicU64::new(0),
            ticked: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            quiet: AtomicU64::new(0),
            slow: Mutex::default(),
        }
    }

    pub(super) fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn polled(&self) {
        self.beat(&self.polled);
    }

    fn beat(&self, of: &AtomicU64) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // 0 is never.
        of.store(now.max(1), Ordering::Relaxed);
    }

    /// `None` before it has gone round once.
    fn age_of_loop(&self, of: &AtomicU64) -> Option<Duration> {
        (of.load(Ordering::Relaxed) > 0).then(|| self.age(of))
    }

    fn age(&self, of: &AtomicU64) -> Duration {
        let since = Duration::from_millis(of.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(since)
    }

    pub(super) fn poll_age(&self) -> Duration {
        self.age(&self.polled)
    }

    /// The polling thread was started.
    pub(super) fn has_polled(&self) -> bool {
        self.polled.load(Ordering::Relaxed) > 0
    }

    pub(super) fn ended(&self) {
        self.beat(&self.ended);
    }

    pub(super) fn still_for(&self) -> Duration {
        self.age(&self.ended)
    }

    /// How long something has been in hand or behind, and no record has ended.
    pub(super) fn waited(&self) -> Duration {
        self.still_for().min(self.age(&self.quiet))
    }

    pub(super) fn tick_age(&self) -> Duration {
        self.age(&self.ticked)
    }

    pub(super) fn published(&self, status: Status) {
        if status.ticked_ms > 0 {
            self.beat(&self.ticked);
            self.lately.tick();
        }
        {
            let now = Instant::now();
            let mut slow = self.slow();
            let before = std::mem::take(&mut slow.uncommitted);
            let behind = status
                .partitions
                .iter()
                .filter(|partition| partition.committed != Some(partition.position))
                // What only an absent consumer holds is not waiting for a commit.
                .filter(|partition| partition.absent.is_empty() || partition.outstanding > 0);
            slow.uncommitted = behind
                .map(|partition| {
                    let still = before
                        .get(&partition.place)
                        .filter(|(committed, _)| *committed == partition.committed);
                    let since = still.map_or(now, |(_, since)| *since);
                    // Under an absent consumer the offset stands, and each confirmed commit moves what the others have done.
                    let moves = !partition.absent.is_empty();
                    let since = if moves { since.max(partition.confirmed) } else { since };
                    (partition.place, (partition.committed, since))
                })
                .collect();
        }
        let in_hand: usize = status.partitions.iter().map(|partition| partition.outstanding).sum();
        self.status.send_replace(Arc::new(status));
        if in_hand == 0 && self.behind() == 0 {
            self.beat(&self.quiet);
        }
    }

    /// The longest time that a partition with something uncommitted has waited for a confirmed commit.
    pub(super) fn commit_age(&self) -> Duration {
        let slow = self.slow();
        let oldest = slow.uncommitted.values().map(|(_, since)| *since).min();
        oldest.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Ends only grow: what the client remembers of a log that it does not fetch is older than what was asked for.
    pub(super) fn log_ends(&self, ends: impl IntoIterator<Item = (TopicPartition, i64)>) {
        let mut slow = self.slow();
        for (place, end) in ends {
            let known = slow.log_ends.entry(place).or_insert(end);
            *known = end.max(*known);
        }
    }

    pub(super) fn lags(&self) -> Vec<(Consumer, TopicPartition, i64)> {
        let status = Arc::clone(&self.status.borrow());
        let slow = self.slow();
        let end = |place: &TopicPartition| slow.log_ends.get(place).copied().unwrap_or(0);
        let mut lags = Vec::new();
        for partition in &status.partitions {
            // No statistics yet: at least what we have received ourselves.
            let end = end(&partition.place).max(partition.position);
            for (consumer, watermark) in &partition.watermarks {
                lags.push((*consumer, partition.place, end.saturating_sub(*watermark).max(0)));
            }
        }
        for (place, halted) in &slow.halted {
            let lag = end(place).saturating_sub(halted.unread_from).max(0);
            let running: ConsumerSet = status.consumers.iter().map(|consumer| consumer.consumer).collect();
            let readers = running.reading(status.topic(place.topic));
            lags.extend(readers.iter().map(|reader| (reader, *place, lag)));
        }
        lags
    }

    /// Records that somebody has yet to finish: of each partition as many as its slowest consumer is behind.
    pub(super) fn behind(&self) -> i64 {
        let mut most = BTreeMap::new();
        for (_, place, lag) in self.lags() {
            let known = most.entry(place).or_insert(lag);
            *known = lag.max(*known);
        }
        most.values().sum()
    }

    pub(super) fn short_of_room(&self, short: bool) {
        self.short_of_room.store(short, Ordering::Relaxed);
    }

    /// Partitions that are paused now, by cause.
    pub(super) fn paused(&self) -> [(&'static str, u64); 2] {
        let status = Arc::clone(&self.status.borrow());
        let room = if self.short_of_room.load(Ordering::Relaxed) {
            status.partitions.len()
        } else {
            0
        };
        let skew = status.partitions.iter().filter(|partition| partition.paused).count();
        [("room", room as u64), ("skew", skew as u64)]
    }

    pub(super) fn in_flight(&self, consumer: Consumer) -> u64 {
        self.in_flight
            .get(consumer.index())
            .map_or(0, |events| events.load(Ordering::Relaxed))
    }

    pub(super) fn sent(&self, consumer: Consumer, events: u64) {
        if let Some(in_flight) = self.in_flight.get(consumer.index()) {
            in_flight.fetch_add(events, Ordering::Relaxed);
        }
    }

    pub(super) fn came_back(&self, consumer: Consumer, events: u64) {
        if let Some(in_flight) = self.in_flight.get(consumer.index()) {
            in_flight.fetch_sub(events, Ordering::Relaxed);
        }
    }

    /// The largest skew of each topic.
    fn skews(&self) -> BTreeMap<u16, i64> {
        let mut skews = BTreeMap::new();
        for partition in &self.status.borrow().partitions {
            let largest = skews.entry(partition.place.topic).or_insert(0);
            *largest = skew(partition).max(*largest);
        }
        skews
    }
}

/// Makes the instruments that are computed when somebody looks.
pub(super) fn observe(meter: &Meter, seen: &Arc<Observed>) {
    of_partitions(meter, seen);
    of_consumers(meter, seen);
    of_the_client(meter, seen);
}

fn of_partitions(meter: &Meter, seen: &Arc<Observed>) {
    let (lags, skews) = (Arc::clone(seen), Arc::clone(seen));
    let lag = meter.i64_observable_gauge(names::LAG);
    lag.with_description("Records a consumer is behind the end of the log.")
        .with_callback(move |gauge| {
            let status = Arc::clone(&lags.status.borrow());
            for (consumer, place, lag) in lags.lags() {
                let topic = KeyValue::new("topic", status.topic(place.topic).to_owned());
                let partition = KeyValue::new("partition", i64::from(place.partition));
                gauge.observe(lag, &[consumer_label(Some(consumer)), topic, partition]);
            }
        })
        .build();
    let skew = meter.i64_observable_gauge(names::SKEW);
    skew.with_description("The largest distance between two consumers of one partition, in offsets.")
        .with_callback(move |gauge| {
            let status = Arc::clone(&skews.status.borrow());
            for (topic, skew) in skews.skews() {
                gauge.observe(skew, &[KeyValue::new("topic", status.topic(topic).to_owned())]);
            }
        })
        .build();
    let count = |name: &'static str, text: &'static str, count: fn(&Observed) -> u64| {
        let seen = Arc::clone(seen);
        meter
            .u64_observable_gauge(name)
            .with_description(text)
            .with_callback(move |gauge| gauge.observe(count(&seen), &[]))
            .build();
    };
    count(names::ASSIGNED, "Partitions assigned to this process.", |seen| {
        seen.status.borrow().partitions.len() as u64
    });
    count(names::HALTED, "Partitions that wait for an operator.", |seen| {
        seen.slow().halted.len() as u64
    });
    let absent = "Partitions whose committed offset waits for a consumer that does not run here.";
    count(names::HELD, absent, |seen| {
        let status = Arc::clone(&seen.status.borrow());
        status
            .partitions
            .iter()
            .filter(|partition| !partition.absent.is_empty())
            .count() as u64
    });
    let outstanding = "Received records that are not finished by every consumer.";
    count(names::OUTSTANDING, outstanding, |seen| {
        let status = Arc::clone(&seen.status.borrow());
        let outstanding = status.partitions.iter().map(|partition| partition.outstanding as u64);
        outstanding.sum()
    });
}

fn of_consumers(meter: &Meter, seen: &Arc<Observed>) {
    let (still, flying) = (Arc::clone(seen), Arc::clone(seen));
    let gauge = meter.u64_observable_gauge(names::STANDING_STILL);
    gauge
        .with_description("1 while a consumer waits for an operator: refused by a target, or halted.")
        .with_callback(move |gauge| {
            for consumer in &still.status.borrow().consumers {
                let standing = u64::from(consumer.standing_still.is_some() || consumer.halted.is_some());
                gauge.observe(standing, &[consumer_label(Some(consumer.consumer))]);
            }
        })
        .build();
    let gauge = meter.u64_observable_gauge(names::IN_FLIGHT);
    gauge
        .with_description("Events in requests that are under way.")
        .with_callback(move |gauge| {
            for consumer in Consumer::ALL {
                gauge.observe(flying.in_flight(consumer), &[consumer_label(Some(consumer))]);
            }
        })
        .build();
}

fn of_the_client(meter: &Meter, seen: &Arc<Observed>) {
    let paused = Arc::clone(seen);
    let gauge = meter.u64_observable_gauge(names::PAUSED);
    gauge
        .with_description("Partitions that are paused now, by cause.")
        .with_callback(move |gauge| {
            for (cause, partitions) in paused.paused() {
                gauge.observe(partitions, &[KeyValue::new("cause", cause)]);
            }
        })
        .build();
    let age = |name: &'static str, text: &'static str, age: fn(&Observed) -> Option<Duration>| {
        let seen = Arc::clone(seen);
        meter
            .f64_observable_gauge(name)
            .with_unit("s")
            .with_description(text)
            .with_callback(move |gauge| {
                if let Some(age) = age(&seen) {
                    gauge.observe(age.as_secs_f64(), &[]);
                }
            })
            .build();
    };
    // A worker that waits for its database has not begun, and is not slow.
    let text = "Since the polling thread last went round.";
    age(names::POLL_AGE, text, |seen| seen.age_of_loop(&seen.polled));
    let text = "Since the pipeline last ticked.";
    age(names::TICK_AGE, text, |seen| seen.age_of_loop(&seen.ticked));
    let text = "The longest that a partition with something uncommitted has waited for a confirmed commit.";
    age(names::COMMIT_AGE, text, |seen| Some(seen.commit_age()));
    let began_s = seen.began_s;
    let start = meter.i64_observable_gauge(names::START);
    start
        .with_unit("s")
        .with_description("When the process began, in seconds since 1970.")
        .with_callback(move |gauge| gauge.observe(began_s, &[]))
        .build();
    let build = meter.u64_observable_gauge(names::BUILD);
    build
        .with_description("Always 1; the label says which version runs.")
        .with_callback(|gauge| gauge.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]))
        .build();
}

pub(super) fn consumer_label(consumer: Option<Consumer>) -> KeyValue {
    KeyValue::new("consumer", consumer.map_or("none", Consumer::name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::PartitionStatus;
    use crate::telemetry::ConsumerStatus;

    const HERE: TopicPartition = TopicPartition { topic: 0, partition: 0 };

    fn status(committed: Option<i64>, position: i64) -> Status {
        let partition = PartitionStatus {
            place: HERE,
            committed,
            position,
            outstanding: 0,
            paused: false,
            confirmed: Instant::now(),
            watermarks: vec![(Consumer::Tier, position)],
            absent: Vec::new(),
        };
        let consumer = ConsumerStatus {
            consumer: Consumer::Tier,
            lanes: 1,
            standing_still: None,
            halted: None,
        };
        Status {
            ticked_ms: 1,
            partitions: vec![partition],
            consumers: vec![consumer],
            ..Status::starting()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_commit_age_grows_only_while_something_is_uncommitted_and_begins_anew_at_every_commit() {
        let second = Duration::from_secs(1);
        let seen = Observed::new();
        for (committed, position, age) in [
            (Some(5), 5, 0),
            (Some(5), 9, 0),
            (Some(5), 12, 1),
            (Some(5), 12, 2),
            (Some(9), 12, 0),
            (Some(9), 12, 1),
            (Some(12), 12, 0),
        ] {
            seen.published(status(committed, position));
            assert_eq!(seen.commit_age(), second * age, "{committed:?} {position}");
            tokio::time::advance(second).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn under_an_absent_consumer_the_commit_age_begins_anew_with_what_is_confirmed_of_the_others() {
        let second = Duration::from_secs(1);
        let seen = Observed::new();
        let mut confirmed = Instant::now();
        for (confirms, age) in [(false, 0), (false, 1), (true, 0), (true, 0), (false, 1), (false, 2)] {
            if confirms {
                confirmed = Instant::now();
            }
            let mut status = status(Some(5), 9);
            for partition in &mut status.partitions {
                partition.confirmed = confirmed;
                partition.outstanding = 1;
                partition.absent = vec![("reward".into(), 5)];
            }
            seen.published(status);
            assert_eq!(seen.commit_age(), second * age);
            tokio::time::advance(second).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_has_not_begun_has_no_age_to_be_seen() {
        let seen = Observed::new();
        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(seen.age_of_loop(&seen.polled), None);
        seen.polled();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(seen.age_of_loop(&seen.polled), Some(Duration::from_secs(2)));
        let seen = Observed::new();
        seen.polled();
        assert!(
            seen.age_of_loop(&seen.polled).is_some(),
            "in its first millisecond as well"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_go_round_grows_old() {
        let seen = Observed::new();
        tokio::time::advance(Duration::from_secs(3)).await;
        seen.published(status(None, 0));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(seen.tick_age(), Duration::from_secs(4));
        assert_eq!(seen.poll_age(), Duration::from_secs(7));
        seen.polled();
        assert_eq!(seen.poll_age(), Duration::ZERO);
    }

    #[test]
    fn a_halted_partition_lags_from_its_committed_offset_and_grows_with_its_log() {
        let seen = Observed::new();
        let elsewhere = TopicPartition { topic: 0, partition: 1 };
        seen.published(status(Some(5), 5));
        let halted = Halted {
            committed: 10,
            unread_from: 10,
            reason: String::new(),
        };
        seen.slow().halted = BTreeMap::from([(elsewhere, halted)]);
        seen.log_ends([(elsewhere, 40)]);
        let lags = [(Consumer::Tier, HERE, 0), (Consumer::Tier, elsewhere, 30)];
        assert_eq!(seen.lags(), lags);
        // What the client remembers from before is no news.
        seen.log_ends([(elsewhere, 50)]);
        seen.log_ends([(elsewhere, 40)]);
        assert_eq!(seen.lags()[1].2, 40);
    }
}
