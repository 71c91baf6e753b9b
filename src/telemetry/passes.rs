//! What the reconciler tells, as metrics.
//!
//! Takes how its passes end and what they find, gives numbers to whoever reads the instruments. What is found is known to
//! the process that has the lease, from its first pass on: all others have no series, because a 0 would say that all is well.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};

use super::names;
use super::observed::consumer_label;
use crate::consumers::Consumer;
use crate::reconcile::{Ended, Kind};

type Findings = [(&'static str, u64); Kind::ALL.len()];

pub(super) struct Passes {
    ended: Counter<u64>,
    rows: Counter<u64>,
    heals: Counter<u64>,
    known: Arc<Known>,
}

#[derive(Default)]
struct Known(Mutex<Last>);

/// Of the passes of this process.
#[derive(Debug, Default)]
struct Last {
    findings: Option<Findings>,
    overdue: Option<i64>,
}

impl Known {
    fn get(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passes {
    pub(super) fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, text: &'static str| meter.u64_counter(name).with_description(text).build();
        let known = Arc::default();
        observe(meter, &known);
        let passes = Self {
            ended: counter(names::RECONCILER_PASSES, "Passes of the reconciler, by how they ended."),
            rows: counter(names::RECONCILER_ROWS, "Rows of the ledgers that were decided again."),
            heals: counter(names::RECONCILER_HEALS, "Events sent once more, by consumer."),
            known,
        };
        for ended in Ended::LABELS {
            passes.ended.add(0, &[KeyValue::new("result", ended)]);
        }
        passes.looked_at(0);
        for consumer in Consumer::ALL {
            passes.healed(consumer, 0);
        }
        passes
    }

    pub(super) fn ended(&self, ended: &'static str) {
        self.ended.add(1, &[KeyValue::new("result", ended)]);
    }

    pub(super) fn looked_at(&self, rows: usize) {
        self.rows.add(rows as u64, &[]);
    }

    pub(super) fn healed(&self, consumer: Consumer, events: usize) {
        self.heals.add(events as u64, &[consumer_label(Some(consumer))]);
    }

    /// One that did not see everything says nothing about what it did not see: what was found before stands.
    pub(super) fn found(&self, findings: Findings, is_whole: bool) {
        let mut last = self.known.get();
        let mut known = findings;
        if let Some(before) = last.findings.filter(|_| !is_whole) {
            for ((_, count), (_, before)) in known.iter_mut().zip(before) {
                *count = before.max(*count);
            }
        }
        last.findings = Some(known);
    }

    pub(super) fn overdue(&self, effects: i64) {
        self.known.get().overdue = Some(effects);
    }

    /// Another process has the lease, and tells.
    pub(super) fn are_of_another(&self) {
        *self.known.get() = Last::default();
    }
}

fn observe(meter: &Meter, known: &Arc<Known>) {
    let (found, late) = (Arc::clone(known), Arc::clone(known));
    let gauge = meter.u64_observable_gauge(names::RECONCILER_FINDINGS);
    gauge
        .with_description("What the last pass found that a person must look at, by kind.")
        .with_callback(move |gauge| {
            for (kind, findings) in found.get().findings.iter().flatten() {
                gauge.observe(*findings, &[KeyValue::new("kind", *kind)]);
            }
        })
        .build();
    let gauge = meter.i64_observable_gauge(names::EFFECTS_OVERDUE);
    gauge
        .with_description("Effects that are due for longer than a quarter of an hour.")
        .with_callback(move |gauge| {
            if let Some(effects) = late.get().overdue {
                gauge.observe(effects, &[]);
            }
        })
        .build();
}

#[cfg(test)]
mod tests {
    use crate::reconcile::Kind;
    use crate::telemetry::Telemetry;

    /// The gauges of the reconciler that are not 0, and whether there are any.
    fn known(telemetry: &Telemetry) -> (bool, Vec<String>) {
        let text = telemetry.scrape().expect("text");
        let ours = |line: &&str| line.starts_with("crm_reconciler_findings") || line.starts_with("crm_effects_overdue");
        let lines: Vec<&str> = text.lines().filter(ours).collect();
        let told = lines.iter().filter(|line| !line.ends_with(" 0"));
        (!lines.is_empty(), told.map(|line| (*line).to_owned()).collect())
    }

    fn findings(exhausted: u64, row_gone: u64) -> [(&'static str, u64); Kind::ALL.len()] {
        Kind::ALL.map(|kind| match kind {
            Kind::Exhausted => (kind.name(), exhausted),
            Kind::RowGone => (kind.name(), row_gone),
            Kind::Rejected | Kind::Unreadable => (kind.name(), 0),
        })
    }

    #[test]
    fn what_is_found_is_known_to_who_has_the_lease_and_stands_until_a_whole_pass_does_not_find_it() {
        let telemetry = Telemetry::new().expect("instruments");
        assert_eq!(known(&telemetry), (false, vec![]), "before the first pass nobody knows");
        let exhausted = r#"crm_reconciler_findings{kind="exhausted"} 2"#.to_owned();
        let gone = r#"crm_reconciler_findings{kind="row_gone"} 1"#.to_owned();
        let overdue = "crm_effects_overdue 7".to_owned();
        telemetry.overdue(7);
        telemetry.found(findings(2, 0), true);
        assert_eq!(known(&telemetry).1, [overdue.clone(), exhausted.clone()]);
        // It ended early.
        telemetry.found(findings(0, 1), false);
        assert_eq!(known(&telemetry).1, [overdue, exhausted, gone.clone()]);
        telemetry.overdue(0);
        telemetry.found(findings(0, 1), true);
        assert_eq!(known(&telemetry).1, [gone]);
        telemetry.passes_are_of_another();
        assert_eq!(known(&telemetry), (false, vec![]));
    }
}
