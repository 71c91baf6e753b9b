//! The reconciler on a real database, with an Inngest and a dedupe store that the test holds in its hands.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use crm_event_processors::clock::{Clock, SystemClock};
use crm_event_processors::consumers::{Consumer, Rules};
use crm_event_processors::dead_letters::MemoryDeadLetters;
use crm_event_processors::dedupe::MemoryDedupe;
use crm_event_processors::inngest::memory::{Fault, MemoryDeliver};
use crm_event_processors::inngest::{Answer, recorded::Recorded};
use crm_event_processors::loyalty::Programs;
use crm_event_processors::pipeline::{OldRecords, Ports, Randomness, RuleBook};
use crm_event_processors::postgres::{Books, Client, DatabaseUrl, PostgresLedger};
use crm_event_processors::reconcile::{Ended, Finding, Kind, Progress, Reconciler, Report};
use crm_event_processors::telemetry::{ConsumerStatus, Status, Telemetry};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::{Span, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Database, Purchase};

/// Immediate points at rate 1; silver at 1000; a mission of 100 a lifetime.
const PROGRAM: &str = r#"{"programs": [{"merchant_id": "*", "time_zone": "UTC", "versions": [{
    "rev": 1, "effective_from": "1970-01-01",
    "currency": {"rate": 1, "rounding": "floor", "activation": {"kind": "immediate"}},
    "tiers": {"ladder": [{"name": "silver", "threshold": "1000"}], "metric": "spend", "window": {"kind": "lifetime"},
        "timing": "immediate"},
    "missions": [{"id": "spend", "trigger": {"kind": "purchase_total"}, "target": "100", "period": "lifetime"}],
    "refund_policy": "unlimited"}]}]}"#;

/// Runs with the machine's clock, and is put forward together with the one of the functions.
#[derive(Debug, Default)]
struct Moved(AtomicI64);

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        let minutes = self.0.load(Ordering::SeqCst);
        SystemClock
            .now()
            .checked_add(Span::new().minutes(minutes))
            .expect("in range")
    }
}

/// What the brokers say of the group.
#[derive(Debug, Default)]
struct Group(Mutex<Option<String>>);

impl Progress for Group {
    fn behind(&self, _time_ms: i64) -> BoxFuture<'_, Result<Option<String>, String>> {
        let behind = self.0.lock().expect("no panic").clone();
        async move { Ok(behind) }.boxed()
    }
}

pub(super) struct World {
    pub(super) db: Database,
    clock: Arc<Moved>,
    pub(super) inngest: Arc<MemoryDeliver>,
    group: Arc<Group>,
    pub(super) reconciler: Reconciler,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::of(Database::new().await, None)
    }

    fn of(db: Database, effective_from: Option<Timestamp>) -> Self {
        let url = DatabaseUrl::parse(&db.url()).expect("an address");
        let client = Arc::new(Client::new(&url).expect("a client"));
        let programs = Arc::new(Programs::from_json(PROGRAM).expect("valid"));
        let rules = Rules {
            database: true,
            ..Rules::new(programs, effective_from)
        };
        let (clock, inngest) = (Arc::new(Moved::default()), Arc::new(MemoryDeliver::default()));
        let ledger = Arc::new(PostgresLedger::new(Arc::clone(&client)));
        let ports = Ports {
            dedupe: Arc::new(MemoryDedupe::new("one")),
            deliver: inngest.clone(),
            ledger: Some(ledger.clone()),
            dead_letters: Arc::new(MemoryDeadLetters::default()),
            clock: clock.clone(),
            randomness: Arc::new(Randomness::seeded(1)),
            rules: RuleBook::fixed(Arc::new(rules)),
            old_records: OldRecords::Deliver,
            telemetry: Arc::new(Telemetry::new().expect("instruments")),
            decisions: None,
        };
        let group = Arc::new(Group::default());
        let reconciler = Reconciler {
            ports,
            ledger,
            books: Arc::new(Books::new(client)),
            progress: group.clone(),
            consumers: Consumer::ALL.to_vec(),
            group: "crm-event-processors".to_owned(),
            owner: "one".to_owned(),
            shutdown: CancellationToken::new(),
        };
        Self {
            db,
            clock,
            inngest,
            group,
            reconciler,
        }
    }

    pub(super) async fn pass(&self) -> Report {
        match self.reconciler.pass().await {
            Ok(Ended::Done(report)) => report,
            other => panic!("{other:?}"),
        }
    }

    /// So many minutes after the begin of the test.
    pub(super) async fn at(&self, minutes: i64) {
        self.clock.0.store(minutes, Ordering::SeqCst);
        self.db.own.wait(&format!("{minutes} minutes")).await;
    }

    /// The ids of the events that came, without the announcements.
    pub(super) fn sent(&self) -> Vec<String> {
        let accepted = self.inngest.accepted().all();
        accepted
            .into_iter()
            .map(|event| event.id)
            .filter(|id| id.contains('#'))
            .collect()
    }

    fn last(&self) -> Recorded {
        self.inngest.accepted().all().pop().expect("an event")
    }

    async fn now(&self) -> String {
        self.db.own.text("select crm_events.rfc3339(crm_events.clock())").await
    }

    pub(super) async fn buy(&self, id: &str) -> Purchase {
        let purchase = Purchase::new(id).worth("50.00").at(&self.now().await);
        self.db.own.run(&purchase.sql()).await;
        purchase
    }
}

