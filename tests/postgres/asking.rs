//! `reconcile` and `explain` of an id, as people call them.

use std::process::Stdio;
use std::sync::Arc;

use crm_event_processors::clock::SystemClock;
use crm_event_processors::inngest::receiver::{Receiver, ReceiverSettings, Recorder};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Database, Purchase};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

const RULES: &str = r#"{"currency": {"rate": 1, "rounding": "floor", "activation": {"kind": "immediate"}},
    "tiers": {"ladder": [{"name": "silver", "threshold": "150"}], "metric": "spend", "window": {"kind": "lifetime"},
        "timing": "immediate"}, "refund_policy": "unlimited"}"#;

/// With a program and a cut-off.
async fn database() -> Database {
    let db = Database::new().await;
    db.own
        .run(&format!(
            "select crm_events.effective_from('1970-01-01');
             insert into crm_events.programs values ('*', 'UTC');
             insert into crm_events.program_versions values ('*', 1, '1970-01-01', '{RULES}')"
        ))
        .await;
    db
}

async fn ask(db: &Database, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", db.url())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran {
        code: output.status.code().expect("it ended by itself"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

async fn reconcile(db: &Database) -> (i32, Value) {
    let ran = ask(db, &["reconcile", "--format", "json"], &[]).await;
    let json = serde_json::from_str(&ran.out);
    (
        ran.code,
        json.unwrap_or_else(|error| panic!("{error}: {} {}", ran.out, ran.err)),
    )
}

/// Bought and booked.
async fn settled(db: &Database, id: &str) -> Purchase {
    let purchase = Purchase::new(id);
    db.own.run(&purchase.sql()).await;
    let event = purchase.scheduled(100, super::CREATED, "unlimited");
    assert_eq!(db.own.call("apply_award", &event).await["outcome"], "applied");
    assert_eq!(db.own.settle("settle_award", &purchase.key()).await["booked_now"], 100);
    purchase
}

/// Times of the test's own day are not the same tomorrow.
fn without_times(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let core = word.trim_end_matches(['\n', '.', ',', ':', ')']);
        let is_time = core.len() == 27 && core.ends_with('Z') && core.as_bytes().get(10) == Some(&b'T');
        if is_time {
            word.replace(core, "<time>")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_member_whose_rows_add_nothing_to_a_tier_is_no_finding() {
    let db = database().await;
    let unpaid = "insert into purchase_ledger (id, user_id, merchant_id, final_amount, status, earn_currency, created_at) \
                  values ('unpaid', 'u-9', 'm-1', 500, 'pending', true, '2026-01-15')";
    db.own.run(unpaid).await;
    let (code, balance) = reconcile(&db).await;
    assert_eq!((code, &balance["findings"]), (0, &json!([])), "{balance}");
    db.own.run("update purchase_ledger set status = 'completed'").await;
    let (code, balance) = reconcile(&db).await;
    let missing = balance["findings"].as_array().expect("a list").iter();
    let missing: Vec<&Value> = missing.map(|finding| &finding["subject"]).collect();
    assert_eq!(
        (code, missing),
        (1, vec![&json!("award:unpaid"), &json!("tier:m-1:u-9")]),
        "{balance}"
    );
    db.done().await;
}

#[tokio::test]
async fn books_that_balance_exit_0_and_every_way_of_not_doing_so_is_found() {
    let db = database().await;
    settled(&db, "settled").await;
    let element = json!([{"merchant_id": "m-1", "user_id": "u-1", "effect_key": "tier:m-1:u-1", "program_rev": 1, "as_of_ms": super::TS_MS,
        "rules": {"metric": "spend", "window": {"kind": "lifetime"}, "time_zone": "UTC", "timing": "immediate",
            "ladder": [{"name": "silver", "threshold": "150"}]}, "triggers": []}]);
    db.own.announcing("evaluate_tiers", &element).await;
    // What an application writes under a purchase on its own account is no award.
    db.own
        .run(
            "insert into wallet_ledger (user_id, merchant_id, amount, kind, source_type, source_id, created_at) values
                 ('u-1', 'm-1', -100, 'expire', 'purchase', 'settled', now()), ('u-1', 'm-1', -5, 'spend', 'purchase', 'paid', now())",
        )
        .await;
    let (code, balance) = reconcile(&db).await;
    assert_eq!(
        (code, &balance["findings"], &balance["unbalanced"]),
        (0, &json!([]), &json!([])),
        "{balance}"
    );
    assert_eq!(
        (
            &balance["counts"]["currency"]["settled"],
            &balance["counts"]["tier"]["settled"]
        ),
        (&json!(1), &json!(1))
    );

    let now = db.own.text("select crm_events.rfc3339(now())").await;
    db.own.run(&Purchase::new("young").at(&now).sql()).await;
    db.own.run(&Purchase::new("missing").sql()).await;
    let differs = settled(&db, "differs").await;
    db.own.run(&differs.refunded("40.00", "partially_refunded").sql()).await;
    let stale = settled(&db, "stale").await;
    let event = stale.clone().worth("90.00").scheduled(90, super::CREATED, "unlimited");
    db.own.run(&stale.worth("80.00").sql()).await;
    assert_eq!(db.own.call("apply_award", &event).await["outcome"], "stale");
    let dead = Purchase::new("dead");
    db.own.run(&dead.sql()).await;
    let letter = json!([{"effect_key": "award:dead", "source_table": "purchase_ledger", "source_id": "dead", "merchant_id": "m-1",
        "user_id": "u-1", "basis": dead.basis(), "reason": "inngest_rejected"}]);
    db.own.call_nothing("mark_dead", &letter).await;
    let moved = settled(&db, "moved").await.of("u-2");
    db.own.run(&moved.sql()).await;
    db.own
        .call("apply_award", &moved.scheduled(100, super::CREATED, "unlimited"))
        .await;
    assert_eq!(db.own.settle("settle_award", "award:moved").await["outcome"], "review");
    settled(&db, "unbalanced").await;
    db.own
        .run("update wallet_ledger set amount = 99 where source_id = 'unbalanced'")
        .await;
    db.own
        .run(
            "insert into wallet_ledger (user_id, merchant_id, amount, kind, source_type, source_id, created_at)
              values ('u-9', 'm-1', 7, 'earn', 'purchase', 'unknown', now())",
        )
        .await;

    let (code, balance) = reconcile(&db).await;
    let currency = &balance["counts"]["currency"];
    assert_eq!(
        *currency,
        json!({"eligible": 8, "settled": 2, "scheduled": 0, "in_flight": 1, "overdue": 0, "missing": 1, "differs": 1, "stale": 1,
            "dead": 1, "review": 1, "unsent": 0}),
        "{balance}"
    );
    assert_eq!(code, 1);
    assert_eq!(
        balance["unbalanced"],
        json!([{"purchase_id": "unbalanced", "merchant_id": "m-1", "user_id": "u-1", "in_wallet": 99, "booked": 100},
            {"purchase_id": "unknown", "merchant_id": "m-1", "user_id": "u-9", "in_wallet": 7, "booked": 0}])
    );
    let ran = ask(&db, &["reconcile", "--limit", "3"], &[]).await;
    assert_eq!(ran.code, 1);
    for part in [
        "differs    award:differs",
        "not balanced: 1 dead, 1 differs",
        "2 unbalanced",
        "more: --limit",
    ] {
        assert!(ran.out.contains(part), "{part} is not in {}", ran.out);
    }
    db.done().await;
}

#[tokio::test]
async fn redeliver_sends_what_is_missing_the_normal_way_and_says_how_many() {
    let db = database().await;
    settled(&db, "settled").await;
    for id in ["a", "b"] {
        db.own.run(&Purchase::new(id).sql()).await;
    }
    let inbox = Arc::new(Recorder::default());
    let settings = ReceiverSettings::default();
    let receiver = Receiver::start(settings, inbox.clone(), Arc::new(SystemClock))
        .await
        .expect("a free port");
    let (redis, inngest) = (super::stack("REDIS_URL"), receiver.base_url());
    let variables = [
        ("REDIS_URL", redis.as_str()),
        ("INNGEST_BASE_URL", &inngest),
        ("INNGEST_EVENT_KEY", "key"),
    ];
    let ran = ask(
        &db,
        &["reconcile", "--redeliver", "--consumers", "currency"],
        &variables,
    )
    .await;
    assert_eq!(ran.code, 1, "{} {}", ran.out, ran.err);
    assert!(ran.out.contains("sent now: 2"), "{}", ran.out);
    let sent = inbox.log().all();
    assert_eq!(sent.len(), 2);
    for event in sent {
        assert!(event.id.contains("#r"), "{}", event.id);
        assert_eq!(db.own.call("apply_award", &event.data).await["outcome"], "applied");
        db.own
            .settle("settle_award", event.data["effect_key"].as_str().expect("a key"))
            .await;
    }
    let ran = ask(&db, &["reconcile", "--consumers", "currency"], &[]).await;
    assert_eq!(ran.code, 0, "{}", ran.out);
    let missing = ask(&db, &["reconcile", "--redeliver"], &[]).await;
    assert_eq!(missing.code, 78);
    for name in ["REDIS_URL is missing", "INNGEST_EVENT_KEY is missing"] {
        assert!(missing.err.contains(name), "{}", missing.err);
    }
    receiver.stop().await;
    db.done().await;
}

#[tokio::test]
async fn a_database_that_is_away_is_69_and_one_without_a_cut_off_is_78() {
    let db = Database::new().await;
    let away = ask(
        &db,
        &["reconcile", "--database-url", "postgres://crm:crm@127.0.0.1:1/crm"],
        &[],
    )
    .await;
    assert_eq!(away.code, 69, "{}", away.err);
    let unclear = ask(&db, &["reconcile"], &[]).await;
    assert_eq!(unclear.code, 78, "{}", unclear.err);
    assert!(unclear.err.contains("LEDGER_EFFECTIVE_FROM"), "{}", unclear.err);
    db.done().await;
}

#[tokio::test]
async fn a_purchase_is_explained_with_what_was_decided_what_was_done_and_what_follows() {
    let db = database().await;
    settled(&db, "p").await;
    db.own
        .run("update purchase_ledger set metadata = '{\"note\": \"private\"}'")
        .await;
    let ran = ask(&db, &["explain", "p"], &[]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!ran.out.contains("private"), "{}", ran.out);
    insta::assert_snapshot!("purchase", without_times(&ran.out));
    let json = ask(&db, &["explain", "--purchase", "p", "--format", "json"], &[]).await;
    let answer: Value = serde_json::from_str(&json.out).expect("JSON");
    let award = &answer["rows"][0]["decisions"][0];
    assert_eq!(
        (&award["place"], &award["effect"]["booked"]),
        (&json!("settled"), &json!(100)),
        "{answer}"
    );
    let nobody = ask(&db, &["explain", "nobody"], &[]).await;
    assert_eq!(
        (nobody.code, nobody.out.as_str()),
        (
            1,
            "Nothing of that name is in the ledgers, and nothing is known of such a member.\n"
        )
    );
    db.done().await;
}

#[tokio::test]
async fn a_member_is_explained_with_points_tier_and_what_is_not_settled() {
    let db = database().await;
    settled(&db, "p").await;
    settled(&db, "q").await;
    let element = json!([{"merchant_id": "m-1", "user_id": "u-1", "effect_key": "tier:m-1:u-1", "program_rev": 1, "as_of_ms": super::TS_MS,
        "rules": {"metric": "spend", "window": {"kind": "lifetime"}, "time_zone": "UTC", "timing": "immediate",
            "ladder": [{"name": "silver", "threshold": "150"}]}, "triggers": []}]);
    db.own.announcing("evaluate_tiers", &element).await;
    let waiting = Purchase::new("waiting");
    db.own.run(&waiting.sql()).await;
    db.own
        .call(
            "apply_award",
            &waiting.scheduled(100, "2099-01-01T00:00:00Z", "unlimited"),
        )
        .await;
    let ran = ask(&db, &["explain", "m-1:u-1"], &[]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    insta::assert_snapshot!("member", without_times(&ran.out));
    db.done().await;
}

#[tokio::test]
async fn an_announcement_that_was_rejected_is_found_and_explained_until_somebody_dealt_with_it() {
    let db = database().await;
    settled(&db, "p").await;
    let element = json!([{"merchant_id": "m-1", "user_id": "u-1", "effect_key": "tier:m-1:u-1", "program_rev": 1, "as_of_ms": super::TS_MS,
        "rules": {"metric": "spend", "window": {"kind": "lifetime"}, "time_zone": "UTC", "timing": "immediate",
            "ladder": [{"name": "silver", "threshold": "50"}]}, "triggers": []}]);
    db.own.announcing("evaluate_tiers", &element).await;
    let id = "tier:m-1:u-1:upgraded:1";
    db.own
        .run(&format!(
            "select crm_events.announcement_rejected('{id}', '400 too old')"
        ))
        .await;
    let (code, balance) = reconcile(&db).await;
    assert_eq!(
        (code, &balance["findings"]),
        (
            1,
            &json!([{"kind": "rejected", "consumer": "tier", "subject": id, "detail": "400 too old"}])
        )
    );
    let ran = ask(&db, &["explain", "--member", "m-1:u-1"], &[]).await;
    let line = format!("announced: loyalty/tier.upgraded {id}, rejected, and never sent: 400 too old");
    assert!(ran.out.contains(&line), "{}", ran.out);
    db.own.run(&format!("select crm_events.announced(array['{id}'])")).await;
    assert_eq!(reconcile(&db).await.0, 0);
    db.done().await;
}

#[tokio::test]
async fn a_row_that_leads_to_nothing_any_more_is_explained_with_what_it_led_to() {
    let db = database().await;
    db.own
        .run("insert into codes values ('c-1', 'SECRET-CODE', 'm-1', 'redeemed', 'u-1', '2026-01-15T10:00:00Z')")
        .await;
    let event = json!({"effect_key": "code:c-1", "code_id": "c-1", "merchant_id": "m-1", "user_id": "u-1", "as_of_ms": super::TS_MS,
        "redeemed_at": "2026-01-15T10:00:00Z", "reason": "redeemed",
        "basis": {"merchant_id": "m-1", "user_id": "u-1", "status": "redeemed", "redeemed_at": "2026-01-15T10:00:00Z"}});
    assert_eq!(db.own.call("settle_code", &event).await["outcome"], "fulfilled");
    db.own.run("update codes set status = 'void'").await;
    let ran = ask(&db, &["explain", "--code", "c-1"], &[]).await;
    for part in [
        "ignore   void",
        "effect      code:c-1",
        "settled, target 1, booked 1",
        "Nothing is to be done about the row as it is now. Settled at ",
    ] {
        assert!(ran.out.contains(part), "{part} is not in {}", ran.out);
    }
    db.done().await;
}

#[tokio::test]
async fn an_id_is_explained_for_the_consumers_that_are_asked_for() {
    let db = database().await;
    settled(&db, "p").await;
    let arguments = ["explain", "--purchase", "p", "--consumers", "tier", "--format", "json"];
    let ran = ask(&db, &arguments, &[]).await;
    let answer: Value = serde_json::from_str(&ran.out).expect("JSON");
    let decisions = answer["rows"][0]["decisions"].as_array().expect("decisions");
    assert_eq!(
        super::counted(decisions.iter().filter_map(|one| one["consumer"].as_str())),
        [("tier", 1)].into()
    );
    db.done().await;
}

#[tokio::test]
async fn claims_and_codes_without_a_time_are_counted_as_older_than_the_cut_off() {
    let db = database().await;
    db.own
        .run(
            "insert into mission_claims values ('c', 'u-1', 'm-1', 'spend', 'claimed', null, null);
             insert into codes values ('k', 'x', 'm-1', 'redeemed', 'u-1', null), ('free', 'y', 'm-1', 'issued', null, null)",
        )
        .await;
    let (code, balance) = reconcile(&db).await;
    assert_eq!((code, &balance["without_time"]), (0, &json!(2)), "{balance}");
    let ran = ask(&db, &["reconcile"], &[]).await;
    assert!(
        ran.out
            .contains("2 claims and codes have no time, and nothing is known of them"),
        "{}",
        ran.out
    );
    db.done().await;
}

#[tokio::test]
async fn a_voucher_is_explained_without_its_code() {
    let db = database().await;
    db.own
        .run("insert into codes values ('c-1', 'SECRET-CODE', 'm-1', 'redeemed', 'u-1', '2026-01-15T10:00:00Z')")
        .await;
    for format in ["text", "json"] {
        let ran = ask(&db, &["explain", "--code", "c-1", "--format", format], &[]).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(
            !ran.out.contains("SECRET-CODE") && ran.out.contains("code:c-1"),
            "{}",
            ran.out
        );
    }
    db.done().await;
}

/// What a command shows on a terminal besides its result: `script` is one.
async fn shown(db: &Database, arguments: &str) -> String {
    let command = format!("{} {arguments} >/dev/null", env!("CARGO_BIN_EXE_crm-event-processors"));
    let output = Command::new("/usr/bin/script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env_clear()
        .envs([
            ("DATABASE_URL", db.url().as_str()),
            ("TERM", "xterm"),
            ("PATH", "/usr/bin:/bin"),
        ])
        .stdin(Stdio::null())
        .output()
        .await
        .expect("a terminal");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    // What it found is not the question here.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments}: {text}");
    text
}

#[tokio::test]
async fn on_a_terminal_a_long_command_shows_how_far_it_is_and_beside_json_nothing() {
    let db = database().await;
    settled(&db, "p-1").await;
    for (command, what) in [("reconcile", "purchase_ledger"), ("migrate", "migrating")] {
        let text = shown(&db, command).await;
        assert!(text.contains(what), "{command}: {text}");
        assert_eq!(shown(&db, &format!("{command} --format json")).await, "", "{command}");
        // In a pipe.
        assert_eq!(ask(&db, &[command], &[]).await.err, "", "{command}");
    }
    db.done().await;
}
