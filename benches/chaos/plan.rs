//! The plan: takes a seed and a length, gives what breaks when, and for how long.
//!
//! Faults of different parts overlap; those of one part never do. The same seed gives the same plan. It breaks nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// kill -9 of a worker.
    Kill,
    /// SIGSTOP of a worker for longer than its session, then SIGCONT.
    Stop,
    /// SIGTERM of one worker, then of the other, as at a deploy.
    Rolling,
    /// kill -9 of the broker.
    Broker,
    /// kill -9 of Redis, which forgets everything.
    Redis,
    /// FLUSHALL: it forgets everything and stays.
    Flush,
    /// 429.
    Limited,
    /// 500.
    Failing,
    /// Requests that are never answered.
    Hanging,
    /// Accepted, and the connection closed without an answer; or answered with too few ids.
    LostAnswer,
    /// An orderly restart or a crash of PostgreSQL.
    Postgres,
}

/// What it goes wrong with. Each has one fault at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    First,
    Second,
    Broker,
    Redis,
    Receiver,
    Postgres,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    /// For a rolling restart the worker that goes first.
    pub(crate) part: Part,
    /// How long the part is away; requests, for what the receiver does to requests.
    pub(crate) lasts: Duration,
    pub(crate) requests: usize,
    /// Every second restart is a crash, every second lost answer one with too few ids.
    pub(crate) hard: bool,
}

/// Nothing breaks before the load is there.
const FIRST: Duration = Duration::from_secs(3);
/// Between one fault and the next: at least, and at most.
const GAP_MS: std::ops::Range<u64> = 1_500..5_500;
/// A part rests for so long after a fault, beyond the time that it takes to come back.
const REST: Duration = Duration::from_secs(2);

impl Kind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Kill,
        Self::Stop,
        Self::Rolling,
        Self::Broker,
        Self::Redis,
        Self::Flush,
        Self::Limited,
        Self::Failing,
        Self::Hanging,
        Self::LostAnswer,
        Self::Postgres,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of a worker",
            Self::Stop => "SIGSTOP of a worker",
            Self::Rolling => "rolling restart",
            Self::Broker => "broker killed",
            Self::Redis => "Redis killed",
            Self::Flush => "FLUSHALL",
            Self::Limited => "receiver 429",
            Self::Failing => "receiver 500",
            Self::Hanging => "receiver hangs",
            Self::LostAnswer => "receiver's answer lost",
            Self::Postgres => "PostgreSQL restarted",
        }
    }

    /// How often it comes, against the others. What stops everything for seconds is rarer.
    const fn weight(self) -> u32 {
        match self {
            Self::Kill | Self::LostAnswer => 6,
            Self::Flush | Self::Redis | Self::Limited | Self::Failing => 5,
            Self::Stop | Self::Rolling | Self::Postgres | Self::Hanging => 3,
            Self::Broker => 2,
        }
    }

    const fn parts(self) -> &'static [Part] {
        match self {
            Self::Kill | Self::Stop | Self::Rolling => &[Part::First, Part::Second],
            Self::Broker => &[Part::Broker],
            Self::Redis | Self::Flush => &[Part::Redis],
            Self::Limited | Self::Failing | Self::Hanging | Self::LostAnswer => &[Part::Receiver],
            Self::Postgres => &[Part::Postgres],
        }
    }

    /// How long the part is away, in ms.
    const fn lasts_ms(self) -> std::ops::Range<u64> {
        match self {
            Self::Kill | Self::Broker | Self::Postgres => 300..2_500,
            // Sessions last 6 s.
            Self::Stop => 7_000..11_000,
            Self::Redis => 200..1_500,
            Self::Rolling | Self::Flush | Self::Limited | Self::Failing | Self::Hanging | Self::LostAnswer => 0..1,
        }
    }

    /// What it takes to come back, generously.
    const fn comes_back(self) -> Duration {
        Duration::from_secs(match self {
            Self::Broker => 10,
            Self::Rolling => 8,
            Self::Kill | Self::Stop | Self::Postgres | Self::Hanging => 3,
            Self::Redis | Self::Flush | Self::Limited | Self::Failing | Self::LostAnswer => 1,
        })
    }
}

/// Every kind once, in an order of the seed's own, then what the weights say.
pub(crate) fn plan(seed: u64, length: Duration) -> Vec<Fault> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut every = Kind::ALL;
    dice.shuffle(&mut every);
    let mut owed: Vec<Kind> = every.into();
    let mut busy_until: BTreeMap<Part, Duration> = BTreeMap::new();
    let mut faults = Vec::new();
    let mut at = FIRST;
    while at < length {
        let free = |part: &Part| busy_until.get(part).is_none_or(|until| *until <= at);
        // Both workers have to be free for a rolling restart.
        let possible = |kind: Kind| match kind {
            Kind::Rolling => kind.parts().iter().all(free),
            _ => kind.parts().iter().any(free),
        };
        let kind = owed
            .iter()
            .rposition(|kind| possible(*kind))
            .map(|place| owed.remove(place));
        let kind = kind.or_else(|| weighed(&mut dice, possible));
        if let Some(kind) = kind {
            let parts: Vec<Part> = kind.parts().iter().copied().filter(free).collect();
            let part = dice.choice(&parts).copied().unwrap_or(Part::Receiver);
            let lasts = Duration::from_millis(dice.u64(kind.lasts_ms()));
            let fault = Fault {
                at,
                kind,
                part,
                lasts,
                requests: dice.usize(2..12),
                hard: dice.bool(),
            };
            let until = at + lasts + kind.comes_back() + REST;
            let taken = if kind == Kind::Rolling { parts } else { vec![part] };
            busy_until.extend(taken.into_iter().map(|part| (part, until)));
            faults.push(fault);
        }
        at += Duration::from_millis(dice.u64(GAP_MS));
    }
    faults
}

fn weighed(dice: &mut fastrand::Rng, possible: impl Fn(Kind) -> bool) -> Option<Kind> {
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| possible(*kind)).collect();
    let all: u32 = kinds.iter().map(|kind| kind.weight()).sum();
    let mut drawn = dice.u32(..all.max(1));
    kinds.into_iter().find(|kind| {
        let found = drawn < kind.weight();
        drawn = drawn.saturating_sub(kind.weight());
        found
    })
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "worker-a",
            Self::Second => "worker-b",
            Self::Broker => "broker",
            Self::Redis => "redis",
            Self::Receiver => "receiver",
            Self::Postgres => "postgres",
        })
    }
}
