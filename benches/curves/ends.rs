//! How long a worker takes from its start to its first event, with a log that waits, and from SIGTERM under load to its end.
//! A second one does what the first left: nothing is lost, and nothing comes twice.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use crm_event_processors::clock::{Clock as _, SystemClock};
use jiff::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::cases::{FIVE, LANES, TWELVE, readers};
use super::tally::Taking;
use super::{Ground, next_group};
use crate::rig::process::Process;
use crate::rig::records::owed;
use crate::rig::workers::Real;
use crate::rig::{PATIENCE, folder};

/// One round, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// Until the broker knows that it wants to join.
    pub(crate) asked: f64,
    /// From there until it has its partitions.
    pub(crate) joined: f64,
    /// From there until its first event is accepted.
    pub(crate) first: f64,
    pub(crate) drained: f64,
}

impl Ends {
    pub(crate) const fn started(&self) -> f64 {
        self.asked + self.joined + self.first
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub(crate) fn measure(ground: &mut Ground) -> anyhow::Result<Ends> {
    ground.redis.empty()?;
    let expected = u64::from(TWELVE.log.records) * readers(FIVE);
    // It is in the middle of its work at a fifth.
    let taking = Taking::start(&ground.runtime, vec![1, expected / 5, expected])?;
    let group = next_group(&mut ground.groups);
    let bootstrap = ground.broker()?.bootstrap();
    let asking: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("group.id", "asking")
        .create()?;
    let surroundings = ground.surroundings(bootstrap, taking.url(), TWELVE.log.prefix, group.clone());
    let real = Real {
        consumers: FIVE,
        lanes: LANES,
        window_secs: 300,
        push: None,
    };
    let mut command = real.command(&surroundings)?;
    command.args(["--rust-log", "info", "--log-format", "json"]);
    know_groups(&asking)?;
    let (begun, wall) = (Instant::now(), SystemClock.now());
    let mut worker = Process::start("ends", command)?;
    let asked = loop {
        let asked = begun.elapsed();
        match is_known(&asking, &group) {
            Ok(true) => break asked,
            other => ensure!(asked < PATIENCE, "nobody joins: {other:?}"),
        }
        worker.line_within(LOOK_AGAIN)?;
    };
    let first = taking.notice(&worker)?.duration_since(begun);
    taking.notice(&worker)?;
    let told = Instant::now();
    worker.terminate()?;
    worker.ended()?;
    let drained = told.elapsed();
    let assigned = Duration::try_from(assigned()?.duration_since(wall)).context("assigned before it began")?;

    let mut second = real.start("worker", &surroundings)?;
    taking.notice(&second)?;
    second.stop()?;
    taking.end(&ground.runtime, &owed(FIVE, TWELVE.log.records))?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    // Asked less often than it joins: it may have its partitions before the answer is here.
    let asked = asked.min(assigned);
    Ok(Ends {
        asked: ms(asked),
        joined: ms(assigned.saturating_sub(asked)),
        first: ms(first.saturating_sub(assigned)),
        drained: ms(drained),
    })
}

/// Until the broker has made the topic in which it keeps what it knows of groups: in production it is there.
fn know_groups(asking: &BaseConsumer) -> anyhow::Result<()> {
    let mut place = TopicPartitionList::new();
    place.add_partition(&TWELVE.log.purchases(), 0);
    let begun = Instant::now();
    while let Err(error) = asking.committed_offsets(place.clone(), PATIENCE) {
        ensure!(begun.elapsed() < PATIENCE, "the broker knows no groups: {error}");
        std::thread::park_timeout(LOOK_AGAIN);
    }
    Ok(())
}

/// Whether the broker has a member in this group, or one that joins.
fn is_known(asking: &BaseConsumer, group: &str) -> KafkaResult<bool> {
    let list = asking.fetch_group_list(Some(group), PATIENCE)?;
    Ok(list
        .groups()
        .iter()
        .any(|found| !matches!(found.state(), "Dead" | "Empty" | "")))
}

/// When the worker says that it had its partitions.
fn assigned() -> anyhow::Result<Timestamp> {
    let log = std::fs::read_to_string(folder().join("ends.log"))?;
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut assigned = lines.filter(|line| line["message"] == "partitions assigned");
    let line = assigned.next().context("the worker says nothing of partitions")?;
    let time = line["timestamp"].as_str().context("a line without a time")?;
    Ok(time.parse()?)
}
