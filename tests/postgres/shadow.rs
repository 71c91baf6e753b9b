//! A shadow beside a real database: what it would do is compared with `effects` and with the wallet, and it leaves nothing
//! there.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use crm_event_processors::loyalty::{DEMO_PROGRAM, Programs};
use crm_event_processors::postgres::{Client, DatabaseUrl, StartError, rule_book_of_shadow};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{CREATED, Database, Purchase, unique};

/// Long before the grace, long after [`CREATED`].
const COMMIT_MS: i64 = 1_769_000_000_000;

fn line(row: &str, offset: i64, rest: &Value) -> String {
    let mut line = json!({"consumer": "currency", "topic": "crm.public.purchase_ledger", "partition": 0, "offset": offset,
        "table": "purchase_ledger", "row_id": row, "op": "c", "commit_ms": COMMIT_MS + offset});
    let members = line.as_object_mut().expect("an object");
    members.extend(rest.as_object().expect("an object").clone());
    format!("{line}\n")
}

fn delivers(row: &str, offset: i64, target: i64) -> String {
    let rest = json!({"outcome": "deliver", "reason": "already_due", "id": format!("id-{offset}"),
        "event": "loyalty/award.scheduled", "effect_key": format!("award:{row}"), "target": target,
        "due_at": "2026-01-20T00:00:00+07:00", "program_rev": 1});
    line(row, offset, &rest)
}

fn ignores(row: &str, offset: i64, reason: &str) -> String {
    line(row, offset, &json!({"outcome": "ignore", "reason": reason}))
}

/// Exit code and output.
async fn reconcile(db: &Database, lines: &str) -> (i32, Value) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("shadow-{}.jsonl", unique()));
    std::fs::write(&path, lines).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_crm-event-processors"))
        // What was applied a moment ago counts as well.
        .args(["reconcile", "--format", "json", "--grace", "0", "--shadow"])
        .arg(&path)
        .env_clear()
        .env("DATABASE_URL", db.url())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the binary runs");
    std::fs::remove_file(&path).expect("removed");
    let errors = String::from_utf8_lossy(&output.stderr);
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    (output.status.code().expect("it ended by itself"), found)
}

fn found(comparison: &Value) -> Vec<(String, String)> {
    let word = |finding: &Value, name: &str| finding[name].as_str().expect("a word").to_owned();
    let findings = comparison["findings"].as_array().expect("findings").iter();
    findings.map(|one| (word(one, "kind"), word(one, "subject"))).collect()
}

async fn book(db: &Database, id: &str, purchase: &str, amount: i64, kind: &str) {
    db.own
        .run(&format!(
            "insert into wallet_ledger (id, user_id, merchant_id, amount, kind, source_type, source_id, created_at)
             values ('{id}', 'u-1', 'm-1', {amount}, '{kind}', 'purchase', '{purchase}', '{CREATED}')"
        ))
        .await;
}

#[tokio::test]
async fn a_shadow_is_compared_with_what_is_applied_and_with_what_an_older_worker_booked() {
    let db = Database::new().await;
    // Ours: applied, and settled.
    for (id, points) in [("ours", 100), ("less", 60)] {
        let purchase = Purchase::new(id);
        db.own.run(&purchase.sql()).await;
        let event = purchase.scheduled(points, "2026-01-20T00:00:00+07:00", "unlimited");
        db.own.call("apply_award", &event).await;
        db.own.settle("settle_award", &purchase.key()).await;
    }
    // An older worker's: entries in the wallet, and nothing else. What somebody spent or adjusted is none of the award.
    for id in ["theirs", "partly", "twice", "unknown", "ancient"] {
        let created_at = if id == "ancient" {
            "2020-01-01T00:00:00Z"
        } else {
            "2026-01-21T13:00:00Z"
        };
        db.own.run(&Purchase::new(id).at(created_at).sql()).await;
    }
    book(&db, "w-1", "theirs", 100, "earn").await;
    book(&db, "w-2", "theirs", -30, "spend").await;
    book(&db, "w-3", "theirs", 5, "adjust").await;
    book(&db, "w-4", "partly", 100, "earn").await;
    book(&db, "w-5", "partly", -40, "clawback").await;
    book(&db, "w-6", "twice", 100, "earn").await;
    book(&db, "w-7", "twice", 100, "earn").await;
    book(&db, "w-8", "unknown", 100, "earn").await;
    book(&db, "w-9", "ancient", 100, "earn").await;
    let window = ignores("before", 0, "pending") + &ignores("behind", 10_000_000, "pending");
    let agreeing = window
        + &delivers("ours", 1, 100)
        + &delivers("theirs", 2, 100)
        + &delivers("partly", 3, 60)
        + &delivers("twice", 4, 200)
        + &delivers("less", 5, 60)
        + &ignores("refunded", 6, "refunded")
        // Of this one the shadow says what the old worker did.
        + &delivers("unknown", 7, 100);
    let (code, comparison) = reconcile(&db, &agreeing).await;
    assert_eq!((code, found(&comparison)), (0, Vec::new()), "{comparison}");
    assert_eq!(
        (comparison["agree"].as_i64(), comparison["unseen"].as_i64()),
        (Some(9), Some(1))
    );

    let differing = agreeing
        .replace(&delivers("theirs", 2, 100), &ignores("theirs", 2, "no_program"))
        .replace(&delivers("twice", 4, 200), &delivers("twice", 4, 100))
        .replace(&delivers("less", 5, 60), &delivers("less", 5, 100))
        .replace(&delivers("unknown", 7, 100), "")
        + &delivers("missed", 8, 100);
    let (code, comparison) = reconcile(&db, &differing).await;
    let expected = [
        ("differs", "award:less"),
        ("differs", "award:twice"),
        ("only_shadow", "award:missed"),
        // That no line tells of it comes first.
        ("only_system", "award:unknown"),
        ("only_system", "award:theirs"),
    ];
    let expected = expected.map(|(kind, subject)| (kind.to_owned(), subject.to_owned()));
    assert_eq!((code, found(&comparison)), (1, expected.to_vec()), "{comparison}");
    db.done().await;
}

#[tokio::test]
async fn a_shadow_stores_no_cut_off_and_believes_the_one_that_is_stored() {
    let db = Database::new().await;
    let client = || {
        let url = DatabaseUrl::parse(&db.url()).expect("an address");
        Arc::new(Client::new(&url).expect("a client"))
    };
    let programs = || Some(Programs::from_json(DEMO_PROGRAM).expect("valid"));
    let given = Some("2026-11-01T00:00:00Z".parse().expect("a time"));
    let book = rule_book_of_shadow(client(), given, programs(), &|_| {})
        .await
        .expect("begun");
    assert_eq!(book.current().effective_from, given);
    let missing = rule_book_of_shadow(client(), None, programs(), &|_| {}).await;
    assert!(matches!(missing, Err(StartError::NoCutOff)));
    let stored = "select count(*)::text from crm_events.settings where name = 'effective_from'";
    assert_eq!(db.own.text(stored).await, "0");
    db.own.run("select crm_events.effective_from('2026-10-01')").await;
    let other = rule_book_of_shadow(client(), given, programs(), &|_| {}).await;
    assert!(matches!(other, Err(StartError::OtherCutOff { .. })));
    let book = rule_book_of_shadow(client(), None, programs(), &|_| {})
        .await
        .expect("begun");
    assert!(book.current().effective_from.is_some());
    db.done().await;
}
