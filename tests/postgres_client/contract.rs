//! What the consumers decide, told to the functions of `schemas/postgres` as `migrate` makes them, through the pooler.

use std::collections::BTreeMap;
use std::sync::Arc;

use crm_event_processors::consumers::{Consumer, Decision, Effect, Rules, decide};
use crm_event_processors::debezium::{DecimalMode, Decoded, Decoder};
use crm_event_processors::pipeline::RuleBook;
use crm_event_processors::postgres::{Announcement, Ledger as _, PostgresLedger, Standing, rule_book};
use crm_event_processors::record::{Headers, RecordView};
use crm_event_processors::rows::{self, Routed, RowChange};
use serde_json::{Value, json};

use super::{Database, client, within};

const TOPIC: &str = "crm.public.purchase_ledger";
const CREATED: &str = "2026-11-20T10:00:00.123456Z";
const COMMIT_MS: i64 = 1_795_168_801_000;

/// One merchant `m`: a point for each unit at once; silver from 150; a mission of three purchases.
const PROGRAM: &str = r#"
    insert into crm_events.programs values ('m', 'Asia/Bangkok');
    insert into crm_events.program_versions values ('m', 4, '2020-01-01', '{
        "currency": {"rate": "1", "rounding": "floor", "activation": {"kind": "immediate"}},
        "tiers": {"ladder": [{"name": "silver", "threshold": "150.5"}], "metric": "spend",
                  "window": {"kind": "calendar_year"}, "timing": "immediate"},
        "missions": [{"id": "three", "trigger": {"kind": "purchase_count"}, "target": 3, "period": "calendar_month"}],
        "refund_policy": "unlimited"}')"#;

struct World {
    database: Database,
    ledger: Arc<PostgresLedger>,
    rules: Arc<Rules>,
}

impl World {
    async fn new(cut_off: &str) -> Self {
        let database = Database::migrated().await;
        database.ask(PROGRAM).await;
        let client = Arc::new(client(&database.pooled()));
        let starting = rule_book(
            Arc::clone(&client),
            None,
            Some(cut_off.parse().expect("a time")),
            None,
            &|_| {},
        );
        let book: RuleBook = within(starting).await.expect("starts");
        Self {
            rules: book.current(),
            ledger: Arc::new(PostgresLedger::new(client)),
            database,
        }
    }

    /// A purchase of 100.00 in the ledger, and what the consumer makes of its change.
    async fn bought(&self, id: &str, user: &str) -> RowChange {
        let quoted = id.replace('\'', "''");
        let insert = format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
             values ('{quoted}', '{user}', 'm', 100, 'completed', true, '{CREATED}')"
        );
        self.database.ask(&insert).await;
        change("c", id, user, "100.00")
    }

    fn decided(&self, consumer: Consumer, change: &RowChange) -> Effect {
        let now = "2026-11-20T10:00:02Z".parse().expect("a time");
        match decide(consumer, change, &self.rules, now) {
            Decision::Deliver(effects) => effects.into_iter().next().expect("at least one"),
            other => panic!("not delivered: {other:?}"),
        }
    }

    async fn apply(&self, effect: &Effect) -> String {
        let mut event = Vec::new();
        effect.event.write_json(i64::MAX, &mut event);
        let event: Value = serde_json::from_slice(&event).expect("JSON");
        let data = event["data"].to_string().replace('\'', "''");
        let applied = self
            .database
            .ask(&format!("select crm_events.apply_award('{data}')->>'outcome'"))
            .await;
        applied[0].clone()
    }

    async fn standings(&self, effects: &[&Effect]) -> Vec<Standing> {
        within(self.ledger.compare(effects)).await.expect("compares")
    }
}

fn change(op: &str, id: &str, user: &str, amount: &str) -> RowChange {
    let envelope = json!({
        "op": op, "ts_ms": COMMIT_MS, "before": null,
        "after": {"id": id, "user_id": user, "merchant_id": "m", "final_amount": amount, "refunded_amount": "0.00",
                  "status": "completed", "earn_currency": true, "created_at": CREATED, "completed_at": null},
        "source": {"table": "purchase_ledger", "lsn": 41, "txId": 1, "ts_ms": COMMIT_MS},
    });
    let value = envelope.to_string();
    let record = RecordView {
        topic: TOPIC,
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: None,
        value: Some(value.as_bytes()),
        headers: Headers(&[]),
    };
    let mut decoder = Decoder::default();
    let Ok(Decoded::Change(decoded)) = decoder.decode(&record) else {
        panic!("no change: {value}");
    };
    match rows::route(TOPIC, &decoded, DecimalMode::Text) {
        Ok(Routed::Row(row)) => row,
        other => panic!("no row: {other:?}"),
    }
}

fn refs(effects: &[Effect]) -> Vec<&Effect> {
    effects.iter().collect()
}

fn names(announcements: &[Announcement]) -> Vec<&str> {
    announcements.iter().map(|announcement| &*announcement.name).collect()
}

#[tokio::test]
async fn what_was_applied_is_equal_and_what_changed_since_differs() {
    let world = World::new("2020-01-01T00:00:00Z").await;
    assert!(world.rules.database);
    let awards = [
        world.decided(Consumer::Currency, &world.bought("p:1", "u").await),
        world.decided(Consumer::Currency, &world.bought("p-2'", "u").await),
    ];
    assert_eq!(
        world.standings(&refs(&awards)).await,
        [Standing::Absent, Standing::Absent]
    );
    assert_eq!(world.apply(&awards[1]).await, "applied");
    assert_eq!(
        world.standings(&refs(&awards)).await,
        [Standing::Absent, Standing::Equal]
    );
    // Another amount; and the very same one written otherwise.
    let other = world.decided(Consumer::Currency, &change("u", "p-2'", "u", "100.01"));
    let same = world.decided(Consumer::Currency, &change("r", "p-2'", "u", "100"));
    assert_eq!(
        world.standings(&[&other, &same]).await,
        [Standing::Differs, Standing::Equal]
    );
    assert_eq!(world.standings(&[]).await, []);
}

