//! Beside the pipeline of `run`: looks at everything around the worker as `check` does, again and again, and keeps what it
//! came to for metrics and whoever asks. It decides nothing: a worker whose connector is away goes on with what is there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::run::DRAIN_DEADLINE;
use crate::clock::SharedClock;
use crate::config::{Checking, Watched};
use crate::doctor::catalogue::Area;
use crate::doctor::{Finding, Purpose, Question, Report, Severity, examine};
use crate::telemetry::Telemetry;

/// By then the group has its members, mostly: a look before would find it empty.
const FIRST: Duration = Duration::from_secs(10);

/// What is looked at: all that settings lead to. An event is never sent, and Inngest is asked by every delivery.
pub(super) fn question(settings: Checking, source: Watched) -> Question {
    let mut areas = vec![Area::Kafka, Area::Group];
    if source.platform.is_ok() {
        areas.push(Area::Connector);
    }
    if settings.database.is_some() {
        areas.push(Area::Postgres);
    }
    if !settings.is_shadow {
        areas.push(Area::Redis);
    }
    Question {
        settings,
        // It was read before anything began.
        program: None,
        platform: source.platform,
        connector: source.connector,
        accepted: source.accepted,
        areas: areas.into_iter().collect(),
        purpose: Purpose::Health,
        sends_test_event: false,
        tries_rights: false,
        drain: DRAIN_DEADLINE,
    }
}

/// Looks until it is dropped.
pub(super) async fn look(question: Question, every: Duration, clock: SharedClock, telemetry: Arc<Telemetry>) {
    let mut turns = interval_at(Instant::now() + FIRST.min(every), every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = BTreeSet::new();
    loop {
        turns.tick().await;
        let report = examine(&question, &clock).await;
        tell(&report, &mut failing);
        telemetry.looked(clock.now_ms(), Arc::new(report));
    }
}

/// Logs what has begun to fail, and what has ended.
fn tell(report: &Report, failing: &mut BTreeSet<&'static str>) {
    let failed = |finding: &&Finding| finding.severity == Severity::Failed;
    let mut now = BTreeSet::new();
    for finding in report.findings.iter().filter(failed) {
        let (id, what, see) = (finding.id.name(), &finding.what, finding.id.runbook());
        // Of several the first is told.
        if now.insert(id) && !failing.contains(id) {
            tracing::warn!(finding = id, what, see, "a look around found something");
        }
    }
    for id in failing.difference(&now) {
        tracing::info!(finding = id, "a look around does not find it any more");
    }
    *failing = now;
}
