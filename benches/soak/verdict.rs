//! The verdict: takes what was seen, gives what speaks against the worker. `tests/soak` holds it to refusing whatever is broken.

use std::fmt;

use anyhow::ensure;

use super::books::Balance;
use super::records::READERS;

/// What the worker may grow by from the second quarter to the last. A full prefetch or one more buffer a connection takes
/// megabytes and comes and goes; a leak of one pointer a record takes more than this in ten minutes at the default rate.
const GROWTH_KIB: u64 = 8 * 1024;
/// Connections to a receiver and to brokers come and go.
const GROWTH_FILES: u64 = 4;
/// One event in so many may come again. Every lost answer and every kill costs a request of repeats, no more.
const ONE_RESENT_IN: u64 = 100;
/// What is due while the group is behind is not written. A worker that got less than this part of it was never under load.
const HALF: u64 = 2;

/// What was seen, written as JSON as well.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Findings {
    /// Records that were written, and how many the rate would have given without bursts.
    pub(crate) records: u64,
    pub(crate) asked: u64,
    pub(crate) books: Balance,
    pub(crate) dead_letters: i64,
    pub(crate) faults: usize,
    pub(crate) second_workers: u64,
    pub(crate) resident_kib: Quarters,
    pub(crate) open_files: Quarters,
    pub(crate) peak_resident_kib: u64,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Sample {
    pub(crate) second: u64,
    pub(crate) resident_kib: u64,
    pub(crate) open_files: u64,
}

/// The medians of the second and of the last quarter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Quarters {
    pub(crate) second: u64,
    pub(crate) last: u64,
}

impl Quarters {
    pub(crate) fn of(samples: &[Sample], value: impl Fn(&Sample) -> u64) -> anyhow::Result<Self> {
        let quarter = samples.len() / 4;
        ensure!(quarter > 0, "too short to compare quarters");
        let median = |from: usize| {
            let mut values: Vec<u64> = samples.iter().skip(from).take(quarter).map(&value).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        Ok(Self {
            second: median(quarter),
            last: median(samples.len() - quarter),
        })
    }

    fn growth(self) -> u64 {
        self.last.saturating_sub(self.second)
    }
}

impl Findings {
    /// Everything that is not as it must be; nothing, if the worker has passed.
    pub(crate) fn problems(&self) -> Vec<&'static str> {
        let Balance {
            accepted,
            resent,
            doubled,
        } = self.books;
        let must = [
            (
                self.records > 0 && self.records * HALF >= self.asked,
                "less than half of the load",
            ),
            (
                accepted == self.expected(),
                "not one event for each change and consumer",
            ),
            (doubled == 0, "events under other ids than they must have"),
            (
                resent * ONE_RESENT_IN <= accepted,
                "more than one event in a hundred came again",
            ),
            (self.dead_letters == 0, "dead letters"),
            (self.resident_kib.growth() <= GROWTH_KIB, "memory grows"),
            (self.open_files.growth() <= GROWTH_FILES, "open files grow"),
        ];
        let broken = must.into_iter().filter(|(holds, _)| !holds);
        broken.map(|(_, problem)| problem).collect()
    }

    fn expected(&self) -> u64 {
        self.records * READERS.len() as u64
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            second,
            resident_kib,
            open_files,
        } = self;
        let resident = resident_kib / 1024;
        write!(f, "{second} s: {resident} MiB resident, {open_files} open files")
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resident, files) = (self.resident_kib, self.open_files);
        let missing = self.expected().saturating_sub(self.books.accepted);
        let seconds = self.samples.len();
        writeln!(
            f,
            "records        {} in {seconds} s; {} asked for",
            self.records, self.asked
        )?;
        writeln!(f, "events         {}, {missing} missing", self.books)?;
        writeln!(f, "dead letters   {}", self.dead_letters)?;
        writeln!(
            f,
            "disturbances   {} faults, {} second workers",
            self.faults, self.second_workers
        )?;
        writeln!(
            f,
            "resident       {} MiB in the second quarter, {} MiB in the last, {} MiB at most",
            resident.second / 1024,
            resident.last / 1024,
            self.peak_resident_kib / 1024
        )?;
        write!(
            f,
            "open files     {} in the second quarter, {} in the last",
            files.second, files.last
        )
    }
}
