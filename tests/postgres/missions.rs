//! Missions: progress is the sum of what the rows count now, completion happens once in a period.

use serde_json::{Value, json};

use super::{Database, Purchase, TS_MS, counted};

/// A share: mission, period, counted, target.
type Share<'a> = (&'a str, &'a str, &'a str, &'a str);

fn key(user: &str, mission: &str, period: &str) -> String {
    format!("mission:m-1:{mission}:{user}:{period}")
}

/// What a worker says of this state of the purchase.
fn element(purchase: &Purchase, rev: i64, shares: &[Share<'_>]) -> Value {
    let user = &purchase.user;
    let missions: Vec<Value> = shares
        .iter()
        .map(|(mission, period, counted, target)| {
            json!({"mission_id": mission, "effect_key": key(user, mission, period), "period": period,
                "trigger": "purchase_total", "counted": counted, "target": target})
        })
        .collect();
    json!({"merchant_id": "m-1", "user_id": user, "program_rev": rev, "as_of_ms": TS_MS, "reason": "counted",
        "effect_key": format!("mission_source:m-1:{user}:purchase_ledger:{}", purchase.id),
        "source": {"table": "purchase_ledger", "row_id": purchase.id, "version": "1", "op": "u"},
        "basis": purchase.basis(), "missions": missions})
}

async fn recorded(db: &Database, batch: &[Value]) -> Vec<Value> {
    let announcements = db.own.announcing("record_progress", &json!(batch)).await;
    db.own.announced(&announcements).await;
    announcements
}

/// (mission, progress, completed, completed now) of each announcement.
fn said(announcements: &[Value]) -> Vec<(String, String, bool, bool)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let flag = |value: &Value| value.as_bool().expect("a flag");
    announcements
        .iter()
        .map(|one| &one["data"])
        .map(|data| {
            let mission = text(&data["effect_key"]);
            (
                mission,
                text(&data["progress"]),
                flag(&data["completed"]),
                flag(&data["completed_now"]),
            )
        })
        .collect()
}

fn news(key: &str, progress: &str, completed: bool, now: bool) -> Vec<(String, String, bool, bool)> {
    vec![(key.to_owned(), progress.to_owned(), completed, now)]
}

#[tokio::test]
async fn progress_is_the_sum_over_rows_and_completes_once() {
    let db = Database::new().await;
    let mission = key("u-1", "spend", "2026-01");
    let (one, two) = (Purchase::new("1").worth("60"), Purchase::new("2").worth("50.5"));
    db.own.run(&one.sql()).await;
    db.own.run(&two.sql()).await;
    let first = element(&one, 1, &[("spend", "2026-01", "60", "100")]);
    let answer = db.own.announcing("record_progress", &json!([first])).await;
    assert_eq!(said(&answer), news(&mission, "60", false, false));
    assert_eq!(answer[0]["data"]["period"], "2026-01");
    assert_eq!(
        db.own.announcing("record_progress", &json!([first])).await,
        answer,
        "its answer was lost"
    );
    db.own.announced(&answer).await;
    assert_eq!(
        recorded(&db, &[first.clone(), first.clone()]).await,
        Vec::<Value>::new(),
        "a repetition counts nothing"
    );
    let second = element(&two, 1, &[("spend", "2026-01", "50.5", "100")]);
    assert_eq!(
        said(&recorded(&db, &[second]).await),
        news(&mission, "110.5", true, true)
    );
    let three = Purchase::new("3").worth("1");
    db.own.run(&three.sql()).await;
    let third = element(&three, 1, &[("spend", "2026-01", "1", "100")]);
    assert_eq!(
        said(&recorded(&db, &[third]).await),
        news(&mission, "111.5", true, false)
    );
    db.done().await;
}

