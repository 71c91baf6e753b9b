//! What operators see and what guards the loops, on a worker with fakes: the push to a collector in this process, the
//! watchdog over a pipeline that is blocked on purpose; the console over HTTP, `status` on a terminal.

mod console;
pub(crate) mod push;
mod terminal;
mod watchdog;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::doctor::{Facts, Purpose, Report, Verdicts, facts};
use crm_event_processors::pipeline::PartitionStatus;
use crm_event_processors::record::TopicPartition;
use crm_event_processors::telemetry::{ConsumerStatus, Status, Telemetry};

/// One partition in which tier is 60 records behind mission.
pub(super) fn publish_something(telemetry: &Telemetry) {
    let marks = [(Consumer::Tier, 40), (Consumer::Mission, 100)];
    let partition = PartitionStatus {
        place: TopicPartition { topic: 0, partition: 0 },
        committed: Some(40),
        confirmed: tokio::time::Instant::now(),
        position: 100,
        outstanding: 60,
        paused: true,
        watermarks: marks.to_vec(),
        absent: Vec::new(),
    };
    let consumer = |(consumer, _)| ConsumerStatus {
        consumer,
        lanes: 1,
        standing_still: None,
        halted: None,
    };
    telemetry.publish(Status {
        ticked_ms: 1,
        topics: vec![Box::from("crm.public.purchase_ledger")].into(),
        partitions: vec![partition],
        consumers: marks.map(consumer).to_vec(),
        joined: true,
        draining: false,
    });
    telemetry.looked(1, Arc::new(a_look()));
}

/// At a source of which everything is known.
fn a_look() -> Report {
    let facts = Facts {
        connector: Some(facts::Connector {
            runs: true,
            tasks: [1, 0, 0, 0, 0],
        }),
        slot: facts::Slot {
            active: Some(true),
            lost: Some(false),
            retained_bytes: Some(1 << 20),
            safe_bytes: Some(1 << 30),
        },
        heartbeat_s: Some(3),
    };
    Report {
        facts,
        ..Report::new(Verdicts::default(), &BTreeSet::new(), Purpose::Health, Duration::ZERO)
    }
}

#[test]
fn the_first_failure_of_anything_that_is_known_is_an_increase() {
    let telemetry = Telemetry::new().expect("instruments");
    let before = telemetry.scrape().expect("text");
    for line in [
        "crm_rebalances_total{kind=\"lost\"} 0",
        "crm_offset_commits_total{result=\"failed\"} 0",
        "crm_database_calls_total{call=\"compare_effects\",consumer=\"currency\",result=\"unavailable\"} 0",
        "crm_database_calls_total{call=\"evaluate_tiers\",consumer=\"tier\",result=\"done\"} 0",
        "crm_database_calls_total{call=\"mark_dead\",consumer=\"reward\",result=\"unknown\"} 0",
        "crm_record_outcomes_total{consumer=\"tier\",outcome=\"dead_lettered\"} 0",
        "crm_record_outcomes_total{consumer=\"none\",outcome=\"control\"} 0",
        "crm_retries_total{consumer=\"decode\",target=\"dead_letters\"} 0",
    ] {
        assert!(before.contains(line), "{line} is not in {before}");
    }
    // What is counted later has the labels that it began with.
    telemetry.called(Consumer::Tier, "evaluate_tiers", "done", Duration::from_secs(1));
    telemetry.retried("decode", "dead_letters");
    telemetry.rebalanced("lost");
    let series = |text: &str| {
        let counters = text.lines().filter(|line| line.contains("_total"));
        counters
            .filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series.to_owned()))
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(series(&telemetry.scrape().expect("text")), series(&before));
}
