//! A Debezium connector of a test's own: the template of `connectors`, with a slot and a prefix of its name.

use std::time::Duration;

use serde_json::{Value, json};

use super::LOOK;
use crate::postgres::Database;
use crate::real::stack;
use crate::real::worker::PATIENCE;

const TEMPLATE: &str = include_str!("../../../connectors/kafka-connect/crm-cdc-source.json");

pub(crate) struct Connector {
    /// Also of its slot.
    name: String,
    http: reqwest::Client,
}

impl Connector {
    /// Begins with a snapshot; waits until it runs.
    pub(super) async fn start(name: &str, database: &str, port: u16) -> Self {
        crm_event_processors::tls::install_provider();
        let port = port.to_string();
        let mut config = TEMPLATE.to_owned();
        for (placeholder, value) in [
            ("HOSTNAME", "127.0.0.1"),
            ("PORT", &port),
            ("NAME", database),
            ("USER", "crm_cdc"),
            ("PASSWORD", "crm"),
        ] {
            config = config.replace(&format!("${{DATABASE_{placeholder}}}"), value);
        }
        let mut config: Value = serde_json::from_str(&config).expect("JSON");
        config["name"] = json!(name);
        config["slot.name"] = json!(name);
        config["topic.prefix"] = json!(name);
        // A server that a test started for itself has no certificate.
        if !stack("POSTGRES_URL").contains(&format!(":{port}/")) {
            config["database.sslmode"] = json!("disable");
        }
        // What is not for this test: an own beat every second keeps the slot moving in a database that rests.
        config["heartbeat.interval.ms"] = json!("1000");
        let connector = Self {
            name: name.to_owned(),
            http: reqwest::Client::new(),
        };
        connector
            .ask(reqwest::Method::PUT, "config", Some(config.to_string()))
            .await;
        connector.is("RUNNING").await;
        connector
    }

    /// Its task ends; what it has read stays known.
    pub(super) async fn stop(&self) {
        self.ask(reqwest::Method::PUT, "stop", None).await;
        self.is("STOPPED").await;
    }

    pub(super) async fn resume(&self) {
        self.ask(reqwest::Method::PUT, "resume", None).await;
        self.is("RUNNING").await;
    }

    /// Whatever becomes of it.
    pub(super) async fn resume_into_failure(&self) {
        self.ask(reqwest::Method::PUT, "resume", None).await;
    }

    /// As an operator does who is short of disk; only possible while nobody reads from it.
    pub(super) async fn drop_slot(&self, database: &Database) {
        let name = &self.name;
        let inactive = format!("select (not active)::text from pg_replication_slots where slot_name = '{name}'");
        let released = async {
            while database.own.text(&inactive).await != "true" {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, released)
            .await
            .expect("the connector lets go");
        database
            .own
            .run(&format!("select pg_drop_replication_slot('{name}')"))
            .await;
    }

    pub(super) async fn remove(self, database: &Database) {
        self.ask(reqwest::Method::DELETE, "", None).await;
        self.drop_slot(database).await;
    }

    /// Kafka Connect answers 409 while it shares out tasks: then it is asked again.
    async fn ask(&self, method: reqwest::Method, what: &str, body: Option<String>) {
        let url = format!("{}/connectors/{}/{what}", stack("CONNECT_URL"), self.name);
        let url = url.trim_end_matches('/');
        let asking = async {
            loop {
                let mut request = self.http.request(method.clone(), url);
                if let Some(body) = &body {
                    request = request.header("Content-Type", "application/json").body(body.clone());
                }
                let answer = request.send().await.expect("Kafka Connect answers");
                let status = answer.status();
                if status.is_success() {
                    return;
                }
                let text = answer.text().await.unwrap_or_default();
                assert!(matches!(status.as_u16(), 409 | 500), "{method} {url}: {status}: {text}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        assert!(asked.is_ok(), "{method} {url} is refused");
    }

    /// Waits until connector and task are so; a task that failed fails the test.
    async fn is(&self, state: &str) {
        let url = format!("{}/connectors/{}/status", stack("CONNECT_URL"), self.name);
        let mut last = Value::Null;
        let asking = async {
            loop {
                let answer = self.http.get(&url).send().await.expect("Kafka Connect answers");
                last = serde_json::from_str(&answer.text().await.expect("a body")).unwrap_or_default();
                let task = last["tasks"][0]["state"].as_str();
                assert_ne!(task, Some("FAILED"), "{last}");
                let is_so = last["connector"]["state"] == state && task == (state == "RUNNING").then_some("RUNNING");
                if is_so {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, asking).await;
        assert!(waited.is_ok(), "never {state}: {last}");
    }
}
