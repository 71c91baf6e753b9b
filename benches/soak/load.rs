//! The load: a thread that writes records at a pace, with bursts, and never too far ahead of the group.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use crm_event_processors::kafka::embedded::{EmbeddedKafka, Feed};

use crate::rig::PATIENCE;
use crate::rig::records::{Log, Writer};

/// How often the thread writes what is due.
const PACE: Duration = Duration::from_millis(20);
/// How often the group's position is looked up.
const LOOK: Duration = Duration::from_millis(200);
/// In every so many seconds the last ones bring several times as much.
const BURST_EVERY_SECS: u64 = 30;
const BURST_SECS: u64 = 5;
const BURST_TIMES: f64 = 3.0;

/// The running thread. Dropping `stop` ends the load; then the thread waits until the group has committed everything.
pub(crate) struct Load {
    stop: Sender<()>,
    thread: JoinHandle<anyhow::Result<u32>>,
}

impl Load {
    pub(crate) fn start(kafka: &EmbeddedKafka, log: Log, group: &str, rate: f64) -> anyhow::Result<Self> {
        let feed = Feed::new(&kafka.connection(), group, &log.topics())?;
        let (stop, orders) = channel();
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || write(feed, log, rate, &orders))?;
        Ok(Self { stop, thread })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the load; gives how many records were written, once the group has committed all of them.
    pub(crate) fn end(self) -> anyhow::Result<u32> {
        drop(self.stop);
        self.thread
            .join()
            .map_err(|_panic| anyhow!("the load ended in a panic"))?
    }
}

fn write(mut feed: Feed, log: Log, rate: f64, orders: &Receiver<()>) -> anyhow::Result<u32> {
    let mut writer = Writer::new(log.wrapped)?;
    let (begun, mut looked, mut paced) = (Instant::now(), Instant::now(), Instant::now());
    let (mut row, mut due) = (0_u32, 0.0);
    while orders.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
        let bursting = begun.elapsed().as_secs() % BURST_EVERY_SECS >= BURST_EVERY_SECS - BURST_SECS;
        due += rate * paced.elapsed().as_secs_f64() * if bursting { BURST_TIMES } else { 1.0 };
        paced = Instant::now();
        while due >= 1.0 {
            let partition = log.partition_of(row);
            let (key, value) = writer.write(row)?;
            if !feed.has_room(0, partition, key.len() + value.len()) {
                // The group is behind: what is due is not made up for, it would only pile up.
                due = 0.0;
                break;
            }
            feed.send(0, partition, key.as_bytes(), Some(value.as_bytes()))?;
            row += 1;
            due -= 1.0;
        }
        if looked.elapsed() >= LOOK {
            feed.refresh()?;
            looked = Instant::now();
        }
    }
    let ended = Instant::now();
    loop {
        feed.refresh()?;
        if feed.committed() == feed.produced() {
            return Ok(row);
        }
        let behind = feed.produced() - feed.committed();
        ensure!(ended.elapsed() < PATIENCE, "{behind} records are not committed");
        std::thread::park_timeout(LOOK);
    }
}