#[tokio::test]
async fn a_row_older_than_the_cut_off_is_compared_by_its_award_whoever_asks() {
    let world = World::new("2026-11-21T00:00:00Z").await;
    let (known, unknown) = (world.bought("known", "u").await, world.bought("unknown", "u").await);
    world
        .database
        .ask("delete from purchase_ledger where id = 'unknown'")
        .await;
    world.database.ask("select crm_events.seed_effects('2026-11-21')").await;
    for consumer in [Consumer::Currency, Consumer::Tier, Consumer::Mission] {
        let effects = [world.decided(consumer, &known), world.decided(consumer, &unknown)];
        let standings = world.standings(&refs(&effects)).await;
        assert_eq!(standings[1], Standing::Absent, "{consumer:?}");
        assert_ne!(standings[0], Standing::Absent, "{consumer:?}");
    }
}

#[tokio::test]
async fn members_reach_their_tier_once_though_their_purchases_are_evaluated_at_once() {
    let world = World::new("2020-01-01T00:00:00Z").await;
    let mut evaluations = Vec::new();
    for number in 0..30 {
        let change = world
            .bought(&format!("p-{number}"), &format!("u-{}", number % 10))
            .await;
        evaluations.push(world.decided(Consumer::Tier, &change));
    }
    let calls = evaluations.chunks(3).map(|chunk| {
        let (ledger, chunk) = (Arc::clone(&world.ledger), chunk.to_vec());
        tokio::spawn(async move { within(ledger.evaluate_tiers(&refs(&chunk))).await.expect("evaluates") })
    });
    let mut upgrades: BTreeMap<Box<str>, Value> = BTreeMap::new();
    for call in futures::future::join_all(calls).await {
        for announcement in call.expect("no panic") {
            assert_eq!(&*announcement.name, "loyalty/tier.upgraded");
            assert!(announcement.id.starts_with(&*announcement.effect_key) && announcement.ts_ms > 0);
            let data = serde_json::from_str(announcement.data.get()).expect("JSON");
            upgrades.insert(announcement.id, data);
        }
    }
    assert_eq!(upgrades.len(), 10, "one for each member: {upgrades:?}");
    assert_eq!(upgrades["tier:m:u-3:upgraded:1"]["tier"], "silver");
    // What nobody announced comes again with every call, until somebody did.
    let again = within(world.ledger.evaluate_tiers(&refs(&evaluations)))
        .await
        .expect("evaluates");
    assert_eq!(again.len(), 10);
    let ids: Vec<&str> = again.iter().map(|announcement| &*announcement.id).collect();
    within(world.ledger.announced(&ids[1..])).await.expect("noted");
    within(world.ledger.announcement_rejected(ids[0], "it's no good"))
        .await
        .expect("noted");
    let again = within(world.ledger.evaluate_tiers(&refs(&evaluations)))
        .await
        .expect("evaluates");
    assert_eq!(names(&again), [""; 0]);
}

#[tokio::test]
async fn a_mission_is_completed_once_though_its_purchases_are_recorded_at_once() {
    let world = World::new("2020-01-01T00:00:00Z").await;
    let mut shares = Vec::new();
    for number in 0..3 {
        let change = world.bought(&format!("p-{number}"), "u").await;
        shares.push(world.decided(Consumer::Mission, &change));
    }
    let calls = shares.iter().map(|share| {
        let (ledger, share) = (Arc::clone(&world.ledger), share.clone());
        tokio::spawn(async move { within(ledger.record_progress(&[&share])).await.expect("records") })
    });
    futures::future::join_all(calls)
        .await
        .into_iter()
        .for_each(|call| drop(call.expect("no panic")));
    let announcements = within(world.ledger.record_progress(&refs(&shares)))
        .await
        .expect("records");
    let data = |announcement: &Announcement| serde_json::from_str::<Value>(announcement.data.get()).expect("JSON");
    let completions = announcements
        .iter()
        .map(data)
        .filter(|data| data["completed_now"] == true);
    assert_eq!(completions.count(), 1);
    assert_eq!(
        announcements.last().map(|last| data(last)["progress"].clone()),
        Some(json!("3"))
    );
}

#[tokio::test]
async fn an_effect_in_the_dead_letters_is_dead_until_its_row_changes() {
    let world = World::new("2020-01-01T00:00:00Z").await;
    let change = world.bought("p", "u").await;
    let award = world.decided(Consumer::Currency, &change);
    let bury = |consumer| within(world.ledger.bury(consumer, &change.row, "inngest_rejected"));
    let knows = || within(world.ledger.knows(&award.key));
    assert_eq!(knows().await.ok(), Some(false));
    bury(Consumer::Currency).await.expect("buries");
    assert_eq!(knows().await.ok(), Some(true));
    let dead = "select effect_key || ' ' || state || ' ' || dead_reason from crm_events.effects order by 1";
    assert_eq!(world.database.ask(dead).await, ["award:p dead inngest_rejected"]);
    assert_ne!(world.standings(&[&award]).await, [Standing::Equal]);
    bury(Consumer::Mission).await.expect("buries");
    assert_eq!(world.database.ask(dead).await.len(), 2);
    // A tier rests on many rows: there is nothing to bury, and no failure.
    bury(Consumer::Tier).await.expect("does nothing");
    assert_eq!(world.database.ask(dead).await.len(), 2);
}
