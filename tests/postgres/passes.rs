//! What a pass of the reconciler and the command `reconcile` read, page by page, and how they end.

use std::sync::Arc;

use crm_event_processors::consumers::Consumer;
use crm_event_processors::faults::Gate;
use crm_event_processors::inngest::Answer;
use crm_event_processors::inngest::memory::Fault;
use crm_event_processors::postgres::{Books, Client, DatabaseUrl};
use crm_event_processors::reconcile::balance::{Balance, Question, balance};
use crm_event_processors::reconcile::{INTERVAL, Kind, Outbox};
use crm_event_processors::rows::Table;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::reconciling::{World, finding, marks};
use super::{Database, Purchase};

fn books(db: &Database) -> Books {
    let url = DatabaseUrl::parse(&db.url()).expect("an address");
    Books::new(Arc::new(Client::new(&url).expect("a client")))
}

/// The ids of the rows with a time of `since` or later, two a page.
async fn recent(db: &Database, table: Table, since: &str) -> Vec<String> {
    let (books, since) = (books(db), since.parse::<jiff::Timestamp>().expect("a time"));
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = books.recent(table, since.as_millisecond(), after.as_ref(), 2).await;
        let (rows, ended) = page.expect("a page");
        assert!(rows.len() <= 2, "{rows:?}");
        ids.extend(rows.into_iter().map(|row| row.id));
        if ended.is_none() {
            return ids;
        }
        after = ended;
    }
}

#[tokio::test]
async fn recent_rows_come_in_the_order_of_their_times_each_once() {
    let db = Database::new().await;
    for (id, created_at, completed_at) in [
        ("old", "2026-01-10T00:00:00Z", Some("2026-01-11T00:00:00Z")),
        ("just", "2026-01-15T00:00:00Z", None),
        ("late", "2026-01-10T00:00:00Z", Some("2026-01-16T12:00:00Z")),
        ("both", "2026-01-16T00:00:00Z", Some("2026-01-18T00:00:00Z")),
        ("same-a", "2026-01-17T00:00:00.000001Z", None),
        ("same-b", "2026-01-17T00:00:00.000001Z", None),
        ("same-c", "2026-01-17T00:00:00.000001Z", None),
        ("later", "2026-01-10T00:00:00Z", Some("2026-01-17T00:00:00.000001Z")),
        ("last", "2026-01-10T00:00:00Z", Some("2026-01-19T00:00:00Z")),
        ("pending", "2026-01-10T00:00:00Z", None),
    ] {
        let mut purchase = Purchase::new(id).at(created_at);
        purchase.completed_at = completed_at.map(str::to_owned);
        db.own.run(&purchase.sql()).await;
    }
    assert_eq!(
        recent(&db, Table::PurchaseLedger, "2026-01-15T00:00:00Z").await,
        ["just", "both", "late", "later", "same-a", "same-b", "same-c", "last"]
    );
    db.own
        .run(
            "insert into codes values ('none', 'x', 'm', 'issued', null, null),
                 ('old', 'x', 'm', 'redeemed', null, '2026-01-01T00:00:00Z'), ('new', 'x', 'm', 'redeemed', null, '2026-01-16T00:00:00Z')",
        )
        .await;
    assert_eq!(recent(&db, Table::Codes, "2026-01-15T00:00:00Z").await, ["new"]);
    db.done().await;
}

#[tokio::test]
async fn recent_rows_come_of_ledgers_with_other_types_too() {
    let db = super::identities::database().await;
    let found = recent(&db, Table::PurchaseLedger, "2026-01-15T10:00:00Z").await;
    assert_eq!(found.len(), 1, "its time has no zone, and is of that very instant");
    let found = recent(&db, Table::PurchaseLedger, "2026-01-15T10:00:00.001Z").await;
    assert_eq!(found.len(), 0);
    db.done().await;
}

#[tokio::test]
async fn a_window_that_takes_too_long_is_a_finding_and_keeps_no_old_row_from_its_turn() {
    let world = World::new().await;
    let old = Purchase::new("old").at("2026-01-15T10:00:00Z");
    world.db.own.run(&old.sql()).await;
    world
        .db
        .own
        .run(
            "create or replace function crm_events.recent_rows(source_table text, since timestamptz, after_time text, after_id text,
                 max integer) returns table (id text, image jsonb, read_at_ms bigint, row_time text) language plpgsql as
             $$ begin
                 if source_table = 'purchase_ledger' then
                     raise exception 'canceling statement due to statement timeout' using errcode = 'query_canceled';
                 end if;
             end $$",
        )
        .await;
    let report = world.pass().await;
    assert_eq!(report.findings, [finding(Kind::Unreadable, "purchase_ledger")].into());
    assert_eq!(world.db.own.effect("award:old").await["state"], "missing");
    world.db.done().await;
}

