//! What the last look at the source came to, as metrics.
//!
//! Takes the report of a look, gives its numbers to whoever reads the instruments. What nobody knows has no series: a 0
//! would say that all is well, or that nothing is. It never looks itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use tokio::time::Instant;

use super::names;
use crate::config::SLOWEST_LOOK;
use crate::doctor::facts::{Facts, TASK_STATES};
use crate::doctor::{End, Report, Severity};

/// The last look, and how many there were.
pub(super) struct Looks {
    made: Counter<u64>,
    last: Arc<Last>,
}

/// As long as what was seen is said of now: three looks at their slowest.
const FRESH: Duration = SLOWEST_LOOK.saturating_mul(3);

#[derive(Default)]
struct Last(Mutex<Option<Look>>);

#[derive(Clone)]
struct Look {
    at_ms: i64,
    at: Instant,
    report: Arc<Report>,
}

impl Last {
    fn get(&self) -> MutexGuard<'_, Option<Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen, as long as it may be said of now.
    fn report(&self) -> Option<Arc<Report>> {
        let last = self.get();
        let look = last.as_ref().filter(|look| look.at.elapsed() <= FRESH)?;
        Some(Arc::clone(&look.report))
    }
}

impl Looks {
    pub(super) fn new(meter: &Meter) -> Self {
        let made = meter
            .u64_counter(names::SOURCE_LOOKS)
            .with_description("Looks at everything around the worker, by what they came to.")
            .build();
        for result in End::LABELS {
            made.add(0, &[KeyValue::new("result", result)]);
        }
        let last = Arc::default();
        observe(meter, &last);
        Self { made, last }
    }

    pub(super) fn made(&self, at_ms: i64, report: Arc<Report>) {
        self.made.add(1, &[KeyValue::new("result", report.end().label())]);
        let at = Instant::now();
        *self.last.get() = Some(Look { at_ms, at, report });
    }

    pub(super) fn last(&self) -> Option<(i64, Arc<Report>)> {
        let last = self.last.get();
        last.as_ref().map(|look| (look.at_ms, Arc::clone(&look.report)))
    }
}

fn observe(meter: &Meter, last: &Arc<Last>) {
    let fact = |name: &'static str, unit: &'static str, text: &'static str, fact: fn(&Facts) -> Option<i64>| {
        let last = Arc::clone(last);
        meter
            .i64_observable_gauge(name)
            .with_unit(unit)
            .with_description(text)
            .with_callback(move |gauge| {
                if let Some(value) = last.report().and_then(|report| fact(&report.facts)) {
                    gauge.observe(value, &[]);
                }
            })
            .build();
    };
    let text = "1 while the connector and all its tasks run, and there is one.";
    fact(names::CONNECTOR_RUNNING, "", text, |facts| {
        facts.connector.as_ref().map(|connector| i64::from(connector.runs))
    });
    let text = "1 while somebody reads from the connector's slot.";
    fact(names::SLOT_ACTIVE, "", text, |facts| facts.slot.active.map(i64::from));
    let text = "1 if the slot has lost its place, which it never finds again.";
    fact(names::SLOT_LOST, "", text, |facts| facts.slot.lost.map(i64::from));
    let text = "WAL that the slot holds back.";
    fact(names::SLOT_RETAINED, "By", text, |facts| facts.slot.retained_bytes);
    let text = "How much more may be written until the slot is lost.";
    fact(names::SLOT_SAFE, "By", text, |facts| facts.slot.safe_bytes);
    let text = "How old the connector's last beat was at the last look.";
    fact(names::HEARTBEAT_AGE, "s", text, |facts| facts.heartbeat_s);
    of_tasks(meter, Arc::clone(last));
    of_looks(meter, last);
}

fn of_tasks(meter: &Meter, last: Arc<Last>) {
    let gauge = meter.u64_observable_gauge(names::CONNECTOR_TASKS);
    gauge
        .with_description("Tasks of the connector, by their state.")
        .with_callback(move |gauge| {
            let report = last.report();
            let connector = report.as_ref().and_then(|report| report.facts.connector.as_ref());
            for (state, tasks) in connector
                .into_iter()
                .flat_map(|known| TASK_STATES.iter().zip(known.tasks))
            {
                gauge.observe(tasks, &[KeyValue::new("state", *state)]);
            }
        })
        .build();
}

fn of_looks(meter: &Meter, last: &Arc<Last>) {
    let (counted, named, aged) = (Arc::clone(last), Arc::clone(last), Arc::clone(last));
    let gauge = meter.u64_observable_gauge(names::CHECK_FINDINGS);
    gauge
        .with_description("Findings of the last look, by severity.")
        .with_callback(move |gauge| {
            for report in counted.report().iter() {
                for severity in Severity::ALL {
                    let findings = report.count(severity) as u64;
                    gauge.observe(findings, &[KeyValue::new("severity", severity.label())]);
                }
            }
        })
        .build();
    let gauge = meter.u64_observable_gauge(names::CHECK_FAILED);
    gauge
        .with_description("1 if the last look found this to have failed, 0 if it saw that it has not.")
        .with_callback(move |gauge| {
            for (finding, failed) in named.report().iter().flat_map(|report| judged(report)) {
                gauge.observe(u64::from(failed), &[KeyValue::new("finding", finding)]);
            }
        })
        .build();
    let gauge = meter.f64_observable_gauge(names::SOURCE_LOOK_AGE);
    gauge
        .with_unit("s")
        .with_description("Since the last look.")
        .with_callback(move |gauge| {
            let age = aged.get().as_ref().map(|look| look.at.elapsed());
            if let Some(age) = age.as_ref().map(Duration::as_secs_f64) {
                gauge.observe(age, &[]);
            }
        })
        .build();
}

