//! Deterministic simulation: the real pipeline and the real reconciler in a world that a seed decides.
//!
//! Takes seeds, gives violations. Kafka, Redis, Inngest with its workflows, Postgres, the application, the connector and the
//! clock are simulated; the seed picks what happens, and where every call fails, answers late, or is the last of its member.
//! The same seed tells the same story. It never looks into the pipeline: what it judges went through a port.
//!
//! `make sim ARGS="--seeds 100000 --from 1"` runs more; `make sim ARGS="--seed 4711"` tells the story of one.

mod application;
mod books;
pub(crate) mod database;
mod executor;
mod log;
mod oracle;
mod ports;
mod schedule;
mod truths;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crm_event_processors::planted::Planted;
use schedule::{FAULTS, RECORDS, Report, simulate};
use truths::Truths;

/// What a normal run covers.
const SEEDS: u64 = 10_000;
/// Every so manyth seed is run twice.
const AGAIN: u64 = 200;

/// What came of many schedules.
#[derive(Default)]
struct Summary {
    schedules: u64,
    records: u64,
    faults: u64,
    sites: BTreeMap<&'static str, u64>,
    /// The first that failed.
    failed: Option<Report>,
    unequal: Vec<u64>,
    /// The fewest records and faults of a schedule.
    fewest: Option<(usize, u64)>,
}

/// Tells which seed it was when a schedule panics.
struct Replays(u64);

impl Drop for Replays {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", how_to_replay(self.0));
        }
    }
}

fn how_to_replay(seed: u64) -> String {
    format!("replay it with: make sim ARGS=\"--seed {seed}\"")
}

/// Runs these seeds over the cores; stops at the first violation.
fn run(seeds: Range<u64>, planted: Option<Planted>) -> Summary {
    let truths = Truths::read();
    let next = AtomicU64::new(seeds.start);
    let summary = Mutex::new(Summary::default());
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                #[cfg(feature = "planted")]
                Planted::plant(planted);
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        break;
                    }
                    let _tells = Replays(seed);
                    let report = simulate(seed, &truths, false);
                    let is_equal = !seed.is_multiple_of(AGAIN) || simulate(seed, &truths, false).hash == report.hash;
                    let mut summary = summary.lock().expect("nobody panics");
                    if !is_equal {
                        summary.unequal.push(seed);
                    }
                    if summary.add(report) {
                        next.store(seeds.end, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let _used_with_the_feature = planted;
    summary.into_inner().expect("nobody panics")
}

impl Summary {
    /// True if it failed.
    fn add(&mut self, report: Report) -> bool {
        self.schedules += 1;
        self.records += u64::try_from(report.records).unwrap_or(0);
        self.faults += report.faults;
        for (site, count) in &report.sites {
            *self.sites.entry(site).or_default() += count;
        }
        let is_bad = !report.violations.is_empty();
        if !is_bad {
            let (seed, records, faults) = (report.seed, report.records, report.faults);
            assert!(
                records >= RECORDS && faults >= FAULTS,
                "seed {seed}: {records} records, {faults} faults"
            );
            let (least_records, least_faults) = self.fewest.unwrap_or((records, faults));
            self.fewest = Some((least_records.min(records), least_faults.min(faults)));
        } else if self.failed.as_ref().is_none_or(|failed| failed.seed > report.seed) {
            self.failed = Some(report);
        }
        is_bad
    }

    fn print(&self) {
        let (schedules, records, faults, sites) = (self.schedules, self.records, self.faults, self.sites.len());
        let (least_records, least_faults) = self.fewest.unwrap_or_default();
        println!(
            "{schedules} schedules, {records} records ({least_records} at least), {faults} faults ({least_faults} at least) \
             at {sites} distinct sites:"
        );
        for (site, count) in &self.sites {
            println!("  {count:>9} {site}");
        }
    }
}

fn tell(report: &Report) {
    for line in &report.story {
        println!("{line}");
    }
    let Report {
        seed,
        records,
        faults,
        hash,
        ..
    } = report;
    println!("seed {seed}: {records} records, {faults} faults, trace {hash:016x}");
    for violation in &report.violations {
        println!("VIOLATED {violation}");
    }
}

/// `--seeds N`, `--from N`, `--seed N`.
fn arguments() -> (Range<u64>, Option<u64>) {
    #[expect(clippy::disallowed_methods, reason = "`make sim` hands its arguments on")]
    let given = std::env::var("SIM").unwrap_or_default();
    let mut words = given.split_whitespace();
    let (mut seeds, mut from, mut one) = (SEEDS, 1, None);
    while let Some(word) = words.next() {
        let number = words.next().and_then(|number| number.parse().ok());
        let number: u64 = number.unwrap_or_else(|| panic!("{word} needs a number"));
        match word {
            "--seeds" => seeds = number,
            "--from" => from = number,
            "--seed" => one = Some(number),
            other => panic!("{other}: only --seeds N, --from N and --seed N are known"),
        }
    }
    (from..from.saturating_add(seeds), one)
}

#[test]
fn no_schedule_loses_or_doubles_anything() {
    let (seeds, one) = arguments();
    if let Some(seed) = one {
        let report = simulate(seed, &Truths::read(), true);
        tell(&report);
        assert!(report.violations.is_empty(), "seed {seed} is violated");
        return;
    }
    let is_full = seeds.end - seeds.start >= SEEDS;
    let summary = run(seeds, None);
    summary.print();
    if let Some(failed) = &summary.failed {
        tell(failed);
        panic!("seed {}; {}", failed.seed, how_to_replay(failed.seed));
    }
    assert!(
        summary.unequal.is_empty(),
        "two runs of one seed differ: {:?}",
        summary.unequal
    );
    if is_full {
        let missed: Vec<_> = world::all_sites()
            .filter(|site| !summary.sites.contains_key(site))
            .collect();
        assert!(missed.is_empty(), "fault sites that no schedule hit: {missed:?}");
    }
}

#[cfg(feature = "planted")]
#[test]
fn every_planted_fault_is_caught_within_five_hundred_seeds() {
    let mut missed = Vec::new();
    let from = arguments().0.start;
    for fault in Planted::ALL {
        let summary = run(from..from + 500, Some(fault));
        match &summary.failed {
            Some(failed) => {
                let what = failed.violations.first().map_or("", String::as_str);
                println!("{fault:?} is caught at seed {}: {what}", failed.seed);
            }
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
