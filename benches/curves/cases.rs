//! The cases that read a log that lies there whole: what runs, on which records, behind which brokers.

use crate::rig::records::{Log, READERS, Shape};

/// Lanes of each consumer, as in `make bench`.
pub(crate) const LANES: u32 = 8;

pub(crate) const ONE: &str = "currency";
const THREE: &str = "currency,tier,mission";
/// The other two read other tables, which are empty here.
pub(crate) const FIVE: &str = "currency,tier,mission,reward,marketplace";

/// Which brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    Mock,
    /// The mock holds too little of one partition.
    Kafka,
}

/// A log, what its records are like, and where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ledger {
    pub(crate) log: Log,
    pub(crate) shape: Shape,
    pub(crate) behind: Behind,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) consumers: &'static str,
    pub(crate) ledger: Ledger,
}

const BARE_1K: Ledger = mock("bare1k", false, 150_000, 1024);
const BARE_2K: Ledger = mock("bare2k", false, 100_000, 2048);
const BARE_4K: Ledger = mock("bare4k", false, 90_000, 4096);
const BARE_8K: Ledger = mock("bare8k", false, 50_000, 8192);
const WRAPPED_1K: Ledger = mock("wrapped1k", true, 90_000, 1024);
const WRAPPED_4K: Ledger = mock("wrapped4k", true, 60_000, 4096);

const FEW: Ledger = Ledger {
    shape: shape(1024, 8),
    ..mock("members8", false, 150_000, 1024)
};
const SOME: Ledger = Ledger {
    shape: shape(1024, 1000),
    ..mock("members1000", false, 150_000, 1024)
};

/// Also where start and end are timed.
pub(crate) const TWELVE: Ledger = kafka("partitions12", 12);

/// One, three and five consumers; bare and wrapped; 1 KB and 4 KB.
pub(crate) const THROUGHPUT: [Case; 12] = [
    case("one", ONE, BARE_1K),
    case("three", THREE, BARE_1K),
    case("five", FIVE, BARE_1K),
    case("one-4k", ONE, BARE_4K),
    case("three-4k", THREE, BARE_4K),
    case("five-4k", FIVE, BARE_4K),
    case("one-wrapped", ONE, WRAPPED_1K),
    case("three-wrapped", THREE, WRAPPED_1K),
    case("five-wrapped", FIVE, WRAPPED_1K),
    case("one-wrapped-4k", ONE, WRAPPED_4K),
    case("three-wrapped-4k", THREE, WRAPPED_4K),
    case("five-wrapped-4k", FIVE, WRAPPED_4K),
];

/// What the slopes need besides some of those above.
pub(crate) const GROWING: [Case; 8] = [
    case("one-2k", ONE, BARE_2K),
    case("one-8k", ONE, BARE_8K),
    case("members-8", THREE, FEW),
    case("members-1000", THREE, SOME),
    case("partitions-1", ONE, kafka("partitions1", 1)),
    case("partitions-6", ONE, kafka("partitions6", 6)),
    case("partitions-12", ONE, TWELVE),
    case("partitions-48", ONE, kafka("partitions48", 48)),
];

/// Of those above, what the slopes need.
pub(crate) const SHARED: [&str; 4] = ["one", "one-4k", "three", "five"];

/// What grows, in which unit, and the cases in which it does.
pub(crate) struct Growth {
    pub(crate) what: &'static str,
    pub(crate) step: &'static str,
    pub(crate) cases: &'static [&'static str],
    pub(crate) measure: fn(&Case) -> f64,
    /// Whether it is asked to be flat.
    pub(crate) shall_be_flat: bool,
}

pub(crate) const GROWTHS: [Growth; 4] = [
    Growth {
        what: "partitions, 1 to 48",
        step: "partition",
        cases: &["partitions-1", "partitions-6", "partitions-12", "partitions-48"],
        measure: |case| f64::from(case.ledger.log.partitions),
        shall_be_flat: true,
    },
    Growth {
        what: "members, 8 to 150,000 (three consumers)",
        step: "tenfold",
        cases: &["members-8", "members-1000", "three"],
        measure: |case| f64::from(case.members()).log10(),
        shall_be_flat: false,
    },
    Growth {
        what: "consumers that read the table, 1 to 3",
        step: "consumer",
        cases: &["one", "three"],
        measure: |case| case.readers() as f64,
        shall_be_flat: false,
    },
    Growth {
        what: "record size, 1 to 8 KB",
        step: "KB",
        cases: &["one", "one-2k", "one-4k", "one-8k"],
        measure: |case| case.ledger.shape.bytes as f64 / 1024.0,
        shall_be_flat: false,
    },
];

/// 120 partitions, because the mock holds less than 5 MiB of each.
const fn mock(prefix: &'static str, wrapped: bool, records: u32, bytes: usize) -> Ledger {
    let log = Log {
        prefix,
        partitions: 120,
        records,
        wrapped,
    };
    Ledger {
        log,
        shape: shape(bytes, 0),
        behind: Behind::Mock,
    }
}

const fn kafka(prefix: &'static str, partitions: i32) -> Ledger {
    let log = Log {
        prefix,
        partitions,
        records: 100_000,
        wrapped: false,
    };
    Ledger {
        log,
        shape: shape(1024, 0),
        behind: Behind::Kafka,
    }
}

const fn shape(bytes: usize, members: u32) -> Shape {
    Shape { bytes, members }
}

const fn case(name: &'static str, consumers: &'static str, ledger: Ledger) -> Case {
    Case {
        name,
        consumers,
        ledger,
    }
}

impl Case {
    /// Consumers that owe an event for each record.
    pub(crate) fn readers(&self) -> u64 {
        readers(self.consumers)
    }

    pub(crate) fn members(&self) -> u32 {
        match self.ledger.shape.members {
            0 => self.ledger.log.records,
            members => members,
        }
    }
}

/// Of these consumers, how many read purchases.
pub(crate) fn readers(consumers: &str) -> u64 {
    consumers.split(',').count().min(READERS.len()) as u64
}
