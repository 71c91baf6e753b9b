//! Grants of claims and referrals, fulfilments of codes: the row says whether there is one, and there is one.

use serde_json::{Value, json};

use super::{Database, TS_MS};

async fn outcome(db: &Database, function: &str, event: &Value) -> String {
    let answer = db.own.call(function, event).await;
    answer["outcome"].as_str().expect("an outcome").to_owned()
}

async fn claim(db: &Database, user: &str, status: &str) {
    db.own
        .run(&format!(
            "insert into mission_claims (id, user_id, merchant_id, mission_id, status, period, claimed_at) \
             values ('c', '{user}', 'm-1', 'three', '{status}', '2026-W03', now()) \
             on conflict (id) do update set user_id = excluded.user_id, status = excluded.status"
        ))
        .await;
}

fn claimed(user: &str, status: &str) -> Value {
    json!({"effect_key": "grant:c", "source": "mission_claim", "claim_id": "c", "merchant_id": "m-1", "user_id": user,
        "mission_id": "three", "period": "2026-W03", "program_rev": 0, "as_of_ms": TS_MS, "reason": "claimed",
        "basis": {"user_id": user, "merchant_id": "m-1", "mission_id": "three", "status": status, "period": "2026-W03"}})
}

async fn referral(db: &Database, id: &str, referrer: &str, status: &str) {
    db.own
        .run(&format!(
            "insert into referral_ledger (id, referrer_user_id, referee_user_id, merchant_id, status, created_at) \
             values ('{id}', '{referrer}', 'friend', 'm-1', '{status}', now()) \
             on conflict (id) do update set status = excluded.status"
        ))
        .await;
}

fn referred(id: &str, referrer: &str, side: &str, status: &str) -> Value {
    let user = if side == "referrer" { referrer } else { "friend" };
    json!({"effect_key": format!("referral:{id}:{side}"), "source": "referral", "referral_id": id, "side": side,
        "merchant_id": "m-1", "user_id": user, "program_rev": 0, "as_of_ms": TS_MS, "reason": "qualified",
        "basis": {"referrer_user_id": referrer, "referee_user_id": "friend", "merchant_id": "m-1", "status": status}})
}

// Edge case 25: a claim that is revoked after its reward takes it back once.
#[tokio::test]
async fn a_claim_is_granted_once_and_revoked_once() {
    let db = Database::new().await;
    assert_eq!(
        outcome(&db, "settle_grant", &claimed("u", "claimed")).await,
        "missing_row"
    );
    claim(&db, "u", "claimed").await;
    assert_eq!(outcome(&db, "settle_grant", &claimed("u", "claimed")).await, "granted");
    assert_eq!(
        outcome(&db, "settle_grant", &claimed("u", "claimed")).await,
        "unchanged"
    );
    assert_eq!(
        outcome(&db, "settle_grant", &claimed("u", "revoked")).await,
        "stale",
        "of a state that is not the row's"
    );
    claim(&db, "u", "revoked").await;
    assert_eq!(outcome(&db, "settle_grant", &claimed("u", "revoked")).await, "revoked");
    assert_eq!(
        outcome(&db, "settle_grant", &claimed("u", "revoked")).await,
        "unchanged"
    );
    assert_eq!(
        outcome(&db, "settle_grant", &claimed("u", "claimed")).await,
        "stale",
        "a late one"
    );
    let effect = db.own.effect("grant:c").await;
    assert_eq!((&effect["state"], &effect["booked"]), (&json!("settled"), &json!(0)));
    assert!(effect["stale_at"].is_null(), "it is as the row is");
    claim(&db, "u", "claimed").await;
    assert_eq!(
        outcome(&db, "settle_grant", &claimed("u", "claimed")).await,
        "granted",
        "claimed again"
    );
    db.done().await;
}

#[tokio::test]
async fn a_revocation_before_the_grant_grants_nothing() {
    let db = Database::new().await;
    claim(&db, "u", "revoked").await;
    assert_eq!(outcome(&db, "settle_grant", &claimed("u", "claimed")).await, "stale");
    assert_eq!(
        db.own.effect("grant:c").await,
        Value::Null,
        "nothing is to be done, so nothing is noted"
    );
    assert_eq!(
        outcome(&db, "settle_grant", &claimed("u", "revoked")).await,
        "unchanged"
    );
    db.done().await;
}

