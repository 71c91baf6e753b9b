//! `connectors` against the real Kafka Connect and Debezium: a connector is made, changed by hand, mended, and fails under our
//! hands. Each test has a database, a slot, a prefix and a connector of its own.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{stack, unique};
use crate::PATIENCE;
use crate::connectors::{Ran, Scratch, connectors};
use crate::postgres::Database;

/// How often an endpoint is asked again: it tells nobody.
const LOOK: Duration = Duration::from_millis(200);

/// A connector of a test's own.
struct House {
    database: Database,
    /// Of the connector, its slot and its prefix.
    name: String,
    file: Scratch,
    http: reqwest::Client,
}

impl House {
    async fn new() -> Self {
        crm_event_processors::tls::install_provider();
        let name = format!("conn_{}", unique());
        let template = include_str!("../../connectors/kafka-connect/crm-cdc-source.json");
        let mut config: Value = serde_json::from_str(template).expect("JSON");
        for key in ["name", "slot.name", "topic.prefix"] {
            config[key] = json!(name);
        }
        Self {
            database: Database::new().await,
            file: Scratch::holding(&config.to_string()),
            name,
            http: reqwest::Client::new(),
        }
    }

    /// The binary, with what an operator would set.
    async fn run(&self, arguments: &[&str], password: &str) -> Ran {
        let port = self.database.config.get_ports()[0];
        let name = self.database.config.get_dbname().expect("a name");
        let database = format!("postgres://crm_cdc:{password}@127.0.0.1:{port}/{name}");
        let mut arguments = arguments.to_vec();
        arguments.extend(["--file", self.file.path()]);
        let variables = [
            ("CONNECT_URL", stack("CONNECT_URL")),
            ("CONNECTOR_DATABASE_URL", database),
            ("TOPIC_PREFIX", self.name.clone()),
        ];
        let variables: Vec<(&str, &str)> = variables.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let ran = connectors(&arguments, &variables).await;
        assert!(!ran.all().contains("sentinel"), "{}", ran.all());
        ran
    }

