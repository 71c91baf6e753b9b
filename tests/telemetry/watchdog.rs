//! The watchdog over a real pipeline whose loop is blocked on purpose.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crm_event_processors::clock::{Clock, SystemClock};
use crm_event_processors::consumers::{Consumer, Rules};
use crm_event_processors::dead_letters::MemoryDeadLetters;
use crm_event_processors::debezium::DecimalMode;
use crm_event_processors::dedupe::MemoryDedupe;
use crm_event_processors::dedupe::memory::MemoryStore;
use crm_event_processors::inngest::memory::MemoryDeliver;
use crm_event_processors::kafka::memory::MemoryLog;
use crm_event_processors::loyalty::{DEMO_PROGRAM, Programs};
use crm_event_processors::pipeline::{self, OldRecords, Options, Ports, Randomness, RuleBook};
use crm_event_processors::record::Budget;
use crm_event_processors::telemetry::Telemetry;
use crm_event_processors::telemetry::watchdog::{Loop, Patience, Watchdog};
use tokio_util::sync::CancellationToken;

use crate::PATIENCE;

/// A clock that does not answer while it is stuck: whoever asks is blocked, thread and all.
#[derive(Debug, Default)]
struct StuckClock {
    stuck: Mutex<bool>,
    changed: Condvar,
}

impl Clock for StuckClock {
    fn now(&self) -> jiff::Timestamp {
        let stuck = self.stuck.lock().expect("no panic");
        drop(self.changed.wait_while(stuck, |stuck| *stuck).expect("no panic"));
        SystemClock.now()
    }
}

impl StuckClock {
    fn set(&self, stuck: bool) {
        *self.stuck.lock().expect("no panic") = stuck;
        self.changed.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_whose_loop_is_blocked_is_named_and_one_that_goes_round_is_left_alone() {
    let clock = Arc::new(StuckClock::default());
    let telemetry = Arc::new(Telemetry::new().expect("instruments"));
    let ports = Ports {
        dedupe: Arc::new(MemoryDedupe::shared(MemoryStore::default(), "worker")),
        deliver: Arc::<MemoryDeliver>::default(),
        dead_letters: Arc::<MemoryDeadLetters>::default(),
        clock: clock.clone(),
        randomness: Arc::new(Randomness::seeded(1)),
        ledger: None,
        old_records: OldRecords::Deliver,
        rules: RuleBook::fixed(Arc::new(Rules::new(
            Arc::new(Programs::from_json(DEMO_PROGRAM).expect("valid")),
            None,
        ))),
        telemetry: telemetry.clone(),
        decisions: None,
    };
    let options = Options {
        consumers: vec![(Consumer::Currency, 1)],
        decimals: DecimalMode::Text,
        commit_interval: Duration::from_millis(10),
        revoke_deadline: Duration::from_secs(1),
        drain_deadline: Duration::from_secs(1),
        max_records: 10,
        max_bytes: 10_000,
        accept_dead_letters: false,
    };
    let log = MemoryLog::new(&["crm.public.purchase_ledger"]);
    let (handle, _member) = log.join(Budget::new(10, 10_000), Consumer::ALL.into_iter().collect());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(pipeline::run(options, handle, ports, shutdown.clone()));

    let (hung, mut hangs) = tokio::sync::mpsc::unbounded_channel();
    let patience = Patience {
        every: Duration::from_secs(1),
        limit: Duration::from_secs(10),
    };
    // The polling thread is no part of this: the log in memory has none.
    let ages = {
        let telemetry = telemetry.clone();
        move || (Duration::ZERO, telemetry.ages().1)
    };
    let _watchdog = Watchdog::start(patience, ages, move |hang| hung.send(hang).expect("the test waits"));
    let mut ticks = telemetry.watch();
    for _ in 0..50 {
        ticks.changed().await.expect("ticks");
    }
    assert!(hangs.try_recv().is_err(), "a loop that goes round");

    clock.set(true);
    let hang = tokio::time::timeout(PATIENCE, hangs.recv())
        .await
        .expect("a hang in time");
    let hang = hang.expect("the watchdog tells");
    assert_eq!(hang.hanging, Loop::Pipeline);
    assert!(hang.age > patience.limit, "{:?}", hang.age);

    clock.set(false);
    shutdown.cancel();
    let ended = tokio::time::timeout(PATIENCE, running).await.expect("in time");
    ended.expect("no panic");
}
