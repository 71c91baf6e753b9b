//! The binary against the double of Confluent Cloud.

use std::time::Duration;

use crm_event_processors::connectors::{Access, Client, ConnectError, Platform};
use serde_json::{Value, json};

use super::cloud::{CLUSTER, Cloud, ENVIRONMENT, KEY, KEYS, SECRET, Told, told};
use super::{Ran, Scratch, connectors};

const NAME: &str = "crm-cdc-source";
const DATABASE: &str = "postgres://crm_cdc:sentinel-db@db.example/crm";

/// Every word that a connector passes on its way up.
fn rising() -> [Told; 4] {
    [
        told("PROVISIONING", &[]),
        told("RUNNING", &[]),
        told("RUNNING", &["UNASSIGNED"]),
        told("RUNNING", &["RUNNING"]),
    ]
}

async fn at(cloud: &Cloud, arguments: &[&str]) -> Ran {
    with(cloud, arguments, &[]).await
}

/// Later variables win.
async fn with(cloud: &Cloud, arguments: &[&str], more: &[(&str, &str)]) -> Ran {
    let url = cloud.url();
    let mut variables = vec![
        ("CONNECT_URL", url.as_str()),
        ("CONNECT_API_KEY", KEY),
        ("CONNECT_API_SECRET", SECRET),
        ("CONFLUENT_ENVIRONMENT", ENVIRONMENT),
        ("CONFLUENT_CLUSTER", CLUSTER),
        ("CONNECTOR_DATABASE_URL", DATABASE),
        ("KAFKA_SERVICE_ACCOUNT_ID", "sa-1"),
    ];
    variables.extend(more);
    let ran = connectors(arguments, &variables).await;
    assert!(!ran.all().contains("sentinel"), "{}", ran.all());
    ran
}

#[tokio::test]
async fn a_connector_is_made_and_waited_for_until_its_task_runs() {
    let cloud = Cloud::start(&rising()).await;
    let absent = at(&cloud, &["status"]).await;
    assert_eq!(absent.code, 1);
    assert!(
        absent.out.contains("there is no connector crm-cdc-source"),
        "{}",
        absent.out
    );
    assert_eq!(at(&cloud, &["diff"]).await.code, 1);
    let dry = at(&cloud, &["apply", "--dry-run"]).await;
    assert_eq!((dry.code, cloud.writes()), (0, 0), "{}", dry.all());
    assert!(dry.out.contains("would be created"), "{}", dry.out);

    let made = at(&cloud, &["apply"]).await;
    assert_eq!(made.code, 0, "{}", made.all());
    assert_eq!(cloud.config(NAME)["database.password"], "sentinel-db");
    assert_eq!(cloud.config(NAME)["snapshot.mode"], "when_needed");
    let told = [
        "crm-cdc-source: created",
        "crm-cdc-source: PROVISIONING, tasks: none",
        "crm-cdc-source: RUNNING, tasks: none",
        "crm-cdc-source: RUNNING, tasks: UNASSIGNED",
        "crm-cdc-source: RUNNING, tasks: RUNNING",
        "crm-cdc-source is running, says Confluent Cloud",
    ];
    assert_eq!(made.out.lines().collect::<Vec<_>>(), told);

    let same = at(&cloud, &["diff"]).await;
    assert_eq!(same.code, 0, "{}", same.all());
    assert!(
        same.out.contains("masked there, so not compared: database.password"),
        "{}",
        same.out
    );
    assert!(same.out.contains("cloud.environment"), "{}", same.out);
    let status = at(&cloud, &["status", "--format", "json"]).await;
    assert_eq!(status.code, 0, "{}", status.all());
    let status: Value = serde_json::from_str(&status.out).expect("JSON");
    assert_eq!(
        (&status["health"], &status["status"]["tasks"][0]["id"]),
        (&json!("running"), &json!("0"))
    );
}