#[tokio::test]
async fn a_grant_whose_event_is_older_than_the_row_is_noted_until_the_newer_one_came() {
    let db = Database::new().await;
    claim(&db, "u", "claimed").await;
    let mut older = claimed("u", "claimed");
    older["basis"]["period"] = json!("2026-W02");
    assert_eq!(outcome(&db, "settle_grant", &older).await, "stale");
    let effect = db.own.effect("grant:c").await;
    assert_eq!(
        (effect["state"].as_str(), effect["stale_at"].is_null()),
        (Some("missing"), false)
    );
    assert_eq!(outcome(&db, "settle_grant", &claimed("u", "claimed")).await, "granted");
    assert!(db.own.effect("grant:c").await["stale_at"].is_null());
    db.done().await;
}

#[tokio::test]
async fn a_grant_whose_row_moves_to_another_user_is_looked_at_by_a_person() {
    let db = Database::new().await;
    claim(&db, "u", "claimed").await;
    outcome(&db, "settle_grant", &claimed("u", "claimed")).await;
    claim(&db, "other", "claimed").await;
    assert_eq!(
        outcome(&db, "settle_grant", &claimed("other", "claimed")).await,
        "review"
    );
    let effect = db.own.effect("grant:c").await;
    assert_eq!(
        (&effect["state"], &effect["booked_user_id"]),
        (&json!("review"), &json!("u"))
    );
    // Put right by somebody, and asked again.
    claim(&db, "u", "claimed").await;
    assert_eq!(db.own.settle("settle", "grant:c").await["outcome"], "unchanged");
    assert_eq!(db.own.effect("grant:c").await["state"], "settled");
    db.done().await;
}

// Edge case 28: both sides are granted and both are cancelled.
#[tokio::test]
async fn both_sides_of_a_referral_are_granted_and_revoked_each_once() {
    let db = Database::new().await;
    referral(&db, "r", "host", "qualified").await;
    for side in ["referrer", "referee", "referee"] {
        outcome(&db, "settle_grant", &referred("r", "host", side, "qualified")).await;
    }
    let users = "select effect_key, booked, booked_user_id from crm_events.effects order by 1";
    assert_eq!(
        db.own.rows(users).await,
        [
            json!({"effect_key": "referral:r:referee", "booked": 1, "booked_user_id": "friend"}),
            json!({"effect_key": "referral:r:referrer", "booked": 1, "booked_user_id": "host"})
        ]
    );
    referral(&db, "r", "host", "cancelled").await;
    for side in ["referrer", "referee"] {
        let event = referred("r", "host", side, "cancelled");
        assert_eq!(outcome(&db, "settle_grant", &event).await, "revoked");
        assert_eq!(outcome(&db, "settle_grant", &event).await, "unchanged");
    }
    db.done().await;
}

// Edge case 28: self-referral.
#[tokio::test]
async fn who_refers_himself_is_granted_nothing() {
    let db = Database::new().await;
    referral(&db, "r", "friend", "qualified").await;
    for side in ["referrer", "referee"] {
        let event = referred("r", "friend", side, "qualified");
        assert_eq!(outcome(&db, "settle_grant", &event).await, "unchanged");
    }
    assert_eq!(
        db.own.text("select sum(booked)::text from crm_events.effects").await,
        "0"
    );
    db.done().await;
}

// Edge case 28: double referrer.
#[tokio::test]
async fn a_second_referral_of_the_same_friend_is_looked_at_by_a_person() {
    let db = Database::new().await;
    referral(&db, "first", "host", "qualified").await;
    referral(&db, "second", "rival", "qualified").await;
    assert_eq!(
        outcome(&db, "settle_grant", &referred("first", "host", "referrer", "qualified")).await,
        "granted"
    );
    for side in ["referee", "referrer"] {
        assert_eq!(
            outcome(&db, "settle_grant", &referred("second", "rival", side, "qualified")).await,
            "review"
        );
    }
    assert_eq!(
        outcome(&db, "settle_grant", &referred("first", "host", "referee", "qualified")).await,
        "granted"
    );
    // The first one is taken back: now the second may be granted, when a person asks.
    referral(&db, "first", "host", "cancelled").await;
    for side in ["referrer", "referee"] {
        outcome(&db, "settle_grant", &referred("first", "host", side, "cancelled")).await;
    }
    for side in ["referrer", "referee"] {
        assert_eq!(
            db.own.settle("settle", &format!("referral:second:{side}")).await["outcome"],
            "granted"
        );
    }
    db.done().await;
}