    /// Fails the test unless it ends with this code.
    async fn ends(&self, arguments: &[&str], code: i32) -> Ran {
        let ran = self.run(arguments, "crm").await;
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.all());
        ran
    }

    async fn apply(&self) -> Ran {
        // Its slot is its own, because the stack's connector has the usual one.
        self.ends(&["apply", "--accept", "slot.name"], 0).await
    }

    /// Past the code under test. Kafka Connect answers 409 while it shares out tasks.
    async fn ask(&self, method: Method, what: &str, body: Option<&Value>) -> Value {
        let url = format!("{}/connectors/{}/{what}", stack("CONNECT_URL"), self.name);
        let url = url.trim_end_matches('/');
        let asking = async {
            loop {
                let mut request = self.http.request(method.clone(), url);
                if let Some(body) = body {
                    request = request
                        .header("Content-Type", "application/json")
                        .body(body.to_string());
                }
                let answer = request.send().await.expect("Kafka Connect answers");
                let status = answer.status();
                let text = answer.text().await.expect("a body");
                if status.is_success() {
                    return serde_json::from_str(&text).unwrap_or_default();
                }
                assert!(matches!(status.as_u16(), 409 | 500), "{method} {url}: {status}: {text}");
                tokio::time::sleep(LOOK).await;
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.unwrap_or_else(|_| panic!("{method} {url} is refused"))
    }

    /// Asks until connector and tasks are reported so.
    async fn is(&self, connector: &str, tasks: &[&str]) {
        let mut last = Value::Null;
        let asking = async {
            loop {
                last = self.ask(Method::GET, "status", None).await;
                let states: Vec<&str> = last["tasks"]
                    .as_array()
                    .map(|tasks| tasks.iter().filter_map(|task| task["state"].as_str()).collect())
                    .unwrap_or_default();
                if last["connector"]["state"] == connector && states == tasks {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, asking).await;
        assert!(waited.is_ok(), "never {connector} with {tasks:?}: {last}");
    }

    /// Asks the database until somebody reads from the slot (`1`), or nobody does.
    async fn readers(&self, wanted: &str) {
        let name = &self.name;
        let active = format!("select count(*)::text from pg_replication_slots where slot_name = '{name}' and active");
        let asking = async {
            while self.database.own.text(&active).await != wanted {
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, asking).await;
        assert!(waited.is_ok(), "never {wanted} who read from {name}");
    }

    /// A test that fails leaves everything to be looked at, until the stack goes.
    async fn done(self) {
        self.ask(Method::DELETE, "", None).await;
        let name = &self.name;
        self.readers("0").await;
        self.database
            .own
            .run(&format!("select pg_drop_replication_slot('{name}')"))
            .await;
        self.database.done().await;
    }
}

#[tokio::test]
async fn on_real_debezium_a_connector_is_made_compared_and_mended() {
    let house = House::new().await;
    // What Debezium finds, without changing anything: that it comes in, and every key that we set.
    let valid = house.ends(&["validate", "--online", "--accept", "slot.name"], 0).await;
    assert!(valid.out.contains("Kafka Connect finds nothing wrong"), "{}", valid.out);
    assert!(!valid.out.contains("unknown to the platform"), "{}", valid.out);
    let refused = house.run(&["apply", "--accept", "slot.name"], "sentinel-wrong").await;
    assert_eq!(refused.code, 1, "{}", refused.all());
    assert!(
        refused
            .out
            .contains("nothing was sent: Kafka Connect would not take it"),
        "{}",
        refused.out
    );
    assert!(
        refused.out.contains("password authentication failed"),
        "{}",
        refused.out
    );

    house.ends(&["status"], 1).await;
    house.ends(&["diff"], 1).await;
    let made = house.apply().await;
    assert!(made.out.contains(&format!("{}: created", house.name)), "{}", made.out);
    house.ends(&["status"], 0).await;
    house.readers("1").await;
    let again = house.apply().await;
    assert!(again.out.contains("nothing to change"), "{}", again.out);
    house.ends(&["diff"], 0).await;

    // Somebody's hand.
    let mut config = house.ask(Method::GET, "config", None).await;
    config["heartbeat.interval.ms"] = json!("0");
    config["snapshot.mode"] = json!("no_data");
    house.ask(Method::PUT, "config", Some(&config)).await;
    let differs = house.ends(&["diff", "--format", "json"], 1).await;
    let differs: Value = serde_json::from_str(&differs.out).expect("JSON");
    let told: Vec<_> = differs["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (one["key"].as_str(), one["live"].as_str(), one["wanted"].as_str()))
        .collect();
    let expected = [
        (Some("heartbeat.interval.ms"), Some("0"), Some("10000")),
        (Some("snapshot.mode"), Some("no_data"), Some("when_needed")),
    ];
    assert_eq!(told, expected);
    let mended = house.apply().await;
    assert!(
        mended.out.contains(&format!("{}: changed", house.name)),
        "{}",
        mended.out
    );
    house.ends(&["diff"], 0).await;
    house.done().await;
}

#[tokio::test]
async fn a_task_that_failed_under_a_running_connector_is_found_and_started_again_once_its_cause_is_mended() {
    let house = House::new().await;
    house.apply().await;
    house.ask(Method::PUT, "stop", None).await;
    house.is("STOPPED", &[]).await;
    let stopped = house.ends(&["status"], 1).await;
    assert!(stopped.out.contains("stopped by somebody"), "{}", stopped.out);
    // A change does not start what somebody stopped, and says so.
    house.ends(&["apply", "--accept", "slot.name"], 1).await;

    house.database.own.run("drop publication crm_cdc_publication").await;
    house.ask(Method::PUT, "resume", None).await;
    house.is("RUNNING", &["FAILED"]).await;
    let failed = house.ends(&["status"], 1).await;
    let name = &house.name;
    assert!(failed.out.contains(&format!("{name} is failed")), "{}", failed.out);
    assert!(failed.out.contains("the publication is not there"), "{}", failed.out);
    assert!(!failed.out.contains("\tat "), "{}", failed.out);
    let told = house.ends(&["status", "--format", "json"], 1).await;
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    assert_eq!(
        (
            &told["health"],
            &told["status"]["connector"]["state"],
            &told["status"]["tasks"][0]["cause"]
        ),
        (&json!("failed"), &json!("running"), &json!("publication_missing"))
    );

    house
        .database
        .own
        .run(
            "create publication crm_cdc_publication for table purchase_ledger, wallet_ledger, referral_ledger, mission_claims, \
             codes, form_submissions, dbz_heartbeat, dbz_signal",
        )
        .await;
    // Its configuration is as it should be: only the task has to start again.
    let started = house.apply().await;
    assert!(
        started.out.contains("what had failed was started again"),
        "{}",
        started.out
    );
    house.ends(&["status"], 0).await;
    house.done().await;
}