#[tokio::test]
async fn what_somebody_changed_by_hand_is_found_with_its_reason_and_mended() {
    let cloud = Cloud::start(&[told("RUNNING", &["RESTARTING"]), told("RUNNING", &["RUNNING"])]).await;
    assert_eq!(at(&cloud, &["apply"]).await.code, 0);
    {
        let mut world = cloud.world();
        let config = world.connectors.get_mut(NAME).expect("a connector");
        config.insert("snapshot.mode".to_owned(), "never".to_owned());
        config.insert("transforms".to_owned(), "unwrap".to_owned());
    }
    let differs = at(&cloud, &["diff", "--format", "json"]).await;
    assert_eq!(differs.code, 1, "{}", differs.all());
    let diff: Value = serde_json::from_str(&differs.out).expect("JSON");
    let keys: Vec<_> = diff["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["key"])
        .collect();
    assert_eq!(keys, ["snapshot.mode", "transforms"]);
    assert!(
        diff["differences"][0]["why"]
            .as_str()
            .expect("a reason")
            .contains("gap"),
        "{diff}"
    );

    let mended = at(&cloud, &["apply"]).await;
    assert_eq!(mended.code, 0, "{}", mended.all());
    assert!(mended.out.contains("crm-cdc-source: changed"), "{}", mended.out);
    assert_eq!(cloud.config(NAME).get("transforms"), None);
    assert_eq!(at(&cloud, &["diff"]).await.code, 0);
    // Nobody but the platform knows whether the password is still the same.
    let again = at(&cloud, &["apply", "--format", "json"]).await;
    let again: Value = serde_json::from_str(&again.out).expect("JSON");
    assert_eq!(
        (&again["action"], &again["end"]),
        (&json!("written_again"), &json!("running"))
    );
    assert_eq!(cloud.config(NAME)["database.password"], "sentinel-db");
}

#[tokio::test]
async fn a_task_that_failed_ends_the_wait_and_is_told_in_one_line_without_secrets() {
    let trace = "io.debezium.DebeziumException: password sentinel-db is wrong\n\tat a.b(C.java)\n\
                 Caused by: org.postgresql.util.PSQLException: FATAL: password authentication failed for user \"sentinel-user\"";
    let failed = |connector, state| Told {
        connector: (connector, ""),
        tasks: vec![(state, trace)],
    };
    for end in [
        failed("RUNNING", "FAILED"),
        failed("RUNNING", "USER_ACTIONABLE_ERROR"),
        failed("DEGRADED", "SYSTEM_ERROR"),
        Told {
            connector: ("FAILED", trace),
            tasks: Vec::new(),
        },
    ] {
        let cloud = Cloud::start(&[told("PROVISIONING", &[]), end]).await;
        let ran = at(&cloud, &["apply"]).await;
        assert_eq!(ran.code, 1, "{}", ran.all());
        for part in [
            "io.debezium.DebeziumException: password *** is wrong",
            "the database refuses the role, its password",
            "crm-cdc-source is failed, says Confluent Cloud. `connectors status` says the same; docs/runbook.md",
        ] {
            assert!(ran.out.contains(part), "{part}: {}", ran.out);
        }
        assert!(!ran.out.contains("Caused by"), "{}", ran.out);
        let status = at(&cloud, &["status"]).await;
        assert_eq!(status.code, 1);
        assert!(status.out.contains("crm-cdc-source is failed"), "{}", status.out);
    }
}

#[tokio::test]
async fn a_failure_from_before_the_change_is_not_taken_for_its_result() {
    let before = told("RUNNING", &["USER_ACTIONABLE_ERROR"]);
    let cloud = Cloud::start(std::slice::from_ref(&before)).await;
    assert_eq!(at(&cloud, &["apply"]).await.code, 1);
    // Told for two looks more, as platforms do.
    cloud.world().told = vec![
        before.clone(),
        before,
        told("RUNNING", &["RESTARTING"]),
        told("RUNNING", &["RUNNING"]),
    ];
    let url = "postgres://crm_cdc:sentinel-new@db.example/crm";
    // One of those looks is the one before the change.
    let mended = with(&cloud, &["apply"], &[("CONNECTOR_DATABASE_URL", url)]).await;
    assert_eq!(mended.code, 0, "{}", mended.all());
    assert_eq!(cloud.config(NAME)["database.password"], "sentinel-new");
}

#[tokio::test]
async fn a_task_that_runs_for_a_moment_and_then_fails_is_not_taken_for_well() {
    let running = told("RUNNING", &["RUNNING"]);
    let cloud = Cloud::start(&[running, told("RUNNING", &["USER_ACTIONABLE_ERROR"])]).await;
    let ran = at(&cloud, &["apply"]).await;
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.out.contains("crm-cdc-source is failed"), "{}", ran.out);
}

