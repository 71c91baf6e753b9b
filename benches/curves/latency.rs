//! From the moment a row is to be written until its events are accepted, on a real broker: alone, and under shares of the
//! most that the worker takes while somebody writes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use crm_event_processors::clock::SystemClock;
use crm_event_processors::inngest::receiver::{Receiver, ReceiverSettings, Sink};

use super::cases::{FIVE, LANES, ONE, readers};
use super::pace::Pace;
use super::stamps::Stamps;
use super::{Ground, next_group};
use crate::rig::figures::quantile;
use crate::rig::records::{Log, Shape};
use crate::rig::workers::Real;

/// Of the maximum, in percent.
const SHARES: [u32; 3] = [10, 50, 90];
/// How many lone rows: of fewer, the 99th percentile would be a row or two.
const LONE_ROWS: u32 = 1_000;
/// The loads that something is asked of.
pub(crate) const LONE: &str = "lone";
pub(crate) const HALF: &str = "50 %";
/// The same, while Redis moves all its keys to tables twice as large.
const HALF_DOUBLING: &str = "50 %, Redis doubles";
/// What Redis holds besides ours: a little more than 2^21, so that no other load meets the doubling of its tables, which
/// comes with the next power of two.
const HELD: u32 = 2_150_000;
/// So many short of a power of two that the tables double early in a load.
const ALMOST: u32 = (1 << 20) - 20_000;
const LENGTH: Duration = Duration::from_secs(4);

/// Rows keep their numbers over the rounds, and so does the group its position.
pub(crate) struct Line {
    pub(crate) consumers: &'static str,
    pace: Pace,
    group: String,
}

/// One load of one round, in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latency {
    pub(crate) consumers: &'static str,
    pub(crate) load: String,
    /// Rows a second.
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) most: f64,
    /// How late the writer itself was, p99.
    pub(crate) late: f64,
}

const SHAPE: Shape = Shape {
    bytes: 1024,
    members: 0,
};

pub(crate) fn lines(ground: &mut Ground) -> anyhow::Result<Vec<Line>> {
    let log = |prefix| Log {
        prefix,
        partitions: 12,
        records: 0,
        wrapped: false,
    };
    let mut lines = Vec::new();
    for (consumers, log) in [(ONE, log("latencyone")), (FIVE, log("latencyfive"))] {
        let group = next_group(&mut ground.groups);
        let broker = ground.broker()?;
        broker.make_topics(&ground.runtime, &log)?;
        lines.push(Line {
            consumers,
            pace: Pace::new(&broker.bootstrap(), log, SHAPE)?,
            group,
        });
    }
    Ok(lines)
}

/// One round.
pub(crate) fn measure(ground: &mut Ground, line: &mut Line) -> anyhow::Result<Vec<Latency>> {
    ground.redis.hold_others(HELD)?;
    let Line { consumers, pace, group } = line;
    let begin = pace.row;
    let (stamps, notices) = Stamps::new(begin, readers(consumers));
    let sink: Arc<dyn Sink> = Arc::clone(&stamps) as _;
    let starting = Receiver::start(ReceiverSettings::default(), sink, Arc::new(SystemClock));
    let receiver = ground.runtime.block_on(starting)?;
    let bootstrap = ground.broker()?.bootstrap();
    let surroundings = ground.surroundings(bootstrap, receiver.base_url(), pace.prefix(), group.clone());
    let real = Real {
        consumers,
        lanes: LANES,
        window_secs: 300,
        push: None,
    };
    let mut worker = real.start("worker", &surroundings)?;
    // It joins meanwhile.
    pace.lone(&stamps, &notices, &worker, 1)?;
    let maximum = pace.as_many_as_it_takes(&stamps, LENGTH)?;
    stamps.wait(&notices, pace.row, &worker)?;

    let mut found = Vec::new();
    let of = |load: String, rate: f64, took_us: &[u32], late_us: &[u32]| {
        let ms = |sorted: &[u32], per_mille| quantile(sorted, per_mille).map_or(0.0, |us| f64::from(us) / 1e3);
        Latency {
            consumers,
            load,
            rate,
            p50: ms(took_us, 500),
            p99: ms(took_us, 990),
            most: ms(took_us, 1000),
            late: ms(late_us, 990),
        }
    };
    let rows = pace.lone(&stamps, &notices, &worker, LONE_ROWS)?;
    found.push(of(LONE.to_owned(), 0.0, &stamps.took_us(rows)?, &[]));
    let mut load = |name: String, share: u32| {
        let rate = maximum * f64::from(share) / 100.0;
        let loaded = pace.steadily(&stamps, rate, LENGTH)?;
        stamps.wait(&notices, pace.row, &worker)?;
        let took_us = stamps.took_us(loaded.rows)?;
        anyhow::Ok(of(name, rate, &took_us, &loaded.late_us))
    };
    for share in SHARES {
        found.push(load(format!("{share} %"), share)?);
    }
    // Nothing is in hand: nobody misses what is forgotten.
    ground.redis.hold_others(ALMOST)?;
    found.push(load(HALF_DOUBLING.to_owned(), 50)?);
    worker.stop()?;
    let stats = receiver.stats();
    ground.runtime.block_on(receiver.stop());
    let expected = u64::from(pace.row - begin) * readers(consumers);
    ensure!(
        stats.accepted == expected && stats.resent == 0,
        "{expected} events expected, {} accepted, {} of them again",
        stats.accepted,
        stats.resent
    );
    Ok(found)
}
