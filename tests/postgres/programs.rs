//! Versioned programs: what is in force stays, and a document is what the program file would say.

use crm_event_processors::loyalty::{DEMO_PROGRAM, Programs};
use serde_json::{Value, json};

use super::Database;

const REFUSED: &str = "23001";

/// Puts the programs of a file into the tables.
async fn load(db: &Database, file: &Value) {
    for program in file["programs"].as_array().expect("programs") {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (merchant, zone) = (text(&program["merchant_id"]), text(&program["time_zone"]));
        db.own
            .run(&format!(
                "insert into crm_events.programs values ('{merchant}', '{zone}')"
            ))
            .await;
        for version in program["versions"].as_array().expect("versions") {
            let mut rules = version.clone();
            let fields = rules.as_object_mut().expect("an object");
            let rev = fields.remove("rev").expect("a revision");
            let from = text(&fields.remove("effective_from").expect("a beginning"));
            let insert = "insert into crm_events.program_versions values";
            db.own
                .run(&format!("{insert} ('{merchant}', {rev}, '{from}', '{rules}')"))
                .await;
        }
    }
}

#[tokio::test]
async fn the_documents_are_those_of_a_program_file() {
    let db = Database::new().await;
    let file: Value = serde_json::from_str(DEMO_PROGRAM).expect("JSON");
    load(&db, &file).await;
    let rows = db
        .own
        .rows("select merchant_id, document from crm_events.programs_documents()")
        .await;
    let documents: Vec<&Value> = rows.iter().map(|row| &row["document"]).collect();
    assert!(
        rows.iter()
            .all(|row| row["merchant_id"] == row["document"]["merchant_id"])
    );
    let again = json!({ "programs": documents });
    assert_eq!(Programs::from_json(&again.to_string()).expect("valid").merchants(), 4);
    let sorted = |file: &Value| {
        let mut programs = file["programs"].as_array().expect("programs").clone();
        programs.sort_by_key(|program| program["merchant_id"].to_string());
        programs
    };
    assert_eq!(sorted(&again), sorted(&file));
    // A program without a version is none yet.
    db.own
        .run("insert into crm_events.programs values ('m-new', 'UTC')")
        .await;
    assert_eq!(
        db.own
            .rows("select merchant_id from crm_events.programs_documents()")
            .await
            .len(),
        5
    );
    db.done().await;
}

#[tokio::test]
async fn a_version_in_force_is_neither_changed_nor_deleted() {
    let db = Database::new().await;
    db.own
        .run(
            "insert into crm_events.programs values ('m', 'Asia/Bangkok'); \
             insert into crm_events.program_versions values ('m', 1, '2020-01-01', '{\"refund_policy\": \"unlimited\"}'), \
             ('m', 2, '2090-01-01', '{\"refund_policy\": \"unlimited\"}'), \
             ('m', 3, '2091-01-01T00:00:00+07:00', '{\"refund_policy\": \"unlimited\"}')",
        )
        .await;
    for forbidden in [
        "update crm_events.program_versions set rules = '{}' where rev = 1",
        "update crm_events.program_versions set effective_from = '2099-01-01' where rev = 1",
        "update crm_events.program_versions set rev = 9 where rev = 1",
        "delete from crm_events.program_versions where rev = 1",
        "delete from crm_events.program_versions",
        "update crm_events.programs set time_zone = 'UTC'",
    ] {
        assert_eq!(db.own.refusal(forbidden).await, REFUSED, "{forbidden}");
    }
    assert_eq!(db.own.refusal("delete from crm_events.programs").await, "23503");
    db.own
        .run("update crm_events.program_versions set effective_from = '2089-01-01' where rev = 2")
        .await;
    db.own
        .run("delete from crm_events.program_versions where rev = 3")
        .await;
    // It begins at midnight in the program's zone.
    let begins = db
        .own
        .text("select ('2089-01-01T00:00:00+07:00'::timestamptz - now())::text")
        .await;
    let just_before = db
        .own
        .text("select ('2088-12-31T23:59:00+07:00'::timestamptz - now())::text")
        .await;
    db.own.wait(&just_before).await;
    db.own
        .run("update crm_events.program_versions set rules = '{\"refund_policy\": \"only_pending\"}' where rev = 2")
        .await;
    db.own.wait(&begins).await;
    assert_eq!(
        db.own
            .refusal("delete from crm_events.program_versions where rev = 2")
            .await,
        REFUSED
    );
    db.done().await;
}

#[tokio::test]
async fn a_zone_that_nobody_knows_is_refused() {
    let db = Database::new().await;
    let refused = db
        .own
        .refusal("insert into crm_events.programs values ('m', 'Asia/Nowhere')")
        .await;
    assert_eq!(refused, "22023");
    db.done().await;
}

#[tokio::test]
async fn a_merchant_that_lived_under_the_default_begins_above_its_revision() {
    let db = Database::new().await;
    let version = |merchant: &str, rev: i64| {
        format!(
            "insert into crm_events.program_versions values ('{merchant}', {rev}, '2026-01-01', '{{\"refund_policy\": \"unlimited\"}}')"
        )
    };
    db.own
        .run("insert into crm_events.programs values ('*', 'UTC'), ('m-1', 'UTC'), ('m-new', 'UTC'), ('m-old', 'UTC')")
        .await;
    db.own.run(&version("m-old", 3)).await;
    db.own.run(&version("*", 50)).await;
    for (id, merchant, rev) in [("p", "m-1", 50), ("q", "m-old", 3)] {
        let purchase = super::Purchase {
            merchant: merchant.to_owned(),
            ..super::Purchase::new(id)
        };
        db.own.run(&purchase.sql()).await;
        let mut award = purchase.scheduled(100, "2026-01-20T00:00:00Z", "unlimited");
        award["program_rev"] = json!(rev);
        assert_eq!(db.own.call("apply_award", &award).await["outcome"], "applied");
    }
    for rev in [1, 50] {
        assert_eq!(db.own.refusal(&version("m-1", rev)).await, REFUSED, "{rev}");
    }
    db.own.run(&version("m-1", 51)).await;
    assert_eq!(db.own.refusal(&version("m-1", 2)).await, REFUSED, "nor afterwards");
    // Whom nothing was decided for, and who never lived under the default, are free.
    db.own.run(&version("m-new", 1)).await;
    db.own.run(&version("m-old", 4)).await;
    db.done().await;
}

#[tokio::test]
async fn the_example_for_compose_is_a_program_and_a_purchase() {
    let db = Database::new().await;
    db.own.run(include_str!("../../deploy/compose/example.sql")).await;
    let rows = db
        .own
        .rows("select document from crm_events.programs_documents()")
        .await;
    let documents: Vec<&Value> = rows.iter().map(|row| &row["document"]).collect();
    let file = json!({ "programs": documents });
    assert_eq!(Programs::from_json(&file.to_string()).expect("valid").merchants(), 1);
    let purchase = "select merchant_id || ' ' || final_amount from public.purchase_ledger where status = 'completed'";
    assert_eq!(db.own.text(purchase).await, "shop 100.00");
    db.done().await;
}