#[tokio::test]
async fn two_referrals_of_one_friend_racing_are_one_grant_and_one_review() {
    let db = Database::new().await;
    for round in 0..10 {
        db.own
            .run(&format!(
                "insert into referral_ledger values ('a{round}', 'host', 'friend{round}', 'm-1', 'qualified', now()), \
                 ('b{round}', 'rival', 'friend{round}', 'm-1', 'qualified', now())"
            ))
            .await;
        let event = |id: &str, referrer: &str| {
            json!({"effect_key": format!("referral:{id}{round}:referee"), "source": "referral",
                "referral_id": format!("{id}{round}"), "side": "referee", "as_of_ms": TS_MS,
                "basis": {"referrer_user_id": referrer, "referee_user_id": format!("friend{round}"), "merchant_id": "m-1",
                    "status": "qualified"}})
        };
        let (one, two) = (db.session().await, db.session().await);
        let (event_a, event_b) = (event("a", "host"), event("b", "rival"));
        let (a, b) = tokio::join!(one.call("settle_grant", &event_a), two.call("settle_grant", &event_b));
        let mut outcomes = [
            a["outcome"].as_str().expect("text"),
            b["outcome"].as_str().expect("text"),
        ];
        outcomes.sort_unstable();
        assert_eq!(outcomes, ["granted", "review"]);
    }
    db.done().await;
}

#[tokio::test]
async fn a_redeemed_code_is_fulfilled_once_and_for_ever() {
    let db = Database::new().await;
    let redeemed = "2026-01-15T10:00:00Z";
    db.own
        .run(&format!(
            "insert into codes values ('k', 'SECRET', 'm-1', 'redeemed', 'u', '{redeemed}')"
        ))
        .await;
    let event = |status: &str| {
        json!({"effect_key": "code:k", "code_id": "k", "merchant_id": "m-1", "user_id": "u", "redeemed_at": redeemed,
            "as_of_ms": TS_MS, "reason": "redeemed",
            "basis": {"merchant_id": "m-1", "user_id": "u", "status": status, "redeemed_at": redeemed}})
    };
    assert_eq!(outcome(&db, "settle_code", &event("issued")).await, "stale");
    assert_eq!(outcome(&db, "settle_code", &event("redeemed")).await, "fulfilled");
    assert_eq!(outcome(&db, "settle_code", &event("redeemed")).await, "unchanged");
    db.own.run("update codes set status = 'void'").await;
    assert_eq!(outcome(&db, "settle_code", &event("redeemed")).await, "stale");
    assert_eq!(outcome(&db, "settle_code", &event("void")).await, "unchanged");
    let effect = db.own.effect("code:k").await;
    assert_eq!((&effect["booked"], &effect["stale_at"]), (&json!(1), &Value::Null));
    let everything = db
        .own
        .text("select jsonb_agg(to_jsonb(e))::text from crm_events.effects e")
        .await;
    assert!(
        !everything.contains("SECRET"),
        "the code itself is nobody's business here"
    );
    db.done().await;
}

#[tokio::test]
async fn a_code_that_is_void_before_it_was_fulfilled_is_not_fulfilled() {
    let db = Database::new().await;
    db.own
        .run("insert into codes values ('k', 'SECRET', 'm-1', 'void', null, '2026-01-15T10:00:00Z')")
        .await;
    let event = json!({"effect_key": "code:k", "code_id": "k", "merchant_id": "m-1", "user_id": null, "as_of_ms": TS_MS,
        "basis": {"merchant_id": "m-1", "user_id": null, "status": "redeemed", "redeemed_at": "2026-01-15T10:00:00Z"}});
    assert_eq!(outcome(&db, "settle_code", &event).await, "stale");
    assert_eq!(db.own.effect("code:k").await, Value::Null);
    db.done().await;
}
