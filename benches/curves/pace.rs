//! Writes rows when they are due, whatever becomes of those before: a worker that is slow makes nobody wait.
//!
//! What is due is counted from the begin of a load, so that a row that is written late is late in the figures as well.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver as Notices;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use rdkafka::producer::{BaseRecord, ThreadedProducer};

use super::stamps::Stamps;
use crate::rig::brokers::{Reports, producer};
use crate::rig::process::Process;
use crate::rig::records::{Log, Shape, Writer};

/// How long the writer rests, unless something is due.
const REST: Duration = Duration::from_micros(500);
/// How far it runs ahead where nothing but the worker shall be the limit: more than a worker holds.
const AHEAD: f64 = 40_000.0;
/// A lone record comes into silence, at no certain time.
const SILENCE_MS: std::ops::Range<u64> = 5..30;

pub(crate) struct Pace {
    producer: ThreadedProducer<Reports>,
    failed: Arc<AtomicU64>,
    writer: Writer,
    log: Log,
    topic: String,
    /// The next one.
    pub(crate) row: u32,
    /// Where the rows of this moment go: partitions take turns, as with a producer that fills one batch before it begins the
    /// next. One request a partition and moment would be most of what the machine does.
    turn: i32,
}

/// What a load was.
pub(crate) struct Loaded {
    pub(crate) rows: Range<u32>,
    /// How late each was written, in microseconds, sorted: part of what its events took.
    pub(crate) late_us: Vec<u32>,
}

impl Pace {
    pub(crate) fn new(bootstrap: &str, log: Log, shape: Shape) -> anyhow::Result<Self> {
        let (producer, failed) = producer(bootstrap, "0")?;
        Ok(Self {
            producer,
            failed,
            writer: Writer::shaped(log.wrapped, shape)?,
            topic: log.purchases(),
            log,
            row: 0,
            turn: 0,
        })
    }

    pub(crate) const fn prefix(&self) -> &'static str {
        self.log.prefix
    }

    fn write(&mut self, stamps: &Stamps, due: Duration) -> anyhow::Result<()> {
        stamps.is_due(self.row, due)?;
        let (key, value) = self.writer.write(self.row)?;
        let record = BaseRecord::to(&self.topic).partition(self.turn).key(key).payload(value);
        let sent = self.producer.send(record);
        sent.map_err(|(error, _record)| anyhow!("the broker does not take records: {error}"))?;
        self.row += 1;
        Ok(())
    }

    /// The moment is over.
    fn rest(&mut self) -> anyhow::Result<()> {
        self.turn = (self.turn + 1) % self.log.partitions;
        let failed = self.failed.load(Ordering::Acquire);
        ensure!(failed == 0, "{failed} records were not taken");
        std::thread::park_timeout(REST);
        Ok(())
    }

    /// One row after the other, each when the one before was accepted and some silence is over.
    pub(crate) fn lone(
        &mut self,
        stamps: &Stamps,
        notices: &Notices<()>,
        worker: &Process,
        count: u32,
    ) -> anyhow::Result<Range<u32>> {
        let first = self.row;
        for _ in 0..count {
            let silence = Duration::from_millis(fastrand::u64(SILENCE_MS));
            let ends = stamps.now() + silence;
            while stamps.now() < ends {
                std::thread::park_timeout(ends.saturating_sub(stamps.now()));
            }
            self.write(stamps, stamps.now())?;
            self.turn = (self.turn + 1) % self.log.partitions;
            stamps.wait(notices, self.row, worker)?;
        }
        Ok(first..self.row)
    }

    /// As many rows as the worker takes; gives how many that are in a second, without the first one.
    pub(crate) fn as_many_as_it_takes(&mut self, stamps: &Stamps, length: Duration) -> anyhow::Result<f64> {
        let (begun, first) = (stamps.now(), f64::from(self.row));
        let before = stamps.accepted_rows();
        let warm = Duration::from_secs(1);
        let mut mark = None;
        loop {
            let now = stamps.now().saturating_sub(begun);
            let accepted = stamps.accepted_rows() - before;
            if now >= warm {
                let (since, from) = *mark.get_or_insert((now, accepted));
                if now >= warm + length {
                    return Ok((accepted - from) / now.saturating_sub(since).as_secs_f64());
                }
            }
            // What one rest leaves room for, or the partitions would take turns too seldom.
            for _ in 0..256 {
                if f64::from(self.row) - first - accepted >= AHEAD {
                    break;
                }
                self.write(stamps, stamps.now())?;
            }
            self.turn = (self.turn + 1) % self.log.partitions;
            if f64::from(self.row) - first - accepted >= AHEAD {
                self.rest()?;
            }
        }
    }

    /// So many rows a second.
    pub(crate) fn steadily(&mut self, stamps: &Stamps, rate: f64, length: Duration) -> anyhow::Result<Loaded> {
        let (begun, first) = (stamps.now(), self.row);
        let count = (rate * length.as_secs_f64()) as u32;
        let mut late_us = Vec::with_capacity(count as usize);
        while self.row - first < count {
            let now = stamps.now();
            loop {
                let due = begun + Duration::from_secs_f64(f64::from(self.row - first) / rate);
                if due > now || self.row - first == count {
                    break;
                }
                late_us.push(u32::try_from(stamps.now().saturating_sub(due).as_micros())?);
                self.write(stamps, due)?;
            }
            self.rest()?;
        }
        late_us.sort_unstable();
        Ok(Loaded {
            rows: first..self.row,
            late_us,
        })
    }
}
