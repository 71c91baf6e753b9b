//! The cases: what runs, on which log, against which receiver.

use std::time::Duration;

use crm_event_processors::consumers::Consumer;

use crate::rig::peers::Peer;
use crate::rig::records::{Log, owed};

/// Lanes of each consumer.
pub(crate) const LANES: u32 = 8;

const LARGE: Log = log("large", 60, 240_000, false);
const MEDIUM: Log = log("medium", 60, 120_000, false);
/// Long enough for its code to be compiled; 8 partitions, because the mock holds less than 5 MiB of each.
const OLD: Log = log("old", 8, 30_000, false);
const OLD_SLOW: Log = log("oldslow", 4, 2_000, false);
const WRAPPED: Log = log("wrapped", 120, 108_000, true);

/// All logs, as they are written before the first round.
pub(crate) const LOGS: [Log; 5] = [LARGE, MEDIUM, OLD, OLD_SLOW, WRAPPED];

const fn log(prefix: &'static str, partitions: i32, records: u32, wrapped: bool) -> Log {
    Log {
        prefix,
        partitions,
        records,
        wrapped,
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worker {
    /// The bare client reads the log so often.
    Consume {
        passes: u32,
    },
    /// The same, with our decoder.
    Decode {
        passes: u32,
    },
    /// Our pipeline, dedupe in memory.
    Memory,
    /// The real binary with these consumers.
    Real {
        consumers: &'static str,
    },
    /// The same, which pushes its metrics every second, and traces of this part of its batches.
    Told {
        consumers: &'static str,
        ratio: &'static str,
    },
    Peer(Peer),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) worker: Worker,
    pub(crate) log: Log,
    pub(crate) latency: Duration,
}

const AT_ONCE: Duration = Duration::ZERO;
const NEAR: Duration = Duration::from_millis(20);
/// Long enough to rule: no lane is ever short of records.
pub(crate) const FAR: Duration = Duration::from_millis(200);

const ONE: &str = "currency";
const THREE: &str = "currency,tier,mission";

/// Also what allocations are counted on.
pub(crate) const MEMORY: Case = case("memory", "pipeline, dedupe in memory", Worker::Memory, LARGE, AT_ONCE);

pub(crate) const CASES: [Case; 17] = [
    case("consume", "bare consume", Worker::Consume { passes: 4 }, LARGE, AT_ONCE),
    case(
        "decode",
        "consume, decode, route",
        Worker::Decode { passes: 4 },
        LARGE,
        AT_ONCE,
    ),
    case(
        "decode-wrapped",
        "the same, {schema,payload}",
        Worker::Decode { passes: 6 },
        WRAPPED,
        AT_ONCE,
    ),
    MEMORY,
    case("one", "worker, one consumer", real(ONE), LARGE, AT_ONCE),
    case(
        "one-told",
        "worker, metrics and 1 % of traces pushed",
        told(ONE, "0.01"),
        LARGE,
        AT_ONCE,
    ),
    case(
        "one-traced",
        "worker, all traces pushed",
        told(ONE, "1"),
        LARGE,
        AT_ONCE,
    ),
    case("three", "worker, three consumers", real(THREE), MEDIUM, AT_ONCE),
    case("one-20ms", "worker, one consumer, 20 ms", real(ONE), LARGE, NEAR),
    case("one-200ms", "worker, one consumer, 200 ms", real(ONE), MEDIUM, FAR),
    case("one-wrapped", "worker, {schema,payload}", real(ONE), WRAPPED, AT_ONCE),
    case("bento", "Bento", Worker::Peer(Peer::Bento), MEDIUM, AT_ONCE),
    case("bento-20ms", "Bento, 20 ms", Worker::Peer(Peer::Bento), MEDIUM, NEAR),
    case(
        "tuned",
        "tuned KafkaJS",
        Worker::Peer(Peer::TunedKafkaJs),
        MEDIUM,
        AT_ONCE,
    ),
    case(
        "tuned-20ms",
        "tuned KafkaJS, 20 ms",
        Worker::Peer(Peer::TunedKafkaJs),
        MEDIUM,
        NEAR,
    ),
    case("old", "old worker", Worker::Peer(Peer::OldWorker), OLD, AT_ONCE),
    case(
        "old-20ms",
        "old worker, 20 ms",
        Worker::Peer(Peer::OldWorker),
        OLD_SLOW,
        NEAR,
    ),
];

const fn real(consumers: &'static str) -> Worker {
    Worker::Real { consumers }
}

const fn told(consumers: &'static str, ratio: &'static str) -> Worker {
    Worker::Told { consumers, ratio }
}

const fn case(name: &'static str, what: &'static str, worker: Worker, log: Log, latency: Duration) -> Case {
    Case {
        name,
        what,
        worker,
        log,
        latency,
    }
}

impl Case {
    /// The ids of all events that its records lead to.
    pub(crate) fn owed(&self) -> Vec<String> {
        let rows = self.log.records;
        match self.worker {
            Worker::Real { consumers } | Worker::Told { consumers, .. } => owed(consumers, rows),
            Worker::Memory => owed(Consumer::Currency.name(), rows),
            Worker::Peer(_) => (0..rows).map(Peer::event_id).collect(),
            Worker::Consume { .. } | Worker::Decode { .. } => Vec::new(),
        }
    }
}
