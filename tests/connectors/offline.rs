//! What needs nobody: rendering, and our own rules.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;

use super::{Scratch, connectors};

const DATABASE: &str = "postgres://crm_cdc:sentinel-1@db.example:5433/crm?sslmode=require";
const ACCOUNT: &str = "sa-123";

#[tokio::test]
async fn a_template_is_rendered_with_its_secrets_masked_or_whole_into_a_file_of_its_owner() {
    let variables = [
        ("CONNECTOR_DATABASE_URL", DATABASE),
        ("KAFKA_SERVICE_ACCOUNT_ID", ACCOUNT),
    ];
    let shown = connectors(&["render", "--platform", "confluent"], &variables).await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(!shown.all().contains("sentinel"), "{}", shown.all());
    let config: Value = serde_json::from_str(&shown.out).expect("JSON");
    let values = [
        "database.hostname",
        "database.port",
        "database.password",
        "database.sslmode",
        "kafka.service.account.id",
    ]
    .map(|key| config[key].as_str().unwrap_or_default());
    assert_eq!(values, ["db.example", "5433", "****************", "require", ACCOUNT]);

    let file = Scratch::new();
    let arguments = ["render", "--platform", "confluent", "--out", file.path()];
    let written = connectors(&arguments, &variables).await;
    assert_eq!(written.code, 0, "{}", written.err);
    assert!(!written.all().contains("sentinel"));
    let mode = std::fs::metadata(file.path()).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(file.path()).expect("a file");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(config["database.password"], "sentinel-1");
    // Never over what is there.
    assert_eq!(connectors(&arguments, &variables).await.code, 64);
    assert_eq!(std::fs::read_to_string(file.path()).expect("a file"), text);
    // What was shown is found out when it comes back.
    let back = Scratch::holding(&shown.out);
    let masked = connectors(&["validate", "--file", back.path()], &[]).await;
    assert_eq!(masked.code, 1);
    assert!(
        masked.out.contains("database.password") && masked.out.contains("asterisks"),
        "{}",
        masked.out
    );
}

#[tokio::test]
async fn everything_that_is_missing_is_named_at_once() {
    let nothing = connectors(&["render", "--platform", "confluent"], &[]).await;
    assert_eq!(nothing.code, 78);
    for part in [
        "2 problems",
        "CONNECTOR_DATABASE_URL is missing",
        "DATABASE_PASSWORD",
        "KAFKA_SERVICE_ACCOUNT_ID is missing",
    ] {
        assert!(nothing.err.contains(part), "{part}: {}", nothing.err);
    }
    let nowhere = connectors(&["apply"], &[]).await;
    assert_eq!(nowhere.code, 78);
    for part in ["CONNECT_URL is missing", "CONNECTOR_DATABASE_URL is missing"] {
        assert!(nowhere.err.contains(part), "{part}: {}", nowhere.err);
    }
}

#[tokio::test]
async fn a_template_that_is_not_filled_breaks_no_rule() {
    for platform in ["confluent", "connect"] {
        let ran = connectors(&["validate", "--platform", platform], &[]).await;
        assert_eq!(ran.code, 0, "{}", ran.all());
        assert!(
            ran.out.contains("is broken") && ran.out.contains("no rule"),
            "{}",
            ran.out
        );
        assert!(ran.out.contains("DATABASE_PASSWORD"), "{}", ran.out);
        let unjudged = "not judged, because their values are not known here: database.dbname, database.hostname, database.password, ";
        assert!(ran.out.contains(unjudged), "{}", ran.out);
    }
}

#[tokio::test]
async fn the_connector_of_the_incident_is_found_wanting_in_every_key_that_was_wrong() {
    let incident = r#"{"name": "crm-cdc-source", "config": {
        "connector.class": "PostgresCdcSourceV2", "tasks.max": "1", "kafka.auth.mode": "SERVICE_ACCOUNT",
        "kafka.service.account.id": "${KAFKA_SERVICE_ACCOUNT_ID}", "database.hostname": "db.example", "database.port": "5432",
        "database.user": "postgres", "database.password": "sentinel-1", "database.dbname": "postgres", "database.sslmode": "require",
        "topic.prefix": "supabase", "slot.name": "debezium", "publication.name": "crm_cdc_publication", "plugin.name": "pgoutput",
        "publication.autocreate.mode": "all_tables", "snapshot.mode": "never", "decimal.handling.mode": "precise",
        "table.include.list": "public.purchase_ledger,public.wallet_ledger", "errors.tolerance": "all", "after.state.only": "true",
        "value.converter.replace.null.with.default": "false", "value.converter.schemas.enable": "false",
        "key.converter.schemas.enable": "false", "heartbeat.interval.ms": "10000", "output.data.format": "JSON",
        "signal.data.collection": "public.dbz_signal"}}"#;
    let file = Scratch::holding(incident);
    let ran = connectors(&["validate", "--file", file.path(), "--format", "json"], &[]).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(!ran.all().contains("sentinel"));
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let keys: Vec<&str> = report["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|finding| finding["key"].as_str().expect("a key"))
        .collect();
    let expected = [
        "table.include.list",
        "snapshot.mode",
        "slot.name",
        "publication.autocreate.mode",
        "heartbeat.action.query",
        "topic.prefix",
        "after.state.only",
        "decimal.handling.mode",
        "errors.tolerance",
    ];
    assert_eq!(keys, expected);
    assert_eq!(report["unfilled"], serde_json::json!(["KAFKA_SERVICE_ACCOUNT_ID"]));
    assert_eq!(report["unjudged"], serde_json::json!(["kafka.service.account.id"]));
    // Its prefix may be the worker's.
    let ran = connectors(&["validate", "--file", file.path()], &[("TOPIC_PREFIX", "supabase")]).await;
    assert!(
        !ran.out.contains("topic.prefix") && ran.out.contains("never"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains("8 rules for Confluent Cloud are broken"),
        "{}",
        ran.out
    );
}

/// The stack is up before this binary is built, so it fills the template by itself.
#[tokio::test]
async fn the_stack_and_render_make_the_same_connector_of_the_template() {
    let script = "set -euo pipefail; source stack/lib.sh; source stack/connect.sh; render_connector";
    let output = Command::new("bash")
        .args(["-c", script])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("STACK_POSTGRES_PORT", "5555")
        .output()
        .expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let of_stack: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let file = Scratch::new();
    let variables = [("CONNECTOR_DATABASE_URL", "postgres://crm_cdc:crm@127.0.0.1:5555/crm")];
    let ran = connectors(&["render", "--out", file.path()], &variables).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let text = std::fs::read_to_string(file.path()).expect("a file");
    let of_render: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(of_stack, of_render);
    // And it breaks no rule.
    let ran = connectors(&["validate", "--file", file.path()], &[]).await;
    assert_eq!(ran.code, 0, "{}", ran.all());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_an_argument_that_is_wrong() {
    let twice = Scratch::holding(r#"{"a": "1", "a": "2"}"#);
    for (path, part) in [
        ("/nowhere/x.json", "No such file"),
        (twice.path(), "`a` is there twice"),
    ] {
        let ran = connectors(&["validate", "--file", path], &[]).await;
        assert_eq!(ran.code, 64);
        assert!(ran.err.contains(part), "{}", ran.err);
    }
}