#[tokio::test]
async fn what_is_missed_again_after_it_was_in_order_is_healed_under_an_id_of_its_own() {
    let world = World::new().await;
    let purchase = world.buy("p").await;
    let heals = async |minutes| {
        world.at(minutes).await;
        world.pass().await;
        world.sent()
    };
    assert_eq!(heals(0).await.len(), 0);
    assert_eq!(marks(&heals(20).await), ["h1"]);
    let accepted = world.inngest.accepted().all();
    let event = accepted.iter().find(|event| event.id.contains('#')).expect("a heal");
    assert_eq!(
        world.db.own.call("apply_award", &event.data).await["outcome"],
        "applied"
    );
    let refunded = purchase.clone().refunded("50.00", "refunded");
    world.db.own.run(&refunded.sql()).await;
    let cancelled = world
        .db
        .own
        .call("apply_award", &refunded.cancelled(Some("unlimited")))
        .await;
    assert_eq!(cancelled["outcome"], "applied");
    // The same state as before, and nobody was told of it.
    world.db.own.run(&purchase.sql()).await;
    assert_eq!(heals(21).await.len(), 1);
    let ids = heals(40).await;
    assert_eq!(marks(&ids), ["h1", "h1"]);
    assert_ne!(
        ids[0], ids[1],
        "Inngest knows the first one for a day, and would run nothing"
    );
    let version = |id: &str| id.split_once('#').map(|(version, _)| version.to_owned());
    assert_eq!(version(&ids[0]), version(&ids[1]));
    world.db.done().await;
}

#[tokio::test]
async fn a_shutdown_lets_a_heal_end_and_begins_nothing_more() {
    let mut world = World::new().await;
    world.buy("p").await;
    world
        .db
        .own
        .run("insert into mission_claims values ('c', 'u-1', 'm-1', 'spend', 'claimed', null, crm_events.clock())")
        .await;
    world.pass().await;
    world.at(20).await;
    let gate = Gate::default();
    world.inngest.faults().push(Fault::Hold(gate.clone()));
    let running = world.reconciler.clone();
    tokio::time::pause();
    let run = tokio::spawn(running.run(Arc::default()));
    tokio::task::yield_now().await;
    tokio::time::advance(INTERVAL).await;
    tokio::time::resume();
    gate.arrived().await;
    world.reconciler.shutdown.cancel();
    gate.release();
    run.await.expect("it ends");
    let sent = world.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].starts_with("currency:award:"), "{sent:?}");
    let heals = async |key: &str| world.db.own.effect(key).await["heals"].clone();
    assert_eq!((heals("award:p").await, heals("grant:c").await), (json!(1), json!(0)));
    assert_eq!(
        world.db.own.text("select count(*)::text from crm_events.leases").await,
        "0"
    );
    world.reconciler.shutdown = CancellationToken::new();
    world.pass().await;
    let sent = world.sent();
    assert_eq!(marks(&sent), ["h1", "h1"]);
    assert!(sent[1].starts_with("reward:grant:"), "{sent:?}");
    world.db.done().await;
}

#[tokio::test]
async fn announcements_that_nobody_understands_take_no_heals_room() {
    let world = World::new().await;
    world
        .db
        .own
        .run(
            "insert into crm_events.effects (effect_key, kind, merchant_id, user_id, state) values ('tier:m:u', 'tier', 'm', 'u', 'settled');
             insert into crm_events.announcements (id, effect_key, name, ts_ms, data, created_at)
             select 'tier:m:u:puzzle:' || n, 'tier:m:u', 'loyalty/tier.upgraded', 0, '{}', crm_events.clock() - interval '1 hour'
             from generate_series(1, 1000) n",
        )
        .await;
    world.inngest.puzzle("puzzle");
    world.buy("p").await;
    world.pass().await;
    world.at(20).await;
    let report = world.pass().await;
    assert_eq!(marks(&world.sent()), ["h1"]);
    assert!(report.findings.contains(&finding(Kind::Rejected, "tier:m:u")));
    world.db.done().await;
}

async fn redeliver(world: &World) -> Balance {
    let ports = &world.reconciler.ports;
    let question = Question {
        books: books(&world.db),
        ledger: world.reconciler.ledger.clone(),
        rules: ports.rules.current(),
        consumers: vec![Consumer::Currency, Consumer::Tier],
        since: None,
        grace_ms: 0,
        now: ports.clock.now(),
        redeliver: Some(Outbox::from(ports)),
    };
    balance(&question, &|_, _| {}).await.expect("a balance")
}

