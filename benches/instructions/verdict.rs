//! Committed counts and new ones → what has become dearer, what cheaper. Pure.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

/// By how much a stage may grow: the same code compiled at another place differs by less.
const TOLERANCE_PERCENT: u64 = 3;

/// What was counted, and where. The file in the repository is one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Architecture and the instructions it offers, by which libraries choose among their ways.
    pub(crate) machine: String,
    pub(crate) valgrind: String,
    pub(crate) compiler: String,
    /// Instructions a record, by case and stage.
    pub(crate) counts: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Verdict {
    dearer: Vec<String>,
    cheaper: Vec<String>,
    /// In one of the two alone.
    unmatched: Vec<String>,
    /// What else is not as it was.
    notes: Vec<String>,
}

/// From one to the other.
pub(crate) fn percent(before: u64, now: u64) -> f64 {
    (now as f64 / before.max(1) as f64 - 1.0) * 100.0
}

impl Verdict {
    /// Refuses to compare machines of different kinds.
    pub(crate) fn of(committed: &Counted, counted: &Counted) -> anyhow::Result<Self> {
        let (before, now) = (&committed.machine, &counted.machine);
        ensure!(
            before == now,
            "the committed counts are of {before}, this machine is {now}: they cannot be compared"
        );
        let mut verdict = Self {
            dearer: Vec::new(),
            cheaper: Vec::new(),
            unmatched: Vec::new(),
            notes: Vec::new(),
        };
        for (what, before, now) in [
            ("compiler", &committed.compiler, &counted.compiler),
            ("valgrind", &committed.valgrind, &counted.valgrind),
        ] {
            if before != now {
                verdict.notes.push(format!("{what}: {before} then, {now} now"));
            }
        }
        let (before, now) = (flat(committed), flat(counted));
        for (place, count) in &now {
            let Some(was) = before.get(place) else {
                verdict.unmatched.push(format!("{place}: not in the file"));
                continue;
            };
            let said = format!("{place}: {was} then, {count} now, {:+.1} %", percent(*was, *count));
            // In whole numbers: exactly the tolerance is within it.
            if count * 100 > was * (100 + TOLERANCE_PERCENT) {
                verdict.dearer.push(said);
            } else if count * 100 < was * (100 - TOLERANCE_PERCENT) {
                verdict.cheaper.push(said);
            }
        }
        let gone = before.keys().filter(|place| !now.contains_key(*place));
        verdict
            .unmatched
            .extend(gone.map(|place| format!("{place}: not counted any more")));
        Ok(verdict)
    }

    /// What is in one of the two alone is guarded by nothing, until it is accepted.
    pub(crate) const fn is_dearer(&self) -> bool {
        !self.dearer.is_empty() || !self.unmatched.is_empty()
    }
}

fn flat(counted: &Counted) -> BTreeMap<String, u64> {
    let cases = counted.counts.iter();
    let places = cases.flat_map(|(case, stages)| {
        let stages = stages.iter();
        stages.map(move |(stage, count)| (format!("{stage} of {case}"), *count))
    });
    places.collect()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("dearer:", &self.dearer),
            ("to be accepted:", &self.unmatched),
            ("cheaper; accept it, so that nobody loses it again:", &self.cheaper),
            ("not the same as then:", &self.notes),
        ];
        for (title, list) in lists {
            if !list.is_empty() {
                writeln!(f, "{title}\n  {}", list.join("\n  "))?;
            }
        }
        if self.is_dearer() {
            write!(
                f,
                "Look where: `callgrind_annotate --threshold=100` with the file of that record and stage in target/bench/instructions. If it is \
                 worth it, `make instructions ARGS=--accept`, and say why in the commit."
            )
        } else {
            write!(
                f,
                "no stage is more than {TOLERANCE_PERCENT} % dearer than benches/instructions.json says"
            )
        }
    }
}
