//! One run through everything real, with every answer Inngest documents, and kill -9 in the middle.

use std::collections::{BTreeMap, BTreeSet};

use crm_event_processors::faults::Gate;
use crm_event_processors::inngest::receiver::{Fault, Receiver};
use tokio_postgres::NoTls;

use super::topics::{self, Change, LEDGERS, PURCHASES};
use super::worker::{Accepted, Inbox, Worker, receiver};
use super::{stack, unique};

/// One merchant per run, with an activation of two weeks in a zone of its own, tiers by spend, two missions.
fn program(merchant: &str) -> String {
    format!(
        r#"{{"programs": [{{"merchant_id": "{merchant}", "time_zone": "Asia/Bangkok", "versions": [{{
            "rev": 3, "effective_from": "2020-01-01",
            "currency": {{"rate": "0.1", "rounding": "floor", "minimum": "1", "activation": {{"kind": "rolling_days", "days": 14}}}},
            "tiers": {{"ladder": [{{"name": "gold", "threshold": "100"}}], "metric": "spend",
                       "window": {{"kind": "lifetime"}}, "timing": "immediate"}},
            "missions": [
                {{"id": "spend", "trigger": {{"kind": "purchase_total"}}, "target": "100", "period": "lifetime"}},
                {{"id": "hello", "trigger": {{"kind": "form", "form_id": "hello"}}, "target": 1, "period": "lifetime"}}],
            "refund_policy": "only_pending"}}]}}]}}"#
    )
}

/// Half past midnight of the next day in Bangkok.
const CREATED: &str = "2026-11-05T17:30:00Z";

struct Run {
    merchant: String,
    group: String,
    database: tokio_postgres::Client,
}

impl Run {
    async fn begin() -> Self {
        let (database, connection) = tokio_postgres::connect(&stack("POSTGRES_URL"), NoTls)
            .await
            .expect("the database");
        tokio::spawn(connection);
        let run = unique();
        Self {
            merchant: format!("m-{run}"),
            group: format!("real-{run}"),
            database,
        }
    }

    async fn sql(&self, statement: &str) {
        self.database
            .batch_execute(statement)
            .await
            .expect("the statement runs");
    }

    /// Each its own transaction.
    async fn purchase(&self, id: &str, amount: &str, status: &str) {
        let Self { merchant, .. } = self;
        self.sql(&format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
             values ('{merchant}-{id}', 'u-{id}', '{merchant}', {amount}, '{status}', true, '{CREATED}')"
        ))
        .await;
    }

    async fn update(&self, id: &str, set: &str) {
        let Self { merchant, .. } = self;
        self.sql(&format!(
            "update purchase_ledger set {set} where id = '{merchant}-{id}'"
        ))
        .await;
    }

    /// What the topic holds of this merchant: the id the award event of each change must have.
    fn changes(&self) -> BTreeMap<(String, String), Change> {
        let prefix = format!("{}-", self.merchant);
        let changes = topics::changes(PURCHASES, &self.merchant).into_iter();
        let key = |change: &Change| {
            let row = change.row.strip_prefix(&prefix).expect("our row").to_owned();
            (row, change.status.clone().expect("a status"))
        };
        changes.map(|change| (key(&change), change)).collect()
    }
}

fn award_id(change: &Change) -> String {
    format!("currency:award:purchase_ledger:{}:{}", change.row, change.lsn)
}