#[tokio::test]
async fn one_that_somebody_paused_and_one_that_never_comes_up_are_told_apart() {
    let paused = Cloud::start(&[told("PAUSED", &["STOPPED"])]).await;
    let ran = at(&paused, &["apply"]).await;
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.out.contains("stopped by somebody"), "{}", ran.out);
    let slow = Cloud::start(&[told("PROVISIONING", &[])]).await;
    let ran = at(&slow, &["apply", "--deadline", "2"]).await;
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.out.contains("the deadline passed"), "{}", ran.out);
}

#[tokio::test]
async fn nothing_is_sent_that_breaks_a_rule_or_that_the_platform_would_not_take() {
    let cloud = Cloud::start(&rising()).await;
    let rendered = |mode: &str| {
        let text = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/connectors/confluent-cloud/crm-cdc-source.json"
        ));
        Scratch::holding(&text.expect("the template").replace("when_needed", mode))
    };
    let never = rendered("never");
    let ran = at(&cloud, &["apply", "--file", never.path()]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("nothing was sent: a rule is broken"), "{}", ran.out);
    // Accepted, it is the platform's turn.
    let odd = rendered("sometimes");
    let arguments = ["apply", "--file", odd.path(), "--accept", "snapshot.mode"];
    let ran = at(&cloud, &arguments).await;
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(
        ran.out.contains("The value \"sometimes\" is not one of initial"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains("nothing was sent: Confluent Cloud would not take it"),
        "{}",
        ran.out
    );
    assert_eq!(cloud.writes(), 0);
    let arguments = [
        "apply",
        "--file",
        never.path(),
        "--accept",
        "snapshot.mode",
        "--dry-run",
    ];
    assert_eq!(at(&cloud, &arguments).await.code, 0);
    assert_eq!(at(&cloud, &["apply", "--accept", "snapshot"]).await.code, 64);
}

