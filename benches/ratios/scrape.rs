//! How long a scrape takes, of a worker that has much to tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use crm_event_processors::consumers::Consumer;
use crm_event_processors::doctor::catalogue::{self, Area};
use crm_event_processors::doctor::{Facts, Finding, Purpose, Report, Verdicts, facts};
use crm_event_processors::inngest::Answer;
use crm_event_processors::pipeline::PartitionStatus;
use crm_event_processors::reconcile::Kind;
use crm_event_processors::record::TopicPartition;
use crm_event_processors::telemetry::{ConsumerStatus, Status, Telemetry};

const PARTITIONS: i32 = 48;
const SCRAPES: usize = 50;
/// Every statement there is, as if each consumer made all of them.
const CALLS: [&str; 7] = [
    "compare_effects",
    "knows",
    "mark_dead",
    "evaluate_tiers",
    "record_progress",
    "announced",
    "announcement_rejected",
];
/// More reasons than one consumer has letters of.
const REASONS: [&str; 5] = [
    "inngest_rejected",
    "event_too_large",
    "unknown_answer",
    "points_overflow",
    "ledger_rewritten",
];

/// Milliseconds of each of some scrapes: all consumers on 48 partitions, and of everything that is counted something.
pub(super) fn milliseconds() -> anyhow::Result<Vec<f64>> {
    let telemetry = Telemetry::new()?;
    telemetry.publish(status());
    let took = Duration::from_millis(40);
    for consumer in Consumer::ALL {
        telemetry.finished(Some(consumer), "delivered", 1);
        telemetry.accepted(consumer, took);
        for answer in answers() {
            telemetry.answered(consumer, &answer, took);
        }
        for call in CALLS {
            telemetry.called(consumer, call, "done", took);
        }
        for reason in REASONS {
            telemetry.dead_lettered(consumer.name(), reason);
        }
    }
    telemetry.polled();
    telemetry.overdue(1);
    telemetry.found(Kind::ALL.map(|kind| (kind.name(), 1)), true);
    telemetry.looked(1, Arc::new(everything_seen()));
    let mut took = Vec::new();
    for _ in 0..SCRAPES {
        let begun = Instant::now();
        let text = telemetry.scrape()?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        let lags = text
            .lines()
            .filter(|line| line.starts_with("crm_consumer_lag{"))
            .count();
        ensure!(lags == Consumer::ALL.len() * 48, "{lags} lags");
    }
    Ok(took)
}

fn answers() -> [Answer; 5] {
    let detail = String::new;
    [
        Answer::Accepted,
        Answer::Rejected {
            status: 400,
            detail: detail(),
        },
        Answer::Refused {
            status: 401,
            detail: detail(),
        },
        Answer::Unavailable {
            detail: detail(),
            retry_after: None,
        },
        Answer::Unknown {
            status: 418,
            detail: detail(),
        },
    ]
}

/// A look that could judge everything.
fn everything_seen() -> Report {
    let mut verdicts = Verdicts::default();
    for id in catalogue::ALL {
        verdicts.push(Finding::ok(*id, "as it must be"));
    }
    let facts = Facts {
        connector: Some(facts::Connector {
            runs: true,
            tasks: [1; 5],
        }),
        slot: facts::Slot {
            active: Some(true),
            lost: Some(false),
            retained_bytes: Some(1),
            safe_bytes: Some(1),
        },
        heartbeat_s: Some(1),
    };
    let report = Report::new(
        verdicts,
        &Area::ALL.into_iter().collect(),
        Purpose::Health,
        Duration::ZERO,
    );
    Report { facts, ..report }
}

fn status() -> Status {
    let partition = |partition| PartitionStatus {
        place: TopicPartition { topic: 0, partition },
        committed: Some(40),
        confirmed: tokio::time::Instant::now(),
        position: 100,
        outstanding: 60,
        paused: false,
        watermarks: Consumer::ALL.map(|consumer| (consumer, 40)).to_vec(),
        absent: Vec::new(),
    };
    let consumer = |consumer| ConsumerStatus {
        consumer,
        lanes: 8,
        standing_still: None,
        halted: None,
    };
    Status {
        ticked_ms: 1,
        topics: vec![Box::from("crm.public.purchase_ledger")].into(),
        partitions: (0..PARTITIONS).map(partition).collect(),
        consumers: Consumer::ALL.map(consumer).to_vec(),
        joined: true,
        draining: false,
    }
}