/// What a look could judge, each with whether it has failed. An instance that could not see something has no say in it.
fn judged(report: &Report) -> BTreeMap<&'static str, bool> {
    let mut judged = BTreeMap::new();
    for finding in &report.findings {
        let failed = match finding.severity {
            Severity::Failed => true,
            Severity::Warning | Severity::Ok => false,
            Severity::NotVerifiable => continue,
        };
        *judged.entry(finding.id.name()).or_default() |= failed;
    }
    judged
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::doctor::catalogue::{Area, CONNECTOR_CONFIG, CONNECTOR_TASK_FAILED, REDIS_UNREACHABLE, SLOT_LOST};
    use crate::doctor::facts::{Connector, Slot};
    use crate::doctor::{Finding, Purpose, Verdicts};
    use crate::telemetry::Telemetry;

    fn report(findings: Vec<Finding>, facts: Facts) -> Arc<Report> {
        let areas: BTreeSet<Area> = findings.iter().map(|finding| finding.id.area()).collect();
        let mut verdicts = Verdicts::default();
        findings.into_iter().for_each(|finding| verdicts.push(finding));
        let report = Report::new(verdicts, &areas, Purpose::Health, Duration::ZERO);
        Arc::new(Report { facts, ..report })
    }

    /// The series of the source, without the counter of looks.
    fn scraped(telemetry: &Telemetry) -> Vec<String> {
        let text = telemetry.scrape().expect("text");
        let of_source = [
            "crm_connector_",
            "crm_slot_",
            "crm_heartbeat_",
            "crm_check_",
            "crm_source_look_",
        ];
        let lines = text
            .lines()
            .filter(|line| of_source.iter().any(|name| line.starts_with(name)));
        lines.map(ToOwned::to_owned).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_is_a_series_and_what_nobody_knows_is_none() {
        let telemetry = Telemetry::new().expect("instruments");
        assert_eq!(scraped(&telemetry), [""; 0]);
        assert!(telemetry.last_look().is_none());
        let facts = Facts {
            connector: Some(Connector {
                runs: false,
                tasks: [1, 2, 0, 0, 0],
            }),
            slot: Slot {
                active: Some(true),
                lost: Some(false),
                retained_bytes: Some(1000),
                safe_bytes: None,
            },
            heartbeat_s: Some(7),
        };
        let found = vec![
            Finding::failed(CONNECTOR_TASK_FAILED, "a task"),
            Finding::ok(CONNECTOR_CONFIG, "as it must be"),
            Finding::unknown(SLOT_LOST, "nobody was asked"),
        ];
        telemetry.looked(5, report(found, facts.clone()));
        tokio::time::advance(Duration::from_secs(30)).await;
        let series = scraped(&telemetry);
        for line in [
            "crm_connector_running 0",
            "crm_connector_tasks{state=\"failed\"} 2",
            "crm_connector_tasks{state=\"paused\"} 0",
            "crm_slot_active 1",
            "crm_slot_lost 0",
            "crm_slot_retained_bytes 1000",
            "crm_heartbeat_age_seconds 7",
            "crm_check_findings{severity=\"failed\"} 1",
            "crm_check_failed{finding=\"connector.task-failed\"} 1",
            "crm_check_failed{finding=\"connector.config\"} 0",
            "crm_source_look_age_seconds 30",
        ] {
            assert!(series.iter().any(|known| known == line), "{line}: {series:#?}");
        }
        let unseen = |line: &String| line.contains("safe") || line.contains("slot.lost");
        assert!(!series.iter().any(unseen), "{series:#?}");
        assert_eq!(telemetry.last_look().map(|(at_ms, _)| at_ms), Some(5));

        // Nobody looks any more: of that alone something is said.
        tokio::time::advance(FRESH).await;
        assert_eq!(scraped(&telemetry), ["crm_source_look_age_seconds 930"]);

        // Nobody answered: what was known a minute ago is not said of now.
        telemetry.looked(
            6,
            report(vec![Finding::failed(REDIS_UNREACHABLE, "away")], Facts::default()),
        );
        let series = scraped(&telemetry);
        assert!(!series.is_empty());
        let of_facts = ["crm_connector_", "crm_slot_", "crm_heartbeat_"];
        let stale = |line: &&String| of_facts.iter().any(|name| line.starts_with(name));
        assert_eq!(series.iter().find(stale), None);
        let looks = telemetry.scrape().expect("text");
        for line in [
            "crm_source_looks_total{result=\"failed\"} 1",
            "crm_source_looks_total{result=\"nobody\"} 1",
            "crm_source_looks_total{result=\"ok\"} 0",
        ] {
            assert!(looks.contains(line), "{line}: {looks}");
        }
    }
}
