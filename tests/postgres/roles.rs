//! Who may do what: what each role needs works, and nothing else does.

use serde_json::json;

use super::{Database, Purchase, Session};

const DENIED: &str = "42501";

/// A session of the owner that acts as that role.
async fn acting_as(db: &Database, role: &str) -> Session {
    let session = db.session().await;
    // In the real world a login role that is a member; a member's session has the role's rights.
    db.own.run(&format!("grant {role} to current_user")).await;
    session.run(&format!("set role {role}")).await;
    session
}

#[tokio::test]
async fn the_worker_calls_its_functions_and_reaches_no_ledger_itself() {
    let db = Database::new().await;
    db.own.run(&Purchase::new("p").sql()).await;
    let worker = acting_as(&db, "crm_worker").await;
    for call in [
        "select * from crm_events.compare_effects('[{\"effect_key\": \"award:p\"}]')",
        "select * from crm_events.evaluate_tiers('[]')",
        "select * from crm_events.record_progress('[]')",
        "select crm_events.announced('{}')",
        "select crm_events.announcement_rejected('x', 'y')",
        "select crm_events.mark_dead('[]')",
        "select crm_events.effective_from('2026-01-01')",
        "select * from crm_events.programs_documents()",
        "select crm_events.take_lease('a', 'b', 5)",
        "select crm_events.drop_lease('a', 'b')",
        "select * from crm_events.plan_heals('[]')",
        "select * from crm_events.unsent_announcements('1 minute', 5)",
        "select * from crm_events.suspect_effects(5)",
        "select * from crm_events.ledger_rows('codes', null, null, 5)",
        "select count(*) from crm_events.effects, crm_events.tier_history, crm_events.mission_sources",
    ] {
        worker.run(call).await;
    }
    let element = json!([{"merchant_id": "m-1", "user_id": "u-1", "effect_key": "tier:m-1:u-1", "program_rev": 1, "as_of_ms": 1,
        "rules": {"metric": "spend", "window": {"kind": "lifetime"}, "time_zone": "UTC", "timing": "immediate",
            "ladder": [{"name": "silver", "threshold": "1"}]}, "triggers": []}]);
    assert_eq!(
        worker
            .try_announcing("evaluate_tiers", &element.to_string())
            .await
            .expect("evaluated")
            .len(),
        1
    );
    for forbidden in [
        "select code from codes",
        "select id from purchase_ledger",
        "select id from wallet_ledger",
        "update purchase_ledger set status = 'refunded'",
        "insert into wallet_ledger (user_id, merchant_id, amount, kind, created_at) values ('u', 'm', 1, 'earn', now())",
        "delete from wallet_ledger",
        "truncate codes",
        "select id from purchase_ledger for share",
        "update crm_events.effects set booked = 0",
        "insert into crm_events.settings values ('clock_offset', '1 year')",
        "update crm_events.programs set time_zone = 'UTC'",
        "delete from crm_events.announcements",
        "select crm_events.settle_award('award:p')",
        "select crm_events.apply_award('{}')",
        "select crm_events.lock_wallet('m', 'u')",
        "select crm_events.seed_effects(now())",
        "create table crm_events.mine ()",
    ] {
        assert_eq!(worker.refusal(forbidden).await, DENIED, "{forbidden}");
    }
    db.done().await;
}

#[tokio::test]
async fn the_workflows_settle_and_cannot_read_the_ledgers() {
    let db = Database::new().await;
    let purchase = Purchase::new("p");
    db.own.run(&purchase.sql()).await;
    let workflows = acting_as(&db, "crm_workflows").await;
    let award = purchase.scheduled(5, super::CREATED, "unlimited");
    assert_eq!(workflows.call("apply_award", &award).await["outcome"], "applied");
    assert_eq!(workflows.settle("settle_award", "award:p").await["booked_now"], 5);
    for call in [
        "select crm_events.settle_grant('{\"source\": \"referral\", \"referral_id\": \"x\"}')",
        "select crm_events.settle_code('{\"code_id\": \"x\"}')",
        "select * from crm_events.upgrade_tier('tier:m-1:u-1')",
        "select crm_events.announced('{}')",
        "select * from crm_events.due_effects(5)",
        "select crm_events.settle('award:p')",
        "select crm_events.clock()",
    ] {
        workflows.run(call).await;
    }
    for forbidden in [
        "select id from purchase_ledger",
        "select effect_key from crm_events.effects",
        "insert into wallet_ledger (user_id, merchant_id, amount, kind, created_at) values ('u', 'm', 1, 'earn', now())",
        "select * from crm_events.evaluate_tiers('[]')",
        "select crm_events.effective_from('2026-01-01')",
        "select crm_events.announcement_rejected('x', 'y')",
    ] {
        assert_eq!(workflows.refusal(forbidden).await, DENIED, "{forbidden}");
    }
    db.done().await;
}

#[tokio::test]
async fn the_connector_reads_what_is_published_and_writes_its_own_two_tables() {
    let db = Database::new().await;
    let connector = acting_as(&db, "crm_connector").await;
    for published in db
        .own
        .rows("select tablename from pg_publication_tables where pubname = 'crm_cdc_publication'")
        .await
    {
        let table = published["tablename"].as_str().expect("a name");
        connector.run(&format!("select * from {table} limit 1")).await;
    }
    // As the templates of the connector have it.
    connector
        .run(
            "INSERT INTO public.dbz_heartbeat (id, beat_at) VALUES (1, now()) ON CONFLICT (id) DO UPDATE SET beat_at = EXCLUDED.beat_at; \
             insert into dbz_signal values ('a', 'b', null); delete from dbz_signal",
        )
        .await;
    for forbidden in [
        "update purchase_ledger set status = 'refunded'",
        "select crm_events.clock()",
        "delete from wallet_ledger",
    ] {
        assert_eq!(connector.refusal(forbidden).await, DENIED, "{forbidden}");
    }
    db.done().await;
}

#[tokio::test]
async fn nobody_else_may_call_anything() {
    let db = Database::new().await;
    let open = db
        .own
        .rows(
            "select p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
             where n.nspname = 'crm_events' and has_function_privilege('public', p.oid, 'execute')",
        )
        .await;
    assert_eq!(open, Vec::<serde_json::Value>::new());
    // Whoever calls them acts as the owner, so nothing they name may be somebody else's.
    let loose = db
        .own
        .rows(
            "select p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'crm_events' \
             and p.prosecdef and not coalesce(p.proconfig @> array['search_path=pg_catalog, pg_temp'], false)",
        )
        .await;
    assert_eq!(loose, Vec::<serde_json::Value>::new());
    db.done().await;
}