// Edge case 25: a refund below the target takes the completion back from nobody; completed again it is not told again.
#[tokio::test]
async fn a_refund_takes_its_row_out_and_completion_stays() {
    let db = Database::new().await;
    let mission = key("u-1", "spend", "2026-01");
    let purchase = Purchase::new("1").worth("100");
    db.own.run(&purchase.sql()).await;
    let bought = element(&purchase, 1, &[("spend", "2026-01", "100", "100")]);
    assert_eq!(
        said(&recorded(&db, std::slice::from_ref(&bought)).await),
        news(&mission, "100", true, true)
    );
    let refund = purchase.clone().refunded("100", "refunded");
    db.own.run(&refund.sql()).await;
    assert_eq!(
        recorded(&db, std::slice::from_ref(&bought)).await,
        Vec::<Value>::new(),
        "of an older state"
    );
    let taken = element(&refund, 1, &[("spend", "2026-01", "0", "100")]);
    assert_eq!(said(&recorded(&db, &[taken]).await), news(&mission, "0", true, false));
    db.own.run(&purchase.sql()).await;
    assert_eq!(
        said(&recorded(&db, &[bought]).await),
        news(&mission, "100", true, false)
    );
    db.done().await;
}

// Edge case 26: a row that moves to another period, or was dated back, counts there and nowhere else.
#[tokio::test]
async fn a_row_that_moves_to_another_period_leaves_the_old_one() {
    let db = Database::new().await;
    let purchase = Purchase::new("1");
    db.own.run(&purchase.sql()).await;
    recorded(&db, &[element(&purchase, 1, &[("spend", "2026-01", "100", "500")])]).await;
    let moved = purchase.at("2025-12-31T10:00:00Z");
    db.own.run(&moved.sql()).await;
    // The worker tells what the row counts now; what it counted before is known here.
    let answer = recorded(&db, &[element(&moved, 1, &[("spend", "2025-12", "100", "500")])]).await;
    let both = [
        news(&key("u-1", "spend", "2025-12"), "100", false, false),
        news(&key("u-1", "spend", "2026-01"), "0", false, false),
    ];
    assert_eq!(said(&answer), both.concat());
    db.done().await;
}