#[tokio::test]
async fn redeliver_counts_what_was_accepted_and_ends_at_a_target_that_is_away() {
    let world = World::new().await;
    world
        .db
        .own
        .run(
            "insert into purchase_ledger select 'p' || n, 'u-1', 'm-1', 50, 0, 'completed', true, '2026-01-15T10:00:00Z', null
                 from generate_series(1, 900) n;
             insert into crm_events.effects (effect_key, kind, merchant_id, user_id, state) values ('tier:m-1:u-9', 'tier', 'm-1', 'u-9', 'settled');
             insert into crm_events.announcements (id, effect_key, name, ts_ms, data, created_at) values
                 ('tier:m-1:u-9:1', 'tier:m-1:u-9', 'loyalty/tier.upgraded', 0, '{}', crm_events.clock() - interval '1 hour')",
        )
        .await;
    let away = Answer::Unavailable {
        detail: "away".to_owned(),
        retry_after: None,
    };
    for consumer in ["currency", "tier"] {
        world.inngest.trouble(consumer, away.clone());
    }
    let told = redeliver(&world).await;
    assert_eq!((told.redelivered, told.evaluated, told.stopped.is_some()), (0, 0, true));
    assert_eq!(world.inngest.requests(), 1, "of three pages");
    let missing = told.counts["currency"].missing;
    assert_eq!(missing, 900, "and everything is counted");
    world.inngest.relent();
    let told = redeliver(&world).await;
    // One upgrade that was waiting, and one that the evaluation led to.
    assert_eq!((told.redelivered, told.evaluated, told.stopped), (902, 1, None));
    assert_eq!(world.inngest.accepted().all().len(), 902);
    world.db.done().await;
}

#[tokio::test]
async fn the_wallet_is_compared_with_what_was_booked_page_by_page() {
    let db = Database::new().await;
    for id in ["a", "b", "c", "d", "e"] {
        let purchase = Purchase::new(id);
        db.own.run(&purchase.sql()).await;
        db.own
            .call("apply_award", &purchase.scheduled(100, super::CREATED, "unlimited"))
            .await;
        assert_eq!(db.own.settle("settle_award", &purchase.key()).await["booked_now"], 100);
    }
    db.own
        .run(
            "update wallet_ledger set amount = 99 where source_id = 'a';
             delete from wallet_ledger where source_id in ('d', 'e');
             -- Of an application's own: no award, and nothing that we booked.
             insert into wallet_ledger (user_id, merchant_id, amount, kind, source_type, source_id, created_at) values
                 ('u-1', 'm-1', -100, 'expire', 'purchase', 'b', now()), ('u-1', 'm-1', -500, 'spend', 'purchase', 'never', now()),
                 ('u-1', 'm-1', 7, 'earn', 'campaign', 'c', now()), ('u-1', 'm-1', 7, 'earn', 'purchase', 'stranger', now())",
        )
        .await;
    let found = books(&db).unbalanced().await.expect("compared");
    let found: Vec<_> = found
        .iter()
        .map(|one| (one.purchase_id.as_str(), one.in_wallet, one.booked))
        .collect();
    assert_eq!(
        found,
        [("a", 99, 100), ("d", 0, 100), ("e", 0, 100), ("stranger", 7, 0)]
    );
    for (function, pages) in [
        (
            "unbalanced_entries",
            [("", "b"), ("b", "stranger"), ("stranger", "null")],
        ),
        (
            "unbalanced_awards",
            [("", "award:b"), ("award:b", "award:d"), ("award:d", "null")],
        ),
    ] {
        for (after, next) in pages {
            let sql = format!("select coalesce(crm_events.{function}(nullif('{after}', ''), 2)->>'next', 'null')");
            assert_eq!(db.own.text(&sql).await, next, "{function} behind {after}");
        }
    }
    // What was settled before the cut-off, and never seeded, is none of ours.
    db.own
        .run(&Purchase::new("stranger").at("2026-01-01T00:00:00Z").sql())
        .await;
    db.own.run("select crm_events.effective_from('2026-01-02')").await;
    assert_eq!(books(&db).unbalanced().await.expect("compared").len(), 3);
    db.done().await;
}

#[tokio::test]
async fn the_wallet_of_ledgers_with_other_id_types_is_compared() {
    let db = super::identities::database().await;
    db.own
        .run(
            "insert into wallet_ledger (user_id, merchant_id, amount, kind, source_type, source_id, created_at)
                 select user_id, merchant_id, 7, 'earn', 'purchase', id, now() from purchase_ledger;
             insert into crm_events.effects (effect_key, kind, source_table, source_id, merchant_id, state, booked) values
                 ('award:text', 'award', 'purchase_ledger', 'text', '42', 'settled', 5)",
        )
        .await;
    let found = books(&db).unbalanced().await.expect("compared");
    let found: Vec<_> = found.iter().map(|one| (one.in_wallet, one.booked)).collect();
    assert_eq!(found, [(7, 0), (0, 5)]);
    db.own.run("select crm_events.effective_from('2026-02-01')").await;
    assert_eq!(books(&db).unbalanced().await.expect("compared").len(), 1);
    db.done().await;
}