pub(super) fn finding(kind: Kind, subject: &str) -> Finding {
    Finding {
        kind,
        subject: subject.to_owned(),
    }
}

/// The numbers of these heals; behind them stands since when.
pub(super) fn marks(ids: &[String]) -> Vec<&str> {
    ids.iter()
        .map(|id| {
            let (_, marks) = id.split_once('#').expect("marked");
            let (since, mark) = marks.split_once('#').expect("since when");
            assert!(since.parse::<i64>().is_ok(), "{id}");
            mark
        })
        .collect()
}

#[tokio::test]
async fn an_inngest_that_accepted_everything_and_ran_nothing_is_healed_four_times_over_a_day_and_then_is_a_finding() {
    let world = World::new().await;
    world.buy("p").await;
    for (minutes, heals) in [
        (0, 0),
        (14, 0),
        (16, 1),
        (20, 1),
        (59, 1),
        (61, 2),
        (359, 2),
        (361, 3),
        (1439, 3),
        (1441, 4),
    ] {
        world.at(minutes).await;
        let report = world.pass().await;
        assert_eq!(world.sent().len(), heals, "after {minutes} minutes");
        assert!(report.findings.is_empty(), "{report:?}");
    }
    let ids = world.sent();
    assert_eq!(marks(&ids), ["h1", "h2", "h3", "h4"]);
    for id in &ids {
        assert!(id.starts_with("currency:award:purchase_ledger:p:s"), "{id}");
    }
    world.at(1460).await;
    let report = world.pass().await;
    assert_eq!(report.findings, [finding(Kind::Exhausted, "award:p")].into());
    assert_eq!(world.sent().len(), 4);
    let scraped = world.reconciler.ports.telemetry.scrape().expect("text");
    assert!(
        scraped.contains(r#"crm_reconciler_findings{kind="exhausted"} 1"#),
        "{scraped}"
    );
    assert!(
        scraped.contains(r#"crm_reconciler_heals_total{consumer="currency"} 4"#),
        "{scraped}"
    );
    world.db.done().await;
}

#[tokio::test]
async fn what_is_healed_is_settled_by_the_workflows_like_any_other_event_and_then_left_alone() {
    let world = World::new().await;
    world.buy("p").await;
    world.pass().await;
    world.at(20).await;
    world.pass().await;
    let event = world
        .inngest
        .accepted()
        .all()
        .into_iter()
        .find(|event| event.id.contains('#'))
        .expect("a heal");
    assert_eq!(event.name, "loyalty/award.scheduled");
    assert_eq!(
        world.db.own.call("apply_award", &event.data).await["outcome"],
        "applied"
    );
    assert_eq!(world.db.own.settle("settle_award", "award:p").await["booked_now"], 50);
    world.at(3000).await;
    let report = world.pass().await;
    assert_eq!((world.sent().len(), report.findings.len(), report.heals), (1, 0, 0));
    assert_eq!(world.db.own.effect("award:p").await["missed_since"], Value::Null);
    world.db.done().await;
}

#[tokio::test]
async fn a_dead_letter_is_left_alone_until_its_row_changes() {
    let world = World::new().await;
    let purchase = world.buy("p").await;
    let letter = json!([{"effect_key": "award:p", "source_table": "purchase_ledger", "source_id": "p", "merchant_id": "m-1",
        "user_id": "u-1", "basis": purchase.basis(), "reason": "inngest_rejected"}]);
    world.db.own.call_nothing("mark_dead", &letter).await;
    for minutes in [0, 20, 70, 400, 1500] {
        world.at(minutes).await;
        let report = world.pass().await;
        assert_eq!(
            (world.sent(), report.findings.len()),
            (Vec::new(), 0),
            "after {minutes} minutes"
        );
    }
    world.db.own.run(&purchase.clone().worth("60.00").sql()).await;
    world.pass().await;
    world.at(1520).await;
    world.pass().await;
    assert_eq!(marks(&world.sent()), ["h1"]);
    world.db.done().await;
}

#[tokio::test]
async fn of_two_instances_one_works_and_the_other_takes_over_when_it_is_gone() {
    let world = World::new().await;
    let other = Reconciler {
        owner: "two".to_owned(),
        ..world.reconciler.clone()
    };
    assert!(matches!(world.reconciler.pass().await, Ok(Ended::Done(_))));
    assert_eq!(other.pass().await, Ok(Ended::NotOurs));
    world.at(10).await;
    assert!(matches!(world.reconciler.pass().await, Ok(Ended::Done(_))));
    world.at(20).await;
    assert_eq!(other.pass().await, Ok(Ended::NotOurs), "it was renewed ten minutes ago");
    world.at(26).await;
    assert!(matches!(other.pass().await, Ok(Ended::Done(_))));
    assert_eq!(world.reconciler.pass().await, Ok(Ended::NotOurs));
    world.db.done().await;
}

#[tokio::test]
async fn while_the_group_is_behind_nothing_is_looked_at() {
    let world = World::new().await;
    world.buy("p").await;
    *world.group.0.lock().expect("no panic") = Some("crm.public.purchase_ledger/3".to_owned());
    for minutes in [0, 20, 70] {
        world.at(minutes).await;
        let ended = world.reconciler.pass().await;
        assert_eq!(ended, Ok(Ended::Behind("crm.public.purchase_ledger/3".to_owned())));
    }
    assert_eq!(world.db.own.effect("award:p").await, Value::Null);
    world.db.done().await;
}

#[tokio::test]
async fn a_consumer_that_stands_still_is_not_healed_and_the_others_are() {
    let world = World::new().await;
    world.buy("p").await;
    world
        .db
        .own
        .run("insert into mission_claims values ('c', 'u-1', 'm-1', 'spend', 'claimed', null, crm_events.clock())")
        .await;
    let standing = ConsumerStatus {
        consumer: Consumer::Currency,
        lanes: 1,
        standing_still: Some("401".to_owned()),
        halted: None,
    };
    world.reconciler.ports.telemetry.publish(Status {
        consumers: vec![standing],
        ..Status::starting()
    });
    for minutes in [0, 20] {
        world.at(minutes).await;
        world.pass().await;
    }
    let ids = world.sent();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert!(ids[0].starts_with("reward:grant:mission_claims:c:s"), "{ids:?}");
    world.db.done().await;
}

#[tokio::test]
async fn an_inngest_that_is_away_costs_no_heal() {
    let world = World::new().await;
    world.buy("p").await;
    world.pass().await;
    let away = || {
        Fault::Answer(Answer::Unavailable {
            detail: "away".to_owned(),
            retry_after: None,
        })
    };
    for minutes in [20, 70, 400, 1500, 3000] {
        world.at(minutes).await;
        world.inngest.faults().push(away());
        let report = world.pass().await;
        assert_eq!((report.heals, report.findings.len()), (0, 0), "after {minutes} minutes");
    }
    world.pass().await;
    assert_eq!(marks(&world.sent()), ["h1"]);
    world.db.done().await;
}

#[tokio::test]
async fn a_heal_that_is_rejected_is_a_finding_and_no_dead_letter_and_stops_no_other() {
    let world = World::new().await;
    for id in ["a", "bad", "c"] {
        world.buy(id).await;
    }
    world.inngest.poison("purchase_ledger:bad:");
    world.pass().await;
    world.at(20).await;
    let report = world.pass().await;
    assert_eq!(report.findings, [finding(Kind::Rejected, "award:bad")].into());
    let ids: std::collections::BTreeSet<String> = world.sent().into_iter().collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    assert_ne!(world.db.own.effect("award:bad").await["state"], "dead");
    world.db.done().await;
}

#[tokio::test]
async fn an_effect_of_an_older_state_is_healed_with_the_newer_one() {
    let world = World::new().await;
    let purchase = world.buy("p").await;
    let now = world.now().await;
    world
        .db
        .own
        .call("apply_award", &purchase.scheduled(50, &now, "unlimited"))
        .await;
    world.db.own.settle("settle_award", "award:p").await;
    // The refund never came: its event was lost.
    world
        .db
        .own
        .run(&purchase.clone().refunded("50.00", "refunded").sql())
        .await;
    world.pass().await;
    world.at(20).await;
    world.pass().await;
    assert_eq!(marks(&world.sent()), ["h1"]);
    let event = world
        .inngest
        .accepted()
        .all()
        .into_iter()
        .find(|event| event.id.contains('#'))
        .expect("a heal");
    assert_eq!(event.name, "loyalty/award.cancelled");
    world.db.own.call("apply_award", &event.data).await;
    assert_eq!(world.db.own.settle("settle_award", "award:p").await["booked_now"], -50);
    world.db.done().await;
}

#[tokio::test]
async fn a_mission_and_a_tier_that_were_missed_are_evaluated_and_announced() {
    let world = World::new().await;
    let purchase = Purchase::new("p").worth("1200.00").at(&world.now().await);
    world.db.own.run(&purchase.sql()).await;
    let report = world.pass().await;
    assert_eq!(report.announced, 2);
    let names: Vec<String> = world
        .inngest
        .accepted()
        .all()
        .into_iter()
        .map(|event| event.name)
        .collect();
    assert_eq!(
        super::counted(names.iter().map(String::as_str)),
        [("loyalty/mission.evaluated", 1), ("loyalty/tier.upgraded", 1)].into()
    );
    assert_eq!(world.pass().await.announced, 0);
    assert_eq!(
        world
            .db
            .own
            .text("select count(*)::text from crm_events.announcements where announced_at is null")
            .await,
        "0"
    );
    world.db.done().await;
}

#[tokio::test]
async fn an_announcement_that_nobody_sent_is_sent_after_a_minute() {
    let world = World::new().await;
    let purchase = Purchase::new("p").worth("1200.00").at(&world.now().await);
    world.db.own.run(&purchase.sql()).await;
    let gone = || {
        Fault::Answer(Answer::Unavailable {
            detail: "away".to_owned(),
            retry_after: None,
        })
    };
    world.inngest.faults().push(gone());
    assert_eq!(world.pass().await.announced, 0, "written down, and not sent");
    world.at(2).await;
    assert_eq!(world.pass().await.announced, 2);
    assert!(world.last().name.starts_with("loyalty/"));
    world.db.done().await;
}

#[tokio::test]
async fn old_rows_are_found_by_the_slow_pass_which_begins_again_at_its_end() {
    let world = World::new().await;
    let old = Purchase::new("old").at("2026-01-15T10:00:00Z");
    world.db.own.run(&old.sql()).await;
    world.pass().await;
    assert_eq!(world.db.own.effect("award:old").await["state"], "missing");
    let mark = "select coalesce(after_id, 'the begin') from crm_events.bookmarks where name like '%purchase_ledger'";
    assert_eq!(world.db.own.text(mark).await, "the begin");
    world.db.done().await;
}

#[tokio::test]
async fn what_is_older_than_the_cut_off_is_healed_only_if_it_was_seeded() {
    let db = Database::new().await;
    db.own
        .run(&Purchase::new("seeded").at("2026-01-15T10:00:00Z").sql())
        .await;
    db.own.run("select crm_events.seed_effects('2026-10-01')").await;
    db.own
        .run(&Purchase::new("stranger").at("2026-01-16T10:00:00Z").sql())
        .await;
    let world = World::of(db, Some("2026-10-01T00:00:00Z".parse().expect("a time")));
    world.pass().await;
    world.at(20).await;
    world.pass().await;
    let ids = world.sent();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert!(ids[0].contains(":seeded:"), "{ids:?}");
    assert_eq!(world.db.own.effect("award:stranger").await, Value::Null);
    world.db.done().await;
}

#[tokio::test]
async fn a_fact_that_is_in_order_again_is_missed_no_longer() {
    let world = World::new().await;
    let purchase = world.buy("p").await;
    world.pass().await;
    assert_eq!(world.db.own.effect("award:p").await["state"], "missing");
    world
        .db
        .own
        .run(&purchase.clone().refunded("50.00", "refunded").sql())
        .await;
    world.at(20).await;
    world.pass().await;
    let effect = world.db.own.effect("award:p").await;
    assert_eq!(
        (&effect["state"], &effect["missed_since"]),
        (&json!("open"), &Value::Null)
    );
    assert_eq!(world.sent(), Vec::<String>::new());
    world.db.done().await;
}

#[tokio::test]
async fn ids_may_be_uuids_and_numbers() {
    let world = World::of(super::identities::database().await, None);
    world.pass().await;
    world.at(20).await;
    world.pass().await;
    let ids = world.sent();
    assert_eq!(marks(&ids), ["h1"]);
    world.db.done().await;
}

#[tokio::test]
async fn the_worker_role_suffices() {
    let mut world = World::new().await;
    world.db.own.run("grant crm_worker to current_user").await;
    let url = format!("{}?options=-c%20role%3Dcrm_worker", world.db.url());
    let client = Arc::new(Client::new(&DatabaseUrl::parse(&url).expect("an address")).expect("a client"));
    let books = Books::new(Arc::clone(&client));
    world.reconciler.books = Arc::new(books.clone());
    world.reconciler.ledger = Arc::new(PostgresLedger::new(client));
    world
        .db
        .own
        .run(&Purchase::new("p").worth("1200.00").at(&world.now().await).sql())
        .await;
    world.pass().await;
    world.at(20).await;
    world.inngest.faults().push(Fault::Answer(Answer::Unavailable {
        detail: "away".to_owned(),
        retry_after: None,
    }));
    world.pass().await;
    world.pass().await;
    assert_eq!(marks(&world.sent()), ["h1"]);
    assert_eq!(books.unbalanced().await.expect("balanced"), []);
    assert!(books.member("m-1", "u-1").await.expect("known").tier.is_some());
    assert_eq!(books.states(&["award:p"]).await.expect("read")["award:p"].heals, 1);
    books
        .drop_lease("reconciler:crm-event-processors", "one")
        .await
        .expect("dropped");
    world.db.done().await;
}