// Edge case 14 for missions: a merge takes the row's progress along.
#[tokio::test]
async fn a_row_that_moves_to_another_user_counts_for_that_user_and_back() {
    let db = Database::new().await;
    let mine = Purchase::new("1");
    let theirs = mine.clone().of("u-2");
    let share: &[Share<'_>] = &[("spend", "2026-01", "100", "500")];
    db.own.run(&mine.sql()).await;
    recorded(&db, &[element(&mine, 1, share)]).await;
    for (purchase, from) in [(&theirs, "u-1"), (&mine, "u-2"), (&theirs, "u-1")] {
        db.own.run(&purchase.sql()).await;
        let mut answer = said(&recorded(&db, &[element(purchase, 1, share)]).await);
        answer.sort();
        let mut both = [
            news(&key(&purchase.user, "spend", "2026-01"), "100", false, false),
            news(&key(from, "spend", "2026-01"), "0", false, false),
        ]
        .concat();
        both.sort();
        assert_eq!(answer, both);
    }
    db.done().await;
}

#[tokio::test]
async fn at_an_equal_basis_a_lower_revision_changes_nothing_and_a_higher_one_replaces_the_shares() {
    let db = Database::new().await;
    let purchase = Purchase::new("1");
    db.own.run(&purchase.sql()).await;
    recorded(&db, &[element(&purchase, 2, &[("spend", "2026-01", "100", "500")])]).await;
    let older = element(&purchase, 1, &[("visits", "2026-W03", "1", "3")]);
    assert_eq!(recorded(&db, &[older]).await, Vec::<Value>::new());
    let newer = element(&purchase, 3, &[("visits", "2026-W03", "1", "3")]);
    let both = [
        news(&key("u-1", "spend", "2026-01"), "0", false, false),
        news(&key("u-1", "visits", "2026-W03"), "1", false, false),
    ];
    assert_eq!(said(&recorded(&db, &[newer]).await), both.concat());
    db.done().await;
}

// Edge case 27: a mission is completed under the target it began with.
#[tokio::test]
async fn a_mission_edited_while_it_runs_keeps_the_target_it_began_with() {
    let db = Database::new().await;
    let mission = key("u-1", "spend", "2026-01");
    let (one, two) = (Purchase::new("1").worth("60"), Purchase::new("2").worth("40"));
    db.own.run(&one.sql()).await;
    db.own.run(&two.sql()).await;
    recorded(&db, &[element(&one, 1, &[("spend", "2026-01", "60", "100")])]).await;
    let answer = recorded(&db, &[element(&two, 2, &[("spend", "2026-01", "40", "1000")])]).await;
    assert_eq!(said(&answer), news(&mission, "100", true, true));
    assert_eq!(answer[0]["data"]["target"], "100");
    db.done().await;
}

#[tokio::test]
async fn a_row_that_counts_nothing_makes_no_mission() {
    let db = Database::new().await;
    let pending = Purchase {
        status: "pending",
        ..Purchase::new("1")
    };
    db.own.run(&pending.sql()).await;
    let nothing = element(&pending, 1, &[("spend", "2026-01", "0", "100")]);
    assert_eq!(recorded(&db, &[nothing]).await, Vec::<Value>::new());
    assert_eq!(
        db.own
            .text("select count(*)::text from crm_events.effects where kind = 'mission'")
            .await,
        "0"
    );
    db.done().await;
}

#[tokio::test]
async fn a_row_that_no_mission_looks_at_or_ever_did_leaves_no_trace() {
    let db = Database::new().await;
    let purchase = Purchase::new("1").worth("60");
    db.own.run(&purchase.sql()).await;
    assert!(recorded(&db, &[element(&purchase, 1, &[])]).await.is_empty());
    assert_eq!(db.own.text("select count(*)::text from crm_events.effects").await, "0");
    // Where it once counted, it counts no longer.
    recorded(&db, &[element(&purchase, 1, &[("spend", "2026-01", "60", "100")])]).await;
    let answer = recorded(&db, &[element(&purchase, 2, &[])]).await;
    assert_eq!(said(&answer), news(&key("u-1", "spend", "2026-01"), "0", false, false));
    db.done().await;
}

#[tokio::test]
async fn a_form_counts_and_a_row_that_is_gone_does_not() {
    let db = Database::new().await;
    db.own
        .run("insert into form_submissions values ('f', 'welcome', 'u-1', 'm-1', '2026-01-15T10:00:00Z')")
        .await;
    let form = |row: &str| {
        json!({"merchant_id": "m-1", "user_id": "u-1", "effect_key": format!("mission_source:m-1:u-1:form_submissions:{row}"),
            "source": {"table": "form_submissions", "row_id": row, "version": "1", "op": "c"}, "program_rev": 1,
            "as_of_ms": TS_MS, "reason": "counted",
            "basis": {"form_id": "welcome", "user_id": "u-1", "merchant_id": "m-1", "submitted_at": "2026-01-15T10:00:00Z"},
            "missions": [{"mission_id": "hello", "effect_key": key("u-1", "hello", "lifetime"), "period": "lifetime",
                "trigger": "form", "counted": "1", "target": "1"}]})
    };
    let answer = recorded(&db, &[form("gone"), form("f")]).await;
    assert_eq!(said(&answer), news(&key("u-1", "hello", "lifetime"), "1", true, true));
    db.done().await;
}

// Edge case 24: two rows complete it at the same moment.
#[tokio::test]
async fn two_sessions_that_complete_a_mission_at_once_complete_it_once() {
    let db = Database::new().await;
    let (one, two) = (db.session().await, db.session().await);
    for round in 0..20 {
        let period = format!("round-{round}");
        let rows = [Purchase::new(&format!("a{round}")), Purchase::new(&format!("b{round}"))];
        for row in &rows {
            db.own.run(&row.sql()).await;
        }
        let calls = rows.map(|row| json!([element(&row, 1, &[("spend", &period, "100", "100")])]));
        let (a, b) = tokio::join!(
            one.announcing("record_progress", &calls[0]),
            two.announcing("record_progress", &calls[1])
        );
        // Whoever comes second is given what the first has not confirmed, too: each id tells one thing.
        let told: std::collections::BTreeMap<String, bool> = a
            .iter()
            .chain(&b)
            .map(|one| {
                (
                    one["id"].as_str().expect("an id").to_owned(),
                    one["data"]["completed_now"] == json!(true),
                )
            })
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told.values().filter(|now| **now).count(), 1, "{told:?}");
    }
    db.done().await;
}