fn named<'a>(events: &'a [Accepted], name: &str) -> Vec<&'a Accepted> {
    events.iter().filter(|event| event.name == name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_becomes_awards_exactly_as_promised_through_every_fault_and_kill_9() {
    let run = Run::begin().await;
    let inbox = Inbox::of(&run.merchant);
    let receiver = receiver(&inbox).await;
    let mut worker = Worker::new(&run.group, &program(&run.merchant), &receiver.base_url());
    worker.is_missed_soon();
    worker.start().await;

    plain_changes(&run, &inbox).await;
    a_batch_through_every_trouble(&run, &inbox, &receiver).await;
    topics::wait_all_committed(&run.group, &LEDGERS).await;
    killed_while_a_request_hangs(&run, &inbox, &receiver, &mut worker).await;
    run.update("steps", "status = 'partially_refunded', refunded_amount = 50")
        .await;
    inbox
        .wait_until("the reduced award", |events| {
            events.iter().any(|event| event.data["target_points"] == "15")
        })
        .await;
    topics::wait_all_committed(&run.group, &LEDGERS).await;
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
    books(&run, &inbox.all());
    println!("receiver: {:?}", receiver.stats());
}

/// A plain award, an award in two steps, a wallet entry, a form; a pending purchase that leads to nothing.
async fn plain_changes(run: &Run, inbox: &Inbox) {
    let Run { merchant, .. } = run;
    run.purchase("plain", "123.45", "completed").await;
    run.purchase("steps", "200.00", "pending").await;
    run.purchase("waits", "300.00", "pending").await;
    run.sql(&format!(
        "insert into wallet_ledger (id, user_id, merchant_id, amount, kind, created_at) \
         values ('{merchant}-w', 'u-plain', '{merchant}', 9007199254740993, 'earn', now()); \
         insert into form_submissions (id, form_id, user_id, merchant_id, submitted_at) \
         values ('{merchant}-f', 'hello', 'u-plain', '{merchant}', now())"
    ))
    .await;
    run.update("steps", "status = 'completed', completed_at = '2026-11-06T01:00:00Z'")
        .await;
    let awards = |events: &[Accepted]| named(events, "loyalty/award.scheduled").len();
    inbox.wait_until("both awards", |events| awards(events) >= 2).await;
    let form = format!("{merchant}-f");
    inbox
        .wait_until("the form's mission", |events| {
            events
                .iter()
                .any(|event| event.data["source"]["row_id"] == form.as_str())
        })
        .await;
    // What is still on its way would meet the troubles that come next.
    topics::wait_all_committed(&run.group, &LEDGERS).await;
}

/// Forty purchases of one transaction, which arrive together, while Inngest answers in every way that passes. A 413 for an
/// event alone does not: it makes a dead letter, and whether one leaves alone is the broker's choice.
async fn a_batch_through_every_trouble(run: &Run, inbox: &Inbox, receiver: &Receiver) {
    let Run { merchant, .. } = run;
    for fault in [
        Fault::too_many_requests(Some("1")),
        Fault::status(503, "unavailable"),
        Fault::AcceptThenDrop,
        Fault::AcceptPrefixThenReject { n: 3 },
        Fault::TooFewIds { missing: 1 },
        Fault::Body("<html>not the API</html>".to_owned()),
    ] {
        receiver.faults().push(fault);
    }
    let row = |number| {
        format!("('{merchant}-many-{number}', 'u-many-{number}', '{merchant}', 50.00, 'completed', true, '{CREATED}')")
    };
    let rows: Vec<String> = (0..40).map(row).collect();
    let columns = "(id, user_id, merchant_id, final_amount, status, earn_currency, created_at)";
    run.sql(&format!(
        "insert into purchase_ledger {columns} values {}",
        rows.join(",")
    ))
    .await;
    let distinct = |events: &[Accepted]| {
        let awards = named(events, "loyalty/award.scheduled");
        awards
            .iter()
            .map(|event| event.id.as_str())
            .collect::<BTreeSet<_>>()
            .len()
    };
    inbox
        .wait_until("42 different awards", |events| distinct(events) == 42)
        .await;
    assert_eq!(receiver.faults().remaining(), 0, "every trouble was met");
}

/// kill -9 while a request hangs: what it held is delivered by the next process.
async fn killed_while_a_request_hangs(run: &Run, inbox: &Inbox, receiver: &Receiver, worker: &mut Worker) {
    let held = Gate::default();
    receiver.faults().push(Fault::Hold(held.clone()));
    run.purchase("survivor", "77.70", "completed").await;
    run.update("plain", "status = 'refunded', refunded_amount = final_amount")
        .await;
    held.arrived().await;
    worker.kill().await;
    worker.start().await;
    let survivor = format!("{}-survivor", run.merchant);
    inbox
        .wait_until("the survivor and the refund", |events| {
            let survived = events
                .iter()
                .any(|event| event.data["purchase_id"] == survivor.as_str());
            survived && !named(events, "loyalty/award.cancelled").is_empty()
        })
        .await;
    held.release();
}

/// Every event, id, target, due time and commit time, against the topic and the SQL.
fn books(run: &Run, events: &[Accepted]) {
    let merchant = &run.merchant;
    let changes = run.changes();
    let change = |row: &str, status: &str| &changes[&(row.to_owned(), status.to_owned())];
    // (row, status, points, due): half past midnight on the 6th in Bangkok plus 14 days, and 08:00 on the 6th plus 14.
    let midnight = "2026-11-20T00:30:00+07:00";
    let mut expected = vec![
        ("plain".to_owned(), "completed", "12", midnight),
        ("steps".to_owned(), "completed", "20", "2026-11-20T08:00:00+07:00"),
        (
            "steps".to_owned(),
            "partially_refunded",
            "15",
            "2026-11-20T08:00:00+07:00",
        ),
        ("survivor".to_owned(), "completed", "7", midnight),
    ];
    expected.extend((0..40).map(|number| (format!("many-{number}"), "completed", "5", midnight)));
    let mut ids = BTreeSet::new();
    for (row, status, points, due) in &expected {
        let change = change(row, status);
        let id = award_id(change);
        let sent: Vec<&Accepted> = events.iter().filter(|event| event.id == id).collect();
        assert!(!sent.is_empty(), "{id} was never accepted");
        for event in sent {
            assert_eq!(event.name, "loyalty/award.scheduled");
            assert_eq!(event.data["purchase_id"], format!("{merchant}-{row}"));
            assert_eq!(event.data["target_points"], *points, "{id}");
            assert_eq!(event.data["due_at"], *due, "{id}");
            assert_eq!(event.data["program_rev"], 3);
            assert_eq!(event.ts_ms, change.commit_ms, "{id}");
        }
        ids.insert(id);
    }
    let refund = award_id(change("plain", "refunded"));
    let cancelled = named(events, "loyalty/award.cancelled");
    assert!(
        cancelled
            .iter()
            .all(|event| event.id == refund && event.data["target_points"] == "0"),
        "{cancelled:?}"
    );
    assert!(!cancelled.is_empty());
    let awards: BTreeSet<String> = named(events, "loyalty/award.scheduled")
        .iter()
        .map(|event| event.id.clone())
        .collect();
    assert_eq!(awards, ids, "nothing but what was promised");

    let form = events
        .iter()
        .find(|event| event.data["source"]["row_id"] == format!("{merchant}-f").as_str());
    assert_eq!(
        form.expect("the form's mission").name,
        "loyalty/mission.evaluation_requested"
    );
    let members: BTreeSet<&str> = named(events, "loyalty/tier.evaluation_requested")
        .iter()
        .filter_map(|event| event.data["user_id"].as_str())
        .collect();
    // plain, steps, survivor and the forty; the one that waits has spent nothing, and wallet entries are no spend.
    assert_eq!(members.len(), 43, "{members:?}");
    assert!(changes.values().all(|change| change.op == "c" || change.op == "u"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_commit_to_accepted_takes_as_long_as_is_printed_here() {
    let run = Run::begin().await;
    let inbox = Inbox::of(&run.merchant);
    let receiver = receiver(&inbox).await;
    let mut worker = Worker::new(&run.group, &program(&run.merchant), &receiver.base_url());
    worker.set("CONSUMERS", "currency");
    // The main group has never run.
    worker.arguments.push("--start-at=begin");
    worker.start().await;
    // One after the other: each is a lone record. The first ones wake everything up and are not counted.
    for number in 0..60 {
        run.purchase(&number.to_string(), "50.00", "completed").await;
        inbox.wait_until("the next award", |events| events.len() > number).await;
    }
    let mut latencies: Vec<i64> = inbox
        .all()
        .iter()
        .skip(10)
        .map(|event| event.at_ms - event.ts_ms)
        .collect();
    latencies.sort_unstable();
    let quantile = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    let (p50, p99, count) = (quantile(50), quantile(99), latencies.len());
    println!("commit to accepted, lone records: p50 {p50} ms, p99 {p99} ms over {count} purchases");
    assert_eq!(worker.stop().await, 0, "{}", worker.log());
}