#[tokio::test]
async fn a_write_that_is_refused_is_not_told_as_done() {
    let cloud = Cloud::start(&rising()).await;
    cloud.world().refuses_writes = Some((400, json!({"error": {"code": 400, "message": "limit of connectors"}})));
    let ran = at(&cloud, &["apply"]).await;
    assert_eq!((ran.code, cloud.writes()), (1, 1), "{}", ran.all());
    assert!(
        ran.err.contains("does not take it (400): limit of connectors"),
        "{}",
        ran.err
    );
    assert!(!ran.out.contains("created"), "{}", ran.out);
    let ran = at(&cloud, &["apply", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(
        (ran.code, &report["exists"], report.get("action")),
        (1, &json!(false), None)
    );
}

#[tokio::test]
async fn what_was_read_from_a_platform_is_never_written_back() {
    let cloud = Cloud::start(&rising()).await;
    let masked = at(&cloud, &["render"]).await;
    let file = Scratch::holding(&masked.out);
    for arguments in [
        vec!["apply", "--file", file.path()],
        vec!["validate", "--online", "--file", file.path()],
    ] {
        let ran = at(&cloud, &arguments).await;
        assert_eq!(ran.code, 1, "{}", ran.all());
        assert!(ran.out.contains("the asterisks become the value"), "{}", ran.out);
        assert_eq!(cloud.world().seen, [""; 0]);
    }
}

#[test]
fn the_template_has_no_key_that_the_plugin_does_not_have() {
    for (key, _) in Platform::ConfluentCloud.template().iter() {
        assert!(KEYS.iter().any(|(known, _)| *known == key), "{key}");
    }
}

#[tokio::test]
async fn the_platform_is_asked_for_every_error_and_for_keys_that_it_does_not_know() {
    let cloud = Cloud::start(&rising()).await;
    let ran = at(&cloud, &["validate", "--online"]).await;
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(ran.out.contains("Confluent Cloud finds nothing wrong"), "{}", ran.out);
    assert!(!ran.out.contains("unknown to the platform"), "{}", ran.out);
    let file = Scratch::holding(
        r#"{"name": "crm-cdc-source", "connector.class": "PostgresCdcSourceV2", "tasks.max": "1", "made.up": "1",
            "database.hostname": "db.refused", "database.port": "5432", "database.user": "${DATABASE_USER}",
            "database.password": "${DATABASE_PASSWORD}", "output.data.format": "CSV", "topic.prefix": "crm"}"#,
    );
    let ran = at(
        &cloud,
        &["validate", "--online", "--file", file.path(), "--format", "json"],
    )
    .await;
    assert_eq!(ran.code, 1, "{}", ran.all());
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let errors: Vec<_> = report["online"]["errors"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|error| {
            (
                error["key"].as_str().expect("a key"),
                error["message"].as_str().expect("a message"),
            )
        })
        .collect();
    let expected = [
        ("database.hostname", "Unable to sign in with ***"),
        ("database.dbname", "\"database.dbname\" is required"),
        (
            "output.data.format",
            "The value \"CSV\" is not one of JSON, JSON_SR, AVRO, PROTOBUF",
        ),
    ];
    assert_eq!(errors, expected);
    assert_eq!(report["online"]["unknown"], json!(["made.up"]));
    assert_eq!(cloud.writes(), 0);
}

#[tokio::test]
async fn who_refuses_us_and_where_nothing_is_are_told_by_their_exit_codes() {
    let cloud = Cloud::start(&rising()).await;
    let key = with(&cloud, &["status"], &[("CONNECT_API_SECRET", "sentinel-wrong")]).await;
    assert_eq!(key.code, 78);
    assert!(key.err.contains("refuses us (401): Unauthorized"), "{}", key.err);
    assert!(key.err.contains("must be a Cloud API key"), "{}", key.err);
    let cluster = with(&cloud, &["apply"], &[("CONFLUENT_CLUSTER", "lkc-other")]).await;
    assert_eq!(cluster.code, 78);
    assert!(
        cluster.err.contains(
            "Check CONNECT_URL, which Confluent Cloud does not need, and CONFLUENT_ENVIRONMENT and CONFLUENT_CLUSTER"
        ),
        "{}",
        cluster.err
    );
    let url = cloud.url();
    drop(cloud);
    let gone = connectors(&["status"], &[("CONNECT_URL", &url)]).await;
    assert_eq!(gone.code, 69, "{}", gone.all());
    assert!(gone.err.contains("does not answer"), "{}", gone.err);
}

#[tokio::test]
async fn what_passes_is_asked_again_and_what_stays_is_told() {
    let cloud = Cloud::start(&rising()).await;
    let busy = || (429, Some("1"), json!({}));
    let broken = || (500, None, json!({"error_code": 500, "message": "Oops sentinel-db"}));
    // As Kafka Connect says it while it shares out tasks.
    let rebalancing = (
        409,
        None,
        json!({"error_code": 409, "message": "Cannot complete request momentarily"}),
    );
    cloud.world().faults.extend([busy(), broken(), rebalancing]);
    let ran = at(&cloud, &["validate", "--online"]).await;
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(cloud.world().seen.len(), 4);

    let client = Client::new(Access {
        platform: Platform::ConfluentCloud,
        base_url: format!(
            "{}/connect/v1/environments/{ENVIRONMENT}/clusters/{CLUSTER}",
            cloud.url()
        ),
        key: Some((KEY.to_owned(), SECRET.to_owned())),
        patience: Duration::from_millis(500),
    });
    let client = client.expect("an address");
    cloud.world().faults.extend(std::iter::repeat_with(broken).take(10));
    let asked = cloud.world().seen.len();
    let told = client.status(NAME, &["sentinel-db"]).await;
    let Err(ConnectError::Busy {
        status, times, detail, ..
    }) = told
    else {
        panic!("{told:?}");
    };
    assert_eq!((status, detail.as_str()), (500, "Oops ***"));
    assert_eq!(times as usize, cloud.world().seen.len() - asked);
    // It says itself that it would be in vain.
    cloud.world().faults.clear();
    cloud.world().faults.push_back((429, Some("3600"), json!({})));
    let told = at(&cloud, &["status"]).await;
    assert_eq!(told.code, 69, "{}", told.all());
    assert!(
        told.err.contains("still answers 429 (asked 1x)") && told.err.contains("left alone for 3600 s"),
        "{}",
        told.err
    );
}

#[tokio::test]
async fn a_place_that_the_platform_does_not_tell_is_not_taken_for_none() {
    let cloud = Cloud::start(&rising()).await;
    let client = Client::new(Access {
        platform: Platform::KafkaConnect,
        base_url: format!(
            "{}/connect/v1/environments/{ENVIRONMENT}/clusters/{CLUSTER}",
            cloud.url()
        ),
        key: Some((KEY.to_owned(), SECRET.to_owned())),
        patience: Duration::ZERO,
    });
    let told = client.expect("an address").position(NAME).await;
    assert!(matches!(told, Err(ConnectError::NotFound { .. })), "{told:?}");
}
