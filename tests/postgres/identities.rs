//! Ledgers as some applications have them: ids that are uuid or bigint, statuses that are enums, more columns.

use serde_json::{Value, json};

use super::{CREATED, Database, Ids, TS_MS};

/// There before `migrate`. Columns have names that our functions use for variables, too.
pub(super) const LEDGERS: &str = "
    create type purchase_status as enum ('pending', 'completed', 'refunded', 'cancelled');
    create type wallet_kind as enum ('earn', 'spend', 'expire', 'adjust', 'clawback');
    create table purchase_ledger (id uuid primary key, user_id uuid not null, merchant_id bigint not null,
        final_amount numeric not null, refunded_amount numeric, status purchase_status not null, earn_currency boolean not null,
        created_at timestamp not null, completed_at timestamp, purchase text, member text, source_id text, total text, metric text);
    create table wallet_ledger (id bigint generated always as identity primary key, user_id uuid not null, merchant_id bigint not null,
        amount bigint not null, kind wallet_kind not null, source_type varchar(20), source_id uuid, created_at timestamptz not null,
        difference text, owner_id text, shop_id text);
    create table referral_ledger (id bigint primary key, referrer_user_id uuid not null, referee_user_id uuid not null,
        merchant_id bigint not null, status varchar(20) not null, created_at timestamptz not null, referral text);
    create table mission_claims (id bigint primary key, user_id uuid not null, merchant_id bigint not null, mission_id bigint not null,
        status text not null, period text, claimed_at timestamptz, claim text);
    create table codes (id uuid primary key, code text not null, merchant_id bigint not null, status text not null, user_id uuid,
        redeemed_at timestamptz, voucher text);
    create table form_submissions (id bigint primary key, form_id uuid not null, user_id uuid not null, merchant_id bigint not null,
        submitted_at timestamptz not null, submission text);";

const PURCHASE: &str = "00000000-0000-4000-8000-00000000000a";
const USER: &str = "00000000-0000-4000-8000-000000000001";
const FRIEND: &str = "00000000-0000-4000-8000-000000000002";

fn basis() -> Value {
    json!({"user_id": USER, "merchant_id": "42", "final_amount": "100", "refunded_amount": "0", "status": "completed",
        "earn_currency": true, "created_at": CREATED, "completed_at": null})
}

pub(super) async fn database() -> Database {
    let db = Database::with(Ids::Mixed).await;
    db.own
        .run(&format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
             values ('{PURCHASE}', '{USER}', 42, 100, 'completed', true, '2026-01-15T10:00:00')"
        ))
        .await;
    db
}

fn award() -> Value {
    json!({"purchase_id": PURCHASE, "effect_key": format!("award:{PURCHASE}"), "target_points": "100", "due_at": CREATED,
        "program_rev": 1, "refund_policy": "within_balance", "basis": basis(), "as_of_ms": TS_MS})
}

#[tokio::test]
async fn awards_are_booked_in_ledgers_with_other_id_types() {
    let db = database().await;
    assert_eq!(db.own.call("apply_award", &award()).await["outcome"], "applied");
    let settled = db.own.settle("settle_award", &format!("award:{PURCHASE}")).await;
    assert_eq!(
        (&settled["outcome"], &settled["booked_now"]),
        (&json!("settled"), &json!(100))
    );
    db.own
        .run("update purchase_ledger set status = 'refunded', refunded_amount = 100")
        .await;
    let mut refund = award();
    refund["target_points"] = json!("0");
    refund["basis"]["status"] = json!("refunded");
    refund["basis"]["refunded_amount"] = json!("100.00");
    assert_eq!(db.own.call("apply_award", &refund).await["outcome"], "applied");
    assert_eq!(
        db.own.settle("settle_award", &format!("award:{PURCHASE}")).await["booked_now"],
        -100
    );
    let entries = db
        .own
        .rows("select kind, amount, source_id from wallet_ledger order by id")
        .await;
    assert_eq!(
        entries,
        [
            json!({"kind": "earn", "amount": 100, "source_id": PURCHASE}),
            json!({"kind": "clawback", "amount": -100, "source_id": PURCHASE})
        ]
    );
    db.done().await;
}