#[tokio::test]
async fn a_batch_with_several_changes_of_many_rows_is_told_once_a_mission() {
    let db = Database::new().await;
    let mut batch = Vec::new();
    for number in 0..60 {
        let purchase = Purchase::new(&format!("p{number}")).of(&format!("u-{}", number % 3));
        db.own.run(&purchase.sql()).await;
        let share: &[Share<'_>] = &[("spend", "2026-01", "100", "1000"), ("visits", "2026-W03", "1", "5")];
        batch.push(element(&purchase.clone().worth("1"), 1, share));
        batch.push(element(&purchase, 1, share));
        batch.push(element(&purchase, 1, share));
    }
    let answer = recorded(&db, &batch).await;
    assert_eq!(
        counted(
            answer
                .iter()
                .map(|one| one["data"]["mission_id"].as_str().expect("text"))
        ),
        [("spend", 3), ("visits", 3)].into()
    );
    assert!(answer.iter().all(|one| one["data"]["completed_now"] == json!(true)));
    assert!(
        answer
            .iter()
            .all(|one| ["2000", "20"].contains(&one["data"]["progress"].as_str().expect("text"))),
        "{answer:?}"
    );
    db.done().await;
}

#[tokio::test]
async fn an_announcement_has_the_time_of_the_rows_that_led_to_it() {
    let db = Database::new().await;
    let january: &[Share<'_>] = &[("spend", "2026-01", "100", "500")];
    let mut batch = Vec::new();
    for (number, user) in [(0, "u-1"), (1, "u-1"), (2, "u-2"), (3, "u-3")] {
        let purchase = Purchase::new(&format!("p{number}")).of(user);
        db.own.run(&purchase.sql()).await;
        let mut one = element(&purchase, 1, january);
        one["as_of_ms"] = json!(TS_MS + number);
        batch.push(one);
    }
    // Of an older state: it leads to nothing.
    batch[3]["basis"]["final_amount"] = json!("1");
    let told = |announcements: &[Value]| {
        let data = announcements.iter().map(|one| &one["data"]);
        let mut told: Vec<(String, i64)> = data
            .map(|data| {
                (
                    data["user_id"].as_str().expect("a user").to_owned(),
                    data["as_of_ms"].as_i64().expect("a time"),
                )
            })
            .collect();
        told.sort();
        told
    };
    let answer = recorded(&db, &batch).await;
    assert_eq!(
        told(&answer),
        [("u-1".to_owned(), TS_MS + 1), ("u-2".to_owned(), TS_MS + 2)]
    );
    assert!(
        answer.iter().all(|one| one["ts_ms"] == one["data"]["as_of_ms"]),
        "{answer:?}"
    );
    // A row that moves is what happened to whom it left, too; who is only in the same batch has his own time.
    let moved = Purchase::new("p0").of("u-4");
    let fourth = Purchase::new("p4").of("u-2");
    db.own.run(&moved.sql()).await;
    db.own.run(&fourth.sql()).await;
    let mut batch = [element(&moved, 1, january), element(&fourth, 1, january)];
    batch[0]["as_of_ms"] = json!(TS_MS + 20);
    batch[1]["as_of_ms"] = json!(TS_MS + 30);
    let expected = [("u-1", 20), ("u-2", 30), ("u-4", 20)].map(|(user, later)| (user.to_owned(), TS_MS + later));
    assert_eq!(told(&recorded(&db, &batch).await), expected);
    db.done().await;
}

#[tokio::test]
async fn what_was_announced_and_not_sent_is_given_again_although_the_row_has_changed_since() {
    let db = Database::new().await;
    let bought = Purchase::new("1").worth("60");
    db.own.run(&bought.sql()).await;
    let before = element(&bought, 1, &[("spend", "2026-01", "60", "100")]);
    let cut_off = db.own.announcing("record_progress", &json!([before])).await;
    assert_eq!(
        said(&cut_off),
        news(&key("u-1", "spend", "2026-01"), "60", false, false)
    );
    db.own
        .run("update purchase_ledger set refunded_amount = 10 where id = '1'")
        .await;
    assert_eq!(
        db.own.announcing("record_progress", &json!([before])).await,
        cut_off,
        "its record may not end before it is sent"
    );
    db.done().await;
}
