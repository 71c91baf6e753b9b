//! The verdict: takes what was seen, gives what speaks against the worker. `tests/chaos` holds it to refusing whatever is broken.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::books::{Activity, Balance};
use super::ledger::Breach;
use super::plan::{Kind, Part};

/// One fault as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Broken {
    pub(crate) kind: Kind,
    pub(crate) part: Part,
    /// Since the begin of the load.
    pub(crate) begun: Duration,
    pub(crate) ended: Duration,
}

/// How all faults of one kind were got over.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Recovery {
    pub(crate) kind: Kind,
    pub(crate) count: usize,
    /// From the end of the fault to the first accepted event after it.
    pub(crate) median: Duration,
    pub(crate) longest: Duration,
    /// The longest time without an accepted event from a fault's begin to the recovery from it.
    pub(crate) silence: Duration,
}

/// What was seen, written as JSON as well.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Findings {
    pub(crate) seed: u64,
    pub(crate) length: Duration,
    /// From the end of the load until everything was settled.
    pub(crate) drained: Duration,
    /// Records that were written, and that the log really has.
    pub(crate) records: u64,
    pub(crate) held: u64,
    pub(crate) books: Balance,
    pub(crate) recoveries: Vec<Recovery>,
    /// While there was load.
    pub(crate) stall: Duration,
    /// Effects that the sweeper settled in place of a run that was lost, or that was to wait.
    pub(crate) swept: u64,
    pub(crate) dead_letters: u64,
    pub(crate) breaches: Vec<Breach>,
    /// `reconcile`, over the same database: what it finds besides reviews of tiers, and those.
    pub(crate) reconciled: Reconciled,
    /// Workers that found no broker when they started, and were started again.
    pub(crate) restarted: u64,
    /// Workers that ended unasked or in disorder, and runs that the database refused.
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Reconciled {
    pub(crate) rows: u64,
    pub(crate) findings: u64,
    pub(crate) unbalanced: u64,
    pub(crate) reviews: u64,
    /// Findings by consumer and kind.
    pub(crate) kinds: BTreeMap<String, u64>,
    pub(crate) example: String,
}

impl Recovery {
    /// By kind, in the order of the kinds.
    pub(crate) fn all(broken: &[Broken], activity: &Activity, end: Duration) -> Vec<Self> {
        let of = |kind: Kind| {
            let faults = broken.iter().filter(|one| one.kind == kind);
            let mut times = Vec::new();
            let mut silence = Duration::ZERO;
            for fault in faults {
                // Nothing came any more: then it was never got over within the run.
                let took = activity.next_after(fault.ended);
                let took = took.unwrap_or_else(|| end.saturating_sub(fault.ended));
                silence = silence.max(activity.silence(fault.begun, fault.ended + took));
                times.push(took);
            }
            times.sort_unstable();
            Some(Self {
                kind,
                count: times.len(),
                median: *times.get(times.len() / 2)?,
                longest: *times.last()?,
                silence,
            })
        };
        Kind::ALL.into_iter().filter_map(of).collect()
    }
}

impl Findings {
    pub(crate) fn faults(&self) -> usize {
        self.recoveries.iter().map(|recovery| recovery.count).sum()
    }

    /// Everything that is not as it must be; nothing, if the worker has passed.
    pub(crate) fn problems(&self) -> Vec<String> {
        let Balance { tally, owed, lost, .. } = &self.books;
        let must = [
            (self.faults() > 0, "nothing was broken"),
            (tally.accepted > 0 && *owed > 0, "there was no load"),
            (self.records == self.held, "the log has not every record once"),
            (*lost == 0, "events are lost"),
            (tally.doubled == 0, "events are doubled"),
            (self.dead_letters == 0, "dead letters"),
            (self.breaches.is_empty(), "the books do not balance"),
            (
                self.reconciled.rows > 0 && self.reconciled.findings == 0 && self.reconciled.unbalanced == 0,
                "reconcile does not agree",
            ),
            (self.notes.is_empty(), "something ended or failed that nobody broke"),
        ];
        let broken = must.into_iter().filter(|(holds, _)| !holds);
        broken.map(|(_, problem)| problem.to_owned()).collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Balance {
            tally,
            owed,
            lost,
            superseded,
        } = &self.books;
        let seconds = |time: &Duration| format!("{:.1} s", time.as_secs_f64());
        writeln!(
            f,
            "{:<24} {:>5}  {:>10}  {:>10}  {:>10}",
            "fault", "count", "recovery", "longest", "silence"
        )?;
        for one in &self.recoveries {
            let (median, longest, silence) = (seconds(&one.median), seconds(&one.longest), seconds(&one.silence));
            let name = one.kind.name();
            writeln!(
                f,
                "{name:<24} {:>5}  {median:>10}  {longest:>10}  {silence:>10}",
                one.count
            )?;
        }
        writeln!(f)?;
        writeln!(f, "seed           {}", self.seed)?;
        writeln!(f, "faults         {}", self.faults())?;
        writeln!(
            f,
            "records        {} in {}, drained {} later",
            self.records,
            seconds(&self.length),
            seconds(&self.drained)
        )?;
        writeln!(
            f,
            "events         {} accepted; {owed} owed, {superseded} of them superseded by a newer state",
            tally.accepted
        )?;
        writeln!(f, "resent         {}", tally.resent)?;
        writeln!(f, "lost           {lost}")?;
        writeln!(f, "doubled        {}", tally.doubled)?;
        writeln!(f, "healed         {}", tally.healed)?;
        writeln!(f, "dead letters   {}", self.dead_letters)?;
        writeln!(f, "longest stall  {}", seconds(&self.stall))?;
        writeln!(f, "swept          {}", self.swept)?;
        writeln!(f, "no broker      {} starts ended, and were made again", self.restarted)?;
        let Reconciled {
            rows,
            findings,
            unbalanced,
            reviews,
            kinds,
            example,
        } = &self.reconciled;
        writeln!(
            f,
            "reconcile      {rows} rows, {findings} findings, {unbalanced} unbalanced; {reviews} tiers to be reviewed"
        )?;
        for (kind, count) in kinds {
            writeln!(f, "  {count} {kind}")?;
        }
        if !example.is_empty() {
            writeln!(f, "  {example}")?;
        }
        writeln!(f, "books          {} rules broken", self.breaches.len())?;
        for breach in &self.breaches {
            writeln!(
                f,
                "  {}: {} cases, such as {}",
                breach.rule, breach.cases, breach.example
            )?;
        }
        for example in &tally.examples {
            writeln!(f, "  {example}")?;
        }
        for note in self.notes.iter().take(20) {
            writeln!(f, "  {note}")?;
        }
        Ok(())
    }
}