#[tokio::test]
async fn members_are_evaluated_in_ledgers_with_other_id_types() {
    let db = database().await;
    let key = format!("tier:42:{USER}");
    let tier = |metric: &str| {
        json!([{"merchant_id": "42", "user_id": USER, "effect_key": key, "program_rev": 1, "as_of_ms": TS_MS,
            "rules": {"metric": metric, "window": {"kind": "rolling_months", "months": 120}, "time_zone": "UTC", "timing": "immediate",
                "ladder": [{"name": "silver", "threshold": "100"}]}, "triggers": []}])
    };
    assert_eq!(
        db.own.announcing("evaluate_tiers", &tier("points")).await,
        Vec::<Value>::new()
    );
    assert_eq!(db.own.announcing("evaluate_tiers", &tier("spend")).await.len(), 1);
    let form = json!({"form_id": FRIEND, "user_id": USER, "merchant_id": "42", "submitted_at": CREATED});
    db.own
        .run(&format!(
            "insert into form_submissions values (7, '{FRIEND}', '{USER}', 42, '{CREATED}')"
        ))
        .await;
    let recorded = |table: &str, row: &str, basis: &Value| {
        json!({"merchant_id": "42", "user_id": USER, "effect_key": format!("mission_source:42:{USER}:{table}:{row}"),
            "source": {"table": table, "row_id": row, "version": "1", "op": "c"}, "program_rev": 1, "as_of_ms": TS_MS, "basis": basis,
            "missions": [{"mission_id": "x", "effect_key": format!("mission:42:x:{USER}:2026"), "period": "2026", "trigger": "form",
                "counted": "1", "target": "2"}]})
    };
    let batch = json!([
        recorded("form_submissions", "7", &form),
        recorded("purchase_ledger", PURCHASE, &basis())
    ]);
    let announced = db.own.announcing("record_progress", &batch).await;
    assert_eq!(
        (announced.len(), &announced[0]["data"]["completed_now"]),
        (1, &json!(true))
    );
    db.done().await;
}

#[tokio::test]
async fn grants_and_codes_are_settled_and_seeds_are_sown_in_ledgers_with_other_id_types() {
    let db = database().await;
    db.own
        .run(&format!(
            "insert into mission_claims values (1, '{USER}', 42, 9, 'claimed'); \
             insert into referral_ledger values (1, '{USER}', '{FRIEND}', 42, 'qualified', now()); \
             insert into codes values ('{FRIEND}', 'SECRET', 42, 'redeemed', null, '{CREATED}')"
        ))
        .await;
    let claim = json!({"effect_key": "grant:1", "source": "mission_claim", "claim_id": "1", "as_of_ms": TS_MS,
        "basis": {"user_id": USER, "merchant_id": "42", "mission_id": "9", "status": "claimed", "period": null}});
    assert_eq!(db.own.call("settle_grant", &claim).await["outcome"], "granted");
    let referral = json!({"effect_key": "referral:1:referee", "source": "referral", "referral_id": "1", "side": "referee",
        "as_of_ms": TS_MS, "basis": {"referrer_user_id": USER, "referee_user_id": FRIEND, "merchant_id": "42", "status": "qualified"}});
    assert_eq!(db.own.call("settle_grant", &referral).await["outcome"], "granted");
    let code = json!({"effect_key": format!("code:{FRIEND}"), "code_id": FRIEND, "as_of_ms": TS_MS,
        "basis": {"merchant_id": "42", "user_id": null, "status": "redeemed", "redeemed_at": CREATED}});
    assert_eq!(db.own.call("settle_code", &code).await["outcome"], "fulfilled");
    let mut letter = json!({"effect_key": format!("award:{PURCHASE}"), "source_table": "purchase_ledger", "source_id": PURCHASE,
        "merchant_id": "42", "user_id": USER, "reason": "points_overflow"});
    letter["basis"] = basis();
    db.own.call_nothing("mark_dead", &json!([letter])).await;
    assert_eq!(db.own.effect(&format!("award:{PURCHASE}")).await["state"], "dead");
    db.own.run("delete from crm_events.effects where kind = 'award'").await;
    assert_eq!(
        db.own
            .rows("select settled, open from crm_events.seed_effects('2027-01-01')")
            .await,
        [json!({"settled": 0, "open": 1})]
    );
    assert_eq!(
        db.own
            .text("select purchase_id from crm_events.open_purchases('2027-01-01')")
            .await,
        PURCHASE
    );
    let compared = db
        .own
        .standing(&json!({"effect_key": format!("award:{PURCHASE}"), "basis": basis(), "target": 0, "due_at": null, "program_rev": 0}))
        .await;
    assert_eq!(compared, "equal");
    db.done().await;
}

#[tokio::test]
async fn an_index_of_the_own_type_finds_the_row() {
    let db = database().await;
    db.own
        .run(&format!(
            "insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
             select gen_random_uuid(), '{USER}', 42, 1, 'pending', true, now() from generate_series(1, 5000)"
        ))
        .await;
    db.own.run("analyze purchase_ledger").await;
    let scans = async || {
        db.own.run("select pg_stat_force_next_flush()").await;
        let seen = "select seq_scan::text || ' ' || (idx_scan > 0)::text from pg_stat_user_tables where relname = 'purchase_ledger'";
        db.own.text(seen).await
    };
    let before = scans().await;
    for _ in 0..20 {
        db.own.call("apply_award", &award()).await;
    }
    let after = scans().await;
    assert_eq!(
        before.split(' ').next(),
        after.split(' ').next(),
        "rows were searched for without the index"
    );
    assert!(after.ends_with("true"), "{after}");
    db.done().await;
}
